"""Which cached columns a forward pass reads, and in which calls of the attention kernel.

No column is read that the model does not need, as far as that pays: chunks of a prompt are read episode by episode,
single tokens in runs of neighbouring slots (`torch_engine.runs`).
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

PACKED_TOKENS = 256
"""Query tokens; more of them fill the tiles of a CPU's kernel by themselves."""


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
        self._stacked: dict[int, list[Tensor | None]] = {}

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, rule: AttentionRule) -> Tensor:
        heads, key_heads = query.shape[1], keys.shape[1]
        parts, begin = [], 0
        for chunk, mask, first in zip(self._chunks, self._masks_of(heads // key_heads), self._begins, strict=True):
            end = begin + chunk.stop - chunk.start
            rows = query[:, :, begin:end]
            if mask is not None and len(mask) > end - begin:
                rows = rows.reshape(1, key_heads, len(mask), -1)
            part = kernel(
                rows,
                keys[chunk.slot : chunk.slot + 1, :, first : chunk.stop],
                values[chunk.slot : chunk.slot + 1, :, first : chunk.stop],
                mask,
                rule,
                is_causal=mask is None,
            )
            parts.append(part.reshape(1, heads, end - begin, -1).transpose(1, 2))
            begin = end
        return torch.cat(parts, 1)

    def _masks_of(self, groups: int) -> list[Tensor | None]:
        """Each chunk's mask, repeated where its tokens are read as rows of a key head: first those of the head's first
        query head, then those of its next.

        Taller products are faster on a CPU, and on a GPU no fast kernel takes a mask together with fewer key heads.
        """
        if groups not in self._stacked:
            self._stacked[groups] = [
                mask.repeat(groups, 1)
                if mask is not None and (mask.device.type != "cpu" or len(mask) <= PACKED_TOKENS)
                else mask
                for mask in self._masks
            ]
        return self._stacked[groups]


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
