"""The folder that Hydra will give a command, known before Hydra makes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra import compose
from omegaconf import DictConfig, OmegaConf

from empg_cli.config.compose import REFUSALS, hydra_session, parse


@dataclass(frozen=True, slots=True)
class Place:
    folder: Path
    is_stamped: bool
    """Named by the time, so it is a new one; else one that the user has named, which may be there."""
    config: DictConfig
    """What the words compose to."""


def output_place(config_name: str, overrides: Sequence[str], *, config_dir: str | None = None) -> Place | None:
    """Of a single job; None where only Hydra itself can tell, by an interpolation that needs the running job."""
    with hydra_session(config_name, config_dir) as session:
        words = [word for word in parse(overrides, session.loader)[0] if not word.is_sweep_override()]
        named = [*session.search, *(str(word.input_line) for word in words)]
        try:
            composed = compose(session.config_name, overrides=named, return_hydra_config=True)
            folder = Path(str(composed.hydra.run.dir))
        except REFUSALS:
            return None
        raw = OmegaConf.to_container(composed.hydra.run, resolve=False)
        texts = [str(raw["dir"]) if isinstance(raw, dict) else ""]
        if "${run_dir}" in texts[0]:
            unresolved = OmegaConf.to_container(composed, resolve=False)
            texts.append(str(unresolved.get("run_dir")) if isinstance(unresolved, dict) else "")
        return Place(folder, any("${now:" in text for text in texts), composed)
