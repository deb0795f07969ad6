"""scripts/token_entropies.py: which part of a response a token belongs to."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from empg_cli.types import Step, Task, Trajectory
from scripts.token_entropies import entropy_by_part, parts_of


def test_a_token_belongs_to_the_part_that_it_begins_in() -> None:
    pieces = ["<", "think", ">", "I", " look", ".</", "think", ">", "\n", "<search>", "Zob", "</search>", "<end>"]
    parts = [*["tags"] * 3, *["thought"] * 3, *["tags"] * 2, "after", "tags", "search", "tags", "after"]
    assert parts_of(pieces) == parts


@pytest.mark.parametrize("text", ["no tags at all", "<think>never closed", "</answer> closed twice </answer>", ""])
def test_any_text_has_a_part_for_each_token(text: str) -> None:
    pieces = list(text)
    assert len(parts_of(pieces)) == len(pieces)


def test_shares_add_up() -> None:
    """Two thought tokens of 1.0 and 3.0 nats and an answer of 4.0: half of the entropy each."""
    words = {0: "<think>", 1: "a", 2: "b", 3: "</think>", 4: "<answer>", 5: "Zob", 6: "</answer>"}
    tokenizer: Any = SimpleNamespace(decode=lambda ids: words[ids[0]])
    step = Step([9], list(words), logprobs=[0.0] * 7, entropies=[0.0, 1.0, 3.0, 0.0, 0.0, 4.0, 0.0])
    rows = entropy_by_part([Trajectory(Task("t", "k", "s"), 0, 0, steps=[step])], tokenizer)
    found = {row["part"]: (row["tokens"], row["nats"], row["share_of_entropy"]) for row in rows}
    assert found == {"thought": (2, 2.0, 0.5), "answer": (1, 4.0, 0.5), "tags": (4, 0.0, 0.0)}
