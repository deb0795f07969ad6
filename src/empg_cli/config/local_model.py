"""`model.path=DIR` says which model is meant: the preset that plays it is chosen before anything is composed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from hydra.core.override_parser.types import Override

from empg_cli.config.compose import REFUSALS, Session, hydra_session, parse

PRESET: Final = "local"
_DEFAULT: Final = "tiny"
"""What conf/ chooses where nobody does; it reads no path."""


def with_local_model(
    overrides: Sequence[str], config_name: str, config_dir: str | None = None
) -> tuple[list[str], str | None]:
    """The overrides with what `model.path=DIR` leaves unsaid, and a line that says what was added.

    Without a choice of a model (on the command line, in an experiment, in a run's config) the preset is `local`; a
    folder whose tokenizer has the compact words and no chat template is a tiny agent, and stays one. `model=local` is
    named after the folder. What the command line says itself stays.
    """
    if not any("model.path=" in word for word in overrides):
        return list(overrides), None
    with hydra_session(config_name, config_dir) as session:
        words, _ = parse(overrides, session.loader)
        said = {word.get_key_element(): word for word in words}
        path = said.get("model.path")
        if path is None or path.value() is None:
            return list(overrides), None
        chosen = _choice(words, session)
    added: list[str] = []
    if chosen == _DEFAULT and not {"model", "model.init", "model.prompt"} & said.keys():
        is_tiny_agent = not path.is_sweep_override() and _is_compact(Path(str(path.value())).expanduser())
        added = ["model.init=pretrained"] if is_tiny_agent else [f"model={PRESET}"]
    if (added or chosen == PRESET) and "model.name" not in said and not path.is_sweep_override():
        added.append(f"model.name={_name(str(path.value()))}")
    if not added:
        return list(overrides), None
    return [*added, *overrides], f"model.path names the model: {' '.join(added)}"


def _choice(words: Sequence[Override], session: Session) -> str | None:
    """The option of the group `model`; None when it cannot be told, because another word is wrong or sweeps."""
    once = [str(word.input_line) for word in words if not word.is_sweep_override()]
    try:
        composed = session.compose(once, with_hydra=True)
    except REFUSALS:
        return None
    choice: str | None = composed.hydra.runtime.choices.get("model")
    return choice


def _is_compact(folder: Path) -> bool:
    """The tokenizer is that of a tiny agent."""
    settings, tokenizer = folder / "tokenizer_config.json", folder / "tokenizer.json"
    has_template = (folder / "chat_template.jinja").is_file() or (
        settings.is_file() and "chat_template" in _text_of(settings)
    )
    return not has_template and tokenizer.is_file() and '"<act>"' in _text_of(tokenizer)


def _text_of(file: Path) -> str:
    """Of a file that may be anything; loading the model says what is wrong with it."""
    return file.read_text(encoding="utf-8", errors="replace")


def _name(path: str) -> str:
    """The last part of a folder or hub id, fit for a folder's name."""
    last = Path(path).expanduser().resolve().name or PRESET
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", last).strip("-.") or PRESET
