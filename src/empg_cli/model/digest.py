"""Digests of weights, by which runs prove that they have the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


def weights_digest(network: Any) -> str:
    """Of all weights of a model, under their names."""
    return tensors_digest(network.state_dict().items())


def tensors_digest(tensors: Iterable[tuple[str, Tensor]], about: str = "") -> str:
    """Of named tensors, in any order.

    Args:
        about: what else it is a digest of.
    """
    digest = hashlib.sha256(about.encode())
    for name, tensor in sorted(tensors, key=lambda item: item[0]):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
