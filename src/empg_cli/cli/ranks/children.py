"""The processes of a run, as the command that has started them sees them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import IO

from empg_cli.cli.ranks.job import RankEnd, RankJob, SignOfLife, log_of, read_end, read_life
from empg_cli.joining import HOST


@dataclass(frozen=True, slots=True)
class Pace:
    poll_s: float = 0.1
    look_s: float = 0.5
    """Between two looks at signs of life."""
    grace_s: float = 5.0
    """For the others when one has ended: they may be about to say the same, or to leave by themselves."""
    stacks_s: float = 2.0
    """For a rank that hangs, to say where."""
    sign_s: float = 10.0
    """Without a sign of life, which come once a second, and a process is frozen."""


@dataclass(slots=True, eq=False)
class Rank:
    """A process, with what it has told."""

    number: int
    process: subprocess.Popen[bytes]
    folder: Path
    log: Path
    code: int | None = None
    end: RankEnd | None = None
    life: SignOfLife | None = None
    told: int = 0
    """The signal that was sent on to it; 0 = none."""
    is_frozen: bool = False
    """None of its threads can run: it was suspended, or code in C holds Python's lock."""
    _signed_at: float = 0.0
    _looked_at: float = 0.0

    def look(self, now: float, pace: Pace) -> None:
        self.code = self.process.poll()  # before its end is read, which is written before it leaves
        self.end = self.end or read_end(self.folder, self.number)
        if now - self._looked_at < pace.look_s:
            return
        self._looked_at = now
        life = read_life(self.folder, self.number)
        if life is not None and (self.life is None or life.count != self.life.count):
            self.life, self._signed_at = life, now
        self.is_frozen = self.life is not None and now - self._signed_at > pace.sign_s

    @property
    def phase(self) -> str:
        return self.life.phase if self.life is not None else "starting"

    @property
    def is_waiting(self) -> bool:
        """For others. One that is frozen cannot tell that its wait is over."""
        return self.life is not None and self.life.is_waiting and not self.is_frozen

    def silence_s(self, now: float) -> float:
        return 0.0 if self.life is None else self.life.silence_s + now - self._signed_at

    def send(self, signum: int) -> None:
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signum)

    def kill(self) -> None:
        """With what it has started."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)


def rank_command() -> list[str]:
    """Without the current folder on Python's path where the command has none: a file there may be called like a module
    of the standard library."""
    has_folder = any(Path(entry or ".").resolve() == Path.cwd() for entry in sys.path[:1])
    return [sys.executable, *([] if has_folder else ["-P"]), "-m", "empg_cli.cli.ranks.main"]


@contextlib.contextmanager
def started(job: RankJob, count: int, environment: Mapping[str, str], command: Sequence[str]) -> Iterator[list[Rank]]:
    """Each in a session of its own, so that Ctrl-C in the terminal reaches this process alone, which sends it on."""
    ranks: list[Rank] = []
    try:
        with socket.create_server((HOST, 0), backlog=max(count, 128)) as listening:
            job = replace(job, port=listening.getsockname()[1], listen_fd=listening.fileno())
            for number in range(count):
                with _output(log_of(Path(job.run_dir), number), number) as output:
                    process = subprocess.Popen(
                        command,
                        stdin=subprocess.PIPE,
                        stdout=output,
                        stderr=output,
                        env={**environment, "RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(count)},
                        pass_fds=[] if number else [listening.fileno()],
                        start_new_session=True,
                    )
                ranks.append(Rank(number, process, Path(job.folder), log_of(Path(job.run_dir), number)))
                assert process.stdin is not None
                with contextlib.suppress(BrokenPipeError):  # it is dead already, which is noticed soon
                    process.stdin.write(job.as_line())
                    process.stdin.flush()
        yield ranks
    finally:
        for rank in ranks:
            rank.kill()
        for rank in ranks:
            rank.process.wait()
            assert rank.process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                rank.process.stdin.close()


@contextlib.contextmanager
def _output(path: Path, number: int) -> Iterator[IO[bytes] | None]:
    """Where a rank prints: the first to the terminal, each other into its log."""
    path.parent.mkdir(exist_ok=True)
    if number == 0:
        yield None
        return
    with path.open("ab") as output:
        output.write(f"--- rank {number}, {datetime.now().isoformat(' ', 'seconds')}\n".encode())
        output.flush()
        yield output
