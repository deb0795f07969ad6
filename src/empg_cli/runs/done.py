"""A job of a sweep that finds a run in its folder: the same one, finished or not, or another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from empg_cli.config.problems import ConfigError
from empg_cli.config.schema import TrainConfig
from empg_cli.runs.config_file import is_run, saved_values
from empg_cli.runs.identity import Rule, differences, rule_of


def summary_if_done(cfg: TrainConfig, run_dir: Path) -> dict[str, Any] | None:
    """`summary.json` of a run that has finished there with these settings and this seed; what may change when a run
    goes on may be another.

    Raises:
        ConfigError: the folder holds another run, which cannot go on as this one.
    """
    if not is_run(run_dir):
        return None
    problems, changes = differences(saved_values(run_dir), cfg, done=0)
    if problems:
        raise ConfigError(f"{run_dir} holds another run: give another run_dir", problems)
    try:
        summary: Any = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # stopped, killed, or at work
        return None
    if not isinstance(summary, dict) or any(rule_of(change.key) is Rule.CONTENT for change in changes):
        return None  # whether data or weights elsewhere are the same, the run itself finds out
    is_done = summary.get("exit_code") == 0 and summary.get("updates") == cfg.trainer.updates
    return summary if is_done else None
