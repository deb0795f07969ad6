"""Deep Search for chat models: reason in <think>, then one tagged action (Search-R1's form; the sentences are our own).

The environment reads the response itself, so the action is the whole response; `benchmark.rules` say how much of it
stays in the context.
"""

from __future__ import annotations

from collections.abc import Sequence

from empg_cli.agents.wording import Exchange, Parsed
from empg_cli.benchmarks.base import Observation
from empg_cli.benchmarks.deepsearch.actions import TEMPLATES, parse_action, render_action, thought_in
from empg_cli.benchmarks.deepsearch.rules import Reader

_ROLE = "You answer a question with the help of a search engine; the facts are in its documents, not in your memory."
_INSIDE = "Each time, first reason inside <think> </think> about what is known and what is missing. Then do one thing:"
_USES = {
    TEMPLATES["search"]: "- look something up: <search> your query </search>",
    TEMPLATES["open"]: "- read a whole document: <open> its id </open>",
    TEMPLATES["answer"]: "- finish: <answer> the answer alone, without explanation </answer>",
}
_SHOWN = "What you look up comes back between <information> and </information>."
_CONTINUE = "Reason inside <think> </think>, then do one thing:"
_NO_ACTION = "(no complete action)"
_THOUGHT = "The next step is clear."


class DeepSearchChat:
    def __init__(self, reader: Reader | None = None) -> None:
        """reader: of the environment's settings, so that both read a response alike; None = the default rules."""
        self._reader = reader or Reader()
        self._question = ""

    def opening(self, observation: Observation) -> str:
        self._question = observation.text
        return f"{self._task(observation)}\n\nQuestion: {self._question}"

    def turn(self, action: str, observation: Observation) -> str:
        return f"{_information(observation.text)}\n\n{_CONTINUE}\n{_uses(observation)}"

    def window(self, past: Sequence[Exchange], steps_taken: int, observation: Observation) -> str:
        shown = [exchange.observation for exchange in past[1:]] + [observation.text]
        pairs = zip(past, shown, strict=True) if past else ()
        steps = [f"{self._act(exchange.action)}\n{_information(text)}" for exchange, text in pairs]
        first = steps_taken - len(past) + 1
        numbered = "\n".join(f"Step {number}: {step}" for number, step in enumerate(steps, first))
        listed = numbered or _information(observation.text)
        return (
            f"{self._task(observation)}\n\nQuestion: {self._question}\n\n"
            f"Steps taken so far: {steps_taken}. The most recent {len(past)}:\n{listed}"
        )

    def parse(self, response: str) -> Parsed:
        reading = self._reader.read(response)
        surplus = None if reading.end is None else len(response) - reading.end
        return Parsed(response, well_formed=reading.is_valid, surplus=surplus)

    def phrase(self, action: str) -> str:
        """As tags. An expert's own thought stays (it has one with action_form=tag), since one that says what is wanted
        gives a model something to imitate."""
        parsed = parse_action(action, "any")
        if parsed is None:
            return action
        thought = thought_in(action) or _THOUGHT
        return render_action(parsed.tool, parsed.argument, "tag", thought)

    def _act(self, response: str) -> str:
        """A past response without its reasoning."""
        action = self._reader.read(response).action
        return f"<{action.tool}>{action.argument}</{action.tool}>" if action else _NO_ACTION

    @staticmethod
    def _task(observation: Observation) -> str:
        return f"{_ROLE}\n{_INSIDE}\n{_uses(observation)}\n{_SHOWN}"


def _uses(observation: Observation) -> str:
    return "\n".join(_USES[template] for template in observation.actions)


def _information(text: str) -> str:
    return text if text.startswith("<information>") else f"<information>{text}</information>"
