"""A rollout whose model is a script: what each episode says, turn by turn, through the real agents and `collect`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from empg_cli.agents.agent import Agent, AgentMaker
from empg_cli.agents.codec import Codec
from empg_cli.rollout.engine import Response
from empg_cli.rollout.episode import collect
from empg_cli.types import Task, Trajectory
from tests.support.rules import TRANSCRIPT


class ScriptedEngine:
    """Episode i says `scripts[i]`, one text a turn. Every token has log-prob -0.5 and entropy 0.25.

    With `cut` every response lacks its last token, as if it had been too long.
    """

    def __init__(self, codec: Codec, scripts: Sequence[Sequence[str]], *, cut: bool = False) -> None:
        self.codec, self.scripts, self.cut = codec, scripts, cut

    def start(self, num_rows: int, *, append_only: bool) -> _Session:
        assert num_rows == len(self.scripts)
        return _Session(self)


class _Session:
    def __init__(self, engine: ScriptedEngine) -> None:
        self._engine = engine
        self._rows = list(range(len(engine.scripts)))
        self._turn = 0

    def keep(self, rows: Sequence[int]) -> None:
        self._rows = [self._rows[row] for row in rows]

    def cut(self, responses: Sequence[Sequence[int]]) -> None:
        """Each response is given anew."""

    def respond(
        self, prompts: Sequence[Sequence[int]], uniforms: Sequence[np.ndarray], *, max_new_tokens: int, **_: Any
    ) -> list[Response]:
        assert len(prompts) == len(self._rows)
        texts = [self._engine.scripts[row][self._turn] for row in self._rows]
        self._turn += 1
        cut = self._engine.cut
        ids = [self._engine.codec.response(text) for text in texts]
        ids = [row[:-1] for row in ids] if cut else ids
        return [Response(row, [-0.5] * len(row), [0.25] * len(row), ended=not cut) for row in ids]


def scripted_rollout(
    benchmark: Any,
    make_agent: AgentMaker,
    tasks: Sequence[Task],
    scripts: Sequence[Sequence[str]],
    *,
    append_only: bool = True,
    max_steps: int = 6,
    cut: bool = False,
) -> list[Trajectory]:
    """`scripts` holds one script per episode, group by group; their number says how large a group is."""
    agent: Agent = make_agent()
    rules = replace(
        TRANSCRIPT, append_only=append_only, max_steps=max_steps, max_new_tokens=200, max_context_tokens=100_000
    )
    engine = ScriptedEngine(agent.codec, scripts, cut=cut)
    group_size = len(scripts) // len(tasks)
    return collect(engine, benchmark, make_agent, tasks, group_size=group_size, rules=rules, stream=(0,))
