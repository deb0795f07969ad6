"""After every transfer of weights: do the servers sample with them? A few tokens of each are compared.

Weights that have stayed old are silent elsewhere: the label says what was sent, and training goes on with an importance
weight that nobody expects. What cannot be seen: differences that one small update makes, in half precision.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, Final

import torch

from empg_cli.model.batch import make_batch
from empg_cli.model.policy import Policy
from empg_cli.ranks import Ranks
from empg_cli.services.errors import ServerDown, ServiceError
from empg_cli.services.vllm import MODEL, Answer, VllmServer, question
from empg_cli.types import Step, Task, Trajectory

log = logging.getLogger(__name__)

PROMPT_TOKENS: Final = (19, 5, 12)
NEW_TOKENS: Final = 8
LIMIT: Final = {torch.float32: 1e-4}
"""Nats; the mean gap of a sound server is 1e-6 there."""
HALF_LIMIT: Final = 0.5
"""Nats, in half precision; 0.01 to 0.04 are rounding."""
WARN: Final = 0.1
"""Share of the limit that is worth a line."""

Ask = Callable[[Callable[[VllmServer], Any]], list[Any]]


class Probe:
    def __init__(
        self, policy: Policy, *, temperature: float, ranks: Ranks, max_gap: float | None, model: str = MODEL
    ) -> None:
        """
        Args:
            temperature: that training samples at.
            max_gap: `rollout.vllm.max_gap`.
        """
        self._policy, self._temperature, self._ranks, self._model = policy, temperature, ranks, model
        self._limit = max_gap or LIMIT.get(policy.dtype, HALF_LIMIT)
        vocabulary = len(policy.head.weight_VD)
        ids = (int(number * 0.6180339887 % 1 * vocabulary) for number in count(1))
        self._prompts = [[next(ids) for _ in range(size)] for size in PROMPT_TOKENS]

    def largest_gap(self, ask: Ask, version: int) -> float:
        """Nats between log-probs of a server and of the policy, in the mean over its tokens; a common point of ranks.

        Raises:
            ServerDown: it is too large, or a server does not answer, or with weights of another version.
        """
        found: list[list[Answer]] | str = ""
        if self._ranks.is_first:
            try:
                found = ask(self._answers)
            except ServiceError as error:
                found = str(error)
        found = self._ranks.of_first(found)
        if isinstance(found, str):
            raise ServerDown(f"a server that has just taken weights does not answer: {found}")
        old = [(number, one.newest) for number, answers in enumerate(found) for one in answers if one.oldest != version]
        if old:
            raise ServerDown(f"server {old[0][0]} answers with weights of version {old[0][1]} after it took {version}")
        gap_S = self._gaps([answer for answers in found for answer in answers])
        gaps: list[float] = self._ranks.of_first(gap_S.view(len(found), -1).mean(1).tolist())  # one verdict
        worst = max(gaps)
        if not worst <= self._limit:
            raise ServerDown(
                f"server {gaps.index(worst)} does not sample from the policy that learns: log-probs of the same tokens "
                f"differ by {worst:.2g} nats in the mean (rollout.vllm.max_gap: {self._limit:g})"
            )
        if worst > WARN * self._limit and self._ranks.is_first:
            log.warning("log-probs of a server of vLLM differ by %.2g nats from those of the policy", worst)
        return worst

    async def _answers(self, server: VllmServer) -> list[Answer]:
        return [
            await server.generate(
                question(
                    prompt,
                    name=f"empg-probe-{number}",
                    seed=number,
                    stop_ids=(),
                    max_tokens=NEW_TOKENS,
                    temperature=self._temperature,
                    model=self._model,
                )
            )
            for number, prompt in enumerate(self._prompts)
        ]

    @torch.no_grad()
    def _gaps(self, answers: Sequence[Answer]) -> torch.Tensor:
        """Mean absolute difference of each answer, float [S]."""
        steps = []
        for number, answer in enumerate(answers):
            prompt = self._prompts[number % len(self._prompts)]
            steps.append(Step(prompt, answer.token_ids, answer.logprobs, [float("nan")] * len(answer.token_ids)))
        played = [Trajectory(Task("probe", "probe", "none"), number, 0, [step]) for number, step in enumerate(steps)]
        batch = make_batch(played, append_only=True)
        logprob_ST, _ = self._policy.score(
            batch, range(len(batch.row_ids)), torch.arange(batch.num_steps), temperature=self._temperature
        )
        return (logprob_ST.cpu() - batch.old_logprob_ST).abs().mean(1)
