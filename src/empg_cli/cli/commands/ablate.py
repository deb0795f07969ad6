"""`empg ablate`: variants times seeds, each cell a run; ends in tables with intervals."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from empg_cli.cli.flags import HydraFlags
from empg_cli.cli.jobs import COMMAND_LINE, run_training
from empg_cli.cli.launch import check_flags, run_hydra
from empg_cli.config.compose import INVALID
from empg_cli.config.problems import ConfigError, Problem
from empg_cli.invocation import as_value, command
from empg_cli.observe.stop import Stopped
from empg_cli.runs.study import Study, write_study

if TYPE_CHECKING:
    from omegaconf import DictConfig

log = logging.getLogger(__name__)


def ablate_task(cfg: DictConfig) -> float | None:
    """One cell: the training run that is left when the study's own keys are taken out."""
    from omegaconf import open_dict

    with open_dict(cfg):
        for key in ("ablation", "seeds"):
            del cfg[key]
    return run_training(cfg)


def run(
    overrides: Sequence[str],
    flags: HydraFlags,
    *,
    jobs: int = 1,
    wish: tuple[float, float | None] | None = None,
) -> None:
    """
    Args:
        jobs: cells at once, by the joblib launcher; 1 leaves the launcher to the overrides.
        wish: only print the plan, for this difference and standard deviation (see `forecast.Wish`).
    """
    from empg_cli.config.unsaid import with_unsaid

    check_flags(flags)
    config_name = flags.config_name or "ablate"
    overrides, notes = with_unsaid(overrides, config_name, flags.config_dir)
    for note in notes:
        print(note, file=sys.stderr)
    words = [*overrides, *_launcher(overrides, jobs)]
    if flags.only_shows:
        run_hydra(ablate_task, config_name, words, flags, again=None)
        return
    from empg_cli.studies.plan import make_study

    study = make_study(words, config_name=config_name, config_dir=flags.config_dir)
    if wish is not None:
        from empg_cli.reports.plan_view import print_plan
        from empg_cli.studies.forecast import Wish, forecast

        print_plan(study, forecast(study, Wish(*wish), jobs=jobs))
        return
    write_study(study)
    folder, again = f"hydra.sweep.dir={as_value(study.folder)}", command(*COMMAND_LINE[1:])
    try:
        run_hydra(ablate_task, config_name, [*words, folder], flags, again=again)
    except Stopped:
        print(f"The study:  {len(study.done())} of {len(study.cells)} cells are done", file=sys.stderr)
        raise
    finally:
        _report(study)


def across(words: Sequence[str], out: Path | None) -> None:
    """`--across`: one table over finished studies. Runs nothing."""
    from empg_cli.observe.terminal import write_line
    from empg_cli.reports.across_tables import across_table, write_across
    from empg_cli.reports.tables import print_table
    from empg_cli.studies.across import compare_across

    if settings := [word for word in words if not Path(word).is_dir()]:
        hint = "--across takes the folders of studies and nothing else"
        raise ConfigError(INVALID, [Problem(word, "no such folder", hint=hint) for word in settings])
    found = compare_across([Path(word) for word in words])
    print_table(across_table(found), sys.stdout)
    for path in write_across(found, out) if out else ():
        write_line(sys.stdout, str(path))


def _launcher(overrides: Sequence[str], jobs: int) -> list[str]:
    if jobs == 1:
        return []
    if any(word.lstrip("+").startswith("hydra/launcher=") for word in overrides):
        hint = "leave --jobs out and set hydra.launcher.* instead"
        raise ConfigError(INVALID, [Problem("--jobs", "is joblib's, and another launcher is chosen", hint=hint)])
    return ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={jobs}"]


def _report(study: Study) -> None:
    """The tables over what is there, also after a stop or a failure."""
    from empg_cli.reports.ablation_tables import print_comparison, write_tables
    from empg_cli.studies.comparison import compare

    comparison = compare(study)
    if comparison is None:
        log.warning("no cell of %s is done: no table", study.folder)
        return
    files = write_tables(comparison, study.folder)
    print_comparison(comparison, study.folder, files)
