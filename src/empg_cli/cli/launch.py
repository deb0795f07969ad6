"""Typer in front, Hydra behind: hands a checked command line to hydra.main(), which calls the task (`cli.jobs`)."""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from empg_cli.cli.claim import Admit, claimed, new_folder
from empg_cli.cli.flags import HydraFlags
from empg_cli.cli.jobs import COMMAND_LINE
from empg_cli.cli.sweep import MAIN_PID, leading
from empg_cli.config.problems import ConfigError, Problem
from empg_cli.errors import UserError
from empg_cli.invocation import as_value, command, from_here
from empg_cli.owner import owning

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from empg_cli.config.command_line import Sweep

HYDRAS = ("hydra", "omegaconf", "logging")
"""Modules that raise anything at settings of Hydra's own."""


def check_flags(flags: HydraFlags) -> None:
    from empg_cli.config.compose import INVALID

    if flags.multirun and flags.only_shows:
        raise ConfigError(INVALID, [Problem("--multirun", "cannot be combined with --cfg, --info or --hydra-help")])
    for flag, folder in (("--config-dir", flags.config_dir), ("--config-path", flags.config_path)):
        if folder is not None and not Path(folder).is_dir():
            raise ConfigError(INVALID, [Problem(flag, "no such folder", folder)])
    if flags.rerun is not None and (fault := _fault_of_pickle(Path(flags.rerun))):
        raise ConfigError(INVALID, [Problem("--experimental-rerun", fault, flags.rerun)])
    if flags.resolve and flags.cfg is None:
        raise ConfigError(INVALID, [Problem("--resolve", "is read with --cfg only")])
    if [flags.cfg, flags.info].count(None) == 0:
        raise ConfigError(INVALID, [Problem("--info", "cannot be combined with --cfg")])


def _fault_of_pickle(path: Path) -> str | None:
    from omegaconf import DictConfig

    if not path.is_file():
        return "no such file"
    try:
        with path.open("rb") as file:
            is_config = isinstance(pickle.load(file), DictConfig)
    except Exception:  # pickles of other things raise anything
        is_config = False
    return None if is_config else "is no configuration that a callback of Hydra's has pickled"


def launch(
    task: Callable[[DictConfig], Any],
    schema: type[BaseModel],
    config_name: str,
    overrides: Sequence[str],
    flags: HydraFlags,
    *,
    doing: str,
    admit: Admit | None = None,
) -> None:
    """Check the whole command line, then run `task` under hydra.main: once, or once for each job of a sweep.

    Args:
        task: a module-level function; launchers send it to their workers by name.
        doing: what the owner of the folder is said to do there.
        admit: looks at the folder of a single job before Hydra writes there.

    Raises:
        ConfigError: before any folder is made.
        FolderOwned: another process works in the folder.
        Stopped, JobFailed: from a job.
    """
    from empg_cli.config.command_line import check_command_line, refuse_secrets
    from empg_cli.config.unsaid import with_unsaid

    check_flags(flags)
    own_source = flags.config_path is not None or flags.rerun is not None
    if not own_source:
        overrides, notes = with_unsaid(overrides, config_name, flags.config_dir)
        for note in notes:
            print(note, file=sys.stderr)
    sweep = None
    if flags.cfg is not None and not own_source:
        refuse_secrets(config_name, overrides, schema, flags.config_dir)
    if not (flags.only_shows or flags.rerun is not None):
        folders = {"config_dir": flags.config_dir, "config_path": flags.config_path}
        sweep = check_command_line(config_name, overrides, schema, multirun=flags.multirun, **folders)
    if sweep is not None:
        _launch_sweep(task, schema, config_name, overrides, flags, sweep)
        return
    place = None
    if not (flags.only_shows or own_source):
        from empg_cli.config.place import output_place

        place = output_place(config_name, overrides, config_dir=flags.config_dir)
    if place is None:
        run_hydra(task, config_name, overrides, flags, again=None)
        return
    with claimed(place, doing, admit) as named:
        run_hydra(task, config_name, [*overrides, *named], flags, again=None)


def _launch_sweep(
    task: Callable[[DictConfig], Any],
    schema: type[BaseModel],
    config_name: str,
    overrides: Sequence[str],
    flags: HydraFlags,
    sweep: Sweep,
) -> None:
    from empg_cli.config.environment import refuse_one_id_for_all

    refuse_one_id_for_all()
    with _sweep_folder(sweep) as folder:
        own = _own_overrides(sweep, folder, schema)
        place = [] if sweep.is_named else [f"run_dir={as_value(from_here(folder))}"]
        again = command(*COMMAND_LINE[1:], *place)
        if sweep.optuna is not None:
            from empg_cli.cli.optuna_study import trials_to_go  # brings optuna: seconds

            overrides = [*overrides, *trials_to_go(sweep.optuna, folder)]
        there = f"hydra.sweep.dir={as_value(folder)}"  # last: a name by the time is another one by now
        run_hydra(task, config_name, [*own, *overrides, there], flags, again=again)


def run_hydra(
    task: Callable[[DictConfig], Any],
    config_name: str,
    overrides: Sequence[str],
    flags: HydraFlags,
    *,
    again: str | None,
) -> None:
    """`task` under hydra.main, with a command line that has been checked.

    Args:
        again: the command that goes on with all jobs of a sweep; None for a single job.
    """
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from empg_cli.config.compose import INVALID, VERSION_BASE, register_installed
    from empg_cli.config.explain import first_line
    from empg_cli.config.location import conf_dir
    from empg_cli.config.yaml_files import guard_hydra

    guard_hydra(conf_dir())
    register_installed(flags.config_dir)
    wants_raw_errors = os.environ.get("HYDRA_FULL_ERROR") == "1"
    own_help = ["hydra/hydra_help=empg"] if flags.hydra_help else []  # of flags that are taken here
    argv = [sys.argv[0], *flags.words(), *own_help, *overrides]
    run = hydra.main(version_base=VERSION_BASE, config_path=str(conf_dir()), config_name=config_name)(task)
    variables = {"HYDRA_FULL_ERROR": "1", MAIN_PID: str(os.getpid())}
    with (
        _argv(argv),
        _env(variables),
        leading(again) if again else contextlib.nullcontext(),
        _without_hydras_line(),
    ):
        try:
            run()
        except (HydraException, OmegaConfBaseException) as error:
            if wants_raw_errors:
                raise
            raise ConfigError(INVALID, [Problem("", first_line(error))]) from error
        except Exception as error:
            *_, (frame, _) = traceback.walk_tb(error.__traceback__)
            raised_by = frame.f_globals.get("__name__", "").split(".")[0]
            if wants_raw_errors or isinstance(error, UserError | OSError) or raised_by not in HYDRAS:
                raise
            what = f"Hydra refuses its settings, in {frame.f_code.co_name}: {first_line(error)}"
            raise ConfigError(INVALID, [Problem("hydra", what)]) from error


@contextlib.contextmanager
def _sweep_folder(sweep: Sweep) -> Iterator[Path]:
    """The folder of all jobs, owned while the block runs; one that nobody has named is new, also within a second."""
    folder = Path(sweep.folder).absolute()
    if sweep.is_named:
        folder.mkdir(parents=True, exist_ok=True)
    else:
        folder = new_folder(folder)
    with owning(folder, "sweeping"):
        yield folder


def _own_overrides(sweep: Sweep, folder: Path, schema: type[BaseModel]) -> list[str]:
    """What the user's own words may still change, as they come later.

    Sub folders named by what the sweep varies; and the same command again goes on with the jobs that were stopped.
    """
    going_on = ["resume=auto"] if "resume" in schema.model_fields else []
    unnamed = [*sweep.unnamed_keys, "run_dir", *(word.split("=")[0] for word in going_on)]
    hidden = ",".join(dict.fromkeys(key for key in unnamed if not key.startswith("hydra")))
    subdir = [] if sweep.subdir is None else [f"hydra.sweep.subdir='{sweep.subdir}'"]
    excluded = f"hydra.job.config.override_dirname.exclude_keys=[{hidden}]"
    return [excluded, f"run_dir={as_value(folder)}", *subdir, *going_on]


@contextlib.contextmanager
def _without_hydras_line() -> Iterator[None]:
    """Hydra says "Error executing job with overrides: [...]" before it raises a job's error: our border speaks."""
    from hydra.core.utils import JobReturn, JobStatus

    hydras: Any = vars(JobReturn)["return_value"]

    def value(self: JobReturn) -> Any:
        if self.status == JobStatus.FAILED:
            raise self._return_value
        return hydras.fget(self)

    setattr(JobReturn, "return_value", property(value, hydras.fset))  # noqa: B010 (a type checker refuses the other way)
    try:
        yield
    finally:
        setattr(JobReturn, "return_value", hydras)  # noqa: B010


@contextlib.contextmanager
def _argv(argv: list[str]) -> Iterator[None]:
    before, sys.argv = sys.argv, argv
    try:
        yield
    finally:
        sys.argv = before


@contextlib.contextmanager
def _env(values: dict[str, str]) -> Iterator[None]:
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value
