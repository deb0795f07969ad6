"""The ranks of a run: started together, watched for death and silence, ended together.

The end of the first rank is the end of the run. Whatever happens here, no rank outlives the block.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from typing_extensions import TypeIs

from empg_cli.cli.ranks.children import Pace, Rank, rank_command, started
from empg_cli.cli.ranks.job import RankEnd, RankJob
from empg_cli.signals import asked

LOADING, WARM_START, SAVE = "loading", "warm start", "save"
"""Phases in which the silent may be busy: with a slow disk, or with the lessons of an expert."""
SILENCES = 12
"""Graces; so long a silence of the others, when one rank has ended, is no last word that takes time."""
HINTS = {signal.SIGKILL: ": the machine may have run out of memory"}
STACKS = signal.SIGQUIT
"""A rank answers with the stacks of its threads."""


@dataclass(frozen=True, slots=True)
class Loss:
    """Why the ranks cannot go on."""

    what: str
    log: Path
    """Of the rank that it is about."""


def attended(
    job: RankJob,
    count: int,
    *,
    timeout_s: float,
    environment: Mapping[str, str],
    pace: Pace,
    command: Sequence[str] | None = None,
) -> RankEnd | Loss:
    """Let `count` ranks do the job: how the run ended, or why it cannot go on. To be called with signals held.

    The signal that asks this process to end is sent on to each rank, once it can hear it; then they have all the time
    that they need to save.

    Args:
        job: port and socket are filled in.
        timeout_s: see `dist.timeout_s`.
        environment: of the ranks.
        command: what a rank runs.
    """
    with started(job, count, environment, command or rank_command()) as ranks:
        troubled_at: float | None = None
        while True:
            now = time.monotonic()
            for rank in ranks:
                rank.look(now, pace)
                if asked() and rank.life is not None and not rank.told:
                    rank.told = asked()
                    rank.send(rank.told)
            first, dead = ranks[0], [rank for rank in ranks if rank.code is not None and rank.end is None]
            if _is_the_runs(first.end) and not (first.end.kind == "failed" and dead):
                _let_leave(ranks, pace)
                return first.end
            if dead:
                return _death(dead, count)
            if any(rank.end is not None and rank.end.kind != "done" for rank in ranks):
                troubled_at = now if troubled_at is None else troubled_at
                if now - troubled_at > pace.grace_s and _is_given_up(ranks, now, pace):
                    return _without_the_first(ranks, timeout_s, pace)
            if not asked() and _stands_still(ranks, now, timeout_s):
                return _without_the_first(ranks, timeout_s, pace) if troubled_at else _hang(ranks, timeout_s, pace)
            time.sleep(pace.poll_s)


def _is_the_runs(end: RankEnd | None) -> TypeIs[RankEnd]:
    """Of the first rank."""
    return end is not None and end.kind != "lost"


def _is_given_up(ranks: Sequence[Rank], now: float, pace: Pace) -> bool:
    """One has ended, and the first will not say more: it is lost, or waits for that one, or that one has waited for it
    in vain; or nothing is heard of any that is left, which may wait for that one in a pass of the model."""
    first = ranks[0]
    waits = first.is_waiting and first.silence_s(now) > pace.grace_s
    is_silent = all(rank.silence_s(now) > SILENCES * pace.grace_s for rank in ranks if rank.end is None)
    return waits or is_silent or any(rank.end is not None and rank.end.kind == "lost" for rank in ranks)


def _let_leave(ranks: Sequence[Rank], pace: Pace) -> None:
    until = time.monotonic() + pace.grace_s
    while time.monotonic() < until and any(rank.process.poll() is None for rank in ranks):
        time.sleep(min(pace.poll_s, 0.02))


def _death(dead: Sequence[Rank], count: int) -> Loss:
    return Loss("; ".join(f"{_name(rank, count)} {_how(rank.code)}" for rank in dead), dead[0].log)


def _how(code: int | None) -> str:
    assert code is not None
    if code >= 0:
        return f"ended with exit code {code}, without a word"
    return f"was killed by {signal.Signals(-code).name}{HINTS.get(signal.Signals(-code), '')}"


def _stands_still(ranks: Sequence[Rank], now: float, timeout_s: float) -> bool:
    """A rank that has turns to play or micro-batches to compute is silent. Or others wait for one that loads in
    silence; or all wait for one another."""
    silent = [rank for rank in ranks if rank.end is None and rank.silence_s(now) > timeout_s]
    busy = [rank for rank in ranks if rank.end is None and not rank.is_waiting]
    at_work = [rank for rank in busy if rank.phase not in (LOADING, WARM_START)]
    if any(rank in silent and (rank.is_frozen or rank.phase != SAVE) for rank in at_work):
        return True
    is_waited_for = any(rank.is_waiting for rank in silent)
    return is_waited_for and all(rank in silent and rank.phase not in (WARM_START, SAVE) for rank in busy)


def _hang(ranks: Sequence[Rank], timeout_s: float, pace: Pace) -> Loss:
    """Of those that are frozen, else of those that keep the others waiting, the silent ones before those at work, else
    of all that wait for one another."""
    left = [rank for rank in ranks if rank.end is None]
    frozen, busy = [rank for rank in left if rank.is_frozen], [rank for rank in left if not rank.is_waiting]
    silent = [rank for rank in busy if rank.silence_s(time.monotonic()) > timeout_s]
    culprits = frozen or silent or busy or left
    for rank in culprits:
        rank.send(STACKS)
    time.sleep(pace.stacks_s)
    names = ", ".join(_name(rank, len(ranks)) for rank in culprits)
    hangs = "hangs" if len(culprits) == 1 else "hang"
    return Loss(f"{names} {hangs}: nothing was done for {timeout_s:g} s (dist.timeout_s)", culprits[0].log)


def _without_the_first(ranks: Sequence[Rank], timeout_s: float, pace: Pace) -> RankEnd | Loss:
    """What the others say, where the first has only noticed that one of them is gone."""
    ended = [(rank, rank.end) for rank in ranks if rank.end is not None]
    for _, end in ended:
        if end.kind in ("refused", "stopped"):
            return end
    for rank, end in ended:
        if end.kind == "failed":
            return Loss(f"{_name(rank, len(ranks))} failed: {end.text}", rank.log)
    if any(rank.end is None and not rank.is_waiting for rank in ranks):
        return _hang(ranks, timeout_s, pace)
    rank, end = next((rank, end) for rank, end in ended if end.kind == "lost")
    return Loss(f"{_name(rank, len(ranks))} has lost the others: {end.text}", rank.log)


def _name(rank: Rank, count: int) -> str:
    return f"rank {rank.number} of {count} (phase {rank.phase})"
