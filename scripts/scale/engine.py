"""One engine with continuous batching: passes that decode a token for every sequence, and prefills between them."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from scripts.scale.costs import EngineCosts
from scripts.scale.workload import Episode

Schedule = Callable[[float, int, int], None]
"""(time, engine, stamp): call `Engine.wake` then."""


class Engine:
    """Passes among which nobody comes or goes are one event; an arrival cuts it short at the end of a pass."""

    def __init__(self, number: int, costs: EngineCosts, schedule: Schedule) -> None:
        self.number, self._costs, self._schedule = number, costs, schedule
        self._active: list[tuple[int, int, Episode]] = []
        """Heap of (pass after which the answer ends, number, episode)."""
        self._waiting: list[Episode] = []
        self._entering: list[Episode] = []
        """In the prefill that runs."""
        self._passes, self._columns = 0, 0
        self._stamp, self._since, self._planned = 0, 0.0, 0
        self._ends = 0.0
        self._is_busy, self._is_stopped, self._is_resuming = False, False, False
        self._openings: set[int] = set()
        """Groups whose opening is in the cache."""
        self.resident = 0
        self.decode_s, self.prefill_s, self.again_s = 0.0, 0.0, 0.0
        self.decoded, self.lost = 0, 0
        """Tokens: all, and those of answers that were given up."""

    def submit(self, episode: Episode, now: float) -> None:
        """An episode whose `context` is the prompt that comes."""
        self._waiting.append(episode)
        if not self._is_busy:
            self._begin(now)
        elif self._planned:
            self._cut(now)

    def wake(self, now: float, stamp: int) -> list[Episode]:
        """Those whose answer has ended."""
        if stamp != self._stamp:
            return []
        self._is_busy = False
        ended = self._end_passes(now) if self._planned else []
        for episode in self._entering:
            self._enter(episode)
        self._entering = []
        if self._is_resuming:
            self._restart(now)
        else:
            self._begin(now)
        return ended

    def stop(self, now: float) -> float:
        """At the end of the pass; returns when that is."""
        self._is_stopped = True
        if self._planned:
            self._cut(now)
        return self._ends if self._is_busy else now

    def resume(self, now: float) -> None:
        """With new weights: keys and values of the old ones are void, answers that are under way go on."""
        self._is_stopped = False
        if self._is_busy:
            self._is_resuming = True  # the pass that is under way ends first
        else:
            self._restart(now)

    def _restart(self, now: float) -> None:
        self._is_resuming = False
        self._openings.clear()
        self.lost += self.under_way(dropped=True)
        self._active = [entry for entry in self._active if not entry[2].group.is_dropped]
        heapq.heapify(self._active)
        self._columns = sum(self._seen(episode, end) for end, _, episode in self._active)
        if self._active:
            contexts = [self._seen(episode, end) for end, _, episode in self._active]
            seconds = self._costs.prefill_s([(seen, seen) for seen in contexts])
            self.again_s += seconds
            self._plan(now, seconds, 0)
        else:
            self._begin(now)

    def under_way(self, *, dropped: bool) -> int:
        """Tokens of answers that have not ended, of dropped groups or of the others."""
        entries = [entry for entry in self._active if entry[2].group.is_dropped == dropped]
        return sum(self._so_far(episode, end) for end, _, episode in entries)

    def _so_far(self, episode: Episode, end: int) -> int:
        return episode.answers[episode.turn] - (end - self._passes)

    def _seen(self, episode: Episode, end: int) -> int:
        return episode.context + self._so_far(episode, end)

    def _begin(self, now: float) -> None:
        if self._is_stopped:
            return
        entering = [episode for episode in self._waiting if not episode.group.is_dropped]
        self._waiting = []
        if entering:
            prompts: list[tuple[int, int]] = []
            again: list[tuple[int, int]] = []
            for episode in entering:
                new = episode.context - episode.cached
                if episode.turn == 0 and episode.group.number in self._openings:
                    new = 0  # a member of its group has had it read
                elif episode.turn == 0:
                    self._openings.add(episode.group.number)
                (again if episode.turn and not episode.cached else prompts).append((new, episode.context))
            fresh, repeated = self._costs.prefill_s(prompts), self._costs.prefill_s(again)
            self.prefill_s += fresh
            self.again_s += repeated
            self._entering = entering
            self._plan(now, fresh + repeated, 0)
        elif self._active:
            passes = self._active[0][0] - self._passes
            self._plan(now, self._costs.decode_s(len(self._active), self._columns, passes), passes)

    def _plan(self, now: float, seconds: float, passes: int) -> None:
        self._stamp += 1
        self._since, self._planned, self._is_busy = now, passes, True
        self._ends = now + seconds
        self._schedule(self._ends, self.number, self._stamp)

    def _cut(self, now: float) -> None:
        """Plan as many passes as have begun by now."""
        low, high = 1, self._planned
        while low < high:
            middle = (low + high) // 2
            if self._since + self._costs.decode_s(len(self._active), self._columns, middle) >= now:
                high = middle
            else:
                low = middle + 1
        if low < self._planned:
            seconds = self._costs.decode_s(len(self._active), self._columns, low)
            self._plan(self._since, seconds, low)

    def _end_passes(self, now: float) -> list[Episode]:
        count = len(self._active)
        self._passes += self._planned
        self._columns += count * self._planned
        self.decoded += count * self._planned
        self.decode_s += now - self._since
        self._planned = 0
        ended = []
        while self._active and self._active[0][0] == self._passes:
            _, _, episode = heapq.heappop(self._active)
            tokens = episode.answers[episode.turn]
            episode.context += tokens
            self._columns -= episode.context
            episode.cached = 0 if self._is_resuming else episode.context
            episode.decoded += tokens
            episode.turn += 1
            ended.append(episode)
        return ended

    def _enter(self, episode: Episode) -> None:
        if episode.group.is_dropped:
            return
        episode.cached = episode.context
        heapq.heappush(self._active, (self._passes + episode.answers[episode.turn], episode.number, episode))
        self._columns += episode.context
