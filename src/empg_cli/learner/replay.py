"""Episodes that a run or an evaluation has kept, played again move by move, in the form that this run plays in.

What was kept are texts and actions; which prompts they become depends on wording, context and tokenizer. So the
environment plays them again, and has to show what it showed then.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from empg_cli.agents.agent import Agent, AgentMaker
from empg_cli.agents.control_tokens import THOUGHT_TAGS
from empg_cli.benchmarks.base import Benchmark, Env, Observation
from empg_cli.config.rollout import Rollout
from empg_cli.errors import DataError
from empg_cli.learner.demonstrations import Demonstration, Move, perform
from empg_cli.runs.demonstrations import KeptEpisode, KeptMove
from empg_cli.types import Task

_END: Final = re.compile(r"(?:<[|\uff5c][^<>]*[|\uff5c]>|</s>|<eos>|<end_of_turn>|<end>)\s*\Z")
"""How the tokens that end a turn are spelled; those of the model that spoke need not be known here."""


class _Differs(Exception):  # noqa: N818 (it ends one episode)
    """The environment shows something else than it did when the episode was kept."""


def tasks_of(benchmark: Benchmark, split: str, where: str) -> Mapping[str, Task]:
    """The tasks of a split by their ids.

    Raises:
        DataError: the benchmark has no such split.
    """
    if split not in benchmark.splits:
        names = ", ".join(benchmark.splits)
        raise DataError(
            f"{where}: split {split!r} is none of {benchmark.name}'s ({names}): it was kept of another benchmark"
        )
    return {task.task_id: task for task in benchmark.tasks(split)}


def replayed(
    benchmark: Benchmark,
    task: Task,
    episode: KeptEpisode,
    make_agent: AgentMaker[int],
    *,
    prompt_weight: float,
    rollout: Rollout,
) -> Demonstration:
    """The episode as this run would have played it. One that goes another way here has nothing to imitate.

    Moves that were malformed or refused are shown and never trained, as an expert's mistakes.
    """
    agent, left = make_agent(), iter(enumerate(episode.moves, start=1))

    def move(env: Env, observation: Observation) -> Move | None:
        step, kept = next(left, (0, None))
        if kept is None:
            return None
        if kept.observation != observation.text:
            raise _Differs(f"{episode.where}: step {step} begins with another observation here")
        return Move(kept.action, response_of(agent, kept), trains=kept.is_good)

    try:
        found = perform(benchmark, task, agent, move, prompt_weight=prompt_weight, rollout=rollout)
    except _Differs as differs:
        return Demonstration([], False, broke=str(differs))
    if found.success or not episode.success or found.did_not_fit or found.broke:
        return found
    return Demonstration([], False, broke=f"{episode.where}: its task is not solved in the end here")


def response_of(agent: Agent[int], kept: KeptMove) -> str | None:
    """The text that was answered, where this run's wording reads the same action in it; None = as it phrases that."""
    if kept.response is None:
        return None
    begin, close = THOUGHT_TAGS
    text = _END.sub("", kept.response)
    if close in text and begin not in text:  # the template of the model that spoke had opened the thought
        text = begin + text
    parsed = agent.wording.parse(text)
    is_read = parsed.action == kept.action or (parsed.surplus is not None and kept.action.startswith(text))
    return text if is_read and (parsed.well_formed or not kept.is_good) else None
