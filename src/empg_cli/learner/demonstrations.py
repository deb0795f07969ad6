"""Episodes of the benchmark's expert as rows that a policy can imitate, in the form that it will play in."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from empg_cli.agents.agent import Agent, AgentMaker
from empg_cli.benchmarks.base import Benchmark, Env, Observation, tallies_of
from empg_cli.benchmarks.border import EnvironmentFailed, begin, expert_actions, reason_of, step_in_place
from empg_cli.config.rollout import Rollout
from empg_cli.config.trainer import WarmStart
from empg_cli.errors import UserError
from empg_cli.services.tally import FailedCalls
from empg_cli.signals import obey
from empg_cli.types import Task

MAX_FAILURES = 200
"""Demonstrations in a row that may fail before the expert is given up."""
SUSPICIOUS = 10
"""After as many, maybe the servers are to blame."""


class ExpertFails(UserError):  # noqa: N818 (a sentence for the user)
    """There is nothing to imitate."""


@dataclass(slots=True)
class ImitationRow:
    """What the model reads at once: a whole episode in transcript context, one step in window context."""

    token_ids: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    """Loss weight of each token: 1 on the expert's responses, 0 on inserted mistakes, `prompt_weight` elsewhere."""

    def add(self, token_ids: list[int], weight: float) -> None:
        self.token_ids += token_ids
        self.weights += [weight] * len(token_ids)


@dataclass(frozen=True, slots=True)
class Lessons:
    """What is imitated, step by step."""

    batches: Callable[[int], Iterator[Sequence[ImitationRow]]]
    """The rows of each optimiser step, from the one with this number (from 0) on; a step's are always the same."""
    steps: int
    held_out: Sequence[ImitationRow] = ()
    """Never trained; their loss is taken before and after."""


@dataclass(frozen=True, slots=True)
class Demonstration:
    rows: list[ImitationRow]
    success: bool
    did_not_fit: str | None = None
    """Which limit of the rollout ended the episode, and what it needed; None when none did."""
    broke: str | None = None
    """What the environment or the expert raised; None when neither did."""


@dataclass(frozen=True, slots=True)
class Move:
    """What a demonstrator does at a step."""

    action: str
    response: str | None = None
    """The text that says it; None = as the wording phrases the action."""
    trains: bool = True


Mover = Callable[[Env, Observation], Move | None]
"""Asked at every step; None = it has nothing left to try."""


def demonstrate(
    benchmark: Benchmark,
    task: Task,
    agent: Agent[int],
    rng: random.Random,
    *,
    mistakes: float,
    prompt_weight: float,
    rollout: Rollout,
) -> Demonstration:
    """Play one task with the expert; with probability `mistakes` a step is a random admissible action, from which the
    expert has to recover. Mistakes are shown to the learner but never trained."""
    expert: Iterator[str] | None = None

    def move(env: Env, observation: Observation) -> Move | None:
        nonlocal expert
        expert = expert_actions(benchmark, env, rng) if expert is None else expert
        if rng.random() < mistakes:
            return Move(rng.choice(observation.actions), trains=False)
        action = next(expert, None)
        return None if action is None else Move(action)

    return perform(benchmark, task, agent, move, prompt_weight=prompt_weight, rollout=rollout)


def perform(
    benchmark: Benchmark, task: Task, agent: Agent[int], move: Mover, *, prompt_weight: float, rollout: Rollout
) -> Demonstration:
    """Play one task by these moves. One whose environment or demonstrator raises has nothing to imitate.

    A step that a rollout could not play (its prompt and `max_new_tokens` exceed the context, or the response exceeds
    `max_new_tokens`) ends the episode without success, as it would there.

    Args:
        agent: in the context of `rollout`.
    """
    try:
        return _perform(benchmark, task, agent, move, prompt_weight, rollout)
    except EnvironmentFailed as failed:
        return Demonstration([], False, broke=f"{task.task_id}: {reason_of(failed)}")


def _perform(
    benchmark: Benchmark, task: Task, agent: Agent[int], move: Mover, prompt_weight: float, rollout: Rollout
) -> Demonstration:
    append_only = rollout.context == "transcript"
    env, observation = begin(benchmark, task)
    prompt = agent.start(observation)
    rows: list[ImitationRow] = []
    success = done = False
    while not done:
        used = len(rows[-1].token_ids) if append_only and rows else 0
        needed = used + len(prompt) + rollout.max_new_tokens
        if needed > rollout.max_context_tokens:
            return Demonstration(rows, False, f"rollout.max_context_tokens={rollout.max_context_tokens} ({needed})")
        if (chosen := move(env, observation)) is None:
            break
        said = agent.wording.phrase(chosen.action) if chosen.response is None else chosen.response
        response = agent.codec.response(said)
        if len(response) > rollout.max_new_tokens:
            return Demonstration(rows, False, f"rollout.max_new_tokens={rollout.max_new_tokens} ({len(response)})")
        if not (append_only and rows):
            rows.append(ImitationRow())
        rows[-1].add(prompt, prompt_weight)
        rows[-1].add(response, 1.0 if chosen.trains else 0.0)
        result = step_in_place(env, chosen.action)
        done, success = result.done, result.success
        observation = Observation(result.text, result.actions)
        if not done:
            prompt = agent.next_prompt(chosen.action, observation, ended=True)
    return Demonstration(rows, success)


def expert_lessons(
    benchmark: Benchmark,
    make_agent: AgentMaker[int],
    settings: WarmStart,
    rollout: Rollout,
    *,
    seed: int,
    max_failed_calls: float = 1.0,
) -> Lessons:
    """Fresh demonstrations of the train split for every step; arguments and errors as of `demonstrations`."""

    def batches(first: int) -> Iterator[Sequence[ImitationRow]]:
        limit = max_failed_calls
        for batch in demonstrations(
            benchmark, make_agent, settings, rollout, seed=seed, max_failed_calls=limit, first=first
        ):
            yield [row for shown in batch for row in shown.rows]

    return Lessons(batches, settings.steps)


def demonstrations(
    benchmark: Benchmark,
    make_agent: AgentMaker[int],
    settings: WarmStart,
    rollout: Rollout,
    *,
    seed: int,
    max_failed_calls: float = 1.0,
    first: int = 0,
) -> Iterator[list[Demonstration]]:
    """`batch_size` demonstrations of the train split for each optimiser step, without end. Failed ones are replaced by
    another task's, unless `settings.keep_failed`; so tasks that the expert finds hard are seen less often.

    Args:
        first: the step to begin with; each step draws by its own number.

    Raises:
        ExpertFails: `MAX_FAILURES` tasks in a row gave nothing to imitate.
        ServerDown: the benchmark's servers left more than the share `max_failed_calls` of all calls without an answer.
    """
    tasks = benchmark.tasks("train")
    calls = FailedCalls(tallies_of(benchmark), max_failed_calls)
    for step in itertools.count(first):
        rng = random.Random(f"warm-start/{seed}/{step}")
        batch: list[Demonstration] = []
        failed: list[Demonstration] = []
        while len(batch) < settings.batch_size:
            obey()
            task = tasks[rng.randrange(len(tasks))]
            demonstration = demonstrate(
                benchmark,
                task,
                make_agent(),
                rng,
                mistakes=settings.mistakes,
                prompt_weight=settings.prompt_weight,
                rollout=rollout,
            )
            if trains(demonstration, settings):
                batch.append(demonstration)
                failed = []
                continue
            failed.append(demonstration)
            if len(failed) % SUSPICIOUS == 0:
                calls.check()
            if len(failed) == MAX_FAILURES:
                raise ExpertFails(nothing_to_imitate(failed, settings))
        calls.check()
        yield batch


def trains(demonstration: Demonstration, settings: WarmStart) -> bool:
    """Whether there is something to imitate in it: a weight on a token that has another before it."""
    is_wanted = demonstration.success or settings.keep_failed
    return is_wanted and any(any(row.weights[1:]) for row in demonstration.rows)


def nothing_to_imitate(failed: list[Demonstration], settings: WarmStart) -> str:
    """Why, and what to do."""
    too_long = [demonstration.did_not_fit for demonstration in failed if demonstration.did_not_fit]
    says = f"warm start: {len(failed)} demonstrations of the expert in a row gave nothing to imitate"
    if too_long:
        return (
            f"{says}; {len(too_long)} of them did not fit into the limits of the rollout, such as {too_long[0]} tokens "
            "needed\n  Raise this limit, or set trainer.warm_start.steps=0."
        )
    if broke := [demonstration.broke for demonstration in failed if demonstration.broke]:
        return f"{says}; {len(broke)} could not be played, such as {broke[0]}\n  Put the data or the benchmark right."
    return (
        f"{says}: not one solved its task\n  Give the expert more steps (benchmark.max_steps), fewer mistakes "
        f"(trainer.warm_start.mistakes, now {settings.mistakes}), let failures train too "
        "(trainer.warm_start.keep_failed=true), or set trainer.warm_start.steps=0."
    )
