"""MLflow: by default a SQLite store in the run folder; a server where MLFLOW_TRACKING_URI or the settings name one.

Nothing leaves the machine unless it is told where to: MLflow's telemetry is switched off before it is imported. Its
stores forget nothing, so a resumed run goes on behind the last step that is there; rows that it makes again are left as
they were logged first.
"""

from __future__ import annotations

import logging
import math
import os
import re
import shlex
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from empg_cli.config.secrets import without_secrets
from empg_cli.invocation import script
from empg_cli.observe.identity import known_to_trackers, tell_run_file
from empg_cli.observe.tracked import Tracked, finite, flat
from empg_cli.runs.rows import Row

if TYPE_CHECKING:
    from empg_cli.config.logger import Mlflow

STEP = "train/update"
LONGEST_NAME, LONGEST = 250, 500
"""Characters of a name and of a value that every version of MLflow takes."""
OWN_STORE = "mlflow.db"
"""In the run folder; named in run.json without its place, so that a folder that was moved goes on with it."""
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",  # a server that is gone must not hold the run up for its default, an hour
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
}


class MlflowSink:
    name = "mlflow"

    def __init__(self, cfg: Mlflow, run: Tracked) -> None:
        for variable, value in QUIET.items():
            os.environ.setdefault(variable, value)
        for noisy in ("mlflow", "alembic"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        from mlflow import MlflowClient

        local = f"sqlite:///{run.folder / OWN_STORE}"
        uri = cfg.uri or os.environ.get("MLFLOW_TRACKING_URI") or local
        self._client = MlflowClient(tracking_uri=uri)
        shown = shlex.quote(without_secrets(uri))
        self.pointer = f"{script('mlflow')} ui --backend-store-uri {shown}" if not uri.startswith("http") else shown
        known = known_to_trackers(run.folder).get(self.name) if run.is_resumed else None
        store = OWN_STORE if uri == local else without_secrets(uri)
        if known and known["uri"] in (store, without_secrets(uri)):
            self._run = str(known["run"])
            self._client.update_run(self._run, status="RUNNING")
        else:
            self._run = self._new_run(cfg.experiment, run, is_local=uri == local)
            tell_run_file(run.folder, **{self.name: {"uri": store, "run": self._run}})
        there = self._client.get_metric_history(self._run, STEP)
        self._known = max((metric.step for metric in there), default=-1)
        self._newest = max(self._known, 0)
        for step, row in run.history.items():
            self.log(step, row)

    def _new_run(self, experiment: str, run: Tracked, *, is_local: bool) -> str:
        found = self._client.get_experiment_by_name(experiment)
        where = (run.folder / "mlflow-artifacts").as_uri() if is_local else None
        number = found.experiment_id if found else self._client.create_experiment(experiment, artifact_location=where)
        identity = run.identity
        tags = {"group": identity.group, "job_type": identity.job_type, "tags": ",".join(identity.tags)}
        made: str = self._client.create_run(number, run_name=identity.name, tags=tags).info.run_id
        from mlflow.entities import Param

        settings = {key: value for key, value in run.config.items() if key != "facts"}
        for some in _in_hundreds(flat(settings)):
            self._client.log_batch(made, params=[Param(named(key), value[:LONGEST]) for key, value in some])
        self._tag(made, flat(run.config.get("facts") or {}, "facts."))
        return made

    def _tag(self, run: str, values: Iterable[tuple[str, str]]) -> None:
        from mlflow.entities import RunTag

        for some in _in_hundreds(values):
            self._client.log_batch(run, tags=[RunTag(named(key), value[:LONGEST]) for key, value in some])

    def log(self, step: int, row: Row) -> None:
        if step > self._known:
            self._newest = max(self._newest, step)
            self._metrics(step, finite({STEP: float(step), **row}))

    def facts(self, values: Mapping[str, Any]) -> None:
        self._tag(self._run, flat(values, "facts."))

    def summary(self, values: Mapping[str, Any]) -> None:
        numbers = {key: float(value) for key, value in values.items() if isinstance(value, int | float)}
        texts = {key: value for key, value in values.items() if key not in numbers}
        shown = {f"summary/{key}": value for key, value in numbers.items() if math.isfinite(value)}
        self._metrics(self._newest, shown)
        self._tag(self._run, flat(texts, "summary."))

    def close(self, exit_code: int) -> None:
        status = "FINISHED" if exit_code == 0 else "KILLED" if exit_code > 128 else "FAILED"
        self._client.set_terminated(self._run, status)

    def _metrics(self, step: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        for some in _in_hundreds(values.items()):
            self._client.log_batch(self._run, metrics=[Metric(named(key), value, now, step) for key, value in some])


def named(key: str) -> str:
    """As MLflow takes names, which become paths: letters, digits and `_-. /`, no part empty or of dots alone."""
    parts = re.sub(r"[^\w./ -]", "_", key).split("/")
    return "/".join(part if part.strip(".") else "_" * max(1, len(part)) for part in parts)[:LONGEST_NAME]


def _in_hundreds(items: Iterable[tuple[str, Any]]) -> Iterator[list[tuple[str, Any]]]:
    """MLflow takes that many parameters at once."""
    left = list(items)
    while left:
        yield left[:100]
        left = left[100:]
