"""What a benchmark's compact form can say: the words of a tiny model that is made from scratch."""

from __future__ import annotations

from empg_cli.agents import alfworld_compact, deepsearch_compact, webshop_compact


def closed_vocabulary(benchmark: str) -> list[str] | None:
    """Every word of the benchmark's compact form, in a fixed order; None when it has no such form."""
    match benchmark:
        case "alfworld":
            return alfworld_compact.vocabulary()
        case "webshop":
            return webshop_compact.vocabulary()
        case "deepsearch":
            return deepsearch_compact.vocabulary()
        case _:
            return None
