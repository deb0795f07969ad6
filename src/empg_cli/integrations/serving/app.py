"""The HTTP side: which path asks for what, and OpenAI's form of what comes back.

    GET  /v1/models            the one model
    POST /v1/chat/completions  messages, through the model's own chat template
    POST /v1/completions       a text or token ids as they are
    GET  /health               {"status": "ok"}

A plain ASGI application; uvicorn (extra `serve`) runs it.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Final

from empg_cli.agents.chat_template import ChatTemplateError
from empg_cli.agents.codec import ChatCodec
from empg_cli.agents.control_tokens import encoding
from empg_cli.integrations.serving.answering import Answer, Answerer, Wish
from empg_cli.integrations.serving.reading import UNFINISHED, Reading
from empg_cli.integrations.serving.requests import ChatRequest, CompletionRequest, RequestError, read_request
from empg_cli.rollout.engine import Sampling
from empg_cli.services.asgi import BadRequestError, Receive, Send, encoded, json_body, send_json

log = logging.getLogger(__name__)

MOST_PROMPTS: Final = 1024
"""In one request, times `n`."""
BODY_S: Final = 60.0
"""Seconds for the body of a request."""
PATHS: Final = {"/v1/models": "GET", "/health": "GET", "/v1/chat/completions": "POST", "/v1/completions": "POST"}


class ServingApp:
    def __init__(
        self, answerer: Answerer, *, name: str, source: str, default_tokens: int, is_open: bool = False
    ) -> None:
        """
        Args:
            name: of the model, in requests.
            source: the checkpoint, as clients are told.
            default_tokens: of an answer whose request names no limit.
            is_open: others than this machine can ask; they are not told what an engine's error says.
        """
        self._answerer, self._name, self._source = answerer, name, source
        self._default_tokens, self._is_open = default_tokens, is_open
        self._made = int(time.time())

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "lifespan":
                while True:
                    kind = (await receive())["type"].removeprefix("lifespan.")
                    await send({"type": f"lifespan.{kind}.complete"})
                    if kind == "shutdown":
                        return
            case "http":
                try:
                    answer = await self._answer(scope["method"], scope["path"].rstrip("/"), receive)
                    status, body = 200, encoded(answer)
                except RequestError as error:
                    status, body = error.status, encoded(error.as_dict())
                except BadRequestError as error:
                    status = 413 if error.status == 413 else 400
                    body = encoded(RequestError(str(error)).as_dict())
                except _HungUp:
                    return
                except Exception as error:  # a client learns that it is not to blame, the log has the rest
                    log.exception("a request failed")
                    said = "the engine failed" if self._is_open else f"the engine failed: {error}"
                    status, body = 500, encoded(RequestError(said, status=500).as_dict())
                except asyncio.CancelledError:  # the server ends, and this is all that is left of the request
                    status, body = 503, encoded(RequestError("the server has been stopped", status=503).as_dict())
                await send_json(send, status, body)
            case _:  # a WebSocket
                await receive()
                await send({"type": "websocket.close"})

    async def _answer(self, method: str, path: str, receive: Receive) -> dict[str, Any]:
        match method, path:
            case "GET", "/health":
                return {"status": "ok"}
            case "GET", "/v1/models":
                return {"object": "list", "data": [self._model()]}
            case "POST", "/v1/chat/completions":
                request = read_request(ChatRequest, await _body(receive))
                return await _unless_hung_up(self._chat(request), receive)
            case "POST", "/v1/completions":
                asked = read_request(CompletionRequest, await _body(receive))
                return await _unless_hung_up(self._completions(asked), receive)
            case "GET", _ if path.startswith("/v1/models/"):
                self._check_name(path.removeprefix("/v1/models/"))
                return self._model()
            case _ if path in PATHS:
                raise RequestError(f"{path} is asked by {PATHS[path]}, not {method}", status=405)
            case _:
                raise RequestError(f"there is no {path}: there are {', '.join(PATHS)}", status=404)

    def _model(self) -> dict[str, Any]:
        return {
            "id": self._name,
            "object": "model",
            "created": self._made,
            "owned_by": "empg",
            "root": self._source,
            "max_model_len": self._answerer.most_tokens,
        }

    def _check_name(self, name: str) -> None:
        if name != self._name:
            what = f"the model {name!r} does not exist: this server has {self._name!r}"
            raise RequestError(what, status=404, param="model", code="model_not_found")

    async def _chat(self, request: ChatRequest) -> dict[str, Any]:
        self._check_name(request.model)
        codec = self._answerer.codec
        if not isinstance(codec, ChatCodec):
            raise RequestError(f"{self._name} has no chat template: ask /v1/completions", code="no_chat_template")
        said = [(message.role.replace("developer", "system"), message.text) for message in request.messages]
        try:
            prompt = await asyncio.to_thread(codec.conversation, said)
        except ChatTemplateError as error:
            raise RequestError(str(error), param="messages") from None
        answers = await self._sampled([prompt], request)
        choices = [
            {
                "index": number,
                # The template has begun the answer where `thought` is not empty; it belongs to what was said.
                "message": {"role": "assistant", "content": codec.thought + answer.text, "refusal": None},
                "finish_reason": "stop" if answer.is_complete else "length",
                "logprobs": await asyncio.to_thread(self._logprobs, answer) if request.wants_logprobs else None,
                **_ids(prompt, answer, request),
            }
            for number, answer in enumerate(answers)
        ]
        return self._reply("chat.completion", "chatcmpl", choices, [prompt], answers)

    async def _completions(self, request: CompletionRequest) -> dict[str, Any]:
        self._check_name(request.model)
        prompts = await asyncio.to_thread(lambda: [self._prompt_ids(prompt) for prompt in request.prompts])
        answers = await self._sampled(prompts, request)
        choices = [
            {
                "index": number,
                "text": answer.text,
                "finish_reason": "stop" if answer.is_complete else "length",
                "logprobs": await asyncio.to_thread(self._token_lists, answer) if request.wants_logprobs else None,
                **_ids(prompts[number // (request.n or 1)], answer, request),
            }
            for number, answer in enumerate(answers)
        ]
        return self._reply("text_completion", "cmpl", choices, prompts, answers)

    def _prompt_ids(self, prompt: str | list[int]) -> list[int]:
        if isinstance(prompt, str):
            ids: list[int] = encoding(self._answerer.tokenizer, prompt, add_special_tokens=True).ids
            if not ids:
                raise RequestError("prompt: has no token", param="prompt")
            return ids
        if bad := [id_ for id_ in prompt if not 0 <= id_ < self._answerer.vocabulary]:
            raise RequestError(f"prompt: there is no token {bad[0]}", param="prompt")
        return prompt

    async def _sampled(
        self, prompts: Sequence[list[int]], request: ChatRequest | CompletionRequest
    ) -> Sequence[Answer]:
        """`n` answers to each prompt; of one seed, each draws from a seed of its own, the first from that one."""
        n, most = request.n or 1, self._answerer.most_tokens
        if n * len(prompts) > MOST_PROMPTS:
            raise RequestError(f"{n * len(prompts)} answers are more than {MOST_PROMPTS}; send several requests")
        wishes = []
        for prompt in prompts:
            limit = request.limit or min(self._default_tokens, max(1, most - len(prompt)))
            if len(prompt) + limit > most:
                what = f"{len(prompt)} tokens of the prompt and max_tokens={limit} of the answer"
                raise RequestError(
                    f"this model's maximum context length is {most} tokens, less than {what}",
                    param="messages" if isinstance(request, ChatRequest) else "prompt",
                    code="context_length_exceeded",
                )
            temperature = 1.0 if request.temperature is None else request.temperature
            sampling = Sampling(temperature, limit, 1.0 if request.top_p is None else request.top_p)
            for number in range(n):
                seed = None if request.seed is None else request.seed + number
                wishes.append((prompt, Wish(sampling, seed, request.stops)))
        return await _all_or_none([self._answerer.answer(prompt, wish) for prompt, wish in wishes])

    def _logprobs(self, answer: Answer) -> dict[str, Any]:
        content = [
            {"token": text, "logprob": logprob, "bytes": _bytes(text), "top_logprobs": []}
            for text, logprob in zip(self._texts(answer), answer.logprobs, strict=True)
        ]
        return {"content": content}

    def _token_lists(self, answer: Answer) -> dict[str, Any]:
        reading = Reading(self._answerer.codec.decode)
        reading.read(answer.ids)
        lists = {"tokens": self._texts(answer), "token_logprobs": answer.logprobs}
        return {**lists, "top_logprobs": None, "text_offset": reading.offsets}

    def _texts(self, answer: Answer) -> list[str]:
        return [str(self._answerer.tokenizer.decode([id_])) for id_ in answer.ids]

    def _reply(
        self,
        kind: str,
        prefix: str,
        choices: list[dict[str, Any]],
        prompts: Sequence[list[int]],
        answers: Sequence[Answer],
    ) -> dict[str, Any]:
        asked, sampled = sum(map(len, prompts)), sum(len(answer.ids) for answer in answers)
        return {
            "id": f"{prefix}-{uuid.uuid4().hex}",
            "object": kind,
            "created": int(time.time()),
            "model": self._name,
            "choices": choices,
            "usage": {"prompt_tokens": asked, "completion_tokens": sampled, "total_tokens": asked + sampled},
        }


def _ids(prompt: list[int], answer: Answer, request: ChatRequest | CompletionRequest) -> dict[str, Any]:
    return {"prompt_token_ids": prompt, "token_ids": answer.ids} if request.return_token_ids else {}


def _bytes(text: str) -> list[int] | None:
    """None of a token that holds a part of a character."""
    return None if UNFINISHED in text else list(text.encode())


async def _all_or_none(coroutines: Sequence[Coroutine[Any, Any, Answer]]) -> list[Answer]:
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


async def _body(receive: Receive) -> dict[str, Any]:
    try:
        return await asyncio.wait_for(json_body(receive), BODY_S)
    except TimeoutError:
        raise RequestError(f"the body has not come within {BODY_S:g} s", status=408) from None


class _HungUp(Exception):  # noqa: N818 (what the client has done)
    """Nobody waits for the answer any more."""


async def _unless_hung_up(answering: Coroutine[Any, Any, dict[str, Any]], receive: Receive) -> dict[str, Any]:
    """What is asked for, or nothing is sampled on for a client that has gone."""
    work, gone = asyncio.ensure_future(answering), asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait([work, gone], return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise _HungUp
        return work.result()
    finally:
        work.cancel()
        gone.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
