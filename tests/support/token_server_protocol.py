"""Requests and answers of vLLM 0.32's HTTP server, as far as the fake one speaks it: checks, errors, shapes."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import numpy as np

from empg_cli.rollout.engine import Sampling
from tests.support.token_server_engine import Answer

PERMISSION = {
    "id": "modelperm-0123456789abcdef",
    "object": "model_permission",
    "created": 0,
    "allow_create_engine": False,
    "allow_sampling": True,
    "allow_logprobs": True,
    "allow_search_indices": False,
    "allow_view": True,
    "allow_fine_tuning": False,
    "organization": "*",
    "group": None,
    "is_blocking": False,
}
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "top_k": (0, -1),
    "min_p": (0,),
    "min_tokens": (0,),
    "stop": (None, []),
    "logit_bias": (None,),
    "allowed_token_ids": (None,),
    "bad_words": (None, []),
    "prompt_logprobs": (None,),
    "logprobs": (None, 0, 1, True),
    "ignore_eos": (True, False),
    "detokenize": (True, False),
    "skip_special_tokens": (True, False),
    "include_stop_str_in_output": (True, False),
}
"""Sampling parameters of vLLM that the fake takes with these values alone."""
HONOURED = {"temperature", "top_p", "seed", "stop_token_ids", "max_tokens"}
LEAST_TEMPERATURE = 1e-2
"""vLLM raises what is between 0 and this to it; below 1e-5 it is greedy."""


class Refused(Exception):  # noqa: N818 (an answer)
    def __init__(self, status: int, body: Any) -> None:
        super().__init__(status)
        self.status, self.body = status, body


def error(status: int, message: str, kind: str, param: str | None = None) -> Refused:
    return Refused(status, {"error": {"message": message, "type": kind, "param": param, "code": status}})


def bad(message: str, param: str | None = None) -> Refused:
    """What vLLM's own checks say."""
    return error(400, message, "BadRequestError", param)


def invalid(kind: str, loc: str, message: str, value: Any) -> Refused:
    """What FastAPI's checks say, in vLLM's words."""
    shown = f"<{type(value).__name__} of {len(value)} items>" if isinstance(value, list | dict) else str(value)
    details = {"type": kind, "loc": loc, "msg": message, "input": shown}
    return error(400, f"1 validation error:\n  {details}", HTTPStatus.BAD_REQUEST.phrase, loc)


@dataclass(frozen=True)
class Ends:
    """Tokens that end every answer whose request does not ignore them."""

    unnamed: int | None
    """The tokenizer's, which is no `stop_reason`; None = the server has no tokenizer."""
    named: frozenset[int]
    """Others of the folder's generation_config.json, which vLLM reads with --generation-config vllm, too."""

    @classmethod
    def of(cls, policy: Any, *, tokens_only: bool) -> Ends:
        eos = policy.model.generation_config.eos_token_id
        named = {eos} if isinstance(eos, int) else set(eos or ())
        unnamed = None if tokens_only else policy.tokenizer.eos_token_id
        return cls(unnamed, frozenset(named - {unnamed}))

    @property
    def all(self) -> frozenset[int]:
        return self.named if self.unnamed is None else self.named | {self.unnamed}


@dataclass
class GenerateCall:
    request_id: str
    prompt: list[int]
    draws: np.ndarray
    sampling: Sampling
    stop_ids: frozenset[int]
    ignores_eos: bool
    wants_logprobs: bool
    wants_prompt: bool
    salt: str | None


def generate_call(
    body: Any, headers: Mapping[str, str], *, names: list[str], vocabulary: int, max_model_len: int
) -> GenerateCall:
    """Raises:
    Refused: as vLLM refuses it; also a key that vLLM would leave unread, and what the fake cannot do.
    """
    if not isinstance(body, dict):
        raise invalid("model_attributes_type", "body", "Input should be a valid dictionary", body)
    known = {"request_id", "token_ids", "sampling_params", "model", "return_token_ids", "cache_salt", "stream"}
    known |= {"output_mode", "priority"}
    if unknown := sorted(body.keys() - known):
        raise bad(f"the fake does not know the field {unknown[0]}")
    prompt, params = _prompt(body), body.get("sampling_params")
    if not isinstance(params, dict):
        raise invalid("missing", "body.sampling_params", "Field required", body)
    if body.get("stream") or body.get("output_mode", "tokens") != "tokens" or body.get("priority", 0) != 0:
        raise bad("the fake answers whole, in tokens, in the order of arrival")
    sampling = _sampling(params, max_model_len - len(prompt))
    if (model := body.get("model")) and model not in names:
        message = f"The model `{model}` does not exist. Valid aliases: {', '.join(names)}."
        raise error(404, message, "NotFoundError", "model")
    _check_length(len(prompt), max_model_len)
    if max(prompt) >= vocabulary:
        raise bad(f"Token id {max(prompt)} is out of vocabulary")
    stop_ids = params.get("stop_token_ids") or []
    if outside := [token for token in stop_ids if not 0 <= token < vocabulary]:
        raise bad(
            f"token_id(s) {outside} in stop_token_ids contain out-of-vocab token ids. Vocabulary size: {vocabulary} "
            f"(parameter=stop_token_ids, value={outside})",
            "stop_token_ids",
        )
    seed = params.get("seed")
    generator = np.random.default_rng(None if seed in (None, -1) else seed % 2**64)
    own_id = headers.get("x-request-id") or body.get("request_id") or secrets.token_hex(8)
    return GenerateCall(
        request_id=f"generate-tokens-{own_id}",
        prompt=prompt,
        draws=generator.random(sampling.max_new_tokens),
        sampling=sampling,
        stop_ids=frozenset(stop_ids),
        ignores_eos=bool(params.get("ignore_eos")),
        wants_logprobs=params.get("logprobs") is not None,
        wants_prompt=bool(body.get("return_token_ids")),
        salt=body.get("cache_salt"),
    )


def _prompt(body: dict[str, Any]) -> list[int]:
    where = "body.token_ids"
    if "token_ids" not in body:
        raise invalid("missing", where, "Field required", body)
    ids = body["token_ids"]
    if not isinstance(ids, list) or not all(isinstance(token, int) for token in ids):
        raise invalid("list_type", where, "Input should be a valid list", ids)
    if not ids:
        raise invalid("too_short", where, "List should have at least 1 item after validation, not 0", ids)
    if min(ids) < 0:
        raise invalid("value_error", where, "Value error, token_ids must not contain negative values", ids)
    return ids


def _sampling(params: dict[str, Any], room: int) -> Sampling:
    """room: tokens that there is space for; where the request names no other bound it is this, not vLLM's usual 16."""
    for name, value in params.items():
        if name not in HONOURED and name not in NEUTRAL:
            raise bad(f"the fake does not know sampling_params.{name}, which vLLM may leave unread")
        if name in NEUTRAL and value not in NEUTRAL[name]:
            raise bad(f"the fake does not do sampling_params.{name}={value}")
    temperature, top_p = params.get("temperature", 1.0), params.get("top_p", 1.0)
    most = params.get("max_tokens", room)
    most = room if most is None else most
    for name, value in (("temperature", temperature), ("top_p", top_p), ("max_tokens", most)):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise invalid("float_type", f"body.sampling_params.{name}", "Input should be a valid number", value)
    seed = params.get("seed")
    if seed is not None and not (isinstance(seed, int) and -(2**63) <= seed < 2**64):
        raise bad("can't serialize ints < -2**63 or > 2**64 - 1")
    if not math.isfinite(temperature):
        raise _out_of_range("temperature", "must be a finite number", temperature)
    if temperature < 0:
        raise _out_of_range("temperature", "must be non-negative", float(temperature))
    if temperature > 2:
        raise _out_of_range("temperature", "must be in [0, 2]", float(temperature))
    if not 0 < top_p <= 1:
        raise _out_of_range("top_p", "must be in (0, 1]", float(top_p))
    if most < 1 and "max_tokens" in params:
        raise _out_of_range("max_tokens", "must be at least 1", most)
    if temperature:
        temperature = max(temperature, LEAST_TEMPERATURE)
    return Sampling(float(temperature), max(0, min(most, room)), float(top_p) if temperature else 1.0)


def _out_of_range(name: str, rule: str, value: float) -> Refused:
    return bad(f"{name} {rule}, got {value}. (parameter={name}, value={value})", name)


def _check_length(length: int, most: int) -> None:
    if length > most:
        raise bad(
            f"The decoder prompt (length {length}) is longer than the maximum model length of {most}. Make sure that "
            "`max_model_len` is no smaller than the number of text tokens."
        )
    if length == most:
        raise bad(
            f"The decoder prompt (length {length}) plus the number of requested output tokens (at least 1) is longer "
            f"than the maximum model length of {most}. Make sure that `max_model_len` is no smaller than the number of "
            "text tokens (prompt + requested output tokens)."
        )


def generate_answer(
    call: GenerateCall, answer: Answer, *, model: str, eos: Ends, tokens_cached: int | None
) -> dict[str, Any]:
    """GenerateTokensResponse.

    Args:
        tokens_cached: None = the server does not say.
    """
    last = answer.token_ids[-1] if answer.token_ids else None
    reason, stop_id = "length", None
    if answer.was_aborted:
        reason = "abort"
    elif last == eos.unnamed and last is not None and not call.ignores_eos:
        reason = "stop"
    elif last in call.stop_ids or (last in eos.named and not call.ignores_eos):
        reason, stop_id = "stop", last
    content = [
        {"token_id": token, "logprob": logprob, "rank": None, "top_logprobs": [_candidate(token, logprob)]}
        for token, logprob in zip(answer.token_ids, map(_clamped, answer.logprobs), strict=True)
    ]
    details = {"cached_tokens": tokens_cached, "created_cache_tokens": None, "multimodal_tokens": None}
    sampled = len(answer.token_ids)
    return {
        "request_id": call.request_id,
        "model": model,
        "created": int(time.time()),
        "usage": {
            "prompt_tokens": len(call.prompt),
            "total_tokens": len(call.prompt) + sampled,
            "completion_tokens": sampled,
            "prompt_tokens_details": None if tokens_cached is None else details,
            "completion_tokens_details": None,
        },
        "prompt_logprobs": None,
        "prompt_token_id_logprobs": None,
        "prompt_token_ids": call.prompt if call.wants_prompt else None,
        "mm_placeholders": None,
        "metrics": None,
        "kv_transfer_params": None,
        "ec_transfer_params": None,
        "output_mode": "tokens",
        "choices": [
            {
                "index": 0,
                "finish_reason": reason,
                "stop_reason": stop_id,
                "token_ids": answer.token_ids,
                "routed_experts": None,
                "sampling_mask": None,
                "weight_versions": answer.spans,
                "logprobs": {"content": content} if call.wants_logprobs else None,
            }
        ],
    }


def _candidate(token: int, logprob: float) -> dict[str, Any]:
    return {"token_id": token, "logprob": logprob, "rank": None}


def _clamped(logprob: float) -> float:
    return -9999.0 if math.isnan(logprob) else max(logprob, -9999.0)


def models(names: list[str], root: str, max_model_len: int) -> dict[str, Any]:
    cards: list[dict[str, Any]] = [
        {
            "id": name,
            "object": "model",
            "created": int(time.time()),
            "owned_by": "vllm",
            "root": root,
            "parent": None,
            "max_model_len": max_model_len,
            "permission": [PERMISSION],
        }
        for name in names
    ]
    return {"object": "list", "data": cards}
