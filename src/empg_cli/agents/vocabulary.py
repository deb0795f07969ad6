"""What a benchmark's compact form can say: the words of a tiny model that is made from scratch."""

from __future__ import annotations

from empg_cli.agents import alfworld_compact, deepsearch_compact, webshop_compact
from empg_cli.agents.wording import BringsVocabulary
from empg_cli.benchmarks.base import Benchmark


def closed_vocabulary(benchmark: str, played: Benchmark | None = None) -> list[str] | None:
    """Every word of the benchmark's compact form, in a fixed order; None when it has no such form.

    Args:
        played: the benchmark itself; one from outside brings its words.
    """
    match benchmark:
        case "alfworld":
            return alfworld_compact.vocabulary()
        case "webshop":
            return webshop_compact.vocabulary()
        case "deepsearch":
            return deepsearch_compact.vocabulary()
        case _:
            return list(played.vocabulary) if isinstance(played, BringsVocabulary) else None
