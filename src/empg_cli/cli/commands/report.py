"""`empg report` and `empg show`: what finished or running runs have left, as figures, a page, or in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from empg_cli.observe.terminal import printable, write_line
from empg_cli.owner import working_in
from empg_cli.reports.tables import Table
from empg_cli.runs.reading import evaluation_trajectories, open_runs, unstarted


def run(paths: Sequence[Path], out: Path | None, *, figures: bool = True) -> None:
    """Figures and one HTML page in `out`; by default `report/` in the one folder given, else in the current one."""
    from empg_cli.reports.page.page import write_page

    runs = open_runs(paths)
    for missing in unstarted(paths):
        write_line(sys.stderr, printable(f"left out, as it has not logged anything yet: {missing}"))
    folder = out or (paths[0] if len(paths) == 1 else Path()) / "report"
    written = []
    with working_in(folder, "reporting"):
        if figures:
            from empg_cli.reports.figures import draw_figures

            written += draw_figures(runs, folder)
        write_page(runs, folder / "report.html", tables=_study_tables(paths))
    for path in [folder / "report.html", *written]:
        write_line(sys.stdout, printable(str(path)))


def show(path: Path, *, trajectories: int, texts: bool = False) -> None:
    """A run; or of a folder of runs their curves, after the table of a study; of an evaluation what was played."""
    from empg_cli.reports.show import show_run, show_runs, show_trajectories
    from empg_cli.reports.tables import print_table

    if (records := evaluation_trajectories(path)) is not None:
        show_trajectories(records, most=trajectories, texts=texts)
        return
    runs = open_runs([path])
    if len(runs) == 1:
        show_run(runs[0], trajectories=trajectories, texts=texts)
        return
    for table in _study_tables([path]):
        print_table(table, sys.stdout)
    show_runs(runs)


def show_metrics(search: str | None) -> None:
    from empg_cli.reports.show import list_metrics

    list_metrics(search)


def _study_tables(paths: Sequence[Path]) -> list[Table]:
    from empg_cli.reports.ablation_tables import main_table
    from empg_cli.runs.study import STUDY_FILE, read_study
    from empg_cli.studies.comparison import compare

    studies = [read_study(path) for path in paths if (path / STUDY_FILE).is_file()]
    return [main_table(comparison) for study in studies if (comparison := compare(study)) is not None]
