"""Play many episodes at once: groups of attempts at tasks, each episode a coroutine."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np

from empg_cli.agents.agent import AgentMaker
from empg_cli.agents.codec import P
from empg_cli.benchmarks.base import Benchmark
from empg_cli.errors import UserError
from empg_cli.ranks import ALONE, Ranks
from empg_cli.rollout.engine import Engine, EngineLost
from empg_cli.rollout.episode import EpisodeRules, play
from empg_cli.rollout.stepping import Stepper
from empg_cli.services.errors import ServerDown
from empg_cli.signals import Interrupted, asked, held
from empg_cli.types import Progress, Status, Task, Trajectory

log = logging.getLogger(__name__)

MOST_REVIVALS = 3
"""Of a lost engine, before what was asked for is played."""
SIGNALS_EVERY_S = 0.05
"""Between two looks at whether a signal asks to end."""
NO_TASK = Task("", "", "")


def collect(
    engine: Engine[P],
    benchmark: Benchmark,
    make_agent: AgentMaker[P],
    tasks: Sequence[Task],
    *,
    group_size: int,
    rules: EpisodeRules,
    stream: Sequence[int],
    first_group: int = 0,
    progress: Progress | None = None,
    ranks: Ranks = ALONE,
) -> list[Trajectory]:
    """Play `group_size` episodes of every task; a finished episode leaves its place to the next one waiting.

    Of several ranks each plays whole groups, and all return all of them.

    Args:
        stream: integers that name the source of randomness (seed, update, ...). Each episode draws from its own
            generator keyed by (stream, number of its task, index), so it does not depend on the others.
        first_group: the groups are numbered from here. An update that plays several batches gives each its own range,
            and nothing renumbers a group later.

    Returns:
        len(tasks) * group_size trajectories, group by group.

    Raises:
        Interrupted: a signal has asked to end, between two passes of the engine or two steps of environments.
        ServerDown: the engine was lost, and did not come back or was lost again and again; on all ranks.
    """

    def play_once() -> list[Trajectory]:
        return _collect_once(
            engine,
            benchmark,
            make_agent,
            tasks,
            group_size=group_size,
            rules=rules,
            stream=stream,
            first_group=first_group,
            progress=progress,
            ranks=ranks,
        )

    for revivals in count():
        try:
            return play_once()
        except EngineLost as lost:
            if revivals == MOST_REVIVALS:
                raise ServerDown(
                    f"the engine was lost {revivals + 1} times in one batch, the last time: {lost}"
                ) from None
            log.warning("%s; this batch is played again from its beginning", lost)
            engine.revive()
    raise AssertionError("it returns or raises")


def _collect_once(
    engine: Engine[P],
    benchmark: Benchmark,
    make_agent: AgentMaker[P],
    tasks: Sequence[Task],
    *,
    group_size: int,
    rules: EpisodeRules,
    stream: Sequence[int],
    first_group: int,
    progress: Progress | None,
    ranks: Ranks,
) -> list[Trajectory]:
    """Raises EngineLost on all ranks, if one of them has lost its engine."""
    trajectories = [
        Trajectory(task, group, index) for group, task in enumerate(tasks, first_group) for index in range(group_size)
    ]
    mine = [trajectory for trajectory in trajectories if (trajectory.group - first_group) % ranks.size == ranks.rank]
    finished, lost = 0, ""

    async def play_in_its_place(trajectory: Trajectory, places: asyncio.Semaphore, stepper: Stepper) -> None:
        nonlocal finished
        async with places:
            key = np.random.SeedSequence([*stream, trajectory.group - first_group, trajectory.index])
            rng = np.random.Generator(np.random.Philox(key))
            with stepper.episode():
                await play(trajectory, make_agent(), engine, stepper, rules, rng)
        finished += 1
        if progress:
            progress(finished, len(mine))

    async def play_all() -> None:
        if progress:
            progress(0, len(mine))
        places = asyncio.Semaphore(rules.max_concurrent or len(mine) or 1)
        stepper = Stepper(benchmark, in_order=engine.is_deterministic)
        await _until_asked(_all_or_none([play_in_its_place(trajectory, places, stepper) for trajectory in mine]))

    ranks.obey()
    try:
        run(play_all())
    except Interrupted:
        if ranks.size == 1:
            raise
    except EngineLost as error:
        lost = str(error)
    if ranks.size > 1 or finished < len(mine):
        ranks.obey()
    if reason := next((one for one in ranks.of_all(lost) if one), ""):
        raise EngineLost(reason)
    return shared(trajectories, mine, ranks)


def shared(trajectories: list[Trajectory], mine: Sequence[Trajectory], ranks: Ranks) -> list[Trajectory]:
    """What each rank has played, in the places of all; the tasks, which every rank has, do not travel."""
    if ranks.size == 1:
        return trajectories
    played = {
        (one.group, one.index): one
        for part in ranks.of_all([replace(one, task=NO_TASK) for one in mine])
        for one in part
    }
    return [replace(played[one.group, one.index], task=one.task) for one in trajectories]


async def _until_asked(work: Coroutine[Any, Any, None]) -> None:
    """Wait for the work, or end it when a signal asks for it."""
    working = asyncio.create_task(work)
    while not working.done():
        await asyncio.wait([working], timeout=SIGNALS_EVERY_S)
        if asked():
            working.cancel()
            await asyncio.wait([working])
            if not working.cancelled():
                working.exception()  # looked at: it is the signal's, and whoever waits for this obeys it
            return
    await working


async def _all_or_none(coroutines: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run them together; the first error ends the others and comes out as it is."""
    running = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        await asyncio.gather(*running)
    finally:
        for one in running:
            one.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run to the end from synchronous code, also inside a notebook, whose own event loop cannot wait for another."""
    loop = asyncio.new_event_loop()
    if asyncio._get_running_loop() is None:
        _run_in(loop, coroutine)
        return
    raised: list[BaseException] = []

    def beside() -> None:
        try:
            _run_in(loop, coroutine)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=beside)
    thread.start()
    try:
        thread.join()
    except BaseException:  # the cell was interrupted: the rollout must not play on behind it
        loop.call_soon_threadsafe(_cancel_all, loop)
        thread.join()
        raise
    if raised:
        raise raised[0]


def _run_in(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, None]) -> None:
    """Without the signal handler of `asyncio.run`, which would make Ctrl-C wait for what blocks. Our own signals are
    held: one that was raised inside the loop could lose a step that a task waits for."""
    with held():
        _run_to_the_end(loop, coroutine)


def _run_to_the_end(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, None]) -> None:
    loop.set_exception_handler(_but_for_signals)
    try:
        loop.run_until_complete(loop.create_task(coroutine))
    finally:
        if left := _cancel_all(loop):
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.close()


def _but_for_signals(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A signal comes out of the loop itself; the tasks that it ended on its way are asked by nobody."""
    if not isinstance(context.get("exception"), Interrupted):
        loop.default_exception_handler(context)


def _cancel_all(loop: asyncio.AbstractEventLoop) -> set[asyncio.Task[Any]]:
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    return left


class NothingFits(UserError):  # noqa: N818 (a sentence for the user)
    """Not one episode could take its first step."""


def refuse_if_nothing_fits(trajectories: Sequence[Trajectory], rules: EpisodeRules) -> None:
    """One clear message when every first prompt was too long: there is nothing to train on or to judge.

    Raises:
        NothingFits: says which limit is too small, and what would fit.
    """
    needed = [t.tokens_needed for t in trajectories if t.status is Status.CONTEXT_OVERFLOW and not t.steps]
    if not needed or len(needed) < len(trajectories) or not min(needed):
        return
    new, few, many = rules.max_new_tokens, min(needed), max(needed)
    raise NothingFits(
        f"rollout.max_context_tokens={rules.max_context_tokens} is too small: the first prompts of all {len(needed)} "
        f"episodes have {few - new} to {many - new} tokens, and a response takes up to rollout.max_new_tokens={new}\n"
        f"  Set rollout.max_context_tokens to {many} or more"
        + (", and to more the longer a transcript may grow." if rules.append_only else ".")
    )
