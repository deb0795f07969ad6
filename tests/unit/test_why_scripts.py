"""Shares of a gain, numbers anew and records (scripts/why), on studies made by hand."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from empg_cli.config import load
from empg_cli.config.ablation import Tuning
from empg_cli.config.location import conf_dir
from empg_cli.errors import UserError
from empg_cli.model.loading import packaged_agent
from empg_cli.reports.ablation_tables import write_tables
from empg_cli.runs.study import Study, read_study
from empg_cli.stats.paired import sign_flip_test
from empg_cli.studies.comparison import compare
from empg_cli.studies.plan import make_study
from empg_cli.studies.tuning import drawn
from scripts.why import agents, main_arms, play, recompute, records, shapley, tables
from tests.unit.test_ablation_tables import make as made_study

# --- shares of a gain ------------------------------------------------------------------------------------


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


# --- numbers anew ----------------------------------------------------------------------------------------


@pytest.fixture
def tabled(tmp_path: Path) -> Path:
    """A study of three variants and four seeds, with its tables."""
    return with_tables(made_study(tmp_path / "study"))


def with_tables(study: Study) -> Path:
    comparison = compare(study)
    assert comparison is not None
    write_tables(comparison, study.folder)
    return study.folder


def audited(folder: Path) -> tuple[int, str]:
    """Exit code and what is said."""
    with contextlib.redirect_stdout(io.StringIO()) as told:
        return recompute.main([str(folder)]), told.getvalue()


def table_of(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "ablation.csv").open()))


def write_table(folder: Path, rows: list[dict[str, str]]) -> None:
    with (folder / "ablation.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_the_auditors_script_agrees_with_the_tables_and_sees_a_wrong_one(tabled: Path) -> None:
    code, told = audited(tabled)
    assert code == 0, told
    assert "study better: 4 seeds" in told
    rows = table_of(tabled)
    for key in ("mean", "low", "difference", "difference_high", "p", "p_holm"):
        for wrong in (lambda value: str(float(value) + 1e-6), lambda value: ""):
            write_table(tabled, [row | {key: wrong(row[key])} if row["variant"] == "better" else row for row in rows])
            code, told = audited(tabled)
            assert code == 1, key
            assert f"study better {key}:" in told


def test_the_auditors_script_sees_what_only_one_side_has(tabled: Path) -> None:
    rows = table_of(tabled)
    base = next(row for row in rows if row["variant"] == "grpo")
    write_table(tabled, [row | {"p": "0.01"} if row is base else row for row in rows])
    assert audited(tabled)[0] == 1, "a p value of the base"
    for changed, said in (
        ([*rows, rows[1] | {"variant": "wonder"}], "study wonder: 0 runs that are done, 1 rows in ablation.csv"),
        ([*rows, rows[1]], "study better: 4 runs that are done, 2 rows in ablation.csv"),
        (rows[:2], "study noisy_1: 4 runs that are done, 0 rows in ablation.csv"),
    ):
        write_table(tabled, changed)
        code, told = audited(tabled)
        assert code == 1 and said in told, told


def test_the_auditors_script_counts_what_is_done(tmp_path: Path) -> None:
    study = made_study(tmp_path / "study")
    (study.folder / "better-s3" / "summary.json").write_text(json.dumps({"exit_code": 1}))
    (study.folder / "noisy_1-s0" / "summary.json").unlink()
    code, told = audited(with_tables(study))
    assert code == 0, told
    assert "study better: 3 seeds" in told and "study noisy_1: 3 seeds" in told
    for seed in (1, 2):  # one pair makes no difference, and Holm counts the others alone
        (study.folder / f"noisy_1-s{seed}" / "summary.json").unlink()
    assert audited(with_tables(study))[0] == 0


def test_the_auditors_script_says_which_arm_is_missing(tmp_path: Path) -> None:
    study = made_study(tmp_path / "study")
    for path in study.folder.glob("grpo-s*/summary.json"):
        path.unlink()
    code, told = audited(with_tables(study))
    assert code == 0, told
    assert "study: grpo has no run that is done" in told
    assert "study: without grpo, the base, there are no differences" in told


def test_the_auditors_script_refuses_cells_of_unlike_code(tabled: Path) -> None:
    for path in tabled.glob("*/run.json"):
        path.write_text(json.dumps({"code": "old" if path.parent.name == "better-s1" else "new"}))
    code, told = audited(tabled)
    assert code == 2
    assert "study: the cells are not of the same code, so they are not compared" in told and "old: better-s1" in told


def test_what_is_no_study_is_refused_in_a_sentence(tmp_path: Path, tabled: Path) -> None:
    (tabled / "ablation.csv").unlink()
    for folder, said in ((tmp_path, "has no study.json that can be read"), (tabled, "study has no ablation.csv")):
        code, told = audited(folder)
        assert code == 2 and said in told


def test_sums_of_zero_are_equal_but_for_rounding() -> None:
    # all 8 patterns of (1, 3, -4) have a sum at least as far from 0 as theirs, which is 0
    gaps = [1 / 140, 3 / 140, -4 / 140]
    assert recompute.sign_flip(gaps) == sign_flip_test(gaps).p_value == 1.0


@given(st.lists(st.integers(-6, 6), min_size=2, max_size=10), st.sampled_from([3, 7, 140]))
def test_p_values_are_those_of_the_tables(gaps: list[int], tasks: int) -> None:
    shares = [gap / tasks for gap in gaps]
    assert recompute.sign_flip(shares) == pytest.approx(sign_flip_test(shares).p_value, abs=1e-12)


def test_the_auditors_script_stands_alone(tabled: Path) -> None:
    assert "empg_cli" not in Path(recompute.__file__).read_text().replace("nothing of empg", "")
    command = [sys.executable, "-I", str(Path(recompute.__file__)), str(tabled)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tabled)
    assert (answer.returncode, answer.stdout) == (0, audited(tabled)[1]), answer.stderr


# --- records ---------------------------------------------------------------------------------------------


def test_a_study_that_was_packed_goes_on_where_it_was(tmp_path: Path) -> None:
    study = made_study(tmp_path / "study")
    (tmp_path / "study" / "grpo-s0" / "checkpoints").mkdir()
    (tmp_path / "study" / "grpo-s0" / "checkpoints" / "weights").write_bytes(b"0" * 1000)
    (tmp_path / "study" / "better-s3" / "summary.json").unlink()  # is being played
    stopped = tmp_path / "study" / "better-s2" / "summary.json"
    stopped.write_text(json.dumps({**json.loads(stopped.read_text()), "exit_code": 130}))
    archive = tmp_path / "kept.tar.xz"
    with_tables(study)
    assert records.pack(study.folder, archive) == 10
    before = archive.read_bytes()
    records.pack(study.folder, archive)
    assert archive.read_bytes() == before
    assert records.unpack(archive, tmp_path / "again") > 30
    again = read_study(tmp_path / "again")
    assert [cell.folder for cell in again.pending()] == ["better-s2", "better-s3"]
    assert len(again.done()) == 10
    assert not list((tmp_path / "again").rglob("weights"))
    code, told = audited(tmp_path / "again")
    assert code == 0 and "again better: 2 seeds" in told, told
    assert (tmp_path / "again" / "runs.csv").read_bytes() == (study.folder / "runs.csv").read_bytes()
    (tmp_path / "again" / "grpo-s0" / "metrics.jsonl").write_text("newer")
    assert records.unpack(archive, tmp_path / "again") == 0
    assert (tmp_path / "again" / "grpo-s0" / "metrics.jsonl").read_text() == "newer"


# --- playing ---------------------------------------------------------------------------------------------


def without_arms(name: str) -> str | None:
    is_main = name.startswith("main-")
    return play.lacks(name, Path("studies"), None) if is_main and not play.arms_of(name[5:]).is_file() else None


@pytest.mark.parametrize(
    ("name", "cells", "updates"),
    [
        ("fair", 2 * 17 * 5, 12),
        ("controls", 25 * 20, 12),
        ("fair-webshop", 2 * 9 * 3, 15),
        ("fair-deepsearch", 2 * 9 * 3, 16),
        ("main-webshop", 8 * 20, 15),
        ("main-deepsearch", 10 * 20, 16),
        ("table5", 5 * 10, 12),
        ("main-alfworld", 8 * 20, 12),
        ("main-alfworld-1250", 8 * 20, 12),
        ("agent-1250", 2 * 10, 12),
        ("fair-1250", 2 * 13 * 3, 12),
        ("larger", 2 * 7 * 3, 12),
        ("window", 2 * 10, 12),
    ],
)
def test_the_studies_are_valid_commands(
    name: str, cells: int, updates: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if why := without_arms(name):
        pytest.skip(why)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "studies" / "agents").mkdir(parents=True)
    for agent in play.agents_of(name):
        (tmp_path / "studies" / "agents" / agent).symlink_to(packaged_agent("alfworld"))
    study = make_study(play.command(name, Path("studies"))[4:])
    assert study.folder == Path("studies") / name
    assert len(study.cells) == cells
    assert {facts["updates"] for facts in study.facts.values()} == {updates}


def test_a_small_tuning_has_each_rate_with_and_without_a_higher_bonus() -> None:
    (space,) = [word.partition("=")[2] for word in play.command("fair-webshop", Path("out")) if ".space=" in word]
    whole = yaml.safe_load((conf_dir() / "ablation" / "fair.yaml").read_text())["tuning"]["space"]
    found = drawn(Tuning(draws=8, seed=0, space=whole | yaml.safe_load(space)))
    rates = {draw[0] for draw in found}
    assert len(rates) == 4 and {draw[3] for draw in found} == {"algo.advantage.penalty=episode"}
    for higher in (True, False):
        assert {draw[0] for draw in found if (float(draw[1].partition("=")[2]) > 0.001) == higher} == rates
    default = load(["experiment=webshop"]).algo
    assert f"algo.loss.entropy_coef={default.loss.entropy_coef}" == "algo.loss.entropy_coef=0.001"
    assert "ablation.tuning.seed=0" in play.command("fair-webshop", Path("out"))


def test_no_test_question_chooses_settings_on_deep_search() -> None:
    tuning, main = (play.command(name, Path("out")) for name in ("fair-deepsearch", "main-deepsearch"))
    assert "benchmark.world.seed=1" in tuning
    assert not [word for word in main if word.startswith("benchmark.")]
    assert load(["experiment=deepsearch"]).benchmark.world.seed == 0


def test_a_main_comparison_whose_arms_are_not_known_says_how_to_find_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = play.lacks("main-webshop", Path("studies"), None)
    assert told and told.endswith(
        "python -m scripts.why.main_arms studies/fair-webshop webshop > conf/ablation/main_webshop.yaml"
    )
    (tmp_path / "conf" / "ablation").mkdir(parents=True)
    (tmp_path / "conf" / "ablation" / "main_alfworld_1250.yaml").touch()
    assert "conf/ablation/main_alfworld.yaml" in str(play.lacks("main-alfworld", Path("studies"), None))
    monkeypatch.setattr(play, "lay_out", lambda out, names: None)
    assert play.lacks("main-alfworld-1250", Path("studies"), None) is None


def test_earlier_agents_are_laid_out_as_they_were_shipped(tmp_path: Path) -> None:
    root = Path(agents.__file__).parents[2]
    for commit in agents.EARLIER.values():
        if subprocess.run(["git", "-C", str(root), "cat-file", "-e", f"{commit}^{{commit}}"], check=False).returncode:
            pytest.skip(f"this clone does not know {commit}: git fetch --unshallow")
    agents.lay_out(tmp_path, agents.EARLIER)
    digests = {
        step: hashlib.sha256((tmp_path / step / "model.safetensors").read_bytes()).hexdigest()[:16]
        for step in agents.EARLIER
    }
    assert digests == {"1250": "811ac89ff5c24423", "1000": "37a3e4687e426fcc"}
    (tmp_path / "1000" / "config.json").write_text("mine")
    agents.lay_out(tmp_path, ["1000"])
    assert (tmp_path / "1000" / "config.json").read_text() == "mine"


def test_what_makes_an_agent_anew_is_the_command_of_the_shipped_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[list[str]] = []

    def run(words: list[str], check: bool) -> subprocess.CompletedProcess[str]:
        called.append(words[2:])
        return subprocess.CompletedProcess(words, returncode=0)

    monkeypatch.setattr(agents.subprocess, "run", run)
    agents.make(tmp_path, "window")
    agents.make(tmp_path, "larger")
    stop = ["--benchmark", "alfworld", "--stop-at", "0.30", "--out"]
    assert called[0] == [*stop, str(tmp_path / "window"), "rollout=window", "rollout.history=8"]
    assert called[1][:6] == [*stop, str(tmp_path / "larger")] and "model.arch.hidden_size=192" in called[1]
    shipped = json.loads((packaged_agent("alfworld") / "record.json").read_text())["command"].split()
    assert {"alfworld", "--stop-at", "0.30"} <= set(shipped)
    (tmp_path / "window").mkdir()
    (tmp_path / "window" / "record.json").touch()
    agents.make(tmp_path, "window")
    assert len(called) == 2  # it is there


def test_an_agent_that_cannot_be_made_ends_in_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(agents, "ROOT", tmp_path)  # where no script is
    monkeypatch.setattr(sys, "argv", ["agents", str(tmp_path / "out"), "larger"])
    with pytest.raises(SystemExit, match="2"):
        agents.main()
    told = capsys.readouterr().err
    assert "the agent larger was not made" in told and "Traceback" not in told


def test_a_study_of_an_agent_that_is_not_made_says_how_to_make_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(play, "run", lambda words: pytest.fail("it must not be played"))
    monkeypatch.setattr(sys, "argv", ["play", "larger"])
    with pytest.raises(SystemExit, match="2"):
        play.main()
    assert "python -m scripts.why.agents studies/agents larger" in capsys.readouterr().err


def test_official_games_are_played_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    called: list[list[str]] = []
    monkeypatch.setattr(play, "run", lambda words: called.append(words) or 0)
    monkeypatch.setattr(play, "is_finished", lambda folder: True)
    monkeypatch.setattr(sys, "argv", ["play", "fair-official"])
    assert play.main() == 0
    assert not called and "needs the official games (--data FOLDER)" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["play", "fair-official", "--data", "games"])
    assert play.main() == 0
    asked = {"benchmark.data_dir=games", "ablation.confirms=studies/fair", "run_dir=studies/fair-official"}
    assert asked <= set(called[0])


def test_what_is_done_is_kept_and_what_was_kept_is_laid_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made_study(tmp_path / "studies" / "fair")
    monkeypatch.setattr(sys, "argv", ["play", "--pack", "--records", "kept", "fair"])
    assert play.main() == 0
    (tmp_path / "studies").rename(tmp_path / "before")
    called: list[list[str]] = []
    monkeypatch.setattr(play, "run", lambda words: called.append(words) or 3)
    monkeypatch.setattr(sys, "argv", ["play", "--records", "kept", "fair", "controls"])
    assert play.main() == 3  # the next is not played where one has failed
    assert [word for words in called for word in words if word.startswith("ablation=")] == ["ablation=fair"]
    assert len(read_study(tmp_path / "studies" / "fair").done()) == 12


def test_the_next_study_waits_for_the_cells_that_another_command_plays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    called: list[str] = []

    def run(words: list[str]) -> int:
        """The other command is done with the last cell when this one looks for the second time."""
        name = next(word for word in words if word.startswith("run_dir=")).rpartition("/")[2]
        called.append(name)
        if called.count("fair") == 1:
            study = made_study(tmp_path / "studies" / "fair")
            (study.cell_dir(study.cells[-1]) / "summary.json").unlink()
        elif name == "fair":
            study = read_study(tmp_path / "studies" / "fair")
            facts = {"exit_code": 0, "cell_hash": study.cells[-1].cell_hash}
            (study.cell_dir(study.cells[-1]) / "summary.json").write_text(json.dumps(facts))
        return int(name != "fair")

    monkeypatch.setattr(play, "run", run)
    monkeypatch.setattr(play, "WAIT_S", 0.0)
    monkeypatch.setattr(play, "LOOKS", 1)
    monkeypatch.setattr(sys, "argv", ["play", "fair", "fair-confirmed"])
    assert play.main() == 1
    assert called == ["fair", "fair", "fair-confirmed"]


def test_what_waits_for_others_is_stopped_like_anything_else(tmp_path: Path) -> None:
    """The handlers of a study that runs are gone when it has ended."""
    script = (
        "import sys; from pathlib import Path; from scripts.why import play\n"
        "play.is_finished = lambda folder: False\n"
        "play.run([sys.executable, '-c', 'pass'])\n"
        "Path('up').touch()\n"
        "play.wait_for(Path('.'))\n"
    )
    root = str(Path(play.__file__).parents[2])
    for signum in (signal.SIGINT, signal.SIGTERM):
        waiting = subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": root},
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        end = time.monotonic() + 60
        while not (tmp_path / "up").exists():
            assert time.monotonic() < end
            time.sleep(0.05)
        waiting.send_signal(signum)
        assert waiting.wait(timeout=15) in (-signum, 128 + signum)
        (tmp_path / "up").unlink()


def test_others_are_waited_for_until_they_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([False, False, True])
    monkeypatch.setattr(play, "is_finished", lambda folder: next(looks))
    monkeypatch.setattr(play, "WAIT_S", 0.0)
    play.wait_for(Path())
    assert next(looks, "all looked at") == "all looked at"


def test_without_names_what_lacks_something_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    called: list[str] = []
    monkeypatch.setattr(play, "run", lambda words: called.append(words[4]) or 0)
    monkeypatch.setattr(play, "STUDIES", {name: play.STUDIES[name] for name in ("larger", "fair-official", "fair")})
    monkeypatch.setattr(sys, "argv", ["play", "--plan"])
    assert play.main() == 0
    assert len(called) == 1
    said = capsys.readouterr().out
    assert "larger: left out, as studies/agents/larger is not there: python -m scripts.why.agents" in said
    assert "fair-official: left out, as it needs the official games" in said


def test_the_main_comparisons_are_on_seeds_that_no_other_study_has_played() -> None:
    asked = {
        name: [yaml.safe_load(word[6:]) for word in play.command(name, Path("out")) if word.startswith("seeds=")]
        for name in play.STUDIES
    }
    main = {name: found for name, found in asked.items() if name.startswith("main-")}
    assert main and all(found == [list(range(25, 45))] for found in main.values())
    assert asked["fair-1250-confirmed"] == [list(range(5, 25))]
    others = [seeds for name, found in asked.items() if name not in main for seeds in found]
    highest = [max(seeds) if isinstance(seeds, list) else 4 + seeds for seeds in others]
    assert max(highest) == 24  # `seeds=20` beside ablation.confirms are 5 to 24


def test_a_clone_that_does_not_know_a_commit_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents, "EARLIER", {"1250": "0000000"})
    with pytest.raises(UserError, match="git does not know commit 0000000 here: git fetch --unshallow"):
        agents.lay_out(tmp_path, ["1250"])


@pytest.mark.parametrize(
    ("main", "words", "answer"),
    [
        (tables.main, ["controls-of-nobody"], "there is no record docs/studies/records/controls-of-nobody.tar.xz"),
        (main_arms.main, ["nowhere", "webshop"], "study.json is not there"),
        (records.main, ["unpack", "nowhere.tar.xz", "out"], "there is no record nowhere.tar.xz"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(
    main: Callable[[], object],
    words: list[str],
    answer: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["script", *words])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert answer in capsys.readouterr().err


def test_a_study_that_is_asked_to_end_ends_by_itself(tmp_path: Path) -> None:
    child = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: exit(7)); open('up', 'w'); time.sleep(60)"
    script = f"import sys; from scripts.why.play import run; sys.exit(run([sys.executable, '-c', {child!r}]))"
    root = str(Path(play.__file__).parents[2])
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, env={**os.environ, "PYTHONPATH": root})
    end = time.monotonic() + 30
    while not (tmp_path / "up").exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    parent.send_signal(signal.SIGINT)  # alone, it ends nothing
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(30) == 7


def test_an_unknown_study_is_refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["play", "unfair"])
    with pytest.raises(SystemExit):
        play.main()
    assert "no study is called unfair" in capsys.readouterr().err
