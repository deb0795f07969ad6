"""Playing an episode: observations, limits, the last turn, bad input, engines that fail."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from empg_cli.agents.deepsearch_chat import DeepSearchChat
from empg_cli.benchmarks.base import Observation
from empg_cli.benchmarks.deepsearch.env import LAST_TURN_NOTICE, DeepSearchEnv, Judge
from empg_cli.benchmarks.deepsearch.judge import JudgeError
from empg_cli.benchmarks.deepsearch.retrieval.base import BudgetSpentError, Hit, Retriever, Runner, query_words
from empg_cli.benchmarks.deepsearch.reward import Shaping
from empg_cli.benchmarks.deepsearch.world.questions import Question
from empg_cli.services.errors import NoAnswerError
from empg_cli.types import Task
from tests.support.rules import DEEPSEARCH

RULES = replace(DEEPSEARCH, max_steps=4, top_k=2, max_observation_chars=400, success_reward=2.0)
PAGES = [
    Hit("0", "Paris", "Paris is the capital city of France."),
    Hit("1", "France", "The capital of France is Paris. It is in Europe."),
    Hit("2", "Long", "word " * 300),
]


class FakeEngine:
    """Pages that share a word with the query; raises what it is told to."""

    name = "fake"
    is_local = True

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.queries: list[str] = []

    async def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        self.queries += queries
        if self.error:
            raise self.error
        wanted = [set(query_words(query)) for query in queries]
        return [[hit for hit in PAGES if words & set(query_words(hit.title))][:top_k] for words in wanted]

    async def open(self, id_: str) -> Hit | None:
        if self.error:
            raise self.error
        return next((hit for hit in PAGES if hit.id == id_), None)

    async def check(self) -> None: ...

    def fingerprint(self) -> dict[str, Any]:
        return {}

    async def close(self) -> None: ...


def start(engine: Retriever | None = None, judge: Judge | None = None, **rules: Any) -> DeepSearchEnv:
    question = Question("q", "What is the capital of France?", ("Paris",), "1hop", "id")
    env = DeepSearchEnv(
        Task("q", "1hop", "id", question),
        replace(RULES, **rules),
        engine or FakeEngine(),
        Runner(is_local=True),
        judge,
    )
    assert env.reset().text == "What is the capital of France?"
    return env


def test_search_r1_observation() -> None:
    result = start(action_form="tag").step("<think>x</think><search>paris france</search>")
    assert result.text == (
        "<information>Doc 1(Title: Paris) Paris is the capital city of France.\n"
        "Doc 2(Title: France) The capital of France is Paris. It is in Europe.</information>"
    )
    assert result.info["documents"] == ("0", "1")
    assert (result.done, result.valid, result.reward) == (False, True, 0.0)


def test_plain_observation_with_ids_and_snippets() -> None:
    env = start(open_tool=True, snippet_words=4)
    assert env.step("search[france]").text == "Doc 1 [1] (Title: France) The capital of France ..."
    opened = env.step("open[1]")
    assert opened.text == "(Title: France) The capital of France is Paris. It is in Europe."
    assert opened.valid


def test_right_answer() -> None:
    env = start()
    env.step("search[france]")
    result = env.step("answer[paris.]")
    assert (result.done, result.success, result.score, result.reward) == (True, True, 1.0, 2.0)
    assert result.info["searches"] == 1
    assert result.info["well_formed"] is True
    assert result.actions == ()


def test_wrong_answer_and_partial_value() -> None:
    result = start(reward="f1").step("answer[Paris, France]")
    # F1 = 2*1/(2+1); success stays exact match
    assert result.score == pytest.approx(2 / 3)
    assert result.reward == pytest.approx(4 / 3)
    assert not result.success
    assert result.info["em"] == 0.0


def test_the_episode_ends_at_max_steps() -> None:
    env = start()
    for _ in range(3):
        assert not env.step("search[france]").done
    result = env.step("search[france]")
    assert result.done
    assert (result.success, result.reward, result.score) == (False, 0.0, 0.0)
    assert result.info["step_limit"] is True
    with pytest.raises(RuntimeError, match="over"):
        env.step("answer[Paris]")


def test_last_turn_answer() -> None:
    env = start(last_turn="answer", max_steps=3)
    env.step("search[france]")
    announced = env.step("search[france]")
    assert announced.text.endswith(LAST_TURN_NOTICE)
    assert announced.actions == ("answer[<answer>]",)
    late = env.step("search[france]")
    assert late.done
    assert not late.valid
    assert late.info["refused_actions"] == 1

    env = start(last_turn="answer", max_steps=3)
    env.step("search[france]")
    env.step("search[france]")
    assert env.step("answer[Paris]").success


def test_a_judge_decides_only_what_is_no_exact_match() -> None:
    asked = []

    async def judge(question: str, golds: Sequence[str], prediction: str) -> bool:
        asked.append(prediction)
        return prediction == "City of Light"

    assert start(judge=judge, reward="judge").step("answer[Paris]").success
    assert asked == []
    result = start(judge=judge, reward="judge").step("answer[City of Light]")
    assert (result.success, result.reward, result.info["em"]) == (True, 2.0, 0.0)
    assert not start(judge=judge, reward="judge").step("answer[Rome]").success
    assert not start(judge=judge, reward="judge").step("answer[ ]").success
    assert asked == ["City of Light", "Rome"]


def test_a_failed_judgement_is_an_error_and_never_a_zero() -> None:
    async def judge(question: str, golds: Sequence[str], prediction: str) -> bool:
        raise JudgeError("down")

    with pytest.raises(JudgeError):
        start(judge=judge, reward="judge").step("answer[City of Light]")


def test_a_search_that_fails_is_told_and_counted() -> None:
    engine = FakeEngine(NoAnswerError("serper: HTTP 503, tried 4 times"))
    env = start(engine, open_tool=True)
    result = env.step("search[france]")
    assert "did not answer (serper: HTTP 503, tried 4 times)" in result.text
    assert result.valid  # not the agent's fault
    assert result.info["search_error"]
    assert not result.done
    env.step("open[1]")
    engine.error = None
    assert "Doc 1" in env.step("search[france]").text
    assert env.step("answer[Paris]").info["failed_searches"] == 2


def test_a_spent_budget_ends_the_episode_in_an_error() -> None:
    with pytest.raises(BudgetSpentError):
        start(FakeEngine(BudgetSpentError("spent"))).step("search[france]")


@pytest.mark.parametrize(
    ("action", "kind"),
    [
        ("", "malformed_actions"),
        ("I do not know.", "malformed_actions"),
        ("search[]", "refused_actions"),
        ("search[   ]", "refused_actions"),
        ("open[99]", "refused_actions"),
        ("open[../../etc/passwd]", "refused_actions"),
        ("open[-1]", "refused_actions"),
        ("open[" + "9" * 5000 + "]", "refused_actions"),
    ],
)
def test_refused_actions_say_how_and_cost_the_turn(action: str, kind: str) -> None:
    engine = FakeEngine()
    env = start(engine, open_tool=True)
    result = env.step(action)
    assert not result.valid
    assert not result.done
    assert result.text  # the reason; how to do it is `actions`, which the agent's wording writes in its own form
    assert "search[query]" not in result.text
    assert result.actions == env.tools
    assert engine.queries == []
    assert env.step("answer[Paris]").info[kind] == 1


def test_opening_needs_the_tool() -> None:
    env = start(open_tool=False)
    assert env.tools == ("search[<query>]", "answer[<answer>]")
    assert not env.step("open[1]").valid
    assert start(open_tool=True).tools == ("search[<query>]", "open[<document id>]", "answer[<answer>]")


def test_what_a_chat_model_is_told_after_a_malformed_turn_is_what_its_prompt_says() -> None:
    """The default form `any` reads `search[query]` too, but the prompt asks for tags and counts it as malformed."""
    env, wording = start(), DeepSearchChat()
    wording.opening(Observation("Q?", env.tools))
    result = env.step("I do not know.")
    prompt = wording.turn("", Observation(result.text, result.actions))
    assert "search[" not in prompt and "answer[" not in prompt
    obeyed = wording.parse("<think>a</think>" + re.search("<search>.*</search>", prompt)[0])  # type: ignore[index]
    assert obeyed.well_formed


def test_other_rules_have_their_own_hints() -> None:
    """Search-R1 says it outside of the information tags; verl-agent says nothing."""
    hint = start(rules="search_r1").step("x").text
    assert hint.startswith("That is not a complete action. To search, write <search> query </search>;")
    assert start(rules="verl_agent").step("x").text == ""


def test_an_empty_query_is_a_search_by_the_rules_of_others() -> None:
    assert not start().step("<search> </search>").valid
    assert start(rules="search_r1").step("<search> </search>").valid
    assert start(rules="verl_agent").step("<search> </search>").valid


def test_answers_are_compared_in_composed_characters_but_by_the_rules_of_others() -> None:
    question = Question("q", "Where?", ("Malm\u00f6",), "1hop", "id")
    for rules, is_right in (("ours", True), ("search_r1", False), ("verl_agent", False)):
        task = Task("q", "1hop", "id", question)
        env = DeepSearchEnv(task, replace(RULES, rules=rules), FakeEngine(), Runner(is_local=True), None)
        env.reset()
        assert env.step("<answer>Malmo\u0308</answer>").success is is_right


@pytest.mark.parametrize("form", ["tag", "react", "json"])
def test_the_hint_has_the_form(form: str) -> None:
    text = start(action_form=form, open_tool=True).step("hello").text
    expected = {"tag": "<search> query </search>", "react": "search[query]", "json": '{"name": "search", "arguments"'}
    assert expected[form] in text
    assert "open" in text


def test_long_observations_are_cut_and_counted() -> None:
    env = start(max_observation_chars=100)
    assert len(env.step("search[long]").text) == 100
    assert env.step("answer[x]").info["cut_observations"] == 1


def test_long_queries_are_cut_and_counted() -> None:
    env = start()
    env.step(f"search[{'paris ' * 2000}]")
    assert env.step("answer[x]").info["cut_queries"] == 1


def test_nothing_found() -> None:
    assert start().step("search[atlantis]").text == "No results."


def test_shaped_reward_in_tag_form() -> None:
    shaping = Shaping(structure=0.2, answered=0.1, evidence=0.1)
    env = start(action_form="tag", shaping=shaping, success_reward=1.0)
    env.step("<think>x</think>\n<search>france</search> tail that is cut")
    result = env.step("<think>y</think>\n<answer>Rome</answer>")
    assert result.info["well_formed"] is True
    assert result.reward == pytest.approx(0.3)  # wrong, well formed, and "Paris" was on the page

    env = start(action_form="tag", shaping=shaping, success_reward=1.0)
    env.step("<search>france</search>")  # no thought
    assert env.step("<think>y</think><answer>Paris</answer>").reward == pytest.approx(0.8)
    assert start(action_form="tag", shaping=shaping, success_reward=1.0).step("<answer>Rome</answer>").reward == (
        pytest.approx(0.1)
    )


def test_history_holds_what_was_cut_off_nowhere() -> None:
    env = start(action_form="tag")
    env.step("<think>x</think><search>france</search> and <answer>Rome</answer>")
    assert env.history[0][0] == "<think>x</think><search>france</search>"
