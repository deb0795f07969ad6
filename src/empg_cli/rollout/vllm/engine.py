"""The engine of `rollout.engine=vllm`: episodes ask servers, which are given the weights at every publication."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np

from empg_cli.errors import UserError
from empg_cli.pulse import beat
from empg_cli.ranks import RankLost, Ranks
from empg_cli.rollout.engine import Completion, EngineLost, NoCompletion, Sampling
from empg_cli.rollout.vllm.launch import ServerNotStarted, Started
from empg_cli.rollout.vllm.probe import Probe
from empg_cli.rollout.vllm.transfer import Transfer
from empg_cli.services.errors import BadAnswerError, NoAnswerError, ServerDown, ServiceError
from empg_cli.services.vllm import MODEL, UNKNOWN, PromptTooLong, VllmServer, question
from empg_cli.signals import asked
from empg_cli.types import Status

log = logging.getLogger(__name__)

T = TypeVar("T")

MOST_PUBLICATIONS: Final = 3
"""Tries to give the servers one version, with what is gone brought back between them."""
LOOK_EVERY_S: Final = 0.25


class VllmEngine:
    """Made by `opened_engine`. `generate` may be awaited in any event loop; everything else belongs to one thread.

    An episode stays with one server, which has its beginning in its cache. A server that gives no answer, or has other
    weights than the published ones, is not asked again before the next publication; its episodes go on with the others.
    """

    is_deterministic = False

    def __init__(
        self,
        servers: Sequence[VllmServer],
        started: Sequence[Started],
        stop_ids: Sequence[int],
        *,
        ranks: Ranks,
        goes_on: bool,
        start_timeout_s: float,
        sleep_level: int = 0,
        model: str = MODEL,
    ) -> None:
        """
        Args:
            servers: all there are, in the same order on every rank.
            started: those of them that this process has started, in the same order; empty where they ran already.
            goes_on: episodes do while the policy is published (`rollout.max_staleness`).
            sleep_level: of servers that share the GPUs of the learner; 0 = they stay awake.
        """
        self.policy_version = 0
        self._servers, self._started, self._stop_ids = tuple(servers), tuple(started), tuple(stop_ids)
        self._ranks, self._start_timeout_s = ranks, start_timeout_s
        self._slack = 1 if goes_on else 0
        """Updates between an answer's last weights and the published ones: it may have ended beside a publication."""
        self._sleep_level, self._model = sleep_level, model
        self._sleeps = self._was_published = False
        self._transfer: Transfer | None = None
        self._probe: Probe | None = None
        self._down: dict[VllmServer, str] = {}
        """Servers that are not asked, and why."""
        self._home: dict[Hashable, VllmServer] = {}
        self._load = dict.fromkeys(self._servers, 0)
        """Open episodes of each."""
        # Connections live in one event loop, and every rollout has its own.
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="vllm", daemon=True)
        self._thread.start()

    def attach(self, transfer: Transfer, probe: Probe) -> None:
        """What publications need, which need `ask`."""
        self._transfer, self._probe = transfer, probe

    def shut(self) -> None:
        with suppress(TimeoutError):
            self._wait_for(asyncio.wait_for(self._closed(), timeout=10))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _closed(self) -> None:
        for server in self._servers:
            await server.close()

    # --- playing -------------------------------------------------------------------------------------

    async def generate(
        self, prompt: Sequence[int], *, episode: Hashable, draws: np.ndarray, sampling: Sampling
    ) -> Completion[int]:
        seed = int(draws[0] * 2**62)
        body = question(
            prompt,
            name=f"empg-{seed:016x}",
            seed=seed,
            stop_ids=self._stop_ids,
            max_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            model=self._model,
        )
        answering = asyncio.run_coroutine_threadsafe(self._answered(episode, body), self._loop)
        return await asyncio.wrap_future(answering)

    def close(self, episode: Hashable) -> None:
        self._loop.call_soon_threadsafe(self._leave, episode)

    async def _answered(self, episode: Hashable, body: dict[str, Any]) -> Completion[int]:
        while True:
            server = self._server_of(episode)
            try:
                answer = await server.generate(body)
            except PromptTooLong as error:
                raise NoCompletion(Status.CONTEXT_OVERFLOW, str(error)) from None
            except BadAnswerError as error:
                raise NoCompletion(Status.ENV_ERROR, str(error)) from None
            except ServiceError as error:
                self._give_up(server, str(error))
                continue
            if answer.oldest == UNKNOWN or abs(answer.newest - self.policy_version) > self._slack:
                self._give_up(server, f"{server.url} samples with weights of {_named(answer.newest)}")
                continue
            return Completion(answer.token_ids, answer.logprobs, None, answer.ended, answer.oldest)

    def _server_of(self, episode: Hashable) -> VllmServer:
        home = self._home.get(episode)
        if home is not None and home not in self._down:
            return home
        self._leave(episode)
        up = [server for server in self._servers if server not in self._down]
        if not up:
            raise EngineLost("; ".join(self._down.values()))
        turned = self._ranks.rank % len(up)
        home = min([*up[turned:], *up[:turned]], key=lambda server: self._load[server])
        self._home[episode] = home
        self._load[home] += 1
        return home

    def _leave(self, episode: Hashable) -> None:
        if (home := self._home.pop(episode, None)) is not None:
            self._load[home] -= 1

    def _give_up(self, server: VllmServer, why: str) -> None:
        if server not in self._down:
            log.warning("%s; its episodes go on elsewhere", why)
        self._down[server] = why

    # --- publications --------------------------------------------------------------------------------

    def publish(self, version: int) -> dict[str, float]:
        """
        Raises:
            ServerDown: the servers cannot be had, do not take the weights, or do not sample with them.
        """
        assert self._transfer is not None and self._probe is not None, "attached by whoever made this"
        began = time.monotonic()
        for attempt in range(MOST_PUBLICATIONS):
            failure = self._told(self._get_ready) or self._told(lambda: self._send(version), on_all=True)
            if failure is None:
                break
            self._ranks.obey()
            if failure.is_final or attempt + 1 == MOST_PUBLICATIONS:
                raise ServerDown(f"the servers of vLLM do not have the weights of update {version}: {failure.text}")
            if self._ranks.is_first:
                log.warning("%s; giving the servers the weights again", failure.text)
        self.policy_version, self._was_published, self._sleeps = version, True, False
        self._wait_for(self._all_are_up())
        gap = self._probe.largest_gap(self.ask, version)
        return {"rollout/probe_gap": gap, "timing_s/publish": time.monotonic() - began}

    def rest(self) -> None:
        if not self._sleep_level or self._sleeps:
            return
        failure = self._told(lambda: self._say(lambda server: server.sleep(self._sleep_level)))
        self._sleeps = True  # some of them may, and to wake one that is awake does no harm
        if failure is not None and self._ranks.is_first:
            log.warning("%s; the servers keep their memory", failure.text)

    def revive(self) -> None:
        self.publish(self.policy_version)

    def ask(self, what: Callable[[VllmServer], Coroutine[Any, Any, T]]) -> list[T]:
        """What all servers say, asked at once, in their order; from any thread but that of the connections.

        Raises:
            ServiceError: of the first of them that failed.
        """

        async def all_of_them() -> list[T]:
            found = await asyncio.gather(*(what(server) for server in self._servers), return_exceptions=True)
            for one in found:
                if isinstance(one, BaseException):
                    raise one
            return [one for one in found if not isinstance(one, BaseException)]

        return self._wait_for(all_of_them())

    def _say(self, what: Callable[[VllmServer], Coroutine[Any, Any, None]]) -> None:
        self.ask(what)

    def _told(self, work: Callable[[], None], *, on_all: bool = False) -> _Failure | None:
        """Why something that the first rank does, or all do, failed on the first. A common point."""
        failure = None
        if self._ranks.is_first or on_all:
            try:
                work()
            except NoAnswerError as error:
                failure = _Failure(str(error), is_final=False)
            except (ServiceError, UserError, OSError) as error:
                failure = _Failure(str(error), is_final=True)
        found = self._ranks.of_first(failure)
        if found is None and failure is not None:
            raise RankLost(f"rank {self._ranks.rank} failed alone: {failure.text}")
        return found

    def _get_ready(self) -> None:
        """All servers are there, awake, and at a stand."""
        self._bring_back()
        if self._sleeps:
            self.ask(lambda server: server.wake("weights"))
        self.ask(lambda server: server.pause())

    def _send(self, version: int) -> None:
        assert self._transfer is not None, "attached by whoever made this"
        self._transfer.send(version)
        if not self._ranks.is_first:
            return
        if self._sleeps:
            self.ask(lambda server: server.wake("kv_cache"))
        self.ask(lambda server: server.resume())

    def _bring_back(self) -> None:
        """Wait for servers that are gone, after starting again those that this run has started.

        Raises:
            ServerNotStarted: one does not come in time, or came, and has ended.
            WrongVersion: it is another one than can be spoken with.
        """
        assert self._transfer is not None, "attached by whoever made this"
        until = time.monotonic() + self._start_timeout_s
        for server, started in zip(self._servers, self._started or [None] * len(self._servers), strict=True):
            has_ended = started is not None and started.has_ended  # and its port may be somebody else's by now
            if is_there := not has_ended and self._wait_for(server.is_there()):
                self._wait_for(server.check())
                if self._wait_for(server.weight_version()) == self.policy_version:
                    continue
            self._transfer.forget()  # who was started anew is in no group
            if is_there:
                continue
            if started is not None and has_ended and self._was_published:
                log.warning("%s\nit is started again", started.last_words())
                started.start()
            self._await(server, started, until)

    def _await(self, server: VllmServer, started: Started | None, until: float) -> None:
        while not self._wait_for(server.is_there()):
            if started is not None:
                started.refuse_if_ended()
            if asked() or time.monotonic() > until:
                raise ServerNotStarted(f"no server of vLLM answers at {server.url} after {self._start_timeout_s:g} s")
            time.sleep(LOOK_EVERY_S)
            beat()
        self._wait_for(server.check())

    async def _all_are_up(self) -> None:
        self._down.clear()

    def _wait_for(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


def _named(version: int) -> str:
    return "no version that a run has given them" if version == UNKNOWN else f"version {version}"


@dataclass(frozen=True, slots=True)
class _Failure:
    text: str
    is_final: bool
    """Trying again would bring the same."""
