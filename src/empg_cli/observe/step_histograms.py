"""How step entropies, EMPG's weights and the shift of credit are spread, update by update, in a few numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from empg_cli.algorithms.assemble import CreditParts
from empg_cli.runs.histograms import Histogram

BINS = 20


def step_histograms(parts: CreditParts, next_S: Tensor, was_won_S: Tensor) -> dict[str, Histogram]:
    """Under the names of docs/metrics.md, of finite values; those without any are left out.

    Args:
        was_won_S: bool, the step's episode was solved.
    """
    values = {
        "hist/step_entropy_won": parts.entropy_S[was_won_S],
        "hist/step_entropy_lost": parts.entropy_S[~was_won_S],
    }
    if parts.weight_S is not None and parts.clarity_S is not None:
        values |= {
            "hist/weight": parts.weight_S,
            "hist/future_clarity": parts.clarity_S[next_S >= 0],
            "hist/credit_shift": parts.credit_S - parts.advantage_S,
        }
    finite = {name: part[part.isfinite()] for name, part in values.items()}
    return {name: histogram(part) for name, part in finite.items() if len(part)}


def histogram(values: Tensor, bins: int = BINS) -> Histogram:
    """Counts in equal bins from the lowest to the highest value; equal values stand in the middle of a narrow range."""
    values = values.double()
    low, high = float(values.min()), float(values.max())
    if low == high:
        margin = 1e-3 * max(abs(low), 1.0)
        low, high = low - margin, high + margin
    counts = torch.histc(values, bins, low, high)
    return Histogram(low, high, tuple(int(count) for count in counts))
