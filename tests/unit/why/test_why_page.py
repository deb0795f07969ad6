"""Tables and figures of docs/studies/why-empg*.md (scripts/why), and the pages against their records."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from pathlib import Path
from statistics import fmean

import pytest
import yaml

from empg_cli.config import load
from empg_cli.config.location import conf_dir
from scripts.why import figures, one_step_table, recompute, records, tables

ROOT = Path(__file__).parents[3]
COLUMNS = (
    "variant", "seeds", "mean", "low", "high", "difference", "difference_low", "difference_high", "p_holm", "bold",
    "kl_loss", "entropy", "valid_actions",
)  # fmt: skip
NUMBERS = {
    "grpo-00": ("5", "0.5", "0.4", "0.6", "", "", "", "", "False", "0.123", "0.456", "0.789"),
    "empg-00": ("5", "0.6", "0.55", "0.65", "0.1", "0.04", "0.16", "0.0004", "True", "0.3", "0.5", "0.6"),
}
BASE, BETTER = (dict(zip(COLUMNS, (name, *numbers), strict=True)) for name, numbers in NUMBERS.items())
WORSE = {
    **BETTER, "variant": "empg-01", "seeds": "1", "mean": "0.45", "low": "", "high": "", "difference": "-0.05",
    "difference_low": "", "difference_high": "", "p_holm": "0.25", "bold": "False",
}  # fmt: skip


def pack(path: Path, files: dict[str, str]) -> None:
    with tarfile.open(path, mode="w:xz") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))


def archive(path: Path, *rows: dict[str, str]) -> Path:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    pack(path, {"ablation.csv": text.getvalue()})
    return path


def test_a_table_is_in_points_with_half_intervals(tmp_path: Path) -> None:
    archive(tmp_path / "one.tar.xz", BASE, BETTER, WORSE)
    assert tables.table(tmp_path, "one").splitlines() == [
        "| arm | seeds | success, % | minus `grpo-00` | p (Holm) | KL | entropy | valid, % |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| `grpo-00` | 5 | 50.0 ± 10.0 | – | – | 0.12 | 0.46 | 79 |",
        "| `empg-00` | 5 | 60.0 ± 5.0 | **+10.0 ± 6.0** | < 0.001 | 0.30 | 0.50 | 60 |",
        "| `empg-01` | 1 | 45.0 | −5.0 | 0.250 | 0.30 | 0.50 | 60 |",
    ]


def test_arms_beside_each_other_setting_by_setting(tmp_path: Path) -> None:
    """Seed 1 of empg-01 is not done: setting 01 has one pair, and so has the mean over both settings, (.1 + .3) / 2."""
    values = {
        ("grpo-00", 0): 0.5, ("empg-00", 0): 0.6, ("grpo-00", 1): 0.5, ("empg-00", 1): 0.4,
        ("grpo-01", 0): 0.2, ("empg-01", 0): 0.5, ("grpo-01", 1): 0.4,
    }  # fmt: skip
    runs = "variant,seed,value\n" + "".join(f"{name},{seed},{value}\n" for (name, seed), value in values.items())
    words = {"00": [], "01": ["trainer.lr=0.1", "algo.loss.entropy_coef=0.5", "algo.advantage.penalty=step"]}
    cells = [
        {"variant": name, "seed": seed, "overrides": [f"algo={name[:4]}", *words[name[5:]]]} for name, seed in values
    ]
    study = {"arms": {f"{arm}-{number}": arm for number in words for arm in ("grpo", "empg")}, "cells": cells}
    files = {
        f"{name}-s{seed}/metrics.jsonl": json.dumps({"update": 7, "episode/success_rate": value / 2}) + "\n"
        for (name, seed), value in values.items()
    }
    pack(tmp_path / "one.tar.xz", files | {"runs.csv": runs, "study.json": json.dumps(study)})
    # t of 1 degree of freedom is 12.706: .1 and -.1 have the half-width 12.706 * .1
    assert tables.table(tmp_path, "one-settings").splitlines()[2:] == [
        "| 00 as shipped | 50.0 | 50.0 | +0.0 ± 127.1 | +0.0 ± 63.5 |",
        "| 01 lr 0.1, entropy bonus 0.5, penalty step | 30.0 | 50.0 | +30.0 | +15.0 |",
        "| mean over the settings |  |  | +20.0 | +10.0 |",
        "| … over those with penalty episode |  |  | +0.0 ± 127.1 | +0.0 ± 63.5 |",
    ]


def test_success_in_training_is_of_the_later_half(tmp_path: Path) -> None:
    """empg: (.4 + .6) / 2 = .5, in updates 3 and 4 of 4; the row without episodes, an evaluation, does not count."""
    cells = [{"variant": name, "seed": 3} for name in ("grpo", "empg", "not-done")]
    files = {"study.json": json.dumps({"base": "grpo", "cells": cells})}
    for name, late in (("grpo", (0.3, 0.3)), ("empg", (0.4, 0.6))):
        rows = [{"update": update, "episode/success_rate": 0.9, "actor/entropy": update / 4} for update in (1, 2)]
        rows += [
            {"update": 2 + n, "episode/success_rate": value, "actor/entropy": 9, "env/episodes": 40 + 15 * n}
            for n, value in enumerate(late, 1)
        ]
        rows.append({"update": 4, "eval/success_rate": 0.0})
        files[f"{name}-s3/metrics.jsonl"] = "\n".join(map(json.dumps, rows)) + "\n"
    pack(tmp_path / "one.tar.xz", files)
    head, _, *lines = tables.table(tmp_path, "one-training").splitlines()
    assert "updates 3 on" in head
    assert lines == [
        "| `grpo` | 1 | 30.0 | – | 0.25 | 70 |",
        "| `empg` | 1 | 50.0 | +20.0 | 0.25 | 70 |",
    ]


def test_success_at_each_temperature_is_paired_by_seed(tmp_path: Path) -> None:
    """At 1: .3 and .5 against .4 and .4, so -.1 and .1, half-width 12.706 * .1; seed 2 has no pair at 0."""
    (tmp_path / "one-temperatures.csv").write_text(
        "variant,seed,temperature,success_rate\ngrpo,1,1,0.4\ngrpo,2,1,0.4\nempg,1,1,0.3\nempg,2,1,0.5\n"
        "grpo,1,0,0.6\nempg,1,0,0.7\nempg,2,0,0.9\n"
    )
    assert tables.table(tmp_path, "one-temperatures").splitlines() == [
        "| temperature | `grpo`, % | `empg`, % | `empg` − `grpo` | seeds |",
        "| ---: | ---: | ---: | ---: | ---: |",
        "| 0 | 60.0 | 80.0 | +10.0 | 1 |",
        "| 1 | 40.0 | 40.0 | +0.0 ± 127.1 | 2 |",
    ]


def test_empg_and_grpo_side_by_side_in_every_study_that_is_finished(tmp_path: Path) -> None:
    """At 0.4: .1 and .3, so .2 ± 12.706 * .1; in training half of that; greedy .1 and .1. `controls` is compared with
    grpo and not with its base; `window` lacks a run."""
    values = {"grpo": (0.5, 0.4), "empg": (0.6, 0.7), "scaling": (0.9, 0.9)}
    runs = "variant,seed,value\n" + "".join(f"{arm},{n},{own[n]}\n" for arm, own in values.items() for n in (0, 1))
    cells = [{"variant": arm, "seed": seed} for arm in values for seed in (0, 1)]
    files = {
        f"{arm}-s{seed}/metrics.jsonl": json.dumps({"update": 7, "episode/success_rate": value / 2}) + "\n"
        for arm, own in values.items()
        for seed, value in enumerate(own)
    }
    files |= {f"{arm}-s{seed}/summary.json": "{}" for arm in values for seed in (0, 1)}
    study = {"base": "scaling", "cells": cells, "seeds": [0, 1]}
    pack(tmp_path / "controls.tar.xz", files | {"runs.csv": runs, "study.json": json.dumps(study)})
    more = {**study, "base": "grpo", "cells": [*cells, {"variant": "empg", "seed": 2}]}
    pack(tmp_path / "window.tar.xz", files | {"study.json": json.dumps(more)})  # no table yet
    pack(
        tmp_path / "fair-confirmed.tar.xz",
        files | {"runs.csv": runs, "study.json": json.dumps({**study, "base": "grpo"})},
    )
    (tmp_path / "fair-confirmed-temperatures.csv").write_text(
        "variant,seed,temperature,success_rate\ngrpo,0,0.0,0.5\ngrpo,1,0.0,0.6\nempg,0,0.0,0.6\nempg,1,0.0,0.7\n"
    )
    gain = "+20.0 ± 127.1"
    assert tables.table(tmp_path, "answer").splitlines()[2:] == [
        f"| the one that ships | tuned alike | ALFWorld, unseen | 0 to 1 | {gain} | +10.0 ± 0.0 | – | +10.0 ± 63.5 |",
        f"| step 1,250, chosen | as shipped | ALFWorld, seen | 0 to 1 | {gain} | – | – | +10.0 ± 63.5 |",
    ]


def test_what_was_played_and_how_long_it_took(tmp_path: Path) -> None:
    """Two of three runs are done: 1,000 + 800 + 900 seconds are .75 hours; records of no study are not told."""
    cells = [{"variant": "grpo", "seed": seed} for seed in (0, 1, 4)]
    files = {"study.json": json.dumps({"cells": cells, "seeds": [4, 0, 1]})}
    for seed, commit, seconds in ((0, "abcdef123", (1000, 800)), (1, "0123456789", (900,))):
        files[f"grpo-s{seed}/run.json"] = json.dumps({"commit": commit})
        rows = [{"update": 1, "timing_s/rollout": second, "perf/time_per_step": 9} for second in seconds]
        files[f"grpo-s{seed}/metrics.jsonl"] = "\n".join(map(json.dumps, rows)) + "\n"
    pack(tmp_path / "window.tar.xz", files)
    pack(tmp_path / "nobody.tar.xz", files)
    assert tables.table(tmp_path, "studies").splitlines()[2:] == [
        "| `window` | 2 of 3 | 0 to 1, 4 | 0123456, abcdef1 | 0.8 |"
    ]


def test_only_what_is_between_the_marks_is_written(tmp_path: Path) -> None:
    archive(tmp_path / "one.tar.xz", BASE)
    page = "before\n<!-- table one -->\nold\n<!-- end -->\nafter\n"
    found = tables.filled(page, tmp_path)
    assert found == f"before\n<!-- table one -->\n{tables.table(tmp_path, 'one')}\n<!-- end -->\nafter\n"
    assert tables.filled(found, tmp_path) == found


def test_a_page_that_cannot_be_filled_leaves_all_as_they_were(tmp_path: Path) -> None:
    archive(tmp_path / "one.tar.xz", BASE)
    old = "<!-- table one -->\nold\n<!-- end -->\n"
    first, second = (tmp_path / name for name in ("why-empg.md", "why-empg-more.md"))
    for page, text in ((first, old), (second, old.replace("one", "none")), (tmp_path / "other.md", old)):
        page.write_text(text)
    with pytest.raises(FileNotFoundError):
        tables.write(tmp_path, tmp_path)
    assert (first.read_text(), second.read_text()) == (old, old.replace("one", "none"))
    second.write_text(old)
    tables.write(tmp_path, tmp_path)
    assert first.read_text() == second.read_text() == tables.filled(old, tmp_path) != old
    assert (tmp_path / "other.md").read_text() == old


PAGES = sorted((ROOT / tables.STUDIES).glob(tables.PAGES))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_has_the_tables_of_its_records(page: Path) -> None:
    assert tables.filled(page.read_text(), ROOT / tables.RECORDS) == page.read_text()


def test_what_the_page_says_of_penalties() -> None:
    archive = ROOT / tables.RECORDS / "fair.tar.xz"
    study = json.loads(records.member(archive, "study.json"))
    words = {cell["variant"]: cell["overrides"] for cell in study["cells"]}
    keys = ("episode/refused_frac", "episode/success_rate", "episode/length/mean")
    found: dict[bool, list[list[float]]] = {True: [], False: []}
    for variant, _, rows in records.curves(archive, study):
        late = [row for row in rows if row["update"] >= records.later_half(rows) and "episode/success_rate" in row]
        means = [fmean(row[key] for row in late) for key in keys]
        found["algo.advantage.penalty=step" in words[variant]].append(means)
    step, episode = ([fmean(column) for column in zip(*found[kind], strict=True)] for kind in (True, False))
    shown = [f"{100 * number:.0f}" for number in (step[0], episode[0], step[1], episode[1])]
    shown += [f"{number:.0f}" for number in (step[2], episode[2])]
    assert [len(found[True]), len(found[False])] == [80, 90]
    said = (
        "over the later half of training {} % of its actions are refused against {} % under `penalty=episode`, "
        "and it wins {} % of the games in {} turns against {} % in {}; 80 and 90 runs"
    )
    page = (ROOT / tables.STUDIES / "why-empg-tuning.md").read_text()
    assert said.format(*(shown[at] for at in (0, 1, 2, 4, 3, 5))) in " ".join(page.split())


@pytest.mark.parametrize("record", sorted((ROOT / tables.RECORDS).glob("*.tar.xz")), ids=lambda path: path.name)
def test_every_number_of_a_record_is_what_its_runs_say(
    record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records.unpack(record, tmp_path / "study")
    assert recompute.main([str(tmp_path / "study")]) == 0, capsys.readouterr().out


def test_draws_are_ranked_within_their_arm() -> None:
    axes = figures.draws([BASE, WORSE, BETTER]).axes[0]
    points = [
        (float(x), float(y))
        for bars in axes.containers
        for x, y in zip(bars[0].get_xdata(), bars[0].get_ydata(), strict=True)
    ]
    assert points == [(1, 50), (1.3, 60), (2.3, 45)]
    filled = [bars[0].get_markerfacecolor() == bars[0].get_color() for bars in axes.containers]
    assert filled == [True, True, False]


def test_the_forest_has_the_rows_from_top_to_bottom_and_lines_at_base_and_reference() -> None:
    """A single run has no interval."""
    axes = figures.forest([BASE, BETTER, WORSE], "empg-01").axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["empg-01", "empg-00", "grpo-00"]
    lines = [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "--"]
    assert lines == [45, 50]


def one_step_rows(**last: float) -> list[dict[str, str]]:
    """Two batches of each class of steps, entropies in 0.001 nats; `last` changes an arm's second."""
    values = {"grpo": (0.0, 0.0), "center": (1.0, 5.0), "scaling": (3.0, 9.0)}
    return [
        {
            "variant": name, "batch": str(batch), "episode": episode, "action": action,
            "d_entropy": str(value / 1000), "d_logprob": str(-value / 1000 if action == "refused" else 0.0),
        }
        for name, own in values.items()
        for batch, value in enumerate((own[0], last.get(name, own[1])))
        for episode, action in one_step_table.CLASSES
    ]  # fmt: skip


def test_one_step_is_beyond_the_base_and_paired_by_batch() -> None:
    """`scaling` is 2 and 4 above `center`: 3 ± 12.706; `center` 1 and 5 above GRPO: 3 ± 25.412."""
    axes = figures.one_step(one_step_rows()).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["scaling − center", "center − grpo"]
    assert [float(bars[0].get_xdata()[0]) for bars in axes.containers] == pytest.approx([3, 3, 3, 3])
    assert one_step_table.one_step_table(one_step_rows()).splitlines() == [
        "| arm | beyond | entropy: all steps | entropy: repeated, lost | log-prob: valid, won | log-prob: valid, lost "
        "| log-prob: refused, lost | log-prob: repeated, lost |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| `center` | `grpo` | +3.00 ± 25.41 | +3.00 ± 25.41 | +0.00 ± 0.00 | +0.00 ± 0.00 | −3.00 ± 25.41 "
        "| +0.00 ± 0.00 |",
        "| `scaling` | `center` | +3.00 ± 12.71 | +3.00 ± 12.71 | +0.00 ± 0.00 | +0.00 ± 0.00 | −3.00 ± 12.71 "
        "| +0.00 ± 0.00 |",
    ]
    # 2 and 2.5: 2.25 ± 3.18; 2 and 2.1 leave out 0
    assert "| +2.25 ± 3.18 |" in one_step_table.one_step_table(one_step_rows(scaling=7.5))
    assert "| **+2.05 ± 0.64** |" in one_step_table.one_step_table(one_step_rows(scaling=7.1))


def test_an_arm_of_the_controls_and_its_base_have_the_same_centring_and_statistics() -> None:
    """But for `center` and `grpo-step-statistics`, which are there for that one difference."""
    variants = yaml.safe_load((conf_dir() / "ablation" / "controls.yaml").read_text())["variants"]
    made = {name: load(["experiment=demo", *words]).algo for name, words in variants.items()}
    for name in variants:
        if (base := one_step_table.base_of(name)) is None or name in ("center", "grpo-step-statistics"):
            continue
        mine, other = made[name], made[base]
        assert mine.advantage.statistics == other.advantage.statistics, name
        if mine.advantage.statistics == "trajectory":  # else there is no mean to take out
            assert getattr(mine.credit, "center", False) == getattr(other.credit, "center", False), name
    assert one_step_table.base_of("center") == one_step_table.base_of("grpo-step-statistics") == "grpo"


def test_what_explains_a_change_is_in_percent_and_over_batches() -> None:
    rows = [
        {"variant": "a", "of": of, "by": part, "share": str(share), "joint": str(joint)}
        for of, joint in (("credit", 0.5), ("logprob", 0.125))
        for part, shares in (("entropy", (0.2, 0.4)), ("validity", (0.0, 0.1)), ("length", (0.15, 0.15)))
        for share in shares
    ]
    assert one_step_table.explained_table(rows).splitlines()[2] == "| `a` | 30 | 5 | 15 | 50 | 30 | 5 | 15 | 12 |"
