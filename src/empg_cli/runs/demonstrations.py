"""A file of demonstrations, a JSON object a line: conversations, or episodes that a run or an evaluation has kept.

The fields tell which: a conversation has `messages`, an episode has `steps` (`runs.trajectories`). One file holds one
form. Nothing heavy is needed to check it. docs/warm-start.md has the form.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from empg_cli.errors import DataError
from empg_cli.reading.guard import json_of, plain_text, reading
from empg_cli.reading.streams import lines
from empg_cli.runs.shapes import check_shape
from empg_cli.runs.trajectories import KeptTrajectory

ROLES = ("system", "user", "assistant")
FORMS = 'it needs "messages" (a conversation), or "task_id" and "steps" (an episode that empg has kept)'
MEND = "mend that line, or leave it out"


@dataclass(frozen=True, slots=True)
class Message:
    role: str
    content: str
    trains: bool = True
    """Of an answer: `weight` is not 0."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """At most one system message, the first; then user and assistant in turn, the assistant last."""

    where: str
    """File and line."""
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class KeptMove:
    observation: str
    """What the environment had shown."""
    action: str
    """What was sent to it."""
    response: str | None
    """What the model wrote, special tokens included; None of an expert, and where no texts were kept."""
    is_good: bool
    """Well formed, and the environment took the action."""


@dataclass(frozen=True, slots=True)
class KeptEpisode:
    where: str
    task_id: str
    split: str
    success: bool
    moves: tuple[KeptMove, ...]


Told = Conversation | KeptEpisode


def read_demonstrations(path: Path) -> list[Told]:
    """Every line of the file, all of them conversations or all of them episodes; blank lines are none.

    Raises:
        DataError: a line is neither, or not like those before it, or there is none. The message names file and line.
    """
    found: list[Told] = []
    for number, line in lines(path):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        values = json_of(line, where, MEND.capitalize())
        one = _read(path, number, values)
        if found and type(one) is not type(found[0]):
            raise DataError(f"{where}: a file holds conversations or episodes, not both; make two files of it")
        found.append(one)
    if not found:
        raise DataError(f"{path}: holds no demonstration; {FORMS}")
    return found


def refuse_if_compact(told: Sequence[Told], prompt: str) -> None:
    """
    Raises:
        DataError: they are conversations, and `model.prompt` names a form that has none.
    """
    if prompt == "compact" and isinstance(told[0], Conversation):
        raise DataError(
            f"{told[0].where}: conversations are rendered by a chat template, and model.prompt=compact has none; "
            "choose a chat model, or give episodes of this benchmark (docs/warm-start.md)"
        )


def file_digest(path: Path) -> str:
    """By which a file is known, wherever it lies."""
    with reading(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _read(path: Path, number: int, values: Any) -> Told:
    where = f"{path}, line {number}"
    match values:
        case {"messages": messages}:
            if values.get("tools") or values.get("functions"):
                raise _wrong(where, "describes tools, which prompts of empg never do")
            return Conversation(where, tuple(_conversation(messages, where)))
        case {"task_id": _, "steps": _}:
            return _episode(path, number, values)
        case dict():
            raise DataError(f"{where}: is no demonstration: {FORMS}")
        case _:
            raise _wrong(where, "is no JSON object")


def _conversation(messages: Any, where: str) -> Iterator[Message]:
    if not isinstance(messages, list) or not messages:
        raise _wrong(f"{where}: messages", "must be a list of messages")
    expected = "user"
    for place, values in enumerate(messages):
        at = f"{where}: messages.{place}"
        message = _message(values, at)
        if message.role == "system" and place == 0:
            yield message
            continue
        if message.role != expected:
            why = f"is of the {message.role}, where one of the {expected} must stand (system first if there is one, "
            raise _wrong(at, f"{why}then user and assistant in turn)")
        expected = "user" if expected == "assistant" else "assistant"
        yield message
    if expected == "assistant" or len(messages) < 2:
        raise _wrong(f"{where}: messages", "must end with an answer of the assistant")


def _message(values: Any, at: str) -> Message:
    if not isinstance(values, Mapping):
        raise _wrong(at, 'must be an object with "role" and "content"')
    with reading(at, MEND.capitalize()):
        role, content = plain_text(values.get("role"), "role"), plain_text(values.get("content"), "content")
    if role not in ROLES:
        raise _wrong(f"{at}.role", f"{role!r} is none of {', '.join(ROLES)}")
    unread = [key for key in values if key not in ("role", "content", "weight") and values[key] is not None]
    if unread:
        raise _wrong(f"{at}.{unread[0]}", "is not read: a message has role, content and, of the assistant, weight")
    if role == "assistant" and not content.strip():
        raise _wrong(f"{at}.content", "is empty: an answer of nothing but its end would train")
    weight = values.get("weight")
    if weight is not None and (role != "assistant" or isinstance(weight, bool) or weight not in (0, 1)):
        raise _wrong(f"{at}.weight", "must be 0 or 1, and stand in an answer of the assistant")
    return Message(role, content, trains=weight != 0)


def _episode(path: Path, number: int, values: Any) -> KeptEpisode:
    where = f"{path}, line {number}"
    record = check_shape(Path(where), values, KeptTrajectory, mend=MEND)
    with reading(where, MEND.capitalize()):
        split, _ = plain_text(values.get("split"), "split"), plain_text(record["task_id"], "task_id")
        for place, step in enumerate(record["steps"]):
            for key in ("observation", "action", "response"):
                plain_text(step.get(key) or "", f"steps.{place}.{key}")
    moves = [
        KeptMove(step["observation"], step["action"], step.get("response"), step["well_formed"] and step["admissible"])
        for step in record["steps"]
    ]
    return KeptEpisode(where, record["task_id"], split, record["success"], tuple(moves))


def _wrong(where: str, what: str) -> DataError:
    return DataError(f"{where}: {what}; {MEND}")
