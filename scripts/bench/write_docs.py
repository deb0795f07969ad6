"""Write measured tables into docs/performance.md, between `<!-- bench:NAME -->` and `<!-- /bench:NAME -->`.

    python scripts/bench/write_docs.py build/bench        # a folder of NAME.json files, as --json writes them

A part without a file stays as it is; a file without a place in the page is an error.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    page = PAGE.read_text(encoding="utf-8")
    files = sorted(folder.glob("*.json"))
    if not files:
        sys.exit(f"{folder} holds no results: run the scripts with --json {folder}/NAME.json, or make bench")
    for file in files:
        page = with_part(page, file.stem, markdown(json.loads(file.read_text(encoding="utf-8"))))
    PAGE.write_text(page, encoding="utf-8")


def with_part(page: str, name: str, content: str) -> str:
    start, end = f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"
    if page.count(start) != 1 or page.count(end) != 1:
        sys.exit(f"{PAGE.name} has no place for {name}: add the lines {start} and {end}")
    return re.sub(f"{start}.*{end}", lambda _: f"{start}\n{content}\n{end}", page, flags=re.DOTALL)


def markdown(report: Mapping[str, Any]) -> str:
    lines = [measured(report["facts"])]
    for table in report["tables"]:
        lines += ["", f"**{table['title']}**", "", *rows(table["columns"], table["rows"])]
        lines += ["", *table["notes"]] if table["notes"] else []
    return "\n".join(lines)


def measured(facts: Mapping[str, Any]) -> str:
    """How, when and where; a script whose machine is another one says it itself."""
    if "measured" in facts:
        return str(facts["measured"])
    before, after = facts["gemm_gflops"]
    return (
        f"`{facts['command']}`, {facts['date']}, commit {facts['commit']}: {facts['cpu']}, {facts['cores']} cores, "
        f"load {facts['load']}, {facts['threads']} thread(s), fp32 GEMM {before:.0f} GFLOP/s before and {after:.0f} "
        f"after. {facts['versions']}."
    )


def rows(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    rule = "|---|" + "---:|" * (len(columns) - 1)
    return [_row(columns), rule, *map(_row, cells)]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    main()
