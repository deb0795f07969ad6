"""Attention of single tokens, in runs of neighbouring slots.

A run reads every slot up to its longest episode, and starting another run costs a kernel call, so runs are cut where
the padding would cost more than the call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from empg_cli.model.attention import AttentionRule
from empg_cli.rollout.torch_engine.reading import Chunk, kernel


@dataclass(slots=True)
class Run:
    """Neighbouring slots that are read together; slots between `first` and `last` may be idle."""

    first: int
    last: int
    columns: int


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
