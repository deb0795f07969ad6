"""How a run is filed among others, by W&B and by trackers and sinks like it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empg_cli.config.secrets import without_secrets
from empg_cli.runs.run_file import RUN_FILE, read_run_file, update_run_file

if TYPE_CHECKING:
    from empg_cli.config.logger import Wandb

log = logging.getLogger(__name__)

TRACKERS = "trackers"
"""Key of run.json: under which name and group trackers know the run, what each of them goes on with, and the folder
that all of it is about (`PLACE`)."""
PLACE = "place"
WANDB_ID = "wandb_id"
"""Key of run.json: the run of W&B that it goes on with."""


@dataclass(frozen=True, slots=True)
class RunIdentity:
    name: str
    group: str
    """Runs that differ only in their seed share it."""
    tags: tuple[str, ...]
    job_type: str
    """train, eval or ablate."""

    @classmethod
    def of_seed(cls, group: str, seed: int, *, tags: Iterable[str] = (), job_type: str = "train") -> RunIdentity:
        """The name is the group and the seed: `alfworld-empg` becomes `alfworld-empg-s0`."""
        return cls(name=f"{group}-s{seed}", group=group, tags=tuple(tags), job_type=job_type)


def identity_of(
    settings: Wandb, default: RunIdentity, folder: Path | None = None, environ: Mapping[str, str] = os.environ
) -> RunIdentity:
    """What the settings say goes before W&B's variables, these before what the run was called until now. Secrets in
    any of them are masked.

    Args:
        folder: of a run that goes on; None for a new one.
    """
    before = known_to_trackers(folder) if folder is not None else {}

    def first(key: str, said: str | None, variable: str, otherwise: str) -> str:
        return said or environ.get(variable) or before.get(key) or otherwise

    group = first("group", settings.group, "WANDB_RUN_GROUP", default.group)
    is_named_after = default.name.startswith(default.group)
    called = f"{group}{default.name.removeprefix(default.group)}" if is_named_after else default.name
    tags = [*default.tags, *settings.tags, *(tag.strip() for tag in environ.get("WANDB_TAGS", "").split(","))]
    return RunIdentity(
        name=without_secrets(first("name", settings.name, "WANDB_NAME", called)),
        group=without_secrets(group),
        tags=tuple(dict.fromkeys(map(without_secrets, filter(None, tags)))),
        job_type=environ.get("WANDB_JOB_TYPE") or default.job_type,
    )


def keep_ids_with_folder(folder: Path) -> None:
    """Where the folder is a copy of the run's, forget the runs that trackers have of it: they are the other folder's.

    A folder that was moved has the inode that it had, and one that was put back from a copy its path. One that has
    neither is the run itself where it lies on another disk, or in a container, and the other folder is not there any
    more. On the same disk a move would have kept the inode.
    """
    status, known = folder.stat(), known_to_trackers(folder)
    here = {"folder": str(folder.resolve()), "inode": f"{status.st_dev}:{status.st_ino}"}
    there = known.get(PLACE) or here
    if here == there == known.get(PLACE):
        return
    without: tuple[str, ...] = ()
    is_on_its_disk = str(there.get("inode")).partition(":")[0] == str(status.st_dev)
    if all(here[key] != there.get(key) for key in here) and (is_on_its_disk or _holds_the_run(there)):
        log.warning("%s is a copy of the run in %s: trackers get a run of its own", folder, there.get("folder"))
        known, without = {key: known[key] for key in ("name", "group") if key in known}, (WANDB_ID,)
    update_run_file(folder, without, **{TRACKERS: known | {PLACE: here}})


def _holds_the_run(place: Mapping[str, str]) -> bool:
    """The folder of this place is there, and says of itself that it is at this place."""
    folder = Path(place.get("folder", ""))
    return (folder / RUN_FILE).is_file() and known_to_trackers(folder).get(PLACE) == place


def known_to_trackers(folder: Path) -> dict[str, Any]:
    """What trackers know of the run in this folder."""
    return dict(read_run_file(folder).get(TRACKERS) or {})


def tell_run_file(folder: Path, **known: Any) -> None:
    """Add to what trackers know of the run."""
    update_run_file(folder, **{TRACKERS: known_to_trackers(folder) | known})
