"""`empg ablate`: variants times seeds, each cell a run; ends in tables with intervals."""

from __future__ import annotations

import contextlib
import logging
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from empg_cli.cli.commands.train import check_demonstrations
from empg_cli.cli.flags import HydraFlags
from empg_cli.cli.jobs import COMMAND_LINE, run_training
from empg_cli.cli.launch import check_flags, run_hydra
from empg_cli.config.compose import INVALID
from empg_cli.config.problems import ConfigError, Problem
from empg_cli.errors import UserError
from empg_cli.invocation import as_value, command
from empg_cli.observe.stop import Stopped
from empg_cli.owner import FolderOwned
from empg_cli.runs.study import ELSEWHERE, Cell, Study, player_of, read_study, writing_into

if TYPE_CHECKING:
    from omegaconf import DictConfig

log = logging.getLogger(__name__)


def ablate_task(cfg: DictConfig) -> float | str | None:
    """One cell: the training run that is left when the study's own keys are taken out.

    Returns:
        As `train_task`; ELSEWHERE where another process plays the cell.
    """
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import open_dict

    folder = Path(HydraConfig.get().runtime.output_dir)
    with open_dict(cfg):
        for key in ("ablation", "seeds"):
            del cfg[key]
    if player_of(folder) is not None or _is_done(folder):  # in this order: who has just let go of it has finished it
        return ELSEWHERE
    try:
        return run_training(cfg)
    except FolderOwned:  # taken in this moment, or only looked at
        return ELSEWHERE if player_of(folder) is not None else run_training(cfg)


def _is_done(folder: Path) -> bool:
    study = read_study(folder.parent)
    return any(study.is_done(cell) for cell in study.cells if cell.folder == folder.name)


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
    from empg_cli.config.ablation import AblateConfig
    from empg_cli.config.command_line import refuse_secrets
    from empg_cli.config.environment import refuse_one_id_for_all
    from empg_cli.config.unsaid import with_unsaid

    check_flags(flags)
    config_name = flags.config_name or "ablate"
    overrides, notes = with_unsaid(overrides, config_name, flags.config_dir)
    for note in notes:
        print(note, file=sys.stderr)
    words = [*overrides, *_launcher(overrides, jobs)]
    if flags.only_shows:
        if flags.cfg is not None:
            refuse_secrets(config_name, words, AblateConfig, flags.config_dir)
        run_hydra(ablate_task, config_name, words, flags, again=None)
        return
    from empg_cli.studies.growth import entered
    from empg_cli.studies.plan import make_study

    asked = make_study(words, config_name=config_name, config_dir=flags.config_dir)
    if wish is not None:
        from empg_cli.reports.plan_view import print_plan
        from empg_cli.studies.forecast import Wish, forecast

        _refuse_impossible(asked, *wish)
        print_plan(asked, forecast(asked, Wish(*wish), jobs=jobs))
        return
    refuse_one_id_for_all()
    check_demonstrations(words)
    entered(asked)
    folder, again = f"hydra.sweep.dir={as_value(asked.folder)}", command(*COMMAND_LINE[1:])
    seeds = f"seeds=[{','.join(map(str, asked.seeds))}]"  # those of a confirmation are not 0 to n-1
    try:
        run_hydra(ablate_task, config_name, [*words, folder, seeds], flags, again=again)
    except BaseException as error:
        if isinstance(error, Stopped):
            print(f"The study:  {len(asked.done())} of {len(asked.cells)} cells are done", file=sys.stderr)
        with _said():
            _report(asked.folder)
        raise
    _say_who_plays(asked)
    _report(asked.folder)


def _refuse_impossible(study: Study, difference: float, sd: float | None) -> None:
    from empg_cli.observe.catalogue import definition_of
    from empg_cli.studies.comparison import is_up_to_one

    metric = definition_of(study.metric)
    is_share = metric is not None and is_up_to_one(metric.unit)
    for flag, value in (("--detect", difference), ("--sd", sd)):
        if value is None:
            continue
        if not math.isfinite(value):
            raise ConfigError(INVALID, [Problem(flag, "is no number to plan with", f"{value:g}")])
        if is_share and value > 1:
            hint = f"{study.metric} is counted from 0 to 1: 0.05 are 5 points"
            raise ConfigError(INVALID, [Problem(flag, "is more than a share can differ", f"{value:g}", hint)])


def across(words: Sequence[str], out: Path | None) -> None:
    """`--across`: one table over finished studies. Runs nothing."""
    from empg_cli.observe.terminal import write_line
    from empg_cli.reports.across_tables import across_table, write_across
    from empg_cli.reports.tables import print_table
    from empg_cli.studies.across import compare_across

    folders = [word for word in words if word not in ("ablation.mixed=mark", "ablation.mixed=refuse")]
    if wrong := [word for word in folders if not Path(word).is_dir()]:
        hint = "--across takes the folders of studies, ablation.mixed=mark, and nothing else"
        raise ConfigError(INVALID, [Problem(word, "no such folder", hint=hint) for word in wrong])
    found = compare_across(list(map(Path, folders)), mixed="mark" if "ablation.mixed=mark" in words else "refuse")
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


def _say_who_plays(asked: Study) -> None:
    """The cells that were left to other processes, and are not done yet."""
    players: dict[str, list[Cell]] = {}
    for cell in asked.pending():
        if (player := player_of(asked.cell_dir(cell))) is not None:
            players.setdefault(str(player), []).append(cell)
    for who, cells in players.items():
        names = ", ".join(cell.folder for cell in cells)
        print(f"Played by {who}: {len(cells)} of {len(asked.cells)} cells ({names}); the tables will have them when "
              "it ends", file=sys.stderr)  # fmt: skip


@contextlib.contextmanager
def _said() -> Iterator[None]:
    """A second thing that is wrong, said beside the first."""
    try:
        yield
    except UserError as error:
        log.error("%s", error)


def _report(folder: Path) -> None:
    """The tables over all that the folder holds, also after a stop or a failure, and while others play on. Who is last
    has seen every cell: nobody else writes meanwhile.

    Raises:
        MixedStudy: the cells are not made of the same, and the study does not take that.
    """
    from empg_cli.reports.ablation_tables import print_comparison, write_tables
    from empg_cli.runs.mixture import mixed_study
    from empg_cli.studies.comparison import compare

    with writing_into(folder):
        study = read_study(folder)
        comparison = compare(study)
        if comparison is None:
            log.warning("no cell of %s is done: no table", folder)
            return
        if comparison.mixtures and study.mixed == "refuse":
            raise mixed_study(folder, comparison.mixtures)
        files = write_tables(comparison, folder)
    print_comparison(comparison, folder, files)
