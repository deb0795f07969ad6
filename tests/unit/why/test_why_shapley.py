"""Shares of a gain (scripts/why/shapley.py), on studies made by hand."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest
import yaml

from empg_cli.config.location import conf_dir
from scripts.why import recompute, shapley


def test_shapley_values_by_hand() -> None:
    # scale alone 2, with centre 5, bonus never anything: centre has half of the 3 that the pair adds, and none alone
    value = dict.fromkeys(map(shapley.cell_of, shapley.subsets()), 0.0)
    value |= {"scale": 2, "scale-bonus": 2, "scale-center": 5, "scale-center-bonus": 5}
    assert shapley.shapley(value) == pytest.approx({"scale": 3.5, "center": 1.5, "bonus": 0})


def test_shares_add_up_to_the_gain() -> None:
    rng = random.Random(0)
    value = {shapley.cell_of(parts): rng.random() for parts in shapley.subsets()}
    assert sum(shapley.shapley(value).values()) == pytest.approx(value["scale-center-bonus"] - value["none"])


@pytest.fixture
def mechanism(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the script is given: eight cells with three seeds; number n is worth n, scale one more with each seed."""
    variants = yaml.safe_load((conf_dir() / "ablation" / "mechanism.yaml").read_text())["variants"]
    assert set(variants) == set(map(shapley.cell_of, shapley.subsets()))
    cells = [{"variant": name, "seed": seed} for name in variants for seed in range(3)]
    study = {"metric": "eval/success_rate", "base": "none", "seeds": [0, 1, 2], "cells": cells}
    (tmp_path / "study.json").write_text(json.dumps(study))
    for number, name in enumerate(variants):
        for seed in range(3):
            cell = tmp_path / f"{name}-s{seed}"
            cell.mkdir()
            rows = [
                {"update": 1, "eval/success_rate": 9.0},
                {"update": 2, "eval/success_rate": number + seed * (name == "scale")},
            ]
            (cell / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
            (cell / "summary.json").write_text(json.dumps({"exit_code": 0}))
            (cell / "run.json").write_text(json.dumps({"code": "c0de"}))
    monkeypatch.setattr(sys, "argv", ["shapley", str(tmp_path)])
    return tmp_path


def test_the_cells_are_those_of_the_ablation(mechanism: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shapley.main()
    assert "| all | +7.0000 |" in capsys.readouterr().out


def test_the_controls_have_the_same_cells_under_other_names(
    mechanism: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Name by name the settings are equal; GRPO has all parts off."""
    variants = {
        name: yaml.safe_load((conf_dir() / "ablation" / f"{name}.yaml").read_text())["variants"]
        for name in ("mechanism", "controls")
    }
    off = [f"algo.credit.{word}" for word in ("k=0.0", "zeta=0.0", "center=false")]
    assert variants["mechanism"]["none"] == ["algo=empg", *off]
    assert variants["controls"]["grpo"] == ["algo=grpo"]
    for cell, name in shapley.IN_CONTROLS.items():
        assert cell == "none" or sorted(variants["controls"][name]) == sorted(variants["mechanism"][cell]), cell
    for cell, name in shapley.IN_CONTROLS.items():
        for seed in range(3):
            (mechanism / f"{cell}-s{seed}").rename(mechanism / f"as-{name}-s{seed}")
    for folder in mechanism.glob("as-*"):
        folder.rename(mechanism / folder.name.removeprefix("as-"))
    study = json.loads((mechanism / "study.json").read_text())
    cells = [{**cell, "variant": shapley.IN_CONTROLS[cell["variant"]]} for cell in study["cells"]]
    (mechanism / "study.json").write_text(json.dumps({**study, "name": "controls", "cells": cells}))
    shapley.main()
    assert "| all | +7.0000 |" in capsys.readouterr().out


def test_shares_of_a_record_are_in_points_and_apart_for_seeds_that_chose_the_agent() -> None:
    """`scale` alone is .1 at seeds 8 and 9, .2 and .4 at 10 and 11, whatever else: .1 ± 0, .3 ± 12.706 * .1, and of
    all four .2 ± 3.182 * .1414 / 2."""
    gain = {8: 0.1, 9: 0.1, 10: 0.2, 11: 0.4}
    values = {
        name: {seed: gain[seed] * ("scale" in cell) for seed in gain} for cell, name in shapley.IN_CONTROLS.items()
    }
    assert shapley.shares_table(values, {"seeds": list(gain)}).splitlines() == [
        "| part | all seeds | seeds below 10 | seeds from 10 on |",
        "| --- | ---: | ---: | ---: |",
        "| scale | +20.0 ± 22.5 | +10.0 ± 0.0 | +30.0 ± 127.1 |",
        "| center | +0.0 ± 0.0 | +0.0 ± 0.0 | +0.0 ± 0.0 |",
        "| bonus | +0.0 ± 0.0 | +0.0 ± 0.0 | +0.0 ± 0.0 |",
        "| all | +20.0 ± 22.5 | +10.0 ± 0.0 | +30.0 ± 127.1 |",
    ]
    del values["scaling"][11]
    with pytest.raises(recompute.NotComparable, match="1 of 4 seeds have not all eight cells"):
        shapley.shares_table(values, {"seeds": list(gain)})


def test_shares_are_over_seeds_of_which_all_cells_are_done(mechanism: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (mechanism / "scale-s2" / "summary.json").write_text(json.dumps({"exit_code": 1}))
    shapley.main()
    told = capsys.readouterr().out
    assert "95 % t interval, 2 seeds" in told and "not all eight of their cells are done: seeds 2." in told


def test_shares_without_an_arm_are_refused_in_a_sentence(mechanism: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(3):
        (mechanism / f"center-s{seed}" / "summary.json").unlink()
    with pytest.raises(SystemExit, match="2"):
        shapley.main()
    assert "has no run that is done of center: shares need all eight cells" in capsys.readouterr().err
