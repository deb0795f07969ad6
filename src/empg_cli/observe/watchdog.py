"""A run that hangs says where: the stacks of all threads, when no turn and no micro-batch was done for too long."""

from __future__ import annotations

import faulthandler
import logging
import threading
from pathlib import Path
from typing import Self, TextIO

from empg_cli.pulse import beat, is_waiting, phase, silence_s
from empg_cli.ranks import LOGS

log = logging.getLogger(__name__)

FILE = "hang.txt"
LOOKS = 10
"""In the time that a silence may last."""
STDERR = 2


class Watchdog:
    """Use as a context manager. Ends nothing: what looks like a hang may be a slow disk or a very long turn.

    Where a hang holds Python's lock this thread cannot run either; then faulthandler's own writes the stacks to stderr,
    after twice the time.
    """

    def __init__(self, seconds: float, folder: Path, rank: int = 0) -> None:
        """
        Args:
            seconds: of silence before it speaks, once each time; 0 = never.
            folder: of the run.
            rank: which of several processes this is; each has a file of its own.
        """
        self._seconds, self._rank = seconds, rank
        self._path = folder / LOGS / f"hang-rank-{rank}.txt" if rank else folder / FILE
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        beat()
        if self._seconds:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._seconds:
            self._thread.join()
            faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        has_spoken = False
        while not self._over.wait(self._seconds / LOOKS):
            faulthandler.dump_traceback_later(2 * self._seconds, file=STDERR)
            if silence_s() < self._seconds or is_waiting():  # whoever is waited for speaks
                has_spoken = False
            elif not has_spoken:
                has_spoken = True
                self._speak()

    def _speak(self) -> None:
        """Into the file alone where there are many lines; the log says where they are."""
        said = f"no turn and no micro-batch for {silence_s():.0f} s in phase {phase()}"
        said = f"rank {self._rank}: {said}" if self._rank else said
        try:
            if self._rank:
                self._path.parent.mkdir(exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                _dump(said, file)
        except OSError as error:
            log.warning("%s; its stacks could not be written: %s", said, error.strerror or error)
        else:
            log.warning("%s: the stacks of all threads are in %s (trainer.watchdog)", said, self._path)


def _dump(said: str, file: TextIO) -> None:
    file.write(f"{said}\n")
    file.flush()
    faulthandler.dump_traceback(file, all_threads=True)
    file.write("\n")
