"""Where metrics go: one call, several places, and none of them can stop a run.

What a full disk refuses waits and is written when there is room; a sink that fails otherwise is dropped.

`Sink`, `SinkRun` and `RunIdentity` are public: sinks from outside the package are made with them
(docs/adding-a-benchmark.md).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from empg_cli.config.secrets import mask_secrets, without_secrets
from empg_cli.disk import refusal
from empg_cli.errors import UserError
from empg_cli.observe.identity import RunIdentity, keep_ids_with_folder
from empg_cli.observe.tracked import TakesFacts, TakesTables, Tracked, tracked
from empg_cli.observe.trackers import tracker_openers
from empg_cli.runs.file_sinks import CsvSink, JsonlSink, SummaryFileSink
from empg_cli.runs.histograms import FILE as HISTOGRAMS
from empg_cli.runs.histograms import Histogram, HistogramSink, TakesHistograms
from empg_cli.runs.patience import Patience
from empg_cli.runs.rows import Row, clean_row, drop_rows_from, read_rows

if TYPE_CHECKING:
    from empg_cli.config.logger import Logger

log = logging.getLogger(__name__)


class Sink(Protocol):
    """What takes the metrics of a run. It may also take histograms (`TakesHistograms`) or be `Durable`."""

    @property
    def name(self) -> str:
        """Names it in warnings."""
        ...

    @property
    def pointer(self) -> str:
        """Where a user finds what was written: a path, an address, or a command."""
        ...

    def log(self, step: int, row: Row) -> None:
        """One row of metrics at update `step`."""
        ...

    def summary(self, values: Mapping[str, Any]) -> None:
        """Final numbers; later calls add to earlier ones."""
        ...

    def close(self, exit_code: int) -> None:
        """The run has ended; nothing is called after this.

        Args:
            exit_code: 0 finished, 1 failed, 3 stopped by a health check, 128 + n by signal n.
        """
        ...


@runtime_checkable
class Durable(Protocol):
    """A sink that a run goes on from: before every checkpoint it is asked to have all that it took on the disk."""

    def sync(self) -> None: ...


@dataclass(frozen=True, slots=True)
class SinkRun:
    """What a sink from outside is told about the run: the argument of its factory."""

    folder: Path
    identity: RunIdentity
    config: Mapping[str, Any]
    """The resolved configuration as plain data, without secrets."""
    history: Mapping[int, Row]
    """Rows that a resumed run has logged before, by update; rows after its checkpoint come again and are not in it."""


CLOSING_S = 30.0
"""Seconds that sinks which were dropped have to close, all of them together."""
NEEDED = ("jsonl", "summary", "histograms")
"""A run that cannot write these does not begin, nor does one on a full disk."""


class Fan:
    """Hands every row to each sink: logging never stops a run.

    One that a full disk refuses keeps its calls until there is room; one that raises anything else is dropped with one
    warning, and closed at the end. A sink may be called again with what it has raised at.
    """

    def __init__(self, sinks: Iterable[Sink] = ()) -> None:
        self._sinks = list(sinks)
        self._patience = {id(sink): Patience(sink.name, sink.pointer) for sink in self._sinks}
        self._pointers = {sink.name: sink.pointer for sink in self._sinks}
        self._rejected: set[str] = set()
        self._dropped: list[Sink] = []
        self._closed = False

    def __len__(self) -> int:
        """Sinks still at work."""
        return len(self._sinks)

    @property
    def pointers(self) -> dict[str, str]:
        """Where each sink writes, by its name (dropped sinks too: what they wrote is still there)."""
        for sink in self._sinks:
            with suppress(Exception):  # the same border: what it said before still stands
                self._pointers[sink.name] = sink.pointer
        return dict(self._pointers)

    def log(self, step: int, row: Mapping[str, object]) -> None:
        """Log one row at update `step`; updates must not go backwards within a process."""
        clean, rejected = clean_row(row)
        for key in set(rejected) - self._rejected:
            log.warning("metric %s is not a number (%r at update %d) and is left out from now on", key, row[key], step)
        self._rejected.update(rejected)
        self._each("log", lambda sink: sink.log(step, clean))

    def histograms(self, step: int, values: Mapping[str, Histogram]) -> None:
        """Spread of some values at update `step`, for the sinks that have a place for it."""
        self._each(
            "histograms", lambda sink: sink.histograms(step, values) if isinstance(sink, TakesHistograms) else None
        )

    def facts(self, values: Mapping[str, Any]) -> None:
        """What the run is made of, as far as it was not known when the sinks were opened."""
        shown = mask_secrets(values)
        self._each("facts", lambda sink: sink.facts(shown) if isinstance(sink, TakesFacts) else None)

    def table(self, step: int, name: str, rows: Callable[[], Sequence[Mapping[str, Any]]]) -> None:
        """Of an evaluation.

        Args:
            name: `evaluations` (a row a task) or `trajectories`.
            rows: called if there is a sink that takes them.
        """
        self._each("table", lambda sink: sink.table(step, name, rows()) if isinstance(sink, TakesTables) else None)

    def summary(self, values: Mapping[str, Any]) -> None:
        self._each("summary", lambda sink: sink.summary(values))

    def sync(self) -> bool:
        """What was logged is on the disk; False where that refuses a part of it."""
        taken = [self._on_disk(sink, sink.sync) for sink in tuple(self._sinks) if isinstance(sink, Durable)]
        return all(taken)

    @property
    def unwritten(self) -> list[str]:
        """Sinks with something that the disk has not taken yet."""
        return [sink.name for sink in self._sinks if self._patience[id(sink)].waiting]

    def close(self, exit_code: int = 0) -> None:
        """Only the first call counts.

        Args:
            exit_code: 0 finished, 1 failed, 3 stopped by a health check, 128 + n by signal n.
        """
        if not self._closed:
            self._closed = True
            self._each("close", lambda sink: sink.close(exit_code))
            if lost := self.unwritten:
                log.error("the disk has not taken all of it, and the rest is lost: %s", ", ".join(lost))
            self._close_dropped(exit_code)

    def _close_dropped(self, exit_code: int) -> None:
        """So that what they have open ends; they have failed before, so neither errors nor long waits count."""

        def close() -> None:
            for sink in self._dropped:
                with suppress(Exception):
                    sink.close(exit_code)

        if self._dropped:
            closing = threading.Thread(target=close, name="closing", daemon=True)
            closing.start()
            closing.join(CLOSING_S)

    def _each(self, what: str, call: Callable[[Sink], None]) -> None:
        for sink in tuple(self._sinks):
            try:
                self._patience[id(sink)].do(partial(call, sink))
            except Exception as error:  # the border where a sink may fail and training may not
                self._drop(sink, what, error)

    def _on_disk(self, sink: Sink, sync: Callable[[], None]) -> bool:
        patience = self._patience[id(sink)]
        try:
            return patience.settle() and patience.attempt(sync)
        except Exception as error:  # the same border
            self._drop(sink, "sync", error)
            return True

    def _drop(self, sink: Sink, what: str, error: Exception) -> None:
        self._sinks.remove(sink)
        if what != "close":
            self._dropped.append(sink)
        said = without_secrets(str(error))
        log.warning("%s logging is off (%s failed: %s: %s)", sink.name, what, type(error).__name__, said)


def open_sinks(
    logger_cfg: Logger,
    run_dir: Path,
    *,
    run_config: Mapping[str, Any],
    identity: RunIdentity,
    resume_from_update: int | None,
    brought: Sequence[Mapping[str, Any]] = (),
) -> Fan:
    """Open what the config asks for in `run_dir`; `metrics.jsonl` and `summary.json` always.

    Args:
        run_config: the resolved config as plain data, shown by trackers; secrets are masked.
        resume_from_update: the first update that this process will make, one more than the checkpoint has done. Rows
            from there on are dropped (they come again), so the file ends up equal to that of a straight run.
            None starts a new run: an older metrics.jsonl in the folder is set aside.
        brought: `logger.sinks`, from outside the package.

    Raises:
        ConfigError: one of those cannot be imported, or has the name of one of ours.
        OSError: the folder cannot be written.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    metrics_path, histograms_path = run_dir / "metrics.jsonl", run_dir / HISTOGRAMS
    if resume_from_update is None:
        _set_aside(metrics_path)
        histograms_path.unlink(missing_ok=True)
    else:
        drop_rows_from(metrics_path, resume_from_update)
        drop_rows_from(histograms_path, resume_from_update)
    history = read_rows(metrics_path)

    def told() -> Tracked:
        return tracked(run_dir, identity, run_config, history, is_resumed=resume_from_update is not None)

    openers: dict[str, Callable[[], Sink]] = {
        "jsonl": lambda: JsonlSink(metrics_path),
        "summary": lambda: SummaryFileSink(run_dir / "summary.json"),
        "histograms": lambda: HistogramSink(histograms_path),
    }
    if logger_cfg.csv:
        openers["csv"] = lambda: CsvSink(run_dir / "metrics.csv", history)
    if trackers := tracker_openers(logger_cfg, told):
        keep_ids_with_folder(run_dir)
    openers |= trackers
    run = SinkRun(run_dir, identity, mask_secrets(run_config), history)
    openers |= {f"{spec['target']} [{number}]": _opener(number, spec, run) for number, spec in enumerate(brought)}
    return Fan(_open_all(openers))


def _opener(number: int, spec: Mapping[str, Any], run: SinkRun) -> Callable[[], Sink]:
    """Of a sink from outside. What cannot be imported stops the run here, before anything is played."""
    from empg_cli.config.outside import function_of, refuse_name_of_ours

    settings = {key: value for key, value in spec.items() if key != "target"}
    factory, keywords = function_of(f"logger.sinks[{number}]", spec["target"], settings)

    def open_sink() -> Sink:
        sink: Sink = factory(run, **keywords)
        lacks = [part for part in ("log", "summary", "close") if not callable(getattr(sink, part, None))]
        lacks += [part for part in ("name", "pointer") if not isinstance(getattr(sink, part, None), str)]
        if lacks:
            raise TypeError(f"what it has made, {type(sink).__name__}, lacks {', '.join(lacks)}")
        refuse_name_of_ours(f"logger.sinks[{number}]", spec["target"], sink.name)
        return sink

    return open_sink


def open_trackers(logger_cfg: Logger, folder: Path, *, run_config: Mapping[str, Any], identity: RunIdentity) -> Fan:
    """The trackers alone, for what writes files of its own: an evaluation."""
    return Fan(
        _open_all(tracker_openers(logger_cfg, lambda: tracked(folder, identity, run_config, {}, is_resumed=False)))
    )


def _open_all(openers: Mapping[str, Callable[[], Sink]]) -> list[Sink]:
    opened: list[Sink] = []
    for name, open_sink in openers.items():
        try:
            opened.append(open_sink())
        except Exception as error:  # the same border as in Fan
            if isinstance(error, UserError) or name in NEEDED or refusal(error):
                Fan(opened).close(1)
                raise
            said = without_secrets(str(error))
            log.warning("%s logging is off (it could not start: %s: %s)", name, type(error).__name__, said)
    return opened


def _set_aside(path: Path) -> None:
    if path.exists() and path.stat().st_size:
        backup = path.with_name(f"{path.stem}.before{path.suffix}")
        path.replace(backup)
        log.warning("%s held the metrics of an earlier run; they are now in %s", path, backup.name)
