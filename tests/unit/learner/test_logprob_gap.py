"""How far the policy that sampled is from the one that learns, on numbers that are worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from empg_cli.learner.logprobs import logprob_gap
from empg_cli.model.batch import make_batch
from empg_cli.types import Batch, Step, Task, Trajectory


def batch_of(sampled: list[float], own: list[float]) -> Batch:
    """One step; a second one of a single token pads the first's row with what nobody must count."""
    steps = [Step([1], [2] * len(sampled), sampled, [0.0] * len(sampled)), Step([1], [2], [-1.0], [0.0])]
    batch = make_batch([Trajectory(Task("t", "t", "t"), 0, 0, steps)], append_only=True)
    batch.rollout_logprob_ST = batch.old_logprob_ST
    batch.old_logprob_ST = torch.full_like(batch.old_logprob_ST, 99.0)
    batch.old_logprob_ST[0, : len(own)] = torch.tensor(own)
    batch.old_logprob_ST[1, 0] = -1.0
    return batch


def test_ratios_of_two_a_half_and_one() -> None:
    """r = 2, 1/2, 1: |log r| = ln 2, ln 2, 0; r - 1 - log r = 1 - ln 2, ln 2 - 1/2, 0, which is 1/2 in sum;
    (sum r)^2 / (n sum r^2) = 3.5^2 / (3 * 5.25)."""
    ln2 = math.log(2)
    found = logprob_gap(batch_of([-2.0, -1.0], [-2.0 + ln2, -1.0 - ln2]))
    assert found["rollout/logprob_gap/max"] == pytest.approx(ln2, abs=1e-6)
    assert found["rollout/logprob_gap/mean"] == pytest.approx(2 * ln2 / 3, abs=1e-6)
    assert found["rollout/logprob_gap/kl"] == pytest.approx(0.5 / 3, abs=1e-6)
    assert found["rollout/logprob_gap/ess"] == pytest.approx(12.25 / 15.75, abs=1e-6)


def test_one_policy_has_no_gap() -> None:
    found = logprob_gap(batch_of([-2.0, -1.0], [-2.0, -1.0]))
    assert found == {
        "rollout/logprob_gap/max": 0.0,
        "rollout/logprob_gap/mean": 0.0,
        "rollout/logprob_gap/kl": 0.0,
        "rollout/logprob_gap/ess": 1.0,
    }
