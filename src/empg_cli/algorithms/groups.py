"""Sums over groups of rows. Group ids may be any integers in any order; rows of a group need not be adjacent."""

from __future__ import annotations

import torch
from torch import Tensor


def group_index(group_N: Tensor) -> tuple[Tensor, int]:
    """Dense group numbers 0..G-1 for arbitrary ids, and G (0 for an empty batch)."""
    ids_G, index_N = torch.unique(group_N, return_inverse=True)
    return index_N, len(ids_G)


def group_sum(value_N: Tensor, index_N: Tensor, num_groups: int) -> Tensor:
    """Sum of each group, float [G]."""
    return value_N.new_zeros(num_groups).index_add_(0, index_N, value_N)


def group_mean(value_N: Tensor, index_N: Tensor, num_groups: int) -> Tensor:
    """Mean of each group, float [G]; `index_N` must use every number below `num_groups`."""
    return group_sum(value_N, index_N, num_groups) / group_sum(torch.ones_like(value_N), index_N, num_groups)


def group_range(value_N: Tensor, index_N: Tensor, num_groups: int) -> tuple[Tensor, Tensor]:
    """Smallest and largest value of each group, two float [G]."""
    zeros_G = value_N.new_zeros(num_groups)
    low_G = zeros_G.scatter_reduce(0, index_N, value_N, "amin", include_self=False)
    high_G = zeros_G.scatter_reduce(0, index_N, value_N, "amax", include_self=False)
    return low_G, high_G


def checked(name: str, value_N: Tensor, group_N: Tensor) -> Tensor:
    """`value_N` as floats, after refusing what no estimator can use: other shapes, NaN, infinity."""
    if value_N.ndim != 1 or value_N.shape != group_N.shape:
        raise ValueError(
            f"{name} and its group ids must be one-dimensional and equally long, "
            f"got shapes {tuple(value_N.shape)} and {tuple(group_N.shape)}"
        )
    value_N = value_N if value_N.is_floating_point() else value_N.float()
    if not torch.isfinite(value_N).all():
        row = int((~torch.isfinite(value_N)).nonzero()[0])
        raise ValueError(f"{name}[{row}] is {value_N[row].item()}; every value must be finite")
    return value_N
