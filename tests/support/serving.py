"""`empg serve` as a process of its own, on a free port."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Served:
    process: subprocess.Popen[str]
    said: list[str] = field(default_factory=list)
    """Its lines on stderr."""
    url: str = ""

    def interrupt(self) -> int:
        """Ctrl-C; returns the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)


@contextmanager
def serving(run: Path, *words: str) -> Iterator[Served]:
    command = [sys.executable, "-m", "empg_cli", "serve", f"run={run}", "port=0", "trainer.threads=1", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    served, ready = Served(process), threading.Event()

    def read() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            served.said.append(line.rstrip())
            if found := re.search(r"at (http://\S+?)/v1; Ctrl-C ends it", line):
                served.url = found[1]
                ready.set()
        ready.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        assert ready.wait(120), "it never said that it serves"
        assert served.url, served.said
        yield served
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(30)
        reader.join(10)
