"""The text of an answer as it grows: each token is decoded a few times, however long the answer is."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""How tokens are decoded that end in the middle of a character."""


class Reading:
    """`decode` of all tokens, by parts.

    A part is decoded behind the one before it, and what that one gives alone is taken off: some tokenizers decode a
    first token otherwise than the same one later.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._before, self._from = 0, 0  # the part before the open one begins at the first, and ends at the second
        self._parts: list[str] = []
        self._open = ""
        self.settled = 0
        """Characters that no further token changes."""
        self.offsets: list[int] = []
        """For each token, the characters of all before it."""
        self._settled_by: list[int] = []

    @property
    def text(self) -> str:
        return "".join(self._parts) + self._open

    def read(self, ids: Iterable[int]) -> None:
        for id_ in ids:
            self.offsets.append(self.settled + len(self._open))
            self._ids.append(id_)
            known = len(self._decode(self._ids[self._before : self._from]))
            self._open = self._decode(self._ids[self._before :])[known:]
            if self._open and not self._open.endswith(UNFINISHED):
                self._parts.append(self._open)
                self.settled += len(self._open)
                self._open, self._before, self._from = "", self._from, len(self._ids)
            self._settled_by.append(self.settled)

    def tokens_of(self, characters: int) -> int:
        """How many tokens it takes until so many characters are settled; all of them where they never are."""
        return min(1 + bisect_left(self._settled_by, characters), len(self._ids))
