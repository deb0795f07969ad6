"""One configuration: composed by Hydra, validated by pydantic, every problem reported at once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hydra import compose, initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError, create_model

from empg_cli.config import explain, outside
from empg_cli.config.benchmarks import Benchmark
from empg_cli.config.checks import check_files, check_texts
from empg_cli.config.environment import check_environment
from empg_cli.config.location import conf_dir
from empg_cli.config.node import BenchmarkNode, Node
from empg_cli.config.problems import INVALID as INVALID
from empg_cli.config.problems import ConfigError, Problem, shortened
from empg_cli.config.schema import TrainConfig
from empg_cli.config.secrets import refuse_in_values, refuse_in_words
from empg_cli.config.targets import BENCHMARKS, installed
from empg_cli.config.yaml_files import guard_hydra
from empg_cli.errors import UserError

VERSION_BASE = "1.3"
REFUSALS = (HydraException, OmegaConfBaseException)

Config = TypeVar("Config", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Session:
    """Hydra's compose API, ready for one primary config."""

    config_name: str
    loader: ConfigLoader
    search: tuple[str, ...]
    """Override that adds a second folder of configs."""

    def compose(self, words: Sequence[str], *, with_hydra: bool = False) -> DictConfig:
        """
        Args:
            with_hydra: leave Hydra's own settings in, below `hydra`.

        Raises:
            HydraException, OmegaConfBaseException: it refuses a word, a file or a value.
            DataError: a file cannot be read.
        """
        try:
            return compose(self.config_name, overrides=[*self.search, *words], return_hydra_config=with_hydra)
        except (UserError, *REFUSALS):
            raise
        except Exception as error:  # nothing but Hydra is at work, and odd words make it raise ValueErrors and more
            raise HydraException(explain.first_line(error)) from error


@contextmanager
def hydra_session(config_name: str, config_dir: str | None = None, config_path: str | None = None) -> Iterator[Session]:
    """Compose from the shipped conf/ (or the folder `config_path` in its place), and from the user's own folder if
    given; a running Hydra job's state is put back.

    Hydra looks for the primary config in the main folder only, so that is the user's when it holds one of this name.
    """
    main = conf_dir() if config_path is None else Path(config_path).resolve()
    other = Path(config_dir).resolve() if config_dir is not None else None
    if other is not None and (other / f"{config_name}.yaml").is_file():
        main, other = other, main
    guard_hydra(conf_dir())
    register_installed(config_dir)
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(main), version_base=VERSION_BASE):
            search = () if other is None else (f"hydra.searchpath=[{_quoted(f'file://{other}')}]",)
            yield Session(config_name, GlobalHydra.instance().config_loader(), search)
    finally:
        GlobalHydra.instance().hydra = outer


def _quoted(text: str) -> str:
    """As a word of Hydra's grammar, whatever is in it."""
    return QuotedString(text=text, quote=Quote.single).with_quotes()


def register_installed(config_dir: str | None = None) -> None:
    """The benchmarks of installed packages as options: `benchmark=NAME`. Imports none.

    A file of that name goes before, ours or the user's: Hydra would take the node for its schema.
    """
    folders = [conf_dir(), *([Path(config_dir)] if config_dir is not None else [])]
    for name in installed(BENCHMARKS):
        if not any((folder / "benchmark" / f"{name}.yaml").is_file() for folder in folders):
            node = {"name": name, "target": name}
            ConfigStore.instance().store(group="benchmark", name=name, node=node, provider="entry point")


def parse(overrides: Sequence[str], loader: ConfigLoader) -> tuple[list[Override], list[Problem]]:
    """Hydra's parser on each word, so that every word it cannot read is reported.

    Raises:
        ConfigError: a word holds a secret.
    """
    refuse_in_words(overrides)
    parser = OverridesParser.create(config_loader=loader)
    parsed, problems = [], []
    for word in overrides:
        try:
            parsed += parser.parse_overrides([word])
        except Exception as error:  # its own, and what deep brackets and long numbers raise in a parser
            why = "" if isinstance(error, OverrideParseException) else f" ({explain.first_line(error)})"
            hint = "quote special characters: 'key=\"a, b\"'"
            problems.append(Problem(shortened(word), f"is not a KEY=VALUE override{why}", hint=hint))
    return parsed, problems


def unescaped(value: str) -> str:
    """A value as Hydra writes it (`a\\:b`), as it was meant."""
    return re.sub(r"\\(.)", r"\1", value)


def compose_job(
    overrides: Sequence[Override], schema: type[BaseModel], session: Session
) -> tuple[DictConfig, list[Problem]]:
    """The composed configuration without the overrides that Hydra refuses, and what is wrong with those."""
    try:
        return session.compose([str(override.input_line) for override in overrides]), []
    except REFUSALS:
        pass
    # Hydra stops at the first bad word. Add them one by one to find all, groups first, as Hydra applies them.
    try:
        cfg = session.compose([])
    except REFUSALS as error:  # no word is to blame: the primary config itself
        raise ConfigError(INVALID, [Problem(session.config_name, explain.first_line(error))]) from None
    kept: list[str] = []
    problems: list[Problem] = []
    bad_groups: list[str] = []
    for override in sorted(overrides, key=lambda override: not is_group(override, session.loader)):
        word, key = str(override.input_line), str(override.key_or_group)
        try:
            cfg = session.compose([*kept, word])
            kept.append(word)
        except REFUSALS as error:
            if is_group(override, session.loader):
                bad_groups.append(key)
                if not isinstance(override.value(), str | list):
                    options = session.loader.get_group_options(key.split("@")[0])
                    problems.append(explain.unknown_option(key, override.get_value_string(), options))
                    continue
            elif key.split(".")[0] in bad_groups:
                continue  # cannot be judged before the group is right
            values: Any = OmegaConf.to_container(cfg, resolve=False)
            problems.append(explain.from_override(error, word, schema, values))
    return cfg, problems


def is_group(override: Override, loader: ConfigLoader) -> bool:
    """The left side names a config group (`algo=grpo`), not a key (`algo.group_size=8`)."""
    key = str(override.key_or_group)
    return "/" in key or bool(loader.get_group_options(key, ObjectType.CONFIG))


def validate(
    cfg: DictConfig, schema: type[Config], problems: Sequence[Problem] = (), *, imports: bool = True
) -> Config:
    """The frozen, typed configuration; ConfigError with these and all further problems if there are any.

    Args:
        imports: False leaves settings of code from outside as they are; what a run has saved was checked before.
    """
    found = list(problems)
    try:
        values: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(INVALID, [*found, explain.from_interpolation(error)]) from None
    values.pop("hydra", None)
    refuse_in_values(values)
    found += check_texts(values) if issubclass(schema, TrainConfig) else []
    found += check_files(values)
    if imports:
        found += check_environment(values)
    unusable, unfilled = outside.check(values) if imports else ([], [])
    found += unusable
    typed = None
    try:
        typed = schema.model_validate(values)
    except ValidationError as error:
        seen = {problem.key for problem in found}
        more = [problem for problem in explain.from_pydantic(error, schema, values) if problem.key not in seen]
        missing_there = tuple(f"{node}." for node in unfilled)
        found += [p for p in more if not (p.what == explain.MISSING and p.key.startswith(missing_there))]
    if typed is None or found:
        raise ConfigError(INVALID, found)
    return typed


def benchmark_node(name: str, keys: Mapping[str, Any]) -> BenchmarkNode:
    """The settings of a benchmark of ours, outside of any command: these keys over those of its file in conf/."""
    with hydra_session("eval") as session:
        node: Any = OmegaConf.to_container(session.compose([f"benchmark={name}"]).benchmark, resolve=True)
    only: Any = create_model("OneBenchmark", __base__=Node, benchmark=(Benchmark, ...))
    values = {"benchmark": {**node, **keys}}
    problems = check_files(values)
    try:
        found = only.model_validate(values)
    except ValidationError as error:
        problems += explain.from_pydantic(error, only, values)
    if problems:
        raise ConfigError(INVALID, problems)
    benchmark: BenchmarkNode = found.benchmark
    return benchmark
