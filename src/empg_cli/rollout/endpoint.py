"""Sampling from a model behind an OpenAI-compatible server, over chat messages; for evaluation only.

Nothing is known of its tokens, so log-probs and entropies are NaN. A request that stays without an answer ends its
episode, which is then counted apart; a server that refuses the key, or answers nobody, ends the evaluation.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from empg_cli.agents.messages import MessageCodec
from empg_cli.config.endpoint import Endpoint
from empg_cli.errors import UserError
from empg_cli.rollout.engine import NoResponse, Response
from empg_cli.services.errors import AccessDeniedError, NoAnswerError
from empg_cli.services.http import Service
from empg_cli.services.keys import api_key
from empg_cli.types import Status

MOST_LOST_IN_A_ROW: Final = 10
"""So many requests without an answer, and none with one between them: the server is gone."""
_TOO_LONG: Final = re.compile(r"HTTP (400|413|422).*context[ _](length|size|window)", re.IGNORECASE | re.DOTALL)
"""How OpenAI, vLLM, SGLang and llama.cpp say that a prompt does not fit."""


class EndpointError(UserError):
    """The server cannot be used; the message says why and what to do."""


class EndpointEngine:
    """Use it as a context manager, from one thread. `usage` counts what was asked and answered."""

    def __init__(self, settings: Endpoint, codec: MessageCodec) -> None:
        self.settings, self.codec = settings, codec
        self._where = f"the server at {settings.base_url}"
        self._url = settings.base_url.rstrip("/")
        self._key = api_key(settings.api_key_env, "the endpoint")
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else None
        self._runner = asyncio.Runner()
        self._service = Service.of(self._where, settings, headers)
        self._lost_in_a_row = 0
        self.usage = {"requests": 0, "answered": 0, "prompt_tokens": 0, "completion_tokens": 0}

    def __enter__(self) -> EndpointEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._service.close())
        self._runner.close()

    @property
    def retries(self) -> int:
        return self._service.retries

    def start(self, num_rows: int, *, append_only: bool) -> EndpointSession:
        return EndpointSession(self, num_rows, append_only=append_only)

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
            self._runner.run(ask())
        except AccessDeniedError as error:
            if "HTTP 401" in str(error):  # a key may be allowed to chat and not to list models: 403
                raise self._refused(error) from None
        except NoAnswerError as error:
            if "HTTP " not in str(error):  # any answer shows that somebody listens; /models is not everywhere
                raise self._gone(str(error)) from None

    def chat(self, conversations: Sequence[list[dict[str, str]]], **request: Any) -> list[Response | NoResponse]:
        """A response to each conversation, at most `concurrency` at once.

        Args:
            request: fields of each request's body; `seed`, a list, has one value for each conversation.
        """
        seeds = request.pop("seed", None)
        bodies = [
            {
                "model": self.settings.model,
                "messages": messages,
                **request,
                **({"seed": seeds[row]} if seeds else {}),
                **self.settings.extra_body,
            }
            for row, messages in enumerate(conversations)
        ]

        async def ask_all() -> list[Response | NoResponse]:
            return await asyncio.gather(*(self._ask(body) for body in bodies))

        answers = self._runner.run(ask_all())
        lost = [answer for answer in answers if isinstance(answer, NoResponse) and answer.status is Status.ENV_ERROR]
        if len(lost) < len(answers):
            self._lost_in_a_row = 0
            return answers
        self._lost_in_a_row += len(lost)
        if not self.usage["answered"] or self._lost_in_a_row >= MOST_LOST_IN_A_ROW:
            raise self._gone(lost[-1].reason)
        return answers

    async def _ask(self, body: dict[str, Any]) -> Response | NoResponse:
        self.usage["requests"] += 1
        try:
            answer = await self._service.call("POST", f"{self._url}/chat/completions", json=body)
        except AccessDeniedError as error:
            raise self._refused(error) from None
        except NoAnswerError as error:
            reason = self._without_key(str(error))
            status = Status.CONTEXT_OVERFLOW if _TOO_LONG.search(reason) else Status.ENV_ERROR
            return NoResponse(status, reason)
        try:
            choice = answer["choices"][0]
            text = choice["message"].get("content") or ""  # null: all tokens went into hidden reasoning
            ended = choice.get("finish_reason") != "length"
        except (KeyError, IndexError, TypeError, AttributeError):
            reason = self._without_key(f"{self._where} answered in an unknown form: {str(answer)[:120]}")
            return NoResponse(Status.ENV_ERROR, reason)
        self._count(answer.get("usage"))
        return Response([self.codec.add(text)], [math.nan], [math.nan], ended=ended)

    def _count(self, usage: Any) -> None:
        self.usage["answered"] += 1
        if isinstance(usage, dict):
            for key in ("prompt_tokens", "completion_tokens"):
                self.usage[key] += int(usage.get(key) or 0)

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


class EndpointSession:
    def __init__(self, engine: EndpointEngine, num_rows: int, *, append_only: bool) -> None:
        self._engine, self._append_only = engine, append_only
        self._messages: list[list[dict[str, str]]] = [[] for _ in range(num_rows)]

    def keep(self, rows: Sequence[int]) -> None:
        self._messages = [self._messages[row] for row in rows]

    def cut(self, responses: Sequence[Sequence[int]]) -> None:
        for messages, response in zip(self._messages, responses, strict=True):
            if response:
                messages[-1]["content"] = self._engine.codec.decode(response)

    def add(self, count: int) -> None:
        """Room for further episodes, after the others."""
        self._messages += [[] for _ in range(count)]

    def respond(
        self,
        prompts: Sequence[Sequence[int]],
        uniforms: Sequence[np.ndarray],
        *,
        max_new_tokens: int,
        temperature: float,
        top_p: float = 1.0,
    ) -> list[Response | NoResponse]:
        decode = self._engine.codec.decode
        if not self._append_only:
            self._messages = [[] for _ in prompts]
        for messages, prompt in zip(self._messages, prompts, strict=True):
            messages.append({"role": "user", "content": decode(prompt)})
        request: dict[str, Any] = {"temperature": temperature, self._engine.settings.limit_key: max_new_tokens}
        if top_p < 1:
            request["top_p"] = top_p
        if self._engine.settings.send_seed:
            request["seed"] = [int(uniform_T[0] * 2**31) for uniform_T in uniforms]
        answers = self._engine.chat(self._messages, **request)
        for messages, answer in zip(self._messages, answers, strict=True):
            if isinstance(answer, Response):
                messages.append({"role": "assistant", "content": decode(answer.token_ids)})
        return answers
