"""A finished or stopped run as the base of a new command: its config.yaml below what the command line says."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override

from empg_cli.config.compose import INVALID, hydra_session, is_group, parse
from empg_cli.config.outside import addresses, repeated
from empg_cli.config.problems import ConfigError, Problem
from empg_cli.runs.config_file import saved_run

SECTIONS = {
    "train": ("model", "benchmark", "algo", "rollout", "trainer", "logger", "dist"),
    "eval": ("model", "benchmark", "rollout", "trainer", "logger"),
}


def run_given(overrides: Sequence[str]) -> Path | None:
    """The folder in `run=DIR`, for `empg eval`."""
    with hydra_session("eval") as session:
        words, _ = parse(overrides, session.loader)
    given = [word for word in words if word.key_or_group == "run"]
    if any(word.is_sweep_override() for word in given):
        raise ConfigError(INVALID, [Problem("run", "cannot be swept", hint="call `empg eval` once for each run")])
    value = given[-1].value() if given else None
    return None if value is None else Path(str(value))


def words_for(key: str, overrides: Sequence[str]) -> list[str]:
    """The texts that a command line gives a key of `empg train`, all of them in a sweep."""
    with hydra_session("train") as session:
        words, _ = parse(overrides, session.loader)
    given: list[object] = []
    for word in words:
        if word.key_or_group == key:
            given += list(word.sweep_string_iterator()) if word.is_sweep_override() else [word.value()]
    return [text for text in given if isinstance(text, str)]


def used_folders(overrides: Sequence[str]) -> list[Path]:
    """Where a single `empg train` may find a run: `run_dir=DIR`, and `resume=DIR` with the two folders above it."""
    with hydra_session("train") as session:
        words, _ = parse(overrides, session.loader)
    folders: list[Path] = []
    for word in words:
        if word.is_sweep_override() or not isinstance(value := word.value(), str):
            continue
        if word.key_or_group == "run_dir":
            folders.append(Path(value))
        elif word.key_or_group == "resume":
            folders += [Path(value), *Path(value).absolute().parents[:2], *Path(value).resolve().parents[:2]]
    return folders


def primary_config(command: Literal["train", "eval"], folder: Path, overrides: Sequence[str], **top_level: Any) -> str:
    """Register a primary config made of a run's settings; return its name.

    Sections whose group is chosen on the command line (`rollout=window`) come from conf/ as usual. It lives in
    Hydra's ConfigStore, which every launcher sends to its workers.
    """
    saved = saved_run(folder)
    with hydra_session(command) as session:
        words, _ = parse(overrides, session.loader)
        chosen = {str(word.key_or_group) for word in words if is_group(word, session.loader)}
    if "experiment" in chosen:
        hint = "give its settings one by one"
        raise ConfigError(INVALID, [Problem("experiment", f"cannot be laid over the run {folder}", hint=hint)])
    if command == "eval" and isinstance(saved.get("logger"), dict):
        saved["logger"] = quiet(saved["logger"])
    sections = [name for name in SECTIONS[command] if name not in chosen and name in saved]
    refuse_unasked({name: saved[name] for name in sections}, words, folder)
    name = f"{command}_from_run"
    node = {
        "defaults": [
            command,
            "_self_",
            *({f"override /{section}": None} for section in sections),
        ],
        **{section: saved[section] for section in sections},
        "seed": saved["seed"],
        **top_level,
    }
    ConfigStore.instance().store(name=name, node=node, provider=str(folder))
    return name


def quiet(logger: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run's logger for an evaluation, which logs only where it is asked to."""
    found = {**logger, "sinks": [], "trackers": []}
    nothing: dict[str, tuple[str, Any]] = {"wandb": ("artifacts", []), "mlflow": ("uri", None)}
    return found | {name: {**found[name], key: value} for name, (key, value) in nothing.items() if name in found}


def refuse_unasked(sections: dict[str, Any], words: Sequence[Override], folder: Path) -> None:
    """A run folder may be somebody else's: code that its config.yaml names by address is imported only if the command
    line names it too."""
    said = {word.get_key_element().lstrip("+") for word in words}
    asked = {key: value for key, value in addresses(sections).items() if key not in said}
    if asked:
        title = f"{folder} names code from outside of empg, which is imported only if you name it too"
        hints = [f"if you trust it, add {shlex.quote(word)}" for word in repeated(asked)]
        raise ConfigError(title, [Problem(key, "is code", hint=hint) for key, hint in zip(asked, hints, strict=True)])
