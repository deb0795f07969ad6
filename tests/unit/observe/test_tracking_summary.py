"""The end of a run on stdout: complete, copyable, honest about generated data."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from empg_cli.invocation import eval_command, resume_command
from empg_cli.observe.summary import RunReport, print_evaluation, print_run_summary
from empg_cli.observe.terminal import duration, printable

RUN = Path("runs/alfworld-empg-8d7c2f/s0")
REPORT = RunReport(
    title="alfworld-empg-s0",
    run_dir=RUN,
    checkpoint=RUN / "checkpoints/step-000060",
    updates=60,
    total_updates=60,
    wall_s=3723.4,
    data="generated",
    task_kinds=["pick_and_place_simple", "look_at_obj_in_light"],
    first=(0, {"success_rate": 0.1, "lo": 0.05, "hi": 0.18, "n": 134}),
    best=(40, {"success_rate": 0.769, "lo": 0.691, "hi": 0.832, "n": 134}),
    last=(60, {"success_rate": 0.75, "lo": 0.67, "hi": 0.815, "n": 134}),
    kl=0.0031,
    entropy=0.512,
    trackers={"W&B": "wandb sync runs/wandb/offline-run-1"},
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def summary(report: RunReport, stream: io.StringIO | None = None) -> str:
    stream = stream or io.StringIO()
    print_run_summary(report, stream)
    return stream.getvalue()


def test_finished_run():
    assert summary(REPORT).splitlines() == [
        "alfworld-empg-s0",
        "first success rate  10.0%  [5.0%, 18.0%]  n=134  after update 0",
        "best success rate   76.9%  [69.1%, 83.2%]  n=134  after update 40",
        "last success rate   75.0%  [67.0%, 81.5%]  n=134  after update 60",
        "KL to reference     0.0031 nats",
        "entropy             0.512 nats",
        "updates             60 of 60",
        "wall time           1:02:03",
        "task types          pick_and_place_simple, look_at_obj_in_light",
        "data                generated (not the official benchmark)",
        f"folder              {RUN}",
        f"metrics             {RUN}/metrics.jsonl",
        f"checkpoint          {RUN}/checkpoints/step-000060",
        f"evaluate            empg eval run={RUN}",
        "W&B                 wandb sync runs/wandb/offline-run-1",
    ]


def test_stopped_run_says_how_to_go_on():
    text = summary(replace(REPORT, updates=17))
    assert "17 of 60 (stopped)" in text
    assert f"empg train --resume {RUN}\n" in text


def test_run_that_measured_nothing_claims_nothing():
    text = summary(
        replace(REPORT, first=None, best=None, last=None, kl=None, entropy=None, checkpoint=None, trackers={})
    )
    for absent in ("success", "KL", "entropy", "checkpoint", "W&B", "None", "nan"):
        assert absent not in text


def test_official_data_has_no_warning():
    assert "not the official" not in summary(replace(REPORT, data="official"))


def test_lines_are_never_wrapped_on_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    long_path = Path("runs") / ("x" * 100)
    assert f"empg eval run={long_path}\n" in summary(replace(REPORT, run_dir=long_path), Terminal())


def test_commands_survive_shell_and_hydra():
    assert eval_command(Path("runs/a b")) == """empg eval 'run="runs/a b"'"""
    assert resume_command(Path("runs/a b")) == "empg train --resume 'runs/a b'"


def kind(name: str, n: int, rate: float) -> SimpleNamespace:
    return SimpleNamespace(
        kind=name,
        n=n,
        success_rate=rate,
        lo=rate - 0.1,
        hi=rate + 0.1,
        score=rate,
        steps=12.34,
        valid_actions=0.985,
        not_judged=0,
    )


@pytest.mark.parametrize("stream_type", [io.StringIO, Terminal])
def test_evaluation_table_has_a_row_per_kind_and_the_total_last(stream_type, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    stream = stream_type()
    kinds = [kind("pick_clean_then_place_in_recep", 24, 0.5), kind("look [red]\x1b[31m", 110, 0.25)]
    print_evaluation(kinds, kind("all", 134, 0.295), "valid_unseen, greedy", stream)
    lines = [line.split() for line in printable(stream.getvalue()).splitlines()]
    assert ["valid_unseen,", "greedy"] in lines
    first = lines.index(["pick_clean_then_place_in_recep", "24", "50.0%", "[40.0,", "60.0]", "12.3", "0.500", "98.5%"])
    second = lines.index(["look", "[red]", "110", "25.0%", "[15.0,", "35.0]", "12.3", "0.250", "98.5%"])
    total = lines.index(["all", "134", "29.5%", "[19.5,", "39.5]", "12.3", "0.295", "98.5%"])
    assert first < second < total


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00:00"), (59.6, "0:01:00"), (3661, "1:01:01"), (90061, "1d 01:01:01"), (-3, "0:00:00")]
)
def test_duration(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\nübermut 🧪", "plain\ttext\nübermut 🧪"),
        ("a\x1b[1;31mb\x1b[0mc", "abc"),  # colours
        ("a\x1b]8;;http://x\x1b\\link\x1b]8;;\x07b", "alinkb"),  # hyperlinks
        ("a\x1b]0;title", "a"),  # a sequence that never ends
        ("a\x1b(Bb\x1bcd", "abd"),  # character set, reset
        ("a\rb\x08c\x00", "a\ufffdb\ufffdc\ufffd"),  # going back over what was written
        ("a\x9b31mb", "a\ufffd31mb"),  # the one-byte form of the escape
        ("caf\udce9", "caf\ufffd"),  # a byte that is not UTF-8, as Python names files
        ("[bold]a[/]", "[bold]a[/]"),
    ],
)
def test_printable(text, shown):
    assert printable(text) == shown
