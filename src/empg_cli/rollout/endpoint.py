"""Sampling from a model behind an OpenAI-compatible server, over chat messages; for evaluation only.

Nothing is known of its tokens: a response is one message, without log-probs. A request that stays without an answer
ends its episode, which is then counted apart; a server that refuses the key, or answers nobody, ends the evaluation.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Coroutine, Hashable, Sequence
from itertools import count
from typing import Any, Final

import numpy as np

from empg_cli.agents.messages import Message
from empg_cli.config.endpoint import Endpoint
from empg_cli.errors import UserError
from empg_cli.rollout.engine import Completion, NoCompletion, Sampling
from empg_cli.services.api_keys import api_key
from empg_cli.services.chat import read_reply
from empg_cli.services.errors import AccessDeniedError, BadAnswerError, NoAnswerError
from empg_cli.services.http import Service
from empg_cli.types import Status

MOST_LOST_IN_A_ROW: Final = 10
"""So many requests without an answer, and none with one between them: the server is gone."""
_TOO_LONG: Final = re.compile(
    r"HTTP (400|413|422).*(context[ _](length|size|window)|exceeds? the configured limit)", re.IGNORECASE | re.DOTALL
)
"""How OpenAI, vLLM, SGLang and llama.cpp say that a prompt does not fit, somewhere in what they answer."""


class EndpointError(UserError):
    """The server cannot be used; the message says why and what to do."""


class _Lost(NoCompletion):
    def __init__(self, status: Status, reason: str, *, somebody_answered: bool) -> None:
        super().__init__(status, reason)
        self.somebody_answered = somebody_answered
        """It was no answer to the question, but asking again would bring the same."""


class EndpointEngine:
    """Use it as a context manager, from one thread. `usage` counts what was asked and answered."""

    is_deterministic = False

    def __init__(self, settings: Endpoint) -> None:
        self.settings = settings
        self._where = f"the server at {settings.base_url}"
        self._url = settings.base_url.rstrip("/")
        self._key = api_key(settings.api_key_env, "the endpoint")
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else None
        self._service = Service.of(self._where, settings, headers)
        self._asked = count()
        self._in_flight: set[int] = set()
        """Numbers of the requests that wait for an answer."""
        self._lost_in_a_row, self._first_after_loss = 0, 0
        # Connections live in one event loop, and every rollout has its own.
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="endpoint", daemon=True)
        self._thread.start()
        self.usage = {"requests": 0, "answered": 0, "prompt_tokens": 0, "completion_tokens": 0}

    def __enter__(self) -> EndpointEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self._wait_for(self._service.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def retries(self) -> int:
        return self._service.retries

    def check(self) -> None:
        """Raise EndpointError when nobody listens at the address, or the key is refused, before anything is played."""
        one_try = self.settings.model_copy(update={"attempts": 1})
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else None

        async def ask() -> None:
            service = Service.of(self._where, one_try, headers)
            try:
                await service.call_text("GET", f"{self._url}/models")
            finally:
                await service.close()

        try:
            self._wait_for(ask())
        except AccessDeniedError as error:
            if "HTTP 401" in str(error):  # a key may be allowed to chat and not to list models: 403
                raise self._refused(error) from None
        except NoAnswerError as error:
            if "HTTP " not in str(error):  # any answer shows that somebody listens; /models is not everywhere
                raise self._gone(str(error)) from None

    async def generate(
        self, prompt: Sequence[Message], *, episode: Hashable, draws: np.ndarray, sampling: Sampling
    ) -> Completion[Message]:
        body: dict[str, Any] = {
            "model": self.settings.model,
            "messages": [{"role": message.role, "content": message.content} for message in prompt],
            "temperature": sampling.temperature,
            self.settings.limit_key: sampling.max_new_tokens,
        }
        if sampling.top_p < 1:
            body["top_p"] = sampling.top_p
        if self.settings.send_seed:
            body["seed"] = int(draws[0] * 2**31)
        number = next(self._asked)
        self._in_flight.add(number)
        try:
            asked = asyncio.run_coroutine_threadsafe(self._ask(body | self.settings.extra_body), self._loop)
            completion = await asyncio.wrap_future(asked)
        except _Lost as lost:
            self._in_flight.discard(number)
            self._note_loss(lost)
            raise
        finally:
            self._in_flight.discard(number)
        self._lost_in_a_row = 0
        return completion

    def close(self, episode: Hashable) -> None:
        """Nothing is held here."""

    def revive(self) -> None:
        """A server that is gone raises EndpointError, which ends the evaluation: it is somebody else's."""

    def _note_loss(self, lost: _Lost) -> None:
        """Raise EndpointError when the server is gone: all that was asked so far is lost, or much in a row. What was
        asked before the row began may yet be answered: a refusal can be faster than an answer. Where somebody answers,
        however badly, that ends episodes one by one, unless not one answer was ever good."""
        if lost.status is not Status.ENV_ERROR:
            self._lost_in_a_row = 0  # the server is there
            return
        if not self._lost_in_a_row:
            self._first_after_loss = max(self._in_flight, default=-1) + 1
        self._lost_in_a_row += 1
        none_was_good = not self.usage["answered"]
        all_are_lost = none_was_good and not self._in_flight and not lost.somebody_answered
        are_many = self._lost_in_a_row >= MOST_LOST_IN_A_ROW and (none_was_good or not lost.somebody_answered)
        if all_are_lost or (
            are_many and min(self._in_flight, default=self._first_after_loss) >= self._first_after_loss
        ):
            raise self._gone(lost.reason) from None

    def _wait_for(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _ask(self, body: dict[str, Any]) -> Completion[Message]:
        self.usage["requests"] += 1
        max_tokens = int(body[self.settings.limit_key])
        try:
            reply = await self._service.ask(
                "POST",
                f"{self._url}/chat/completions",
                lambda answer: read_reply(answer, max_tokens=max_tokens),
                json=body,
            )
        except AccessDeniedError as error:
            raise self._refused(error) from None
        except NoAnswerError as error:
            reason = self._without_key(str(error))
            said = error.said if isinstance(error, BadAnswerError) else ""
            status = Status.CONTEXT_OVERFLOW if _TOO_LONG.search(f"{reason} {said}") else Status.ENV_ERROR
            raise _Lost(status, reason, somebody_answered=isinstance(error, BadAnswerError)) from None
        self.usage["answered"] += 1
        self.usage["prompt_tokens"] += reply.prompt_tokens
        self.usage["completion_tokens"] += reply.completion_tokens
        return Completion([Message("assistant", reply.text)], [], None, not reply.was_cut, policy_version=0)

    def _refused(self, error: Exception) -> EndpointError:
        variable = self.settings.api_key_env
        what_to_do = f"the key is the one in {variable}" if variable else "set endpoint.api_key_env=NAME_OF_VARIABLE"
        return EndpointError(f"{self._without_key(str(error))}; {what_to_do}")

    def _gone(self, reason: str) -> EndpointError:
        return EndpointError(
            f"{self._without_key(reason)}\nno answer could be had: is the server running, and are endpoint.base_url "
            "and endpoint.model right?"
        )

    def _without_key(self, text: str) -> str:
        """Servers may repeat what they were sent."""
        return text.replace(self._key, "***") if self._key else text
