"""What a run has recorded is whole: every checkpoint seals the rows and evaluations before it.

A seal names each file with the size and the SHA-256 of what was there when the checkpoint was made. Files of lines grow
afterwards, so their beginning is compared. Rows are looked at one by one too, so that a fault has its line.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from empg_cli.errors import UserError
from empg_cli.files import sync
from empg_cli.invocation import from_here
from empg_cli.runs.evaluations import evaluation_files
from empg_cli.runs.trajectories import FOLDER as TRAJECTORIES

log = logging.getLogger(__name__)

HISTORY = "history.json"
"""Name of the seal in a checkpoint."""
STATE = "state.json"
"""Name of the counts in a checkpoint."""
METRICS, HISTOGRAMS, HEALTH = "metrics.jsonl", "histograms.jsonl", "health.jsonl"
LINES = (METRICS, HISTOGRAMS, HEALTH)
TO_LOOK_AT = f"{TRAJECTORIES}/"
"""Nothing is computed from trajectories, so a run goes on without them."""
BEGAN = "began"
"""Key of run.json: the `run` whose checkpoint this one went on from in a folder of its own, and that one's `update`."""
MOST_FAULTS = 6
"""Said of one file."""


class HistoryError(UserError):
    """What a run recorded before its checkpoint is not there as it was written."""


def seal(run_dir: Path) -> dict[str, dict[str, Any]]:
    """File -> `bytes` and `sha256` of what the run has recorded so far, all of it on the disk by now.

    Raises:
        OSError: the disk refuses.
    """
    sealed = {}
    for name in LINES:
        if (path := run_dir / name).is_file():
            sync(path)
            sealed[name] = {"bytes": (size := path.stat().st_size), "sha256": _digest(path, size)}
    for path in [*evaluation_files(run_dir), *sorted((run_dir / TRAJECTORIES).glob("update-*.jsonl"))]:
        stat = path.stat()
        digest = _digest_once(path, stat.st_size, stat.st_mtime_ns)
        sealed[path.relative_to(run_dir).as_posix()] = {"bytes": stat.st_size, "sha256": digest}
    return sealed


def first_update(facts: Mapping[str, Any]) -> int:
    """The first update that a run has made itself.

    Args:
        facts: of its run.json.
    """
    return 1 + (int(facts[BEGAN]["update"]) if facts.get(BEGAN) else 0)


def check_history(run_dir: Path, checkpoint: Path, *, first: int, done: int) -> None:
    """
    Args:
        first: the first update that the run has made itself.
        done: updates that the checkpoint has behind it.

    Raises:
        HistoryError: rows before the checkpoint are missing, doubled, cut or changed, or evaluations are.
    """
    faults = history_faults(run_dir, checkpoint, first=first, done=done)
    for fault in [fault for fault in faults if fault.startswith(TO_LOOK_AT)]:
        log.warning("%s: %s", from_here(run_dir), fault)
    if grave := [fault for fault in faults if not fault.startswith(TO_LOOK_AT)]:
        lines = "".join(f"\n  {fault}" for fault in grave)
        raise HistoryError(f"{from_here(run_dir)} is not as the run left it before {checkpoint.name}:{lines}")


def history_faults(run_dir: Path, checkpoint: Path, *, first: int, done: int) -> list[str]:
    """What is wrong with the record before a checkpoint; a sentence each. Empty where nothing is."""
    found = []
    for name in LINES:
        logged = done - _row_waits(checkpoint) if name == METRICS else done
        must_have = range(first, logged + 1) if name == METRICS else None
        faults = row_faults(run_dir / name, logged, must_have, one_each=name != HEALTH)
        found += [f"{name}: {fault}" for fault in faults]
    told = {fault.partition(":")[0] for fault in found}
    return found + [fault for fault in seal_faults(run_dir, checkpoint) if fault.split()[0] not in told]


def seal_faults(run_dir: Path, checkpoint: Path) -> list[str]:
    """Files that are not as they were when the checkpoint was made; a sentence each, which begins with the file."""
    found = []
    for name, was in _read_seal(checkpoint).items():
        path = run_dir / name
        if not path.is_file():
            found.append(f"{name} is missing")
        elif not _begins_as(path, was) or (name not in LINES and path.stat().st_size != was["bytes"]):
            found.append(f"{name} is not what the run wrote" + (f" up to byte {was['bytes']}" if name in LINES else ""))
    return found


def row_faults(path: Path, done: int, must_have: Sequence[int] | None = None, *, one_each: bool = True) -> list[str]:
    """Lines that no run writes, up to the last one of update `done`; what comes later is dropped and made again.

    Args:
        must_have: the updates that have a row; None where an update may have none.
        one_each: an update has one row at most.
    """
    lines = path.read_bytes().split(b"\n") if path.is_file() else []
    updates = [_update(line) for line in lines]
    ends = [number for number, update in enumerate(updates, start=1) if update is not None and update <= done]
    counted = updates[: max(ends, default=0)]
    faults, places, highest = [], dict[int, list[int]](), -1
    for number, update in enumerate(counted, start=1):
        if update is None:
            faults.append(f"line {number} is no whole row")
            continue
        places.setdefault(update, []).append(number)
        if update < highest and len(places[update]) == 1:
            faults.append(f"line {number} is of update {update}, and stands behind that of update {highest}")
        highest = max(highest, update)
    if one_each:
        faults += [
            f"update {update} stands in lines {_and(numbers)}" for update, numbers in places.items() if numbers[1:]
        ]
    missing = [update for update in must_have or () if update not in places]
    faults += [f"the row of update {_span(a, b)} is missing" for a, b in _runs(missing)]
    return faults if len(faults) <= MOST_FAULTS else [*faults[:MOST_FAULTS], f"{len(faults) - MOST_FAULTS} faults more"]


def _update(line: bytes) -> int | None:
    try:
        update = json.loads(line)["update"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return update if isinstance(update, int) and update >= 0 else None


def _runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """First and last of each run of neighbours."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first} to {last}"


def _and(numbers: Sequence[int]) -> str:
    return f"{', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"


def _row_waits(checkpoint: Path) -> bool:
    """The run was stopped in an evaluation: the row of the checkpoint's update is logged with it, after the resume."""
    try:
        return json.loads((checkpoint / STATE).read_text(encoding="utf-8")).get("unlogged") is not None
    except (OSError, ValueError, AttributeError):
        return False  # the manifest says what is wrong with it


def _read_seal(checkpoint: Path) -> Mapping[str, Mapping[str, Any]]:
    """Empty for a checkpoint of an older empg, and for one that is damaged: its manifest says so."""
    try:
        sealed = json.loads((checkpoint / HISTORY).read_text(encoding="utf-8"))
        return {str(name): {"bytes": int(one["bytes"]), "sha256": one["sha256"]} for name, one in sealed.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _begins_as(path: Path, was: Mapping[str, Any]) -> bool:
    try:
        return path.stat().st_size >= was["bytes"] and bool(_digest(path, was["bytes"]) == was["sha256"])
    except OSError:
        return False


def _digest(path: Path, size: int) -> str:
    """Of the first `size` bytes."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while size > 0 and (part := file.read(min(size, 1 << 20))):
            sha.update(part)
            size -= len(part)
    return sha.hexdigest()


@lru_cache(maxsize=1024)
def _digest_once(path: Path, size: int, changed_ns: int) -> str:
    """These files are written once, and a run seals them with every checkpoint."""
    return _digest(path, size)
