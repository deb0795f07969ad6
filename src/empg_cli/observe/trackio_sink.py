"""Trackio: a database on this machine (TRACKIO_DIR), which `trackio show` draws; nothing is sent unless Trackio's own
variables (TRACKIO_SPACE_ID, TRACKIO_SERVER_URL) say so.

A resumed run takes the place of the one with its name, past included, so that no step stands twice.
"""

from __future__ import annotations

import contextlib
import io
import shlex
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empg_cli.invocation import script
from empg_cli.observe.identity import known_to_trackers, tell_run_file
from empg_cli.observe.tracked import Tracked, finite
from empg_cli.runs.rows import Row

if TYPE_CHECKING:
    from empg_cli.config.logger import Trackio


class TrackioSink:
    name = "trackio"

    def __init__(self, cfg: Trackio, run: Tracked) -> None:
        import trackio

        self.pointer = f"{script('trackio')} show --project {shlex.quote(cfg.project)}"
        known = known_to_trackers(run.folder).get(self.name) if run.is_resumed else None
        called = str(known) if known else f"{run.identity.name}-{uuid.uuid4().hex[:4]}"  # names are all it goes by
        Path(trackio.TRACKIO_DIR).mkdir(parents=True, exist_ok=True)  # what it cannot write, it only warns of
        with _silent():
            if known:
                for older in [one for one in trackio.Api().runs(cfg.project) if one.name == called]:
                    older.delete()
            self._run = trackio.init(
                project=cfg.project,
                name=called,
                group=run.identity.group,
                config={**run.config, "tags": list(run.identity.tags), "job_type": run.identity.job_type},
                resume="never",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        tell_run_file(run.folder, **{self.name: called})
        for step, row in run.history.items():
            self.log(step, row)

    def log(self, step: int, row: Row) -> None:
        self._run.log(finite(row), step=step)

    def summary(self, values: Mapping[str, Any]) -> None:
        """It has no place for final numbers; the last row has them."""

    def close(self, exit_code: int) -> None:
        import trackio

        with _silent():
            trackio.finish()


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """It greets on stdout, which is for results."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
