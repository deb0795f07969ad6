"""The one door to a network: passes that play, score or train go through it, so hooks on it and inside it run."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from empg_cli.model.attention import EpisodeStore
from empg_cli.model.decoder import Places, hidden_states
from empg_cli.model.head import Head, head_of


class LanguageModel(nn.Module):
    """A Hugging Face causal language model that is asked for chosen tokens: body and head in one forward pass."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self._head = head_of(network)

    @property
    def head(self) -> Head:
        """Made anew when the weight is another tensor, as sharding exchanges it."""
        if self._head.weight_VD is not self.network.get_output_embeddings().weight:
            self._head = head_of(self.network)
        return self._head

    def forward(
        self,
        ids_BT: Tensor,
        wanted: Places,
        target_T: Tensor | None = None,
        *,
        temperature: float = 1.0,
        position_ids: Tensor | None = None,
        episodes: EpisodeStore | None = None,
    ) -> Any:
        """What follows the tokens at the places wanted; see `model.decoder.hidden_states` for the other arguments.

        Args:
            target_T: long [W], the tokens that did follow.

        Returns:
            logprob_T, entropy_T: float [W] each, of the targets; without any, float logits [W, V], without a gradient.
        """
        hidden_WD = hidden_states(self.network, ids_BT, position_ids=position_ids, wanted=wanted, episodes=episodes)
        if target_T is None:
            return self.head.logits(hidden_WD)
        return self.head.logprob_and_entropy(hidden_WD, target_T, temperature=temperature)
