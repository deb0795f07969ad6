"""Which cached columns a forward pass reads, and in which calls of the attention kernel.

No column is read that the model does not need, as far as that pays: chunks of a prompt are read episode by episode,
single tokens in runs of neighbouring slots. A run reads every slot up to its longest episode, and starting another run
costs a kernel call, so runs are cut where the padding would cost more than the call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens that one episode reads in a forward pass: they become the columns start..stop of its slot."""

    slot: int
    start: int
    stop: int
    family: int = -1
    """Episodes of one number, -1 for none, began with the same prompt (`rollout/prefix.py`)."""
    shared: int = 0
    """Columns that still hold the beginning of that prompt."""


def positions(chunks: Sequence[Chunk]) -> np.ndarray:
    """Position (= column) of every token of the chunks, one chunk after the other."""
    return np.concatenate([np.arange(chunk.start, chunk.stop) for chunk in chunks])


@dataclass(slots=True)
class Run:
    """Neighbouring slots that are read together; slots between `first` and `last` may be idle."""

    first: int
    last: int
    columns: int


class ChunkReading:
    """Attention of ragged chunks, each causal within itself and after all earlier columns of its slot."""

    def __init__(self, chunks: Sequence[Chunk], dtype: torch.dtype, device: torch.device) -> None:
        self._chunks = chunks
        sizes = [chunk.stop - chunk.start for chunk in chunks if chunk.start]
        before = max((chunk.start for chunk in chunks), default=0)
        # Row t of `staircase` shows `before` columns and t + 1 more; a chunk's mask is a window of it.
        steps = torch.ones(max(sizes, default=0), before + max(sizes, default=0), dtype=torch.bool, device=device)
        staircase = torch.zeros(steps.shape, dtype=dtype, device=device).masked_fill_(
            ~steps.tril_(before), float("-inf")
        )
        self._masks = [
            staircase[: chunk.stop - chunk.start, before - chunk.start : before - chunk.start + chunk.stop].contiguous()
            if chunk.start
            else None
            for chunk in chunks
        ]

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, scale: float | None) -> Tensor:
        parts, begin = [], 0
        for chunk, mask in zip(self._chunks, self._masks, strict=True):
            end = begin + chunk.stop - chunk.start
            part = scaled_dot_product_attention(
                query[:, :, begin:end],
                keys[chunk.slot : chunk.slot + 1, :, : chunk.stop],
                values[chunk.slot : chunk.slot + 1, :, : chunk.stop],
                attn_mask=mask,
                is_causal=mask is None,
                scale=scale,
                enable_gqa=query.shape[1] != keys.shape[1],
            )
            parts.append(part.transpose(1, 2))
            begin = end
        return torch.cat(parts, 1)


class TokenReading:
    """Attention of one token per episode; the chunks come in the order of their slots."""

    def __init__(self, chunks: Sequence[Chunk], overhead: int, dtype: torch.dtype, device: torch.device) -> None:
        self.runs = plan_runs(chunks, overhead)
        slots = np.concatenate([np.arange(run.first, run.last + 1) for run in self.runs])
        place_N = np.searchsorted(slots, [chunk.slot for chunk in chunks])
        widest = max(run.columns for run in self.runs)
        # An idle slot between two others is read too, as if it were full: its result is dropped.
        length_P = np.full(len(slots), widest)
        length_P[place_N] = [chunk.stop for chunk in chunks]
        hidden_PV = torch.from_numpy(np.arange(widest)[None] >= length_P[:, None]).to(device)
        self._bias = torch.zeros(hidden_PV.shape, dtype=dtype, device=device).masked_fill_(hidden_PV, float("-inf"))
        self._place_N = torch.from_numpy(place_N).to(device) if len(slots) > len(chunks) else None
        self._places = len(slots)

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, scale: float | None) -> Tensor:
        _, heads, _, head_dim = query.shape
        key_heads = keys.shape[1]
        query_NHD = query[0].transpose(0, 1)
        if self._place_N is not None:
            query_NHD = query.new_zeros(self._places, heads, head_dim).index_copy_(0, self._place_N, query_NHD)
        # The query heads of a key head stand as its rows: each key is read once.
        packed = query_NHD.reshape(-1, key_heads, heads // key_heads, head_dim)
        parts, begin = [], 0
        for run in self.runs:
            end = begin + run.last - run.first + 1
            alone = end - begin == 1
            part = scaled_dot_product_attention(
                packed[begin:end],
                keys[run.first : run.last + 1, :, : run.columns],
                values[run.first : run.last + 1, :, : run.columns],
                attn_mask=None if alone else self._bias[begin:end, None, None, : run.columns],
                scale=scale,
            )
            parts.append(part.reshape(-1, heads, head_dim))
            begin = end
        out_NHD = torch.cat(parts) if len(parts) > 1 else parts[0]
        if self._place_N is not None:
            out_NHD = out_NHD.index_select(0, self._place_N)
        return out_NHD[None]


def plan_runs(chunks: Sequence[Chunk], overhead: int) -> list[Run]:
    """Cut slots in ascending order into runs: a slot joins the run before it if the columns that are then read in vain
    are fewer than `overhead`."""
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
