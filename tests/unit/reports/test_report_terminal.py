"""The same content in the terminal: `empg show`."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from empg_cli.cli.commands import report
from empg_cli.reports.show import list_metrics, show_run, show_runs
from empg_cli.runs.reading import open_runs
from tests.support.report_page import make_run, with_texts


def test_the_same_run_in_the_terminal(tmp_path: Path) -> None:
    out = io.StringIO()
    (run,) = open_runs([make_run(tmp_path / "run", text="go [bold]north[/bold]\x1b[2J")])
    show_run(run, trajectories=1, stream=out)
    shown = out.getvalue()
    for word in ("empg on alfworld, seed 0", "generated", "H 0.500", "g 1.200", "f 0.800", "credit -1.160", "refused",
                 "1 of 4 trajectories"):  # fmt: skip
        assert word in shown
    assert "[bold]north[/bold]" in shown.replace("\n", "")  # somebody else's markup is text
    assert "\x1b[2J" not in shown


def test_the_terminal_shows_what_a_model_wrote_that_could_not_be_parsed(tmp_path: Path) -> None:
    def shown(folder: Path, **more: bool) -> str:
        out = io.StringIO()
        show_run(open_runs([folder])[0], trajectories=1, stream=out, **more)
        return " ".join(re.sub("[│╭╮╰╯─]", " ", out.getvalue()).split())

    run = with_texts(make_run(tmp_path / "run", steps=1), "READ \x1b[2J", "I think WROTE<|im_end|>")
    assert "WROTE" not in shown(run) and "--texts" in shown(run)
    assert re.search(r"0 0 READ .*I think WROTE<\|im_end\|> .*> look", shown(run, texts=True))
    with_texts(run, "READ", "I think WROTE<|im_end|>", well_formed=False)
    assert re.search(r"I think WROTE<\|im_end\|> .*> look malformed", shown(run))
    older = make_run(tmp_path / "older", steps=1)
    assert "look 0 0" in shown(older, texts=True)


def test_the_terminal_shows_what_an_evaluation_has_played(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = with_texts(make_run(tmp_path / "run", steps=1), "READ", "WROTE")
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "evaluation.json").write_text("{}")
    (run / "trajectories" / "update-000001-train.jsonl").unlink()
    (run / "trajectories").rename(tmp_path / "eval" / "trajectories")
    report.show(tmp_path / "eval", trajectories=1, texts=True)
    shown = capsys.readouterr().out
    assert "READ" in shown and "WROTE" in shown and "1 of 4 trajectories" in shown


def test_several_runs_in_the_terminal_have_a_line_per_configuration(tmp_path: Path) -> None:
    runs = open_runs([make_run(tmp_path / "a"), make_run(tmp_path / "b", seed=1), make_run(tmp_path / "c", seed=2)])
    out = io.StringIO()
    show_runs(runs, out)
    # success after update 2: 0.6, 0.7, 0.8; t(0.975, 2) = 4.3027, sd 0.1 -> half 0.2484
    assert "70.0% [45.2%, 94.8%]" in out.getvalue()
    assert "mean over 3 seeds; band: 95 % t interval over seeds" in out.getvalue()
    assert all(str(run.folder) in out.getvalue() for run in runs)


def test_metrics_are_listed_with_their_definitions() -> None:
    out = io.StringIO()
    list_metrics(None, out)
    assert "empg/weight/mean" in out.getvalue() and "actor/kl_loss" in out.getvalue()
    narrow = io.StringIO()
    list_metrics("wilson", narrow)
    assert "eval/success_rate_lo" in narrow.getvalue() and "actor/kl_loss" not in narrow.getvalue()
