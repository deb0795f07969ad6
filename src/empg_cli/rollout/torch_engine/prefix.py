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
from empg_cli.rollout.torch_engine.reading import Chunk, Run, plan_runs

EXTRA_CALLS = 10
"""What the second part and the mixing cost, in calls of the attention kernel."""
LEADER_READS = 3
"""A family's beginning is read from its leader's slot, written beside those of the other families, and read again."""


class PrefixReading:
    """Attention of one token per episode; the chunks come in the order of their slots, each with a shared beginning."""

    def __init__(self, chunks: Sequence[Chunk], overhead: int, dtype: torch.dtype) -> None:
        members: dict[int, list[int]] = defaultdict(list)
        for number, chunk in enumerate(chunks):
            members[chunk.family].append(number)
        shared_F = np.array([min(chunks[number].shared for number in numbers) for numbers in members.values()])
        self._families, self._width = len(members), max(map(len, members.values()))
        # Chunk n stands at place_N[n] of a [families, width] table; chunk_at names the chunk of a place.
        chunk_at = np.zeros((self._families, self._width), dtype=np.int64)
        place_N, shared_N = np.empty(len(chunks), dtype=np.int64), np.empty(len(chunks), dtype=np.int64)
        for family, numbers in enumerate(members.values()):
            chunk_at[family, : len(numbers)] = numbers
            place_N[numbers] = family * self._width + np.arange(len(numbers))
            shared_N[numbers] = shared_F[family]
        identity = np.arange(len(chunks))
        self._is_table = len(chunks) == chunk_at.size and bool((place_N == identity).all())
        self._chunk_at, self._place_N = torch.from_numpy(chunk_at.ravel()), torch.from_numpy(place_N)
        self._leaders = torch.tensor([chunks[numbers[0]].slot for numbers in members.values()])
        self._columns = int(shared_F.max())
        self._bias = _bias(np.zeros_like(shared_F), shared_F, 0, self._columns, dtype)
        self._own = [_OwnRun(run, chunks, shared_N, dtype) for run in plan_runs(chunks, overhead)]

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, rule: AttentionRule) -> Tensor:
        """[1, N, heads, head_dim]; query [1, heads, N, head_dim], cache [slots, key heads, columns, head_dim]."""
        _, heads, _, head_dim = query.shape
        key_heads = keys.shape[1]
        packed_NKGD = query[0].transpose(0, 1).reshape(-1, key_heads, heads // key_heads, head_dim)
        table = packed_NKGD if self._is_table else packed_NKGD[self._chunk_at]
        table = table.unflatten(0, (self._families, self._width)).transpose(1, 2).flatten(2, 3)
        shared, shared_lse = _attention(
            table,
            keys[:, :, : self._columns][self._leaders],
            values[:, :, : self._columns][self._leaders],
            self._bias,
            rule.scale,
        )

        def rows(part: Tensor) -> Tensor:
            """[families, key heads, width * group, x] -> [N, key heads, group, x]"""
            of_families = part.reshape(self._families, key_heads, self._width, -1, part.shape[-1]).transpose(1, 2)
            of_places = of_families.reshape(-1, *of_families.shape[2:])
            return of_places if self._is_table else of_places[self._place_N]

        own = [run.attend(packed_NKGD, keys, values, rule.scale) for run in self._own]
        out = own[0][0] if len(own) == 1 else torch.cat([part for part, _ in own])
        lse = own[0][1] if len(own) == 1 else torch.cat([part for _, part in own])
        weight = torch.sigmoid(rows(shared_lse[..., None]) - lse[..., None])
        # Half precision has its log-sum-exp in float32, so the mixture is made there.
        mixed: Tensor = torch.lerp(out.to(weight.dtype), rows(shared).to(weight.dtype), weight)
        return mixed.to(query.dtype).reshape(1, -1, heads, head_dim)


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


def _attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scale: float | None) -> tuple[Tensor, Tensor]:
    """Result [B, heads, rows, head_dim] and log-sum-exp of the scores [B, heads, rows].

    This is the kernel behind torch's scaled_dot_product_attention on a CPU, which keeps the log-sum-exp to itself.
    """
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    out, lse = kernel(query, key, value, attn_mask=bias, scale=scale)
    return out, lse


def saved_columns(chunks: Sequence[Chunk]) -> int:
    """Columns that are spared if the beginnings are read for whole families; 0 or less where that does not pay, and 0
    if any episode has no beginning of a family."""
    if min(chunk.shared for chunk in chunks) < 1:
        return 0
    shared: dict[int, int] = {}
    for chunk in chunks:
        shared[chunk.family] = min(chunk.shared, shared.get(chunk.family, chunk.shared))
    # The leaders' beginnings are padded to the longest.
    return sum(shared[chunk.family] for chunk in chunks) - LEADER_READS * len(shared) * max(shared.values())
