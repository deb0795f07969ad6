"""Deep Search in a closed vocabulary of whole words, for models far too small to read English.

A name becomes a number, given in the order in which names are shown: `e1` is what the question asks about. A question
becomes its relations and names (`ask birth_year book_author e1`), a search result the facts that it states (`e1
book_author e2 e2 birth_year e3`). Answers point instead of copying: `find e1 book_author` searches that name with the
relation's usual words, `answer e3` gives that name. Only what the environment has shown is used. Questions and texts in
other words than the generated worlds' become unknown ones.
"""

from __future__ import annotations

from collections.abc import Sequence

from empg_cli.agents.codec import ACT
from empg_cli.agents.wording import Exchange, Parsed
from empg_cli.benchmarks.base import Observation
from empg_cli.benchmarks.deepsearch.actions import TEMPLATES, parse_action, render_action
from empg_cli.benchmarks.deepsearch.world.facts import Fact, shown_facts
from empg_cli.benchmarks.deepsearch.world.reading import ChainPlan, ComparisonPlan, plan_question
from empg_cli.benchmarks.deepsearch.world.relations import INTERSECTION_RELATION, NUMBER, RELATIONS

MOST_NAMES = 60
"""Facts with names beyond this number are not shown."""
MOST_FACTS = 12
"""Of one search result; the first ones are shown."""
MOST_DIGITS = 9
"""Longer numbers read as if they had this many digits."""

_FIND, _ANSWER, _NONE = "find", "answer", "none"
_WORDS = ("ask", "compare", "both", "unknown", "shown", "nothing", "last", _FIND, _ANSWER, _NONE)
_UNKNOWN_ANSWER = "unknown"
"""What an expert says that could not find the answer."""


def vocabulary() -> list[str]:
    """Every word of this form, in a fixed order."""
    words = [*_WORDS, *RELATIONS, *(f"of_{key}" for key, rule in RELATIONS.items() if rule.inverse_phrase)]
    words += [f"e{number}" for number in range(1, MOST_NAMES + 1)]
    words += [f"digits_{count}" for count in range(1, MOST_DIGITS + 1)]
    words += [f"d{digit}" for digit in range(10)]
    return words


class DeepSearchCompact:
    def __init__(self) -> None:
        self._question = "ask unknown"
        self._relations: tuple[str, ...] = ()
        """Relations of the question: they tell apart relations that are searched with the same words."""
        self._numbers: dict[str, str] = {}
        """Names shown so far and the words that stand for them."""
        self._now = ""
        self._log: list[str] = []
        """Each past step as a later window prompt repeats it."""

    def opening(self, observation: Observation) -> str:
        self._question = self._now = self._asked(observation.text)
        return self._now

    def turn(self, action: str, observation: Observation) -> str:
        self._log.append(f"{self._now} {ACT} {self.phrase(action)}")
        facts = [self._fact(fact) for fact in shown_facts(observation.text)[:MOST_FACTS]]
        shown = " ".join(fact for fact in facts if fact) or "nothing"
        last = "last " if TEMPLATES["search"] not in observation.actions else ""
        self._now = f"shown {shown} {last}{self._question}"
        return self._now

    def window(self, past: Sequence[Exchange], steps_taken: int, observation: Observation) -> str:
        now = self.turn(past[-1].action if past else "", observation)
        return " ".join([*self._log[len(self._log) - len(past) :], now])

    def parse(self, response: str) -> Parsed:
        """Tags, since the environment reads them in `action_form=any` and in `tag`."""
        names = {number: name for name, number in self._numbers.items()}
        match response.split():
            case ["find", number] if number in names:
                return Parsed(render_search(names[number]), well_formed=True)
            case ["find", number, relation] if number in names and relation in RELATIONS:
                query = f"{names[number]} {RELATIONS[relation].keyword}".strip()
                return Parsed(render_search(query), well_formed=True)
            case ["answer", number] if number in names:
                return Parsed(render_answer(names[number]), well_formed=True)
            case ["answer", "none"]:
                return Parsed(render_answer(_UNKNOWN_ANSWER), well_formed=True)
            case _:
                return Parsed(response, well_formed=False)

    def phrase(self, action: str) -> str:
        parsed = parse_action(action, "any")
        if parsed is None:
            return _FIND
        if parsed.tool == "answer":
            return f"{_ANSWER} {self._numbers.get(parsed.argument, _NONE)}"
        return f"{_FIND} {self._searched(parsed.argument)}".strip()

    def _searched(self, query: str) -> str:
        """A query as a name and a relation; the longest name that it begins with."""
        names = [name for name in self._numbers if query == name or query.startswith(f"{name} ")]
        if not names:
            return ""
        name = max(names, key=len)
        keyword = query[len(name) + 1 :]
        relation = next((key for key in (*self._relations, *RELATIONS) if RELATIONS[key].keyword == keyword), "")
        return f"{self._numbers[name]} {relation if keyword else ''}".strip()

    def _asked(self, question: str) -> str:
        plan = plan_question(question)
        if plan is None:
            return "ask unknown"
        if isinstance(plan, ChainPlan):
            self._relations = tuple(hop.relation for hop in plan.hops)
            words = [f"of_{hop.relation}" if hop.inverse else hop.relation for hop in reversed(plan.hops)]
            return " ".join(["ask", *words, self._number(plan.start)])
        relation, word = (
            (plan.rule.relation, "compare") if isinstance(plan, ComparisonPlan) else (INTERSECTION_RELATION, "both")
        )
        self._relations = (relation,)
        return " ".join(["ask", word, relation, *map(self._number, plan.pairs[0])])

    def _fact(self, fact: Fact) -> str:
        subject = self._number(fact.subject)
        if RELATIONS[fact.relation].object == NUMBER:
            return f"{subject} {fact.relation} {_magnitude(fact.object)}" if subject else ""
        object_ = self._number(fact.object)
        return f"{subject} {fact.relation} {object_}" if subject and object_ else ""

    def _number(self, name: str) -> str:
        """The word for a name, a new one for a new name; empty when there are no more."""
        if name not in self._numbers and len(self._numbers) < MOST_NAMES:
            self._numbers[name] = f"e{len(self._numbers) + 1}"
        return self._numbers.get(name, "")


def render_search(query: str) -> str:
    return render_action("search", query, "tag").partition("\n")[2]


def render_answer(answer: str) -> str:
    return render_action("answer", answer, "tag").partition("\n")[2]


def _magnitude(number: str) -> str:
    """Number of digits and the first three of them."""
    digits = [character for character in number if character.isdigit()]
    return " ".join([f"digits_{min(max(len(digits), 1), MOST_DIGITS)}", *(f"d{digit}" for digit in digits[:3])])
