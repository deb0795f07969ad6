"""The tagged answer of chat models: reasoning in <think>, one action in <action> (verl-agent's form)."""

from __future__ import annotations

import re

from empg_cli.agents.wording import Parsed

INSTRUCTIONS = (
    "Think step by step about what to do next, inside <think> </think> tags. Then choose exactly one of the admissible "
    "actions and write it inside <action> </action> tags."
)
_ACTION = re.compile(r"<action>(.*?)</action>", re.DOTALL)
_CJK = re.compile("[\u4e00-\u9fff]")


def parse_tags(response: str, *, fallback_characters: int) -> Parsed:
    """Text of the first action tags, lower case. Malformed without tags, without reasoning, or with CJK characters.

    A malformed answer is still carried out, as in verl-agent; only `invalid_action_penalty` tells it apart.

    Args:
        fallback_characters: without action tags, this many last characters are sent to the environment.
    """
    text = response.lower()
    match = _ACTION.search(text)
    action = match[1].strip() if match else text[-fallback_characters:].strip()
    has_thought = "<think>" in text and "</think>" in text
    return Parsed(action, well_formed=match is not None and has_thought and not _CJK.search(text))


def phrase_tags(action: str) -> str:
    """A demonstration's answer; inverse of `parse_tags`."""
    return f"<think>The next step is clear.</think><action>{action}</action>"
