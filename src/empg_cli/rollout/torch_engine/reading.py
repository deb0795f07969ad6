"""Which cached columns a forward pass reads, and in which calls of the attention kernel.

No column is read that the model does not need, as far as that pays: chunks of a prompt are read episode by episode,
single tokens in runs of neighbouring slots. A run reads every slot up to its longest episode, and starting another run
costs a kernel call, so runs are cut where the padding would cost more than the call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from empg_cli.model.attention import AttentionRule, capped_attention


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens that one episode reads in a forward pass: they become the columns start..stop of its slot."""

    slot: int
    start: int
    stop: int
    family: int = -1
    """Episodes of one number, -1 for none, began with the same prompt (`rollout/torch_engine/prefix.py`)."""
    shared: int = 0
    """Columns that still hold the beginning of that prompt."""

    @property
    def is_token(self) -> bool:
        return self.stop - self.start == 1


def positions(chunks: Sequence[Chunk]) -> np.ndarray:
    """Position (= column) of every token of the chunks, one chunk after the other."""
    start_N: np.ndarray = np.array([chunk.start for chunk in chunks])
    stop_N: np.ndarray = np.array([chunk.stop for chunk in chunks])
    size_N = stop_N - start_N
    end_N = size_N.cumsum()
    if end_N[-1] == len(chunks):
        return start_N
    position_N: np.ndarray = np.arange(end_N[-1]) + np.repeat(stop_N - end_N, size_N)
    return position_N


@dataclass(slots=True)
class Run:
    """Neighbouring slots that are read together; slots between `first` and `last` may be idle."""

    first: int
    last: int
    columns: int


class Reading(Protocol):
    """The plan of one layer's attention in a forward pass."""

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, rule: AttentionRule) -> Tensor:
        """[1, N, heads, value_dim]; query [1, heads, N, head_dim], cache [slots, key heads, columns, head_dim]."""
        ...


class ChunkReading:
    """Attention of ragged chunks, each causal within itself and after all earlier columns of its slot, or as many of
    them as the window shows."""

    def __init__(
        self, chunks: Sequence[Chunk], dtype: torch.dtype, device: torch.device, window: int | None = None
    ) -> None:
        self._chunks = chunks
        # A chunk without a mask is plainly causal: nothing comes before it, and its window shows all of it.
        masked = [chunk.start > 0 or (window is not None and chunk.stop > window) for chunk in chunks]
        sizes = [chunk.stop - chunk.start for chunk, is_masked in zip(chunks, masked, strict=True) if is_masked]
        before = max((chunk.start for chunk in chunks), default=0)
        # Row t of `staircase` shows `before` columns and t + 1 more, or the last `window` of these; a chunk's mask is a
        # part of it.
        steps = torch.ones(max(sizes, default=0), before + max(sizes, default=0), dtype=torch.bool, device=device)
        steps = steps.tril_(before) if window is None else steps.tril_(before).triu_(before - window + 1)
        staircase = torch.zeros(steps.shape, dtype=dtype, device=device).masked_fill_(~steps, float("-inf"))
        self._begins = [0 if window is None else max(0, chunk.start - window + 1) for chunk in chunks]
        self._masks = [
            staircase[
                : chunk.stop - chunk.start, before - chunk.start + begin : before - chunk.start + chunk.stop
            ].contiguous()
            if is_masked
            else None
            for chunk, is_masked, begin in zip(chunks, masked, self._begins, strict=True)
        ]

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, rule: AttentionRule) -> Tensor:
        parts, begin = [], 0
        for chunk, mask, first in zip(self._chunks, self._masks, self._begins, strict=True):
            end = begin + chunk.stop - chunk.start
            part = kernel(
                query[:, :, begin:end],
                keys[chunk.slot : chunk.slot + 1, :, first : chunk.stop],
                values[chunk.slot : chunk.slot + 1, :, first : chunk.stop],
                mask,
                rule,
                is_causal=mask is None,
            )
            parts.append(part.transpose(1, 2))
            begin = end
        return torch.cat(parts, 1)


class TokenReading:
    """Attention of one token per episode; the chunks come in the order of their slots."""

    def __init__(
        self,
        chunks: Sequence[Chunk],
        overhead: int,
        dtype: torch.dtype,
        device: torch.device,
        window: int | None = None,
    ) -> None:
        self.runs = plan_runs(chunks, overhead)
        slot_N = np.array([chunk.slot for chunk in chunks])
        slot_P = np.concatenate([np.arange(run.first, run.last + 1) for run in self.runs])
        place_N = np.searchsorted(slot_P, slot_N)
        widest = max(run.columns for run in self.runs)
        # An idle slot between two others is read too, as if it were full: its result is dropped.
        length_P = np.full(len(slot_P), widest)
        length_P[place_N] = [chunk.stop for chunk in chunks]
        column_V = np.arange(widest)[None]
        is_hidden_PV = column_V >= length_P[:, None]
        if window is not None:
            is_hidden_PV |= column_V < length_P[:, None] - window
        hidden_PV = torch.from_numpy(is_hidden_PV).to(device)
        bias_PV = torch.zeros(hidden_PV.shape, dtype=dtype, device=device).masked_fill_(hidden_PV, float("-inf"))
        self._place_N = torch.from_numpy(place_N).to(device) if len(slot_P) > len(chunks) else None
        self._places = len(slot_P)
        self._parts: list[tuple[slice, slice, int, Tensor | None]] = []
        begin = 0
        for run in self.runs:
            end = begin + run.last - run.first + 1
            sees_all = end - begin == 1 and window is None
            bias = None if sees_all else bias_PV[begin:end, None, None, : run.columns]
            self._parts.append((slice(begin, end), slice(run.first, run.last + 1), run.columns, bias))
            begin = end

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, rule: AttentionRule) -> Tensor:
        _, heads, _, head_dim = query.shape
        key_heads, value_dim = values.shape[1], values.shape[3]
        query_NHD = query[0].transpose(0, 1)
        if self._place_N is not None:
            query_NHD = query.new_zeros(self._places, heads, head_dim).index_copy_(0, self._place_N, query_NHD)
        # The query heads of a key head stand as its rows: each key is read once.
        packed = query_NHD.reshape(-1, key_heads, heads // key_heads, head_dim)
        parts = [
            kernel(packed[places], keys[slots, :, :columns], values[slots, :, :columns], bias, rule)
            for places, slots, columns, bias in self._parts
        ]
        out_NHD = (torch.cat(parts) if len(parts) > 1 else parts[0]).reshape(-1, heads, value_dim)
        if self._place_N is not None:
            out_NHD = out_NHD.index_select(0, self._place_N)
        return out_NHD[None]


class MixedReading:
    """Single tokens of some episodes and chunks of others in one pass: each kind is read in its own way."""

    def __init__(
        self,
        chunks: Sequence[Chunk],
        of_tokens: Callable[[Sequence[Chunk]], Reading],
        of_chunks: Callable[[Sequence[Chunk]], Reading],
        device: torch.device,
    ) -> None:
        sizes = np.array([chunk.stop - chunk.start for chunk in chunks])
        is_single_N = np.repeat(sizes == 1, sizes)
        self._parts = tuple(
            (torch.from_numpy(np.flatnonzero(is_single_N == kind)).to(device), plan(part))
            for kind, plan, part in (
                (True, of_tokens, [chunk for chunk in chunks if chunk.is_token]),
                (False, of_chunks, [chunk for chunk in chunks if not chunk.is_token]),
            )
        )

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, rule: AttentionRule) -> Tensor:
        out = query.new_empty(1, query.shape[2], query.shape[1], values.shape[3])
        for places, reading in self._parts:
            out.index_copy_(1, places, reading.attend(query[:, :, places], keys, values, rule))
        return out


def kernel(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, rule: AttentionRule, *, is_causal: bool = False
) -> Tensor:
    """One call of the attention kernel that knows the rule; the window is in the mask."""
    if rule.softcap is not None:
        return capped_attention(query, keys, values, mask, rule.scale, rule.softcap, is_causal)
    return scaled_dot_product_attention(
        query,
        keys,
        values,
        attn_mask=mask,
        is_causal=is_causal,
        scale=rule.scale,
        enable_gqa=query.shape[1] != keys.shape[1],
    )


def plan_runs(chunks: Sequence[Chunk], overhead: int) -> list[Run]:
    """Cut slots in ascending order into runs: a slot joins the run before it if the columns that are then read in vain
    are fewer than `overhead`."""
    stops = [chunk.stop for chunk in chunks]
    first, last, longest = chunks[0].slot, chunks[-1].slot, max(stops)
    if (last - first + 1) * longest <= sum(stops) + overhead:
        return [Run(first, last, longest)]
    runs: list[Run] = []
    for chunk in chunks:
        if runs:
            run = runs[-1]
            columns = max(run.columns, chunk.stop)
            joined = (chunk.slot - run.first + 1) * columns
            if joined <= (run.last - run.first + 1) * run.columns + chunk.stop + overhead:
                run.last, run.columns = chunk.slot, columns
                continue
        runs.append(Run(chunk.slot, chunk.slot, chunk.stop))
    return runs


def read_overhead(device: torch.device, *, bytes_per_column: int) -> int:
    """Columns of one slot that can be read in the time a further call of the attention kernel takes.

    About 15 microseconds at 12 GB/s on a CPU core (measured), 20 microseconds at 2 TB/s on a GPU (data sheet).
    """
    return (40_000_000 if device.type == "cuda" else 180_000) // bytes_per_column
