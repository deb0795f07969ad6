"""`benchmark.rules` against slow transcriptions of what Search-R1 and verl-agent do with a response and an episode.

Written from PeterGriffinJin/Search-R1@a14dc3a (search_r1/llm_agent/generation.py, verl/utils/reward_score/
qa_em_format.py) and langfengQ/verl-agent@29e3e8b (agent_system/environments/env_package/search/projection.py and its
skyrl_gym environment), over responses that mix their tags in every order.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from empg_cli.benchmarks.deepsearch.actions import parse_action
from empg_cli.benchmarks.deepsearch.env import DeepSearchEnv, DeepSearchRules
from empg_cli.benchmarks.deepsearch.retrieval.base import Hit, Runner
from empg_cli.benchmarks.deepsearch.reward import Shaping
from empg_cli.benchmarks.deepsearch.rules import Reader, Rules
from empg_cli.benchmarks.deepsearch.world.questions import Question
from empg_cli.types import Task
from tests.support.rules import DEEPSEARCH

PIECES = (
    "<think>", "</think>", "<search>", "</search>", "<answer>", "</answer>", "<SEARCH>", "</SEARCH>", "<Answer>",
    "<open>", "</open>", "<information>", "Paris", " the paris. ", "Rome", "\n", " and ", "search[x]",
)  # fmt: skip
SENSIBLE = (
    "<think>a</think><search>b</search>", "<think>a</think>\n<answer> Paris </answer>", "<answer>Rome</answer>",
    "<think>I could <search>b</search></think><answer>Paris</answer>", "<think>a</think><search>b</search> more",
    "<search></search>", "<answer>Paris</answer><answer>Rome</answer>", "<answer>Rome</answer><search>b</search>",
)  # fmt: skip
GOLD = "Paris"


def responses(number: int, seed: int) -> Iterator[str]:
    rng = random.Random(seed)
    for _ in range(number):
        if rng.random() < 0.4:
            yield rng.choice(SENSIBLE)
        else:
            yield "".join(rng.choice(PIECES) for _ in range(rng.randint(0, 9)))


@dataclass
class Read:
    """What a project makes of one response."""

    act: str | None
    argument: str
    said: str
    is_valid: bool


def slow_search_r1(text: str) -> Read:
    if "</search>" in text:
        text = text[: text.index("</search>")] + "</search>"
    elif "</answer>" in text:
        text = text[: text.index("</answer>")] + "</answer>"
    found = re.search(r"<(search|answer)>(.*?)</\1>", text, re.DOTALL)
    return Read(found[1], found[2].strip(), text, True) if found else Read(None, "", text, False)


def slow_verl_agent(text: str) -> Read:
    cut = text
    for closing in ("</search>", "</answer>"):
        if closing in text:
            cut = text.split(closing)[0] + closing
            break
    said = ""
    for tag in ("answer", "search"):  # a search overrules an answer
        found = re.search(f"<{tag}>(.*?)</{tag}>", cut, re.DOTALL | re.IGNORECASE)
        if found:
            said = f"<{tag}>{found[1].strip()}</{tag}>"
    lower = text.lower()
    is_valid = said != "" and lower.count("<search>") + lower.count("<answer>") == 1
    if "<answer>" in said and "</answer>" in said:
        return Read("answer", "", said, is_valid)
    return Read("search" if said else None, said[8:-9], said, is_valid)


@pytest.mark.parametrize(("rules", "slow"), [("search_r1", slow_search_r1), ("verl_agent", slow_verl_agent)])
def test_every_response_is_read_as_theirs(rules: Rules, slow: object) -> None:
    reader = Reader(rules)
    for text in responses(6_000, seed=1):
        expected, reading = slow(text), reader.read(text)  # type: ignore[operator]
        action = reading.action
        assert (action.tool if action else None) == expected.act, text
        assert (reading.said, reading.is_valid) == (expected.said, expected.is_valid), text
        if action and action.tool == "search":
            assert action.argument == expected.argument
        # Search-R1 cuts the context where the text is cut, verl-agent trains on all of the response
        assert text[: reading.end] == (expected.said if rules == "search_r1" else text)


def test_ours_is_the_first_complete_action_outside_of_closed_thoughts() -> None:
    for text in responses(6_000, seed=2):
        blank = re.sub(r"<think>.*?</think>", lambda thought: " " * len(thought[0]), text, flags=re.DOTALL)
        found = re.search(r"<(search|open|answer)>(.*?)</\1>", blank, re.DOTALL)
        action = parse_action(text, "tag")
        assert (action and (action.tool, action.argument, action.end)) == (
            found and (found[1], found[2].strip(), found.end())
        )
        reading = Reader("ours", "tag").read(text)
        assert (reading.action, text[: reading.end]) == (action, text[: found.end()] if found else text)


class Engine:
    name, is_local = "fake", True

    async def search(self, queries: list[str], top_k: int) -> list[list[Hit]]:
        return [[Hit("0", "T", "Something.")] for _ in queries]


def play(rules: DeepSearchRules, texts: list[str]) -> tuple[float, float, int]:
    """Reward, EM and model calls of our environment."""
    task = Task("q", "k", "id", Question("q", "Which city?", (GOLD,), "k", "id"))
    env = DeepSearchEnv(task, rules, Engine(), Runner(is_local=True), None)  # type: ignore[arg-type]
    env.reset()
    for text in texts:
        result = env.step(text)
        if result.done:
            break
    return result.reward, result.info["em"], len(env.history)


RULES = DEEPSEARCH
DOCUMENT = "Doc 1(Title: T) Something."


def normal(text: str) -> str:
    text = "".join(c for c in text.lower() if c not in "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
    return " ".join(word for word in text.split() if word not in ("a", "an", "the"))


def scored(transcript: str) -> str | None:
    found = re.findall(r"<answer>(.*?)</answer>", transcript, re.DOTALL)
    return found[-1].strip() if found else None


def slow_format(transcript: str) -> bool:
    """Search-R1's states: think, then search and information any number of times, answer last, no text between."""
    inner = r"(?:(?!</?(?:think|search|information|answer)>).)*"
    think = rf"<think>{inner}</think>\s*"
    rounds = rf"(?:{think}<search>{inner}</search>\s*<information>{inner}</information>\s*)*"
    return re.fullmatch(rf"\s*{rounds}{think}<answer>{inner}</answer>\s*", transcript, re.DOTALL) is not None


def slow_search_r1_episode(texts: list[str], turns: int, structure: float, final: float) -> tuple[float, float, int]:
    """`turns` calls that may search and a last one that may only answer."""
    transcript, calls = "", 0
    for number, text in enumerate(texts[: turns + 1]):
        read = slow_search_r1(text)
        calls += 1
        transcript += read.said
        if read.act == "answer":
            break
        if number < turns:
            shown = f"\n\n<information>{DOCUMENT}</information>\n\n" if read.act else "\nMy action is invalid.\n"
            transcript += shown
    answer, is_formed = scored(transcript), slow_format(transcript)
    em = float(answer is not None and normal(answer) == normal(GOLD))
    if em:
        return (1.0 if is_formed else 1.0 - structure), em, calls
    return (structure if is_formed else final if answer is not None else 0.0), em, calls


def slow_verl_agent_episode(texts: list[str], turns: int) -> tuple[float, float, int]:
    transcript, calls = "", 0
    for text in texts[:turns]:
        read = slow_verl_agent(text)
        calls += 1
        transcript += read.said
        if read.act == "answer" or calls == turns:
            break
        transcript += f"\n<information>{DOCUMENT}</information>\n" if read.act else ""
    answer = scored(transcript)
    em = float(answer is not None and normal(answer) == normal(GOLD))
    return em, em, calls


@pytest.mark.parametrize(("structure", "final"), [(0.0, 0.0), (0.2, 0.1)])
def test_search_r1_episodes_have_their_turns_em_and_reward(structure: float, final: float) -> None:
    shaping = Shaping(structure=structure, answered=final)
    rules = replace(RULES, rules="search_r1", last_turn="answer", shaping=shaping)
    stream = list(responses(10_000, seed=3))
    outcomes = set()
    for start in range(0, len(stream), 5):
        texts = stream[start : start + 5]
        expected = slow_search_r1_episode(texts, 4, structure, final)
        assert play(rules, texts) == pytest.approx(expected), texts
        outcomes.add(expected)
    assert len(outcomes) > 8  # right and wrong, formed and not, early and late


def test_verl_agent_episodes_have_their_turns_em_and_reward() -> None:
    rules = replace(RULES, rules="verl_agent", max_steps=4)
    stream = list(responses(8_000, seed=4))
    outcomes = set()
    for start in range(0, len(stream), 4):
        texts = stream[start : start + 4]
        expected = slow_verl_agent_episode(texts, 4)
        assert play(rules, texts) == expected, texts
        outcomes.add(expected)
    assert len(outcomes) > 6
