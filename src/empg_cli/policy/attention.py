"""The attention that policies run with: grouped key-value heads on CPUs, and rollouts from a cache that is not padded.

transformers repeats keys and values up to the number of query heads whenever there is a mask; on a CPU that copy made
attention two to three times slower (measured with 4 query and 2 key-value heads, 150 to 400 columns). A rollout hands
its own cache through the model's forward call as the keyword `episodes`.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

POLICY_ATTENTION = "empg_attention"


class EpisodeStore(Protocol):
    """Where a rollout keeps keys and values (`rollout.cache.EpisodeCache`)."""

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float | None, *, ends_only: bool = False
    ) -> Tensor: ...


def policy_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    episodes: EpisodeStore | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """query [B, H, T, D]; key and value [B, H / groups, columns, D]; mask broadcast to [B, 1, T, columns] or None =
    causal. With `episodes`, B = 1, the mask is not read, and the keys and values are those of the T new tokens alone.
    Returns [B, T, H, D]."""
    if episodes is not None:
        return episodes.attend(module.layer_idx, query, key, value, scaling), None
    if query.device.type != "cpu":
        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return output, None
    output = torch.nn.functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=attention_mask,
        dropout_p=dropout,
        is_causal=attention_mask is None and query.shape[2] > 1,
        scale=scaling,
        enable_gqa=True,
    )
    return output.transpose(1, 2).contiguous(), None


ALL_ATTENTION_FUNCTIONS.register(POLICY_ATTENTION, policy_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(POLICY_ATTENTION, sdpa_mask)
