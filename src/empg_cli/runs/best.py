"""The best checkpoint of a run: the one whose evaluation solved most, of equal ones the earlier.

Nothing is written down about it: what the evaluations found and which checkpoints are there says it all, so it is right
after a crash, a rewind and a copy of the folder too.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from empg_cli.runs.evaluations import evaluation_files

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Best:
    update: int
    success_rate: float
    """In the run's own evaluation after that update."""
    checkpoint: Path

    def __str__(self) -> str:
        return f"{self.checkpoint.name}, {self.success_rate:.1%} after update {self.update}"


def best_of(run_dir: Path, checkpoints: Mapping[int, Path]) -> Best | None:
    """None when no checkpoint was evaluated.

    Args:
        checkpoints: by the updates that they have behind them.
    """
    evaluated = [
        Best(update, rate, checkpoints[update]) for update, rate in success_rates(run_dir) if update in checkpoints
    ]
    return max(evaluated, key=lambda one: one.success_rate, default=None)


def success_rates(run_dir: Path) -> list[tuple[int, float]]:
    """(update, success rate) of the run's own evaluations, in order; one that nobody could judge has none."""
    found = []
    for path in evaluation_files(run_dir):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["total"]["n"]:
                found.append((int(content["update"]), float(content["total"]["success_rate"])))
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s is no evaluation and is left out: %s", path, error)
    return found
