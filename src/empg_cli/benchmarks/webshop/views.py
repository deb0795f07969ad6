"""How a page reads: WebShop's `text` and `text_rich` observations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from empg_cli.benchmarks.webshop.pages import PageKind, Segment
from empg_cli.benchmarks.webshop.session import ShopSession

View = Literal["text", "text_rich"]

SEPARATOR = " [SEP] "
_HTML_BLANKS = " \n\t\f\r"


def render(session: ShopSession, view: View) -> str:
    return text_rich(session) if view == "text_rich" else text(session)


def text(session: ShopSession) -> str:
    """The page's text nodes in one line. It shows neither what is a button nor which options are chosen."""
    return SEPARATOR.join(segment.text.strip() for segment in _nodes(session))


def text_rich(session: ShopSession) -> str:
    """One node a line, buttons marked, chosen options and visited products marked as clicked."""
    address = session.address if session.page.kind is PageKind.ITEM else ""
    clicked: list[str] = []
    lines: list[str] = []
    for segment in _nodes(session):
        label = segment.text
        match segment.role:
            case "button":
                lines.append(_button(label))
            case "option" if f'"{label}"' in address:
                clicked.append(f"You have clicked {label}.")
                lines.append("  " + _button(label, clicked=True))
            case "option":
                lines.append("  " + _button(label))
            case "link":
                lines.append("\n" + _button(label, clicked=label in session.visited))
            case "text":
                lines.append(label)
    return "".join(f"{line}\n" for line in [*reversed(clicked), *lines])


def _button(label: str, *, clicked: bool = False) -> str:
    return f"[{'clicked ' if clicked else ''}button] {label} [{'clicked ' if clicked else ''}button_]"


def _nodes(session: ShopSession) -> Iterator[Segment]:
    """Blank nodes with a line break vanish from a page; other blank ones stay as one space."""
    for segment in session.page.segments:
        if segment.text.strip(_HTML_BLANKS):
            yield segment
        elif "\n" not in segment.text:
            yield segment._replace(text=" ")
