"""The three action forms: what is read from a response, and where it is cut."""

from __future__ import annotations

import json
import time

import pytest

from empg_cli.benchmarks.deepsearch.actions import ActionForm, parse_action, render_action

CALL = '<tool_call>{"name": "search", "arguments": {"query": "a b"}}</tool_call>'


@pytest.mark.parametrize(
    ("text", "tool", "argument"),
    [
        ("<think>x</think><search> a b </search>", "search", "a b"),
        ("<search>a</search><answer>b</answer>", "search", "a"),  # the first complete action
        ("<answer>b</answer><search>a</search>", "answer", "b"),
        ("<think><search>no</search></think><answer>b</answer>", "answer", "b"),  # thoughts do not act
        ("<think>never closed <search>a</search>", "search", "a"),
        ("<search>a\nb</search>", "search", "a\nb"),
        ("<search>open <answer>b</answer>", "answer", "b"),  # the search is never closed
        ("<open>17</open>", "open", "17"),
        ("<answer></answer>", "answer", ""),
    ],
)
def test_tags(text: str, tool: str, argument: str) -> None:
    action = parse_action(text, "tag")
    assert action is not None
    assert (action.tool, action.argument) == (tool, argument)


@pytest.mark.parametrize(
    ("text", "tool", "argument"),
    [
        ("search[first] and then <answer>late</answer>", "search", "first"),
        ("<answer>first</answer> or search[late]", "answer", "first"),
        (f"{CALL} or <answer>late</answer>", "search", "a b"),
        (f"open[17], {CALL}", "open", "17"),
        ("<search> search[inside] </search>", "search", "search[inside]"),
        ("search[never closed <answer>b</answer>", "answer", "b"),
    ],
)
def test_of_several_forms_what_begins_first_is_the_action(text: str, tool: str, argument: str) -> None:
    action = parse_action(text, "any")
    assert action is not None and (action.tool, action.argument) == (tool, argument)


def test_the_text_after_the_action_is_cut() -> None:
    text = "<think>x</think>\n<search>a</search> and so on <answer>b</answer>"
    action = parse_action(text, "tag")
    assert action is not None
    assert text[: action.end] == "<think>x</think>\n<search>a</search>"


@pytest.mark.parametrize(
    ("text", "tool", "argument"),
    [
        ("search[a b]", "search", "a b"),
        ("Thought: hm\nAction: search[a]", "search", "a"),
        ("finish[b]", "answer", "b"),
        ("Answer[b]", "answer", "b"),
        ("search[Chlorine [element] facts] more]", "search", "Chlorine [element] facts"),
        ("search[never closed, answer[b]", "answer", "b"),
        ("research[a] search[b]", "search", "b"),  # whole words only
        ("open[http://x.org/a?b=1]", "open", "http://x.org/a?b=1"),
    ],
)
def test_react(text: str, tool: str, argument: str) -> None:
    action = parse_action(text, "react")
    assert action is not None
    assert (action.tool, action.argument) == (tool, argument)


@pytest.mark.parametrize(
    ("call", "tool", "argument"),
    [
        ({"name": "search", "arguments": {"query": "a"}}, "search", "a"),
        ({"name": "search", "arguments": {"query_list": ["a", "b"]}}, "search", "a"),  # verl's tool: the first one
        ({"name": "web_search", "arguments": {"query": ["a"]}}, "search", "a"),  # DeepResearcher
        ({"name": "browse_webpage", "arguments": {"url_list": ["http://x"]}}, "open", "http://x"),
        ({"name": "open", "parameters": {"id": 17}}, "open", "17"),
        ({"name": "answer", "arguments": {"answer": "b"}}, "answer", "b"),
        ({"name": "search", "arguments": '{"query": "a"}'}, "search", "a"),  # OpenAI: JSON in a string
    ],
)
def test_tool_calls(call: object, tool: str, argument: str) -> None:
    for text in (f"<think>x</think><tool_call>\n{json.dumps(call)}\n</tool_call>", json.dumps(call)):
        action = parse_action(text, "json")
        assert action is not None
        assert (action.tool, action.argument) == (tool, argument)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I think it is Paris.",
        "<search>a",
        "search[a",
        "search a",
        "<tool_call>{not json}</tool_call>",
        '<tool_call>["search"]</tool_call>',
        '<tool_call>{"name": "fly", "arguments": {"query": "a"}}</tool_call>',
        '<tool_call>{"name": "search", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "search", "arguments": {"query": {"a": 1}}}</tool_call>',
        '<tool_call>{"name": "search", "arguments": "a"}</tool_call>',
        '<tool_call>{"name": "search", "arguments": "[1]"}</tool_call>',
        "[" * 100_000,
        '{"a":' * 100_000 + "1" + "}" * 100_000,
    ],
)
def test_no_action(text: str) -> None:
    for form in ("tag", "react", "json", "any"):
        assert parse_action(text, form) is None


def test_a_broken_tool_call_is_skipped() -> None:
    action = parse_action(f"<tool_call>oops</tool_call>{CALL}", "json")
    assert action is not None
    assert action.argument == "a b"


def test_forms_are_strict_and_any_takes_all() -> None:
    texts: dict[ActionForm, str] = {"tag": "<search>a</search>", "react": "search[a]", "json": CALL}
    for form, text in texts.items():
        for other in texts:
            assert (parse_action(text, other) is not None) == (form == other)
        assert parse_action(text, "any") is not None


def test_rendered_actions() -> None:
    assert render_action("search", "a", "tag", "why") == "<think>why</think>\n<search>a</search>"
    assert render_action("answer", "a", "react") == "answer[a]"
    assert render_action("open", "7", "any") == "open[7]"
    assert json.loads(render_action("search", 'q "x"', "json")[len("<tool_call>") : -len("</tool_call>")]) == {
        "name": "search",
        "arguments": {"query": 'q "x"'},
    }


@pytest.mark.parametrize(
    "piece", ["<search>", "<think>", "<answer><search>", "<tool_call>", "search[", "</think><think>"]
)
def test_reading_is_linear_in_the_length(piece: str) -> None:
    """96 kB of an opening tag took seconds when every one of them looked for its closing tag to the end of the text."""
    text = piece * (96_000 // len(piece))
    start = time.process_time()
    assert parse_action(text, "any") is None
    assert time.process_time() - start < 0.5  # a few milliseconds
