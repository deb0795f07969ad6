"""ALFWorld for chat models: one user message per step, reasoning and action in tags (verl-agent's form).

The structure follows the set-up of arXiv 2509.09265 and 2505.10978 (task, last observations and actions, admissible
actions, think-then-act tags); the sentences are our own.
"""

from __future__ import annotations

from collections.abc import Sequence

from empg_cli.agents.tags import INSTRUCTIONS, parse_tags, phrase_tags
from empg_cli.agents.wording import Exchange, Parsed
from empg_cli.benchmarks.base import Observation

ROLE = "You are an agent acting in a household that you can only see through text."
FALLBACK_CHARACTERS = 30
"""Without action tags, this many last characters are sent to the environment (verl-agent does the same)."""


class AlfworldChat:
    def __init__(self) -> None:
        self._task = ""

    def opening(self, observation: Observation) -> str:
        self._task = observation.text.partition("Your task is to: ")[2].strip()
        return f"{ROLE}\n{observation.text}\n\n{_admissible(observation)}\n\n{INSTRUCTIONS}"

    def turn(self, action: str, observation: Observation) -> str:
        return f"{observation.text}\n\n{_admissible(observation)}\n\n{INSTRUCTIONS}"

    def window(self, past: Sequence[Exchange], steps_taken: int, observation: Observation) -> str:
        first = steps_taken - len(past) + 1
        history = "\n".join(
            f"[Observation {number}: {exchange.observation!r}, Action {number}: {exchange.action!r}]"
            for number, exchange in enumerate(past, first)
        )
        return (
            f"{ROLE} Your task is to: {self._task}\n"
            f"Steps taken so far: {steps_taken}. The most recent {len(past)}:\n{history}\n"
            f"Step {steps_taken + 1}. You now observe: {observation.text}\n\n"
            f"{_admissible(observation)}\n\n{INSTRUCTIONS}"
        )

    def parse(self, response: str) -> Parsed:
        return parse_tags(response, fallback_characters=FALLBACK_CHARACTERS)

    def phrase(self, action: str) -> str:
        return phrase_tags(action)


def _admissible(observation: Observation) -> str:
    actions = "\n ".join(f"'{action}'" for action in observation.actions if action != "help")
    return f"Admissible actions now: [{actions}]"
