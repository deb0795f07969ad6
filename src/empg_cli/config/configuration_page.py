"""docs/configuration.md: `python -m empg_cli.config.configuration_page docs/configuration.md` writes it anew.

Type and bounds come from the schema, meanings from the docstrings of its fields, defaults from conf/ as it is composed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from empg_cli.config.ablation import AblateConfig, Ablation
from empg_cli.config.compose import hydra_session
from empg_cli.config.keys import Choice, option_values, presets, tag_key, tagged, variants
from empg_cli.config.location import conf_dir
from empg_cli.config.plan import PlanSettings
from empg_cli.config.schema import EvalConfig, TrainConfig
from empg_cli.config.type_words import meaning, meaning_of_class, type_words

PARTS = {"benchmark.retrieval": "retrieval", "benchmark.judge": "judge", "endpoint": "endpoint"}
"""Nodes whose keys come from a config group of their own."""
ABSENT = object()
SHOWN = 8
"""Options that a choice is shown with."""

HEAD = """# Configuration

<!-- generated: python -m empg_cli.config.configuration_page docs/configuration.md -->

Every key that a command line, an experiment or a file of yours may set: `empg train trainer.lr=1e-5 algo=grpo`. Unknown
keys, values out of range, and keys that the active choice does not read are refused before anything is loaded.

* **Default**: what `conf/` composes without a word of yours, an interpolation as it is written there; for a choice that
  is not the default one, what the first option named above its table brings. A model preset, an experiment and
  `trainer=paper` bring values of their own: `empg train --cfg job model=qwen2.5-1.5b` shows what comes out.
* **null** is written `null`, lists `[a,b]`, a mapping `{key:value}`; a word that holds `,` `=` or blanks is quoted for
  Hydra and for the shell: `'key="a, b"'`.
* A table with "read when" in front is of a **choice**: its keys exist only then.
* `empg train --help` lists the groups and their options, `empg train --cfg job` every key with its value.

"""


def configuration_page() -> str:
    """The whole page."""
    parts = [HEAD, *_command("train", TrainConfig, "train", "`empg train`")]
    shared = ", ".join(f"`{name}`" for name in ("model", "benchmark", "rollout", "trainer", "logger"))
    parts.append(f"## `empg eval`\n\nBeside the sections {shared} above; with `run=DIR` those of that run hold.\n\n")
    parts += _own("eval", EvalConfig, set(TrainConfig.model_fields) - {"seed", "run_dir"})
    parts.append("## `empg ablate`\n\nBeside all keys of `empg train`, which hold for every cell of the study.\n\n")
    parts += _own("ablate", AblateConfig, set(TrainConfig.model_fields) - {"run_dir"})
    parts += _section("ablation", Ablation, _composed("ablate"))
    parts.append("## `empg plan`\n\nBeside all keys of `empg train`.\n\n")
    parts += _section("plan", PlanSettings, _composed("plan"))
    return "".join(parts).rstrip() + "\n"


def _command(name: str, schema: type[BaseModel], config_name: str, title: str) -> Iterator[str]:
    values = _composed(config_name)
    plain = {key: field for key, field in schema.model_fields.items() if not _is_section(field)}
    yield f"## {title}\n\n" + _table("", schema, plain, values)
    for key, field in schema.model_fields.items():
        if _is_section(field):
            yield from _node(key, field, values, level="##")


def _own(config_name: str, schema: type[BaseModel], others: set[str]) -> Iterator[str]:
    """The keys of a command that are not told elsewhere."""
    values = _composed(config_name)
    own = {key: field for key, field in schema.model_fields.items() if key not in others}
    plain = {key: field for key, field in own.items() if not _is_section(field)}
    yield _table("", schema, plain, values)
    for key, field in own.items():
        if _is_section(field) and key != "ablation":
            yield from _node(key, field, values, level="###")


def _node(key: str, field: FieldInfo, values: Any, *, level: str = "###") -> Iterator[str]:
    """The section of one node, with those of all its choices."""
    if not field.discriminator:
        (model,) = dict.fromkeys(model for model, _ in tagged(field))
        yield from _section(key, model, values, level)
        return
    tag = tag_key(field)
    by_model: dict[type[BaseModel], list[str]] = {}
    for value, variant in variants(field):
        by_model.setdefault(variant, []).append(value)
    chosen = " or ".join(f"`{value}`" for names in by_model.values() for value in names)
    yield f"{level} `{key}`\n\n`{key}.{tag}` is {chosen}.\n\n"
    for variant, names in by_model.items():
        yield from _choice(key, tag, variant, names, values)


def _choice(key: str, tag: str, variant: type[BaseModel], names: list[str], values: Any) -> Iterator[str]:
    """The keys that exist when one of the names is chosen."""
    options = [option for name in names for option in _options(Choice(f"{key}.{tag}", name), key)]
    more = f" and {len(options) - SHOWN} more" if len(options) > SHOWN else ""
    ways = f", chosen by {', '.join(f'`{option}`' for option in options[:SHOWN])}{more}" if options else ""
    said = " or ".join(f"`{key}.{tag}={name}`" for name in names)
    about = meaning_of_class(variant)
    text = f"**Read when {said}**{ways}.{' ' + about if about else ''}\n\n"
    plain = {name: field for name, field in variant.model_fields.items() if name != tag and not _is_section(field)}
    is_default = _select(values, f"{key}.{tag}") in names
    brought = options[0] if options and not is_default else None
    yield text + (_table(f"{key}.", variant, plain, values, brought=brought) if plain else "")
    for name, field in variant.model_fields.items():
        if _is_section(field):
            yield from _node(f"{key}.{name}", field, values)


def _section(key: str, model: type[BaseModel], values: Any, level: str = "###") -> Iterator[str]:
    about = meaning_of_class(model)
    plain = {name: field for name, field in model.model_fields.items() if not _is_section(field)}
    yield f"{level} `{key}`\n\n" + (f"{about}\n\n" if about else "")
    if plain:
        yield _table(f"{key}.", model, plain, values, brought=_brought(key))
    for name, field in model.model_fields.items():
        if _is_section(field):
            yield from _node(f"{key}.{name}", field, values)


def _table(
    prefix: str, model: type[BaseModel], fields: dict[str, FieldInfo], values: Any, *, brought: str | None = None
) -> str:
    """A row a key.

    Args:
        brought: the option whose values are shown, where the default composition has none for these keys.
    """
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name, field in fields.items():
        key = f"{prefix}{name}"
        found = _select(values, key) if brought is None else _of_option(key, brought)
        default = "must be given" if found in (ABSENT, "???") else f"`{_written(found)}`"
        said = meaning(model, name).replace("<", "&lt;")
        lines.append(f"| `{key}` | {_cell(type_words(field))} | {_cell(default)} | {_cell(said)} |")
    return "\n".join(lines) + "\n\n"


def _of_option(key: str, option: str) -> Any:
    """The value that `group=name` or `group@node=name` gives the key."""
    group_at, _, name = option.partition("=")
    group, _, node = group_at.lstrip("+").partition("@")
    values = option_values(group, name)
    at = node or group
    inner = _select(values, key.removeprefix(f"{at}."))
    return inner if inner is not ABSENT else _select(values, key)


def _options(choice: Choice, key: str) -> list[str]:
    if group := PARTS.get(key):
        names = sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))
        inner = choice.key.rpartition(".")[2]
        at = f"{group}@{key}" if "." in key else group
        return [f"{at}={name}" for name in names if option_values(group, name).get(inner) == choice.value]
    return presets(choice)


def _brought(key: str) -> str | None:
    """For nodes that are null unless an option fills them."""
    match key:
        case "endpoint":
            return "endpoint=openai"
        case "benchmark.judge":
            return "+judge@benchmark.judge=openai"
        case _ if key.startswith("benchmark."):
            return "benchmark=deepsearch"
        case _:
            return None


def _is_section(field: FieldInfo) -> bool:
    return bool(field.discriminator) or any(True for _ in tagged(field))


def _composed(config_name: str) -> Any:
    """What conf/ says without a word of the user's, with its interpolations."""
    with hydra_session(config_name) as session:
        return OmegaConf.to_container(session.compose([]), resolve=False)


def _select(values: Any, key: str) -> Any:
    for part in key.split("."):
        if not isinstance(values, dict) or part not in values:
            return ABSENT
        values = values[part]
    return values


def _written(value: Any) -> str:
    """As on the command line."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case list():
            return "[" + ",".join(map(_written, value)) + "]"
        case dict():
            return "{" + ",".join(f"{key}:{_written(inner)}" for key, inner in value.items()) + "}"
        case _:
            return str(value)


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(configuration_page(), encoding="utf-8")
