"""Keys and values of running episodes, kept over their turns and read without padding.

Every episode has a slot from its first prompt to its end; a token's column in that slot is its position. So there is no
left padding and no mask state, and a column past an episode's length is never read before it is written.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from empg_cli.errors import UserError
from empg_cli.model.attention import AttentionRule
from empg_cli.rollout.torch_engine.plans import Plan


class EpisodeCache:
    """One [slots, heads, columns, head_dim] tensor pair per layer, and the plan of the forward pass under way.

    A layer's tensors are made when it first attends, in the shape and type of what it hands over: layers may differ,
    and so may keys and values.
    """

    def __init__(self, slots: int, windows: Sequence[int | None] = (), *, most_columns: int | None = None) -> None:
        """
        Args:
            windows: how far back each layer is to see (`model.windows`); nothing is checked where that is not given.
            most_columns: of the longest episode there can be; the cache never grows beyond them. None = no bound.
        """
        self.slots, self.columns = slots, 0
        self._most_columns = most_columns
        self._windows = windows
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        self._plan: Plan | None = None

    def reserve(self, *, slots: int = 0, columns: int = 0) -> None:
        """Make room; columns grow by half at least, up to their bound, so copies stay linear in the final length."""
        assert self._most_columns is None or columns <= self._most_columns, "no episode is longer than its context"
        if slots <= self.slots and columns <= self.columns:
            return
        slots = max(slots, self.slots)
        if columns > self.columns:
            ahead = self.columns + self.columns // 2
            columns = max(columns, ahead if self._most_columns is None else min(ahead, self._most_columns))
        else:
            columns = self.columns
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

    def aim(self, plan: Plan) -> None:
        """Say what the next forward pass reads. There must be room for it (`reserve`)."""
        assert plan.longest <= self.columns, "a token without a column would land in another slot"
        self._plan = plan

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
        assert self._plan is not None, "aim() comes before a forward pass"
        if self._windows and layer not in self.keys:
            self._check_window(layer, rule)
        for tensors, new in ((self.keys, key), (self.values, value)):
            if layer not in tensors:
                _, heads, _, head_dim = new.shape
                tensors[layer] = new.new_zeros(self.slots, heads, self.columns, head_dim)
            head_dim = new.shape[3]
            places = self._plan.places(new.shape[1], self.columns, new.device)
            tensors[layer].view(-1, head_dim).index_copy_(0, places, new[0].transpose(0, 1).reshape(-1, head_dim))
        reading = self._plan.reading(self.keys[layer], self.values[layer], rule, ends_only=ends_only)
        return reading.attend(query, self.keys[layer], self.values[layer], rule)

    def _check_window(self, layer: int, rule: AttentionRule) -> None:
        """Families whose windows are in a mask alone hand none over, and would play without."""
        expected = self._windows[layer]
        if expected is not None and rule.window != expected:
            raise UserError(
                f"layer {layer} sees {expected} tokens back (sliding_window) but does not tell its attention, so a "
                "rollout would see further"
            )
