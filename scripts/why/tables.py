"""The tables of docs/studies/why-empg.md, from the records of its studies.

    python -m scripts.why.tables controls          # prints the table of one study
    python -m scripts.why.tables --write           # all into the page, between <!-- table NAME --> and <!-- end -->

Numbers are those of `ablation.csv`, which `scripts/why/recompute.py` computes anew from the runs. A test compares the
page with what this prints.
"""

from __future__ import annotations

import argparse
import csv
import io
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path

RECORDS = Path("docs/studies/records")
PAGE = Path("docs/studies/why-empg.md")
BLOCK = re.compile(r"(<!-- table ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
Row = dict[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--records", type=Path, default=RECORDS)
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--write", action="store_true", help="into the page")
    arguments = parser.parse_args()
    for name in arguments.names:
        print(table(arguments.records, name))
    if arguments.write:
        arguments.page.write_text(filled(arguments.page.read_text(), arguments.records))


def filled(page: str, records: Path) -> str:
    """The page with every table made anew."""
    return BLOCK.sub(lambda found: f"{found[1]}{table(records, found[2])}\n{found[3]}", page)


def table(records: Path, name: str) -> str:
    rows = rows_of(records / f"{name}.tar.xz")
    base = next(row["variant"] for row in rows if not row["difference"])
    head = ["arm", "seeds", "success, %", f"minus `{base}`", "p (Holm)", "KL", "entropy", "valid, %"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *(cells(row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def rows_of(archive: Path) -> list[Row]:
    """Of a study's `ablation.csv`: a row for each variant."""
    with tarfile.open(archive, mode="r:xz") as tar:
        file = tar.extractfile("ablation.csv")
        assert file is not None
        return list(csv.DictReader(io.StringIO(file.read().decode())))


def cells(row: Row) -> Sequence[str]:
    return (
        f"`{row['variant']}`",
        row["seeds"],
        _points(row, "mean", "low", "high"),
        _points(row, "difference", "difference_low", "difference_high", sign="+") if row["difference"] else "–",
        _p(row["p_holm"]),
        *(f"{float(row[key]):.2f}" if row[key] else "–" for key in ("kl_loss", "entropy")),
        f"{100 * float(row['valid_actions']):.0f}" if row["valid_actions"] else "–",
    )


def _points(row: Row, mean: str, low: str, high: str, sign: str = "") -> str:
    """In points of success, with half of the 95 % interval."""
    text = f"{100 * float(row[mean]):{sign}.1f}".replace("-", "−")
    if not row[low]:
        return text
    text += f" ± {50 * (float(row[high]) - float(row[low])):.1f}"
    return f"**{text}**" if sign and row["bold"] == "True" else text


def _p(text: str) -> str:
    if not text:
        return "–"
    return "< 0.001" if float(text) < 0.001 else f"{float(text):.3f}"


if __name__ == "__main__":
    main()
