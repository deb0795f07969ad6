"""The run: groups begin, play, wait to be trained on, or grow too old. Time stands in one heap of events."""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import replace

from scripts.scale.case import PARTS, Case, Result, Totals, kept_bytes, sync_s
from scripts.scale.costs import EngineCosts, Learning, learning_of
from scripts.scale.engine import Engine
from scripts.scale.workload import Episode, Group, draw_group, longest_context, next_prompt, rows_of


class Simulation:
    def __init__(self, case: Case) -> None:
        self.case = case
        costs = EngineCosts(case.shape, case.machine, case.tensor_parallel, taken=kept_bytes(case))
        size = costs.kv_bytes * longest_context(case.lengths, case.context)
        self._most = min(case.machine.sequences, int(costs.room // size))
        if self._most < 1:
            raise ValueError("an engine has no room for a single episode")
        count = case.playing_gpus // case.tensor_parallel
        self.engines = [Engine(number, costs, self._schedule_engine) for number in range(count)]
        self._events: list[tuple[float, int, str, int, int]] = []
        self._order = 0
        self._places = [(0, number) for number in range(count)]
        """Heap of (resident episodes, engine); an entry that is out of date is passed over."""
        self._playing: dict[int, Episode] = {}
        self._queue: deque[Episode] = deque()
        """Begun groups' episodes for which no engine has room yet."""
        self.groups: list[Group] = []
        self.finished: deque[Group] = deque()
        self._open: list[Group] = []
        self._learning: list[Group] = []
        self.version = 0
        self._waits_since = 0.0
        self.totals = Totals()
        self._marks: list[Totals] = []

    def run(self) -> Result:
        self._fill(0.0)
        while self.version < self.case.updates:
            now, _, kind, number, stamp = heapq.heappop(self._events)
            match kind:
                case "engine":
                    for episode in self.engines[number].wake(now, stamp):
                        self._turn_ended(episode, now)
                case "environment":
                    if number in self._playing:
                        self._ask(self._playing[number], now)
                case "learned":
                    self._learned(now)
                case "synced":
                    self._synced(now)
        return self._result()

    def _push(self, at: float, kind: str, number: int = 0, stamp: int = 0) -> None:
        self._order += 1
        heapq.heappush(self._events, (at, self._order, kind, number, stamp))

    def _schedule_engine(self, at: float, number: int, stamp: int) -> None:
        self._push(at, "engine", number, stamp)

    # groups and episodes

    def _fill(self, now: float) -> None:
        """Begin as many groups as may be on their way: those of this update and of `staleness` more."""
        case = self.case
        while len(self._open) + len(self.finished) + len(self._learning) < (case.staleness + 1) * case.tasks:
            number = len(self.groups)
            group = draw_group(case.lengths, case.group_size, number=number, version=self.version, seed=case.seed)
            self.groups.append(group)
            self._open.append(group)
            self._queue.extend(group.episodes)
            self.totals.begun += 1
        self._place(now)

    def _place(self, now: float) -> None:
        while self._queue and self._places:
            resident, number = self._places[0]
            engine = self.engines[number]
            if resident != engine.resident:
                heapq.heappop(self._places)
                continue
            if resident >= self._most:
                return
            episode = self._queue.popleft()
            engine.resident += 1
            heapq.heapreplace(self._places, (engine.resident, number))
            episode.engine = number
            self._playing[episode.number] = episode
            self._ask(episode, now)

    def _leave(self, episode: Episode) -> None:
        assert episode.engine is not None
        engine = self.engines[episode.engine]
        engine.resident -= 1
        heapq.heappush(self._places, (engine.resident, engine.number))
        del self._playing[episode.number]

    def _ask(self, episode: Episode, now: float) -> None:
        assert episode.engine is not None
        episode.context = next_prompt(episode, self.case.context)
        if not self.case.context.append_only:
            episode.cached = self.case.context.cached
        self.engines[episode.engine].submit(episode, now)

    def _turn_ended(self, episode: Episode, now: float) -> None:
        if episode.group.is_dropped:
            return
        if not episode.is_over:
            self._push(now + self.case.machine.environment_s, "environment", episode.number)
            return
        self._leave(episode)
        self._place(now)
        group = episode.group
        group.open -= 1
        if group.open == 0:
            self._open.remove(group)
            self.finished.append(group)
            self._learn_if_ready(now)

    # learning

    def _learn_if_ready(self, now: float) -> None:
        case = self.case
        if self._learning or len(self.finished) < case.tasks:
            return
        self.totals.playing += now - self._waits_since
        self._learning = [self.finished.popleft() for _ in range(case.tasks)]
        rows = [row for group in self._learning for each in group.episodes for row in rows_of(each, case.context)]
        took = learning_of(rows, case.shape, case.machine, case.learning_gpus, recompute=case.recompute)
        self._count(took)
        begins = self._stop(now) if case.is_colocated else now
        self._push(begins + took.total, "learned")

    def _count(self, took: Learning) -> None:
        totals, ranks = self.totals, self.case.learning_gpus
        totals.score += ranks * took.scoring
        totals.learn += ranks * took.learning
        totals.imbalance += ranks * took.imbalance
        totals.comm += ranks * took.communication
        totals.flops += took.flops

    def _learned(self, now: float) -> None:
        totals = self.totals
        totals.trained += len(self._learning)
        totals.staleness += sum(self.version - group.version for group in self._learning)
        totals.turns += sum(len(episode.answers) for group in self._learning for episode in group.episodes)
        self._stop(now)
        seconds = sync_s(self.case)
        totals.sync += self.case.gpus * seconds
        self._push(now + seconds, "synced")

    def _stop(self, now: float) -> float:
        """Returns when the last engine has ended its pass."""
        return max(engine.stop(now) for engine in self.engines)

    def _synced(self, now: float) -> None:
        self._learning = []
        self.version += 1
        self._drop()
        for episode in self._playing.values():
            episode.cached = 0
        for engine in self.engines:
            engine.resume(now)
        self._waits_since = now
        self._marks.append(self._measured(now))
        self._fill(now)
        self._learn_if_ready(now)

    def _drop(self) -> None:
        """Groups that no update can train on any more."""
        oldest = self.version - self.case.staleness
        for group in [*self._open, *self.finished]:
            if group.version < oldest:
                group.is_dropped = True
                self.totals.dropped += 1
        self._open = [group for group in self._open if not group.is_dropped]
        self.finished = deque(group for group in self.finished if not group.is_dropped)
        for episode in [each for each in self._playing.values() if each.group.is_dropped]:
            self._leave(episode)
        self._queue = deque(episode for episode in self._queue if not episode.group.is_dropped)

    # what comes out

    def _measured(self, now: float) -> Totals:
        size = self.case.tensor_parallel
        decode, prefill, again = (
            size * sum(getattr(engine, name) for engine in self.engines)
            for name in ("decode_s", "prefill_s", "again_s")
        )
        return replace(self.totals, time=now, decode=decode, prefill=prefill, again=again)

    def _result(self) -> Result:
        case, end = self.case, self._marks[-1]
        start = self._marks[case.warm_up - 1] if case.warm_up else Totals()
        updates = case.updates - case.warm_up
        each = case.gpus * updates
        took = (end.time - start.time) / updates
        parts = {name: (getattr(end, name) - getattr(start, name)) / each for name in PARTS[:-1]}
        parts["idle"] = took - sum(parts.values())
        trained, dropped = end.trained - start.trained, end.dropped - start.dropped
        return Result(
            update_s=took,
            parts=parts,
            playing_s=(end.playing - start.playing) / updates,
            busy=sum(parts[name] for name in ("decode", "prefill", "again", "score", "learn")) / took,
            mfu=(end.flops - start.flops) / updates / (took * case.gpus * case.machine.flops),
            dropped=dropped / (trained + dropped),
            staleness=(end.staleness - start.staleness) / trained,
            turns=(end.turns - start.turns) / (trained * case.group_size),
            totals=end,
        )


def simulate(case: Case) -> Result:
    return Simulation(case).run()
