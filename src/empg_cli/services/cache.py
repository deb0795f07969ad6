"""Answers of paid services on disk, so that a question is paid for once and an evaluation can be replayed offline."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from pathlib import Path

from empg_cli.disk import refusal

log = logging.getLogger(__name__)


class AnswerCache:
    """Key -> answer body. Several processes may share the file (SQLite in WAL mode)."""

    def __init__(self, path: Path) -> None:
        """Opens the file, or makes it. Raises `sqlite3.DatabaseError` when it is something else."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._is_full = path, False
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("pragma journal_mode=wal")
        self._db.execute("create table if not exists answers (key text primary key, time real, label text, body blob)")

    def __len__(self) -> int:
        with self._lock:
            return int(self._db.execute("select count(*) from answers").fetchone()[0])

    def get(self, key: str) -> bytes | None:
        with self._lock:
            row = self._db.execute("select body from answers where key = ?", (key,)).fetchone()
        return bytes(row[0]) if row else None

    def put(self, key: str, label: str, body: bytes) -> None:
        """
        Args:
            label: for people who look into the file: what was asked.
        """
        with self._lock:
            try:
                self._db.execute("insert or replace into answers values (?, ?, ?, ?)", (key, time.time(), label, body))
            except sqlite3.OperationalError as error:  # the caller has its answer; only a replay will lack it
                if refusal(error) is None:
                    raise
                if not self._is_full:
                    log.warning(
                        "%s takes no more answers (%s): a replay will lack those from now on", self._path, error
                    )
                self._is_full = True

    def close(self) -> None:
        self._db.close()
