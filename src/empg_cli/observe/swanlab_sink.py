"""SwanLab: by default offline, a log in the run folder that `swanlab sync` uploads.

It would take over Ctrl-C, uncaught exceptions and the terminal's output; all of that stays ours. A resumed run writes a
new log under the same id with its whole past: sync the newest one only.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

from empg_cli.invocation import script
from empg_cli.observe.identity import known_to_trackers, tell_run_file
from empg_cli.observe.tracked import Tracked, finite
from empg_cli.runs.rows import Row

if TYPE_CHECKING:
    from empg_cli.config.logger import Swanlab


class SwanlabSink:
    name = "swanlab"

    def __init__(self, cfg: Swanlab, run: Tracked) -> None:
        import swanlab

        self._facts = dict(run.config.get("facts") or {})
        known = known_to_trackers(run.folder).get(self.name) if run.is_resumed else None
        number = str(known) if known else uuid.uuid4().hex[:12]
        mode = (os.environ.get("SWANLAB_MODE") or "offline") if cfg.mode == "auto" else cfg.mode
        settings = swanlab.Settings(
            interactive=False,
            terminal=swanlab.Settings.Terminal(proxy_type="none"),
            probe=swanlab.Settings.Probe(requirements=False, git=False),
        )
        with _hooks_kept(), _on_stderr():
            self._run = swanlab.init(
                mode=mode,
                log_dir=str(run.folder / "swanlog"),
                project=cfg.project,
                name=run.identity.name,
                group=run.identity.group,
                job_type=run.identity.job_type,
                tags=list(run.identity.tags),
                config=dict(run.config),
                id=number,
                resume="allow",
                settings=settings,
            )
        tell_run_file(run.folder, **{self.name: number})
        folder = shlex.quote(str(self._run.dir))
        self.pointer = str(self._run.url) if mode == "online" else f"{script('swanlab')} sync {folder}"
        for step, row in run.history.items():
            self.log(step, row)

    def log(self, step: int, row: Row) -> None:
        self._run.log(finite(row), step=step)

    def facts(self, values: Mapping[str, Any]) -> None:
        self._facts |= values
        self._run.config.update({"facts": self._facts})

    def summary(self, values: Mapping[str, Any]) -> None:
        self._run.config.update({"summary": dict(values)})

    def close(self, exit_code: int) -> None:
        state = "success" if exit_code == 0 else "aborted" if exit_code > 128 else "crashed"
        with _hooks_kept(), _on_stderr():
            self._run.finish(state=state, error=f"exit code {exit_code}" if state == "crashed" else None)


@contextmanager
def _hooks_kept() -> Iterator[None]:
    """What happens on Ctrl-C and on uncaught exceptions stays as it is."""
    is_main = threading.current_thread() is threading.main_thread()
    handler, hook = signal.getsignal(signal.SIGINT), sys.excepthook
    try:
        yield
    finally:
        sys.excepthook = hook
        if is_main:
            signal.signal(signal.SIGINT, handler)


@contextmanager
def _on_stderr() -> Iterator[None]:
    """Its greetings are no results."""
    with redirect_stdout(sys.stderr):
        yield
