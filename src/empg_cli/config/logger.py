"""Where the numbers of a run go beside its folder: trackers, a node of settings each."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import NonNegativeInt, model_validator

from empg_cli.config.node import Node

Tracker = Literal["wandb", "tensorboard", "mlflow", "trackio", "swanlab"]
Artifact = Literal["evaluations", "trajectories", "best", "last"]


class Wandb(Node):
    mode: Literal["auto", "online", "offline", "disabled"]
    """auto: what WANDB_MODE says, else online when logged in, else offline; never asks."""
    project: str
    """Of W&B; made when it is not there."""
    entity: str | None
    """Team or user that the project belongs to; null = the default one of the login."""
    group: str | None
    """null = what WANDB_RUN_GROUP says, else benchmark, algorithm and a digest of
    the settings without the seed: alfworld-empg-1a2b3c. The other trackers take it too."""
    name: str | None
    """null = what WANDB_NAME says, else the group and the seed. The other trackers take it too."""
    notes: str | None
    """null = what WANDB_NOTES says, else none."""
    tags: list[str]
    """Beside those of benchmark, algorithm and model, and those of WANDB_TAGS."""
    artifacts: list[Artifact]
    """evaluations: a table of its tasks at each evaluation; trajectories: one of `logger.trajectories` of them; best,
    last: the policy of that checkpoint, when the run has ended. [] = none."""


class Mlflow(Node):
    uri: str | None
    """Of the tracking store; null = what MLFLOW_TRACKING_URI says, else `mlflow.db` (SQLite) in the run folder."""
    experiment: str
    """Runs are filed under it; made when it is not there."""


class Trackio(Node):
    project: str
    """Of Trackio; made when it is not there."""


class Swanlab(Node):
    mode: Literal["auto", "online", "offline", "local"]
    """auto: what SWANLAB_MODE says, else offline."""
    project: str
    """Of SwanLab; made when it is not there."""


class Logger(Node):
    console: Literal["auto", "rich", "plain", "quiet"]
    """rich: a dashboard; plain: lines; quiet: no progress; auto: the dashboard on a terminal, else lines."""
    csv: bool
    """Write metrics.csv beside metrics.jsonl."""
    trajectories: NonNegativeInt
    """Trajectories kept in the run folder at each evaluation, and as many of the update before it; 0 = none."""
    trackers: list[Tracker]
    """Each gets the rows of metrics.jsonl (docs/trackers.md); [] = none. `empg eval` logs to those that it is given on
    its command line."""
    wandb: Wandb
    mlflow: Mlflow
    trackio: Trackio
    swanlab: Swanlab
    sinks: list[dict[str, Any]]
    """From outside the package: each has a `target`, and the settings of its factory (docs/adding-a-benchmark.md)."""

    @model_validator(mode="after")
    def trackers_differ(self) -> Logger:
        if len(set(self.trackers)) < len(self.trackers):
            raise ValueError("trackers must be distinct: one that stands twice would be given every row twice")
        return self

    @model_validator(mode="after")
    def settings_are_read(self) -> Logger:
        given = {
            "wandb": ("artifacts", bool(self.wandb.artifacts)),
            "mlflow": ("uri", self.mlflow.uri is not None),
        }
        for tracker, (key, is_given) in given.items():
            if is_given and tracker not in self.trackers:
                raise ValueError(
                    f"{tracker}.{key} is not read when trackers has no {tracker}; leave it out, or add {tracker} to "
                    "logger.trackers"
                )
        return self
