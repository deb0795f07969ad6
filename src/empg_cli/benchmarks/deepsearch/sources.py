"""Data sources: what counts as in-distribution and out-of-distribution, and the names that files use for them."""

from __future__ import annotations

from typing import Final, Literal

Group = Literal["id", "ood"]

GENERATED: Final[dict[str, Group]] = {
    "1hop": "id",
    "2hop": "id",
    "compare": "id",
    "composition": "ood",
    "depth3": "ood",
    "depth4": "ood",
    "intersection": "ood",
}
OFFICIAL: Final[dict[str, Group]] = {
    "nq": "id",
    "triviaqa": "id",
    "hotpotqa": "id",
    "2wiki": "id",
    "webwalker": "id",
    "musique": "ood",
    "bamboogle": "ood",
    "popqa": "ood",
}
"""EMPG (arXiv 2509.09265, Table 2): ID = WebWalker, HotpotQA, 2Wiki, OOD = MuSiQue, Bamboogle; DeepResearcher adds NQ
and TriviaQA to ID and PopQA to OOD. A source that is not listed counts as OOD: nobody trained on it."""

_ALIASES: Final = {
    "tq": "triviaqa",
    "trivia_qa": "triviaqa",
    "hotpot": "hotpotqa",
    "hotpot_qa": "hotpotqa",
    "2wikimultihopqa": "2wiki",
    "2wikimqa": "2wiki",
    "natural_questions": "nq",
    "webwalkerqa": "webwalker",
}


def canonical(source: str) -> str:
    """One spelling per source: `Bamboogle` and `bamboogle`, `tq` and `triviaqa` are the same."""
    name = source.strip().lower().replace("-", "_").replace(" ", "_").removeprefix("searchr1_")
    return _ALIASES.get(name, name)


def group_of(source: str) -> Group:
    return GENERATED.get(source) or OFFICIAL.get(source, "ood")
