"""Parameters in a longer type than the one that forward and backward passes compute in.

A step of AdamW moves a weight by about the learning rate. bfloat16 keeps 8 bits, so a step of 1e-6 on a weight of 0.02
is lost in rounding: the parameters and the optimiser's state are float32, and passes read copies of them in the compute
type, made anew after every step. Rollout, scoring and backward read the same copies.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter


def kept_long(network: Any) -> tuple[str, ...]:
    """Parts of the names of parameters that transformers never reads in half precision: the routers of some mixtures of
    experts."""
    return tuple(getattr(network, "_keep_in_fp32_modules_strict", None) or ())


class MasterWeights:
    """The parameters that are trained, behind a network that computes in a shorter type.

    network: the Hugging Face model that holds them; its forward pass is never run.
    computing: its copy in the compute type; buffers, such as rotary frequencies, keep theirs. Frozen parameters
        that have it already are shared by both.
    """

    def __init__(self, network: Any, dtype: torch.dtype) -> None:
        self.network = network
        kept = kept_long(network)
        memo: dict[int, Any] = {}
        self._pairs: list[tuple[Parameter, Parameter]] = []
        for name, master in network.named_parameters():  # tied ones once
            is_kept = any(part in name for part in kept)
            computed = master.dtype if is_kept else dtype
            if master.dtype == computed and not master.requires_grad:
                memo[id(master)] = master
                continue
            compute = Parameter(master.detach().to(computed, copy=True), master.requires_grad)
            memo[id(master)] = compute
            self._pairs.append((master, compute))
        self.computing = copy.deepcopy(network, memo)
        for master, compute in self._pairs:
            if master.requires_grad:
                compute.register_post_accumulate_grad_hook(_Handover(master))

    @torch.no_grad()
    def refresh(self) -> None:
        """Round the parameters to the compute type again; call it after every change of them."""
        for master, compute in self._pairs:
            compute.copy_(master)


class _Handover:
    """Adds the gradient of one backward pass to the parameter's own, which sums micro-batches in its longer type."""

    def __init__(self, master: Parameter) -> None:
        self._master = master

    def __call__(self, compute: Tensor) -> None:
        assert compute.grad is not None, "the hook runs when there is a gradient"
        if self._master.grad is None:
            self._master.grad = compute.grad.to(self._master.dtype)
        else:
            self._master.grad += compute.grad
        compute.grad = None
