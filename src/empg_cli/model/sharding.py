"""Weights, gradients and optimiser state spread over ranks by PyTorch's `fully_shard` (FSDP2): what is done around
passes, and how single tensors lie.

What is summed stays a sum: loss weights are made for the whole batch, so gradients of ranks are added, never averaged.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


class Sharding:
    """Of one network. All methods are common points of all ranks."""

    def __init__(self, lm: Any, layers: Any, mesh: DeviceMesh, *, compute_dtype: torch.dtype, frees: bool) -> None:
        """Spread the weights, which all ranks hold whole and equal.

        Parameters stay in the type that they are kept in; passes read them rounded to the compute type, and gradients
        are added up in float32.

        Args:
            lm: what every pass runs through.
            layers: of it; the weights of one are gathered together.
            frees: weights and gradients of a layer are whole only while it is computed; else from the first pass of an
                optimiser step to the last.
        """
        precision = MixedPrecisionPolicy(param_dtype=compute_dtype, reduce_dtype=torch.float32)
        for module in (*layers, lm):
            fully_shard(module, mesh=mesh, mp_policy=precision, reshard_after_forward=frees)
        self._root, self._frees = lm, frees
        self.is_whole = False
        """Every rank holds the whole weights (`gather`)."""
        self._parts = [module for module in lm.modules() if isinstance(module, FSDPModule)]
        for part in self._parts:
            part.set_gradient_divide_factor(1.0)
            part.set_force_sum_reduction_for_comms(True)

    def gather(self) -> None:
        """Every rank holds the whole weights until they change: a rollout is then its own affair."""
        self._root.set_reshard_after_forward(False, recurse=True)
        for part in self._parts:
            part.unshard()
        self.is_whole = True

    def scatter(self) -> None:
        """Each rank keeps its part alone, which is what an optimiser steps on and what is saved."""
        for part in self._parts:
            part.reshard()
        self._root.set_reshard_after_forward(self._frees, recurse=True)
        self.is_whole = False

    def before_learning(self) -> None:
        """After a rollout, before the passes that score and train."""
        if self._frees:
            self.scatter()

    def before_backward(self, *, is_last: bool) -> None:
        """Before each forward pass with a gradient.

        Args:
            is_last: of the optimiser step; gradients of ranks are added up behind it, or behind every pass.
        """
        self._root.set_requires_gradient_sync(is_last or self._frees)
        self._root.set_reshard_after_backward(is_last or self._frees)


def mesh_of(device: torch.device, size: int, shard: int | None) -> DeviceMesh:
    """All ranks hold one copy of the weights together, or `shard` at a time do (HSDP)."""
    if shard is None or shard == size:
        return init_device_mesh(device.type, (size,), mesh_dim_names=("shard",))
    return init_device_mesh(device.type, (size // shard, shard), mesh_dim_names=("replicate", "shard"))


def whole(value: Tensor) -> Tensor:
    """A tensor with all its parts; a common point where it is spread."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def laid_out_like(value: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor in the way that a parameter lies: of what all ranks have, each keeps its part."""
    if not isinstance(parameter, DTensor):
        return value.to(parameter.device)
    there = value.to(parameter.device_mesh.device_type)
    return distribute_tensor(there, parameter.device_mesh, parameter.placements, src_data_rank=None)
