"""The model behind the fake vLLM server: our TorchEngine, whose requests can be frozen between two tokens while weights
change, and whose answers say which weights sampled which token."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from empg_cli.model.loading import load_folder
from empg_cli.rollout.engine import Sampling
from empg_cli.rollout.torch_engine.engine import TorchEngine

FIRST_LABEL = "default"
"""vLLM's own, of weights that nobody has named."""
BLOCK = 16
"""Tokens; prefixes are cached in blocks, as on a GPU."""
SLEEPING = frozenset({"weights", "kv_cache"})


class Gate:
    """Lets passes through one at a time, and none while it is held or closed."""

    def __init__(self) -> None:
        self._turn, self._counting = threading.Condition(), threading.Lock()
        self._holds = 0
        self._is_closed = False

    @contextmanager
    def passing(self) -> Iterator[None]:
        with self._turn:
            self._turn.wait_for(lambda: not self._holds or self._is_closed)
            if self._is_closed:
                raise RuntimeError("the server has stopped")
            yield

    def hold(self) -> None:
        """Returns when the pass under way has ended. Counted: as many releases let the next one through."""
        with self._counting:  # not the lock of the passes, which take it again at once and would keep it
            self._holds += 1
        with self._turn:
            pass

    def release(self) -> None:
        with self._counting:
            self._holds -= 1
        with self._turn:
            self._turn.notify_all()

    def close(self) -> None:
        self._is_closed = True
        with self._turn:
            self._turn.notify_all()


@dataclass(eq=False)
class Answer:
    """What has been sampled so far; an episode of its own in the engine."""

    stop_ids: frozenset[int]
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    starts: list[tuple[str, int]] = field(default_factory=list)
    """Each label with the first token that was sampled under it."""
    was_aborted: bool = False

    def take(self, token: int, logprob: float, label: str) -> None:
        if not self.starts or self.starts[-1][0] != label:
            self.starts.append((label, len(self.token_ids)))
        self.token_ids.append(token)
        self.logprobs.append(logprob)

    @property
    def spans(self) -> list[dict[str, Any]]:
        ends = [*(start for _, start in self.starts), len(self.token_ids)][1:]
        return [
            {"version": label, "start": start, "end": end}
            for (label, start), end in zip(self.starts, ends, strict=True)
        ]


class FreezableEngine(TorchEngine):
    """Each request has its own tokens that end it, and an `Answer` as its episode."""

    def __init__(self, policy: Any, gate: Gate) -> None:
        super().__init__(policy, (), look_every=0)
        self.label = FIRST_LABEL
        self.sampled = 0
        """Tokens, of all requests."""
        self._gate = gate

    async def fill(self, answer: Answer, prompt: Sequence[int], draws: np.ndarray, sampling: Sampling) -> None:
        try:
            await self.generate(prompt, episode=answer, draws=draws, sampling=sampling)
        finally:
            self.close(answer)

    def forget(self) -> None:
        """Keys and values of requests under way are computed again."""
        for row in self._reader._rows.values():
            row.read, row.family, row.shared = [], -1, 0

    def _advance(self, going: Any, new: Any) -> Any:
        with self._gate.passing():
            return super()._advance(going, new)

    def _answer_if_ended(self, request: Any) -> bool:
        answer: Answer = request.episode
        if answer.was_aborted:  # it has been handed out
            return super()._answer_if_ended(request)
        answer.take(request.context[-1], request.logprobs[-1], self.label)
        self.sampled += 1
        self._stop_ids = answer.stop_ids
        return super()._answer_if_ended(request)


class Host:
    """A model folder's weights with their label, and the thread that samples from them."""

    def __init__(self, folder: Path, *, dtype: str, device: str) -> None:
        self.policy = load_folder(str(folder), dtype=dtype, device=torch.device(device))
        self.gate = Gate()
        self.engine = FreezableEngine(self.policy, self.gate)
        self.cached: set[Hashable] = set()
        """Blocks that a prefix cache would hold. Only reported: each request is read anew."""
        self.is_paused = False
        self.sleeping: set[str] = set()
        """Tags of the memory that was given up."""
        self._going: dict[Answer, Future[None]] = {}
        self._changing = threading.RLock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    @property
    def vocabulary(self) -> int:
        return len(self.policy.head.weight_VD)

    def submit(self, answer: Answer, prompt: Sequence[int], draws: np.ndarray, sampling: Sampling) -> Future[None]:
        """The future is cancelled where `answer` stays as it is."""
        filled = asyncio.run_coroutine_threadsafe(self.engine.fill(answer, prompt, draws, sampling), self._loop)
        self._going[answer] = filled
        filled.add_done_callback(lambda _: self._going.pop(answer, None))
        return filled

    def pause(self, *, aborts: bool, clears: bool) -> None:
        """clears: caches, also those of requests that are kept (vLLM does so in every mode)."""
        with self._changing:
            if not self.is_paused:
                self.gate.hold()
            self.is_paused = True
            if aborts:
                for answer, filled in list(self._going.items()):
                    answer.was_aborted = True
                    filled.cancel()
            if clears:
                self.reset_cache()

    def resume(self) -> None:
        with self._changing:
            if self.is_paused:
                self.gate.release()
            self.is_paused = False

    def sleep(self, level: int, *, aborts: bool) -> None:
        """Level 2 gives the weights up: all are 0 until an update brings others."""
        with self._changing:
            self.pause(aborts=aborts, clears=level > 0)
            self.sleeping |= SLEEPING if level > 0 else frozenset()
            if level == 2:
                for parameter in self.policy.model.parameters():
                    parameter.data.zero_()

    def wake_up(self, tags: Sequence[str] | None) -> bool:
        """Whether all memory is there again; if so, sampling goes on."""
        with self._changing:
            self.sleeping -= SLEEPING if tags is None else set(tags)
            if not self.sleeping:
                self.resume()
            return not self.sleeping

    def reset_cache(self, *, of_running: bool = True) -> bool:
        """False where requests under way keep theirs."""
        if of_running:
            self.gate.hold()
            self.engine.forget()
            self.gate.release()
        elif self._going and not self.is_paused:
            return False
        self.cached.clear()
        return True

    def load(self, name: str, value: Tensor) -> None:
        """Tied parameters have several names. Keys and values in flight stay as they are, so pause before."""
        named = dict(self.policy.model.named_parameters(remove_duplicate=False))
        if name not in named or named[name].shape != value.shape:
            raise RuntimeError(f"no parameter {name} of shape {list(value.shape)}")
        named[name].data.copy_(value)

    def close(self) -> None:
        self.gate.close()
        asyncio.run_coroutine_threadsafe(_cancel_others(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def tokens_cached(self, prompt: Sequence[int], salt: str | None) -> int:
        """Of the prompt, whose last token is always read."""
        known = 0
        for block in _blocks(prompt[:-1], salt):
            if block not in self.cached:
                break
            known += BLOCK
        return known

    def keep(self, ids: Sequence[int], salt: str | None) -> None:
        self.cached.update(_blocks(ids, salt))


def _blocks(ids: Sequence[int], salt: str | None) -> Iterator[Hashable]:
    """A name for each whole block with all that stands before it."""
    chain = hash(salt)
    for start in range(0, len(ids) - BLOCK + 1, BLOCK):
        chain = hash((chain, *ids[start : start + BLOCK]))
        yield chain


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
