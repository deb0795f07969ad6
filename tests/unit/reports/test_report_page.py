"""The report of runs: what the page holds, and that nothing a model wrote becomes part of it."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import random
import re
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from string import ascii_letters
from typing import Any

import pytest

from empg_cli import config
from empg_cli.cli.commands import report
from empg_cli.reports.axes import number_axis, tick_labels, ticks
from empg_cli.reports.configurations import configurations
from empg_cli.reports.curves import (
    SUCCESS,
    VALID,
    band_note,
    curves_of,
    left_out_notes,
    line_chart,
    panel_curves,
    value_range,
)
from empg_cli.reports.page.kept_trajectories import kept_trajectories
from empg_cli.reports.page.page import write_page
from empg_cli.reports.page.tiles import tiles_of
from empg_cli.runs.reading import NotARun, open_runs, unstarted
from empg_cli.runs.study import Cell, Study, write_study
from tests.support.report_page import ATTACK, Reader, composed, make_run, page_of, record, with_texts


def test_the_page_has_tiles_curves_and_every_step(tmp_path: Path) -> None:
    text, reader = page_of([make_run(tmp_path / "run")], tmp_path / "report.html")
    assert reader.tags.count("figure") == 2  # success rate and KL loss; the others were not logged
    for word in ("60.0%", "[30.0%, 80.0%] 95 % Wilson, n=140", "not the official benchmark", "c0ffee", "2 of 40"):
        assert word in text
    data = reader.data
    (first, *_), texts = data["trajectories"], data["texts"]
    assert first["id"] == "run/train-2/0.0"  # the newest update
    observation, action, flags, *numbers = first["steps"][0]
    assert texts[observation].startswith("look 0 0") and texts[action] == "look"
    assert flags == 2  # refused
    assert numbers[:7] == [0.0, 3, 0.5, 1.2, 0.8, -1.0, -1.16]  # reward, tokens, entropy, g, f, advantage, credit
    assert numbers[7:] == [None, None]  # the run folder is from before prompts and responses were kept


def test_the_page_has_what_the_model_read_and_wrote_as_text(tmp_path: Path) -> None:
    run = with_texts(make_run(tmp_path / "run"), f"<|im_start|>user\n{ATTACK}", f"{ATTACK}<|im_end|>")
    text, reader = page_of([run], tmp_path / "report.html")
    prompt, response = reader.data["trajectories"][0]["steps"][1][10:]
    shown = ATTACK.removesuffix("\x1b[31m")
    assert reader.data["texts"][prompt] == f"0 1 <|im_start|>user\n{shown}"
    assert reader.data["texts"][response] == f"{shown}<|im_end|>"
    assert "img" not in reader.tags and "alert(" not in text and reader.tags.count("script") == 3


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names of files are UTF-8")
@pytest.mark.parametrize("runs", [1, 3])
def test_a_folder_may_have_a_name_that_is_not_utf_8(tmp_path: Path, runs: int) -> None:
    """Of a run, of what holds several, and in the note on a seed that is there twice."""
    above = tmp_path / os.fsdecode(b"caf\xe9")
    folders = [make_run(above / os.fsdecode(b"run-\xff%d" % number), seed=number // 2) for number in range(runs)]
    text, reader = page_of(folders, above / "report.html")
    assert reader.data["trajectories"][0]["id"].startswith("run-\ufffd0/")
    assert "run-\ufffd0" in text and ("caf\ufffd" in text) is (runs > 1)


def test_a_long_prompt_keeps_its_beginning_and_its_end(tmp_path: Path) -> None:
    run = with_texts(make_run(tmp_path / "run", trajectories=1), "x" * 30_000 + " the end", "y")
    kept = kept_trajectories(open_runs([run]), most_bytes=10**9)
    text = kept.data["texts"][kept.data["trajectories"][0]["steps"][0][10]]
    assert kept.text_limit == 20_000
    assert text.startswith("0 0 xxx") and text.endswith("xxx the end") and len(text) == 20_000 + len(" [...] ")


def test_two_hundred_trajectories_with_their_prompts_stay_below_two_megabytes(tmp_path: Path) -> None:
    noise = random.Random(0)
    words = ["".join(noise.choices(ascii_letters, k=6)) for _ in range(500)]
    run = make_run(tmp_path / "run", trajectories=220, steps=50)
    with_texts(run, " ".join(noise.choices(words, k=250)), " ".join(noise.choices(words, k=40)))
    _, reader = page_of([run], tmp_path / "report.html")
    assert len(reader.data["trajectories"]) == 200
    assert (tmp_path / "report.html").stat().st_size < 2_000_000


def test_nothing_is_loaded_from_elsewhere_and_no_text_becomes_markup(tmp_path: Path) -> None:
    text, reader = page_of([make_run(tmp_path / "run", text=ATTACK)], tmp_path / "report.html")
    addresses = [value for name, value in reader.attributes if name in ("src", "href", "action", "srcset")]
    assert all(address.startswith("#") or address == "data:," for address in addresses)
    assert not [name for name, _ in reader.attributes if name.startswith("on") or name == "style"]
    assert reader.tags.count("script") == 3  # the numbers of the charts, the trajectories, and the page's own script
    assert "img" not in reader.tags and "alert(" not in text
    assert set(re.findall(r"https?://[^\s\"']*", text)) == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert "</script><script>alert(1)" in "".join(reader.data["texts"])  # shown as text
    assert "\x1b" not in "".join(reader.data["texts"])


def test_only_the_pages_own_script_and_style_may_run(tmp_path: Path) -> None:
    _, reader = page_of([make_run(tmp_path / "run")], tmp_path / "report.html")
    policy = next(value for name, value in reader.attributes if value.startswith("default-src"))
    for kind in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(reader.scripts[kind].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy


def test_a_name_with_markup_stays_a_name(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    (folder / "run.json").write_text(json.dumps({"config_hash": "<img src=x>", "commit": ATTACK}))
    _, reader = page_of([folder], tmp_path / "report.html")
    assert "img" not in reader.tags and ATTACK[:9] in "".join(reader.texts)


def test_two_hundred_long_trajectories_stay_below_two_megabytes(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", trajectories=220, steps=50)
    _, reader = page_of([folder], tmp_path / "report.html")
    assert len(reader.data["trajectories"]) == 200
    assert max(map(len, reader.data["texts"])) > 300  # whole texts
    assert (tmp_path / "report.html").stat().st_size < 2_000_000


def test_texts_are_cut_before_trajectories_are_left_out(tmp_path: Path) -> None:
    noise = random.Random(0)
    texts = ["".join(noise.choices(ascii_letters, k=6000)) for _ in range(8)]
    run = make_run(tmp_path / "run", trajectories=0)
    lines = "".join(json.dumps(record(n, 3, 1, text)) + "\n" for n, text in enumerate(texts))
    (run / "trajectories" / "update-000003-eval.jsonl").write_text(lines)
    runs = open_runs([run])
    # letters at random have log2(52) = 5.7 bits, in base64 at least 0.95 bytes: 8 x 4000 of them do not fit 30 kB
    kept = kept_trajectories(runs, most_bytes=30_000)
    assert (kept.shown, kept.total, kept.text_limit) == (8, 8, 1_000)
    assert len(kept.packed) <= 30_000
    few = kept_trajectories(runs, most_bytes=1_500)
    assert 0 < few.shown < 8 and len(few.packed) <= 1_500
    assert kept_trajectories(runs, most_bytes=0).shown == 0


def test_every_run_and_both_phases_have_their_share(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / name, trajectories=150) for name in ("a", "b")]
    for folder in folders:
        lines = "".join(json.dumps(record(n, 2, 1, "eval") | {"phase": "eval"}) + "\n" for n in range(150))
        (folder / "trajectories" / "update-000002-eval.jsonl").write_text(lines)
    kept = kept_trajectories(open_runs(folders), most_bytes=10**9)
    counts = Counter((trajectory["run"], trajectory["phase"]) for trajectory in kept.data["trajectories"])
    assert counts == {(run, phase): 50 for run in (0, 1) for phase in ("train", "eval")}
    assert len({trajectory["id"] for trajectory in kept.data["trajectories"]}) == 200


def test_of_many_runs_the_first_of_each_configuration_show(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / f"{name}-s{seed}", seed=seed, trajectories=60) for name in "ab" for seed in range(3)]
    for folder in folders:
        (folder / "run.json").write_text(json.dumps({"config_hash": folder.name[0]}))
    kept = kept_trajectories(open_runs(folders), most_bytes=10**9)
    # Six runs: 200 / 6 = 33 is less than the least share of 48. a-s0, b-s0, a-s1, b-s1: 192; 8 are left for a-s2.
    shown = Counter(trajectory["id"].partition("/")[0] for trajectory in kept.data["trajectories"])
    assert shown == {"a-s0": 48, "b-s0": 48, "a-s1": 48, "b-s1": 48, "a-s2": 8}
    assert (kept.shown, kept.total, kept.runs) == (200, 360, 5)


def test_a_run_without_trajectories_or_evaluation_has_a_page(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", trajectories=0)
    (folder / "metrics.jsonl").write_text('{"update": 1, "actor/kl_loss": 0.5}\n')
    text, reader = page_of([folder], tmp_path / "report.html")
    assert "No trajectories are kept in this run" in text
    assert reader.tags.count("figure") == 1


def test_bands_over_seeds_are_t_intervals(tmp_path: Path) -> None:
    runs = open_runs([make_run(tmp_path / "a", seed=0), make_run(tmp_path / "b", seed=1)])
    (curve,) = curves_of(runs, "eval/success_rate")
    assert (curve.seeds, curve.updates) == (2, (0, 1, 2))
    # values 0.6 and 0.7 after update 2: mean 0.65, sd 0.0707, t(0.975, 1) = 12.706 -> half 12.706 * 0.0707 / sqrt(2)
    assert curve.mean[2] == pytest.approx(0.65)
    assert curve.high is not None
    assert curve.high[2] - 0.65 == pytest.approx(12.7062 * math.sqrt(0.005) / math.sqrt(2), rel=1e-4)
    assert "t interval over seeds" in band_note([curve])


def test_the_axis_holds_the_whole_band_and_some_room(tmp_path: Path) -> None:
    one = curves_of(open_runs([make_run(tmp_path / "a")]), "eval/success_rate")
    # Wilson 0.3 .. 0.8 about values 0.4 .. 0.6; 0.3 is below 0.4 x 0.8, so from 0 on; room: 5 % of 0.8 on either side
    assert value_range(one, is_share=True) == pytest.approx((-0.04, 0.84))
    two = curves_of(open_runs([tmp_path / "a", make_run(tmp_path / "b", seed=1)]), "eval/success_rate")
    # t = 12.7062 for two seeds 0.1 apart: 0.6353 about means 0.45 .. 0.65, of a share no more than 0 .. 1
    assert value_range(two, is_share=True) == pytest.approx((-0.05, 1.05))
    room = 0.05 * (1.2853 + 0.1853)
    assert value_range(two) == pytest.approx((-0.1853 - room, 1.2853 + room), abs=1e-4)
    flat = [replace(one[0], low=None, high=None, runs=((-2.0, -2.0, -2.0),))]
    assert value_range(flat) == pytest.approx((-2.1, -1.9))


@pytest.mark.parametrize("seeds", [1, 2])
def test_no_line_or_band_of_the_page_touches_the_frame(seeds: int, tmp_path: Path) -> None:
    folders = [make_run(tmp_path / f"s{seed}", seed=seed) for seed in range(seeds)]
    text, _ = page_of(folders, tmp_path / "report.html")
    drawn = re.findall(r'<(?:polygon|polyline) class="(band|line|seed) [^>]*points="([^"]*)"', text)
    assert {kind for kind, _ in drawn} == {"band", "line", *(["seed"] if seeds > 1 else [])}
    ys = [float(point.split(",")[1]) for _, points in drawn for point in points.split()]
    assert min(ys) >= 10 + 4 and max(ys) <= 188 - 4  # the plot reaches from 10 to 188; a line is 1.8 wide
    if seeds == 1:  # by hand, on an axis from -0.04 to 0.84: y = 10 + 178 (0.84 - value) / 0.88
        band = next(points for kind, points in drawn if kind == "band")
        assert {point.split(",")[1] for point in band.split()} == {"119.2", "18.1"}  # 0.3 and 0.8


@pytest.mark.parametrize("seeds", [1, 2])
def test_no_line_or_band_of_a_figure_is_cut_at_its_frame(
    seeds: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra report")
    from empg_cli.reports import figures

    kept: list[Any] = []
    monkeypatch.setattr(figures, "_save", lambda figure, stem: kept.append(figure) or [])
    folders = [make_run(tmp_path / f"s{seed}", seed=seed) for seed in range(seeds)]
    figures.draw_figures(open_runs(folders), tmp_path / "out")
    axes = [axis for figure in kept for axis in figure.axes if axis.lines]
    assert len(axes) == 4  # success and KL loss, together and each alone
    for axis in axes:
        low, high = axis.get_ylim()
        heights = [y for line in axis.lines for y in line.get_ydata()]
        heights += [y for band in axis.collections for path in band.get_paths() for y in path.vertices[:, 1]]
        room = 0.04 * (high - low)  # half a line is 0.7 points of a plot of 150 or more: 0.005
        assert low + room < min(heights) and max(heights) < high - room


def test_ticks_are_round_numbers_with_no_more_digits_than_needed() -> None:
    assert ticks(0.0, 0.47) == pytest.approx([0.0, 0.2, 0.4])
    assert ticks(1, 150, 6) == [50, 100, 150]
    assert tick_labels([0.0, 0.2, 0.4]) == ["0.0", "0.2", "0.4"]
    assert tick_labels([0.55, 0.6], is_share=True) == ["55 %", "60 %"]
    assert tick_labels([768.0]) == ["768"] and tick_labels([0.3]) == ["0.30"]  # alone: a curve of one point


def test_a_configuration_keeps_its_number_in_panels_that_lack_others(tmp_path: Path) -> None:
    first, second = make_run(tmp_path / "a"), make_run(tmp_path / "b")
    (second / "run.json").write_text(json.dumps({"config_hash": "other"}))
    (first / "metrics.jsonl").write_text('{"update": 1, "actor/kl_loss": 0.5}\n')
    runs = open_runs([first, second])
    assert [curve.number for curve in curves_of(runs, "actor/kl_loss")] == [0, 1]
    assert [curve.number for curve in curves_of(runs, "eval/success_rate")] == [1]


def test_equal_names_are_told_apart_by_what_differs(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / name) for name in ("a", "b")]
    for folder, zeta in zip(folders, (0.05, 0.2), strict=True):
        config.write(composed("algo=empg", f"algo.credit.zeta={zeta}"), folder / "config.yaml")
        (folder / "run.json").write_text(json.dumps({"config_hash": folder.name}))
    labels = [configuration.label for configuration in configurations(open_runs(folders))]
    assert labels == ["empg (tiny) zeta=0.05", "empg (tiny) zeta=0.2"]


def test_unfinished_runs_stay_out_of_the_curves_of_finished_ones(tmp_path: Path) -> None:
    done, running = make_run(tmp_path / "a"), make_run(tmp_path / "b", seed=1)
    for folder, seed in ((done, 0), (running, 1)):
        config.write(composed(f"seed={seed}", "trainer.updates=2"), folder / "config.yaml")
    (running / "metrics.jsonl").write_text('{"update": 1, "eval/success_rate": 0.0}\n')
    runs = open_runs([done, running])
    (curve,) = curves_of(runs, "eval/success_rate")
    assert (curve.seeds, curve.updates) == (1, (0, 1, 2))
    assert left_out_notes(runs) == ["empg (tiny): not in the curves, as unfinished: seed 1 (1 of 2)"]


def test_runs_on_other_data_or_of_other_code_are_another_configuration(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / str(seed), seed=seed) for seed in range(4)]
    known = json.loads((folders[0] / "run.json").read_text())
    for folder, change in zip(folders[2:], ({"data": {"source": "official"}}, {"code": "feed"}), strict=True):
        (folder / "run.json").write_text(json.dumps(known | change))
    found = configurations(open_runs(folders))
    assert [[run.seed for run in one.runs] for one in found] == [[0, 1], [2], [3]]
    first, data, code = (one.label for one in found)
    assert first.startswith("empg (tiny) code c0ffee, data ") and code.startswith("empg (tiny) code feed, data ")
    assert data != first and data.partition(", ")[0] == first.partition(", ")[0]


def test_a_seed_counts_once_however_often_it_is_given(tmp_path: Path) -> None:
    first, again = make_run(tmp_path / "a"), make_run(tmp_path / "b")
    (tmp_path / "link").symlink_to(first)
    runs = open_runs([first, tmp_path / "link", again, make_run(tmp_path / "c", seed=1)])
    (curve,) = curves_of(runs, "eval/success_rate")
    assert curve.seeds == 2
    (told,) = left_out_notes(runs)
    assert told == (
        f"empg (tiny): not in the curves, as that seed is there already: seed 0 ({again})"
    )  # the link is the first run itself
    assert len(kept_trajectories(runs, most_bytes=10**6).data["trajectories"]) == 12  # they are still shown


def test_a_success_rate_without_its_interval_has_none(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    (run / "metrics.jsonl").write_text('{"update": 1, "eval/success_rate": 0.5, "eval/success_rate_lo": 0.4}\n')
    runs = open_runs([run])
    (curve,) = curves_of(runs, "eval/success_rate")
    assert (curve.low, curve.high) == (None, None)
    tile = tiles_of(runs)[0]
    assert (tile.value, tile.note, tile.share) == ("50.0%", "n=0 · after update 1", None)


def test_a_share_has_no_ticks_beyond_nought_and_all(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / str(seed), seed=seed) for seed in range(2)]
    for folder in folders:
        rows = [{"update": n, "eval/success_rate": 0.0, "episode/invalid_action_frac": 0.0} for n in range(3)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    runs = open_runs(folders)
    for panel in (SUCCESS, VALID):
        marks = [text for _, text in line_chart(panel_curves(runs, panel), panel).y.marks]
        assert marks and not {"-5 %", "105 %"} & set(marks)


def test_beyond_eight_configurations_keys_are_dashed_as_the_lines_are(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / f"{number:02}") for number in range(10)]
    for number, folder in enumerate(folders):
        (folder / "run.json").write_text(json.dumps({"config_hash": f"{number}"}))
    write_page(open_runs(folders), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    legend = page[page.index('<ul class="legend"') :].partition("</ul>")[0]
    assert re.findall(r'class="key (c\d d\d)"', legend) == [f"c{n % 8} d{n // 8}" for n in range(10)]


def test_a_run_that_has_logged_nothing_is_named(tmp_path: Path) -> None:
    make_run(tmp_path / "study" / "a")
    empty = make_run(tmp_path / "study" / "b")
    (empty / "metrics.jsonl").unlink()
    assert [run.folder.name for run in open_runs([tmp_path / "study"])] == ["a"]
    assert unstarted([tmp_path / "study"]) == [empty]
    with pytest.raises(NotARun, match="has not logged anything yet"):
        open_runs([empty])


def test_a_study_has_its_table_and_its_own_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    variants, seeds = ("plain", "better"), (0, 1)
    cells = tuple(Cell(name, seed, (), name, f"{name}-{seed}") for seed in seeds for name in variants)
    facts = {name: {"benchmark": "alfworld"} for name in variants}
    costs = dict.fromkeys(variants, "c")
    write_study(Study(tmp_path / "study", "demo", "eval/success_rate", "plain", seeds, cells, facts, costs))
    for cell in cells:
        folder = make_run(tmp_path / "study" / cell.folder, seed=cell.seed, trajectories=1)
        (folder / "run.json").write_text(json.dumps({"config_hash": cell.variant, "data": {"source": "generated"}}))
        (folder / "summary.json").write_text(json.dumps({"exit_code": 0, "cell_hash": cell.cell_hash}))
    (tmp_path / "study" / "better-s1" / "metrics.jsonl").unlink()  # as if it had just begun
    report.run([tmp_path / "study"], None, figures=False)
    out, err = capsys.readouterr()
    assert out.split() == [str(tmp_path / "study" / "report" / "report.html")]
    assert "has not logged anything yet" in err and "better-s1" in err
    texts = Reader((tmp_path / "study" / "report" / "report.html").read_text()).texts
    assert "study: 3 runs on alfworld" in texts and "ablation demo" in texts
    assert texts.index("plain") < texts.index("better")  # the base first, not by name
    report.show(tmp_path / "study", trajectories=1)
    shown = capsys.readouterr().out
    assert "Δ to plain" in shown and "better-s0" in shown


def test_runs_of_a_sweep_stand_in_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("10", "9", "1"):
        make_run(tmp_path / name)
    assert [run.folder.name for run in open_runs([tmp_path])] == ["1", "9", "10"]


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


def test_what_is_no_run_is_refused_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(NotARun, match="no such folder"):
        open_runs([tmp_path / "nowhere"])
    with pytest.raises(NotARun, match=r"config\.yaml and metrics\.jsonl"):
        open_runs([tmp_path])


def test_figures_in_three_formats(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra report")
    from empg_cli.reports.figures import draw_figures

    runs = open_runs([make_run(tmp_path / "a"), make_run(tmp_path / "b", seed=1)])
    paths = draw_figures(runs, tmp_path / "out")
    names = {path.stem for path in paths if path.suffix == ".pdf"}
    assert names == {"curves", "success_rate", "kl_loss"}  # reward and entropy were not logged
    heads = {path.suffix: path.read_bytes()[:8] for path in paths}
    assert heads[".png"] == b"\x89PNG\r\n\x1a\n"
    assert heads[".pdf"].startswith(b"%PDF")
    assert "<svg" in (tmp_path / "out" / "curves.svg").read_text()
    header, first, *_ = (tmp_path / "out" / "curves.csv").read_text().splitlines()
    assert header == "configuration,metric,update,seeds,mean,low,high"
    assert first.startswith("empg (tiny),eval/success_rate,0,2,0.45,")


def test_figures_without_matplotlib_say_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from empg_cli.reports.figures import MissingExtra, draw_figures

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtra, match=r"report.*--no-figures"):
        draw_figures(open_runs([make_run(tmp_path / "a")]), tmp_path)


def test_numbers_that_differ_by_rounding_are_one_tick() -> None:
    axis = number_axis(0.3, 0.3 + 1e-14)
    assert [value for value, _ in axis.marks] == [0.3]
