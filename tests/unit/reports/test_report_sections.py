"""What a page tells beside curves and trajectories: task types, axes, settings, versions, equal seeds."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from empg_cli import config
from empg_cli.reports.curves import KL_LOSS, VALID, band_note, curves_of, panel_curves
from empg_cli.reports.figures import curves_csv
from empg_cli.reports.page.charts import MOST_POINTS_IN_ALL, charts_of
from empg_cli.reports.page.tiles import tiles_of
from empg_cli.reports.progress import EPISODES, HOURS, TOKENS, measure_axis, places, reached
from empg_cli.reports.settings import made_with, settings_of
from empg_cli.reports.show import show_run, show_runs
from empg_cli.reports.tables import Table
from empg_cli.reports.task_types import type_panels, type_table
from empg_cli.runs.reading import open_runs
from tests.support.report_page import ATTACK, composed, make_run, page_of


def with_rows(folder: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """The rows in place of the run's own."""
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def with_facts(folder: Path, **facts: Any) -> Path:
    told = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(told | facts))
    return folder


def texts(table: Table | None) -> list[list[str]]:
    assert table is not None
    return [[cell.text for cell in row] for row in table.rows]


def typed(update: int, **shares: float) -> dict[str, Any]:
    return {"update": update, **{f"eval/{kind}/success_rate": share for kind, share in shares.items()}}


def evaluated(folder: Path, update: int, **content: Any) -> Path:
    (folder / "evaluations").mkdir(exist_ok=True)
    (folder / "evaluations" / f"update-{update:06d}.json").write_text(json.dumps({"update": update, **content}))
    return folder


def share(kind: str, rate: float, low: float, high: float, n: int) -> dict[str, Any]:
    return {"kind": kind, "success_rate": rate, "lo": low, "hi": high, "n": n, "steps": 12.25, "valid_actions": 0.5}


def test_task_types_have_a_curve_and_a_row_with_their_interval(tmp_path: Path) -> None:
    run = with_rows(make_run(tmp_path / "run"), [typed(0, look=0.25, heat_then_place=0.0), typed(4, look=0.5)])
    total = {"success_rate": 0.5, "lo": 0.15, "hi": 0.85, "n": 4}
    evaluated(run, 4, total=total, kinds=[share("look", 0.5, 0.15, 0.85, 4)])
    runs = open_runs([run])
    assert [panel.title for panel in type_panels(runs)] == ["heat then place", "look"]
    assert texts(type_table(runs)) == [
        ["heat then place", "–", "–", "–", "–", "–"],  # not played in the last evaluation
        ["look", "4", "50.0%", "[15.0%, 85.0%]", "12.2", "50.0%"],
    ]
    text, reader = page_of([run], tmp_path / "report.html")
    assert "Success by task type" in text and reader.tags.count("figure") == 2
    drawn = json.loads(reader.scripts["charts"])["charts"][1]
    assert drawn["curves"][0]["mean"] == [0.25, 0.5] and drawn["range"] == [-0.05, 1.05]


def test_averages_of_deep_search_come_last_under_their_names(tmp_path: Path) -> None:
    run = with_rows(make_run(tmp_path / "run"), [typed(1, ood=0.1, id=0.7, overall=0.4, zhop=0.7)])
    ood = {"name": "OOD", "group": "ood", "sources": 2, "success_rate": 0.1, "lo": 0.05, "hi": 0.2, "n": 40}
    evaluated(run, 1, total={"success_rate": 0.4, "lo": 0, "hi": 1, "n": 1}, kinds=[], averages=[ood])
    table = type_table(open_runs([run]))
    assert [row[0] for row in texts(table)] == ["zhop", "ID", "OOD", "ID and OOD"]
    assert texts(table)[2] == ["OOD", "40", "10.0%", "[5.0%, 20.0%]", "–", "–"]
    told = "ID, OOD: means over sources, each counting once; their intervals combine the sources' Wilson limits"
    assert table is not None and told in table.notes


def test_without_the_file_of_an_evaluation_the_table_says_what_is_missing(tmp_path: Path) -> None:
    table = type_table(open_runs([with_rows(make_run(tmp_path / "run"), [typed(1, look=0.5)])]))
    assert texts(table) == [["look", "–", "50.0%", "–", "–", "–"]]
    assert table is not None and any("tasks and intervals are not known" in note for note in table.notes)
    assert type_table(open_runs([make_run(tmp_path / "other")])) is None


def test_the_name_of_a_task_type_stays_text(tmp_path: Path) -> None:
    run = with_rows(make_run(tmp_path / "run"), [typed(1, **{"<img src=x>": 0.5})])
    _, reader = page_of([run], tmp_path / "report.html")
    assert "img" not in reader.tags and "<img src=x>" in reader.texts


def test_task_types_of_a_study_stand_by_configuration(tmp_path: Path) -> None:
    heights = {"a": (0.2, 0.4), "b": (0.5, 0.5), "c": (0.3,)}
    folders = []
    for name, shares in heights.items():
        for seed, value in enumerate(shares):
            folder = with_rows(make_run(tmp_path / f"{name}-s{seed}", seed=seed), [typed(2, look=value)])
            config.write(
                composed(f"seed={seed}", f"algo.credit.zeta=0.{'abc'.index(name) + 1}"), folder / "config.yaml"
            )
            folders.append(with_facts(folder, config_hash=name))
    table = type_table(open_runs(folders))
    # 0.2 and 0.4: mean 0.3, sd 0.1414, t(0.975, 1) = 12.7062: half 12.7062 x 0.1414 / sqrt(2) = 1.2706
    assert texts(table) == [["look", "30.0% ± 127.1", "50.0% (equal in all 2)", "30.0%"]]
    assert table is not None
    notes = " ".join(table.notes)
    assert "2 equal seeds carry no spread, so no interval" in notes and "t = 12.7" in notes and "one seed" in notes


def test_equal_seeds_have_no_interval_and_say_why(tmp_path: Path) -> None:
    rows = [{"update": n, "eval/success_rate": 0.0, "actor/kl_loss": 0.1 * n} for n in (1, 2)]
    folders = [with_rows(make_run(tmp_path / f"s{seed}", seed=seed), rows) for seed in (0, 1)]
    runs = open_runs(folders)
    (tile,) = tiles_of(runs)
    assert (tile.value, tile.note, tile.share) == (
        "0.0%", "2 equal seeds carry no spread, so no interval · after update 2", None,
    )  # fmt: skip
    (curve,) = curves_of(runs, "eval/success_rate")
    assert curve.interval_at(0) is None and "carry no spread, so no band" in band_note([curve])
    out = io.StringIO()
    show_runs(runs, out)
    assert "0.0% (2 equal seeds carry no spread, so no interval)" in " ".join(out.getvalue().split())
    assert "empg (tiny),eval/success_rate,2,2,0.0,," in curves_csv(runs).splitlines()
    text, reader = page_of(folders, tmp_path / "report.html")
    assert "[0.0%, 0.0%]" not in text
    assert json.loads(reader.scripts["charts"])["charts"][0]["curves"][0]["equal"] == [0, 1]


def test_what_was_reached_after_an_update(tmp_path: Path) -> None:
    rows = [
        {"update": 0, "env/episodes": 0, "env/tokens": 0, "perf/time_per_step": 900},
        {"update": 1, "env/episodes": 8, "env/tokens": 100, "perf/time_per_step": 2700},
        {"update": 2, "env/episodes": 16, "perf/time_per_step": 1800},
        {"update": 3, "env/episodes": 24, "env/tokens": 900},
    ]
    (run,) = open_runs([with_rows(make_run(tmp_path / "run"), rows)])
    assert reached(run, EPISODES) == {0: 0, 1: 8, 2: 16, 3: 24}
    assert reached(run, TOKENS) == {0: 0, 1: 100, 3: 900}
    assert reached(run, HOURS) == {0: 0.25, 1: 1.0, 2: 1.5}  # sums of seconds / 3600, up to the row without any
    other = [{"update": 1, "env/episodes": 10}, {"update": 3, "env/episodes": 30}]
    (twin,) = open_runs([with_rows(make_run(tmp_path / "twin"), other)])
    assert places([run, twin], EPISODES, [1, 3]) == [9, 27]
    assert places([run, twin], EPISODES, [0, 1]) is None
    assert places([run, twin], HOURS, [1]) is None


def test_an_axis_of_many_tokens_counts_in_millions() -> None:
    axis = measure_axis(TOKENS, [0, 4_000_000])
    assert axis.name == "sampled tokens (millions)"
    assert axis.marks == ((0.0, "0"), (1e6, "1"), (2e6, "2"), (3e6, "3"), (4e6, "4"))
    assert measure_axis(EPISODES, [0, 400]).name == "training episodes"


def test_a_page_offers_the_axes_that_every_curve_has(tmp_path: Path) -> None:
    rows = [{"update": n, "actor/kl_loss": 0.1 * n, "env/episodes": 8 * n, "perf/time_per_step": 60} for n in (1, 2)]
    run = with_rows(make_run(tmp_path / "run"), rows)
    text, reader = page_of([run], tmp_path / "report.html")
    assert re.findall(r'<option value="(update|episodes|tokens|hours)">', text) == ["update", "episodes", "hours"]
    data = json.loads(reader.scripts["charts"])
    assert data["axes"] == ["episodes", "hours"]
    assert data["places"] == {"0": {"1": [8, 0.0166667], "2": [16, 0.0333333]}}
    axis = data["charts"][0]["axes"]["episodes"]
    assert (axis["low"], axis["high"], axis["name"]) == (8, 16, "training episodes")
    with_rows(run, [{"update": 1, "actor/kl_loss": 0.1}])
    assert 'id="axis"' not in page_of([run], tmp_path / "report.html")[0]


def test_what_an_audit_asked_for_has_a_curve(tmp_path: Path) -> None:
    row = {
        "update": 1, "episode/invalid_action_frac": 0.25, "episode/length/mean": 20.0, "response_length/mean": 3.5,
        "actor/grad_norm": 0.7,
    }  # fmt: skip
    runs = open_runs([with_rows(make_run(tmp_path / "run"), [row])])
    _, reader = page_of([runs[0].folder], tmp_path / "report.html")
    titles = ("gradient norm before clipping", "valid actions, training", "steps of an episode, training",
              "tokens of a response, training")  # fmt: skip
    shown = json.loads(reader.scripts["charts"])["charts"]
    assert [chart["curves"][0]["mean"] for chart in shown] == [[0.7], [0.75], [20.0], [3.5]]
    assert all(title in reader.texts for title in titles)
    assert "empg (tiny),episode/invalid_action_frac,1,1,0.25,," in curves_csv(runs).splitlines()  # as logged


def test_the_complement_of_a_band_is_turned_over(tmp_path: Path) -> None:
    folders = [
        with_rows(make_run(tmp_path / f"s{seed}", seed=seed), [{"update": 1, VALID.metric: value}])
        for seed, value in enumerate((0.1, 0.2))
    ]
    (curve,) = panel_curves(open_runs(folders), VALID)
    half = 12.706205 * 0.05  # t(0.975, 1) x sd / sqrt(2) = t x 0.0707107 / 1.4142136
    assert curve.mean == pytest.approx((0.85,)) and curve.runs == ((0.9,), (0.8,))
    assert curve.interval_at(0) == pytest.approx((0.85 - half, 0.85 + half), abs=1e-6)


def test_curves_of_many_long_runs_stay_small(tmp_path: Path) -> None:
    shown = ("eval/success_rate", "actor/kl_loss", "actor/entropy", "actor/grad_norm", "episode/reward/mean")
    metrics = (*shown, VALID.metric, "episode/length/mean", "response_length/mean", "eval/look/success_rate")
    rows = [
        {"update": n, "env/episodes": n, "env/tokens": n, "perf/time_per_step": 1, **dict.fromkeys(metrics, n / 7919)}
        for n in range(600)
    ]
    folders = []
    for number in range(12):
        folder = make_run(tmp_path / f"c{number}", trajectories=1)
        folders.append(with_facts(with_rows(folder, rows), config_hash=str(number)))
    _, reader = page_of(folders, tmp_path / "report.html")
    drawn = json.loads(reader.scripts["charts"])["charts"]
    points = [len(curve["updates"]) for chart in drawn for curve in chart["curves"]]
    assert len(points) == 12 * 9 and sum(points) <= MOST_POINTS_IN_ALL
    assert {curve["updates"][-1] for chart in drawn for curve in chart["curves"]} == {599}
    assert (tmp_path / "report.html").stat().st_size < 2_000_000
    assert len(reader.data["trajectories"]) == 12  # they still find room


def test_a_point_of_a_single_run_is_not_thinned(tmp_path: Path) -> None:
    rows = [{"update": n, "actor/kl_loss": 0.1} for n in range(1, 301)]
    runs = open_runs([with_rows(make_run(tmp_path / "run"), rows)])
    (chart,) = charts_of(runs, [panel for panel in (VALID, KL_LOSS) if curves_of(runs, panel.metric)]).data["charts"]
    assert len(chart["curves"][0]["updates"]) == 300


def test_a_run_shows_its_settings_with_what_auto_stood_for(tmp_path: Path) -> None:
    run = with_facts(make_run(tmp_path / "run"), settled={"trainer.tokens_per_microbatch": 4096})
    settings = settings_of(open_runs([run]))
    assert settings.differing is None
    shown = dict(texts(settings.shared))
    assert shown["algo.credit.zeta"] == "0.05" and shown["seed"] == "0" and shown["resume"] == "null"
    assert shown["trainer.tokens_per_microbatch"].endswith(" (settled: 4096)")
    assert shown["benchmark.task_types"].startswith("[pick_and_place_simple, ")
    text, reader = page_of([run], tmp_path / "report.html")
    assert f"Settings ({len(shown)})" in text and "algo.credit.zeta" in reader.texts


def test_configurations_show_what_differs_apart(tmp_path: Path) -> None:
    folders = []
    for zeta in (0.1, 0.2):
        for seed in (0, 1):
            folder = make_run(tmp_path / f"{zeta}-s{seed}", seed=seed)
            config.write(composed(f"seed={seed}", "algo=empg", f"algo.credit.zeta={zeta}"), folder / "config.yaml")
            folders.append(with_facts(folder, config_hash=str(zeta)))
    settings = settings_of(open_runs(folders))
    assert texts(settings.differing) == [["algo.credit.zeta", "0.1", "0.2"]]
    shown = dict(texts(settings.shared))
    assert shown["seed"] == "0; 1" and shown["algo.credit.k"] == "1.0" and "algo.credit.zeta" not in shown
    assert "Settings that differ (1)" in page_of(folders, tmp_path / "report.html")[0]


def test_a_setting_with_markup_stays_text(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    file = run / "config.yaml"
    file.write_text(file.read_text() + f"strange: {json.dumps(ATTACK + 'x' * 400)}\n")
    text, reader = page_of([run], tmp_path / "report.html")
    (value,) = [shown for name, shown in texts(settings_of(open_runs([run])).shared) if name == "strange"]
    assert value.startswith("</script><script>alert(1)") and value.endswith("x [...]") and "\x1b" not in value
    assert reader.tags.count("script") == 3 and "img" not in reader.tags and value in unescape(text)


def test_versions_and_machine_come_from_the_record(tmp_path: Path) -> None:
    facts = {"versions": {"python": "3.12.1", "torch": "2.13.0+cpu"}, "platform": "Linux-6", "hardware": ["Xeon 9"],
             "code": "c0de", "format": 3,
             "model": {"class": "Qwen2ForCausalLM", "parameters": 337632, "digest": "ab"}}  # fmt: skip
    rows = [{"update": 1, "actor/kl_loss": 0.1, "perf/mem_gb": 0.6174}]
    first = with_facts(with_rows(make_run(tmp_path / "a"), rows), **facts)
    shown = dict(texts(made_with(open_runs([first]))))
    assert shown["platform"] == "Linux-6" and shown["torch"] == "2.13.0+cpu" and shown["parameters"] == "337,632"
    assert shown["peak memory (perf/mem_gb)"] == "0.617 GB" and shown["commit"] == "c0ffee"
    assert shown["device (trainer.device)"] == "auto"
    second = with_facts(make_run(tmp_path / "b", seed=1), **facts, commit="decaf")
    assert dict(texts(made_with(open_runs([first, second]))))["commit"] == "c0ffee; decaf"
    text, _ = page_of([first], tmp_path / "report.html")
    assert "Versions and machine" in text and "Xeon 9" in text


def test_an_old_record_leaves_out_what_it_does_not_tell(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "run.json").write_text("{}")
    assert "commit" not in dict(texts(made_with(open_runs([run]))))


def test_credit_of_zero_is_neither_green_nor_red(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def shown(credit: float) -> str:
        run = make_run(tmp_path / f"run{credit}", trajectories=1, steps=1)
        for file in (run / "trajectories").iterdir():
            kept = json.loads(file.read_text())
            kept["steps"][0]["credit"] = credit
            file.write_text(json.dumps(kept) + "\n")
        out = io.StringIO()
        show_run(open_runs([run])[0], trajectories=1, stream=out)
        (line,) = [line for line in out.getvalue().splitlines() if "credit " in line]
        return line

    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[32mcredit +0.250" in shown(0.25) and "\x1b[31mcredit -0.250" in shown(-0.25)
    for nothing in (0.0, 1e-9, -0.0004):
        assert "\x1b[39mcredit 0.000" in shown(nothing)  # the terminal's own colour


def test_the_page_closes_what_it_opens(tmp_path: Path) -> None:
    text, reader = page_of([make_run(tmp_path / "run")], tmp_path / "report.html")
    for tag in ("section", "details", "table", "figure", "div"):
        assert reader.tags.count(tag) == text.count(f"</{tag}>")
