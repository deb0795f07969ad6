"""Two answers of ours to criticism of EMPG's min-max; neither is in the paper. Both end in a value in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor

from empg_cli.algorithms.empg import normalise_entropy
from empg_cli.algorithms.groups import group_index, group_mean


def normalise_between_quantiles(entropy_S: Tensor, tail: float = 0.05, eps: float = 1e-8) -> Tensor:
    """Min-max between the `tail` and 1 - `tail` quantiles, cut to [0, 1]. tail = 0 is the paper's Eq. 8.

    Under min-max one outlier decides how far apart all other steps lie; here a share `tail` of the steps may be
    outliers at either end.
    """
    if not 0 <= tail < 0.5:
        raise ValueError(f"tail must lie in [0, 0.5), got {tail}")
    if entropy_S.numel() == 0:
        return entropy_S
    bounds = torch.tensor([tail, 1 - tail], dtype=entropy_S.dtype, device=entropy_S.device)
    low, high = torch.quantile(entropy_S, bounds)
    return normalise_entropy(entropy_S.clamp(low, high), eps)


def normalise_within_anchors(entropy_S: Tensor, anchor_S: Tensor, eps: float = 1e-8) -> Tensor:
    """Min-max of each entropy's distance from the mean entropy of its anchor state.

    STAPO's objection is that raw entropy takes a complex state for an unsure agent. What is usual in a state is
    subtracted first, so only being surer or less sure than usual counts. A state seen once lies in the middle.

    Args:
        anchor_S: long, from `gigpo.anchor_groups`.
    """
    index_S, num_anchors = group_index(anchor_S)
    return normalise_entropy(entropy_S - group_mean(entropy_S, index_S, num_anchors)[index_S], eps)
