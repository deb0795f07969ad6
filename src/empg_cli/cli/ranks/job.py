"""What the command and the ranks of its run tell each other: a job, a sign of life, an end. All of it is JSON.

The job comes in one line through the standard input of a rank, which stays open as long as the command lives. The rest
are files of a temporary folder, each replaced as a whole.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

from empg_cli.ranks import LOGS


@dataclass(frozen=True, slots=True)
class RankJob:
    """The same for all ranks of an attempt; which one it is, a rank learns from `RANK` in its environment."""

    config: dict[str, Any]
    """Of the run, as plain data."""
    run_dir: str
    folder: str
    """A temporary one of this attempt."""
    port: int
    """Where the first rank answers."""
    listen_fd: int
    """Of the first rank: a socket that listens there."""
    logging: dict[str, Any]
    """Hydra's settings of the job's log, for the first rank."""
    command_line: list[str]
    path: list[str]
    """Where the command looks for modules."""

    def as_line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Self:
        return cls(**json.loads(line))


@dataclass(frozen=True, slots=True)
class SignOfLife:
    """Written about once a second."""

    phase: str
    silence_s: float
    is_waiting: bool
    """For other ranks: the silence is theirs."""
    count: int
    """Of signs, so that a rank which writes no more can be told from one that stands still."""


@dataclass(frozen=True, slots=True)
class RankEnd:
    """How the work of a rank ended; that of the first is how the run did."""

    kind: Literal["done", "refused", "stopped", "failed", "lost"]
    """refused: an error that the user can put right; stopped: by a signal; failed: by an error that nobody expected;
    lost: another rank was gone."""
    text: str = ""
    """For the user; of a stopped run the command that goes on."""
    exit_code: int = 0
    """Of a refused one."""
    signum: int = 0
    """Of a stopped one."""
    success_rate: float | None = None


def life_file(folder: Path, rank: int) -> Path:
    return folder / f"rank-{rank}.json"


def end_file(folder: Path, rank: int) -> Path:
    return folder / f"end-{rank}.json"


def log_of(run_dir: Path, rank: int) -> Path:
    return run_dir / LOGS / f"rank-{rank}.log"


def tell(path: Path, told: SignOfLife | RankEnd) -> None:
    """Nothing survives the machine here, so the disk is not waited for.

    Raises:
        OSError: the disk refuses.
    """
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(asdict(told)), encoding="utf-8")
    temporary.replace(path)


def read_life(folder: Path, rank: int) -> SignOfLife | None:
    found = _read(life_file(folder, rank))
    return None if found is None else SignOfLife(**found)


def read_end(folder: Path, rank: int) -> RankEnd | None:
    found = _read(end_file(folder, rank))
    return None if found is None else RankEnd(**found)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return found
