"""YAML files that people write or that lie in run folders: whatever bytes they hold, they end in a mapping or in one
sentence that names the place. Sizes are bounded before objects are made: a page of aliases can stand for a terabyte."""

from __future__ import annotations

import pickle
import re
from functools import wraps
from pathlib import Path
from typing import Any

import yaml

from empg_cli.errors import DataError

MOST_BYTES = 200_000
MOST_NODES = 20_000
"""Keys and values, with every alias written out."""
DEEPEST = 40
"""Mappings and lists inside each other. Hydra and OmegaConf need some 20 calls for each."""


class Loader(yaml.SafeLoader):
    """Takes 1e-5 for a number and 2026-01-01 for a text, as Hydra does."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML copies it before it is changed)
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_FLOAT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$")
Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789"))


KINDS = frozenset(
    f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map", "merge")
)
"""Of values; a configuration has no dates, sets, bytes or objects."""


def read_mapping(path: Path) -> dict[str, Any]:
    """What the file holds; an empty one is an empty mapping.

    Raises:
        DataError: it cannot be read, is not YAML, holds something else, or too much.
    """
    text = _text(path)
    try:
        loader = Loader(text)
        node = loader.get_single_node()
        if node is None:
            return {}
        _check(path, node)
        values = loader.construct_document(node)
    except DataError:
        raise
    except yaml.MarkedYAMLError as error:
        what = ", ".join(filter(None, (error.context, error.problem)))
        raise _broken(path, error.problem_mark or error.context_mark, what) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise DataError(f"{path}, line {line}: is not YAML: it holds the character {error.character:#x}") from error
    except RecursionError as error:
        raise DataError(f"{path}: is nested too deeply; {DEEPEST} levels are allowed") from error
    except Exception as error:  # constructors of PyYAML raise what int() and the like do
        raise _broken(path, None, str(error).partition("\n")[0]) from error
    if not isinstance(values, dict):
        raise DataError(f"{path}: is not a configuration: it holds {type(values).__name__}, not KEY: VALUE lines")
    return values


def guard_hydra(trusted: Path) -> None:
    """From now on Hydra reads a file only after `read_mapping` has; not its own files, nor those below `trusted`.

    These are taken not to change while this process runs, and parsed once: a command composes its configuration several
    times, a study each of its variants, and parsing is a third of a composition.
    """
    from hydra.core.plugins import Plugins
    from hydra.plugins.config_source import ConfigSource

    sources: list[Any] = Plugins.instance().discover(ConfigSource)
    for source in sources:
        if hasattr(source.load_config, "__wrapped__"):
            continue
        if source.scheme() == "file":
            source.load_config = _guarded(source.load_config, trusted)
        elif source.scheme() == "pkg":
            source.load_config = _parsed_once(source.load_config)


def _guarded(load: Any, trusted: Path) -> Any:
    kept = _parsed_once(load)

    @wraps(load)
    def load_config(source: Any, config_path: str) -> Any:
        name = config_path if config_path.endswith(".yaml") else f"{config_path}.yaml"
        file = Path(source.path) / name
        if file.is_file() and file.resolve().is_relative_to(trusted):
            return kept(source, config_path)
        if file.is_file():
            read_mapping(file)
        return load(source, config_path)

    return load_config


def _parsed_once(load: Any) -> Any:
    parsed: dict[tuple[str, str], bytes] = {}

    @wraps(load)
    def load_config(source: Any, config_path: str) -> Any:
        key = (source.path, config_path)
        if key not in parsed:
            parsed[key] = pickle.dumps(load(source, config_path))
        return pickle.loads(parsed[key])  # a copy each: Hydra writes into it

    return load_config


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    if len(content) > MOST_BYTES:
        raise DataError(f"{path}: is too large for a configuration: more than {MOST_BYTES:,} bytes")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {line}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from error


def _broken(path: Path, mark: yaml.Mark | None, problem: str) -> DataError:
    """Without the lines of the file: they may hold what nobody is to see."""
    place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return DataError(f"{path}{place}: is not readable YAML: {problem}; mend the file")


def _check(path: Path, root: yaml.Node) -> None:
    """No key twice, nothing inside itself, not too deep, and not too much once every alias is written out."""
    known: dict[int, tuple[int, int]] = {}
    open_nodes: set[int] = set()

    def measure(node: yaml.Node) -> tuple[int, int]:
        """Nodes in it, and levels of them."""
        if id(node) in known:
            return known[id(node)]
        place = f"{path}, line {node.start_mark.line + 1}"
        if id(node) in open_nodes:
            raise DataError(f"{place}: holds an alias of itself")
        if node.tag not in KINDS:
            raise _broken(path, node.start_mark, f"a value of the kind {node.tag} is no setting")
        open_nodes.add(id(node))
        inside = [measure(child) for child in _children(path, node)]
        open_nodes.discard(id(node))
        nodes, levels = 1 + sum(count for count, _ in inside), 1 + max((level for _, level in inside), default=0)
        if levels > DEEPEST:
            raise DataError(f"{place}: is nested too deeply; {DEEPEST} levels are allowed")
        if nodes > MOST_NODES:
            raise DataError(f"{place}: holds too much; {MOST_NODES:,} keys and values are allowed, aliases written out")
        known[id(node)] = nodes, levels
        return nodes, levels

    measure(root)


def _children(path: Path, node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    if not isinstance(node, yaml.MappingNode):
        return []
    seen: set[str] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
            if key.value in seen:
                raise DataError(f"{path}, line {key.start_mark.line + 1}: the key {key.value!r} stands there twice")
            seen.add(key.value)
    return [part for pair in node.value for part in pair]
