"""A run evaluated again (scripts/why/temperatures.py) reaches what it logged, or says that it does not."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from empg_cli.config import load
from empg_cli.loop import train
from scripts.why import temperatures

WORDS = (
    "experiment=smoke", "trainer.updates=1", "trainer.eval_before=false", "trainer.eval_every=0",
    "logger.console=quiet", "logger=none", "rollout.eval_temperature=0.7",
)  # fmt: skip


def test_a_run_is_reached_again_and_another_temperature_is_another_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, out = tmp_path / "grpo-s0", tmp_path / "out.csv"
    train(load([*WORDS, "seed=0"]), run)
    logged = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["eval/success_rate"]
    found = temperatures.evaluated(run, [0.0])
    assert list(found) == [0.7, 0.0] and found[0.7] == logged
    temperatures.write_rows(out, [["grpo", "0", "0", repr(found[0.0])]])
    assert temperatures.read_rows(out) == [["grpo", "0", "0", repr(found[0.0])]]
    rows = [{**json.loads(line)} for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows[-1]["eval/success_rate"] = logged + 0.5
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    with pytest.raises(SystemExit, match=r"logged .* another machine, or other code"):
        temperatures.evaluated(run, [])


def test_what_is_there_is_not_played_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = {"cells": [{"variant": "grpo", "seed": seed} for seed in (0, 1)]}
    cells = [type("Cell", (), {**cell, "folder": f"grpo-s{cell['seed']}"}) for cell in study["cells"]]
    monkeypatch.setattr(temperatures, "read_study", lambda _: type("Study", (), {"cells": cells}))
    played: list[Path] = []
    monkeypatch.setattr(temperatures, "evaluated", lambda run, _: played.append(run) or {0.4: 0.25, 1.0: 0.5})
    out = tmp_path / "out.csv"
    temperatures.write_rows(out, [["grpo", "0", "0.4", "0.75"]])
    monkeypatch.setattr(sys, "argv", ["temperatures", "study", str(out)])
    temperatures.main()
    assert played == [Path("study") / "grpo-s1"]
    assert temperatures.read_rows(out) == [
        ["grpo", "0", "0.4", "0.75"], ["grpo", "1", "0.4", "0.25"], ["grpo", "1", "1", "0.5"],
    ]  # fmt: skip
