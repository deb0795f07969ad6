"""Turns that a test gives to an engine: one call of `generate` for each row, all at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from empg_cli.rollout.engine import Completion, Engine, Sampling


@dataclass
class Answer:
    token_ids: list[int]
    logprobs: list[float]
    entropies: list[float]
    ended: bool


class Turns:
    """Rows that are played in step, by their place in a list that rows leave and join."""

    def __init__(self, engine: Engine[int], rows: int, *, append_only: bool) -> None:
        self._engine, self._append_only = engine, append_only
        self._histories: dict[int, list[int]] = {row: [] for row in range(rows)}
        self._names, self._next = list(range(rows)), rows

    def keep(self, places: Sequence[int]) -> None:
        kept = [self._names[place] for place in places]
        for name in set(self._names) - set(kept):
            self._engine.close(name)
        self._names = kept

    def add(self, count: int) -> None:
        new = range(self._next, self._next + count)
        self._next += count
        self._names += new
        self._histories |= {name: [] for name in new}

    def cut(self, responses: Sequence[Sequence[int]], sampled: Sequence[Answer]) -> None:
        """Go on as if the last responses had been these beginnings of what was sampled."""
        for name, response, whole in zip(self._names, responses, sampled, strict=True):
            history = self._histories[name]
            del history[len(history) - len(whole.token_ids) + len(response) :]

    def respond(
        self,
        prompts: Sequence[Sequence[int]],
        draws: Sequence[np.ndarray],
        *,
        max_new_tokens: int,
        temperature: float,
        top_p: float = 1.0,
    ) -> list[Answer]:
        """prompts: with `append_only` what is new to each row, else whole prompts."""
        sampling = Sampling(temperature, max_new_tokens, top_p)

        async def all_at_once() -> list[Completion[int]]:
            calls = []
            for name, prompt, draw in zip(self._names, prompts, draws, strict=True):
                whole = [*(self._histories[name] if self._append_only else []), *prompt]
                self._histories[name] = whole
                calls.append(self._engine.generate(whole, episode=name, draws=draw, sampling=sampling))
            return await asyncio.gather(*calls)

        completions = asyncio.run(all_at_once())
        for name, completion in zip(self._names, completions, strict=True):
            self._histories[name] = [*self._histories[name], *completion.response]
        return [answer(completion) for completion in completions]


def answer(completion: Completion[Any]) -> Answer:
    assert completion.entropies is not None
    return Answer(completion.response, completion.logprobs, completion.entropies, completion.ended)
