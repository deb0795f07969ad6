"""Runs one command for as long as somebody holds this process's standard input open, however that one ends.

A server outlives a run that is killed, and holds its GPU; this one does not.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

GRACE_S = 10.0
"""Between SIGTERM and SIGKILL."""


def main() -> None:
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, start_new_session=True)
    for signum in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(signum, signal.SIG_IGN)  # the run's affair, which says when it needs no server any more
    # In a thread: this one waits for the child, and a handler inside that wait could not.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=end, args=(child,), daemon=True).start())
    threading.Thread(target=end_with_the_run, args=(child,), daemon=True).start()
    code = child.wait()
    end(child)  # what it left behind
    raise SystemExit(code if code >= 0 else 128 - code)


def end_with_the_run(child: subprocess.Popen[bytes]) -> None:
    while os.read(0, 1):
        pass
    end(child)


def end(child: subprocess.Popen[bytes]) -> None:
    """The command and all processes that it has started."""
    for signum in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, signum)
            child.wait(GRACE_S)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


if __name__ == "__main__":
    main()
