"""The report of runs: what the page holds, and that nothing a model wrote becomes part of it."""

from __future__ import annotations

import io
import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from empg_cli import config
from empg_cli.config import load
from empg_cli.reporting.curves import band_note, curves_of
from empg_cli.reporting.page import trajectory_data, write_page
from empg_cli.reporting.runs import NotARun, open_runs
from empg_cli.reporting.terminal import list_metrics, show_run

ATTACK = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\x1b[31m"


def make_run(folder: Path, *, seed: int = 0, trajectories: int = 4, steps: int = 3, text: str = "look") -> Path:
    folder.mkdir(parents=True)
    config.write(load([f"seed={seed}"]), folder / "config.yaml")
    facts = {"config_hash": "abc", "commit": "c0ffee", "loss_weighting": "token", "data": {"source": "generated"}}
    (folder / "run.json").write_text(json.dumps(facts))
    rows = [
        {
            "update": update,
            "eval/success_rate": 0.4 + 0.1 * update + 0.1 * seed,
            "eval/success_rate_lo": 0.3,
            "eval/success_rate_hi": 0.8,
            "eval/n": 140,
            "actor/kl_loss": 0.01 * update,
        }
        for update in range(3)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "trajectories").mkdir()
    for update in (1, 2):
        records = [record(number, update, steps, text) for number in range(trajectories)]
        content = "".join(json.dumps(entry) + "\n" for entry in records)
        (folder / "trajectories" / f"update-{update:06d}-train.jsonl").write_text(content)
    return folder


def record(number: int, update: int, steps: int, text: str) -> dict[str, Any]:
    step = {"action": text, "well_formed": True, "admissible": False, "reward": 0.0, "tokens": 3,
            "entropy": 0.5, "advantage": -1.0, "g": 1.2, "f": 0.8, "credit": -1.16}  # fmt: skip
    return {
        "phase": "train", "update": update, "task_id": f"task {number}", "kind": "pick", "split": "train",
        "group": 0, "index": number, "status": "step_limit", "success": number % 2 == 0, "score": 0.0,
        "reward": -0.1, "error": None,
        "steps": [{"observation": f"{text} {number} {turn} " + "x" * 300, **step} for turn in range(steps)],
    }  # fmt: skip


class Reader(HTMLParser):
    """Tags, addresses and the data block of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.data = ""
        self._in_data = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "onerror")]
        self._in_data = ("id", "data") in attrs

    def handle_data(self, data: str) -> None:
        if self._in_data:
            self.data += data

    def handle_endtag(self, tag: str) -> None:
        self._in_data = False


def page_of(folders: list[Path], out: Path) -> tuple[str, Reader]:
    write_page(open_runs(folders), out)
    reader = Reader()
    reader.feed(out.read_text())
    return out.read_text(), reader


def test_the_page_has_tiles_curves_and_every_step(tmp_path: Path) -> None:
    text, reader = page_of([make_run(tmp_path / "run")], tmp_path / "report.html")
    assert reader.tags.count("svg") == 2  # success rate and KL loss; the others were not logged
    assert "60.0%" in text and "[30.0%, 80.0%] n=140" in text
    assert "not the official benchmark" in text and "commit c0ffee" in text
    data = json.loads(reader.data)
    (first, *_), texts = data["trajectories"], data["texts"]
    assert first["update"] == 2  # the newest
    observation, action, flags, *numbers = first["steps"][0]
    assert texts[observation].startswith("look 0 0") and texts[action] == "look"
    assert flags == 2  # refused
    assert numbers == [0.5, 1.2, 0.8, -1.0, -1.16]


def test_nothing_is_loaded_from_elsewhere_and_no_text_becomes_markup(tmp_path: Path) -> None:
    text, reader = page_of([make_run(tmp_path / "run", text=ATTACK)], tmp_path / "report.html")
    assert reader.addresses == []
    assert reader.tags.count("script") == 2  # the data and the page's own script
    assert "img" not in reader.tags
    assert "alert(1)</script>" not in text
    assert "http" not in text.replace("http-equiv", "")
    assert "\x1b" not in text
    assert "</script><script>alert(1)" in "".join(json.loads(reader.data)["texts"])  # shown as text


def test_two_hundred_long_trajectories_stay_below_two_megabytes(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", trajectories=220, steps=50)
    data, shown, total = trajectory_data(open_runs([folder]))
    assert total == 220
    assert 0 < shown <= 200
    write_page(open_runs([folder]), tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size < 2_000_000
    assert len(data["trajectories"]) == shown


def test_bands_over_seeds_are_t_intervals(tmp_path: Path) -> None:
    runs = open_runs([make_run(tmp_path / "a", seed=0), make_run(tmp_path / "b", seed=1)])
    (curve,) = curves_of(runs, "eval/success_rate")
    assert (curve.seeds, curve.updates) == (2, (0, 1, 2))
    # values 0.6 and 0.7 after update 2: mean 0.65, sd 0.0707, t(0.975, 1) = 12.706 -> half 12.706 * 0.0707 / sqrt(2)
    assert curve.mean[2] == pytest.approx(0.65)
    assert curve.high is not None
    assert curve.high[2] - 0.65 == pytest.approx(12.7062 * math.sqrt(0.005) / math.sqrt(2), rel=1e-4)
    assert "t interval over seeds" in band_note([curve])


def test_a_single_run_has_the_wilson_band(tmp_path: Path) -> None:
    (curve,) = curves_of(open_runs([make_run(tmp_path / "a")]), "eval/success_rate")
    assert curve.low == (0.3, 0.3, 0.3)
    assert "Wilson" in band_note([curve])


def test_a_curve_stops_where_a_run_of_its_group_stopped(tmp_path: Path) -> None:
    short = make_run(tmp_path / "b", seed=1)
    lines = (short / "metrics.jsonl").read_text().splitlines(keepends=True)
    (short / "metrics.jsonl").write_text("".join(lines[:2]))
    (curve,) = curves_of(open_runs([make_run(tmp_path / "a"), short]), "eval/success_rate")
    assert curve.updates == (0, 1)


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


def test_metrics_are_listed_with_their_definitions() -> None:
    out = io.StringIO()
    list_metrics(None, out)
    assert "empg/weight/mean" in out.getvalue() and "actor/kl_loss" in out.getvalue()
    narrow = io.StringIO()
    list_metrics("wilson", narrow)
    assert "eval/success_rate_lo" in narrow.getvalue() and "actor/kl_loss" not in narrow.getvalue()


def test_what_is_no_run_is_refused_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(NotARun, match="no such folder"):
        open_runs([tmp_path / "nowhere"])
    with pytest.raises(NotARun, match=r"config\.yaml and metrics\.jsonl"):
        open_runs([tmp_path])


def test_figures_in_three_formats(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra report")
    from empg_cli.reporting.figures import draw_figures

    runs = open_runs([make_run(tmp_path / "a"), make_run(tmp_path / "b", seed=1)])
    paths = draw_figures(runs, tmp_path / "out")
    heads = {path.suffix: path.read_bytes()[:8] for path in paths}
    assert heads[".png"] == b"\x89PNG\r\n\x1a\n"
    assert heads[".pdf"].startswith(b"%PDF")
    assert "<svg" in (tmp_path / "out" / "curves.svg").read_text()


def test_figures_without_matplotlib_say_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from empg_cli.reporting.figures import MissingExtra, draw_figures

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtra, match=r"report.*--no-figures"):
        draw_figures(open_runs([make_run(tmp_path / "a")]), tmp_path)
