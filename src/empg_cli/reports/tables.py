"""Tables of text, and how they are written: on a terminal, as Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TextIO

from empg_cli.observe.terminal import is_live_terminal, printable, write_line

NOTHING = "–"
LATEX_SPECIAL = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "Δ": r"$\Delta$", "±": r"$\pm$",
                 NOTHING: "--", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}",
                 "{": r"\{", "}": r"\}", "<": r"$<$", ">": r"$>$"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cell:
    text: str
    bold: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Header and cells as text; the first column is left-aligned, the others right."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    """What must be read before the numbers: stands above them."""


def markdown(table: Table) -> str:
    lines = [_pipe(table.header), _pipe(["---", *("---:" for _ in table.header[1:])])]
    lines += [_pipe([f"**{cell.text}**" if cell.bold else cell.text for cell in row]) for row in table.rows]
    above = [f"### {table.title}", "", *(f"**{warning}**\n" for warning in table.warnings)]
    return "\n".join([*above, *lines, "", *(f"{note}  " for note in table.notes)]).rstrip() + "\n"


def latex(table: Table) -> str:
    """For \\usepackage{booktabs}; the notes are comments, to be put into the caption."""
    rows = [[rf"\textbf{{{_tex(cell.text)}}}" if cell.bold else _tex(cell.text) for cell in row] for row in table.rows]
    lines = [
        f"% {table.title}",
        *(f"% {warning}" for warning in table.warnings),
        *(f"% {note}" for note in table.notes),
        rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}",
        r"\toprule",
        " & ".join(_tex(name) for name in table.header) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def csv_text(columns: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(lines)
    return text.getvalue()


def print_table(table: Table, stream: TextIO) -> None:
    """Drawn by rich on a terminal; elsewhere aligned plain text, where `*` marks what would be bold."""
    if is_live_terminal(stream):
        _print_rich(table, stream)
        return
    write_line(stream, printable(table.title))
    for warning in table.warnings:
        write_line(stream, printable(warning))
    texts = [list(table.header), *([cell.text + ("*" if cell.bold else "") for cell in row] for row in table.rows)]
    widths = [max(len(row[column]) for row in texts) for column in range(len(table.header))]
    for row in texts:
        cells = [f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)]
        write_line(stream, printable("  ".join([f"{row[0]:<{widths[0]}}", *cells])))
    for note in table.notes:
        write_line(stream, printable(note))


def p_text(p_value: float) -> str:
    """Four decimals; a p-value is never 0, so one that would look like it is a bound."""
    return f"{p_value:.4f}" if p_value >= 0.00005 else "< 0.0001"


def _pipe(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _tex(text: str) -> str:
    return "".join(LATEX_SPECIAL.get(character, character) for character in text)


def _print_rich(table: Table, stream: TextIO) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(
        box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False,
        title=table.title, title_justify="left", title_style="bold",
    )  # fmt: skip
    for number, name in enumerate(table.header):  # where the terminal is narrow, cells break between words
        words = [word for text in (name, *(row[number].text for row in table.rows)) for word in text.split()]
        justify: Literal["left", "right"] = "right" if number else "left"
        drawn.add_column(Text(name), justify=justify, overflow="fold", min_width=max(map(len, words), default=1))
    for row in table.rows:
        drawn.add_row(*(Text(cell.text, style="bold" if cell.bold else "") for cell in row))
    console = Console(file=stream, highlight=False)
    for warning in table.warnings:
        console.print(Text(warning, style="bold yellow"))
    console.print(drawn)
    for note in table.notes:
        console.print(Text(note, style="dim"))
