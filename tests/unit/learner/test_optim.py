"""AdamW and the learning-rate schedule, number by number."""

from __future__ import annotations

import pytest
import torch

from empg_cli.learner.optim import learning_rate, make_optimizer
from empg_cli.model.policy import Policy
from tests.support.tiny import tiny_config

TRAINER = tiny_config().trainer


def test_two_steps_of_adamw_by_hand() -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    policy = Policy(network, tokenizer=None, device=torch.device("cpu"))
    torch.nn.init.constant_(network.weight, 2.0)
    optimizer = make_optimizer(policy, TRAINER.model_copy(update={"lr": 0.1, "weight_decay": 0.5}))
    # decay: 2 (1 - .1 .5) = 1.9; both moments, corrected, are those of the gradient: 1.9 - .1 sign(.5) = 1.8
    network.weight.grad = torch.tensor([[0.5]])
    optimizer.step()
    assert network.weight.item() == pytest.approx(1.8, abs=1e-6)
    # decay: 1.8 .95 = 1.71
    # m = .9 .05 + .1 (-.25) = .02, corrected .02 / (1 - .81) = .1052632
    # v = .999 .00025 + .001 .0625 = .00031225, corrected / (1 - .998001) = .1562031, root .3952254
    # 1.71 - .1 .1052632 / .3952254 = 1.6833663
    network.weight.grad = torch.tensor([[-0.25]])
    optimizer.step()
    assert network.weight.item() == pytest.approx(1.6833663, abs=2e-6)


@pytest.mark.parametrize(
    ("schedule", "warmup", "updates", "expected"),
    [
        ("constant", 0, 3, [1.0, 1.0, 1.0]),
        ("constant", 4, 7, [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0]),
        # after three updates of warm-up, from 1 to .1 in the four steps to the last update
        ("linear", 3, 8, [1 / 3, 2 / 3, 1.0, 1.0, 0.775, 0.55, 0.325, 0.1]),
        # .1 + .45 (1 + cos(0, 45, 90, 135, 180 degrees))
        ("cosine", 2, 7, [0.5, 1.0, 1.0, 0.868198, 0.55, 0.231802, 0.1]),
        ("linear", 0, 1, [1.0]),
    ],
)
def test_learning_rate_of_every_update(schedule: str, warmup: int, updates: int, expected: list[float]) -> None:
    trainer = TRAINER.model_copy(update={"lr": 1.0, "lr_schedule": schedule, "lr_warmup": warmup, "updates": updates})
    assert [learning_rate(trainer, update) for update in range(updates)] == pytest.approx(expected, abs=1e-6)
