"""Two evaluations of the same tasks, task by task: which policy solves more, and how sure that is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NotRequired

from typing_extensions import TypedDict

from empg_cli.errors import UserError
from empg_cli.runs.config_file import is_run, saved_run
from empg_cli.runs.evaluations import evaluation_files
from empg_cli.runs.reading import warn_of_faults
from empg_cli.runs.run_file import read_run_file
from empg_cli.runs.shapes import OPEN, read_json
from empg_cli.stats.paired import PairedCounts, paired_counts
from empg_cli.types import Status

COUNTS = frozenset({"tasks", "kinds", "solvable"})
"""Parts of a fingerprint that say how much data there is: the task lists tell what of it was played."""
MEND = "give an evaluation of empg, or the folder of one"
PASSES = "passes"
"""Folder of the single evaluations, where an `empg eval` made several."""


class _Task(TypedDict):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    task_id: str
    kind: str
    success: bool | None
    status: NotRequired[str]


class _Rules(TypedDict, total=False):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    max_steps: int


class _Summary(TypedDict, total=False):
    """Of several passes; a single evaluation has no such key."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    passes: list[str]


class _Evaluation(TypedDict):
    """What is read of an evaluation's file."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    tasks: list[_Task]
    split: str
    temperature: float
    update: NotRequired[int | None]
    data: NotRequired[dict[str, Any]]
    rules: NotRequired[_Rules]


class NotComparable(UserError):  # noqa: N818 (a sentence for the user)
    """Two evaluations that a paired comparison would lie about."""


@dataclass(frozen=True, slots=True)
class SavedEvaluation:
    """One evaluation, read back."""

    path: Path
    split: str
    temperature: float
    data: dict[str, Any]
    tasks: Sequence[dict[str, Any]]
    update: int | None
    max_steps: int | None
    """None: an evaluation that does not say."""


@dataclass(frozen=True, slots=True)
class PairedComparison:
    a: SavedEvaluation
    b: SavedEvaluation
    total: PairedCounts
    kinds: tuple[PairedCounts, ...]
    not_judged: int = 0
    """Tasks left out because the environment failed in one of the evaluations."""

    def as_dict(self) -> dict[str, Any]:
        def counts(row: PairedCounts) -> dict[str, Any]:
            return {**asdict(row), "difference": row.difference._asdict(), "rate_a": row.rate_a, "rate_b": row.rate_b}

        sides = {
            name: {"path": str(side.path), "split": side.split, "temperature": side.temperature, "update": side.update}
            for name, side in (("a", self.a), ("b", self.b))
        }
        rows = {"total": counts(self.total), "kinds": [counts(row) for row in self.kinds]}
        return {**sides, "data": self.a.data, "not_judged": self.not_judged, **rows}


def compare_evaluations(path_a: Path, path_b: Path) -> PairedComparison:
    """
    Args:
        path_a, path_b: a run folder (its last evaluation), the folder of an `empg eval`, or one evaluation's file.

    Raises:
        NotComparable: other data, another split, or other tasks; or no task that was judged in both.
    """
    a, b = read_evaluation(path_a), read_evaluation(path_b)
    _check_same_tasks(a, b)
    played = len(a.tasks)
    a, b = _judged_in_both(a, b)
    kinds = list(dict.fromkeys(str(task["kind"]) for task in a.tasks))
    rows = [_count(kind, a, b) for kind in kinds]
    return PairedComparison(a, b, _count("all", a, b, every_kind=True), tuple(rows), played - len(a.tasks))


def read_evaluation(path: Path) -> SavedEvaluation:
    file = _evaluation_file(path)
    run_dir = file.parent.parent if file.parent.name in ("evaluations", PASSES) else file.parent
    facts = read_run_file(run_dir)
    if is_run(run_dir):
        warn_of_faults(run_dir)
    names = read_json(file, _Summary, mend=MEND).get("passes")
    if names is not None:
        files = ", ".join(f"{file.parent / PASSES / name}.json" for name in names[:2])
        raise NotComparable(f"{file} sums up {len(names)} evaluations: give one of them ({files}, ...)")
    content = read_json(file, _Evaluation, mend=MEND)
    data = content.get("data") or facts.get("data")
    if not data:
        raise NotComparable(f"{file} does not say which data was played, nor does {run_dir / 'run.json'}")
    max_steps = content.get("rules", {}).get("max_steps") or _configured_max_steps(run_dir)
    tasks: list[Any] = [*content["tasks"]]
    return SavedEvaluation(
        file, content["split"], content["temperature"], data, tasks, content.get("update"), max_steps
    )


def _configured_max_steps(run_dir: Path) -> int | None:
    """For an evaluation within a training run, whose own file does not say."""
    if not is_run(run_dir):
        return None
    max_steps: int | None = saved_run(run_dir)["benchmark"].get("max_steps")
    return max_steps


def _evaluation_file(path: Path) -> Path:
    if path.is_file():
        return path
    own = path / "evaluation.json"
    if own.is_file():
        return own
    files = evaluation_files(path)
    if not files:
        raise NotComparable(f"{path} holds no evaluation: give a run, the folder of an `empg eval`, or its .json file")
    return files[-1]


def _lasting(part: Any) -> Any:
    """Without what is another the next time although nothing else is played: how many answers of a search are kept so
    far, whether they are replayed, and where an index whose digest is known is served."""
    if not isinstance(part, dict):
        return part
    passing = {"recorded_answers", "mode"} | ({"urls"} if part.get("index") else set())
    return {key: value for key, value in part.items() if key not in passing}


def _check_same_tasks(a: SavedEvaluation, b: SavedEvaluation) -> None:
    for key in sorted((a.data.keys() & b.data.keys()) - COUNTS):
        if _lasting(a.data[key]) != _lasting(b.data[key]):
            raise NotComparable(
                f"not the same data: {key} is {_short(a.data[key])} in {a.path} and {_short(b.data[key])} in {b.path}; "
                "evaluate both with the same benchmark.* settings"
            )
    if a.max_steps and b.max_steps and a.max_steps != b.max_steps:
        raise NotComparable(
            f"not the same tasks: {a.max_steps} steps are allowed in {a.path}, {b.max_steps} in {b.path}; "
            "evaluate both with the same benchmark.max_steps"
        )
    if a.split != b.split:
        raise NotComparable(f"not the same split: {a.split} in {a.path}, {b.split} in {b.path}; set benchmark.split")
    ids_a, ids_b = [task["task_id"] for task in a.tasks], [task["task_id"] for task in b.tasks]
    if ids_a != ids_b:
        common = len(set(ids_a) & set(ids_b))
        raise NotComparable(
            f"not the same tasks: {len(ids_a)} in {a.path}, {len(ids_b)} in {b.path}, {common} in both; "
            "evaluate both with the same benchmark.eval_tasks and task types"
        )
    if not ids_a:
        raise NotComparable(f"{a.path} holds no task")


def _short(value: Any) -> str:
    text = json.dumps(value) if isinstance(value, dict | list) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _judged_in_both(a: SavedEvaluation, b: SavedEvaluation) -> tuple[SavedEvaluation, SavedEvaluation]:
    failed = str(Status.ENV_ERROR)
    pairs = [
        (mine, theirs)
        for mine, theirs in zip(a.tasks, b.tasks, strict=True)
        if failed not in (mine.get("status"), theirs.get("status"))
    ]
    if not pairs:
        raise NotComparable(f"no task was judged in both {a.path} and {b.path}: the environment failed on all of them")
    return replace(a, tasks=[mine for mine, _ in pairs]), replace(b, tasks=[theirs for _, theirs in pairs])


def _count(kind: str, a: SavedEvaluation, b: SavedEvaluation, *, every_kind: bool = False) -> PairedCounts:
    pairs = [
        (bool(mine["success"]), bool(theirs["success"]))
        for mine, theirs in zip(a.tasks, b.tasks, strict=True)
        if every_kind or mine["kind"] == kind
    ]
    return paired_counts(kind, pairs)
