"""A rollout whose model is a script: what each episode says, turn by turn, through the real agents and `collect`."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from empg_cli.agents.agent import Agent, AgentMaker
from empg_cli.agents.codec import Codec
from empg_cli.rollout.collect import collect
from empg_cli.rollout.engine import Completion
from empg_cli.types import Task, Trajectory
from tests.support.rules import TRANSCRIPT


class ScriptedEngine:
    """Episode i says `scripts[i]`, one text a turn. Every token has log-prob -0.5 and entropy 0.25.

    With `cut` every response lacks its last token, as if it had been too long.
    """

    is_deterministic = True

    def __init__(self, codec: Codec[int], scripts: Sequence[Sequence[str]], *, cut: bool = False) -> None:
        self.codec, self.scripts, self.cut = codec, scripts, cut
        self._rollout: object = None
        self._told: dict[Hashable, Iterator[str]] = {}

    async def generate(self, prompt: Sequence[int], *, episode: Hashable, **_: Any) -> Completion[int]:
        if self._rollout is not (rollout := asyncio.get_running_loop()):  # each has an event loop of its own
            self._rollout, self._told = rollout, {}
        if episode not in self._told:
            self._told[episode] = iter(self.scripts[len(self._told)])
        ids = self.codec.response(next(self._told[episode]))
        ids = ids[:-1] if self.cut else ids
        return Completion(ids, [-0.5] * len(ids), [0.25] * len(ids), ended=not self.cut, policy_version=0)

    def close(self, episode: Hashable) -> None: ...


def scripted_rollout(
    benchmark: Any,
    make_agent: AgentMaker[int],
    tasks: Sequence[Task],
    scripts: Sequence[Sequence[str]],
    *,
    append_only: bool = True,
    max_steps: int = 6,
    cut: bool = False,
) -> list[Trajectory]:
    """`scripts` holds one script per episode, group by group; their number says how large a group is."""
    agent: Agent[int] = make_agent()
    rules = replace(
        TRANSCRIPT, append_only=append_only, max_steps=max_steps, max_new_tokens=200, max_context_tokens=100_000
    )
    engine = ScriptedEngine(agent.codec, scripts, cut=cut)
    group_size = len(scripts) // len(tasks)
    return collect(engine, benchmark, make_agent, tasks, group_size=group_size, rules=rules, stream=(0,))
