"""Before the first job of a run or a sweep: compose and validate what it will run, without making a folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf
from pydantic import BaseModel

from empg_cli.config.compose import INVALID, Session, compose_job, hydra_session, is_group, parse, unescaped, validate
from empg_cli.config.explain import first_line
from empg_cli.config.problems import ConfigError, Problem
from empg_cli.config.secrets import refuse_in_values

MAX_COMBINATIONS = 32  # composed in full; a larger sweep is checked by axis, about 0.15 CPU-s a job
LONGEST_NAME = 40
MOST_VALUES = 1000
"""Of one axis: Hydra makes all jobs of a sweep before the first one runs."""


@dataclass(frozen=True, slots=True)
class OptunaSettings:
    """Of a sweep by Optuna whose study outlives the command."""

    storage: str
    study_name: str
    n_trials: int


@dataclass(frozen=True, slots=True)
class Sweep:
    """What the command line says about a sweep, for Hydra's folder settings."""

    subdir: str | None
    """The name of each job's folder, an interpolation; None for Hydra's own, made of the words that vary."""
    unnamed_keys: tuple[str, ...]
    """Keys and groups that do not vary, or whose values cannot be part of a folder's name."""
    folder: str
    """Where it goes: the user's own `run_dir=...`, else `hydra.sweep.dir`."""
    is_named: bool
    """The folder is the same whenever the command is called; else its name is the time."""
    optuna: OptunaSettings | None = None


def check_command_line(
    config_name: str,
    overrides: Sequence[str],
    schema: type[BaseModel],
    *,
    multirun: bool = False,
    config_dir: str | None = None,
    config_path: str | None = None,
) -> Sweep | None:
    """Raise ConfigError with every problem of every job checked; return the sweep, or None for a single run.

    Args:
        config_dir: a second folder of configurations, beside conf/.
        config_path: a folder in the place of conf/.
    """
    with hydra_session(config_name, config_dir, config_path) as session:
        words, problems = parse(overrides, session.loader)
        multirun = multirun or any(word.key_or_group == "hydra.mode" and word.value() == "MULTIRUN" for word in words)
        if not multirun:
            for word in [word for word in words if word.is_sweep_override()]:
                words.remove(word)
                problems.append(_sweep_without_flag(word))
            cfg, refused = compose_job(words, schema, session)
            validate(cfg, schema, [*problems, *refused])
            return None
        failed_in: dict[Problem, list[str]] = {problem: [] for problem in problems}
        jobs = list(_jobs(words, session.loader))
        for job, name in jobs:
            cfg, refused = compose_job(job, schema, session)
            try:
                validate(cfg, schema, refused)
            except ConfigError as error:
                for problem in error.problems:
                    failed_in.setdefault(problem, []).append(name)
        if failed_in:
            in_some = [names for names in failed_in.values() if 0 < len(names) < len(jobs)]
            where = f"in the job: {in_some[0][0]}" if in_some else None
            raise ConfigError(INVALID, list(failed_in), where)
        subdir, unnamed = _naming(words, session.loader)
        hydra, is_named = _hydra_settings(words, jobs[0][0], session)
        return Sweep(subdir, unnamed, str(hydra.sweep.dir), is_named, _optuna(hydra.sweeper))


def refuse_secrets(
    config_name: str, overrides: Sequence[str], schema: type[BaseModel], config_dir: str | None = None
) -> None:
    """Of a configuration that is only to be printed, valid or not: files may hold some too.

    Raises:
        ConfigError: it holds one.
    """
    with hydra_session(config_name, config_dir) as session:
        words, _ = parse(overrides, session.loader)
        cfg, _ = compose_job([word for word in words if not word.is_sweep_override()], schema, session)
        values: Any = OmegaConf.to_container(cfg, resolve=False)
        refuse_in_values(values)


def _sweep_without_flag(word: Override) -> Problem:
    key = word.get_key_element().lstrip("+")
    hint = f"add -m for a sweep; a list is {key}=[...]"
    return Problem(key, "has several values but this is a single run", unescaped(word.get_value_string()), hint)


def _jobs(words: Sequence[Override], loader: ConfigLoader) -> Iterator[tuple[list[Override], str]]:
    """The jobs to check, each with the swept part of its command line."""
    axes = [_axis(word) for word in words]
    axes = [axis for axis in axes if axis]
    swept = [len(axis) > 1 for axis in axes]
    combinations = _all_or_by_axis(axes)
    parser = OverridesParser.create(config_loader=loader)
    for combination in combinations:
        name = " ".join(
            unescaped(word.lstrip("+")) for word, is_swept in zip(combination, swept, strict=True) if is_swept
        )
        yield parser.parse_overrides(list(combination)), name


def _axis(word: Override) -> list[str]:
    if not word.is_sweep_override():
        return [str(word.input_line)]
    if not word.is_discrete_sweep():
        return []  # an interval: the sweeper samples it and each worker validates what it got
    try:
        values = list(islice(word.sweep_string_iterator(), MOST_VALUES + 1))
        fault = None if values else "has no value"
    except Exception as error:  # Hydra's: a range without a step, a pattern where there are no options
        values, fault = [], f"cannot be swept: {first_line(error)}"
    if len(values) > MOST_VALUES:
        fault = f"has more than {MOST_VALUES:,} values"
    if fault is not None:
        raise ConfigError(INVALID, [Problem(str(word.key_or_group), fault, unescaped(word.get_value_string()))])
    return [f"{word.get_key_element()}={value}" for value in values]


def _all_or_by_axis(axes: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """Every combination of a small sweep; of a big one the first combinations and each value of each axis once."""
    combinations = list(islice(product(*axes), MAX_COMBINATIONS + 1))
    if len(combinations) <= MAX_COMBINATIONS:
        return combinations
    first = [axis[0] for axis in axes]
    by_axis = [(*first[:i], value, *first[i + 1 :]) for i, axis in enumerate(axes) for value in axis[1:]]
    return list(dict.fromkeys([*combinations[:MAX_COMBINATIONS], *by_axis]))


def _naming(words: Sequence[Override], loader: ConfigLoader) -> tuple[str | None, tuple[str, ...]]:
    """`subdir` and `unnamed_keys` of the sweep."""
    naming = [word for word in words if _can_name_a_folder(word)]
    return _subdir(naming, loader), tuple(str(word.key_or_group) for word in words if not _can_name_a_folder(word))


def _hydra_settings(words: Sequence[Override], job: Sequence[Override], session: Session) -> tuple[Any, bool]:
    """Hydra's own part of the composed configuration, and whether the sweep's folder has a name in it.

    Args:
        job: the words of the first job.
    """
    folders = [f"hydra.sweep.dir={word.get_value_string()}" for word in words if word.key_or_group == "run_dir"]
    folders = folders[-1:] + [str(word.input_line) for word in words if word.key_or_group == "hydra.sweep.dir"]
    hydra = session.compose([*(str(word.input_line) for word in job), *folders], with_hydra=True).hydra
    written: Any = OmegaConf.to_container(hydra.sweep, resolve=False)
    return hydra, "${now:" not in str(written["dir"])


def _optuna(sweeper: Any) -> OptunaSettings | None:
    if "hydra_optuna_sweeper" not in sweeper._target_ or not (sweeper.storage and sweeper.study_name):
        return None
    return OptunaSettings(str(sweeper.storage), str(sweeper.study_name), int(sweeper.n_trials))


def _subdir(naming: Sequence[Override], loader: ConfigLoader) -> str | None:
    """Hydra names a folder by the words as written, `++a.b=c\\:d`; where one has a plus, name it by keys and values."""
    if not naming:
        return "${hydra.job.num}"
    if not any(word.get_key_element().startswith("+") for word in naming):
        return None
    parts = []
    for word in naming:
        key = str(word.key_or_group)
        value = f"hydra.runtime.choices.{key}" if is_group(word, loader) else key
        parts.append(f"{key}=${{{value}}}")
    return "${hydra.job.num}-" + ",".join(sorted(parts))


def _can_name_a_folder(word: Override) -> bool:
    """Swept, and neither a path nor long."""
    if not word.is_sweep_override():
        return False
    values = word.sweep_string_iterator() if word.is_discrete_sweep() else []
    return all("/" not in value and len(value) <= LONGEST_NAME for value in values)
