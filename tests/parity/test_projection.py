"""The action and validity of an answer against a slow transcription of verl-agent's rule.

Facts from RobertWangWang/verl-agent@88aae00 (ALFWorld) and GithubX-F/ProxMO-RL@7f40b65 (WebShop), forks that leave the
rule as it is: the text in lower case; without `<action>` or without `</action>` anywhere the last 30 (WebShop: 20)
characters are sent and the answer is invalid; else the slice from the end of the first `<action>` to the first
`</action>`, which is empty when they are the other way round, without outer blanks; invalid without `<think>` or
`</think>` as written, or with a character from U+4E00 to U+9FFF.
"""

from __future__ import annotations

import itertools
import time

import pytest

from empg_cli.agents.alfworld_chat import AlfworldChat
from empg_cli.agents.tags import parse_tags
from empg_cli.agents.webshop_chat import WebshopChat

PIECES = ("<think>", "</think>", "<THINK>", "<action>", "</action>", "<Action>", "  Look\n", "\u597d", "")
BLANKS = (" ", "\n", "\t", "\u00a0", "\u3000", "")


def place_of(tag: str, text: str) -> int | None:
    for start in range(len(text)):
        if all(start + i < len(text) and text[start + i] == character for i, character in enumerate(tag)):
            return start
    return None


def projected(answer: str, characters: int) -> tuple[str, bool]:
    lower = answer.lower()
    begin, end = place_of("<action>", lower), place_of("</action>", lower)
    if begin is None or end is None:
        return "".join(reversed([lower[-1 - i] for i in range(min(characters, len(lower)))])), False
    inside = [lower[place] for place in range(begin + len("<action>"), end)]
    while inside and inside[0].isspace():
        inside = inside[1:]
    while inside and inside[-1].isspace():
        inside = inside[:-1]
    is_valid = place_of("<think>", answer) is not None and place_of("</think>", answer) is not None
    return "".join(inside), is_valid and not any(0x4E00 <= ord(character) <= 0x9FFF for character in answer)


def adversarial() -> list[str]:
    orders = ["".join(parts) for parts in itertools.product(PIECES, repeat=4)]
    well_formed = "<think>so</think><action>{}</action>"
    texts = ("go to the fridge, then look around the room", "click[x]", well_formed.format("look"))
    blanks = [f"{a}{text}{b}" for a, b in itertools.product(BLANKS, repeat=2) for text in texts]
    inner = [well_formed.format(f"{a}Go to\nfridge 1{b}") for a, b in itertools.product(BLANKS, repeat=2)]
    odd = ["\u0130" * 9, well_formed.format("\u0130stanbul"), "x" * 20, "y" * 21, "z" * 30, "z" * 31]
    return [*orders, *blanks, *inner, *odd]


@pytest.mark.parametrize(("wording", "characters"), [(AlfworldChat(), 30), (WebshopChat(), 20)])
def test_answers_are_read_as_in_verl_agent(wording: AlfworldChat | WebshopChat, characters: int) -> None:
    answers = adversarial()
    read = [(parsed.action, parsed.well_formed) for parsed in map(wording.parse, answers)]
    assert read == [projected(answer, characters) for answer in answers]
    assert len(answers) > 6000
    assert sum(well_formed for _, well_formed in read) > 100


@pytest.mark.parametrize("piece", ["<action>", "<think>", "</action><action>", "<action", "\n"])
def test_a_megabyte_of_tags_is_read_in_no_time(piece: str) -> None:
    answer = piece * (2**20 // len(piece))
    start = time.process_time()
    AlfworldChat().parse(answer)
    assert time.process_time() - start < 0.5


@pytest.mark.parametrize("answer", ["<action>" * 12_000, "<action>" * 6_000 + "</action>" * 6_000, "<think>" * 14_000])
def test_an_answer_of_96_kb_of_tags_is_read_at_once(answer: str) -> None:
    """A lazy pattern for what stands between two tags looks to the end of the text from each of them: 5 seconds."""
    began = time.process_time()
    parse_tags(answer, fallback_characters=30)
    assert time.process_time() - began < 0.2
