"""Deep Search in few words: golden texts, and the expert's whole play through words and tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from empg_cli import config
from empg_cli.agents.agent import Agent
from empg_cli.agents.codec import CompactCodec
from empg_cli.agents.deepsearch_compact import DeepSearchCompact, vocabulary
from empg_cli.agents.wording import Exchange
from empg_cli.benchmarks import make_benchmark
from empg_cli.benchmarks.base import Observation
from empg_cli.benchmarks.deepsearch.actions import TEMPLATES, parse_action
from empg_cli.benchmarks.deepsearch.world.facts import Fact, shown_facts
from empg_cli.model.tiny import UNKNOWN, word_tokenizer

BOTH = (TEMPLATES["search"], TEMPLATES["answer"])
QUESTION = Observation("What is the year in which the author of The Zob Garden was born?", BOTH)
SHOWN = (
    "Doc 1(Title: The Zob Garden) The Zob Garden is a novel by Ana Ro. The Zob Garden was published in 1912.\n"
    "Doc 2(Title: Ana Ro) Ana Ro came into the world in the year 1890. Ana Ro wrote The Zob Garden."
)


@pytest.fixture
def wording() -> DeepSearchCompact:
    made = DeepSearchCompact()
    assert made.opening(QUESTION) == "ask e1 book_author birth_year did none"
    return made


def test_facts_are_read_once_and_sentences_without_subject_are_about_the_title() -> None:
    shown = (
        "<information>Doc 1 [17] (Title: Tubelia) Its seat of government is Veth, the capital city of Tubelia. "
        "Tubelia covers an area of 1,394,876 square kilometres.\n"
        "Doc 2(Title: Veth Airport) Its IATA code is QQV. Nobody knows why.\n"
        "Doc 3(Title: Veth) Veth is the capital city of Tubelia.</information>"
    )
    assert shown_facts(shown) == [
        Fact("Tubelia", "capital", "Veth"),
        Fact("Tubelia", "area_km2", "1,394,876"),
        Fact("Veth Airport", "iata", "QQV"),
    ]
    assert shown_facts("No results.") == []


def test_names_become_numbers_and_numbers_names_again(wording: DeepSearchCompact) -> None:
    assert wording.parse("e1 book_author").action == "<search>The Zob Garden novel by</search>"
    assert wording.turn("search[The Zob Garden novel by]", Observation(SHOWN, BOTH)) == (
        "shown e1 book_author e2 e1 book_year e3 e2 birth_year e4 ask e1 book_author birth_year did e1 book_author"
    )
    assert wording.parse("e2 birth_year").action == "<search>Ana Ro world year</search>"
    assert wording.parse("e2").action == "<search>Ana Ro</search>"
    assert wording.parse("e4 answer").action == "<answer>1890</answer>"
    assert wording.turn("", Observation("No results.", BOTH[1:])) == (
        "shown nothing last ask e1 book_author birth_year did none"
    )


def test_facts_about_what_was_searched_come_first_and_are_told_from_its_side(wording: DeepSearchCompact) -> None:
    wording.turn("search[The Zob Garden novel by]", Observation(SHOWN, BOTH))
    assert wording.turn("search[Ana Ro]", Observation(SHOWN, BOTH)) == (
        "shown e2 of_book_author e1 e2 birth_year e4 e1 book_year e3 ask e1 book_author birth_year did e2"
    )


def test_a_search_is_read_as_the_look_up_that_comes_next() -> None:
    """`capital` and `of_capital` are searched with the same words."""
    wording = DeepSearchCompact()
    question = "What is the capital of the country that uses the Zob as its currency?"
    assert wording.opening(Observation(question, BOTH)) == "ask e1 of_currency capital did none"
    assert wording.phrase("search[Zob currency]") == "e1 of_currency"
    assert wording.parse("e1 currency").action == wording.parse("e1 of_currency").action
    assert wording.phrase("search[Zob headquarters]") == "e1 comp_hq"
    assert wording.phrase("search[Nobody]") == "none"


@pytest.mark.parametrize("response", ["none", "e2 birth_year", "e9 answer", "1890 answer", "e1 e1", "answer", ""])
def test_what_was_not_shown_cannot_be_said(wording: DeepSearchCompact, response: str) -> None:
    parsed = wording.parse(response)
    assert (parsed.action, parsed.well_formed) == (response, False)


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("Which country has the larger area, Aa or Bb?", "compare e1 e2 area_km2 did none"),
        ("Which country borders both Aa and Bb?", "both e1 e2 borders did none"),
        ("What is the currency of the country whose capital is Aa?", "ask e1 of_capital currency did none"),
        ("How are you?", "ask unknown did none"),
    ],
)
def test_questions_become_relations(question: str, words: str) -> None:
    assert DeepSearchCompact().opening(Observation(question, BOTH)) == words


def test_a_comparison_is_told_once_both_numbers_are_known() -> None:
    wording = DeepSearchCompact()
    wording.opening(Observation("Which country has the larger area, Aa or Bb?", BOTH))
    aa, bb = (
        Observation(f"Doc 1(Title: {name}) {name} covers an area of {area} square kilometres.", BOTH)
        for name, area in (("Aa", "9,750"), ("Bb", "21,394"))
    )
    assert wording.turn("search[Aa area]", aa) == "shown e1 area_km2 size compare e1 e2 area_km2 did e1"
    assert wording.turn("search[Bb area square kilometres]", bb) == (
        "shown e2 area_km2 size compare e1 e2 area_km2 did e2 area_km2 second"
    )


def test_a_window_repeats_past_steps_as_they_were_shown(wording: DeepSearchCompact) -> None:
    action = "<search>The Zob Garden novel by</search>"
    text = wording.window([Exchange(QUESTION.text, action)], 1, Observation(SHOWN, BOTH))
    assert text.startswith("ask e1 book_author birth_year did none <act> e1 book_author shown e1 book_author e2")


@pytest.fixture(scope="module")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> Any:
    cache: Path = tmp_path_factory.mktemp("world")
    small = ["benchmark.world.scale=0.1", "benchmark.world.train_questions=200", "benchmark.world.test_questions=20"]
    cfg = config.load(["benchmark=deepsearch", "model=tiny-scratch", f"benchmark.cache_dir={cache}", *small])
    return make_benchmark(**cfg.benchmark.model_dump())


@pytest.mark.parametrize("split", ["train", "id", "ood"])
def test_the_expert_solves_every_kind_of_question_in_these_words(split: str, small_world: Any) -> None:
    tokenizer = word_tokenizer(vocabulary())
    unknown = tokenizer.convert_tokens_to_ids(UNKNOWN)
    for task in small_world.tasks(split):
        env = small_world.make_env(task)
        agent = Agent(DeepSearchCompact(), CompactCodec(tokenizer), context="transcript", history=0)
        prompt = agent.start(env.reset())
        success = False
        for action in small_world.expert(env):
            response = agent.codec.response(agent.wording.phrase(action))
            said = agent.parse(response)
            meant, played = parse_action(action, "any"), parse_action(said.action, "any")
            assert meant and played and said.well_formed
            assert (meant.tool, meant.argument) == (played.tool, played.argument)
            result = env.step(said.action)
            success = result.success
            if not result.done:
                prompt += agent.next_prompt(said.action, Observation(result.text, result.actions), ended=True)
        assert success, task.task_id
        assert unknown not in prompt and len(prompt) < 250
