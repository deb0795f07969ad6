"""The papers that a model card names are those of the preset."""

from __future__ import annotations

import pytest

from empg_cli import config
from empg_cli.integrations.papers import papers_of

BASES = {
    "grpo": "2402.03300",
    "dapo_kl": "2503.14476",
    "dr_grpo": "2503.20783",
    "gigpo": "2505.10978",
    "hgpo": "2602.22817",
    "graphgpo": "2605.26684",
    "g2po": "2606.22995",
    "gspo": "2507.18071",
    "sampo": "2602.21534",
}


@pytest.mark.parametrize("preset", BASES)
def test_the_base_algorithm_is_named(preset: str) -> None:
    assert [paper.arxiv for paper in papers_of(config.load([f"algo={preset}"]).algo.model_dump())] == [BASES[preset]]


def test_empg_is_named_beside_its_base() -> None:
    assert [paper.name for paper in papers_of(config.load(["algo=sampo_empg"]).algo.model_dump())] == ["SAMPO", "EMPG"]
