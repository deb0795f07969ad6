"""From last hidden states to logits, as each family of models does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from empg_cli.errors import UserError
from empg_cli.model.scoring import logits, logprob_and_entropy


@dataclass(frozen=True)
class Head:
    """logits = softcap * tanh(u / softcap) with u = scale * (W h + b); without a soft cap, u itself."""

    weight_VD: Tensor
    bias_V: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None

    def logits(self, hidden_TD: Tensor) -> Tensor:
        """fp32 [T, V], from hidden states of the weight's type; takes no gradient."""
        return logits(hidden_TD, self.weight_VD, bias_V=self.bias_V, scale=self.scale, softcap=self.softcap)

    def logprob_and_entropy(
        self, hidden_TD: Tensor, target_T: Tensor, *, temperature: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Log-probs of the targets and entropies of their distributions; see `model.scoring`."""
        return logprob_and_entropy(
            hidden_TD,
            self.weight_VD,
            target_T,
            temperature=temperature,
            bias_V=self.bias_V,
            scale=self.scale,
            softcap=self.softcap,
        )


def head_of(network: Any) -> Head:
    """The head of a Hugging Face causal language model: its output embeddings and what its config says of the logits.

    The keys are those of Granite (`logits_scaling` divides), Cohere (`logit_scale`), Falcon-H1 (`lm_head_multiplier`)
    and Gemma 2 (`final_logit_softcapping`). A key that a family names otherwise is found by `rollout.parity`.

    Raises:
        UserError: the model has no linear head.
    """
    linear = network.get_output_embeddings()
    if not isinstance(linear, torch.nn.Linear):
        raise UserError(
            f"{type(network).__name__} has no linear layer from hidden states to words, so its log-probs cannot be "
            "computed here"
        )
    config = network.config.get_text_config()

    def number(name: str) -> float | None:
        value: float | None = getattr(config, name, None)
        return value

    scale = (number("logit_scale") or 1.0) * (number("lm_head_multiplier") or 1.0) / (number("logits_scaling") or 1.0)
    return Head(linear.weight, linear.bias, scale, number("final_logit_softcapping"))
