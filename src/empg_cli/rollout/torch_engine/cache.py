"""Keys and values of running episodes, kept over their turns and read without padding.

Every episode has a slot from its first prompt to its end; a token's column in that slot is its position. So there is no
left padding and no mask state, and a column past an episode's length is never read before it is written.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from empg_cli.errors import UserError
from empg_cli.model.attention import AttentionRule
from empg_cli.rollout.torch_engine.prefix import EXTRA_CALLS, PrefixReading, saved_columns
from empg_cli.rollout.torch_engine.reading import (
    Chunk,
    ChunkReading,
    MixedReading,
    Reading,
    TokenReading,
    positions,
    read_overhead,
)


class EpisodeCache:
    """One [slots, heads, columns, head_dim] tensor pair per layer, and the plan of the forward pass under way.

    A layer's tensors are made when it first attends, in the shape and type of what it hands over: layers may differ,
    and so may keys and values.
    """

    def __init__(self, slots: int, windows: Sequence[int | None] = ()) -> None:
        """windows: how far back each layer is to see (`model.windows`); nothing is checked where that is not given."""
        self.slots, self.columns = slots, 0
        self._windows = windows
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        self._chunks: Sequence[Chunk] = ()
        self._longest, self._is_decoding = 0, False
        self._position_N = np.empty(0, dtype=np.int64)
        self._index: dict[int, Tensor] = {}
        self._readings: dict[tuple[object, ...], Reading] = {}

    def reserve(self, *, slots: int = 0, columns: int = 0) -> None:
        """Make room; columns grow by half at least, so the copies stay linear in the final length."""
        if slots <= self.slots and columns <= self.columns:
            return
        slots = max(slots, self.slots)
        columns = max(columns, self.columns + self.columns // 2) if columns > self.columns else self.columns
        for tensors in (self.keys, self.values):
            for layer, tensor in tensors.items():
                _, heads, _, head_dim = tensor.shape
                larger = tensor.new_empty(slots, heads, columns, head_dim)
                larger[: self.slots, :, : self.columns] = tensor
                larger[self.slots :] = 0
                larger[: self.slots, :, self.columns :] = 0
                tensors[layer] = larger
        self.slots, self.columns = slots, columns  # not before there is memory for it

    def copy(self, source: int, targets: Sequence[int], start: int, stop: int) -> None:
        """Give the target slots the columns start..stop of the source slot."""
        index = torch.tensor(list(targets))
        for tensor in (*self.keys.values(), *self.values.values()):
            tensor[index.to(tensor.device), :, start:stop] = tensor[
                source, :, start:stop
            ].clone()  # source and targets share memory

    def aim(self, chunks: Sequence[Chunk]) -> None:
        """Say what the next forward pass reads: its N tokens are those of the chunks, one after the other.

        There must be room for them (`reserve`).
        """
        self._chunks = chunks
        self._longest = max([chunk.stop for chunk in chunks])
        assert self._longest <= self.columns, "a token without a column would land in another slot"
        self._position_N = positions(chunks)
        self._is_decoding = len(self._position_N) == len(chunks)
        self._index.clear()
        self._readings.clear()

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, rule: AttentionRule, *, ends_only: bool = False
    ) -> Tensor:
        """Write the pass's keys and values, then attend to what the layer's rule shows of all that was read so far.

        Args:
            query: [1, heads, N, head_dim]; with `ends_only` those of the chunks' last tokens alone.
            key, value: [1, key-value heads, N, head_dim], each with its own head_dim.

        Returns:
            [1, as many as queries, heads, head_dim of the values]

        Raises:
            UserError: the layer has another window than its config says.
        """
        assert self._chunks, "aim() comes before a forward pass"
        if self._windows and layer not in self.keys:
            self._check_window(layer, rule)
        for tensors, new in ((self.keys, key), (self.values, value)):
            if layer not in tensors:
                _, heads, _, head_dim = new.shape
                tensors[layer] = new.new_zeros(self.slots, heads, self.columns, head_dim)
            head_dim = new.shape[3]
            tensors[layer].view(-1, head_dim).index_copy_(
                0, self._places(new.shape[1], new.device), new[0].transpose(0, 1).reshape(-1, head_dim)
            )
        reading = self._reading(self.keys[layer], self.values[layer], rule, ends_only)
        return reading.attend(query, self.keys[layer], self.values[layer], rule)

    def _check_window(self, layer: int, rule: AttentionRule) -> None:
        """Families whose windows are in a mask alone hand none over, and would play without."""
        expected = self._windows[layer]
        if expected is not None and rule.window != expected:
            raise UserError(
                f"layer {layer} sees {expected} tokens back (sliding_window) but does not tell its attention, so a "
                "rollout would see further"
            )

    def _places(self, heads: int, device: torch.device) -> Tensor:
        """Where the pass's tokens belong in a cache of [slots x heads x columns] rows: long [N x heads]."""
        if heads not in self._index:
            chunks = self._chunks
            slot_N = np.repeat([chunk.slot for chunk in chunks], [chunk.stop - chunk.start for chunk in chunks])
            row_NH = (slot_N[:, None] * heads + np.arange(heads)) * self.columns + self._position_N[:, None]
            self._index[heads] = torch.from_numpy(row_NH.ravel()).to(device)
        return self._index[heads]

    def _reading(self, keys: Tensor, values: Tensor, rule: AttentionRule, ends_only: bool) -> Reading:
        """The plan for layers of this shape and rule, made once a pass."""
        chunks, device = self._chunks, keys.device
        # A window that shows everything is none.
        window = rule.window if rule.window is not None and rule.window < self._longest else None
        bytes_per_column = keys.shape[1] * (keys.shape[3] + values.shape[3]) * keys.element_size()
        is_plain = window is None and rule.softcap is None and keys.shape[3] == values.shape[3]
        of_ends = ends_only or self._is_decoding
        kind = (window, of_ends, bytes_per_column, is_plain)
        if kind not in self._readings:

            def of_tokens(chunks: Sequence[Chunk]) -> Reading:
                overhead = read_overhead(device, bytes_per_column=bytes_per_column)
                enough = EXTRA_CALLS * overhead
                could_save = is_plain and device.type == "cpu" and sum([chunk.shared for chunk in chunks]) > enough
                if could_save and saved_columns(chunks) > enough:
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
