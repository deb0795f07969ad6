"""WebShop for chat models: one user message per step, reasoning and action in tags (paper appendix; verl-agent's form).

The structure follows the set-up of arXiv 2509.09265 and 2505.10978: the wish, the last pages and actions, the page
after its instruction as quoted pieces, the admissible actions, think-then-act tags. The sentences are our own.
"""

from __future__ import annotations

from collections.abc import Sequence

from empg_cli.agents.tags import INSTRUCTIONS, parse_tags, phrase_tags
from empg_cli.agents.wording import Exchange, Parsed
from empg_cli.benchmarks.base import Observation
from empg_cli.benchmarks.webshop.actions import SEARCH_TEMPLATE
from empg_cli.benchmarks.webshop.views import SEPARATOR

ROLE = "You are an agent that shops in an online store by text commands."
FALLBACK_CHARACTERS = 20
"""Without action tags, this many last characters are sent to the environment (verl-agent does the same)."""
LONGEST_PROMPT = 13_000
"""In characters; a longer window prompt leaves the history out (verl-agent does the same)."""


class WebshopChat:
    def __init__(self) -> None:
        self._wish = ""

    def opening(self, observation: Observation) -> str:
        self._wish, page = _split(observation.text)
        return f"{ROLE} Your task is to: {self._wish}\n{self._now(page, observation)}"

    def turn(self, action: str, observation: Observation) -> str:
        return self._now(_split(observation.text)[1], observation)

    def window(self, past: Sequence[Exchange], steps_taken: int, observation: Observation) -> str:
        page = _split(observation.text)[1]
        first = steps_taken - len(past) + 1
        history = "\n".join(
            f"[Page {number}: {_split(exchange.observation)[1]}, Action {number}: {exchange.action!r}]"
            for number, exchange in enumerate(past, first)
        )
        text = (
            f"{ROLE} Your task is to: {self._wish}\n"
            f"Steps taken so far: {steps_taken}. The most recent {len(past)}:\n{history}\n"
            f"Step {steps_taken + 1}. {self._now(page, observation)}"
        )
        if len(text) <= LONGEST_PROMPT:
            return text
        return f"{ROLE} Your task is to: {self._wish}\n{self._now(page, observation)}"

    def parse(self, response: str) -> Parsed:
        return parse_tags(response, fallback_characters=FALLBACK_CHARACTERS)

    def phrase(self, action: str) -> str:
        return phrase_tags(action)

    @staticmethod
    def _now(page: str, observation: Observation) -> str:
        actions = ("search[<your query>]" if action == SEARCH_TEMPLATE else action for action in observation.actions)
        listed = "\n ".join(f"'{action}'," for action in actions)
        return f"The page shows: {page}\n\nAdmissible actions now: [\n {listed}\n]\n\n{INSTRUCTIONS}"


def _split(text: str) -> tuple[str, str]:
    """The wish, and what the page shows after it as quoted pieces; a page without instruction is one piece of it."""
    _, found, after = text.partition("Instruction:")
    pieces = [piece for piece in after.split(SEPARATOR) if piece] if SEPARATOR in text else after.strip().split("\n")
    if not found or not pieces:
        return "", repr(text)
    wish, *page = pieces
    return wish.strip(), SEPARATOR.join(f"'{piece}'" for piece in page)
