"""Memory that runs out: recognised, said with the settings that help, and survived with smaller passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from empg_cli.learner.budget import TokenBudget
from empg_cli.learner.logprobs import score_batch
from empg_cli.learner.update import update_policy
from empg_cli.model.batch import make_batch
from empg_cli.model.memory import is_out_of_memory, out_of_memory
from empg_cli.model.policy import Policy
from empg_cli.model.precision import MasterWeights
from empg_cli.runs.identity import may_change
from empg_cli.types import Batch
from tests.support.made import made_trajectories
from tests.support.tiny import tiny_config, tiny_policy

CFG = tiny_config("algo=dapo", "trainer.minibatches=1", "trainer.max_grad_norm=1000000.0")
FULL: list[Callable[[], BaseException]] = [
    MemoryError,
    lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    lambda: RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried"),
]


class Gradients(torch.optim.SGD):
    """Notes the gradients that a step gets, and changes nothing."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy.parameters(), lr=0.0)
        self.seen: list[Tensor] = []

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.seen.append(torch.cat([p.grad.flatten() for g in self.param_groups for p in g["params"]]))


@pytest.fixture(scope="module")
def policy() -> Policy:
    return tiny_policy(CFG)


@pytest.fixture
def batch() -> Batch:
    batch = make_batch(made_trajectories([3, 1, 2, 4]), append_only=True)
    batch.credit_S = torch.tensor([1.5, -0.5, 0.25, -1.25])[batch.trajectory_S]
    return batch


@pytest.fixture
def fails_backward(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, BaseException], None]]:
    """Let a backward pass fail when it has given a part of its gradients."""

    def plant(number: int, error: BaseException) -> None:
        original, calls = Tensor.backward, 0

        def backward(self: Tensor, *arguments: Any, **options: Any) -> None:
            nonlocal calls
            calls += 1
            original(self, *arguments, **options)
            if calls == number:
                raise error

        monkeypatch.setattr(Tensor, "backward", backward)

    return plant


@pytest.mark.parametrize("error", FULL)
def test_it_is_recognised(error: Callable[[], BaseException]) -> None:
    assert is_out_of_memory(error())


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("out of memory"), OSError(28, "no space")])
def test_other_errors_are_not_taken_for_it(error: Exception) -> None:
    assert not is_out_of_memory(error)


def test_a_real_allocation_that_no_machine_has_is_recognised() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**55)
    assert is_out_of_memory(raised.value)


def gradient(policy: Policy, batch: Batch, budget: TokenBudget) -> tuple[Tensor, dict[str, float]]:
    optimizer = Gradients(policy)
    metrics = update_policy(policy, optimizer, batch, CFG, lr=0.0, update=0, budget=budget)
    (seen,) = optimizer.seen
    return seen, metrics


@pytest.mark.parametrize("error", FULL)
@pytest.mark.parametrize("fails_at", [1, 2])
def test_halved_passes_give_the_same_gradient_once(
    error: Callable[[], BaseException], fails_at: int, policy: Policy, batch: Batch, fails_backward: Any
) -> None:
    tokens = 2 * max(len(row) for row in batch.row_ids)
    whole, plain = gradient(policy, batch, TokenBudget(tokens))
    fails_backward(fails_at, error())
    budget = TokenBudget(tokens, halves=True)
    halved, metrics = gradient(policy, batch, budget)
    torch.testing.assert_close(halved, whole, atol=1e-6, rtol=1e-5)
    assert budget.tokens == tokens // 2
    assert metrics["perf/tokens_per_microbatch"] == tokens // 2
    assert "perf/tokens_per_microbatch" not in plain
    assert metrics["actor/pg_loss"] == pytest.approx(plain["actor/pg_loss"], abs=1e-6)


def test_a_gradient_half_way_to_the_parameters_is_dropped(batch: Batch, fails_backward: Any) -> None:
    plain = tiny_policy(CFG)
    masters = MasterWeights(plain.model, torch.bfloat16)
    mixed = Policy(masters.computing, plain.tokenizer, plain.device, masters)
    tokens = 2 * max(len(row) for row in batch.row_ids)
    expected, _ = gradient(mixed, batch, TokenBudget(tokens // 2))
    fails_backward(2, MemoryError())
    left = next(iter(mixed.model.parameters()))
    left.grad = torch.ones_like(left)
    halved, _ = gradient(mixed, batch, TokenBudget(tokens, halves=True))
    torch.testing.assert_close(halved, expected, atol=0, rtol=0)


def test_what_was_halved_stays_so_in_scoring_too(policy: Policy, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls = Policy.score, []

    def score(self: Policy, batch: Batch, rows: list[int], *arguments: Any, **options: Any) -> Any:
        calls.append(len(rows))
        if len(rows) > 2:
            raise MemoryError
        return original(self, batch, rows, *arguments, **options)

    expected = score_batch(policy, batch, CFG)
    monkeypatch.setattr(Policy, "score", score)
    budget = TokenBudget(4096, halves=True)
    for given, wanted in zip(score_batch(policy, batch, CFG, budget), expected, strict=True):
        torch.testing.assert_close(given, wanted, atol=1e-5, rtol=0)
    failed = len(calls)
    score_batch(policy, batch, CFG, budget)
    assert max(calls[failed:]) <= 2


@pytest.mark.parametrize("halves", [False, True])
def test_where_smaller_passes_cannot_help_it_is_raised(halves: bool, policy: Policy, batch: Batch,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    tried = []

    def fails(*_: Any, **options: Any) -> None:
        tried.append(options)
        raise MemoryError

    monkeypatch.setattr(Policy, "score", fails)
    with pytest.raises(MemoryError):
        gradient(policy, batch, TokenBudget(4096, halves=halves))
    assert len(tried) <= 4 if halves else len(tried) == 1


def test_the_message_says_what_helps_with_the_values_now() -> None:
    said = str(out_of_memory(MemoryError("x\ny"), "update", CFG, "empg train --resume run", may_change=may_change))
    assert said.splitlines() == [
        "out of memory in phase update: x",
        "What helps, with the values now:",
        "  trainer.tokens_per_microbatch=4096  (fewer: smaller passes, the same gradient (or trainer.oom=halve))",
        "  model.gradient_checkpointing=false  (true: layers are computed twice and kept once)",
        "  model.dtype=float32  (bfloat16: half of every pass; for a new run)",
        "To go on with another value:  empg train --resume run KEY=VALUE",
    ]


def test_nothing_is_advised_that_several_ranks_cannot_have() -> None:
    several = tiny_config("dist=node", "dist.processes=2", "trainer.minibatches=1")
    for phase in ("update", "logprob", "loading"):
        said = str(out_of_memory(MemoryError(), phase, several, "again", may_change=may_change, who="rank 1 (one)"))
        assert said.startswith(f"out of memory on rank 1 (one) in phase {phase}: ")
        assert "oom=halve" not in said and "lora" not in said and "model.dtype=float32" in said


@pytest.mark.parametrize("phase", ["loading", "warm start", "rollout", "eval", "logprob", "update"])
def test_every_phase_has_three_settings_that_exist(phase: str) -> None:
    said = str(out_of_memory(MemoryError(), phase, CFG, "again", may_change=may_change))
    assert len([line for line in said.splitlines() if line.startswith("  ")]) == 3
