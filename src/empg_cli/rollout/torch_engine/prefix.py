"""Decoding of episodes that share their beginning, on a CPU: the beginning's columns are read once for all of them.

A decoding step waits for keys and values to come from memory. The episodes of a group have the same opening prompt, so
its columns are read from one member's slot for the queries of all, and what follows them slot by slot. The kernel gives
the log-sum-exp of each part's scores, which weighs the two results: their mixture is the softmax over all columns.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from empg_cli.model.attention import AttentionRule
from empg_cli.rollout.torch_engine.reading import Chunk
from empg_cli.rollout.torch_engine.runs import Run, plan_runs

EXTRA_CALLS = 10
"""What the second part and the mixing cost, in calls of the attention kernel, beside one for each family."""


class PrefixReading:
    """Attention of one token per episode; the chunks come in the order of their slots, each with a shared beginning."""

    def __init__(self, chunks: Sequence[Chunk], overhead: int, dtype: torch.dtype) -> None:
        members = _members(chunks)
        shared_N = np.empty(len(chunks), dtype=np.int64)
        self._families: list[tuple[slice, slice, int]] = []
        begin = 0
        for numbers in members:
            shared = min(chunks[number].shared for number in numbers)
            shared_N[numbers] = shared
            leader = chunks[numbers[0]].slot
            self._families.append((slice(begin, begin + len(numbers)), slice(leader, leader + 1), shared))
            begin += len(numbers)
        order_N = np.concatenate(members)
        is_ordered = bool((order_N == np.arange(len(chunks))).all())
        self._order_N = None if is_ordered else torch.from_numpy(order_N)
        self._place_N = None if is_ordered else torch.from_numpy(np.argsort(order_N))
        self._own = [_OwnRun(run, chunks, shared_N, dtype) for run in plan_runs(chunks, overhead)]

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, rule: AttentionRule) -> Tensor:
        """[1, N, heads, head_dim]; query [1, heads, N, head_dim], cache [slots, key heads, columns, head_dim]."""
        _, heads, _, head_dim = query.shape
        key_heads = keys.shape[1]
        packed_NKGD = query[0].transpose(0, 1).reshape(-1, key_heads, heads // key_heads, head_dim)
        shared, shared_lse = self._of_families(packed_NKGD, keys, values, rule.scale)
        own = [run.attend(packed_NKGD, keys, values, rule.scale) for run in self._own]
        out = own[0][0] if len(own) == 1 else torch.cat([part for part, _ in own])
        lse = own[0][1] if len(own) == 1 else torch.cat([part for _, part in own])
        weight = torch.sigmoid(shared_lse - lse)[..., None]
        # Half precision has its log-sum-exp in float32, so the mixture is made there.
        mixed: Tensor = torch.lerp(out.to(weight.dtype), shared.to(weight.dtype), weight)
        return mixed.to(query.dtype).reshape(1, -1, heads, head_dim)

    def _of_families(
        self, packed_NKGD: Tensor, keys: Tensor, values: Tensor, scale: float | None
    ) -> tuple[Tensor, Tensor]:
        """What each chunk takes from its family's beginning, and the log-sum-exp [N, key heads, group]."""
        ordered = packed_NKGD if self._order_N is None else packed_NKGD[self._order_N]
        outs, lses = [], []
        for part, leader, shared in self._families:
            query = (
                ordered[part].transpose(0, 1).flatten(1, 2)[None]
            )  # the members' queries stand as rows of a key head
            out, lse = _attention(query, keys[leader, :, :shared], values[leader, :, :shared], None, scale)
            outs.append(out[0].unflatten(1, (-1, ordered.shape[2])).transpose(0, 1))
            lses.append(lse[0].unflatten(1, (-1, ordered.shape[2])).transpose(0, 1))
        out, lse = torch.cat(outs), torch.cat(lses)
        return (out, lse) if self._place_N is None else (out[self._place_N], lse[self._place_N])


class _OwnRun:
    """What neighbouring slots hold after the beginnings of their families."""

    def __init__(self, run: Run, chunks: Sequence[Chunk], shared_N: np.ndarray, dtype: torch.dtype) -> None:
        numbers = [number for number, chunk in enumerate(chunks) if run.first <= chunk.slot <= run.last]
        self._chunks = slice(numbers[0], numbers[-1] + 1)
        self._slots = slice(run.first, run.last + 1)
        start = int(shared_N[numbers].min())
        self._columns = slice(start, run.columns)
        places = np.array([chunks[number].slot - run.first for number in numbers])
        # An idle slot between two others is read too, as if it were full: its result is dropped.
        begin_P, end_P = np.full(run.last - run.first + 1, start), np.full(run.last - run.first + 1, run.columns)
        begin_P[places], end_P[places] = shared_N[numbers], [chunks[number].stop for number in numbers]
        self._bias = _bias(begin_P, end_P, start, run.columns, dtype)
        self._place_N = torch.from_numpy(places) if len(places) < len(begin_P) else None

    def attend(self, packed_NKGD: Tensor, keys: Tensor, values: Tensor, scale: float | None) -> tuple[Tensor, Tensor]:
        """Result [n, key heads, group, head_dim] of the run's n chunks, and log-sum-exp [n, key heads, group]."""
        query = packed_NKGD[self._chunks]
        if self._place_N is not None:
            query = query.new_zeros(len(self._bias), *query.shape[1:]).index_copy_(0, self._place_N, query)
        columns = keys[self._slots, :, self._columns], values[self._slots, :, self._columns]
        out, lse = _attention(query, *columns, self._bias, scale)
        return (out, lse) if self._place_N is None else (out[self._place_N], lse[self._place_N])


def _bias(begin_P: np.ndarray, end_P: np.ndarray, start: int, stop: int, dtype: torch.dtype) -> Tensor:
    """[P, 1, 1, stop - start]: 0 where the column is one of the row's begin .. end, else minus infinity."""
    column_C = np.arange(start, stop)[None]
    hidden_PC = torch.from_numpy((column_C < begin_P[:, None]) | (column_C >= end_P[:, None]))
    return torch.zeros(hidden_PC.shape, dtype=dtype).masked_fill_(hidden_PC, float("-inf"))[:, None, None]


def _attention(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float | None
) -> tuple[Tensor, Tensor]:
    """Result [B, heads, rows, head_dim] and log-sum-exp of the scores [B, heads, rows].

    This is the kernel behind torch's scaled_dot_product_attention on a CPU, which keeps the log-sum-exp to itself.
    """
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    out, lse = kernel(query, key, value, attn_mask=bias, scale=scale)
    return out, lse


def saved_columns(chunks: Sequence[Chunk], overhead: int) -> int:
    """Columns that are spared if the beginnings are read for whole families, less what that costs; 0 or less where it
    does not pay, or if any episode has no beginning of a family.

    overhead: columns that are read in the time of a call of the kernel.
    """
    shared = [chunk.shared for chunk in chunks]
    if min(shared) < 1 or sum(shared) <= EXTRA_CALLS * overhead:  # without looking at the families
        return 0
    beginnings = [(len(numbers) - 1) * min(chunks[number].shared for number in numbers) for numbers in _members(chunks)]
    return sum(beginnings) - (EXTRA_CALLS + len(beginnings)) * overhead


def _members(chunks: Sequence[Chunk]) -> list[list[int]]:
    """The numbers of each family's chunks."""
    members: dict[int, list[int]] = defaultdict(list)
    for number, chunk in enumerate(chunks):
        members[chunk.family].append(number)
    return list(members.values())
