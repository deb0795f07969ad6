"""Attention of packed rows (`model.packing`), with gradients: no padding, no mask, shared keys and values once.

On a CPU the kernel is called for each run of new tokens, causal in itself, and once for each run of earlier tokens,
with the queries of all rows that see it. Each call gives the log-sum-exp of its scores, which weighs the
results: their mixture is the softmax over all that a query sees. Given the mixture and its log-sum-exp, the kernel's
backward pass yields each part's own share of the gradient, so the mixing needs no backward pass of its own.

On CUDA the keys and values that each run sees are laid side by side for one call of torch's kernel for rows of
different lengths. Written, not run.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from empg_cli.model.attention import AttentionRule
from empg_cli.model.packing import PackedRows, Read

KERNEL_GROUPS_HEADS = torch.__version__ >= "2.13"
"""The CPU kernel takes fewer key heads than query heads in both passes. Older ones get them repeated."""
MASK_ELEMENTS = 2**22
"""Largest mask of a call in the last layer."""


def has_packed_attention(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether packed rows can be attended on this device in this type."""
    if device.type != "cuda":
        return device.type == "cpu"
    is_half = dtype in (torch.float16, torch.bfloat16)
    return is_half and _has_kernel() and torch.cuda.get_device_capability(device) >= (8, 0)


def _has_kernel() -> bool:
    """With all that is asked of it here: scale, window and grouped heads came one after the other (torch 2.10 to 2.12).
    Else rows are read padded."""
    if find_spec("torch.nn.attention.varlen") is None:
        return False
    from torch.nn.attention.varlen import varlen_attn

    return inspect.signature(varlen_attn).parameters.keys() >= {"scale", "window_size", "enable_gqa"}


class PackedAttention:
    """What a pass over packed rows hands through the model (`model.attention.EpisodeStore`)."""

    def __init__(self, rows: PackedRows, place_W: np.ndarray, device: torch.device) -> None:
        """place_W: the tokens whose queries the last layer computes, in any order, and some more than once."""
        place_U, first_U, number_W = np.unique(place_W, return_index=True, return_inverse=True)
        self._first_U, self._number_W = (torch.from_numpy(part).to(device) for part in (first_U, number_W))
        plan = _KernelCalls if device.type == "cpu" else _VariableLengths
        self._all, self._chosen = plan(rows.reads, device), plan(rows.reads_of(place_U), device)

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, rule: AttentionRule, *, ends_only: bool = False
    ) -> Tensor:
        """[1, N, heads, value_dim]; query [1, heads, N, head_dim]; key and value [1, key heads, N, head_dim].

        Args:
            ends_only: queries and results are those of the places wanted.
        """
        assert rule.window is None and rule.softcap is None, "such layers are read padded"
        if not ends_only:
            return self._all.attend(query, key, value, rule.scale)
        return self._chosen.attend(query[:, :, self._first_U], key, value, rule.scale)[:, self._number_W]


@dataclass(frozen=True, slots=True)
class _Call:
    """One call of the CPU kernel; without a mask, every query sees all keys."""

    queries: slice
    keys: slice
    is_causal: bool = False
    column_Q: Tensor | None = None
    """The last key that each query sees, counted from the first of these."""

    def mask(self, dtype: torch.dtype) -> Tensor | None:
        if self.column_Q is None:
            return None
        hidden_QK = torch.arange(self.keys.stop - self.keys.start) > self.column_Q[:, None]
        return torch.zeros(hidden_QK.shape, dtype=dtype).masked_fill_(hidden_QK, float("-inf"))


class _KernelCalls:
    """The reads as calls of the CPU kernel."""

    def __init__(self, reads: Sequence[Read], device: torch.device) -> None:
        self.first: list[_Call] = []
        """Every query is in one of these."""
        self.further: list[_Call] = []
        earlier: dict[tuple[int, int], list[slice]] = defaultdict(list)
        for _, group in groupby(reads, key=lambda read: (*read.keys[:-1], read.keys[-1].start)):
            of_run = list(group)
            for part in of_run[0].keys[:-1]:
                _extend(earlier[part.start, part.stop], slice(of_run[0].queries.start, of_run[-1].queries.stop))
            self._read_run(of_run)
        self.further += [_Call(part, slice(*keys)) for keys, queries in earlier.items() for part in queries]

    def _read_run(self, reads: Sequence[Read]) -> None:
        """Queries of a run and its own tokens: one call with a mask where that wastes little, else span by span."""
        queries = slice(reads[0].queries.start, reads[-1].queries.stop)
        keys = slice(reads[0].keys[-1].start, reads[-1].keys[-1].stop)
        asked, seen = queries.stop - queries.start, keys.stop - keys.start
        if (len(reads) > 1 or 2 * asked <= seen) and asked * seen <= MASK_ELEMENTS:
            columns = [torch.arange(read.keys[-1].stop - _size(read.queries), read.keys[-1].stop) for read in reads]
            self.first.append(_Call(queries, keys, column_Q=torch.cat(columns) - keys.start))
            return
        for read in reads:
            middle = read.keys[-1].stop - _size(read.queries)
            self.first.append(_Call(read.queries, slice(middle, read.keys[-1].stop), is_causal=True))
            if middle > keys.start:
                self.further.append(_Call(read.queries, slice(keys.start, middle)))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        groups = query.shape[1] // key.shape[1]
        if groups > 1 and not KERNEL_GROUPS_HEADS:
            key, value = (part.repeat_interleave(groups, 1) for part in (key, value))
        out: Tensor = _MixedAttention.apply(query, key, value, self, scale)  # type: ignore[no-untyped-call]
        return out


def _size(places: slice) -> int:
    size: int = places.stop - places.start
    return size


def _extend(parts: list[slice], part: slice) -> None:
    """Add a part behind the last one, as one with it where they touch."""
    if parts and parts[-1].stop == part.start:
        part = slice(parts.pop().start, part.stop)
    parts.append(part)


class _MixedAttention(torch.autograd.Function):
    """softmax(q k^T scale) v over the union of what a query sees in several kernel calls.

    With o_i and l_i of the calls, l = log sum_i exp(l_i) and o = sum_i exp(l_i - l) o_i. The gradient of a score s in
    any part is exp(s - l) (grad_o v - grad_o o), which is what the kernel computes when it is given o and l.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, calls: _KernelCalls, scale: float | None
    ) -> Tensor:
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        _, heads, tokens, _ = query.shape
        # Half precision has its log-sum-exp in float32, so the mixture is made there and rounded once.
        long = torch.promote_types(query.dtype, torch.float32)
        out_NHD = query.new_empty(1, tokens, heads, value.shape[3], dtype=long if calls.further else query.dtype)
        out_HND = out_NHD.transpose(1, 2)
        lse_HN = query.new_empty(1, heads, tokens, dtype=long)

        def result(call: _Call) -> tuple[Tensor, Tensor]:
            part: tuple[Tensor, Tensor] = kernel(
                query[:, :, call.queries],
                key[:, :, call.keys],
                value[:, :, call.keys],
                is_causal=call.is_causal,
                attn_mask=call.mask(query.dtype),
                scale=scale,
            )
            return part

        for call in calls.first:
            out_HND[:, :, call.queries], lse_HN[:, :, call.queries] = result(call)
        for call in calls.further:
            part, part_lse = result(call)
            so_far, lse = out_HND[:, :, call.queries], lse_HN[:, :, call.queries]
            weight = torch.sigmoid(part_lse - lse)[..., None]
            so_far.lerp_(part.to(long), weight)
            lse.copy_(torch.logaddexp(lse, part_lse))
        out_NHD = out_NHD.to(query.dtype)
        ctx.save_for_backward(query, key, value, out_NHD, lse_HN)
        ctx.calls, ctx.scale = calls, scale
        return out_NHD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NHD: Tensor) -> tuple[Tensor | None, ...]:
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        query, key, value, out_NHD, lse_HN = ctx.saved_tensors
        grad_HND, out_HND = grad_NHD.transpose(1, 2), out_NHD.transpose(1, 2)
        grad_query, grad_key, grad_value = map(torch.zeros_like, (query, key, value))
        for call in (*ctx.calls.first, *ctx.calls.further):
            of_query, of_key, of_value = kernel(
                grad_HND[:, :, call.queries],
                query[:, :, call.queries],
                key[:, :, call.keys],
                value[:, :, call.keys],
                out_HND[:, :, call.queries],
                lse_HN[:, :, call.queries],
                0.0,
                call.is_causal,
                attn_mask=call.mask(query.dtype),
                scale=ctx.scale,
            )
            grad_query[:, :, call.queries] += of_query
            grad_key[:, :, call.keys] += of_key
            grad_value[:, :, call.keys] += of_value
        return grad_query, grad_key, grad_value, None, None


class _VariableLengths:
    """The reads as one call for rows of different lengths."""

    def __init__(self, reads: Sequence[Read], device: torch.device) -> None:
        keys = [np.concatenate([np.arange(part.start, part.stop) for part in read.keys]) for read in reads]
        self._key_place = torch.from_numpy(np.concatenate(keys)).to(device)
        sizes = [[read.queries.stop - read.queries.start for read in reads], [len(part) for part in keys]]
        self._query_ends, self._key_ends = (
            torch.tensor([0, *np.cumsum(part)], dtype=torch.int32, device=device) for part in sizes
        )
        self._longest = [max(part) for part in sizes]

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        from torch.nn.attention.varlen import varlen_attn

        # A window of all earlier columns and no later one: the last query of a row sees its last key.
        out = varlen_attn(
            query[0].transpose(0, 1).contiguous(),
            key[0].transpose(0, 1)[self._key_place],
            value[0].transpose(0, 1)[self._key_place],
            self._query_ends,
            self._key_ends,
            *self._longest,
            scale=scale,
            window_size=(-1, 0),
            enable_gqa=query.shape[1] != key.shape[1],
        )
        assert isinstance(out, Tensor), "the log-sum-exp is not asked for"
        return out[None]
