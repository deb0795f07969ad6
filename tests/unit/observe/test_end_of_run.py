"""How a run ends on the screen: the panel goes first, so that every line of the summary stays."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from rich.console import Console

from empg_cli.observe.dashboard import Dashboard
from empg_cli.observe.health import HealthStop
from empg_cli.observe.observer import Observer
from empg_cli.observe.sinks import Fan
from empg_cli.runs.checkpoint import TrainState
from empg_cli.runs.folder import OpenFolder
from empg_cli.signals import Interrupted, caught, held
from tests.support.screen import Screen
from tests.support.tiny import tiny_config

WIDTHS = (40, 80, 120)
TITLE = "empg on alfworld (generated data), seed 0"
ROW = {"episode/success_rate": 0.5, "episode/reward/mean": 1.0, "actor/kl_loss": 0.1, "actor/entropy": 0.5,
       "actor/pg_clipfrac": 0.1, "perf/throughput": 99.0}  # fmt: skip


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("CI", raising=False)


@pytest.fixture(scope="module")
def cfg():
    return tiny_config("trainer.updates=3")


def finishes(run: Observer, state: TrainState) -> None:
    run.finish(state)


def is_interrupted(run: Observer, state: TrainState) -> None:
    state.update = 2

    def stop() -> None:
        with caught(), held():
            os.kill(os.getpid(), signal.SIGINT)
            run.raise_if_stopped(state)

    with pytest.raises(Interrupted):
        stop()
    run.finish(state)
    run.finish(state)  # a second time says nothing


def is_stopped_by_its_health(run: Observer, state: TrainState) -> None:
    state.update = 2
    run.health.stop_reason = "the KL loss spiked"
    with pytest.raises(HealthStop):
        run.raise_if_stopped(state)


def end_run(cfg, dashboard: Dashboard, run_dir: Path, end: Callable[[Observer, TrainState], None]) -> None:
    """A run of three updates, which ends while its dashboard is open, as `observing` has it."""
    folder = OpenFolder(run_dir, resume_from=None, done=0, data_source="generated", task_kinds=("look",),
                        prompt_date=date(2026, 1, 1))  # fmt: skip
    with dashboard:
        run = Observer(cfg, folder, Fan(), dashboard, history={})
        run.progress("rollout")(3, 8)
        run.log(TrainState(update=1), ROW)
        run.log(state := TrainState(update=3), ROW)
        end(run, state)


@pytest.mark.parametrize("end", [finishes, is_interrupted, is_stopped_by_its_health])
@pytest.mark.parametrize("width", WIDTHS)
def test_every_line_of_the_summary_stays_on_the_terminal(width, end, cfg, tmp_path, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    terminal.write("$ empg train\n")
    console = Console(file=terminal, force_terminal=True, width=width, height=30)
    end_run(cfg, Dashboard("rich", TITLE, 3, console=console), tmp_path, end)
    lines = Screen(width, rows=30).feed(terminal.getvalue().replace("\n", "\r\n")).text()
    done = 3 if end is finishes else 2
    assert lines[0] == "$ empg train"
    summary = lines[lines.index(TITLE) :]
    assert not any("─" in line for line in lines), "something of the panel is left"
    assert [line[:18].rstrip() for line in summary if line] == [
        TITLE[:18], "KL to reference", "entropy", "KL spikes", "updates", "wall time", "task types", "data", "folder",
        "metrics", "evaluate", *(["go on"] if done < 3 else []),
    ]  # fmt: skip
    assert f"updates             {done} of 3" + ("" if done == 3 else " (stopped)") in summary
    assert f"folder              {tmp_path}" in summary
    assert f"metrics             {tmp_path}/metrics.jsonl" in summary


def test_in_a_pipe_nothing_follows_the_summary_of_an_interrupted_run(cfg, tmp_path, monkeypatch):
    """Both streams in one, as with `empg train 2>&1 | tee log`."""
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stdout", pipe)
    clock = iter(range(1000)).__next__  # a second each time: the second update is not due for a line of its own
    dashboard = Dashboard("plain", TITLE, 5, stream=pipe, clock=lambda: float(clock()))
    end_run(cfg, dashboard, tmp_path, is_interrupted)
    lines = pipe.getvalue().splitlines()
    assert [line for line in lines if line.startswith("update ")][-1].startswith("update 3/5 "), "where it got to"
    assert lines[-1].startswith("go on "), lines[-1]


def test_a_closed_dashboard_is_silent():
    stream = io.StringIO()
    with Dashboard("plain", TITLE, 3, stream=stream) as dashboard:
        dashboard.update(1, ROW)
        dashboard.close()
        before = stream.getvalue()
        dashboard.close()
        dashboard.phase("rollout", 1, 2)
        dashboard.update(3, ROW)
        dashboard.message("late")
    assert stream.getvalue() == before
