"""The expert's English: questions to plans, passages to facts; and the expert when things do not go straight."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from empg_cli.benchmarks.deepsearch.corpus import Passage
from empg_cli.benchmarks.deepsearch.env import DeepSearchEnv
from empg_cli.benchmarks.deepsearch.expert import Expert
from empg_cli.benchmarks.deepsearch.index import build_index
from empg_cli.benchmarks.deepsearch.retrieval.base import Runner
from empg_cli.benchmarks.deepsearch.retrieval.tantivy import TantivyRetriever
from empg_cli.benchmarks.deepsearch.world.chains import Hop
from empg_cli.benchmarks.deepsearch.world.questions import Question
from empg_cli.benchmarks.deepsearch.world.reading import (
    ChainPlan,
    ComparisonPlan,
    IntersectionPlan,
    find_all_facts,
    find_fact,
    plan_question,
)
from empg_cli.benchmarks.deepsearch.world.relations import NUMBER, RELATIONS
from empg_cli.types import Task
from tests.support.rules import DEEPSEARCH

CAPITAL, SERVED = Hop("capital", False), Hop("airport_city", False)
LOCATED, HAS_CAPITAL = Hop("city_country", False), Hop("capital", True)
USES = Hop("currency", True)


@pytest.mark.parametrize(
    ("question", "start", "hops"),
    [
        ("What is the capital of Chad?", "Chad", (CAPITAL,)),
        ("What is the capital of the country in which Lyon is located?", "Lyon", (LOCATED, CAPITAL)),
        ("What is the country whose capital is the city served by O'Hare?", "O'Hare", (SERVED, HAS_CAPITAL)),
        ("What is the capital of the country that uses the Euro as its currency?", "Euro", (USES, CAPITAL)),
        ("Who is the founder of Mofoul Systems?", "Mofoul Systems", (Hop("comp_founder", False),)),
        (
            "What is the year in which the author of The Kla Winter was born?",
            "The Kla Winter",
            (Hop("book_author", False), Hop("birth_year", False)),
        ),
        ("What is the country in which Radon was discovered?", "Radon", (Hop("discovered_in", False),)),
    ],
)
def test_chain_questions(question: str, start: str, hops: tuple[Hop, ...]) -> None:
    assert plan_question(question) == ChainPlan(start, hops)


def test_every_phrase_is_read_back() -> None:
    for key, rule in RELATIONS.items():
        for phrase, inverse in ((rule.phrase, False), (rule.inverse_phrase, True)):
            if phrase and rule.object != NUMBER:  # quantities are compared, never asked for
                assert plan_question(f"What is {phrase.format('Xyz Abc')}?") == ChainPlan(
                    "Xyz Abc", (Hop(key, inverse),)
                )


def test_other_questions() -> None:
    compared = plan_question("Which city has more inhabitants, Stow or Bath or Wells?")
    assert isinstance(compared, ComparisonPlan)
    assert compared.pairs == (("Stow", "Bath or Wells"), ("Stow or Bath", "Wells"))
    both = plan_question("Which country borders both Bosnia and Herzegovina and Serbia?")
    assert isinstance(both, IntersectionPlan)
    assert ("Bosnia and Herzegovina", "Serbia") in both.pairs
    for text in ("", "Who?", "What is love?", "who sang it"):
        assert plan_question(text) is None


@pytest.mark.parametrize(
    ("text", "hop", "known", "found"),
    [
        ("The capital of Chad is N'Djamena. Chad is a country in Africa.", CAPITAL, "Chad", "N'Djamena"),
        ("Its seat of government is Lima, the capital city of Peru.", CAPITAL, "Peru", "Lima"),
        ("Lima is a city in Peru. Lima is the capital city of Peru.", HAS_CAPITAL, "Lima", "Peru"),
        ("Clocks in Lima follow the America/Lima time zone.", Hop("timezone", False), "Lima", "America/Lima"),
        ("Radon has atomic number 86. It is found in group 18.", Hop("atomic_number", False), "Radon", "86"),
        ("The discoverer of X was C.F. Auer. X is old.", Hop("discoverer", False), "X", "C.F. Auer"),
        ("Y. The discoverer of X was Antoine J. Balard.", Hop("discoverer", False), "X", "Antoine J. Balard"),
        ("Some. Dzongkha is an official language of Bhutan.", Hop("official_language", True), "Dzongkha", "Bhutan"),
        ("Some. Dzongkha is an official language of Bhutan.", Hop("official_language", False), "Bhutan", "Dzongkha"),
        ("The capital of Niger is Niamey.", CAPITAL, "Nigeria", None),
        ("The capital of Chad is", CAPITAL, "Chad", None),  # a snippet that ends too early
        ("", CAPITAL, "Chad", None),
    ],
)
def test_facts_in_passages(text: str, hop: Hop, known: str, found: str | None) -> None:
    assert find_fact(text, hop, known, by_title=False) == found


def test_sentences_with_it_need_the_title() -> None:
    text, hop = "Its IATA code is ORD.", Hop("iata", False)
    assert find_fact(text, hop, "O'Hare", by_title=False) is None
    assert find_fact(text, hop, "O'Hare", by_title=True) == "ORD"


def test_all_neighbours() -> None:
    text = (
        "Chad shares a land border with Libya. Chad shares a land border with Niger. Mali shares a land border with X."
    )
    assert list(find_all_facts(text, "borders", "Chad")) == ["Libya", "Niger"]


RULES = replace(DEEPSEARCH, max_steps=8)
PASSAGES = [
    Passage("0", "Lyon", "Lyon is a city in France."),
    Passage("1", "France", "People like the place for its wine, and so on and on. The capital of France is Paris."),
]
QUESTION = Question("q", "What is the capital of the country in which Lyon is located?", ("Paris",), "2hop", "id")


def new_env(folder: Path, **rules: object) -> DeepSearchEnv:
    if not (folder / "index").exists():
        build_index(PASSAGES, folder / "index")
    engine = TantivyRetriever(folder / "index")
    env = DeepSearchEnv(Task("q", "2hop", "id", QUESTION), replace(RULES, **rules), engine, Runner(is_local=True), None)  # type: ignore[arg-type]
    env.reset()
    return env


@pytest.mark.parametrize("form", ["any", "tag", "react", "json"])
@pytest.mark.parametrize("snippet_words", [0, 3])
def test_the_expert_plays_every_form_and_opens_pages(tmp_path: Path, form: str, snippet_words: int) -> None:
    env = new_env(tmp_path, action_form=form, snippet_words=snippet_words, open_tool=snippet_words > 0)
    for action in Expert(env).play():
        result = env.step(action)
    assert result.success
    assert result.info["well_formed"]
    assert result.info["opened_pages"] == (2 if snippet_words else 0)


def test_the_expert_recovers_from_actions_that_others_put_in(tmp_path: Path) -> None:
    env = new_env(tmp_path)
    for number, action in enumerate(Expert(env).play()):
        if number == 1:
            env.step("search[something else entirely]")  # a mistake before the second search
        result = env.step(action)
    assert result.success


def test_the_expert_goes_on_where_a_player_stopped(tmp_path: Path) -> None:
    """`empg play` asks a new expert for every hint."""
    env = new_env(tmp_path)
    hints = []
    for _ in range(3):
        hints.append(next(iter(Expert(env).play())))
        result = env.step(hints[-1])
    assert hints == ["search[Lyon city located]", "search[France capital]", "answer[Paris]"]
    assert result.success


def test_a_hasty_expert_answers_one_look_up_too_early(tmp_path: Path) -> None:
    env = new_env(tmp_path)
    actions = []
    for action in Expert(env, haste=1.0).play(random.Random(0)):
        actions.append(action)
        result = env.step(action)
    assert actions == ["search[Lyon city located]", "answer[France]"]
    assert not result.success


def test_the_expert_gives_up_in_time(tmp_path: Path) -> None:
    env = new_env(tmp_path, max_steps=2)
    for action in Expert(env).play():
        result = env.step(action)
    assert result.done
    assert not result.success
    assert result.info["answer"] == "unknown"
