"""A run folder of commit 032f7dc (see tests/fixtures): today's code shows, reports, evaluates and resumes it."""

from __future__ import annotations

import base64
import json
import re
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import Result

from empg_cli import config
from empg_cli.agents.agent import agent_maker
from empg_cli.benchmarks.base import Observation
from empg_cli.model.loading import load_folder

Empg = Callable[..., Result]

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "run-032f7dc"


@pytest.fixture
def old_run(tmp_path: Path) -> Path:
    return shutil.copytree(FIXTURE, tmp_path / "old")


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_show_prints_its_numbers_and_an_episode(empg: Empg, old_run: Path) -> None:
    shown = " ".join(empg("show", old_run, "-n", "9").stdout.split())
    assert "empg on alfworld, seed 2" in shown
    assert "success rate, evaluation 50.0% [9.5%, 90.5%] after update 2" in shown
    assert "reward, training episodes 2.125 after update 2" in shown
    assert "solved · evaluation, update 2 · pick_and_place_simple" in shown


def test_report_has_its_success_and_its_episodes(empg: Empg, old_run: Path) -> None:
    empg("report", old_run, "--out", "page", "--no-figures")
    page = Path("page/report.html").read_text()
    assert "empg on alfworld, seed 2" in page
    assert "95 % Wilson, n=2 · after update 2" in page
    packed = re.search(r'id="packed">([^<]+)<', page)
    assert packed is not None
    shown = json.loads(zlib.decompress(base64.b64decode(packed[1])))
    ids = [trajectory["id"] for trajectory in shown["trajectories"]]  # the newest update's
    assert ids == ["old/eval-2/0.0", "old/eval-2/1.0", "old/train-2/0.0", "old/train-2/0.1"]
    assert "move cellphone 2 to safe 1" in shown["texts"]  # what won the evaluation's second game


def test_eval_plays_its_checkpoint_on_its_tasks(empg: Empg, old_run: Path) -> None:
    found = json.loads(empg("eval", f"run={old_run}", "--json").stdout)
    assert found["policy"]["source"].endswith("old/checkpoints/step-000002")
    assert (found["split"], found["temperature"]) == ("train", 0.4)
    (written,) = Path("runs/eval").glob("*/evaluation.json")
    played = json.loads(written.read_text())
    recorded = json.loads((old_run / "evaluations" / "update-000002.json").read_text())
    assert [task["task_id"] for task in played["tasks"]] == [task["task_id"] for task in recorded["tasks"]]
    assert found["total"]["n"] == recorded["total"]["n"] == 2
    assert 1 <= found["total"]["steps"] <= 16


def test_its_checkpoint_is_as_sure_of_every_step_as_the_run_wrote_down(old_run: Path) -> None:
    """The games have changed since; what was read and written in a won one is given to the policy again."""
    cfg = config.load(["model=tiny-scratch"])
    checkpoint = old_run / "checkpoints" / "step-000002" / "model"
    policy = load_folder(str(checkpoint), dtype="float32", device=torch.device("cpu"))
    agent = agent_maker(cfg.benchmark, "compact", policy, context="transcript", history=0)()
    (won,) = [entry for entry in lines(old_run / "trajectories" / "update-000002-eval.jsonl") if entry["success"]]
    token_ids: list[int] = []
    for before, step in zip([None, *won["steps"]], won["steps"], strict=False):
        observation = Observation(step["observation"], ())
        token_ids += (
            agent.next_prompt(before["action"], observation, ended=True) if before else agent.start(observation)
        )
        response = agent.codec.response(agent.wording.phrase(step["action"]))
        with torch.no_grad():
            logits = policy.model(torch.tensor([token_ids + response])).logits[0, len(token_ids) - 1 : -1]
        token_ids += response
        entropy = torch.distributions.Categorical(logits=logits / 0.4).entropy()  # rollout.eval_temperature
        assert entropy.mean().item() == pytest.approx(step["entropy"], abs=1e-5)


def test_resume_is_refused_where_todays_games_are_others(empg: Empg, old_run: Path) -> None:
    answer = " ".join(empg("train", "--resume", old_run, "trainer.updates=3", code=2).stderr.split())
    assert "benchmark.data_dir: is not the data that the run was trained on: digest 94ce8004fd36cfca, now" in answer
    assert "this empg makes others of the same settings; go on with that of commit" in answer
    assert {path.name for path in old_run.iterdir()} - {path.name for path in FIXTURE.iterdir()} == set()
    assert (old_run / "run.json").read_bytes() == (FIXTURE / "run.json").read_bytes()


def test_resume_adds_an_update_and_keeps_what_was(empg: Empg, old_run: Path) -> None:
    """Of a run whose games are still those of today."""
    facts = json.loads((old_run / "run.json").read_text())
    del facts["data"]["digest"]
    (old_run / "run.json").write_text(json.dumps(facts))
    before = (old_run / "metrics.jsonl").read_text()
    empg("train", "--resume", old_run, "trainer.updates=3")
    rows = lines(old_run / "metrics.jsonl")
    assert (old_run / "metrics.jsonl").read_text().startswith(before)
    assert [row["update"] for row in rows] == [0, 1, 2, 3]
    assert [row["eval/success_rate"] for row in rows[:3]] == [0.5, 0.5, 0.5]
    assert [row["episode/success_rate"] for row in rows[1:3]] == [0.5, 0.25]
    assert (rows[2]["env/episodes"], rows[3]["env/episodes"]) == (8, 12)  # counters go on: 2 tasks, 2 episodes each
    assert rows[3]["env/steps"] > rows[2]["env/steps"] == 109
    best, checkpoint = sorted((old_run / "checkpoints").iterdir())
    assert (best.name, checkpoint.name) == ("step-000002", "step-000003")  # keep_checkpoints=1, and the best
    state = torch.load(checkpoint / "optimizer.pt", weights_only=True)["state"]
    assert {float(moments["step"]) for moments in state.values()} == {3.0}  # AdamW went on from two steps
    assert sorted(file.name for file in (old_run / "evaluations").iterdir()) == [
        f"update-00000{update}.json" for update in range(4)
    ]
