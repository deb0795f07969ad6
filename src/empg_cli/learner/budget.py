"""How many tokens go into one pass: as configured, or less where that did not fit into the memory."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from empg_cli.model.memory import is_out_of_memory, release

log = logging.getLogger(__name__)

Result = TypeVar("Result")


class TokenBudget:
    """Tokens that one forward and backward pass computes at most, as `learner.split.microbatches` counts them."""

    def __init__(self, tokens: int, *, halves: bool = False) -> None:
        """halves: where memory runs out, the work is done again with half the tokens, and so is all that follows."""
        self.tokens = tokens
        self.was_halved = False
        self._halves = halves

    def spend(self, work: Callable[[int], Result], *, rows: int, longest: int) -> Result:
        """`work(tokens)`, which must begin anew each time it is called.

        Args:
            rows: that are to be read in all.
            longest: tokens of the longest of them; a pass cannot be smaller.
        """
        while True:
            try:
                return work(self.tokens)
            except Exception as error:
                tokens = min(self.tokens, rows * longest)
                if not (self._halves and is_out_of_memory(error) and tokens > longest):
                    raise
            # Not while the error is handled: its traceback holds what the failed pass has allocated.
            release()
            self.tokens, self.was_halved = max(tokens // 2, longest), True
            log.warning("out of memory: from now on passes of %d tokens (trainer.oom=halve)", self.tokens)
