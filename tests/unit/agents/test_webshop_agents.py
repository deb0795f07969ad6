"""WebShop's wordings: what a model reads of a page, and how its answers become actions."""

from __future__ import annotations

import random
from typing import Any

import pytest

from empg_cli import config
from empg_cli.agents.agent import Agent
from empg_cli.agents.codec import ChatCodec, CompactCodec
from empg_cli.agents.webshop_chat import LONGEST_PROMPT, WebshopChat
from empg_cli.agents.webshop_compact import WebshopCompact, vocabulary
from empg_cli.agents.wording import Exchange
from empg_cli.benchmarks import make_benchmark
from empg_cli.benchmarks.base import Observation
from empg_cli.benchmarks.webshop.benchmark import WebShopBenchmark
from empg_cli.learner.demonstrations import demonstrate
from empg_cli.model.tiny import word_tokenizer
from tests.support.chat import chat_tokenizer

ROLLOUT = config.load().rollout.model_copy(
    update={"context": "transcript", "max_context_tokens": 2048, "max_new_tokens": 6}
)
WISH = (
    "Find me machine wash men's jeans with high waist with color: light blue, and size: xl, "
    "and price lower than 40.00 dollars"
)
START = Observation(f"WebShop [SEP] Instruction: [SEP] {WISH} [SEP] Search", ("search[<query>]",))
RESULTS = Observation(
    f"Instruction: [SEP] {WISH} [SEP] Back to Search [SEP] Page 1 (Total results: 14) [SEP] Next > "
    "[SEP] B000000001 [SEP] Boni Men's Denim Jeans Slim Fit Luna Line [SEP] $60.0 "
    "[SEP] B000000002 [SEP] Boni Men's Denim Jeans High Waist, Machine Wash Luna Line [SEP] $35.5 to $44.0 "
    "[SEP] B000000003 [SEP] Tulo Men's Cargo Shorts Wash Cold Onyx Series [SEP] $12.5",
    (
        *("click[back to search]", "click[next >]"),
        *("click[b000000001]", "click[b000000002]", "click[b000000003]"),
    ),
)
ITEM = Observation(
    f"Instruction: [SEP] {WISH} [SEP] Back to Search [SEP] < Prev [SEP] color [SEP] red [SEP] light blue "
    "[SEP] size [SEP] small [SEP] xl [SEP] Boni Men's Denim Jeans High Waist, Machine Wash Luna Line "
    "[SEP] Price: $35.5 to $44.0 [SEP] Rating: N.A. [SEP] Description [SEP] Features [SEP] Reviews [SEP] Buy Now",
    (
        *("click[back to search]", "click[< prev]", "click[description]", "click[features]", "click[reviews]"),
        *("click[buy now]", "click[red]", "click[light blue]", "click[small]", "click[xl]"),
    ),
)
FEATURES = Observation(
    f"Instruction: [SEP] {WISH} [SEP] Back to Search [SEP] < Prev [SEP] Designed with high waist in mind. [SEP]  ",
    ("click[back to search]", "click[< prev]"),
)


def make(**changes: Any) -> WebShopBenchmark:
    keys = config.load(["benchmark=webshop", "benchmark.data_dir=null", "benchmark.num_products=300"]).benchmark
    benchmark = make_benchmark(**keys.model_dump() | changes)
    assert isinstance(benchmark, WebShopBenchmark)
    return benchmark


def test_compact_words_of_an_episode() -> None:
    """Search terms of the wish: machin, wash, men, jean, high, waist."""
    wording = WebshopCompact()
    want = "want light_blue xl have"
    assert wording.opening(START) == f"start {want} none"
    search = wording.parse("search told options").action
    assert search == "search[machine wash men's jeans with high waist light blue xl]"
    listed = f"r1 m2 over r2 m6 maybe r3 m2 ok more {want} none"
    assert wording.turn(search, RESULTS) == f"results p1 {listed}"
    assert wording.turn("click[b00]", RESULTS) == f"refused results p1 {listed}"
    assert wording.parse("open r2").action == "click[b000000002]"
    item = "item r2 m6 maybe color red light_blue size small xl"
    assert wording.turn("click[b000000002]", ITEM) == f"{item} {want} none"
    assert wording.turn("click[light blue]", ITEM) == f"{item} {want} light_blue"
    assert wording.turn("click[features]", FEATURES) == f"detail m2 {want} light_blue"
    assert wording.turn("click[< prev]", ITEM) == f"{item} {want} light_blue"
    assert wording.turn("click[red]", ITEM) == f"{item} {want} red"  # a group has one value
    assert wording.turn("click[< prev]", RESULTS) == (
        f"results p1 r1 m2 over r2 m6 seen r3 m2 ok more {want} none"  # going back forgets the options
    )


@pytest.mark.parametrize(
    ("answer", "action", "well_formed"),
    [
        ("search told", "search[machine wash men's jeans with high waist]", True),
        ("search options", "search[light blue xl]", True),
        ("search buy told", "search[buy machine wash men's jeans with high waist]", True),
        ("choose light_blue", "click[light blue]", True),
        ("choose dark_grey", "click[dark grey]", True),  # not on this page: the shop refuses it
        ("buy", "click[buy now]", True),
        ("read features", "click[features]", True),
        ("", "", False),
        ("search", "search", False),
        ("open r2", "open r2", False),  # nothing to open on an item's page
        ("buy buy", "buy buy", False),
    ],
)
def test_compact_answers(answer: str, action: str, well_formed: bool) -> None:
    wording = WebshopCompact()
    wording.opening(START)
    wording.turn("click[b000000002]", ITEM)
    parsed = wording.parse(answer)
    assert (parsed.action, parsed.well_formed) == (action, well_formed)


def test_compact_window_repeats_the_last_exchanges() -> None:
    wording = WebshopCompact()
    start = f"{wording.opening(START)} <act> search told"
    search = wording.parse("search told").action
    results = wording.window([Exchange(START.text, search)], 1, RESULTS)
    assert results.startswith(f"{start} results p1 r1")
    item = wording.window([Exchange(RESULTS.text, "click[b000000002]")], 2, ITEM)
    assert item.startswith("results p1 r1") and "<act> open r2 item r2 m6" in item


@pytest.mark.parametrize("changes", [{}, {"expert": "goal"}, {"goals": "human"}, {"observation": "text_rich"}])
def test_every_action_survives_the_compact_form(changes: dict[str, Any]) -> None:
    """All that a page offers, and all that the expert does; only the search template has no answer."""
    benchmark, tokenizer = make(**changes), word_tokenizer(vocabulary())
    codec, checked = CompactCodec(tokenizer), 0
    for task in benchmark.tasks("train")[:25]:
        env, wording = benchmark.make_env(task), WebshopCompact()
        observation = env.reset()
        tokenizer_sees = codec.opening(wording.opening(observation))
        for action in benchmark.expert(env, random.Random(0)):
            for offered in {action, *observation.actions} - {"search[<query>]"}:
                ids = codec.response(wording.phrase(offered))
                if offered.startswith("click") or changes.get("expert") != "goal":
                    assert tokenizer.unk_token_id not in ids, offered
                    parsed = wording.parse(codec.decode(ids))
                else:  # the goal's expert may type the title of the product
                    parsed = wording.parse(wording.phrase(offered))
                assert (parsed.action, parsed.well_formed) == (offered, True)
                checked += 1
            result = env.step(action)
            observation = Observation(result.text, result.actions)
            if not result.done:
                tokenizer_sees += codec.turn(wording.turn(action, observation), ended=True)
        assert tokenizer.unk_token_id not in tokenizer_sees
    assert checked > 800


def test_both_views_read_the_same() -> None:
    """`text` and `text_rich` tell a compact agent the same, detours and mistakes included."""
    tokenizer = word_tokenizer(vocabulary())
    read = []
    for view in ("text", "text_rich"):
        benchmark = make(observation=view)
        agents = (Agent(WebshopCompact(), CompactCodec(tokenizer), context="transcript", history=0) for _ in range(15))
        read.append(
            [
                demonstrate(
                    benchmark, task, agent, random.Random(7), mistakes=0.3, prompt_weight=0.0, rollout=ROLLOUT
                ).rows
                for task, agent in zip(benchmark.tasks("train"), agents, strict=False)
            ]
        )
    assert read[0] == read[1]


@pytest.mark.parametrize(
    ("answer", "action", "well_formed"),
    [
        ("<think>so</think><action>Search[Red Shoes]</action>", "search[red shoes]", True),
        ("<think>so</think> I would now click[buy now]", "would now click[buy now]"[-20:].strip(), False),
        ("<action>click[xl]</action>", "click[xl]", False),
    ],
)
def test_chat_answers(answer: str, action: str, well_formed: bool) -> None:
    parsed = WebshopChat().parse(answer)
    assert (parsed.action, parsed.well_formed) == (action, well_formed)
    if well_formed:
        assert WebshopChat().parse(WebshopChat().phrase(parsed.action)) == parsed


def test_chat_prompts() -> None:
    wording = WebshopChat()
    first = wording.opening(START)
    assert f"Your task is to: {WISH}\nThe page shows: 'Search'\n" in first
    assert "'search[<your query>]'," in first and "click[search]" not in first
    wording = WebshopChat()
    wording.opening(START)
    prompt = wording.window([Exchange(START.text, "search[jeans]")], 1, RESULTS)
    assert f"Your task is to: {WISH}\nSteps taken so far: 1. The most recent 1:\n" in prompt
    assert "[Page 1: 'Search', Action 1: 'search[jeans]']\nStep 2. The page shows: 'Back to Search' [SEP] " in prompt
    assert prompt.count(WISH) == 1
    assert "'B000000003' [SEP] 'Tulo Men's Cargo Shorts Wash Cold Onyx Series' [SEP] '$12.5'\n" in prompt
    assert " 'click[b000000003]'," in prompt


@pytest.mark.parametrize(("letters", "kept"), [(0, True), (1, False)])
def test_long_chat_prompts_leave_the_history_out(letters: int, kept: bool) -> None:
    """At the limit the history stays; one character more and it goes."""
    wording = WebshopChat()
    wording.opening(START)
    empty = len(wording.window([Exchange(START.text + " [SEP] ", "x")], 1, RESULTS))
    filler = "y" * (LONGEST_PROMPT - empty - len(" [SEP] ''") + letters)
    prompt = wording.window([Exchange(f"{START.text} [SEP] {filler}", "x")], 1, RESULTS)
    assert ("Steps taken so far" in prompt) is kept
    assert (len(prompt) == LONGEST_PROMPT) is kept
    assert f"Your task is to: {WISH}\n" in prompt and "'$12.5'" in prompt


def test_chat_window_agent_plays_an_episode() -> None:
    """Whole prompts for a real chat template, from the opening to the purchase."""
    benchmark = make()
    agent = Agent(WebshopChat(), ChatCodec(chat_tokenizer()), context="window", history=2)
    env = benchmark.make_env(benchmark.tasks("test")[0])
    agent.start(env.reset())
    for action in benchmark.expert(env):
        response = agent.codec.response(agent.wording.phrase(action))
        assert agent.parse(response).action == action
        result = env.step(action)
        if not result.done:
            agent.next_prompt(action, Observation(result.text, result.actions), ended=True)
    assert result.done and result.score > 0


def test_a_shop_cannot_say_the_words_that_end_a_compact_prompt() -> None:
    wording = WebshopCompact()
    wording.opening(Observation("Instruction: [SEP] buy a lamp, and price lower than 30.00 dollars", ()))
    phrase = wording.phrase("click[<act>]"), wording.phrase("click[x <end> y]")
    ids = CompactCodec(word_tokenizer(["choose"])).opening(" ".join(phrase))
    act, end = CompactCodec(word_tokenizer(["choose"])).opening("")[0], 3
    assert ids.count(act) == 1 and end not in ids
