"""A mistake in the configuration, in the words of the person who made it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from empg_cli.errors import UserError

LONGEST = 200
INVALID = "The configuration is not valid"


def shortened(text: str) -> str:
    """A word of the command line, or a value, that a message repeats."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


@dataclass(frozen=True, slots=True)
class Problem:
    key: str
    """Dotted key, config group or command-line word that is wrong; may be empty."""
    what: str
    got: str | None = None
    """The value as given, ready to print."""
    hint: str | None = None
    """What to do: the nearest match, the allowed values, a command."""

    def __str__(self) -> str:
        text = f"{shortened(self.key)}: {self.what}" if self.key else self.what
        if self.got is not None:
            text += f" (got {shortened(self.got)})"
        return text + (f"; {self.hint}" if self.hint else "")


@dataclass
class ConfigError(UserError):
    """Everything that is wrong with one command line. Shown without a traceback; exit code 2."""

    title: str
    problems: Sequence[Problem] = field(default_factory=list)
    where: str | None = None
    """In which job of a sweep."""

    def __reduce__(self) -> tuple[type[ConfigError], tuple[str, Sequence[Problem], str | None]]:
        return type(self), (self.title, self.problems, self.where)  # survives the trip home from a launcher's worker

    def __str__(self) -> str:
        lines = [self.title, *(f"  {problem}" for problem in self.problems)]
        return "\n".join([*lines, f"  {self.where}"] if self.where else lines)


def did_you_mean(word: str, choices: Iterable[str]) -> str | None:
    """The nearest choice as a question."""
    hits = nearest(word, choices)
    return f"did you mean {' or '.join(hits)}?" if hits else None


def nearest(word: str, choices: Iterable[str]) -> list[str]:
    """One choice, or two that are as near; a bare last part finds its full key (`lr` -> `trainer.lr`)."""
    known = list(dict.fromkeys(choices))
    leaf = word.rsplit(".", 1)[-1]
    hits = [choice for choice in known if choice.rsplit(".", 1)[-1] == leaf][:2]
    if not hits:
        hits = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if not hits:
        by_leaf = {choice.rsplit(".", 1)[-1]: choice for choice in known}
        hits = [by_leaf[match] for match in difflib.get_close_matches(leaf, list(by_leaf), n=1, cutoff=0.75)]
    return hits
