"""What a forward pass of a rollout reads: where each layer writes its new keys and values, and how it attends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from empg_cli.model.attention import AttentionRule
from empg_cli.rollout.torch_engine.prefix import PrefixReading, saved_columns
from empg_cli.rollout.torch_engine.reading import Chunk, ChunkReading, MixedReading, Reading, kernel, positions
from empg_cli.rollout.torch_engine.runs import TokenReading, read_overhead


class Plan(Protocol):
    longest: int
    """Columns that the cache must have."""

    def places(self, heads: int, columns: int, device: torch.device) -> Tensor:
        """Where the pass's N tokens belong in a cache of [slots x heads x columns] rows: long [N x heads]."""
        ...

    def reading(self, keys: Tensor, values: Tensor, rule: AttentionRule, *, ends_only: bool) -> Reading:
        """How layers of this shape and rule attend; cache [slots, key heads, columns, head_dim]."""
        ...


class ChunkPlan:
    """Chunks of episodes, one after the other, planned by the host. What layers of one shape share is made once."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self.longest = max([chunk.stop for chunk in chunks])
        self._chunks = chunks
        self._position_N = positions(chunks)
        self._is_decoding = len(self._position_N) == len(chunks)
        self._index: dict[int, Tensor] = {}
        self._readings: dict[tuple[object, ...], Reading] = {}

    def places(self, heads: int, columns: int, device: torch.device) -> Tensor:
        if heads not in self._index:
            chunks = self._chunks
            slot_N = np.repeat([chunk.slot for chunk in chunks], [chunk.stop - chunk.start for chunk in chunks])
            row_NH = (slot_N[:, None] * heads + np.arange(heads)) * columns + self._position_N[:, None]
            self._index[heads] = torch.from_numpy(row_NH.ravel()).to(device)
        return self._index[heads]

    def reading(self, keys: Tensor, values: Tensor, rule: AttentionRule, *, ends_only: bool) -> Reading:
        chunks, device = self._chunks, keys.device
        # A window that shows everything is none.
        window = rule.window if rule.window is not None and rule.window < self.longest else None
        bytes_per_column = keys.shape[1] * (keys.shape[3] + values.shape[3]) * keys.element_size()
        is_plain = window is None and rule.softcap is None and keys.shape[3] == values.shape[3]
        of_ends = ends_only or self._is_decoding
        kind = (window, of_ends, bytes_per_column, is_plain)
        if kind not in self._readings:

            def of_tokens(chunks: Sequence[Chunk]) -> Reading:
                overhead = read_overhead(device, bytes_per_column=bytes_per_column)
                if is_plain and device.type == "cpu" and saved_columns(chunks, overhead) > 0:
                    return PrefixReading(chunks, overhead, keys.dtype)
                return TokenReading(chunks, overhead, keys.dtype, device, window)

            def of_chunks(chunks: Sequence[Chunk]) -> Reading:
                return ChunkReading(chunks, keys.dtype, device, window)

            if of_ends:
                self._readings[kind] = of_tokens(chunks)
            elif not any(chunk.is_token for chunk in chunks):
                self._readings[kind] = of_chunks(chunks)
            else:
                self._readings[kind] = MixedReading(chunks, of_tokens, of_chunks, device)
        return self._readings[kind]


class SlotPlan:
    """One token in each of the first P slots, whose positions the device alone knows.

    Shapes do not depend on the positions, and nothing is asked of the device, so a pass can be captured and replayed.
    """

    def __init__(self, position_P: Tensor, columns: int) -> None:
        """columns: how many are read of each slot; those after a slot's position are hidden."""
        self.longest = columns
        self._position_P = position_P
        self._index: dict[int, Tensor] = {}
        self._readings: dict[tuple[int | None, torch.dtype], SlotReading] = {}

    def places(self, heads: int, columns: int, device: torch.device) -> Tensor:
        if heads not in self._index:
            row_PH = torch.arange(len(self._position_P) * heads, device=device).unflatten(0, (-1, heads)) * columns
            self._index[heads] = (row_PH + self._position_P[:, None]).flatten()
        return self._index[heads]

    def reading(self, keys: Tensor, values: Tensor, rule: AttentionRule, *, ends_only: bool) -> Reading:
        kind = rule.window, keys.dtype
        if kind not in self._readings:
            column_C = torch.arange(self.longest, device=keys.device)
            is_hidden_PC = column_C > self._position_P[:, None]
            if rule.window is not None:
                is_hidden_PC |= column_C <= self._position_P[:, None] - rule.window
            bias_PC = torch.zeros(is_hidden_PC.shape, dtype=keys.dtype, device=keys.device)
            self._readings[kind] = SlotReading(bias_PC.masked_fill_(is_hidden_PC, float("-inf")))
        return self._readings[kind]


class SlotReading:
    """Attention of one token in each of the first slots."""

    def __init__(self, bias_PC: Tensor) -> None:
        self._slots, self._columns = bias_PC.shape
        self._bias = bias_PC[:, None, None]

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, rule: AttentionRule) -> Tensor:
        _, heads, _, head_dim = query.shape
        # The query heads of a key head stand as its rows: each key is read once.
        packed = query[0].transpose(0, 1).reshape(self._slots, keys.shape[1], -1, head_dim)
        read = slice(0, self._slots), slice(None), slice(0, self._columns)
        out = kernel(packed, keys[read], values[read], self._bias, rule)
        return out.reshape(1, self._slots, heads, -1)
