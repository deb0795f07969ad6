"""Diagnostics in a report: histograms, KL spikes, health warnings, and Figure 3 with the right intervals."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from empg_cli import config
from empg_cli.config import load
from empg_cli.config.schema import TrainConfig
from empg_cli.evaluation.diagnosis import (
    FOLDER,
    ChangeBin,
    Diagnosis,
    EntropyChange,
    GradientNorms,
    GradientStep,
    Proposition1,
    TokenBin,
    read_diagnosis,
    write_diagnosis,
)
from empg_cli.reports.diagnosis_tables import diagnosis_tables
from empg_cli.reports.entropy_change import changes
from empg_cli.reports.figures import draw_figures
from empg_cli.reports.health_history import spike_note
from empg_cli.reports.page.bars import Heap
from empg_cli.reports.page.entropy_charts import entropy_charts
from empg_cli.reports.page.page import write_page
from empg_cli.reports.show import show_run
from empg_cli.runs.histograms import Histogram
from empg_cli.runs.reading import open_runs
from empg_cli.stats.intervals import Estimate

UNEVEN = {"low": 0.0, "high": 2.0, "counts": [6, 2]}


@cache
def composed(*overrides: str) -> TrainConfig:
    return load(list(overrides))


def make_run(folder: Path, *, seed: int = 0, change: float | None = None, spikes: tuple[int, ...] = ()) -> Path:
    """A run of three updates; `change` is the entropy change in the higher of two bins."""
    folder.mkdir(parents=True)
    config.write(composed(f"seed={seed}", "trainer.updates=3"), folder / "config.yaml")
    (folder / "run.json").write_text(json.dumps({"config_hash": "abc", "data": {"source": "generated"}}))
    rows = [
        {"update": n, "actor/kl_loss": 0.1 * n, "health/kl_spikes": sum(spike <= n for spike in spikes)}
        for n in (1, 2, 3)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if change is not None:
        write_diagnosis(diagnosis(change), folder / FOLDER)
    return folder


def diagnosis(change: float) -> Diagnosis:
    low, high = Estimate(0.1, 0.05, 0.15, 40), Estimate(change, change - 0.05, change + 0.05, 40)
    bins = (ChangeBin((0.0, 50.0), 0.2, 0.3, low, 0.12), ChangeBin((50.0, 100.0), 1.0, 1.0 + change, high, 0.5))
    tokens = (TokenBin(0.1, 0.05, 0.05, 0.05, Estimate(0.06, 0.04, 0.08, 9)), TokenBin(1, 0.8, 0.55, 0.55, high))
    proposition = Proposition1(tokens, 1e-7, Estimate(0.001, -0.01, 0.01, 18), 0.9)
    figure3 = EntropyChange("initial", "update-3", bins)
    steps = tuple(GradientStep(f"task {n}", n, 3, 0.1 * n, 0.2, 1.0 + n) for n in range(5))
    gradients = GradientNorms(steps, Estimate(1.0, 0.9, 1.0, 5))
    return Diagnosis("last", "alfworld", "generated", "train", 1.0, 0, 4, 80, 300, proposition, gradients, figure3)


def test_densities_compare_histograms_of_different_ranges() -> None:
    # 6 of 8 steps in 0..1 and 2 of 8 in 1..2; bins of width 1: shares as they are. Half the width, twice the density.
    assert Heap("", "", Histogram(0.0, 2.0, (6, 2))).density == pytest.approx([0.75, 0.25])
    assert Heap("", "", Histogram(0.0, 1.0, (6, 2))).density == pytest.approx([1.5, 0.5])


def test_the_newest_histograms_are_drawn(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    lines = [
        {"update": 2, "hist/step_entropy_won": UNEVEN, "hist/weight": UNEVEN},
        {"update": 3, "hist/step_entropy_lost": UNEVEN | {"counts": [1, 2]}},
    ]
    (run / "histograms.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    charts = entropy_charts(open_runs([run]))
    assert [chart.title for chart in charts] == ["step entropy by outcome", "EMPG weight g"]
    assert charts[0].key == (("minus", "not solved, 3 steps"),)  # nothing was solved in update 3
    assert charts[1].note == "density of 8 steps, update 2"
    out = io.StringIO()
    show_run(open_runs([run])[0], trajectories=0, stream=out)
    assert "step entropy, not solved" in out.getvalue() and "3 steps of update 3" in out.getvalue()


def test_figure_3_of_one_run_has_its_own_intervals(tmp_path: Path) -> None:
    (change,) = changes(open_runs([make_run(tmp_path / "run", change=0.6)]))
    assert change.bins[1].change == pytest.approx(Estimate(0.6, 0.55, 0.65, 40))
    assert change.note == "initial to update-3, seed 0, 80 steps; 95 % t interval over episodes"


def test_figure_3_of_several_seeds_has_t_intervals_over_them(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / str(seed), seed=seed, change=0.6 + 0.2 * seed) for seed in (0, 1)]
    (change,) = changes(open_runs([*folders, make_run(tmp_path / "2", seed=2)]))  # the third has no diagnosis
    found = change.bins[1].change
    # 0.6 and 0.8: mean 0.7, sd 0.1414, t(0.975, 1) = 12.7062 -> half 12.7062 x 0.1414 / sqrt(2) = 1.27062
    assert (found.value, found.n) == (pytest.approx(0.7), 2)
    assert found.high - found.value == pytest.approx(12.7062 * math.sqrt(0.02) / math.sqrt(2), rel=1e-4)
    assert change.bins[1].after == pytest.approx(1.7)
    assert "2 seeds" in change.note


def test_runs_whose_bins_differ_are_counted_as_left_out(tmp_path: Path) -> None:
    """So are those of another pair of policies."""
    folders = [make_run(tmp_path / str(seed), seed=seed, change=0.6) for seed in (0, 1, 2, 3)]
    other = diagnosis(0.6)
    assert other.change is not None
    write_diagnosis(replace(other, change=replace(other.change, bins=other.change.bins[:1])), folders[2] / FOLDER)
    write_diagnosis(replace(other, change=replace(other.change, after="update-2")), folders[3] / FOLDER)
    (change,) = changes(open_runs(folders))
    assert change.note == (
        "initial to update-3; mean over 2 seeds, 95 % t interval over seeds; "
        "left out, as their policies or bins differ: 2"
    )


def test_runs_with_a_spike_are_counted_per_configuration(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / "a", spikes=(2, 3)), make_run(tmp_path / "b", seed=1)]
    assert spike_note(open_runs(folders)) == "runs with a KL spike: empg (tiny) 1 of 2"


def test_page_terminal_and_figure_have_it_all(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", change=0.6)
    warning = {"update": 2, "name": "kl_spike", "text": "<b>KL</b> rose", "trajectory": {"task_id": "t1", "step": 4}}
    (run / "health.jsonl").write_text(json.dumps(warning) + "\n")
    runs = open_runs([run])
    write_page(runs, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    for word in (
        "(Figure 3)",
        "(Proposition 1)",
        "+0.1 in the lowest bin to +0.6",
        "&lt;b&gt;KL&lt;/b&gt; rose",
        "rank correlation 1.00 [0.90, 1.00], n=5",
        "step 4",
    ):
        assert word in page
    out = io.StringIO()
    show_run(runs[0], trajectories=0, stream=out)
    assert "+0.1 to +0.6" in out.getvalue() and "<b>KL</b> rose" in out.getvalue()


def test_figure_3_is_a_file_of_its_own(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra report")
    paths = draw_figures(open_runs([make_run(tmp_path / "run", change=0.6)]), tmp_path / "out")
    assert {path.name for path in paths} >= {"entropy_change.png", "entropy_change.pdf", "entropy_change.svg"}


def test_tables_of_an_earlier_diagnosis_do_not_stay(tmp_path: Path) -> None:
    write_diagnosis(diagnosis(0.6), tmp_path)
    written = write_diagnosis(replace(diagnosis(0.6), gradients=None, change=None), tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(written)
    assert [path.name for path in written] == ["diagnosis.json", "proposition1.csv"]


def test_too_few_gradients_have_no_rank_correlation(tmp_path: Path) -> None:
    found = diagnosis(0.6)
    assert found.gradients is not None
    few = replace(found, gradients=GradientNorms(found.gradients.steps[:1], None))
    write_diagnosis(few, tmp_path)
    assert read_diagnosis(tmp_path) == few
    (table,) = [one for one in diagnosis_tables(few) if "all parameters" in one.title]
    assert table.notes == ("too few steps or episodes for a rank correlation",)
