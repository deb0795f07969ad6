"""What to log about entropies and credit, under the names of docs/metrics.md. Nothing here changes what trains."""

from __future__ import annotations

import torch
from torch import Tensor

from empg_cli.algorithms.empg import Modulation

Metrics = dict[str, float]


def entropy_metrics(entropy_S: Tensor) -> Metrics:
    """Spread of the step entropies."""
    return {"empg/step_entropy/mean": mean(entropy_S)} | tails("empg/step_entropy", entropy_S) if len(entropy_S) else {}


def outcome_entropies(entropy_S: Tensor, was_won_S: Tensor) -> Metrics:
    """Mean step entropy of won and of lost episodes; a side without steps is left out."""
    sides = {"empg/step_entropy/won": entropy_S[was_won_S], "empg/step_entropy/lost": entropy_S[~was_won_S]}
    return {name: mean(values) for name, values in sides.items() if len(values)}


def modulation_metrics(
    advantage_S: Tensor, parts: Modulation, uncentred_S: Tensor, credit_S: Tensor, next_S: Tensor
) -> Metrics:
    """How EMPG spreads its weights, how far it moves credit, and which signs it turns.

    Args:
        uncentred_S: what advantages and parts came to; A g + zeta f in EMPG itself.
        credit_S: the same, centred or not.
    """
    if credit_S.numel() == 0:
        return {"empg/future_clarity/mean": 0.0, "empg/advantage_shift": 0.0}
    shift, size = mean((credit_S - advantage_S).abs()), mean(advantage_S.abs())
    clarity_S = parts.clarity_S[next_S >= 0]
    metrics = summary("empg/weight", parts.weight_S) | tails("empg/weight", parts.weight_S)
    metrics |= {
        "empg/future_clarity/mean": mean(clarity_S),
        "empg/advantage_shift": shift,
        "empg/center_offset": mean(uncentred_S - credit_S),
        "empg/center_flip_frac": mean((uncentred_S * credit_S < 0).float()),
        "empg/sign_flip_frac": mean((advantage_S * credit_S < 0).float()),
    }
    if len(clarity_S):
        metrics |= tails("empg/future_clarity", clarity_S)
    if size > 0:
        metrics["empg/advantage_shift_relative"] = shift / size
    return metrics


def summary(name: str, values: Tensor) -> Metrics:
    if values.numel() == 0:
        return {}
    return {f"{name}/mean": mean(values), f"{name}/max": float(values.max()), f"{name}/min": float(values.min())}


def tails(name: str, values: Tensor) -> Metrics:
    """10th and 90th percentile of at least one value."""
    p10, p90 = torch.quantile(values.float(), torch.tensor([0.1, 0.9], device=values.device)).tolist()
    return {f"{name}/p10": p10, f"{name}/p90": p90}


def mean(values: Tensor) -> float:
    return float(values.mean()) if values.numel() else 0.0
