"""What goes wrong at the fake vLLM server when a test asks for it, and what the server remembers of its requests."""

from __future__ import annotations

import random
import threading
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field, fields
from typing import Any, cast

REMEMBERED = 1000
"""Requests per route."""


@dataclass
class Faults:
    """An int says how many of the next generate calls go wrong that way; they are used up from the first field on."""

    status_500: int = 0
    status_503: int = 0
    hang: int = 0
    """Answered after `hang_s`."""
    hang_up: int = 0
    """The connection closes in the middle of the answer."""
    broken_json: int = 0
    swapped: int = 0
    """The whole answer of an earlier request, with its id; a right one where there was none."""
    other_id: int = 0
    """The right answer under the id of another request."""
    short_logprobs: int = 0
    """One too few."""
    null_logprob: int = 0
    """The last token's is null."""
    unknown_logprob: int = 0
    """The last token's is -9999.0: vLLM's word for none."""
    no_logprobs: int = 0
    extra_token: int = 0
    """One more than `max_tokens`."""
    empty: int = 0
    """No token."""
    no_choices: int = 0
    no_versions: int = 0
    wrong_versions: int = 0
    """Spans do not reach the last token."""
    old_version: int = 0
    """The label is the one before the present one."""

    hang_s: float = 3600.0
    ignore_updates: bool = False
    """Updates are received and labelled, and the old weights stay."""
    delay_s: float = 0.0
    """Longest random wait before an answer, so that they come out of order."""
    delay_seed: int = 0
    routes: dict[str, int] = field(default_factory=dict)
    """Path to the status that it answers with, until it is taken out."""

    def __post_init__(self) -> None:
        self._taking = threading.Lock()
        self._random: random.Random | None = None

    def update(self, values: dict[str, Any]) -> None:
        """By name.

        Raises:
            KeyError: there is no such fault.
        """
        known = {one.name for one in fields(self)}
        for name, value in values.items():
            if name not in known:
                raise KeyError(name)
            setattr(self, name, value)

    def take(self) -> str | None:
        """What goes wrong with this generate call."""
        with self._taking:
            for one in fields(self):
                if one.type == "int" and one.name != "delay_seed" and (left := getattr(self, one.name)) > 0:
                    setattr(self, one.name, left - 1)
                    return one.name
            return None

    def delay(self) -> float:
        """Seconds."""
        with self._taking:
            self._random = self._random or random.Random(self.delay_seed)
            return self._random.uniform(0, self.delay_s)


def spoiled(fault: str | None, body: dict[str, Any], earlier: dict[str, Any] | None, labels: list[str]) -> Any:
    """An answer to a generate call as the fault leaves it.

    Args:
        earlier: the answer to another request.
        labels: all that the weights have had.
    """
    choice = body["choices"][0]
    content = cast("list[Any]", (choice["logprobs"] or {}).get("content"))
    match fault:
        case "swapped":
            return earlier or body
        case "other_id":
            return {**body, "request_id": earlier["request_id"] if earlier else "generate-tokens-of-another"}
        case "short_logprobs":
            content.pop()
        case "null_logprob":
            content[-1] = {**content[-1], "logprob": None}
        case "unknown_logprob":
            content[-1] = {**content[-1], "logprob": -9999.0, "rank": None, "top_logprobs": []}
        case "no_logprobs":
            choice["logprobs"] = None
        case "extra_token":
            choice["token_ids"].append(choice["token_ids"][-1])
            content.append(content[-1])
            choice["weight_versions"][-1]["end"] += 1
        case "empty":
            choice |= {"token_ids": [], "logprobs": {"content": []}, "weight_versions": []}
        case "no_choices":
            return {**body, "choices": []}
        case "no_versions":
            choice["weight_versions"] = None
        case "wrong_versions":
            choice["weight_versions"][-1]["end"] -= 1
        case "old_version":
            for span in choice["weight_versions"]:
                span["version"] = labels[-2] if len(labels) > 1 else "older"
    return body


class Record:
    """What came, by path."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.bodies: dict[str, deque[Any]] = defaultdict(lambda: deque(maxlen=REMEMBERED))
        """Parsed, the last ones."""
        self.most_at_once = 0
        """Generate calls."""
        self._at_once = 0
        self._lock = threading.Lock()

    def came(self, path: str, body: Any) -> None:
        with self._lock:
            self.counts[path] += 1
            self.bodies[path].append(body)

    def __enter__(self) -> None:
        """A generate call is under way."""
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._at_once -= 1

    def as_json(self) -> dict[str, Any]:
        with self._lock:
            return {"counts": dict(self.counts), "most_at_once": self.most_at_once}
