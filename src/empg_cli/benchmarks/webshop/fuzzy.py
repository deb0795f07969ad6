"""thefuzz's token_set_ratio, which decides in WebShop's reward whether two short texts mean the same."""

from __future__ import annotations

import re

_NOT_WORD = re.compile(r"[\W_]+")
_LATIN_1 = dict.fromkeys(range(128, 256))  # thefuzz drops these letters and keeps other non-ASCII ones


def token_set_ratio(left: str, right: str) -> int:
    """Similarity of two texts as sets of words, 0 to 100; 100 if the words of one are all among the other's.

    Rounded to an integer like thefuzz's, so `> 85` means at least 85.5 before rounding.
    """
    words, others = set(_clean(left).split()), set(_clean(right).split())
    if not words or not others:
        return 0
    common = " ".join(sorted(words & others))
    rest, other_rest = " ".join(sorted(words - others)), " ".join(sorted(others - words))
    if common and not (rest and other_rest):
        return 100
    whole, other_whole = f"{common} {rest}".strip(), f"{common} {other_rest}".strip()
    best = _indel_ratio(whole, other_whole)
    if common:
        best = max(best, _indel_ratio(common, whole), _indel_ratio(common, other_whole))
    return round(best)


def _clean(text: str) -> str:
    return _NOT_WORD.sub(" ", text.translate(_LATIN_1)).lower().strip()


def _indel_ratio(left: str, right: str) -> float:
    """100 * 2 LCS / (len + len), with the bit-parallel longest common subsequence (Hyyrö 2004)."""
    positions: dict[str, int] = {}
    for place, letter in enumerate(left):
        positions[letter] = positions.get(letter, 0) | 1 << place
    full = (1 << len(left)) - 1
    row = full
    for letter in right:
        matches = row & positions.get(letter, 0)
        row = (row + matches | row - matches) & full
    common = len(left) - row.bit_count()
    return 200.0 * common / (len(left) + len(right))
