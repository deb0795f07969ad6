"""Which trackers a run has, and how each is opened. Nothing of them is imported before it is opened."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from empg_cli.config.environment import wandb_is_off
from empg_cli.errors import UserError
from empg_cli.extras import install_command
from empg_cli.observe.tracked import Tracked

if TYPE_CHECKING:
    from empg_cli.config.logger import Logger, Tracker
    from empg_cli.observe.mlflow_sink import MlflowSink
    from empg_cli.observe.swanlab_sink import SwanlabSink
    from empg_cli.observe.tensorboard_sink import TensorboardSink
    from empg_cli.observe.trackio_sink import TrackioSink
    from empg_cli.observe.wandb_sink import WandbSink

    TrackerSink = WandbSink | TensorboardSink | MlflowSink | TrackioSink | SwanlabSink

MODULES: Mapping[str, Sequence[str]] = {
    "tensorboard": ("tensorboard",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
    "trackio": ("trackio",),
    "swanlab": ("swanlab",),
}
"""What a tracker is imported from. W&B comes with empg."""
TITLES = {
    "wandb": "W&B",
    "tensorboard": "TensorBoard",
    "mlflow": "MLflow",
    "trackio": "Trackio",
    "swanlab": "SwanLab",
}


def refuse_missing(trackers: Sequence[str]) -> None:
    """Before there is any work. Imports none of them.

    Raises:
        UserError: a tracker is not installed.
    """
    for tracker in trackers:
        if any(importlib.util.find_spec(module) is None for module in MODULES.get(tracker, ())):
            raise UserError(f"logger.trackers names {tracker}, which is not installed: {install_command(tracker)}")


def tracker_openers(cfg: Logger, run: Callable[[], Tracked]) -> dict[str, Callable[[], TrackerSink]]:
    """By name, those that the settings ask for.

    Args:
        run: called when a tracker is opened.
    """
    wanted = [name for name in cfg.trackers if name != "wandb" or wandb_is_wanted(cfg.wandb.mode)]
    return {name: _opener(name, cfg, run) for name in wanted}


def _opener(name: Tracker, cfg: Logger, run: Callable[[], Tracked]) -> Callable[[], TrackerSink]:
    def open_sink() -> TrackerSink:
        match name:
            case "wandb":
                from empg_cli.observe.wandb_sink import WandbSink

                return WandbSink(cfg.wandb, run())
            case "tensorboard":
                from empg_cli.observe.tensorboard_sink import TensorboardSink

                return TensorboardSink(run())
            case "mlflow":
                from empg_cli.observe.mlflow_sink import MlflowSink

                return MlflowSink(cfg.mlflow, run())
            case "trackio":
                from empg_cli.observe.trackio_sink import TrackioSink

                return TrackioSink(cfg.trackio, run())
            case "swanlab":
                from empg_cli.observe.swanlab_sink import SwanlabSink

                return SwanlabSink(cfg.swanlab, run())

    return open_sink


def wandb_is_wanted(asked: str) -> bool:
    """Decided without importing wandb, which costs a second. `auto` obeys WANDB_MODE and WANDB_DISABLED."""
    return wandb_is_off() is None if asked == "auto" else asked != "disabled"
