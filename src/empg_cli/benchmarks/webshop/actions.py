"""WebShop's action language: `search[words]` and `click[text]`."""

from __future__ import annotations

SEARCH_TEMPLATE = "search[<query>]"


def parse(action: str) -> tuple[str, str] | None:
    """Name and lower-cased argument of an action; None for text that is no action at all.

    Matches like the official `(.+)\\[(.+)\\]` from the start of the first line, greedily: text after the last `]` is
    ignored, and in `click[a[b]]` the name is `click[a`. A scan, since that pattern takes quadratic time on `[[[[...`.
    """
    line = action.partition("\n")[0]
    close = line.rfind("]")
    bracket = line.rfind("[", 1, close - 1) if close > 2 else -1
    if bracket < 0:
        return None
    return line[:bracket], line[bracket + 1 : close].lower()


def click(text: str) -> str:
    return f"click[{text}]"


def search(words: str) -> str:
    return f"search[{words}]"


def is_clickable(text: str) -> bool:
    """Whether `click[text]` can reach a target of this text: one with `[` cannot, nor the search button."""
    return text != "search" and parse(click(text)) == ("click", text)
