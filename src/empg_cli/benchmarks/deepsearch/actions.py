"""The three action forms: Search-R1 tags, ReAct brackets, JSON tool calls.

    tag     <search> capital of Andorra </search>    <open> 17 </open>    <answer> Paris </answer>
    react   search[capital of Andorra]               open[17]             answer[Paris]  (finish[...] too)
    json    <tool_call>{"name": "search", "arguments": {"query": "capital of Andorra"}}</tool_call>

The first complete action counts. Text inside `<think>` never acts, except for a tag action in an unclosed `<think>`:
small models forget to close it. Every search here is linear in the length of the text: a model that repeats an opening
tag a thousand times must not stop the rollout. `rules.py` has how other projects read a response.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

ToolName = Literal["search", "open", "answer"]
ActionForm = Literal["any", "tag", "react", "json"]

TEMPLATES: Final = {"search": "search[<query>]", "open": "open[<document id>]", "answer": "answer[<answer>]"}
ARGUMENT: Final[dict[ToolName, str]] = {"search": "query", "open": "id", "answer": "answer"}

_TOOLS: Final[tuple[ToolName, ...]] = ("search", "open", "answer")
_REACT: Final = re.compile(r"\b(search|open|answer|finish)\[", re.IGNORECASE)
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


_Placed = tuple[int, Action]
"""Where the action begins, and what it is."""


def parse_action(text: str, form: ActionForm) -> Action | None:
    """The first complete action of a response; None when there is none."""
    readers = {"tag": _parse_tag, "json": _parse_json, "react": _parse_react}
    found = [one for name, read in readers.items() if form in (name, "any") and (one := read(text))]
    return min(found, key=lambda one: one[0])[1] if found else None


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


def thought_in(text: str) -> str:
    """What stands in the first complete `<think>`; empty when there is none."""
    _, opened, rest = text.partition("<think>")
    inside, closed, _ = rest.partition("</think>")
    return inside.strip() if opened and closed else ""


def first_tag(text: str, tools: Sequence[ToolName] = _TOOLS) -> Action | None:
    """The leftmost `<tool>...</tool>`, wherever it stands.

    Of each tool only the first opening tag matters: what closes a later one closes the first as well.
    """
    found = _first_tag(text, tools)
    return found[1] if found else None


def _first_tag(text: str, tools: Sequence[ToolName] = _TOOLS) -> _Placed | None:
    found: list[tuple[int, Action]] = []
    for tool in tools:
        opening, closing = f"<{tool}>", f"</{tool}>"
        start = text.find(opening)
        stop = text.find(closing, start) if start >= 0 else -1
        if stop >= 0:
            argument = text[start + len(opening) : stop].strip()
            found.append((start, Action(tool, argument, stop + len(closing))))
    return min(found, key=lambda pair: pair[0]) if found else None


def spans(text: str, opening: str, closing: str) -> Iterator[tuple[int, int]]:
    """Start and end of what stands between the two, one after the other, as a lazy regular expression finds them."""
    stop = 0
    while (start := text.find(opening, stop)) >= 0 and (end := text.find(closing, start + len(opening))) >= 0:
        yield start + len(opening), end
        stop = end + len(closing)


def _blank_thoughts(text: str) -> str:
    """Closed thoughts replaced by spaces, so that positions stay."""
    opening, closing = "<think>", "</think>"
    parts, done = [], 0
    for start, end in spans(text, opening, closing):
        begin, stop = start - len(opening), end + len(closing)
        parts += [text[done:begin], " " * (stop - begin)]
        done = stop
    return "".join(parts) + text[done:]


def _parse_tag(text: str) -> _Placed | None:
    return _first_tag(_blank_thoughts(text))


def _parse_react(text: str) -> _Placed | None:
    """Brackets may nest inside the argument, as in `search[Chlorine [element]]`."""
    visible = _blank_thoughts(text)
    closing: dict[int, int] | None = None
    for match in _REACT.finditer(visible):
        if closing is None:
            closing = _bracket_pairs(visible)
        if (stop := closing.get(match.end() - 1)) is not None:
            return match.start(), Action(_tool(match[1].lower()), visible[match.end() : stop].strip(), stop + 1)
    return None


def _bracket_pairs(text: str) -> dict[int, int]:
    """Where each opening square bracket is closed."""
    pairs: dict[int, int] = {}
    opened: list[int] = []
    for bracket in re.finditer(r"[\[\]]", text):
        if bracket[0] == "[":
            opened.append(bracket.start())
        elif opened:
            pairs[opened.pop()] = bracket.start()
    return pairs


def _parse_json(text: str) -> _Placed | None:
    visible = _blank_thoughts(text)
    if "<tool_call>" not in visible:
        source = visible.strip()
        is_object = source.startswith("{") and source.endswith("}")
        return (0, action) if is_object and (action := _tool_call(source, len(visible))) else None
    for start, end in spans(visible, "<tool_call>", "</tool_call>"):
        if action := _tool_call(visible[start:end], end + len("</tool_call>")):
            return start, action
    return None


def _tool_call(source: str, end: int) -> Action | None:
    call = _object(source)
    tool, arguments = _JSON_NAMES.get(str(call.get("name"))), call.get("arguments", call.get("parameters"))
    if isinstance(arguments, str):  # OpenAI's form: the arguments are JSON inside of a JSON string
        arguments = _object(arguments)
    if tool is None or not isinstance(arguments, dict):
        return None
    for key in _JSON_ARGUMENTS[tool]:
        value = arguments.get(key)
        if isinstance(value, list) and value:  # DeepResearcher sends lists; one query a step is what we play
            value = value[0]
        if isinstance(value, str | int | float):
            return Action(tool, str(value).strip(), end)
    return None


def _object(source: str) -> dict[str, Any]:
    """The JSON object that a text is; empty when it is none."""
    try:
        value = json.loads(source)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _tool(name: str) -> ToolName:
    match name:
        case "search":
            return "search"
        case "open":
            return "open"
        case _:
            return "answer"
