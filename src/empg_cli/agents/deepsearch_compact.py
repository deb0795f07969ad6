"""Deep Search in a closed vocabulary of whole words, for models far too small to read English.

A name becomes a number, given in the order in which names are shown: `e1` is what the question asks about. A question
becomes its look-ups in order (`ask e1 book_author birth_year`), a search result the facts that it states, those about
the searched name first (`e1 book_author e2 e2 birth_year e3`). Every prompt ends with the question and the last search
(`did e1 book_author`), that of a comparison also with which name has the larger number once both are known. What the
model says points instead of copying: `e1 book_author` searches that name with the relation's usual words, `e3 answer`
gives that name. Only what the environment has shown is used. Questions and texts in other words than the generated
worlds' become unknown ones.
"""

from __future__ import annotations

from collections.abc import Sequence

from empg_cli.agents.wording import Exchange, Parsed
from empg_cli.benchmarks.base import Observation
from empg_cli.benchmarks.deepsearch.actions import TEMPLATES, parse_action, render_action
from empg_cli.benchmarks.deepsearch.world.facts import Fact, shown_facts
from empg_cli.benchmarks.deepsearch.world.reading import ChainPlan, ComparisonPlan, plan_question
from empg_cli.benchmarks.deepsearch.world.relations import INTERSECTION_RELATION, NUMBER, RELATIONS
from empg_cli.model.tiny import ACT

MOST_NAMES = 60
"""Facts with names beyond this number are not shown."""
MOST_FACTS = 12
"""Of one search result; the first ones are shown."""

_RANKS = ("first", "second")
"""Which of two compared names has the larger number."""
_ANSWER, _NONE, _SIZE = "answer", "none", "size"
_WORDS = ("ask", "compare", "both", "unknown", "did", "shown", "nothing", "last")
_UNKNOWN_ANSWER = "unknown"
"""What an expert says that could not find the answer."""

_RELATION_OF = {key: key for key in RELATIONS} | {
    f"of_{key}": key for key, rule in RELATIONS.items() if rule.inverse_phrase
}
"""A look-up as a word, and its relation: `capital` goes from the country to the city, `of_capital` back."""


def vocabulary() -> list[str]:
    """Every word of this form, in a fixed order."""
    names = (f"e{number}" for number in range(1, MOST_NAMES + 1))
    return [*_WORDS, *_RANKS, _ANSWER, _NONE, _SIZE, *_RELATION_OF, *names]


class DeepSearchCompact:
    def __init__(self) -> None:
        self._question = "ask unknown"
        self._lookups: tuple[str, ...] = ()
        """Of the question, in order: they tell apart look-ups that are searched with the same words."""
        self._compared: tuple[str, tuple[str, ...]] = ("", ())
        """Relation and names of a comparison."""
        self._sizes: dict[str, float] = {}
        """What has been shown of the compared names."""
        self._numbers: dict[str, str] = {}
        """Names shown so far and the words that stand for them."""
        self._did = _NONE
        """The last search."""
        self._now = ""
        self._log: list[str] = []
        """Each past step as a later window prompt repeats it."""

    def opening(self, observation: Observation) -> str:
        self._question = self._asked(observation.text)
        self._now = self._goal()
        return self._now

    def turn(self, action: str, observation: Observation) -> str:
        self._log.append(f"{self._now} {ACT} {self.phrase(action)}")
        parsed = parse_action(action, "any")
        searched = self._name(parsed.argument) if parsed else ""
        self._did = (self._searched(parsed.argument) if parsed else "") or _NONE
        facts = shown_facts(observation.text)
        self._measure(facts)
        facts = [self._seen_from(searched, fact) for fact in facts]
        facts = sorted(dict.fromkeys(facts), key=lambda fact: fact.subject != searched)[:MOST_FACTS]
        shown = " ".join(filter(None, map(self._fact, facts))) or "nothing"
        last = "last " if TEMPLATES["search"] not in observation.actions else ""
        self._now = f"shown {shown} {last}{self._goal()}"
        return self._now

    def window(self, past: Sequence[Exchange], steps_taken: int, observation: Observation) -> str:
        now = self.turn(past[-1].action if past else "", observation)
        return " ".join([*self._log[len(self._log) - len(past) :], now])

    def parse(self, response: str) -> Parsed:
        """Tags, since the environment reads them in `action_form=any` and in `tag`."""
        names = {number: name for name, number in self._numbers.items()}
        match response.split():
            case [number] if number in names:
                return Parsed(render_search(names[number]), well_formed=True)
            case [number, lookup] if number in names and lookup in _RELATION_OF:
                return Parsed(render_search(f"{names[number]} {_keyword(lookup)}".strip()), well_formed=True)
            case [number, "answer"] if number in names:
                return Parsed(render_answer(names[number]), well_formed=True)
            case ["none", "answer"]:
                return Parsed(render_answer(_UNKNOWN_ANSWER), well_formed=True)
            case _:
                return Parsed(response, well_formed=False)

    def phrase(self, action: str) -> str:
        parsed = parse_action(action, "any")
        if parsed is None:
            return _NONE
        if parsed.tool == "answer":
            return f"{self._numbers.get(parsed.argument, _NONE)} {_ANSWER}"
        return self._searched(parsed.argument) or _NONE

    def _name(self, query: str) -> str:
        """The longest known name that a query begins with."""
        names = [name for name in self._numbers if query == name or query.startswith(f"{name} ")]
        return max(names, key=len, default="")

    def _searched(self, query: str) -> str:
        """A query as a name and a look-up; of the question's look-ups first the ones that come next."""
        name = self._name(query)
        if not name:
            return ""
        keyword = query[len(name) + 1 :]
        done = self._did.rpartition(" ")[2]
        number = self._lookups.index(done) + 1 if done in self._lookups else 0
        order = (*self._lookups[number:], *self._lookups[:number], *RELATIONS)
        lookup = next((word for word in order if keyword and _keyword(word) == keyword), "")
        return f"{self._numbers[name]} {lookup}".strip()

    def _asked(self, question: str) -> str:
        plan = plan_question(question)
        if plan is None:
            return "ask unknown"
        if isinstance(plan, ChainPlan):
            self._lookups = tuple(f"of_{hop.relation}" if hop.inverse else hop.relation for hop in plan.hops)
            return " ".join(["ask", self._number(plan.start), *self._lookups])
        is_comparison = isinstance(plan, ComparisonPlan)
        relation = plan.rule.relation if isinstance(plan, ComparisonPlan) else INTERSECTION_RELATION
        self._lookups = (relation,)
        if is_comparison:
            self._compared = relation, plan.pairs[0]
        return " ".join(["compare" if is_comparison else "both", *map(self._number, plan.pairs[0]), relation])

    def _goal(self) -> str:
        """The question, the last search, and of a comparison which name has the larger number once both are known."""
        larger = max(self._sizes, key=self._sizes.__getitem__) if len(self._sizes) == 2 else None
        verdict = [_RANKS[self._compared[1].index(larger)]] if larger else []
        return " ".join([self._question, "did", self._did, *verdict])

    def _measure(self, facts: Sequence[Fact]) -> None:
        relation, names = self._compared
        for fact in facts:
            if fact.relation == relation and fact.subject in names:
                self._sizes[fact.subject] = float(fact.object.replace(",", ""))

    def _seen_from(self, name: str, fact: Fact) -> Fact:
        """The same fact told from the other end where that is what was searched."""
        turned = f"of_{fact.relation}"
        return Fact(fact.object, turned, fact.subject) if fact.object == name and turned in _RELATION_OF else fact

    def _fact(self, fact: Fact) -> str:
        subject = self._number(fact.subject)
        is_number = RELATIONS[_RELATION_OF[fact.relation]].object == NUMBER
        object_ = _SIZE if is_number else self._number(fact.object)
        return f"{subject} {fact.relation} {object_}" if subject and object_ else ""

    def _number(self, name: str) -> str:
        """The word for a name, a new one for a new name; empty when there are no more."""
        if name not in self._numbers and len(self._numbers) < MOST_NAMES:
            self._numbers[name] = f"e{len(self._numbers) + 1}"
        return self._numbers.get(name, "")


def _keyword(lookup: str) -> str:
    return RELATIONS[_RELATION_OF[lookup]].keyword


def render_search(query: str) -> str:
    return render_action("search", query, "tag").partition("\n")[2]


def render_answer(answer: str) -> str:
    return render_action("answer", answer, "tag").partition("\n")[2]
