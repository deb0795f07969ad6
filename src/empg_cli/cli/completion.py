"""Shell completion of Hydra overrides: groups, their options, dotted keys. Loads the schema, not Hydra."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from empg_cli.config.targets import options


def complete_word(incomplete: str, environ: Mapping[str, str] = os.environ) -> list[str]:
    """What the word being typed may become.

    Bash cuts words at `=`: `benchmark=al` arrives as `benchmark`, `=`, `al`, and wants the last part only.
    """
    before = environ.get("COMP_WORDS", "").split()[: int(environ.get("COMP_CWORD") or 0)]
    left = ""
    if incomplete == "=" and before:
        left, incomplete = f"{before[-1]}=", ""
    elif len(before) > 1 and before[-1] == "=":
        left = f"{before[-2]}="
    return [candidate.removeprefix(left) for candidate in _candidates(left + incomplete)]


def _candidates(text: str) -> Iterator[str]:
    key = text.lstrip("+~")
    sign = text[: len(text) - len(key)]
    group, equals, option = key.partition("=")
    known = options()
    if equals:
        yield from (f"{sign}{group}={name}" for name in known.get(group, []) if name.startswith(option))
        return
    matching = [name for name in known if name.startswith(group)]
    keys = [name for name in _keys() if name.startswith(group)]
    if len(matching) == 1 and not keys:  # bash appends a blank after `benchmark=`: offer the options at once
        yield from (f"{sign}{matching[0]}={name}" for name in known[matching[0]])
        return
    yield from (f"{sign}{name}=" for name in [*matching, *keys])


def _keys() -> list[str]:
    from empg_cli.config.keys import known_keys
    from empg_cli.config.schema import EvalConfig, TrainConfig

    parents: set[str] = set()
    keys = list(dict.fromkeys([*known_keys(TrainConfig), *known_keys(EvalConfig)]))
    for key in keys:
        parents.update(key.rsplit(".", depth)[0] for depth in range(1, key.count(".") + 1))
    return [key for key in keys if key not in parents]
