"""The processes that carry out one run together.

Every rank runs the same loop over the same batch: ranks differ in which groups they play and which micro-batches they
read, and everything between is computed by each of them, identically. One rank is the special case, in which nothing
here does any work.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from empg_cli.errors import UserError
from empg_cli.pulse import waiting
from empg_cli.signals import Interrupted, asked, obey

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
LOGS = "ranks"
"""Folder of the run's: what ranks other than the first say, and the stacks of one that crashed or hung."""


class RankLost(RuntimeError):  # noqa: N818 (what has happened to another process)
    """Another rank has died, or has not come to a common point in time."""


class Ended(UserError):  # noqa: N818 (a sentence for the user)
    """The error that the first rank has ended with, of whatever class it was there. The first says it."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text, exit_code)
        self.exit_code = exit_code

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, slots=True)
class Ranks:
    """Which of them this process is. All methods but the properties are common points: each rank must call them, in the
    same order, or the others wait until `dist.timeout_s` is over.

    Raises:
        RankLost: from any of them.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """The one that writes the run folder, and that users see."""
        return self.rank == 0

    def of_all(self, value: T) -> list[T]:
        """What each rank gives, in their order. It is pickled: these processes trust one another."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        found: list[Any] = [None] * self.size
        with _common():
            dist.all_gather_object(found, value)
        return found

    def of_first(self, value: T) -> T:
        """What the first rank gives; the others' is not read."""
        if self.size == 1:
            return value
        import torch.distributed as dist

        found: list[Any] = [value if self.is_first else None]
        with _common():
            dist.broadcast_object_list(found, src=0)
        return value if self.is_first else found[0]

    def meet(self) -> None:
        """Goes on when all have come here."""
        self.of_all(None)

    def add_up(self, values: Tensor) -> None:
        """Replace a tensor on the CPU by its sum over the ranks."""
        if self.size == 1:
            return
        import torch.distributed as dist

        with _common():
            dist.all_reduce(values)

    def add_up_numbers(self, values: Mapping[str, float]) -> dict[str, float]:
        """Sums over the ranks, which all have the same names."""
        if self.size == 1:
            return dict(values)
        import torch

        total = torch.tensor([float(value) for value in values.values()], dtype=torch.float64)
        self.add_up(total)
        return dict(zip(values, total.tolist(), strict=True))

    @contextmanager
    def first_decides(self) -> Iterator[None]:
        """Around what the first rank alone does, and may end the run by: a common point at its end.

        Raises:
            Ended: on the others, where the first has left the block with a UserError, which it raises itself.
        """
        if self.size == 1:
            yield
            return
        try:
            yield
        except UserError as error:
            with suppress(RankLost):  # what there is to say comes first
                self.of_first((str(error), error.exit_code))
            raise
        said: tuple[str, int] | None = self.of_first(None)
        if said is not None:
            raise Ended(*said)

    def obey(self) -> None:
        """A safe point: a signal that has reached any of them is obeyed by all.

        Raises:
            Interrupted: one of them was asked to end.
        """
        if self.size == 1:
            obey()
            return
        import torch

        signum_R = torch.zeros(self.size, dtype=torch.long)
        signum_R[self.rank] = asked()
        self.add_up(signum_R)
        if first := next((signum for signum in signum_R.tolist() if signum), 0):
            raise Interrupted(first)


ALONE = Ranks()


@contextmanager
def _common() -> Iterator[None]:
    with waiting():
        try:
            yield
        except RuntimeError as error:
            reason = str(error).strip().partition("\n")[0]
            raise RankLost(f"another rank is gone, or did not come in time: {reason}") from error
