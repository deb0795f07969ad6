"""Which studies are played, how, and by whose agents (scripts/why/play.py, agents.py)."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from empg_cli.config import load
from empg_cli.config.ablation import Tuning
from empg_cli.config.location import conf_dir
from empg_cli.errors import UserError
from empg_cli.model.loading import packaged_agent
from empg_cli.runs.study import read_study
from empg_cli.studies.plan import make_study
from empg_cli.studies.tuning import drawn
from scripts.why import agents, main_arms, play, records, tables
from tests.unit.reports.test_ablation_tables import make as made_study


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
