"""What a rollout engine is: one call that goes from a prompt to a completion, awaited by any number of episodes."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol

import numpy as np

from empg_cli.agents.codec import P
from empg_cli.types import Status


@dataclass(frozen=True, slots=True)
class Sampling:
    temperature: float
    """0 = greedy; log-probs and entropies are then those at temperature 1."""
    max_new_tokens: int
    top_p: float = 1.0
    """Below 1, log-probs and entropies are those of the cut distribution, which no training pass reproduces; for
    evaluation only."""


@dataclass(slots=True)
class Completion(Generic[P]):
    response: list[P]
    """As sampled, the end-of-turn token included unless `max_new_tokens` cut the response."""
    logprobs: list[float]
    """One for each token; empty where nothing is known of them."""
    entropies: list[float] | None
    """Nats, of the distribution each token was drawn from; None where the engine does not see it."""
    ended: bool
    """The model ended its turn itself."""
    policy_version: int
    """Updates that the policy had seen when it sampled this."""


class NoCompletion(Exception):  # noqa: N818 (an answer that says why there is none)
    """The engine cannot answer this prompt; the episode ends, the rollout goes on."""

    def __init__(self, status: Status, reason: str) -> None:
        """status: CONTEXT_OVERFLOW when the prompt was too long for the model, else ENV_ERROR."""
        super().__init__(reason)
        self.status, self.reason = status, reason


class EngineLost(Exception):  # noqa: N818 (what has happened to another process)
    """Nobody is left who answers, or who has the weights that were published; `Engine.revive` waits for them.
    What was being played is lost."""


class Engine(Protocol[P]):
    is_deterministic: bool
    """Answers come in an order that depends on the prompts alone. Where they do not, nothing is gained by waiting in
    order, so environments that wait for a network do it beside the engine (`rollout.stepping`)."""

    async def generate(
        self, prompt: Sequence[P], *, episode: Hashable, draws: np.ndarray, sampling: Sampling
    ) -> Completion[P]:
        """Sample a response to a whole prompt.

        Args:
            prompt: everything that the model is to read, earlier turns included.
            episode: names the episode, so that what the engine has read of it already is not read again.
            draws: `max_new_tokens` numbers in [0, 1), the only source of randomness: an episode does not depend on the
                company it was sampled in.

        Raises:
            NoCompletion: there is no response.
        """
        ...

    def close(self, episode: Hashable) -> None:
        """The episode is over: what is held for it may go."""
        ...

    def revive(self) -> None:
        """After `EngineLost` on one rank: returns when the engine can be asked again. A common point of all ranks.

        Raises:
            ServerDown: it does not come back.
        """
        ...


class LearnersEngine(Engine[int], Protocol):
    """An engine that plays with a policy that learns. Its own methods are common points of all ranks."""

    policy_version: int
    """Updates that the policy had seen when it was last published."""

    def publish(self, version: int) -> dict[str, float]:
        """The policy has changed: what is sampled from now on is of this version. Where episodes go on meanwhile, the
        answers under way go on with the new weights.

        Returns:
            What to log about it.

        Raises:
            ServerDown: what the engine samples from is gone, or is not the policy that learns.
        """
        ...

    def rest(self) -> None:
        """Nothing is asked before the next `publish`: what is held on the device of the learner may go."""
        ...
