"""What ranks other than the first have in the place of an observer: it says where the rank is, and records nothing."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from torch import Tensor

from empg_cli.algorithms.assemble import CreditParts
from empg_cli.config.outside import addresses, repeated
from empg_cli.config.schema import TrainConfig
from empg_cli.invocation import from_here, resume_command
from empg_cli.model.memory import OutOfMemory, is_out_of_memory, out_of_memory
from empg_cli.observe.health import HealthStop
from empg_cli.observe.watchdog import Watchdog
from empg_cli.pulse import beat, enter
from empg_cli.pulse import phase as phase_now
from empg_cli.ranks import Ended
from empg_cli.runs.checkpoint import TrainState
from empg_cli.runs.evaluations import Evaluation
from empg_cli.runs.identity import may_change
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

    def record_policy(self, fingerprint: Mapping[str, Any], warm_start: str | None = None) -> None: ...

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
def onlooking(cfg: TrainConfig, run_dir: Path, rank: int) -> Iterator[Onlooker]:
    """In the place of `observing`: a silence of this rank is said, and where its memory ends.

    Raises:
        OutOfMemory: the memory of this rank did not suffice; says which one it is and what helps.
    """
    beat()
    with Watchdog(cfg.trainer.watchdog, run_dir, rank):
        try:
            yield Onlooker()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise rank_out_of_memory(error, cfg, run_dir, rank) from error


def rank_out_of_memory(error: BaseException, cfg: TrainConfig, run_dir: Path, rank: int) -> OutOfMemory:
    """What a rank of several has to say about it; nothing but this tells which of them it was."""
    again = resume_command(from_here(run_dir), repeated(addresses(cfg.model_dump())))
    who = f"rank {rank} ({socket.gethostname()})"
    return out_of_memory(error, phase_now(), cfg, again, may_change=may_change, who=who)
