"""The log of a job, `train.log` and its kin: named in conf/hydra/job_logging, opened by Hydra."""

from __future__ import annotations

import logging
from collections import deque
from pathlib import Path

from empg_cli.config.secrets import without_secrets
from empg_cli.disk import refusal
from empg_cli.runs.row_file import RowFile


class LogFile(logging.Handler):
    """Appends records to a file, whole or not at all, and no secret. What a full disk refuses waits for room.

    `logging.FileHandler` prints a traceback for each record that it cannot write, and leaves half of it.
    """

    def __init__(self, filename: str) -> None:
        """Raises OSError where the file cannot be opened."""
        super().__init__()
        self._file = RowFile(Path(filename))
        self._waiting: deque[str] = deque()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = without_secrets(self.format(record)).replace("\0", "").encode("utf-8", "replace").decode("utf-8")
        except Exception:  # of whoever called the log: no fault of the run
            self.handleError(record)
            return
        self._waiting.append(line + "\n")
        try:
            while self._waiting:
                self._file.append(self._waiting[0])
                self._waiting.popleft()
        except Exception as error:
            if refusal(error) is None:  # a closed file: nothing can be said about it here
                self._waiting.clear()

    def close(self) -> None:
        self._file.close()
        super().close()
