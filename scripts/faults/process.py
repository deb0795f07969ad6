"""The real command line in a process of its own: started anew, or forked from one that has imported torch already."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

TRACEBACK = "Traceback (most recent call last)"
seen_tracebacks: list[str] = []
"""Of the case at work; the table asks after every case."""


@dataclass(frozen=True, slots=True)
class Finished:
    words: tuple[str, ...]
    code: int
    """Exit code; 128 + n where signal n ended it."""
    output: str
    """Both streams, in order."""

    def __str__(self) -> str:
        return f"`empg {shlex.join(self.words)}`: {self.output[-600:]}"


class Running:
    """A command under way. Ends with its `with` block: what is left of it and its children is killed."""

    def __init__(self, pid: int, words: Sequence[str], output: Path) -> None:
        self.pid = pid
        self.output = output
        self._words = tuple(words)
        self._code: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._code is None:
            self.send(signal.SIGKILL)
            self.wait(10)

    @property
    def is_over(self) -> bool:
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._code = _exit_code(status)
        return self._code is not None

    def send(self, signum: int, *, to_group: bool = False) -> None:
        """A signal to the command, or to all that it has started."""
        if not self.is_over:
            (os.killpg if to_group else os.kill)(self.pid, signum)

    def wait_until(self, happens: str | Path, timeout: float = 120) -> bool:
        """Whether a text is in the output, or a path exists, before the command ends."""
        end = time.monotonic() + timeout
        while time.monotonic() < end and not self.is_over:
            if happens.exists() if isinstance(happens, Path) else happens in self._text():
                return True
            time.sleep(0.01)
        return happens.exists() if isinstance(happens, Path) else happens in self._text()

    def wait(self, timeout: float = 300) -> Finished:
        """Raises:
        TimeoutError: it goes on for longer, and was killed.
        """
        end = time.monotonic() + timeout
        while not self.is_over:
            if time.monotonic() > end:
                os.killpg(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                self._code = 128 + signal.SIGKILL
                raise TimeoutError(f"no end after {timeout:.0f} s: `empg {shlex.join(self._words)}`")
            time.sleep(0.01)
        text = self._text()
        if TRACEBACK in text:
            seen_tracebacks.append(f"`empg {shlex.join(self._words)}`\n{text[text.index(TRACEBACK) :][:4000]}")
        assert self._code is not None
        return Finished(self._words, self._code, text)

    def _text(self) -> str:
        return self.output.read_text(encoding="utf-8", errors="replace") if self.output.exists() else ""


def start(
    words: Sequence[str],
    folder: Path,
    env: Mapping[str, str] = {},
    *,
    anew: bool = False,
    prepare: Callable[[], object] = lambda: None,
) -> Running:
    """Begin `empg WORDS` in `folder`, in a process group of its own.

    Args:
        anew: a new interpreter; else a fork of this process, which has imported what every command needs and obeys the
            same signals, but reads no variable that is read on import.
        prepare: called in the fork before the command: for limits, or to put a fault into its code.
    """
    folder.mkdir(parents=True, exist_ok=True)
    output = folder / f".output-{time.monotonic_ns()}"
    variables = {"OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled", "CUDA_VISIBLE_DEVICES": "", **env}
    if not anew:
        import torch  # noqa: F401 (what takes seconds is done once)

        import empg_cli.loop  # noqa: F401
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _become(words, folder, output, variables, anew=anew, prepare=prepare)
    return Running(pid, words, output)


def empg(*words: str, folder: Path, env: Mapping[str, str] = {}, timeout: float = 300) -> Finished:
    """`empg WORDS` in a new interpreter, to its end."""
    with start(words, folder, env, anew=True) as running:
        return running.wait(timeout)


def forked(
    *words: str,
    folder: Path,
    env: Mapping[str, str] = {},
    timeout: float = 300,
    prepare: Callable[[], object] = lambda: None,
) -> Finished:
    """`empg WORDS` in a fork, to its end: the same code without two seconds of imports."""
    with start(words, folder, env, prepare=prepare) as running:
        return running.wait(timeout)


def _become(
    words: Sequence[str],
    folder: Path,
    output: Path,
    env: Mapping[str, str],
    *,
    anew: bool,
    prepare: Callable[[], object],
) -> None:
    """The child: never returns."""
    code = 1
    try:
        os.setpgid(0, 0)
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, signal.SIG_DFL if signum != signal.SIGINT else signal.default_int_handler)
        os.chdir(folder)
        os.environ.update(env)
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for stream in (1, 2):
            os.dup2(descriptor, stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        prepare()
        if anew:
            os.execv(sys.executable, [sys.executable, "-m", "empg_cli", *words])
        code = _main(words)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _main(words: Sequence[str]) -> int:
    from empg_cli.__main__ import main
    from empg_cli.cli import jobs

    sys.argv = ["empg", *words]
    jobs.COMMAND_LINE[:] = sys.argv
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


def _exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
