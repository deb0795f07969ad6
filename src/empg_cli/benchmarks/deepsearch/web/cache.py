"""Answers of paid services on disk, so that a question is paid for once and an evaluation can be replayed offline."""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path

from empg_cli.benchmarks.base import DataError


class AnswerCache:
    """Key -> answer body. Several processes may share the file (SQLite in WAL mode)."""

    def __init__(self, path: Path, *, must_exist: bool) -> None:
        if must_exist and not path.is_file():
            raise DataError(
                f"nothing to replay: {path} does not exist; record it first with benchmark.retrieval.mode=record"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        try:
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._db.execute("pragma journal_mode=wal")
            self._db.execute(
                "create table if not exists answers (key text primary key, time real, label text, body blob)"
            )
        except sqlite3.DatabaseError as error:
            raise DataError(f"{path} is not a search cache: {error}") from None

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
            self._db.execute("insert or replace into answers values (?, ?, ?, ?)", (key, time.time(), label, body))

    def close(self) -> None:
        self._db.close()
