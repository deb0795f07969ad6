"""Sampling with the training model itself: every token, one batch of all episodes that have something to say.

Batching is continuous: between two tokens the engine takes the prompts that wait, and an answer that has ended goes to
its episode at once, so no turn waits for the longest answer of the others. Nothing depends on a clock: on one process a
rollout is the same bit for bit each time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from empg_cli.model.loading import ModelError
from empg_cli.model.policy import Policy
from empg_cli.rollout.engine import Completion, Sampling
from empg_cli.rollout.torch_engine.reader import Reader, Row
from empg_cli.rollout.torch_engine.sampling import sample

READ_LAYERS = frozenset({"full_attention", "sliding_attention"})
"""Of the kinds that Hugging Face configs list in `layer_types`."""
READ_TOGETHER = 1 / 8
"""Of the open episodes; so many prompts are worth a pass that is no longer one of single tokens."""
LONGEST_WAIT = 8
"""Passes; a prompt is read in the last of them at the latest."""
LOOK_EVERY = 8
"""Passes on a GPU between two looks of the host at what was drawn: each costs a wait for the device, and what an answer
draws after its end is drawn for nothing."""


@dataclass(slots=True, eq=False)
class _Request:
    """One call of `generate` until its answer has ended."""

    episode: Hashable
    context: list[int]
    """Prompt and what was sampled so far."""
    draws: np.ndarray
    sampling: Sampling
    answer: asyncio.Future[Completion[int]]
    logprobs: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)

    @property
    def drawn_by(self) -> tuple[float, float]:
        """Temperature and top_p."""
        return self.sampling.temperature, self.sampling.top_p

    @property
    def left(self) -> int:
        """Tokens that may still be sampled."""
        return self.sampling.max_new_tokens - len(self.logprobs)

    def take(self, token: float, logprob: float, entropy: float) -> None:
        self.context.append(int(token))
        self.logprobs.append(logprob)
        self.entropies.append(entropy)


class TorchEngine:
    """share_prefixes: what the cache holds is copied, not computed again (`torch_engine.reader`). Off, the same tokens
    come out up to rounding; only benchmarks and tests want that.
    most_tokens: of an episode, prompt and answer (`rollout.max_context_tokens`); bounds the cache. None = no bound.
    look_every: tokens that are drawn on the device before the host looks at them (`torch_engine.decoding`); the same
    come out. None: LOOK_EVERY on a GPU; elsewhere 0, which looks after every pass, and plans it by what each episode
    has read.
    """

    is_deterministic = True

    def __init__(
        self,
        policy: Policy,
        stop_ids: Sequence[int],
        *,
        share_prefixes: bool = True,
        most_tokens: int | None = None,
        look_every: int | None = None,
    ) -> None:
        config = policy.model.config.get_text_config()
        if foreign := sorted(set(getattr(config, "layer_types", None) or ()) - READ_LAYERS):
            raise ModelError(
                f"rollout.engine=torch reads layers of attention, full or in a sliding window, and {config.model_type} "
                f"has layers of {', '.join(foreign)}"
            )
        self.policy_version = 0
        self._policy = policy
        self._device = policy.device
        self._stop_ids = frozenset(stop_ids)
        self._look_every = (LOOK_EVERY if policy.device.type == "cuda" else 0) if look_every is None else look_every
        # What an answer draws after its end has columns, too.
        most_columns = None if most_tokens is None else most_tokens + max(0, self._look_every - 1)
        self._reader = Reader(policy, share=share_prefixes, most_columns=most_columns, burst=self._look_every)
        self._waiting: list[_Request] = []
        self._patience = LONGEST_WAIT
        self._running: asyncio.Task[None] | None = None

    def publish(self, version: int) -> dict[str, float]:
        """The policy has changed, in place: what is sampled from now on is of this version."""
        assert not self._reader, "keys and values of open episodes are those of the old weights"
        if self._policy.sharding is not None:
            self._policy.sharding.gather()  # every rank decodes by itself
        self.policy_version = version
        return {}

    def rest(self) -> None:
        """Nothing is held between rollouts but the weights."""

    def revive(self) -> None:
        """It cannot be lost without this process."""

    async def generate(
        self, prompt: Sequence[int], *, episode: Hashable, draws: np.ndarray, sampling: Sampling
    ) -> Completion[int]:
        answer: asyncio.Future[Completion[int]] = asyncio.get_running_loop().create_future()
        if self._running is None or self._running.done():  # an interrupt may have ended it with requests unread
            self._waiting = []
            self._running = asyncio.create_task(self._run())
        self._waiting.append(_Request(episode, list(prompt), draws, sampling, answer))
        return await answer

    def close(self, episode: Hashable) -> None:
        self._reader.close(episode)

    async def _run(self) -> None:
        """Pass after pass while anybody waits for a token."""
        going: list[tuple[Row, _Request]] = []
        new: list[_Request] = []
        try:
            while True:
                # A cancelled episode has closed its row, whose slot may be another's by now.
                going = [(row, request) for row, request in going if not request.answer.done()]
                self._waiting = [request for request in self._waiting if not request.answer.done()]
                if not going and not self._waiting:
                    return
                new = self._taken(going)
                going = self._advance(going, new)
                await asyncio.sleep(0)  # episodes whose answers have ended step their environments and ask again
        except BaseException as error:  # each episode raises it
            for request in [*(request for _, request in going), *new, *self._waiting]:
                if not request.answer.done():
                    request.answer.set_exception(error)

    def _taken(self, going: Sequence[object]) -> list[_Request]:
        """The prompts to read now. Reading some costs a pass more than their number, so they wait for one another, but
        neither for all others nor for long."""
        self._patience = self._patience - 1 if self._waiting else LONGEST_WAIT
        if going and self._patience > 0 and len(self._waiting) < READ_TOGETHER * len(self._reader):
            return []
        self._patience = LONGEST_WAIT
        taken, self._waiting = self._waiting, []
        return taken

    @torch.inference_mode()
    def _advance(self, going: list[tuple[Row, _Request]], new: Sequence[_Request]) -> list[tuple[Row, _Request]]:
        """A token for each, or some of them; returns those whose answer goes on, in the order of their slots."""
        if new:
            surplus = max(0, self._look_every - 1)  # drawn after an answer's end
            rows = self._reader.open(
                [(request.episode, request.context) for request in new],
                columns=max(len(request.context) + request.left for request in new) + surplus,
            )
            going = [*going, *zip(rows, new, strict=True)]
        going.sort(key=lambda pair: pair[0].slot)  # also without new ones: a row may have moved
        kinds = {request.drawn_by for _, request in going}
        if new or not self._look_every or len(kinds) > 1:
            self._read(going)
        else:
            self._decode(going, *kinds.pop())
        return [(row, request) for row, request in going if not request.answer.done()]

    def _read(self, going: Sequence[tuple[Row, _Request]]) -> None:
        """A pass over what is new to each, and a token for each."""
        requests = [request for _, request in going]
        logit_BV = self._reader.read([row for row, _ in going], [request.context for request in requests])
        for request, drawn in zip(requests, self._drawn(requests, logit_BV), strict=True):
            request.take(*drawn)
            self._answer_if_ended(request)

    def _decode(self, going: Sequence[tuple[Row, _Request]], temperature: float, top_p: float) -> None:
        """Several passes over single tokens without a look at what they draw."""
        requests = [request for _, request in going]
        passes = min(self._look_every, max(request.left for request in requests))
        uniform_KN = np.zeros((passes, len(going)))
        for number, request in enumerate(requests):
            draws = request.draws[len(request.logprobs) :][:passes]
            uniform_KN[: len(draws), number] = draws
        drawn_3KN = self._reader.decode(
            [row for row, _ in going], [request.context for request in requests], uniform_KN, temperature, top_p
        )
        for (row, request), drawn_3K in zip(going, drawn_3KN.transpose(2, 0, 1), strict=True):
            for drawn in drawn_3K.T.tolist():
                request.take(*drawn)
                if self._answer_if_ended(request):
                    break  # what was drawn after it never was
            self._reader.keep(row, request.context)
        if self._waiting:
            self._patience -= passes - 1

    def _drawn(self, requests: Sequence[_Request], logit_BV: Tensor) -> list[tuple[float, float, float]]:
        """Token, log-prob and entropy for each request."""
        uniform_B = torch.tensor([request.draws[len(request.logprobs)] for request in requests], device=self._device)
        kinds = {request.drawn_by for request in requests}
        if len(kinds) == 1:
            parts = sample(logit_BV, uniform_B, *kinds.pop())
            drawn_B3: list[tuple[float, float, float]] = torch.stack([part.double() for part in parts], 1).tolist()
            return drawn_B3  # one copy from the device
        return [
            drawn
            for number, request in enumerate(requests)
            for drawn in self._drawn([request], logit_BV[number : number + 1])
        ]

    def _answer_if_ended(self, request: _Request) -> bool:
        """Whether the last token ends the answer, which then goes to its episode."""
        sampled = len(request.logprobs)
        ended = request.context[-1] in self._stop_ids
        if not ended and sampled < request.sampling.max_new_tokens:
            return False
        response = request.context[len(request.context) - sampled :]
        request.answer.set_result(Completion(response, request.logprobs, request.entropies, ended, self.policy_version))
        return True
