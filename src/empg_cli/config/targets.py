"""Code from outside the package, by its address: `package.module:name`, or the name of an installed entry point."""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
import traceback
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from empg_cli.config.location import groups
from empg_cli.config.problems import INVALID, ConfigError, Problem, did_you_mean
from empg_cli.invocation import CALLED_IN

BENCHMARKS, SINKS = "empg.benchmarks", "empg.sinks"
"""Groups of entry points: name -> factory."""
PAGE = "docs/adding-a-benchmark.md"


def installed(group: str) -> list[str]:
    """Names of the entry points that installed packages declare. Imports none of them."""
    return sorted({point.name for point in entry_points(group=group)})


def options() -> dict[str, list[str]]:
    """Config group -> what can be chosen in it, installed benchmarks included."""
    found = groups()
    return {**found, "benchmark": sorted({*found["benchmark"], *installed(BENCHMARKS)})}


def is_address(target: str) -> bool:
    """`package.module:name`, which may be any code on this machine; a name without a colon was installed as ours."""
    return ":" in target


def default_name(target: str) -> str | None:
    """What a benchmark is named where nobody names it: its module, or its entry point. None for a name of ours."""
    from empg_cli.config.benchmarks import OURS

    name = target.partition(":")[0].rpartition(".")[2]
    return None if name in OURS else name


def load(target: str, group: str | None, key: str) -> Any:
    """What a target names. Importing runs its code.

    Args:
        group: the entry points that a bare name may mean; None = an address only.
        key: the setting that holds the target.

    Raises:
        ConfigError: it cannot be imported, or there is nothing callable of this name.
    """
    module_name, attribute = _address(target, group, key)
    try:
        module = _imported(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise refused(key, f"cannot be imported: {_reason(error)}", target) from error
        hint = f"modules are looked for in {_called_in()} and among installed packages"
        raise refused(key, f"no module named {error.name}", target, hint) from error
    except Exception as error:  # whatever a module of somebody else's does while it is read
        raise refused(key, f"cannot be imported: {_reason(error)}", target) from error
    found = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = did_you_mean(part, [name for name in vars(found) if not name.startswith("_")])
            what = f"{getattr(module, '__file__', None) or module_name} has no {attribute}"
            raise refused(key, what, target, near)
        found = getattr(found, part)
    if not callable(found):
        raise refused(key, f"is {type(found).__name__}, nothing that can be called", target)
    return found


def code_facts(target: str, group: str | None, key: str) -> dict[str, str]:
    """What the code behind a target is, so that runs made by other code can be told apart. Imports it."""
    module_name, _ = _address(target, group, key)
    digest = hashlib.sha256()
    for name, content in _files(module_name):
        digest.update(f"{name}\0".encode() + content)
    facts = {"target": target, "digest": digest.hexdigest()[:16]}
    point = None if is_address(target) else _entry_point(target, group)
    if point is not None and point.dist is not None:
        facts["package"] = f"{point.dist.name} {point.dist.version}"
    return facts


def refused(key: str, what: str, target: str, hint: str | None = None) -> ConfigError:
    return ConfigError(INVALID, [Problem(key, what, target, hint)])


def _address(target: str, group: str | None, key: str) -> tuple[str, str]:
    """Module and name in it."""
    if is_address(target):
        module, _, name = target.partition(":")
        if all(part.isidentifier() for part in [*module.split("."), *name.split(".")]):
            return module, name
    elif (point := _entry_point(target, group)) is not None:
        return point.module, point.attr
    known = installed(group) if group else []
    near = did_you_mean(target, known)
    hints = [near or "", f"installed: {', '.join(known)};" if known and not near else "", f"see {PAGE}"]
    what = "is not package.module:name" + (", nor the name of an installed entry point" if group else "")
    raise refused(key, what, target, " ".join(filter(None, hints)))


def _entry_point(name: str, group: str | None) -> EntryPoint | None:
    return next(iter(entry_points(group=group, name=name)), None) if group else None


def _imported(module: str) -> Any:
    """Last on the path stands the current folder: a console script does not look there, `python -m` does."""
    for folder in dict.fromkeys([str(Path.cwd()), _called_in()]):
        if folder not in sys.path:
            sys.path.append(folder)
    importlib.invalidate_caches()
    return importlib.import_module(module)


def _called_in() -> str:
    return os.environ.get(CALLED_IN) or str(Path.cwd())


def _reason(error: Exception) -> str:
    """The message and the line of code it is about: a traceback in one line."""
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {error.msg} ({error.filename}, line {error.lineno})"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen")]
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if len(frames) > 2 else ""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}{where}"


def _files(module_name: str) -> Iterator[tuple[str, bytes]]:
    """The module's file, or all Python files of the package that it belongs to."""
    top = _imported(module_name.partition(".")[0])
    folders = [Path(folder) for folder in getattr(top, "__path__", ())]
    for folder in folders:
        for file in sorted(folder.rglob("*.py")):
            yield str(file.relative_to(folder)), file.read_bytes()
    if not folders and getattr(top, "__file__", None):
        yield Path(top.__file__).name, Path(top.__file__).read_bytes()
