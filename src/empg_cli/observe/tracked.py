"""What a tracker is told about the run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from empg_cli.config.secrets import mask_secrets
from empg_cli.observe.identity import RunIdentity
from empg_cli.runs.rows import Row
from empg_cli.runs.run_file import read_run_file

MADE_OF = {"data": "data", "model": "weights", "commit": "commit", "code": "code", "versions": "versions",
           "config_hash": "config_hash", "platform": "platform", "hardware": "hardware"}  # fmt: skip
"""Key of run.json -> its name below `facts`."""


@dataclass(frozen=True, slots=True)
class Tracked:
    folder: Path
    """Absolute."""
    identity: RunIdentity
    config: Mapping[str, Any]
    """The resolved configuration as plain data, without secrets, and `facts`: what the run is made of."""
    history: Mapping[int, Row]
    """Rows that a resumed run has logged before, by update."""
    is_resumed: bool


def tracked(
    folder: Path, identity: RunIdentity, config: Mapping[str, Any], history: Mapping[int, Row], *, is_resumed: bool
) -> Tracked:
    """Of the run in a folder with its run.json."""
    facts = made_of(read_run_file(folder))
    whole = mask_secrets({**config, "facts": facts} if facts else config)
    return Tracked(folder.resolve(), identity, whole, history, is_resumed)


def made_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Data, weights, commit and versions.

    Args:
        facts: of run.json.
    """
    return {name: facts[key] for key, name in MADE_OF.items() if facts.get(key) is not None}


@runtime_checkable
class TakesFacts(Protocol):
    """A sink that shows what the run is made of, some of which is known only after it has begun."""

    def facts(self, values: Mapping[str, Any]) -> None: ...


@runtime_checkable
class TakesTables(Protocol):
    """A sink that has a place for the tasks and the trajectories of an evaluation."""

    def table(self, step: int, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """
        Args:
            name: `evaluations` or `trajectories`.
        """
        ...


def flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted keys with their values as text, for trackers that know no nested settings."""
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value, default=str)


def finite(row: Row) -> dict[str, float]:
    """NaN and infinity, which are None in a row, left out."""
    return {key: value for key, value in row.items() if value is not None}
