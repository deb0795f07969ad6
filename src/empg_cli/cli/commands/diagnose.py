"""`empg diagnose RUN`: EMPG's theory on the user's own policy, as tables, JSON and CSV."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from empg_cli.config.job import load_job
from empg_cli.config.schema import EvalConfig
from empg_cli.evaluation.diagnosis import FOLDER, write_diagnosis
from empg_cli.observe.dashboard import Dashboard
from empg_cli.observe.terminal import printable, write_line
from empg_cli.owner import working_in
from empg_cli.reports.diagnosis_tables import diagnosis_tables
from empg_cli.reports.tables import print_table
from empg_cli.runs.config_file import find_run_folder
from empg_cli.runs.own_config import primary_config


def run(
    path: Path,
    overrides: Sequence[str],
    *,
    episodes: int,
    gradients: int,
    before: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    folder = find_run_folder(path)
    cfg = load_job(primary_config("eval", folder, overrides, run=str(path)), overrides, EvalConfig)
    target = out or folder / FOLDER
    from empg_cli.evaluation.theory import diagnose  # brings torch: seconds

    with working_in(target, "diagnosing"):
        with Dashboard(cfg.logger.console, f"diagnosing {path}", total_updates=1) as dashboard:
            found = diagnose(
                cfg,
                path,
                folder,
                episodes=episodes,
                gradients=gradients,
                before=before,
                progress=lambda done, total: dashboard.phase("episodes", done, total),
            )
        if as_json:  # before anything is written, so that a full disk takes no result away
            print(json.dumps(asdict(found)))
        else:
            for table in diagnosis_tables(found):
                print_table(table, sys.stdout)
                write_line(sys.stdout, "")
        for file in write_diagnosis(found, target):
            if not as_json:
                write_line(sys.stdout, printable(str(file)))
