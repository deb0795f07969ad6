"""The attention that policies run with: grouped key-value heads on CPUs, and rollouts from a cache that is not padded.

transformers repeats keys and values up to the number of query heads whenever there is a mask; on a CPU that copy made
attention two to three times slower (measured with 4 query and 2 key-value heads, 150 to 400 columns). A rollout hands
its own cache through the model's forward call as the keyword `episodes`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from empg_cli.errors import UserError

POLICY_ATTENTION = "empg_attention"
NOT_COMPUTED = {"s_aux": "learned sinks", "position_bias": "a bias on positions"}
"""What some models hand to their attention, by the keyword that transformers gives it."""


@dataclass(frozen=True, slots=True)
class AttentionRule:
    """What a layer's attention computes beside softmax(q k^T scale) v over all columns up to the query's own."""

    scale: float | None
    """None = 1 / sqrt(head_dim)."""
    window: int | None = None
    """A token sees so many columns at most, its own included."""
    softcap: float | None = None
    """Scores become softcap * tanh(score / softcap) before the softmax."""


class EpisodeStore(Protocol):
    """What attends for the tokens of a packed row: a rollout's cache of keys and values
    (`rollout.torch_engine.cache.EpisodeCache`), or the plan of a pass that scores or trains
    (`model.packed_attention.PackedAttention`)."""

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, rule: AttentionRule, *, ends_only: bool = False
    ) -> Tensor: ...


def use_policy_attention(network: Any) -> None:
    """Make a Hugging Face model attend through `policy_attention`.

    Raises:
        UserError: its layers have code of their own for that.
    """
    if not network._can_set_attn_implementation():
        raise UserError(
            f"{type(network).__name__} computes its attention in code of its own, which the rollout's cache cannot be "
            "read through"
        )
    network.set_attn_implementation(POLICY_ATTENTION)


def policy_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    episodes: EpisodeStore | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """query [B, H, T, D]; key and value [B, H / groups, columns, D]; mask broadcast to [B, 1, T, columns] or None =
    causal: it holds the window, if there is one. With `episodes`, B = 1, the mask is not read, and the keys and values
    are those of the T new tokens alone. Returns [B, T, H, D].

    Raises:
        UserError: the layer asks for something that is not computed here.
    """
    if unknown := sorted(name for name in NOT_COMPUTED if kwargs.get(name) is not None):
        raise UserError(f"its attention has {NOT_COMPUTED[unknown[0]]}, which is not computed here")
    if episodes is not None:
        rule = AttentionRule(scaling, sliding_window, softcap)
        return episodes.attend(module.layer_idx, query, key, value, rule), None
    if attention_mask is not None and attention_mask.shape[-1] == 0:
        raise UserError("its layers do not hand the rollout's cache on to their attention")
    if softcap is not None:
        is_causal = attention_mask is None
        output = capped_attention(query, key, value, attention_mask, scaling, softcap, is_causal, dropout=dropout)
        return output.transpose(1, 2).contiguous(), None
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


def capped_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scale: float | None,
    softcap: float,
    is_causal: bool,
    *,
    dropout: float = 0.0,
) -> Tensor:
    """`scaled_dot_product_attention` with Gemma 2's soft cap on the scores (arXiv 2408.00118, section 2), which torch's
    kernels do not know: the scores of all columns exist at once. Same shapes; fewer key heads than query heads are
    repeated. `mask` is boolean or added to the scores."""
    groups = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(groups, 1) if groups > 1 else part for part in (key, value))
    score = query @ key.transpose(2, 3) * (query.shape[3] ** -0.5 if scale is None else scale)
    score = softcap * torch.tanh(score / softcap)
    if is_causal:
        mask = torch.ones(score.shape[2:], dtype=torch.bool, device=score.device).tril()
    if mask is not None:
        score = score.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else score + mask
    weight = score.softmax(-1, dtype=torch.promote_types(query.dtype, torch.float32)).to(query.dtype)
    return torch.nn.functional.dropout(weight, dropout) @ value


ALL_ATTENTION_FUNCTIONS.register(POLICY_ATTENTION, policy_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(POLICY_ATTENTION, sdpa_mask)
