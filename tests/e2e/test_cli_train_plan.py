"""`empg train ... --plan`: what would be trained, on what, for how much; and nothing is written."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import yaml

from empg_cli.cli.commands import train
from empg_cli.cli.ranks import processes
from empg_cli.config import load
from empg_cli.observe import trackers
from empg_cli.planning import hardware
from tests.e2e.conftest import Empg


def test_the_plan_of_a_run(empg: Empg) -> None:
    shown = empg("train", "experiment=demo", "algo.group_size=4", "run_dir=runs/mine", "--plan").stdout
    printed = yaml.safe_load(shown.partition("Configuration\n")[2].partition("\nData\n")[0])
    wanted = load(["experiment=demo", "algo.group_size=4", "run_dir=runs/mine"]).model_dump()
    assert printed == wanted
    assert "alfworld: generated data (train 3,553, valid_seen 140, valid_unseen 134)" in shown
    assert "tiny: weights that ship with empg" in shown
    assert "24 updates of 64 episodes: about" in shown  # 16 tasks, 4 attempts each
    assert "runs/mine: nothing was written there" in shown
    assert "together" in shown and "a checkpoint on the disk" in shown
    assert list(Path().iterdir()) == []


def test_a_mistake_is_the_same_message_as_without_it(empg: Empg) -> None:
    words = ("train", "trainer.lr=-1", "algo.zetta=1")
    assert empg(*words, "--plan", code=2).stderr == empg(*words, code=2).stderr


found = importlib.util.find_spec


def test_what_cannot_be_run_here_is_refused_before_a_folder_is_made(
    empg: Empg, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "gpus_here", lambda: 0)
    monkeypatch.setattr(train.importlib.util, "find_spec", lambda name: None if name == "vllm" else found(name))
    vllm = ("rollout.engine=vllm", "trainer.old_logprobs=recompute")
    for own, said in (
        (("dist=node",), "dist.processes: must be given: no GPU is here"),
        (vllm, f"rollout.vllm.python: {sys.executable} has no vLLM"),
        ((*vllm, "rollout.vllm.python=no/such/python"), "rollout.vllm.python: is no program (got no/such/python)"),
    ):
        words = ("train", "experiment=smoke", *own, "run_dir=x")
        refused = empg(*words, "--plan", code=2).stderr
        assert said in refused
        assert refused == empg(*words, code=2).stderr
        assert list(Path().iterdir()) == []


def test_what_does_not_fit_is_refused_after_all_is_told(empg: Empg, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "available_memory", lambda: 10**8)
    monkeypatch.setattr(hardware, "resident_memory", lambda: 0)
    result = empg("train", "experiment=smoke", "--plan", code=2)
    assert "does not fit into the 100.0 MB of this machine" in result.stderr
    assert "2 updates of 4 episodes" in result.stdout


def test_a_folder_that_holds_a_run_is_refused(empg: Empg, finished_run: Path) -> None:
    assert "already holds a run" in empg("train", f"run_dir={finished_run}", "--plan", code=2).stderr


def test_a_model_of_an_unknown_shape_has_no_cost(empg: Empg) -> None:
    shown = empg("train", "model=local", "model.path=owner/unheard-of", "--plan", code=2).stdout  # HF_HUB_OFFLINE
    assert "nobody here knows the shape of owner/unheard-of" in shown


def test_a_model_that_is_not_there_is_refused_where_this_machine_can_tell(
    empg: Empg, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("train", "model=local", "model.path=models/qwen", "--plan")
    said = " ".join(empg(*words, code=2).stderr.split())
    assert "model.path: is no folder here, and is not in the hub's cache" in said and "models/qwen" in said
    monkeypatch.delenv("HF_HUB_OFFLINE")  # the hub may have it, and is not asked
    empg(*words)


def test_a_folder_that_cannot_be_made_is_the_same_message_as_without_it(empg: Empg) -> None:
    Path("file").touch()
    words = ("train", "experiment=smoke", "run_dir=file/x")
    refused = empg(*words, "--plan", code=2).stderr
    assert "file is a file, not a folder" in refused and refused == empg(*words, code=2).stderr


def test_a_tracker_that_is_not_installed_is_the_same_message_as_without_it(
    empg: Empg, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "MODULES", {"mlflow": ("no_such_module",)})
    words = ("train", "experiment=smoke", "logger=mlflow", "run_dir=x")
    refused = empg(*words, "--plan", code=2).stderr
    assert "logger.trackers names mlflow, which is not installed" in refused and not Path("x").exists()


@pytest.mark.parametrize("words", [["-m", "seed=0,1"], ["--resume", "runs/x"], ["--cfg", "job"]])
def test_it_is_about_one_new_run(words: list[str], empg: Empg) -> None:
    assert "--plan" in empg("train", *words, "--plan", code=2).stderr
