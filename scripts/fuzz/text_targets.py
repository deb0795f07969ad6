"""What a model or a person writes: answers, tool calls, queries, actions."""

from __future__ import annotations

import asyncio
from pathlib import Path

from hypothesis import strategies as st

from scripts.fuzz.inputs import texts
from scripts.fuzz.target import Target


def tags(folder: Path) -> Target:
    from empg_cli.agents.tags import parse_tags

    answers = texts("<action>", "</action>", "<think>", "</think>", "look", "<ACTION>", "\u4e00", "<", "İ")
    return Target(answers, lambda answer: parse_tags(answer, fallback_characters=30), seconds=0.5)


def tool_calls(folder: Path) -> Target:
    """Deep Search's three action forms, under everybody's rules."""
    from empg_cli.benchmarks.deepsearch.actions import parse_action
    from empg_cli.benchmarks.deepsearch.judge import read_verdict
    from empg_cli.benchmarks.deepsearch.rules import Reader

    answers = texts(
        "<search>", "</search>", "<answer>", "</answer>", "<think>", "</think>", "search[", "answer[", "]",
        "<tool_call>",
        "</tool_call>", '{"name": "search", "arguments": {"query": "', '"}}', "{", '{"judgement": "correct"}',
        "[", "\\u",
    )  # fmt: skip

    def run(answer: str) -> None:
        for form in ("any", "tag", "react", "json"):
            parse_action(answer, form)
        for rules in ("ours", "search_r1", "verl_agent"):
            Reader(rules).read(answer)
        read_verdict(answer)

    return Target(answers, run)


def queries(folder: Path) -> Target:
    """Search engines: no query has a grammar."""
    from empg_cli.benchmarks.deepsearch.corpus import Passage
    from empg_cli.benchmarks.deepsearch.index import build_index
    from empg_cli.benchmarks.deepsearch.search import open_index
    from empg_cli.benchmarks.webshop.bm25 import build_index as build_shop

    build_index([Passage(str(n), f"Title {n}", f"text {n} AND it's") for n in range(20)], folder / "index")
    engine = open_index(folder / "index")
    shop = build_shop([f"red shirt {n}" for n in range(20)], [f"B{n}" for n in range(20)])

    def run(query: str) -> None:
        asyncio.run(engine.search([query], 3))
        asyncio.run(engine.open(query))
        shop.search(query, 5)

    asked = texts(
        "text",
        " AND ",
        " OR ",
        "NOT ",
        "(",
        ")",
        '"',
        ":",
        "title:",
        "*",
        "^",
        "~",
        "\\",
        "it's",
        "+",
        "-",
        "[1 TO 2]",
        "red",
    )
    return Target(asked, run)


def actions(folder: Path) -> Target:
    """Every string is an answer to an environment, and what an answer shows can be read by the compact wordings."""
    from empg_cli.benchmarks import make_benchmark

    rooms, shop = make_benchmark("alfworld", train_games=6), make_benchmark("webshop", num_products=60)
    world = make_benchmark(
        "deepsearch",
        cache_dir=str(folder),
        world={"mode": "fictional", "seed": 0, "scale": 0.2, "train_questions": 20, "test_questions": 3},
    )
    tasks = [(benchmark, benchmark.tasks("train")[0]) for benchmark in (rooms, shop, world)]

    def run(said: list[str]) -> None:
        for benchmark, task in tasks:
            env = benchmark.make_env(task)
            env.reset()
            for action in said:
                if env.step(action).done:
                    break

    action = texts(
        "go to ", "take ", "shelf 1", "search[", "click[", "]", "buy now", "< prev", "next >",
        "back to search", "answer[",
        "open[", "<search>", "</search>", "look", "inventory", "b0", "0",
    )  # fmt: skip
    return Target(st.lists(action, max_size=6), run)
