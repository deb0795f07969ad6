"""What ranks other than the first have in the place of an observer: it says where the rank is, and records nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from torch import Tensor

from empg_cli.algorithms.assemble import CreditParts
from empg_cli.observe.health import HealthStop
from empg_cli.pulse import beat, enter
from empg_cli.ranks import Ended
from empg_cli.runs.checkpoint import TrainState
from empg_cli.runs.evaluations import Evaluation
from empg_cli.runs.trajectories import TextOf
from empg_cli.types import Batch, Progress, Trajectory


class _Unjudged:
    """In the place of the health checks: the first rank judges for all."""

    def judge_first_batch(
        self, metrics: Mapping[str, float], trajectories: Sequence[Trajectory], *, played: int
    ) -> None: ...

    def watch(
        self,
        update: int,
        metrics: Mapping[str, float],
        trajectories: Sequence[Trajectory],
        batch: Batch,
        parts: CreditParts,
    ) -> dict[str, float]:
        return {}


class Onlooker:
    """Has the methods of an `Observer` that the loop calls. Made by `onlooking`."""

    must_stop = False

    def __init__(self) -> None:
        self.health = _Unjudged()

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Around a part of an update: whoever watches for silence is told its name."""
        enter(phase)
        beat()
        yield

    def progress(self, phase: str) -> Progress:
        def report(done: int, total: int) -> None:
            beat()
            enter(phase)

        return report

    def keep_texts(self, text_of: TextOf) -> None: ...

    def record_policy(self, fingerprint: Mapping[str, Any]) -> None: ...

    def log(self, state: TrainState, metrics: Mapping[str, float], evaluation: Evaluation | None = None) -> None: ...

    def log_histograms(self, update: int, batch: Batch, parts: CreditParts, was_won_S: Tensor) -> None: ...

    def keep_trajectories(self, update: int, trajectories: Sequence[Trajectory], parts: CreditParts) -> None: ...

    def sync(self, state: TrainState) -> bool:
        return True

    def raise_if_unsaved(self, state: TrainState, *, is_saved: bool) -> None: ...

    def raise_if_stopped(self, state: TrainState) -> None: ...

    def raise_gone(self, state: TrainState, reason: str) -> NoReturn:
        """Leave the loop with the first rank, which says what there is to say."""
        raise Ended(f"stopped after update {state.update}: {reason}", HealthStop.exit_code)

    def finish(self, state: TrainState) -> None: ...


@contextmanager
def onlooking() -> Iterator[Onlooker]:
    """In the place of `observing`."""
    beat()
    yield Onlooker()
