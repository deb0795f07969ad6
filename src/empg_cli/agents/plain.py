"""The wordings of a benchmark that brings none: its own texts, with the actions that it lists."""

from __future__ import annotations

import re
from collections.abc import Sequence

from empg_cli.agents.tags import INSTRUCTIONS, phrase_tags
from empg_cli.agents.wording import Exchange, Parsed
from empg_cli.benchmarks.base import Observation
from empg_cli.model.tiny import ACT

FALLBACK_CHARACTERS = 200
"""Without action tags, this many last characters are sent to the environment."""
_ACTION = re.compile(r"<action>(.*?)</action>", re.DOTALL)


def with_actions(text: str, actions: Sequence[str]) -> str:
    """What an environment says, and what can be done now where it lists that."""
    listed = ", ".join(f"'{action}'" for action in actions)
    return f"{text}\n\nAdmissible actions now: [{listed}]" if listed else text


class PlainCompact:
    """Observations and actions as they are, a token a word: the benchmark's vocabulary must hold every word of them."""

    def __init__(self) -> None:
        self._opening = ""

    def opening(self, observation: Observation) -> str:
        self._opening = observation.text
        return observation.text

    def turn(self, action: str, observation: Observation) -> str:
        return observation.text

    def window(self, past: Sequence[Exchange], steps_taken: int, observation: Observation) -> str:
        beginning = [self._opening] if len(past) < steps_taken else []
        lines = [f"{exchange.observation} {ACT} {exchange.action}" for exchange in past]
        return " ".join([*beginning, *lines, observation.text])

    def parse(self, response: str) -> Parsed:
        return Parsed(response, well_formed=bool(response.strip()))

    def phrase(self, action: str) -> str:
        return action


class PlainChat:
    """One user message per step, reasoning and action in tags."""

    def __init__(self) -> None:
        self._opening = ""

    def opening(self, observation: Observation) -> str:
        self._opening = observation.text
        return self.turn("", observation)

    def turn(self, action: str, observation: Observation) -> str:
        return f"{with_actions(observation.text, observation.actions)}\n\n{INSTRUCTIONS}"

    def window(self, past: Sequence[Exchange], steps_taken: int, observation: Observation) -> str:
        first = steps_taken - len(past) + 1
        history = "".join(
            f"\n[Observation {number}: {exchange.observation!r}, Action {number}: {exchange.action!r}]"
            for number, exchange in enumerate(past, first)
        )
        beginning = "" if len(past) == steps_taken else f"It began with: {self._opening}\n"
        return (
            f"{beginning}Steps taken so far: {steps_taken}. The most recent {len(past)}:{history}\n"
            f"Step {steps_taken + 1}. You now observe: {self.turn('', observation)}"
        )

    def parse(self, response: str) -> Parsed:
        thought, _, rest = response.partition("</think>")
        action = _ACTION.search(rest or response)
        if action is None:
            return Parsed(response.strip()[-FALLBACK_CHARACTERS:], well_formed=False)
        return Parsed(action[1].strip(), well_formed="<think>" in thought and bool(rest))

    def phrase(self, action: str) -> str:
        return phrase_tags(action)
