"""A key-value cache that lives as long as the episodes do.

Column = token position, so there is no left padding and no mask state: chunks are written right-padded, columns past a
row's length hold leftovers that the causal mask (column <= position) hides until the next write overwrites them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache


class EpisodeCache(Cache):
    """Keys and values of `num_rows` episodes, one [rows, heads, columns, head_dim] tensor pair per layer."""

    def __init__(self, config: Any, num_rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> None:
        heads = config.num_key_value_heads
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        shape = (num_rows, heads, columns, head_dim)
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.num_hidden_layers)]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.num_hidden_layers)]
        self.layers = []  # transformers looks at it; this cache keeps its own tensors
        self._visible = 0
        self._row_BT = self._column_BT = torch.empty(0, dtype=torch.long)

    @property
    def columns(self) -> int:
        return self.keys[0].shape[2]

    def reserve(self, columns: int) -> None:
        """Make room for `columns` positions; grows by doubling, so the copies stay linear in the final length."""
        if columns <= self.columns:
            return
        extra = max(columns, 2 * self.columns) - self.columns
        for tensors in (self.keys, self.values):
            for layer, tensor in enumerate(tensors):
                tensors[layer] = torch.nn.functional.pad(tensor, (0, 0, 0, extra))

    def keep(self, rows: Tensor) -> None:
        """Keep only these rows, in this order."""
        for tensors in (self.keys, self.values):
            for layer, tensor in enumerate(tensors):
                tensors[layer] = tensor.index_select(0, rows)

    def aim(self, position_BT: Tensor, visible: int) -> None:
        """Say where the next forward pass writes (one column per token) and how many columns it may read."""
        self._row_BT = torch.arange(len(position_BT), device=position_BT.device)[:, None].expand_as(position_BT)
        self._column_BT, self._visible = position_BT, visible

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        key, value = self.keys[layer_idx], self.values[layer_idx]
        key[self._row_BT, :, self._column_BT] = key_states.transpose(1, 2)
        value[self._row_BT, :, self._column_BT] = value_states.transpose(1, 2)
        return key[:, :, : self._visible], value[:, :, : self._visible]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0  # positions and masks are given explicitly; nothing may be derived from a common length

    def get_mask_sizes(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        return self._visible, 0

    @property
    def is_compileable(self) -> bool:
        return False
