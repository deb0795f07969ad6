"""Checkpoints: what goes in comes out, the newest good one is found, and as many stay as asked for."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from empg_cli.learner.checkpoint import load_optimizer, save_checkpoint
from empg_cli.learner.optim import make_optimizer
from empg_cli.model.policy import Policy
from empg_cli.runs.checkpoint import TrainState, all_checkpoints, load_state, write_checkpoint
from empg_cli.runs.manifest import CheckpointError, checkpoint_fault
from empg_cli.runs.which_checkpoint import find_checkpoint
from tests.support.tiny import tiny_config, tiny_policy

CFG = tiny_config()


def stepped(policy: Policy) -> torch.optim.Optimizer:
    """An optimiser after one step on chosen gradients."""
    optimizer = make_optimizer(policy, CFG.trainer)
    for number, parameter in enumerate(policy.model.parameters()):
        parameter.grad = torch.full_like(parameter, 0.1 * (number + 1))
    optimizer.step()
    return optimizer


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder after the checkpoints 8 to 11, of which two are kept."""
    folder = tmp_path_factory.mktemp("run")
    policy = tiny_policy(CFG)
    optimizer = stepped(policy)
    for update in (8, 9, 10, 11):
        save_checkpoint(folder, policy, optimizer, TrainState(update=update, next_task=3 * update), keep=2)
    return folder


def test_as_many_are_kept_as_asked_for(saved: Path) -> None:
    assert [path.name for path in all_checkpoints(saved)] == ["step-000010", "step-000011"]


def test_the_newest_is_found(saved: Path) -> None:
    assert find_checkpoint(saved).name == "step-000011"
    assert load_state(find_checkpoint(saved)) == TrainState(update=11, next_task=33)


def test_the_moments_of_adam_come_back(saved: Path) -> None:
    policy = tiny_policy(CFG)
    optimizer = make_optimizer(policy, CFG.trainer)
    load_optimizer(find_checkpoint(saved), optimizer, policy)
    for number, parameter in enumerate(policy.model.parameters()):
        state = optimizer.state[parameter]
        gradient = 0.1 * (number + 1)
        assert float(state["step"]) == 1.0
        # (1 - .9) g and (1 - .999) g^2 after the first step
        torch.testing.assert_close(state["exp_avg"], torch.full_like(parameter, 0.1 * gradient))
        torch.testing.assert_close(state["exp_avg_sq"], torch.full_like(parameter, 0.001 * gradient**2))


def test_one_flipped_bit_is_seen(saved: Path) -> None:
    newest = find_checkpoint(saved)
    file = newest / "optimizer.pt"
    plain = file.read_bytes()
    try:
        file.write_bytes(plain[:-1] + bytes([plain[-1] ^ 1]))  # the size stays
        assert checkpoint_fault(newest) == "optimizer.pt does not match its SHA-256"
        assert find_checkpoint(saved).name == "step-000010"
        with pytest.raises(CheckpointError, match="step-000011 is damaged"):
            find_checkpoint(newest)
    finally:
        file.write_bytes(plain)
    assert checkpoint_fault(newest) is None


@pytest.mark.parametrize("is_of_before", [False, True])
def test_numbers_that_json_does_not_have_come_back(tmp_path: Path, is_of_before: bool) -> None:
    """Of an update whose step was left out, where a stop has cut off its evaluation."""
    state = TrainState(update=3, unlogged={"actor/kl_loss": math.nan, "up": math.inf, "down": -math.inf, "one": 1.5})
    path = write_checkpoint(tmp_path, state, lambda folder: None, keep=1)
    assert path is not None
    if is_of_before:  # Python's own words
        text = (path / "state.json").read_text()
        for kept, word in (('"nan"', "NaN"), ('"inf"', "Infinity"), ('"-inf"', "-Infinity")):
            text = text.replace(kept, word)
        (path / "state.json").write_text(text)
    else:
        json.loads((path / "state.json").read_text(), parse_constant=pytest.fail)
    found = load_state(path).unlogged
    assert found is not None and math.isnan(found.pop("actor/kl_loss"))
    assert found == {"up": math.inf, "down": -math.inf, "one": 1.5}


def test_a_checkpoint_that_is_written_again_takes_the_place_of_the_first(tmp_path: Path) -> None:
    for tokens in (1, 2):
        write_checkpoint(tmp_path, TrainState(update=3, tokens=tokens), lambda folder: None, keep=1)
    (path,) = all_checkpoints(tmp_path)
    assert load_state(path).tokens == 2
    assert [child.name for child in path.parent.iterdir()] == ["step-000003"]
