"""Lay out the tiny ALFWorld agents that earlier commits shipped: the same architecture and words, other imitation.

python -m scripts.why.agents studies/agents
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

EARLIER = {"1250": "2785f67", "1000": "3439de5"}
"""Step at which imitation was stopped -> a commit that shipped the agent. 1250 is the one that
docs/studies/alfworld-tiny.md trained, of other games and another expert. 1000 is of the games and the expert of today,
whose agent was stopped at 750. All have the same words and architecture."""
ASSETS = "src/empg_cli/assets/tiny-alfworld"
FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("out", type=Path)
    lay_out(parser.parse_args().out)


def lay_out(out: Path) -> None:
    """Writes `out`/STEP for each; what is there stays.

    Raises:
        subprocess.CalledProcessError: git does not know the commit, as in a shallow clone: git fetch --unshallow.
    """
    root = Path(__file__).parents[2]
    for step, commit in EARLIER.items():
        folder = out / step
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            if not (folder / name).exists():
                show = ["git", "-C", str(root), "show", f"{commit}:{ASSETS}/{name}"]
                (folder / name).write_bytes(subprocess.run(show, check=True, capture_output=True).stdout)


if __name__ == "__main__":
    main()
