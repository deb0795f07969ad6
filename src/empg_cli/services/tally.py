"""How many questions a server leaves without an answer, and how many are too many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from empg_cli.ranks import ALONE, Ranks
from empg_cli.services.errors import ServerDown


@dataclass(slots=True)
class Tally:
    """Counts what was asked of one server since it was opened, each question once, however many tries it took."""

    server: str
    """As messages call it, with its address."""
    asked: int = 0
    failed: int = 0
    last_failure: str = ""

    @contextmanager
    def question(self) -> Iterator[None]:
        """Around a question: whatever comes out of it as an exception is no answer."""
        self.asked += 1
        try:
            yield
        except Exception as error:
            self.failed += 1
            self.last_failure = str(error)
            raise


class FailedCalls:
    """Watches some servers from its making on: what was played without their answers is neither trained on nor
    recorded."""

    def __init__(self, tallies: Sequence[Tally], most: float) -> None:
        """most: share of the calls without an answer that is borne (`trainer.health.max_failed_calls`)."""
        self._most = most
        self._before = [(tally, tally.asked, tally.failed) for tally in tallies]

    def check(self, ranks: Ranks = ALONE) -> None:
        """
        Args:
            ranks: that have asked, each of its own; they all come to the same end.

        Raises:
            ServerDown: one of the servers left more of them without an answer.
        """
        own = [(one.asked - asked, one.failed - failed, one.last_failure) for one, asked, failed in self._before]
        for (tally, _, _), *counts in zip(self._before, *(ranks.of_all(own) if own else []), strict=True):
            asked, failed = sum(count[0] for count in counts), sum(count[1] for count in counts)
            if failed > self._most * asked:
                last = next(text for _, failures, text in counts if failures)
                raise ServerDown(
                    f"{failed} of {asked} calls of {tally.server} stayed without an answer, which is more than "
                    f"trainer.health.max_failed_calls={self._most:g} of them; the last: {last}"
                )
