"""Passes over packed rows against transformers' own forward pass over one row at a time."""

from __future__ import annotations

import importlib.machinery
import sys
import types
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from empg_cli.model import packed_attention, packing
from empg_cli.model.attention import use_policy_attention
from empg_cli.model.packed_attention import PackedAttention, has_packed_attention
from empg_cli.model.packing import PackedRows, pack
from empg_cli.model.policy import Policy
from tests.parity.test_decoder import network_of

Rows = list[list[int]]
TREE = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=6)
GROUPS = [[[7] * 9 + [number, 3, number, 4] for number in range(3)], [[8] * 11 + [4], [8] * 11 + [4, 2, 2]]]
NETWORKS = {kind: network_of(kind) for kind in ("llama", "qwen2", "qwen3")}


@pytest.fixture(autouse=True, scope="module")
def every_beginning_is_shared() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "SHARED_LEAST", 1)
        yield


def policy_of(kind: str) -> Policy:
    return Policy(NETWORKS[kind], None, torch.device("cpu"))


def asked(rows: Rows, every: int) -> tuple[np.ndarray, np.ndarray]:
    """Every so many tokens are asked for, from the last rows to the first."""
    pairs = [(row, column) for row, ids in enumerate(rows) for column in range(len(ids))][::-1][::every]
    row_W, column_W = np.array(pairs).T
    return row_W, column_W


def targets(count: int) -> Tensor:
    return torch.arange(count) % 50


def ours(policy: Policy, rows: Rows, every: int) -> tuple[Tensor, Tensor]:
    row_W, column_W = asked(rows, every)
    reading = policy.reading([np.array(row) for row in rows], row_W, column_W)
    logprob_W, entropy_W = policy.lm(
        reading.ids_BT,
        reading.wanted,
        targets(len(row_W)),
        position_ids=reading.position_ids,
        episodes=reading.attention,
    )
    return logprob_W, entropy_W


def theirs(policy: Policy, rows: Rows, every: int) -> tuple[Tensor, Tensor]:
    """Each row alone, with attention as transformers spells it out."""
    policy.model.set_attn_implementation("eager")
    logits = [policy.model(input_ids=torch.tensor([row]), use_cache=False).logits[0] for row in rows]
    use_policy_attention(policy.model)
    row_W, column_W = asked(rows, every)
    logp_WV = torch.stack([logits[row][column] for row, column in zip(row_W, column_W, strict=True)]).log_softmax(-1)
    return logp_WV.gather(1, targets(len(row_W))[:, None])[:, 0], -(logp_WV.exp() * logp_WV).sum(-1)


def gradients(policy: Policy, values: tuple[Tensor, Tensor]) -> Tensor:
    logprob_W, entropy_W = values
    weight_W = torch.linspace(-1, 2, len(logprob_W), dtype=logprob_W.dtype)
    loss = (weight_W * logprob_W).sum() + 0.3 * (weight_W.square() * entropy_W).sum()
    parts = torch.autograd.grad(loss, policy.parameters(), allow_unused=True)
    return torch.cat([part.flatten() for part in parts if part is not None])


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("kind", NETWORKS)
def test_groups_equal_rows_of_their_own(kind: str, every: int) -> None:
    policy, rows = policy_of(kind), [row for group in GROUPS for row in group]
    assert policy.packs_rows
    actual, expected = ours(policy, rows, every), theirs(policy, rows, every)
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other.to(one.dtype), atol=1e-6, rtol=1e-6)
    difference = gradients(policy, actual) - gradients(policy, expected)
    assert difference.norm() <= 1e-6 * gradients(policy, theirs(policy, rows, every)).norm()


@pytest.mark.parametrize("elements", [0, 10**6])
def test_spans_and_masks_of_the_last_layer_are_the_same(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows in which every third token is asked for; without masks, span by span."""
    monkeypatch.setattr(packed_attention, "MASK_ELEMENTS", elements)
    policy, rows = policy_of("qwen2"), [row for group in GROUPS for row in group]
    plan = PackedAttention(pack([np.array(row) for row in rows]), np.arange(0, 35, 3), torch.device("cpu"))
    calls = [*plan._chosen.first, *plan._chosen.further]
    assert any(call.column_Q is not None for call in calls) is (elements > 0)
    actual, expected = (gradients(policy, values(policy, rows, 3)) for values in (ours, theirs))
    assert (actual - expected).norm() <= 1e-6 * expected.norm()


def test_key_heads_may_be_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """What older versions of torch need."""
    policy, rows = policy_of("qwen2"), [row for group in GROUPS for row in group]
    plain = gradients(policy, ours(policy, rows, 2))
    monkeypatch.setattr(packed_attention, "KERNEL_GROUPS_HEADS", False)
    torch.testing.assert_close(gradients(policy, ours(policy, rows, 2)), plain)


@settings(deadline=None, max_examples=25)
@given(rows=TREE, every=st.integers(1, 4), kind=st.sampled_from(["llama", "qwen3"]))
def test_any_tree_of_rows_gives_the_gradient_of_single_rows(rows: Rows, every: int, kind: str) -> None:
    policy = policy_of(kind)
    actual, expected = (gradients(policy, values(policy, rows, every)) for values in (ours, theirs))
    assert (actual - expected).norm() <= 1e-6 * expected.norm()


def test_a_shared_beginning_is_computed_once_forward_and_backward() -> None:
    """Two groups: 9 shared tokens and 3 x 4 new ones, 12 shared and 2 more: 35 of the 78 that the rows have."""
    policy, rows = policy_of("qwen2"), [row for group in GROUPS for row in group]
    sizes: list[tuple[str, int]] = []
    mlp = policy.model.model.layers[0].mlp
    hooks = [
        mlp.register_forward_hook(lambda _, given, out: sizes.append(("forward", given[0].shape[:-1].numel()))),
        mlp.register_full_backward_hook(lambda _, grad, out: sizes.append(("backward", out[0].shape[:-1].numel()))),
    ]
    gradients(policy, ours(policy, rows, 1))
    for hook in hooks:
        hook.remove()
    assert sizes == [("forward", 35), ("backward", 35)]


def test_checkpointed_layers_give_the_same_gradient() -> None:
    network, rows = network_of("qwen2"), [row for group in GROUPS for row in group]
    policy = Policy(network, None, torch.device("cpu"))
    plain = gradients(policy, ours(policy, rows, 2))
    network.gradient_checkpointing_enable()
    torch.testing.assert_close(gradients(policy, ours(policy, rows, 2)), plain)


def one_row_at_a_time(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    ends_q: Tensor,
    ends_k: Tensor,
    longest_q: int,
    longest_k: int,
    **how: Any,
) -> Tensor:
    """What `torch.nn.attention.varlen.varlen_attn` computes on CUDA, by its documentation."""
    assert how["window_size"] == (-1, 0)
    groups = query.shape[1] // key.shape[1]
    assert how["enable_gqa"] == (groups > 1)
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    parts = []
    for row in range(len(ends_q) - 1):
        q = query[ends_q[row] : ends_q[row + 1]].transpose(0, 1)
        k, v = (part[ends_k[row] : ends_k[row + 1]].transpose(0, 1) for part in (key, value))
        assert q.shape[1] <= longest_q and k.shape[1] <= longest_k
        sees = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool).tril(k.shape[1] - q.shape[1])
        score = (q @ k.transpose(1, 2) * how["scale"]).masked_fill(~sees, float("-inf"))
        parts.append((score.softmax(-1) @ v).transpose(0, 1))
    return torch.cat(parts)


@pytest.mark.parametrize("every", [1, 3])
def test_the_plan_for_cuda_sees_the_same(every: int, monkeypatch: pytest.MonkeyPatch) -> None:
    varlen = pytest.importorskip("torch.nn.attention.varlen")
    policy, rows = policy_of("qwen2"), [row for group in GROUPS for row in group]
    expected = gradients(policy, ours(policy, rows, every))
    monkeypatch.setattr(packed_attention, "_KernelCalls", packed_attention._VariableLengths)
    monkeypatch.setattr(varlen, "varlen_attn", one_row_at_a_time)
    torch.testing.assert_close(gradients(policy, ours(policy, rows, every)), expected)


def attended_in_both(packed: PackedRows) -> tuple[torch.Tensor, torch.Tensor]:
    """What attention gives for random bfloat16 numbers, computed in that type and in float32: float [1, N, 4, 8]."""
    generator = torch.Generator().manual_seed(0)
    plan = PackedAttention(packed, np.arange(3), torch.device("cpu"))
    query, key, value = (
        torch.randn(1, heads, len(packed.ids_N), 8, generator=generator).bfloat16() for heads in (4, 2, 2)
    )
    rule = packed_attention.AttentionRule(None)
    half = plan.attend(0, query, key, value, rule).float()
    exact = plan.attend(0, query.float(), key.float(), value.float(), rule)
    return half, exact


def test_half_precision_mixes_in_float32() -> None:
    """400 shared tokens: one rounding of bfloat16 (2^-8 of the value), not one for each part."""
    rows = [np.array([1] * 400 + [number] * 8) for number in range(2, 5)]
    packed = pack(rows)
    half, exact = attended_in_both(packed)
    assert (half - exact).abs().max() < 0.02
    assert (half - exact).abs().mean() < 2**-9 * exact.abs().mean() * 2


def test_half_precision_rounds_a_mixture_of_many_parts_once() -> None:
    """Each row goes on where the one before it ends, so the last one mixes 33 parts. Rounded once, the mean error is
    about a quarter of 2^-8 (uniform within half a unit, values anywhere in their binade), and the inputs of the two
    are the same; rounded after each part it was twice that."""
    rows = [np.arange(1, 9 + 8 * number) for number in range(33)]
    packed = pack(rows)
    assert max(len(read.keys) for read in packed.reads) > 20
    half, exact = attended_in_both(packed)
    last = packed.places[-1][-8:]
    error = (half - exact)[0, last].abs().mean() / exact[0, last].abs().mean()
    assert error < 2.5e-3


@pytest.mark.parametrize(
    ("kind", "dtype", "capability", "is_packed"),
    [
        ("cpu", torch.float32, None, True),
        ("cpu", torch.bfloat16, None, True),
        ("cuda", torch.float32, (9, 0), False),
        ("cuda", torch.bfloat16, (9, 0), True),
        ("cuda", torch.float16, (7, 5), False),
        ("mps", torch.bfloat16, None, False),
    ],
)
def test_where_rows_are_packed(
    kind: str, dtype: torch.dtype, capability: Any, is_packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch.nn.attention.varlen")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert has_packed_attention(torch.device(kind), dtype) is is_packed


@pytest.mark.parametrize("kind", ["gemma2", "sliding qwen2", "dropout"])
def test_models_that_the_plan_cannot_serve_are_padded(kind: str) -> None:
    network = network_of("qwen2" if kind == "dropout" else kind)
    if kind == "dropout":
        network.config.attention_dropout = 0.1
    policy = Policy(network, None, torch.device("cpu"))
    assert not policy.packs_rows
    assert policy.reading([np.array([1, 2, 3]), np.array([1])], np.array([0]), np.array([2])).ids_BT.shape == (2, 3)


@pytest.mark.parametrize(
    ("parameters", "has_it"),
    [
        ("query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False, return_aux=None", False),
        (
            "query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux=None, scale=None, window_size=(-1, -1)",
            False,
        ),
        ("query, key, value, cu_q, cu_k, max_q, max_k, *, scale=None, window_size=(-1, -1), enable_gqa=False", True),
    ],
)
def test_a_kernel_that_does_not_take_what_we_ask_for_is_none(
    parameters: str, has_it: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signatures of torch 2.10, 2.11 and 2.12: rows are then read padded."""
    scope: dict[str, Any] = {}
    exec(f"def varlen_attn({parameters}): ...", scope)
    module = types.ModuleType("torch.nn.attention.varlen")
    module.varlen_attn = scope["varlen_attn"]  # type: ignore[attr-defined]
    module.__spec__ = importlib.machinery.ModuleSpec(module.__name__, None)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert packed_attention._has_kernel() is has_it
    monkeypatch.setattr(packed_attention, "find_spec", lambda name: None)
    assert not packed_attention._has_kernel()
