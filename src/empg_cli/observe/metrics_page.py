"""The tables of docs/metrics.md: `python -m empg_cli.observe.metrics_page docs/metrics.md` brings them up to date."""

from __future__ import annotations

import sys
from pathlib import Path

from empg_cli.observe.catalogue import FAMILIES, METRICS

MARKERS = ("<!-- generated: python -m empg_cli.observe.metrics_page docs/metrics.md -->\n", "\n<!-- end -->")


def markdown_tables() -> str:
    """One table per family, in the order of `FAMILIES`."""
    blocks = []
    for family, meaning in FAMILIES.items():
        rows = [f"| `{m.name}` | {m.unit} | {m.definition} |" for m in METRICS if m.family == family]
        if rows:
            blocks.append(
                "\n".join([f"### {family}", "", meaning, "", "| name | unit | definition |", "|---|---|---|", *rows])
            )
    return "\n\n".join(blocks)


def with_tables(page: str) -> str:
    """The page with current tables between its two markers."""
    before, start, rest = page.partition(MARKERS[0])
    _, end, after = rest.partition(MARKERS[1])
    if not (start and end):
        raise ValueError(f"the page must hold the markers {MARKERS[0].strip()} and {MARKERS[1].strip()}")
    return before + start + markdown_tables() + end + after


if __name__ == "__main__":
    page_path = Path(sys.argv[1])
    page_path.write_text(with_tables(page_path.read_text(encoding="utf-8")), encoding="utf-8")
