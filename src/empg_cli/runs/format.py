"""The format of a run folder: how a folder that an older empg made is read as one of today, and a newer one refused.

Whoever adds a key to `TrainConfig` raises `FORMAT` and says in `ADDED` what runs did before there was a choice; whoever
renames or drops one does it in `migrated`. docs/run-folder.md tells what changed from format to format.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from empg_cli.errors import UserError

FORMAT = 3
"""What this version writes, under `format` in run.json; a folder that does not say has format 1."""
KEY = "format"


class FromTheFuture(UserError):  # noqa: N818 (a sentence for the user)
    """A run folder that a newer empg has written."""


@dataclass(frozen=True, slots=True)
class Like:
    """The value that another key has."""

    key: str


@dataclass(frozen=True, slots=True)
class Added:
    """A key that the schema has got, with what stands below it."""

    key: str
    then: Any
    """What runs did before there was a choice: a value, or `Like` another key."""
    only: tuple[str, str] | None = None
    """Another key and its value, where only that choice reads the new key."""


ADDED: Mapping[int, tuple[Added, ...]] = {
    2: (
        Added("algo.advantage.penalty", "episode"),
        Added("logger.sinks", []),
        Added("benchmark.rules", "ours", only=("benchmark.name", "deepsearch")),
        Added("model.param_dtype", Like("model.dtype")),
        Added("trainer.warm_start.keep_failed", False),
        Added(
            "trainer.health",
            {
                "preflight": "off",
                "preflight_episodes": 64,
                "min_success_rate": 0.0,
                "min_valid_actions": 0.02,
                "min_signal_groups": 0.01,
                "warn": False,
                "stop": False,
                "spike_factor": 3.0,
                "kl_floor": 0.1,
                "entropy_ratio": 0.2,
                "success_ratio": 0.5,
                "malformed_rise": 0.2,
                "no_signal_updates": 3,
            },
        ),
    ),
    3: (
        Added("algo.credit.control", "none", only=("algo.credit.kind", "empg")),
        Added("algo.credit.order", "scale_then_center", only=("algo.credit.kind", "empg")),
        Added("algo.credit.scaled", "all", only=("algo.credit.kind", "empg")),
        Added("algo.credit.shift", 0.0, only=("algo.credit.kind", "empg")),
        Added("model.lora", {"rank": 0, "alpha": 32.0, "targets": None}),
        Added("trainer.optimizer", "adamw"),
        Added("trainer.oom", "stop"),
        Added("trainer.watchdog", 0.0),
        Added("trainer.health.max_failed_calls", 1.0),
        Added("trainer.health.max_bad_updates", 0),
        Added("trainer.warm_start.file", None),
        Added("trainer.warm_start.epochs", 1),
        Added("trainer.warm_start.held_out", 0.05),  # not read without a file
        Added("dist", {"launch": "none"}),
        Added("logger.trackers", ["wandb"]),
        Added("logger.wandb.name", None),
        Added("logger.wandb.notes", None),
        Added("logger.wandb.artifacts", []),
        Added("logger.mlflow", {"uri": None, "experiment": "empg"}),
        Added("logger.trackio", {"project": "empg"}),
        Added("logger.swanlab", {"mode": "auto", "project": "empg"}),
        Added("rollout.max_staleness", 0),
        Added(
            "rollout.vllm",
            {
                "urls": None,
                "servers": None,
                "gpus_per_server": 1,
                "colocate": True,
                "gpu_memory": 0.5,
                "python": None,
                "args": [],
                "max_gap": None,
                "timeout_s": 600.0,
                "attempts": 5,
                "start_timeout_s": 900.0,
            },
        ),
    ),
}
"""Format -> the keys that its configurations have and those of the format before do not."""
LAST_HASHED_WHOLE = 2
"""The last format whose digests of configurations have all of its keys in them."""


def refuse_the_future(folder: Path, facts: Mapping[str, Any]) -> int:
    """The format of a run folder.

    Args:
        facts: what its run.json holds.

    Raises:
        UserError: what it says is no format.
        FromTheFuture: this version would misread the folder.
    """
    found = facts.get(KEY, 1)
    if isinstance(found, bool) or not isinstance(found, int) or found < 1:
        raise UserError(
            f"{folder / 'run.json'} says format {found!r}, which is no format: a format is a number from 1 on"
        )
    if found > FORMAT:
        raise FromTheFuture(
            f"{folder} is a run folder of format {found}, made by a newer empg; this one reads formats up to {FORMAT}: "
            "update empg (nothing in the folder was changed)"
        )
    return found


def migrated(config: Mapping[str, Any]) -> dict[str, Any]:
    """A saved configuration as one of today; parts of it that are not there stay away.

    Keys are filled in where they are absent, whatever the folder's format: commits between two keys of one format have
    made folders that lack the later one.
    """
    values = copy.deepcopy(dict(config))
    for _, added in sorted(ADDED.items()):
        for one in added:
            _add(values, one)
    return values


def _add(values: dict[str, Any], added: Added) -> None:
    above, _, name = added.key.rpartition(".")
    node = lookup(values, above)
    if not isinstance(node, dict) or (added.only and lookup(values, added.only[0]) != added.only[1]):
        return
    then = lookup(values, added.then.key) if isinstance(added.then, Like) else copy.deepcopy(added.then)
    node.setdefault(name, then)


def without_new_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration of today without the keys that came after `LAST_HASHED_WHOLE` and say what runs did before."""
    found = copy.deepcopy(dict(values))
    for added in (one for number, keys in ADDED.items() if number > LAST_HASHED_WHOLE for one in keys):
        above, _, name = added.key.rpartition(".")
        node = lookup(found, above)
        then = lookup(values, added.then.key) if isinstance(added.then, Like) else added.then
        if isinstance(node, dict) and name in node and node[name] == then:
            del node[name]
    return found


def lookup(values: Mapping[str, Any], key: str) -> Any:
    """The value under a dotted key, all of them under an empty one; None where there is none."""
    found: Any = values
    for part in key.split(".") if key else ():
        found = found.get(part) if isinstance(found, Mapping) else None
    return found
