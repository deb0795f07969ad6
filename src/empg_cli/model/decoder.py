"""Hidden states of chosen tokens: the last decoder layer is computed for them alone.

Of a transcript only the sampled tokens are scored, and of a prompt that a rollout reads only its end. In all layers but
the last every token matters, since later ones attend to it. In the last layer the other tokens matter by their keys and
values only, so their queries, MLP and norms are left out; what comes out is the same up to rounding.

The layer does that in its own forward pass (`ChoosingLayer`), so hooks on it, such as those of sharding, run, and so
does gradient checkpointing.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from empg_cli.model.attention import AttentionRule, EpisodeStore, policy_attention

STANDARD_LAYERS = frozenset({"llama", "qwen2", "qwen3"})
"""Model types with the layers that `_chosen` knows. Others compute every token in the last layer too."""
MASK_ELEMENTS = 2**25
"""Largest attention mask of the last layer; beyond it all queries are computed, which needs none."""

Places = tuple[Tensor, Tensor]
"""Which hidden states are asked for: two long [W] tensors, rows and columns of the ids."""


def hidden_states(
    network: Any,
    ids_BT: Tensor,
    *,
    position_ids: Tensor | None = None,
    wanted: Places | None = None,
    episodes: EpisodeStore | None = None,
) -> Tensor:
    """Last hidden states, after the final norm, of a Hugging Face causal language model.

    Attention is causal, without a padding mask.

    Args:
        position_ids: long, broadcast to [B, T]; None counts from 0.
        wanted: None asks for all, in shape [B, T, D].
        episodes: where a packed row (B = 1) is attended: a rollout's cache, aimed at these tokens, of which the ends of
            its chunks are wanted; or the plan of a pass that scores or trains, made for the places wanted.

    Returns:
        [W, D], in the order of `wanted`; [B, T, D] without it.
    """
    body = network.base_model
    if not has_standard_layers(network.config):
        # With episodes the mask is not read, and none is built from a mask of this shape; attention that sees it
        # without them refuses.
        mask = None if episodes is None else torch.empty(1, 1, 0, 0, device=ids_BT.device)
        output = body(
            input_ids=ids_BT, position_ids=position_ids, attention_mask=mask, use_cache=False, episodes=episodes
        )
        hidden_BTD: Tensor = output.last_hidden_state
        return hidden_BTD if wanted is None else hidden_BTD[wanted]
    if position_ids is None:
        position_ids = torch.arange(ids_BT.shape[1], device=ids_BT.device)[None]
    hidden_BTD = body.embed_tokens(ids_BT)
    rotary = body.rotary_emb(hidden_BTD, position_ids)
    for layer in body.layers if wanted is None else body.layers[:-1]:
        hidden_BTD = layer(
            hidden_BTD, attention_mask=None, position_ids=position_ids, position_embeddings=rotary, episodes=episodes
        )
    hidden = hidden_BTD
    if wanted is not None:
        hidden = choosing(body.layers[-1])(hidden_BTD, position_embeddings=rotary, wanted=wanted, episodes=episodes)
    normed: Tensor = body.norm(hidden)
    return normed


def has_standard_layers(config: Any) -> bool:
    """Whether all layers are of the kind that `_chosen` knows, with full attention."""
    layers = set(getattr(config, "layer_types", None) or ["full_attention"])
    return config.model_type in STANDARD_LAYERS and layers == {"full_attention"}


def choosing(layer: Any) -> Any:
    """The layer, of a class whose forward pass takes `wanted` and then computes their output [W, D] alone."""
    if not isinstance(layer, ChoosingLayer):
        layer.__class__ = _choosing_class(layer.__class__)
    return layer


class ChoosingLayer:
    """What a decoder layer's class gets in front of it. The layer keeps its parameters, hooks and name in the model; it
    can be copied and saved, and not pickled."""

    def forward(self, hidden_states: Tensor, *arguments: Any, wanted: Places | None = None, **named: Any) -> Any:
        if wanted is None:
            return super().forward(hidden_states, *arguments, **named)  # type: ignore[misc]
        return _chosen(self, hidden_states, wanted, named["position_embeddings"], named["episodes"])


@cache
def _choosing_class(kind: type) -> type:
    return type(kind.__name__, (ChoosingLayer, kind), {})


def _chosen(
    layer: Any, hidden_BTD: Tensor, wanted: Places, rotary: tuple[Tensor, Tensor], episodes: EpisodeStore | None
) -> Tensor:
    """The layer's output [W, D] at the places wanted."""
    normed_BTD = layer.input_layernorm(hidden_BTD)
    if episodes is not None:
        attended_WD = _attended(layer.self_attn, normed_BTD, rotary, wanted, episodes)
    elif (queries := _Queries(wanted, hidden_BTD.shape)).are_few:
        attended_WD = _attended(layer.self_attn, normed_BTD, rotary, wanted, queries)
    else:
        attended_BTD, _ = layer.self_attn(normed_BTD, position_embeddings=rotary, attention_mask=None)
        attended_WD = attended_BTD[wanted]
    residual_WD = hidden_BTD[wanted] + attended_WD
    out_WD: Tensor = residual_WD + layer.mlp(layer.post_attention_layernorm(residual_WD))
    return out_WD


def _attended(
    module: Any, normed_BTD: Tensor, rotary: tuple[Tensor, Tensor], wanted: Places, source: EpisodeStore | _Queries
) -> Tensor:
    """The attention's output [W, D]: keys and values of all tokens, queries of those wanted."""
    cos_BTH, sin_BTH = (part.expand(len(normed_BTD), -1, -1) for part in rotary)

    def heads(projection: Any, hidden: Tensor) -> Tensor:
        values: Tensor = projection(hidden)
        return values.view(*values.shape[:-1], values.shape[-1] // module.head_dim, module.head_dim)

    query_WHD = heads(module.q_proj, normed_BTD[wanted])
    key_BTHD, value_BTHD = heads(module.k_proj, normed_BTD), heads(module.v_proj, normed_BTD)
    if hasattr(module, "q_norm"):
        query_WHD, key_BTHD = module.q_norm(query_WHD), module.k_norm(key_BTHD)
    query_WHD = _rotated(query_WHD, cos_BTH[wanted], sin_BTH[wanted])
    key_BHTD, value_BHTD = _rotated(key_BTHD, cos_BTH, sin_BTH).transpose(1, 2), value_BTHD.transpose(1, 2)
    if isinstance(source, _Queries):
        out_WHD = source.attend(module, query_WHD, key_BHTD, value_BHTD)
    else:
        query = query_WHD.transpose(0, 1)[None]
        out_WHD = source.attend(
            module.layer_idx, query, key_BHTD, value_BHTD, AttentionRule(module.scaling), ends_only=True
        )[0]
    out_WD: Tensor = module.o_proj(out_WHD.flatten(1))
    return out_WD


class _Queries:
    """Where the queries of ragged places stand when each row's are moved to its front."""

    def __init__(self, wanted: Places, shape: torch.Size) -> None:
        row_W, column_W = wanted
        self._rows, self._columns = shape[:2]
        count_B = torch.bincount(row_W, minlength=self._rows)
        self._width = int(count_B.max())
        order_W = torch.argsort(row_W, stable=True)
        rank_W = torch.empty_like(row_W)
        before_B = count_B.cumsum(0) - count_B
        rank_W[order_W] = torch.arange(len(row_W), device=row_W.device) - before_B[row_W[order_W]]
        self._place_W = row_W * self._width + rank_W
        self._column_W = column_W

    @property
    def are_few(self) -> bool:
        """Whether leaving the others out pays for the mask."""
        return 2 * self._width <= self._columns and self._rows * self._width * self._columns <= MASK_ELEMENTS

    def attend(self, module: Any, query_WHD: Tensor, key_BHTD: Tensor, value_BHTD: Tensor) -> Tensor:
        """[W, heads, head_dim]: what each query takes from the columns of its row up to its own."""
        places = self._rows * self._width
        query_PHD = query_WHD.new_zeros(places, *query_WHD.shape[1:]).index_copy(0, self._place_W, query_WHD)
        query_BHQD = query_PHD.unflatten(0, (self._rows, self._width)).transpose(1, 2)
        # An empty place sees the first column; its result is never taken.
        column_P = self._column_W.new_zeros(places).index_copy_(0, self._place_W, self._column_W)
        key_column_T = torch.arange(self._columns, device=column_P.device)
        sees_B1QT = (key_column_T <= column_P[:, None]).unflatten(0, (self._rows, 1, self._width))
        dropout = module.attention_dropout if module.training else 0.0
        out_BQHD, _ = policy_attention(
            module, query_BHQD, key_BHTD, value_BHTD, sees_B1QT, dropout=dropout, scaling=module.scaling
        )
        return out_BQHD.flatten(0, 1)[self._place_W]


def _rotated(values_HD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding (arXiv 2104.09864) in the layout of Llama: the two halves of a head are the pairs.

    values [..., H, D]; cos, sin [..., D].
    """
    left, right = values_HD.chunk(2, -1)
    return values_HD * cos[..., None, :] + torch.cat((-right, left), -1) * sin[..., None, :]
