"""Episodes that nobody can judge fairly stay out of training, as if they had not been sampled."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

from empg_cli.errors import UserError
from empg_cli.types import Trajectory

log = logging.getLogger(__name__)


MOST_BROKEN = 0.5
"""Share of the tasks that may have no environment: the others are played. Above it, the data or the benchmark is at
fault, not some tasks."""


class TasksBroken(UserError):  # noqa: N818 (a sentence for the user)
    """Most tasks have no environment: what is left is not the benchmark that was asked for."""


class EnvironmentsDown(UserError):  # noqa: N818 (a sentence for the user)
    """Not one episode of a rollout could be judged: going on would only cost time and money."""


def trainable(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """Without unscored episodes (`Status.ENV_ERROR`), and without what is left of a group that then has no two members.

    Group statistics, loss weights and denominators are computed from what this returns, so they cannot tell a masked
    episode from one that was never played. One episode alone has nothing to be compared with.
    """
    scored = Counter(trajectory.group for trajectory in trajectories if trajectory.is_scored)
    return [trajectory for trajectory in trajectories if trajectory.is_scored and scored[trajectory.group] >= 2]


def count_masked(trajectories: Sequence[Trajectory]) -> int:
    """How many episodes `trainable` leaves out; says why in the log.

    Raises:
        EnvironmentsDown: there is not one scored episode.
        TasksBroken: see `refuse_if_broken`.
    """
    refuse_if_broken(trajectories)
    errors = [trajectory.error for trajectory in trajectories if not trajectory.is_scored]
    if errors:
        summary = f"{len(errors)} of {len(trajectories)} episodes ended in an environment error, such as: {errors[0]}"
        if len(errors) == len(trajectories):
            raise EnvironmentsDown(
                f"{summary}\n  Nothing can be learned from this rollout. Put the environment right (service, key, "
                "budget)."
            )
        log.warning("%s; they do not train", summary)
    return len(trajectories) - len(trainable(trajectories))


def refuse_if_broken(trajectories: Sequence[Trajectory]) -> None:
    """Raises:
    TasksBroken: more than `MOST_BROKEN` of the tasks have no environment.
    """
    tasks = {trajectory.task.task_id for trajectory in trajectories}
    broken = {t.task.task_id: t.error for t in trajectories if t.has_no_env}
    if len(broken) > MOST_BROKEN * len(tasks):
        first, error = next(iter(broken.items()))
        raise TasksBroken(
            f"{len(broken)} of {len(tasks)} tasks cannot be played, such as {first}: {error}\n"
            f"  Up to {MOST_BROKEN:.0%} would be left out and counted. Put the data or the benchmark right."
        )
