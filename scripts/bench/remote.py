"""The other end of turn_server.py: a side of a comparison in a process of its own, told which turn to play."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Remote:
    def __init__(self, name: str, command: Sequence[str], scratch: Path, *, threads: int) -> None:
        """Returns when the side has loaded its model; what it says on standard error goes to a file in `scratch`."""
        self.name = name
        self._log = scratch / f"{name}.log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | {"OMP_NUM_THREADS": str(threads)},
            )
        self.facts = self._hear()

    def play(self, turn: int) -> dict[str, Any]:
        assert self._process.stdin
        self._process.stdin.write(f"{turn}\n")
        self._process.stdin.flush()
        return self._hear()

    def end(self) -> None:
        self._process.kill()
        self._process.wait()

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended:\n" + "\n".join(self._log.read_text().splitlines()[-20:]))
        heard: dict[str, Any] = json.loads(line)
        return heard
