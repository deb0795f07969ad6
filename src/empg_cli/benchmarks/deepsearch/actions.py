"""The three action forms: Search-R1 tags, ReAct brackets, JSON tool calls.

    tag     <search> capital of Andorra </search>    <open> 17 </open>    <answer> Paris </answer>
    react   search[capital of Andorra]               open[17]             answer[Paris]  (finish[...] too)
    json    <tool_call>{"name": "search", "arguments": {"query": "capital of Andorra"}}</tool_call>

The first complete action counts and the text after it is cut (Search-R1). Text inside `<think>` never acts, except for
a tag action in an unclosed `<think>`: small models forget to close it and Search-R1 lets that pass.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Final, Literal

ToolName = Literal["search", "open", "answer"]
ActionForm = Literal["any", "tag", "react", "json"]

TEMPLATES: Final = {"search": "search[<query>]", "open": "open[<document id>]", "answer": "answer[<answer>]"}
ARGUMENT: Final[dict[ToolName, str]] = {"search": "query", "open": "id", "answer": "answer"}

_THINK: Final = re.compile(r"<think>.*?</think>", re.DOTALL)
_TAG: Final = re.compile(r"<(search|open|answer)>(.*?)</\1>", re.DOTALL)
_REACT: Final = re.compile(r"\b(search|open|answer|finish)\[", re.IGNORECASE)
_TOOL_CALL: Final = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
_BARE_JSON: Final = re.compile(r"^\s*(\{.*\})\s*$", re.DOTALL)
_JSON_NAMES: Final[dict[str, ToolName]] = {
    "search": "search",
    "web_search": "search",
    "open": "open",
    "access": "open",
    "browse_webpage": "open",
    "answer": "answer",
    "finish": "answer",
}
_JSON_ARGUMENTS: Final[dict[ToolName, tuple[str, ...]]] = {
    "search": ("query", "query_list", "queries", "q"),
    "open": ("id", "url", "url_list", "document"),
    "answer": ("answer", "text"),
}


@dataclass(frozen=True, slots=True)
class Action:
    tool: ToolName
    argument: str
    end: int
    """Length of the text up to and including the action; the rest is cut."""


def parse_action(text: str, form: ActionForm) -> Action | None:
    """The first complete action of a response; None when there is none."""
    match form:
        case "tag":
            return _parse_tag(text)
        case "react":
            return _parse_react(text)
        case "json":
            return _parse_json(text)
        case "any":
            return _parse_tag(text) or _parse_json(text) or _parse_react(text)


def render_action(tool: ToolName, argument: str, form: ActionForm, thought: str = "") -> str:
    """The action as text, in the canonical `react` form for `any`; a thought goes before it in the form's own way."""
    match form:
        case "tag":
            return f"<think>{thought}</think>\n<{tool}>{argument}</{tool}>"
        case "json":
            call = {"name": tool, "arguments": {ARGUMENT[tool]: argument}}
            head = f"<think>{thought}</think>\n" if thought else ""
            return f"{head}<tool_call>{json.dumps(call, ensure_ascii=False)}</tool_call>"
        case "react" | "any":
            return (f"Thought: {thought}\nAction: " if thought else "") + f"{tool}[{argument}]"


def _blank_thoughts(text: str) -> str:
    """Closed thoughts replaced by spaces, so that positions stay."""
    return _THINK.sub(lambda match: " " * len(match[0]), text)


def _parse_tag(text: str) -> Action | None:
    match = _TAG.search(_blank_thoughts(text))
    return Action(_tool(match[1]), match[2].strip(), match.end()) if match else None


def _parse_react(text: str) -> Action | None:
    """Brackets may nest inside the argument, as in `search[Chlorine [element]]`."""
    visible = _blank_thoughts(text)
    for match in _REACT.finditer(visible):
        depth = 1
        for at in range(match.end(), len(visible)):
            depth += {"[": 1, "]": -1}.get(visible[at], 0)
            if depth == 0:
                return Action(_tool(match[1].lower()), visible[match.end() : at].strip(), at + 1)
    return None


def _parse_json(text: str) -> Action | None:
    visible = _blank_thoughts(text)
    for match in _TOOL_CALL.finditer(visible) if "<tool_call>" in visible else _BARE_JSON.finditer(visible):
        if action := _tool_call(match[1], match.end()):
            return action
    return None


def _tool_call(source: str, end: int) -> Action | None:
    try:
        call = json.loads(source)
    except (ValueError, RecursionError):
        return None
    if not isinstance(call, dict):
        return None
    tool, arguments = _JSON_NAMES.get(str(call.get("name"))), call.get("arguments", call.get("parameters"))
    if tool is None or not isinstance(arguments, dict):
        return None
    for key in _JSON_ARGUMENTS[tool]:
        value = arguments.get(key)
        if isinstance(value, list) and value:  # DeepResearcher sends lists; one query a step is what we play
            value = value[0]
        if isinstance(value, str | int | float):
            return Action(tool, str(value).strip(), end)
    return None


def _tool(name: str) -> ToolName:
    match name:
        case "search":
            return "search"
        case "open":
            return "open"
        case _:
            return "answer"
