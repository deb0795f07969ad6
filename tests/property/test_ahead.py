"""Groups that are played while the policy learns, over random durations: nothing too old trains, nothing is lost."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.ahead import GO_ON, SlowEngine, Turn, ahead
from tests.support.one_step import FAIL, SOLVE

UPDATES = 4


@settings(deadline=None, max_examples=20)  # each waits for what it plays
@given(
    seed=st.integers(0, 1000),
    staleness=st.integers(1, 2),
    wanted=st.integers(1, 3),
    places=st.integers(0, 5),
    drops_uniform=st.booleans(),
)
def test_nothing_too_old_trains_and_each_group_once_and_whole(
    seed: int, staleness: int, wanted: int, places: int, drops_uniform: bool
) -> None:
    """Some turns take as long as several updates."""

    def chance(turn: Turn, what: str) -> float:
        return random.Random(f"{seed} {turn} {what}").random()

    def takes(turn: Turn) -> float:
        return 0.01 if chance(turn, "straggles") < 0.15 else 0.002 * chance(turn, "takes")

    def says(turn: Turn) -> str:
        if chance(turn, "goes on") < 0.5 and turn[2] < 4:
            return GO_ON
        return SOLVE if chance(turn, "solves") < 0.5 else FAIL

    engine = SlowEngine(says, takes)
    sampling = ["algo=dapo", "algo.sampling.max_resamples=2"] if drops_uniform else []
    words = [
        *sampling,
        "algo.group_size=2",
        f"rollout.max_staleness={staleness}",
        f"trainer.tasks_per_update={wanted}",
        f"rollout.max_concurrent={places}",
        f"trainer.updates={UPDATES}",
    ]
    trained: list[int] = []
    looked_at = stale = 0
    with ahead(engine, *words) as run:
        for update in range(UPDATES):
            trajectories = run.play(settles=False)
            ages = [update - step.policy_version for one in trajectories for step in one.steps]
            assert max(ages) <= staleness
            assert run.metrics["rollout/staleness/max"] == max(ages)
            assert run.metrics["rollout/staleness/mean"] == sum(ages) / len(ages)
            groups = Counter(one.group for one in trajectories)
            assert 1 <= len(groups) <= wanted and (drops_uniform or len(groups) == wanted)
            assert list(groups) == sorted(groups) and set(groups.values()) == {2}
            assert len({(one.group, one.index) for one in trajectories}) == len(trajectories)
            trained += groups
            stale += int(run.metrics["rollout/stale_groups"])
            looked_at += len(groups)
            if drops_uniform:
                looked_at += int(run.metrics["dapo/filtered_groups"])
                if len({one.task_reward for one in trajectories[:2]}) == 1:  # the last uniform ones, for want of others
                    looked_at -= len(groups)
            started = run.source._started
            most = (1 + staleness) * wanted - 1 if drops_uniform else staleness * wanted
            assert len(started) <= most, "what has trained has left its place, and nobody has taken it"
            assert run.state.next_task == looked_at + stale + len(started), "each number trains, is dropped, or is open"
            assert not set(trained) & started.keys()
        assert len(set(trained)) == len(trained)
        if not drops_uniform:
            assert not started, "the last update needs nothing behind it"
    assert not engine.open
    if places:
        assert engine.most_open <= places
