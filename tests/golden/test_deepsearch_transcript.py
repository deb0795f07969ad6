"""Search-R1's format state machine and its reward table, case by case."""

from __future__ import annotations

import pytest

from empg_cli.benchmarks.deepsearch.reward import Shaping, shaped_reward
from empg_cli.benchmarks.deepsearch.transcript import evidence_was_shown, is_well_formed

ROUND = "<think>a</think><search>q</search><information>d</information>"
WELL_FORMED = {
    "answer at once": "<think>a</think><answer>x</answer>",
    "one search": ROUND + "<think>b</think><answer>x</answer>",
    "two searches": ROUND * 2 + "<think>b</think><answer>x</answer>",
    "open counts like search": ROUND.replace("search", "open") + "<think>b</think><answer>x</answer>",
    "spaces and lines between": "\n " + ROUND.replace("><", ">\n\n<") + "\n<think>b</think> <answer>x</answer>\n",
    "empty parts": "<think></think><answer></answer>",
    "other tags are text": "<think><b>a</b></think><answer>x</answer>",
}
MALFORMED = {
    "nothing": "",
    "no thought": "<answer>x</answer>",
    "no answer": ROUND,
    "no thought after information": ROUND + "<answer>x</answer>",
    "no thought before search": "<search>q</search><information>d</information><think>b</think><answer>x</answer>",
    "text between": "<think>a</think> so <answer>x</answer>",
    "text before": "Well. <think>a</think><answer>x</answer>",
    "text after": "<think>a</think><answer>x</answer> done",
    "two answers": "<think>a</think><answer>x</answer><answer>y</answer>",
    "thought not closed": "<think>a<answer>x</answer>",
    "thought inside thought": "<think>a<think>b</think></think><answer>x</answer>",
    "search without information": "<think>a</think><search>q</search><think>b</think><answer>x</answer>",
    "information out of nowhere": "<think>a</think><information>d</information><think>b</think><answer>x</answer>",
    "search closed by answer": "<think>a</think><search>q</answer>",
    "answer inside thought": "<think>a<answer>x</answer></think>",
    "answer not closed": "<think>a</think><answer>x",
    "goes on after the answer": "<think>a</think><answer>x</answer><think>b</think>",
}


@pytest.mark.parametrize("name", WELL_FORMED)
def test_well_formed(name: str) -> None:
    assert is_well_formed(WELL_FORMED[name])


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(name: str) -> None:
    assert not is_well_formed(MALFORMED[name])


SEARCH_R1 = Shaping(structure=0.2, answered=0.1, evidence=0.1)


@pytest.mark.parametrize(
    ("value", "answered", "well_formed", "evidence", "expected"),
    [
        (1.0, True, True, False, 1.0),
        (1.0, True, False, False, 0.8),  # 1 - structure
        (0.0, True, True, False, 0.2),  # structure
        (0.0, True, True, True, 0.3),  # structure + evidence
        (0.0, True, False, True, 0.1),  # answered; evidence counts in well-formed episodes only
        (0.0, False, True, False, 0.2),
        (0.0, False, True, True, 0.3),
        (0.0, False, False, True, 0.0),
    ],
)
def test_search_r1_table(value: float, answered: bool, well_formed: bool, evidence: bool, expected: float) -> None:
    reward = shaped_reward(
        value, SEARCH_R1, was_answered=answered, is_well_formed=well_formed, evidence_was_shown=evidence
    )
    assert reward == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "well_formed", "expected"), [(0.6, True, 0.6), (0.6, False, -0.4), (1.0, False, 0.0)]
)
def test_deepresearcher_form(value: float, well_formed: bool, expected: float) -> None:
    # F1 as the value, 1 off for a malformed episode
    got = shaped_reward(
        value, Shaping(penalty=1.0), was_answered=True, is_well_formed=well_formed, evidence_was_shown=False
    )
    assert got == pytest.approx(expected)


@pytest.mark.parametrize("value", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("well_formed", [True, False])
def test_without_shaping_the_reward_is_the_value(value: float, well_formed: bool) -> None:
    got = shaped_reward(value, Shaping(), was_answered=True, is_well_formed=well_formed, evidence_was_shown=True)
    assert got == value


def test_partial_credit_is_never_lowered_by_the_bonus() -> None:
    got = shaped_reward(0.5, SEARCH_R1, was_answered=True, is_well_formed=True, evidence_was_shown=True)
    assert got == 0.5


def test_evidence_is_looked_for_after_normalisation() -> None:
    assert evidence_was_shown(["Doc 1(Title: X) It was the U.S.A. then."], ["USA"])
    assert not evidence_was_shown(["Doc 1(Title: X) It was France."], ["USA"])
    assert not evidence_was_shown([], ["USA"])
