"""Invented names for the fictional world: pronounceable, unique, unknown to every language model."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

_ONSETS: Final = (
    *("b", "br", "d", "dr", "f", "g", "gr", "h", "k", "kl", "l", "m", "n", "p", "pr", "r", "s"),
    *("st", "t", "tr", "v", "vel", "z", "qu", "sh", "th"),
)
_NUCLEI: Final = ("a", "e", "i", "o", "u", "ai", "ea", "ou")
_CODAS: Final = ("", "n", "r", "l", "s", "th", "m", "nd", "rk", "x")


class Namer:
    """Draws words that it has not given out before."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._used: set[str] = set()

    def __call__(self, syllables: int, suffixes: Sequence[str] = ("",)) -> str:
        while True:
            word = "".join(self._syllable() for _ in range(syllables)) + self._rng.choice(suffixes)
            if word not in self._used:
                self._used.add(word)
                return word.capitalize()

    def _syllable(self) -> str:
        coda = self._rng.choice(_CODAS) if self._rng.random() < 0.5 else ""
        return self._rng.choice(_ONSETS) + self._rng.choice(_NUCLEI) + coda

    def code(self, length: int, alphabet: str) -> str:
        """A unique code such as a currency's."""
        while True:
            code = "".join(self._rng.choice(alphabet) for _ in range(length))
            if code.lower() not in self._used:
                self._used.add(code.lower())
                return code
