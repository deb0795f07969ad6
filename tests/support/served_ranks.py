"""A run of two ranks whose episodes ask servers that run elsewhere: python -m tests.support.served_ranks OUT WORD..."""

from __future__ import annotations

import sys
from pathlib import Path

from torch import Tensor

from empg_cli import config
from empg_cli.loop import train
from empg_cli.ranks import Ranks
from tests.support import rank_jobs


def main(out: Path, words: list[str]) -> None:
    def run(ranks: Ranks, folder: Path) -> dict[str, Tensor]:
        train(config.load([*words, "dist=node", f"dist.processes={ranks.size}"]), folder / "run", ranks)
        return {}

    rank_jobs.JOBS["served"] = run  # type: ignore[index]
    rank_jobs.main(out, ["2:served"])


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
