"""Reading from the episode cache against softmax(q k / sqrt(d)) v written out row by row."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from empg_cli.model.attention import AttentionRule
from empg_cli.rollout.torch_engine import reading
from empg_cli.rollout.torch_engine.plans import SlotPlan
from empg_cli.rollout.torch_engine.prefix import PrefixReading, saved_columns
from empg_cli.rollout.torch_engine.reading import Chunk, ChunkReading
from empg_cli.rollout.torch_engine.runs import TokenReading

KEY_HEADS, GROUPS, HEAD_DIM, SLOTS, COLUMNS = 2, 3, 4, 7, 24
DTYPE, DEVICE = torch.float64, torch.device("cpu")


def slow_attention(
    chunks: list[Chunk], query: Tensor, keys: Tensor, values: Tensor, *, window: int = COLUMNS, cap: float | None = None
) -> Tensor:
    rows = []
    for token, (slot, column) in enumerate((c.slot, column) for c in chunks for column in range(c.start, c.stop)):
        heads = []
        for head in range(KEY_HEADS * GROUPS):
            seen = slice(max(0, column + 1 - window), column + 1)
            score_T = keys[slot, head // GROUPS, seen] @ query[0, head, token] / HEAD_DIM**0.5
            weight_T = (score_T if cap is None else cap * torch.tanh(score_T / cap)).softmax(0)
            heads.append(weight_T @ values[slot, head // GROUPS, seen])
        rows.append(torch.stack(heads))
    return torch.stack(rows)[None]


def cache(chunks: list[Chunk], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tokens = sum(chunk.stop - chunk.start for chunk in chunks)
    query = torch.randn(1, tokens, KEY_HEADS * GROUPS, HEAD_DIM, generator=generator, dtype=DTYPE).transpose(1, 2)
    keys, values = torch.randn(2, SLOTS, KEY_HEADS, COLUMNS, HEAD_DIM, generator=generator, dtype=DTYPE)
    for tensor in (keys, values):
        for slot in range(SLOTS):  # what no token may see; an idle slot is empty
            stop = max((chunk.stop for chunk in chunks if chunk.slot == slot), default=0)
            tensor[slot, :, stop:] = 1e6 if stop else 0.0
    return query, keys, values


slots = st.lists(st.integers(0, SLOTS - 1), min_size=1, unique=True).map(sorted)


@settings(deadline=None, max_examples=60)
@given(slots, st.data(), st.sampled_from([0, 3, 20, 10_000]))
def test_tokens_see_their_own_past_however_the_runs_are_cut(slots: list[int], data: st.DataObject, cut: int) -> None:
    lengths = data.draw(st.lists(st.integers(1, COLUMNS), min_size=len(slots), max_size=len(slots)))
    chunks = [Chunk(slot, length - 1, length) for slot, length in zip(slots, lengths, strict=True)]
    query, keys, values = cache(chunks, seed=cut)
    ours = TokenReading(chunks, cut, DTYPE, DEVICE).attend(query, keys, values, AttentionRule(None))
    torch.testing.assert_close(ours, slow_attention(chunks, query, keys, values))


@settings(deadline=None, max_examples=60)
@given(slots, st.data(), st.integers(1, COLUMNS), st.sampled_from([None, 0.5]), st.booleans())
def test_a_window_and_a_cap_hold_for_chunks_and_tokens(
    slots: list[int], data: st.DataObject, window: int, cap: float | None, decoding: bool
) -> None:
    stops = data.draw(st.lists(st.integers(1, COLUMNS), min_size=len(slots), max_size=len(slots)))
    starts = [stop - 1 if decoding else data.draw(st.integers(0, stop - 1)) for stop in stops]
    chunks = [Chunk(slot, start, stop) for slot, start, stop in zip(slots, starts, stops, strict=True)]
    query, keys, values = cache(chunks, seed=window)
    ours_of = (
        TokenReading(chunks, 3, DTYPE, DEVICE, window) if decoding else ChunkReading(chunks, DTYPE, DEVICE, window)
    )
    ours = ours_of.attend(query, keys, values, AttentionRule(None, window, cap))
    torch.testing.assert_close(ours, slow_attention(chunks, query, keys, values, window=window, cap=cap))


@settings(deadline=None, max_examples=60)
@given(st.integers(1, SLOTS), st.data(), st.sampled_from([None, 1, 5, COLUMNS]), st.sampled_from([None, 0.5]))
def test_slots_see_their_own_past_from_positions_on_the_device(
    count: int, data: st.DataObject, window: int | None, cap: float | None
) -> None:
    stops = data.draw(st.lists(st.integers(1, COLUMNS), min_size=count, max_size=count))
    chunks = [Chunk(slot, stop - 1, stop) for slot, stop in enumerate(stops)]
    query, keys, values = cache(chunks, seed=count)
    plan = SlotPlan(torch.tensor(stops) - 1, data.draw(st.integers(max(stops), COLUMNS)))
    rule = AttentionRule(None, window, cap)
    ours = plan.reading(keys, values, rule, ends_only=True).attend(query, keys, values, rule)
    torch.testing.assert_close(ours, slow_attention(chunks, query, keys, values, window=window or COLUMNS, cap=cap))
    # Key heads are the rows' second place: slot 1 of head 1 of a cache of 2 heads and 24 columns begins at row 72.
    places = plan.places(KEY_HEADS, COLUMNS, DEVICE).view(count, KEY_HEADS)
    for slot, stop in enumerate(stops):
        assert places[slot].tolist() == [(slot * KEY_HEADS + head) * COLUMNS + stop - 1 for head in range(KEY_HEADS)]


@settings(deadline=None, max_examples=60)
@given(slots, st.data(), st.sampled_from([0, 3, 20, 10_000]))
def test_a_shared_beginning_counts_for_every_member(slots: list[int], data: st.DataObject, cut: int) -> None:
    """Families of any size, their members anywhere, some with slots between them that idle."""
    families = data.draw(st.lists(st.integers(0, 2), min_size=len(slots), max_size=len(slots)))
    shared = data.draw(st.lists(st.integers(1, COLUMNS - 1), min_size=3, max_size=3))
    stops = [data.draw(st.integers(shared[family] + 1, COLUMNS)) for family in families]
    chunks = [
        Chunk(slot, stop - 1, stop, family, shared[family])
        for slot, family, stop in zip(slots, families, stops, strict=True)
    ]
    query, keys, values = cache(chunks, seed=cut)
    for slot, family in zip(slots, families, strict=True):
        first = slots[families.index(family)]
        for tensor in (keys, values):
            tensor[slot, :, : shared[family]] = tensor[first, :, : shared[family]]
    ours = PrefixReading(chunks, cut, DTYPE).attend(query, keys, values, AttentionRule(None))
    torch.testing.assert_close(ours, slow_attention(chunks, query, keys, values))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float32, 1e-6)])
def test_a_shared_beginning_in_the_models_own_precision(dtype: torch.dtype, tolerance: float) -> None:
    chunks = [Chunk(slot, stop - 1, stop, slot // 2, 8) for slot, stop in ((0, 9), (1, 12), (2, 20), (3, 17))]
    query, keys, values = (tensor.to(dtype) for tensor in cache(chunks, seed=0))
    for tensor in (keys, values):
        tensor[1, :, :8], tensor[3, :, :8] = tensor[0, :, :8], tensor[2, :, :8]
    ours = PrefixReading(chunks, 3, dtype).attend(query, keys, values, AttentionRule(None))
    assert ours.dtype == dtype
    exact = slow_attention(chunks, query.double(), keys.double(), values.double())
    torch.testing.assert_close(ours.double(), exact, atol=tolerance, rtol=0)


def test_sharing_is_charged_for_its_calls() -> None:
    def saved(families: list[int], shared: dict[int, int]) -> int:
        chunks = [Chunk(slot, 99, 100, family, shared[family]) for slot, family in enumerate(families)]
        return saved_columns(chunks, overhead=4)

    # Ten calls for the second part and one for each family, each as long as reading 4 columns.
    assert saved([0] * 8 + [1] * 8, {0: 50, 1: 40}) == 7 * 50 + 7 * 40 - 12 * 4
    assert saved([0, 0], {0: 50}) == 50 - 11 * 4
    assert saved([0, 0], {0: 40}) < 0
    assert saved([0] * 8 + [1], {0: 50, 1: 0}) == 0  # an episode with nothing to share


@settings(deadline=None, max_examples=60)
@given(slots, st.data(), st.integers(0, 6))
def test_chunks_are_causal_and_see_their_own_past(slots: list[int], data: st.DataObject, packed: int) -> None:
    """Those of at most `packed` tokens with their query heads as rows of a key head."""
    starts = data.draw(st.lists(st.integers(0, COLUMNS - 1), min_size=len(slots), max_size=len(slots)))
    stops = [data.draw(st.integers(start + 1, COLUMNS)) for start in starts]
    chunks = [Chunk(*bounds) for bounds in zip(slots, starts, stops, strict=True)]
    query, keys, values = cache(chunks, seed=len(slots))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "PACKED_TOKENS", packed)
        ours = ChunkReading(chunks, DTYPE, DEVICE).attend(query, keys, values, AttentionRule(None))
    torch.testing.assert_close(ours, slow_attention(chunks, query, keys, values))
