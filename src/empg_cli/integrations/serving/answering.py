"""Prompts to answers by the torch engine, in a thread of its own: requests that come meanwhile join its next pass."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np

from empg_cli.agents.codec import ChatCodec, CompactCodec
from empg_cli.integrations.serving.reading import Reading
from empg_cli.model.policy import Policy
from empg_cli.rollout.engine import Sampling
from empg_cli.rollout.torch_engine.engine import TorchEngine

LOOK_FOR_STOPS_EVERY = 16
"""Tokens between two looks at whether a stop text has been written; what was sampled after it is dropped."""


@dataclass(frozen=True, slots=True)
class Wish:
    sampling: Sampling
    seed: int | None
    """None draws one."""
    stops: Sequence[str] = ()


@dataclass(slots=True)
class Answer:
    ids: list[int]
    """As sampled, the token that ended the turn included."""
    logprobs: list[float] = field(default_factory=list)
    text: str = ""
    """Without that token, and cut before a stop text."""
    is_complete: bool = False
    """It ended by itself or by a stop text; False: max_tokens cut it."""


class Answerer:
    """Use it as a context manager. `answer` may be awaited from any event loop, and cancelled."""

    def __init__(
        self, policy: Policy, codec: CompactCodec | ChatCodec, *, version: int, most_tokens: int, most_at_once: int
    ) -> None:
        """
        Args:
            version: updates that the policy has seen.
            most_tokens: of a prompt and its answer.
            most_at_once: answers that are sampled together; others wait.
        """
        self.codec, self.tokenizer, self.most_tokens = codec, policy.tokenizer, most_tokens
        self.vocabulary: int = policy.model.get_input_embeddings().weight.shape[0]
        self._engine = TorchEngine(policy, codec.stop_ids, most_tokens=most_tokens)
        self._engine.publish(version)
        self._places = asyncio.Semaphore(most_at_once)
        self._number = count()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="engine", daemon=True)

    def __enter__(self) -> Answerer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(_cancel_others(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def answer(self, prompt: Sequence[int], wish: Wish) -> Answer:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._answer(prompt, wish), self._loop))

    async def _answer(self, prompt: Sequence[int], wish: Wish) -> Answer:
        episode, most = next(self._number), wish.sampling.max_new_tokens
        rng = np.random.Generator(np.random.Philox(secrets.randbits(64) if wish.seed is None else wish.seed % 2**64))
        draws, piece = rng.random(most), LOOK_FOR_STOPS_EVERY if wish.stops else most
        answer, reading = Answer([]), Reading(self.codec.decode)
        async with self._places:
            try:
                while len(answer.ids) < most and not answer.is_complete:
                    new = min(piece, most - len(answer.ids))
                    sampling = Sampling(wish.sampling.temperature, new, wish.sampling.top_p)
                    asked = [*prompt, *answer.ids]  # read on from what the engine holds of it
                    done = await self._engine.generate(
                        asked, episode=episode, draws=draws[len(answer.ids) :], sampling=sampling
                    )
                    answer.ids += done.response
                    answer.logprobs += done.logprobs
                    answer.is_complete = done.ended
                    if wish.stops:
                        _stop(answer, reading, done.response, wish.stops)
                    else:
                        answer.text = self.codec.decode(answer.ids)
            finally:
                self._engine.close(episode)
        return answer


def _stop(answer: Answer, reading: Reading, new: Sequence[int], stops: Sequence[str]) -> None:
    """Cut the answer before the first stop text in it, and its tokens after the one that completes that text.

    Args:
        reading: of the answer before its `new` tokens, which hold none.
    """
    looked_at = max(0, reading.settled + 1 - max(map(len, stops)))
    reading.read(new)
    answer.text = reading.text
    if found := [(place, text) for text in stops if (place := answer.text.find(text, looked_at)) >= 0]:
        place, text = min(found)
        length = reading.tokens_of(place + len(text))
        answer.ids, answer.logprobs = answer.ids[:length], answer.logprobs[:length]
        answer.text, answer.is_complete = answer.text[:place], True


async def _cancel_others() -> None:
    others: list[asyncio.Task[Any]] = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
