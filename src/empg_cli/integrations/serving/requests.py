"""What may be asked of the server: OpenAI's fields. One that would be ignored is refused, unless it says nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from empg_cli.config.rollout import Temperature

MOST_CHOICES = 128
MOST_STOPS = 16
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "function_call": ("none",),
    "logit_bias": ({},),
    "min_tokens": (0,),
    "modalities": (["text"],),
    "parallel_tool_calls": (True, False),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "stream": (False,),
    "suffix": ("",),
    "tool_choice": ("none",),
    "tools": ([],),
    "top_k": (-1, 0),
    "top_logprobs": (0,),
}
"""Fields that we lack, with the values that ask for nothing; null is one for each."""
_ASIDE = frozenset({"metadata", "prompt_cache_key", "safety_identifier", "service_tier", "store", "user"})
"""Fields that are about the caller and change no answer."""
_OF_ANSWERS = frozenset({"annotations", "audio", "function_call", "refusal", "tool_calls"})
"""Fields of an answer, which clients send back with the next question: ours say nothing."""


class RequestError(Exception):
    """What is asked cannot be answered; shown in OpenAI's form."""

    def __init__(self, reason: str, *, status: int = 400, param: str | None = None, code: str | None = None) -> None:
        super().__init__(reason)
        self.status, self.param, self.code = status, param, code

    def as_dict(self) -> dict[str, Any]:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[_Part]
    name: str | None = None
    """Not shown by chat templates; read so that clients that name agents need not change."""

    @model_validator(mode="before")
    @classmethod
    def without_what_says_nothing(cls, said: Any) -> Any:
        if not isinstance(said, Mapping):
            return said
        return {
            name: value
            for name, value in said.items()
            if name in cls.model_fields or not (value is None or (name in _OF_ANSWERS and value in ("", [], {})))
        }

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    model: str
    temperature: Annotated[Temperature, Field(le=2)] | None = None
    """null = 1, as OpenAI's; 0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    """The newer name of the same."""
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    stop: str | Annotated[list[str], Field(max_length=MOST_STOPS)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    """The same seed gives the same answer; null draws one."""
    return_token_ids: bool | None = None
    """As vLLM's: each choice brings `token_ids`, those of its prompt and its own."""

    @property
    def stops(self) -> list[str]:
        texts = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [text for text in texts if text]

    @property
    def limit(self) -> int | None:
        return self.max_completion_tokens if self.max_tokens is None else self.max_tokens


class ChatRequest(_Asked):
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    logprobs: bool | None = None

    @property
    def wants_logprobs(self) -> bool:
        return bool(self.logprobs)


class CompletionRequest(_Asked):
    prompt: (
        str
        | Annotated[list[int], Field(min_length=1)]
        | Annotated[list[str], Field(min_length=1)]
        | Annotated[list[Annotated[list[int], Field(min_length=1)]], Field(min_length=1)]
    )
    """A text, its token ids, or several of either."""
    logprobs: Literal[0] | None = None
    """0: the log-probs of what was sampled. Those of other tokens are not known."""

    @property
    def wants_logprobs(self) -> bool:
        return self.logprobs is not None

    @property
    def prompts(self) -> Sequence[str | list[int]]:
        if isinstance(self.prompt, str):
            return [self.prompt]
        ids = [item for item in self.prompt if isinstance(item, int)]
        return [ids] if ids else [item for item in self.prompt if not isinstance(item, int)]


Asked = TypeVar("Asked", ChatRequest, CompletionRequest)


def read_request(kind: type[Asked], body: Mapping[str, Any]) -> Asked:
    """
    Raises:
        RequestError: a field is missing, unknown or out of range.
    """
    if body.get("stream"):
        raise RequestError("streaming is not supported: leave out stream, or send false", param="stream")
    kept = {}
    for name, value in body.items():
        is_ours = name in kind.model_fields
        if is_ours or not (value is None or name in _ASIDE or value in _NEUTRAL.get(name, ())):
            kept[name] = value
    if known := sorted(kept.keys() & _NEUTRAL.keys() - kind.model_fields.keys()):
        raise RequestError(f"{known[0]} is not supported: leave it out (got {kept[known[0]]!r})", param=known[0])
    try:
        return kind.model_validate(kept)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"] if not (isinstance(part, str) and "[" in part))
        if first["type"] == "extra_forbidden" and first["loc"][-1] in _OF_ANSWERS:
            raise RequestError(f"{name} is not supported: leave it out", param=name) from None
        if first["type"] == "extra_forbidden":
            raise RequestError(f"unrecognised request field: {name}", param=name) from None
        said = first["msg"].removeprefix("Value error, ")
        raise RequestError(f"{name}: {said}", param=name) from None
