"""Keys and values of running episodes, kept over their turns and read without padding.

Every episode has a slot from its first prompt to its end; a token's column in that slot is its position. So there is no
left padding and no mask state, and a column past an episode's length is never read before it is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from empg_cli.rollout.prefix import EXTRA_CALLS, PrefixReading, saved_columns
from empg_cli.rollout.reading import Chunk, ChunkReading, TokenReading, positions, read_overhead


class EpisodeCache:
    """One [slots, heads, columns, head_dim] tensor pair per layer, and the plan of the forward pass under way."""

    def __init__(self, config: Any, slots: int, dtype: torch.dtype, device: torch.device) -> None:
        heads = config.num_key_value_heads
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        shape = (slots, heads, 0, head_dim)  # `reserve` makes the columns
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.num_hidden_layers)]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.num_hidden_layers)]
        self._index = torch.empty(0, dtype=torch.long)
        self._reading: ChunkReading | TokenReading | PrefixReading | None = None
        self._end_reading: TokenReading | PrefixReading | None = None

    @property
    def slots(self) -> int:
        return self.keys[0].shape[0]

    @property
    def columns(self) -> int:
        return self.keys[0].shape[2]

    def reserve(self, *, slots: int = 0, columns: int = 0) -> None:
        """Make room; columns grow by half at least, so the copies stay linear in the final length."""
        old_slots, heads, old_columns, head_dim = self.keys[0].shape
        if slots <= old_slots and columns <= old_columns:
            return
        grown = max(columns, old_columns + old_columns // 2) if columns > old_columns else old_columns
        for tensors in (self.keys, self.values):
            for layer, tensor in enumerate(tensors):
                larger = tensor.new_empty(max(slots, old_slots), heads, grown, head_dim)
                larger[:old_slots, :, :old_columns] = tensor
                larger[old_slots:] = 0
                larger[:old_slots, :, old_columns:] = 0
                tensors[layer] = larger

    def copy(self, source: int, targets: Sequence[int], start: int, stop: int) -> None:
        """Give the target slots the columns start..stop of the source slot."""
        index = torch.tensor(list(targets), device=self.keys[0].device)
        for tensor in (*self.keys, *self.values):
            tensor[index, :, start:stop] = tensor[source, :, start:stop].clone()  # source and targets share memory

    def aim(self, chunks: Sequence[Chunk]) -> None:
        """Say what the next forward pass reads: its N tokens are those of the chunks, one after the other.

        There must be room for them (`reserve`).
        """
        assert max(chunk.stop for chunk in chunks) <= self.columns, (
            "a token without a column would land in another slot"
        )
        first = self.keys[0]
        _, heads, columns, head_dim = first.shape
        slot_N = np.repeat([chunk.slot for chunk in chunks], [chunk.stop - chunk.start for chunk in chunks])
        index_NH = (slot_N[:, None] * heads + np.arange(heads)) * columns + positions(chunks)[:, None]
        self._index = torch.from_numpy(index_NH.ravel()).to(first.device)
        overhead = read_overhead(first.device, bytes_per_column=2 * heads * head_dim * first.element_size())
        if first.device.type == "cpu" and saved_columns(chunks) > EXTRA_CALLS * overhead:
            self._end_reading = PrefixReading(chunks, overhead, first.dtype)
        else:
            self._end_reading = TokenReading(chunks, overhead, first.dtype, first.device)
        if all(chunk.stop - chunk.start == 1 for chunk in chunks):
            self._reading = self._end_reading
        else:
            self._reading = ChunkReading(chunks, first.dtype, first.device)

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float | None, *, ends_only: bool = False
    ) -> Tensor:
        """Write the pass's keys and values, then attend to everything the episodes have read so far.

        Args:
            query: [1, heads, N, head_dim]; with `ends_only` those of the chunks' last tokens alone.
            key, value: [1, key-value heads, N, head_dim].

        Returns:
            [1, as many as queries, heads, head_dim]
        """
        reading = self._end_reading if ends_only else self._reading
        assert reading is not None, "aim() comes before a forward pass"
        keys, values = self.keys[layer], self.values[layer]
        head_dim = keys.shape[3]
        keys.view(-1, head_dim).index_copy_(0, self._index, key[0].transpose(0, 1).reshape(-1, head_dim))
        values.view(-1, head_dim).index_copy_(0, self._index, value[0].transpose(0, 1).reshape(-1, head_dim))
        return reading.attend(query, keys, values, scale)
