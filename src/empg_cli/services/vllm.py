"""A server of vLLM over HTTP: token ids in and out, transfers of weights, sleep. The one file that knows its routes.

They are those of vLLM 0.32: `/inference/v1/generate` of a server with --tokens-only, the rest of one that was started
with VLLM_SERVER_DEV_MODE=1. vLLM changed them three times in a year, so a version is looked at first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from empg_cli.services.errors import AccessDeniedError, BadAnswerError, NoAnswerError, ServiceError
from empg_cli.services.http import Service
from empg_cli.services.parsing import read_answer

OLDEST: Final = (0, 32)
"""Version of vLLM that has all of these routes."""
MODEL: Final = "policy"
"""As our servers call their weights."""
UNKNOWN: Final = -1
"""Version of weights that nobody has published."""
NO_LOGPROB: Final = -9999.0
"""What vLLM says where it knows none; JSON has no NaN."""
_TOO_LONG: Final = re.compile(
    r"HTTP 400.*(max[ _]model[ _]len|context length|longer than|plus the number of requested output)", re.I | re.S
)
"""In the beginning of a message, which is all that errors show of it."""


class PromptTooLong(BadAnswerError):  # noqa: N818 (what the server says)
    """The server's model does not read so many tokens."""


class WrongVersion(ServiceError):  # noqa: N818 (what the server says)
    """It is no vLLM that these routes are of."""


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens `start` to `end` of an answer were sampled with weights of this version."""

    version: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Answer:
    token_ids: list[int]
    """The token that ended it included."""
    logprobs: list[float]
    """Of each, at the temperature it was sampled at."""
    ended: bool
    """By a stop token; else by the bound on tokens."""
    spans: tuple[Span, ...]
    cached_tokens: int
    """Of the prompt, that were not read again; 0 where the server does not say."""

    @property
    def oldest(self) -> int:
        return min(span.version for span in self.spans)

    @property
    def newest(self) -> int:
        """That of the last token."""
        return self.spans[-1].version


def question(
    prompt: Sequence[int],
    *,
    name: str,
    seed: int,
    stop_ids: Sequence[int],
    max_tokens: int,
    temperature: float,
    top_p: float = 1.0,
    model: str = MODEL,
) -> dict[str, Any]:
    """What is asked. Everything that a server could have a default for is said, so that none changes the policy.

    Args:
        name: of the request; the same when it is asked again.
    """
    return {
        "request_id": name,
        "model": model,
        "token_ids": list(prompt),
        "sampling_params": {
            "n": 1,
            "max_tokens": max_tokens,
            "min_tokens": 0,
            "temperature": temperature,
            "top_p": top_p,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "seed": seed,
            "logprobs": 0,
            "stop_token_ids": list(stop_ids),
            "ignore_eos": True,  # those that end a turn are named
            "detokenize": False,
        },
    }


def read_generated(answer: Any, asked: dict[str, Any]) -> Answer:
    """
    Raises:
        KeyError, IndexError, TypeError, AttributeError, ValueError: the answer has another form, or is not to what was
            asked.
        PromptTooLong: the server's model had no room for as much as was asked.
    """
    sampling = asked["sampling_params"]
    if answer["request_id"].removeprefix("generate-tokens-") != asked["request_id"]:
        raise ValueError("it answers another request")
    (choice,) = answer["choices"]
    token_ids = [_whole(token) for token in choice["token_ids"]]
    content = choice["logprobs"]["content"]
    logprobs = [float(one["logprob"]) for one in content]
    if [_whole(one["token_id"]) for one in content] != token_ids:
        raise ValueError("log-probs and tokens do not belong together")
    if not 0 < len(token_ids) <= sampling["max_tokens"]:
        raise ValueError(f"{len(token_ids)} tokens, of 1 to {sampling['max_tokens']}")
    if not all(NO_LOGPROB < logprob <= 1e-3 for logprob in logprobs):  # nor NaN
        raise ValueError("a log-prob is none")
    stops = [token in sampling["stop_token_ids"] for token in token_ids]
    reason, is_full = choice["finish_reason"], len(token_ids) == sampling["max_tokens"]
    ended = reason == "stop"
    if any(stops[:-1]) or ended != stops[-1] or not (ended or is_full or reason == "length"):
        raise ValueError(f"it ended where it should not ({reason})")
    if not (ended or is_full):
        most = len(asked["token_ids"]) + len(token_ids)
        raise PromptTooLong(f"the server's model reads {most} tokens, and {sampling['max_tokens']} new ones were asked")
    return Answer(token_ids, logprobs, ended, _spans(choice["weight_versions"], len(token_ids)), _cached(answer))


def _spans(value: Any, tokens: int) -> tuple[Span, ...]:
    spans = tuple(Span(_version(one["version"]), _whole(one["start"]), _whole(one["end"])) for one in value)
    ends = [0, *(span.end for span in spans)]
    if [span.start for span in spans] != ends[:-1] or ends[-1] != tokens or any(s.start >= s.end for s in spans):
        raise ValueError("the versions of the weights do not cover the answer")
    return spans


def _cached(answer: Any) -> int:
    details = (answer.get("usage") or {}).get("prompt_tokens_details") or {}
    return _whole(details.get("cached_tokens") or 0)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value


def _version(label: Any) -> int:
    """Ours are numbers; a server that was never told any says "default"."""
    return int(label) if isinstance(label, str) and label.isdecimal() else UNKNOWN


@contextmanager
def _opened() -> Iterator[None]:
    """A route that a server has only if it was asked to says how to ask."""
    try:
        yield
    except BadAnswerError as error:
        if "HTTP 404" in str(error):
            raise BadAnswerError(f"{error}: start it with VLLM_SERVER_DEV_MODE=1") from None
        raise


class VllmServer:
    """One server. Use it from one event loop.

    Every call raises ServiceError, whatever goes wrong; `NoAnswerError` and its kinds are those of nobody who answers.
    """

    def __init__(self, url: str, *, timeout_s: float, attempts: int, concurrency: int) -> None:
        self.url = url.rstrip("/")
        name, self._timeout_s, self._attempts = f"the vLLM server at {url}", timeout_s, attempts
        self._asking = Service(name, timeout_s=timeout_s, attempts=attempts, concurrency=concurrency)
        # Not twice: whether the first of two was carried out, nobody knows.
        self._telling = Service(name, timeout_s=timeout_s, attempts=1, concurrency=8)
        self._looking = Service(name, timeout_s=min(timeout_s, 10.0), attempts=1, concurrency=8)

    async def close(self) -> None:
        for service in (self._asking, self._telling, self._looking):
            await service.close()

    async def generate(self, asked: dict[str, Any]) -> Answer:
        """The answer to a `question`. One that does not fit the question is not taken, and asked for again.

        Raises:
            PromptTooLong, BadAnswerError: the server is there, and will not answer this.
            NoAnswerError: it is not there, or does not get to an answer.
        """
        for attempt in range(self._attempts):
            try:
                body = await self._asking.call_text("POST", f"{self.url}/inference/v1/generate", json=asked)
            except BadAnswerError as error:
                raise (PromptTooLong(str(error)) if _TOO_LONG.search(str(error)) else error) from None
            try:
                return read_answer(body, lambda answer: read_generated(answer, asked))
            except PromptTooLong as error:
                raise PromptTooLong(f"{self._asking.name}: {error}") from None
            except BadAnswerError as error:
                self._asking.retries += 1
                if attempt + 1 == self._attempts:
                    raise BadAnswerError(f"{self._asking.name}: {error}, tried {self._attempts} times") from None
        raise AssertionError("at least one attempt")

    async def check(self) -> None:
        """
        Raises:
            WrongVersion: vLLM there is older than these routes, or it is something else.
            NoAnswerError: nobody is there.
        """
        try:
            found = await self._looking.ask("GET", f"{self.url}/version", lambda answer: str(answer["version"]))
            numbers = tuple(int(part) for part in re.findall(r"\d+", found)[:2])
        except (BadAnswerError, AccessDeniedError) as error:
            raise WrongVersion(f"{error}: is it a server of vLLM?") from None
        if numbers < OLDEST:
            raise WrongVersion(f"{self._looking.name} has version {found}; {OLDEST[0]}.{OLDEST[1]} or newer is needed")

    async def is_there(self) -> bool:
        """Or somebody else is, of whom `check` says more."""
        try:
            await self._looking.call_text("GET", f"{self.url}/health")
        except (BadAnswerError, AccessDeniedError):
            return True
        except ServiceError:
            return False
        return True

    async def weight_version(self) -> int:
        with _opened():
            return await self._looking.ask(
                "GET", f"{self.url}/weight_info", lambda told: _version(told["weight_version"])
            )

    async def world_size(self) -> int:
        """Processes of it that have weights."""
        with _opened():
            return await self._looking.ask("GET", f"{self.url}/get_world_size", lambda told: _whole(told["world_size"]))

    async def pause(self) -> None:
        """Answers under way stand still until `resume`."""
        await self._tell("pause?mode=keep")

    async def resume(self) -> None:
        """With weights that may be others: what was cached of the old ones goes, of answers under way too."""
        await self._tell("reset_prefix_cache?reset_running_requests=true")
        await self._tell("resume")

    async def join_transfer(self, info: dict[str, Any]) -> None:
        """Join the group that weights go through; what was joined before is left, in the middle of an update too."""
        try:
            await self._tell("shutdown_weight_transfer_engine")
        except NoAnswerError:  # an update that broke is still open there, or something else is wrong
            await self._tell("finish_weight_update")
            await self._tell("shutdown_weight_transfer_engine")
        await self._tell("init_weight_transfer_engine", {"init_info": info})

    async def begin_update(self) -> None:
        await self._tell("start_weight_update")

    async def receive(self, info: Any) -> None:
        """Returns when all of the weights have come, which somebody else sends meanwhile."""
        await self._tell("update_weights", {"update_info": info})

    async def end_update(self, version: int) -> None:
        await self._tell("finish_weight_update", {"weight_version": str(version)})

    async def label(self, version: int) -> None:
        """Say what the version of the weights is, where no transfer does."""
        await self._tell("update_weight_version", {"new_version": str(version)})

    async def load_adapter(self, name: str, path: str) -> None:
        """A LoRA adapter from a folder that the server sees, in the place of one of the same name."""
        body = {"lora_name": name, "lora_path": path, "load_inplace": True}
        await self._telling.call_text("POST", f"{self.url}/v1/load_lora_adapter", json=body)

    async def sleep(self, level: int) -> None:
        """Free the GPU: 1 keeps the weights in the host's memory, 2 drops them."""
        await self._tell(f"sleep?level={level}")

    async def wake(self, what: str) -> None:
        """weights or kv_cache."""
        await self._tell(f"wake_up?tags={what}")

    async def _tell(self, path: str, body: Any = None) -> None:
        with _opened():
            await self._telling.call_text("POST", f"{self.url}/{path}", **({} if body is None else {"json": body}))

    @property
    def retries(self) -> int:
        return self._asking.retries
