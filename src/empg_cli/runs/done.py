"""A job of a sweep that finds a run in its folder: the same one, finished or not, or another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from empg_cli.config.problems import ConfigError
from empg_cli.config.schema import TrainConfig
from empg_cli.runs.config_file import is_run, saved_values
from empg_cli.runs.facts import cell_hash
from empg_cli.runs.identity import differences


def summary_if_done(cfg: TrainConfig, run_dir: Path) -> dict[str, Any] | None:
    """`summary.json` of a run that has finished there with exactly these settings and this seed.

    Raises:
        ConfigError: the folder holds another run, which cannot go on as this one.
    """
    if not is_run(run_dir):
        return None
    problems, _ = differences(saved_values(run_dir), cfg, done=0)
    if problems:
        raise ConfigError(f"{run_dir} holds another run: give another run_dir", problems)
    try:
        summary: Any = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # stopped, killed, or at work
        return None
    is_done = isinstance(summary, dict) and summary.get("exit_code") == 0 and summary.get("cell_hash") == cell_hash(cfg)
    return summary if is_done else None
