"""Writes that a full disk refuses wait in memory and are made again, in order, when there is room."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from pathlib import Path

from empg_cli.disk import free_bytes, in_bytes, refusal

log = logging.getLogger(__name__)

Write = Callable[[], None]
"""May be called again after it has raised: what it wrote by halves it has taken back."""


class Patience:
    """With the disk. Any other error of a write is raised, and that write is not made again.

    Nothing bounds how much waits: rows are small (about 3 kB an update), and a disk that stays full is said at every
    checkpoint.
    """

    def __init__(self, what: str, place: str) -> None:
        """
        Args:
            what: named in what is said.
            place: where it is written; a path, or whatever a sink says.
        """
        self._what, self._place = what, place
        self._waiting: deque[Write] = deque()
        self._is_refused = False

    @property
    def waiting(self) -> int:
        """Writes that are still to be made."""
        return len(self._waiting)

    def do(self, write: Write) -> None:
        """Make this write now, or when there is room."""
        self._waiting.append(write)
        self.settle()

    def settle(self) -> bool:
        """Make what waits; False where the disk still refuses."""
        while self._waiting:
            write = self._waiting.popleft()
            if not self.attempt(write):
                self._waiting.appendleft(write)
                return False
        if self._is_refused:
            self._is_refused = False
            log.warning("%s: there is room again, all that waited is written", self._what)
        return True

    def attempt(self, write: Write) -> bool:
        """Make this write now; False where the disk refuses, and then it is the caller's again."""
        try:
            write()
        except Exception as error:
            if (why := refusal(error)) is None:
                raise
            self._say(why)
            return False
        return True

    def _say(self, why: str) -> None:
        if self._is_refused:
            return
        self._is_refused = True
        place = Path(self._place)
        room = f" ({in_bytes(free_bytes(place))} free)" if place.is_absolute() else ""
        said = "%s cannot be written to %s: %s%s; kept in memory until there is room"
        log.warning(said, self._what, self._place, why, room)
