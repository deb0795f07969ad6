"""An evaluation, and its file in the run folder: `evaluations/update-000008.json`, one for each update evaluated."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NotRequired

from typing_extensions import TypedDict

from empg_cli.files import WriteText, paths_in, write_in_folder
from empg_cli.runs.shapes import OPEN, read_json
from empg_cli.types import Trajectory

FOLDER = "evaluations"
_NAME = re.compile(r"update-\d+\.json")


class SuccessRate(TypedDict):
    """With its confidence interval, all in [0, 1], and the number of tasks: what is shown of an evaluation."""

    success_rate: float
    lo: float
    hi: float
    n: int


@dataclass(frozen=True, slots=True)
class Success:
    """Successes of some tasks, with the 95 % Wilson interval. Episodes that nobody could judge are counted apart."""

    kind: str
    n: int
    """Tasks that were judged; all but `not_judged` is about these."""
    success_rate: float
    lo: float
    hi: float
    score: float
    """Mean of the benchmark's own score."""
    steps: float
    """Mean steps of an episode."""
    valid_actions: float
    """Share of steps whose action was well-formed and accepted."""
    not_judged: int = 0
    """Episodes that ended in an environment error (`Status.ENV_ERROR`)."""
    info: dict[str, float] = field(default_factory=dict)
    """Means of the numbers that the environments report."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    split: str
    temperature: float
    total: Success
    kinds: list[Success]
    """Of the task types with an episode that was judged."""
    trajectories: list[Trajectory]
    averages: list[dict[str, Any]]
    """Deep Search: rows of `deepsearch.report` over ID, OOD and all sources; empty elsewhere."""

    @property
    def success_rate(self) -> float:
        return self.total.success_rate

    def metrics(self, benchmark: str) -> dict[str, float]:
        """Under the names of docs/metrics.md.

        Args:
            benchmark: family of the numbers that its environments report.
        """
        total = self.total
        metrics = {
            "eval/success_rate": total.success_rate,
            "eval/success_rate_lo": total.lo,
            "eval/success_rate_hi": total.hi,
            "eval/score": total.score,
            "eval/n": float(total.n),
            "eval/not_judged": float(total.not_judged),
            "eval/length/mean": total.steps,
            "eval/valid_action_frac": total.valid_actions,
        }
        metrics |= {f"eval/{benchmark}/{name}": mean for name, mean in total.info.items()}
        metrics |= {f"eval/{row['name'].lower()}/success_rate": row["success_rate"] for row in self.averages}
        return metrics | {f"eval/{kind.kind}/success_rate": kind.success_rate for kind in self.kinds}

    def tasks(self) -> list[dict[str, Any]]:
        """One row per task, in order: what paired comparisons need. Not judged: success and score are None."""
        return [
            {
                "task_id": trajectory.task.task_id,
                "kind": trajectory.task.kind,
                "success": trajectory.success if trajectory.is_scored else None,
                "score": trajectory.score if trajectory.is_scored else None,
                "steps": len(trajectory.steps),
                "status": str(trajectory.status),
                **({"info": trajectory.info} if trajectory.info else {}),
                **({"error": trajectory.error} if trajectory.error else {}),
            }
            for trajectory in self.trajectories
        ]

    def as_dict(self) -> dict[str, Any]:
        """Everything but the trajectories, as plain data."""
        plain: dict[str, Any] = {
            "split": self.split,
            "temperature": self.temperature,
            "total": asdict(self.total),
            "kinds": [asdict(kind) for kind in self.kinds],
        }
        return plain | ({"averages": self.averages} if self.averages else {})


def metrics_of(content: Mapping[str, Any], benchmark: str) -> dict[str, float]:
    """`Evaluation.metrics` of one as plain data."""
    total, kinds = Success(**content["total"]), [Success(**kind) for kind in content["kinds"]]
    found = Evaluation(content["split"], content["temperature"], total, kinds, [], content.get("averages", []))
    return found.metrics(benchmark)


def write_evaluation(run_dir: Path, update: int, evaluation: Evaluation, *, write: WriteText = write_in_folder) -> None:
    """Totals, task types and every task, after this many updates."""
    content = {"update": update, **evaluation.as_dict(), "tasks": evaluation.tasks()}
    write(run_dir / FOLDER / f"update-{update:06d}.json", json.dumps(content, indent=1) + "\n")


class _Total(TypedDict):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    success_rate: float
    lo: float
    hi: float
    n: int


class _Average(_Total):
    name: str
    group: str
    sources: int


class _Kind(_Total):
    kind: str
    steps: float
    valid_actions: float


class _File(TypedDict):
    """What is read of the file of an evaluation."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    update: int
    total: _Total
    kinds: NotRequired[list[_Kind]]
    averages: NotRequired[list[_Average]]


class WholeEvaluation(TypedDict):
    """What is read of the file where all of the evaluation is shown."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    update: int
    split: str
    temperature: float
    total: _Total
    kinds: list[_Kind]
    averages: NotRequired[list[_Average]]


def drop_evaluations(run_dir: Path, done: int) -> None:
    """Remove those after update `done`: a resumed run makes them again; -1 = a new run, remove all."""
    for path in evaluation_files(run_dir):
        if _update_of(path) > done:
            path.unlink()


def evaluation_files(run_dir: Path) -> list[Path]:
    """In the order of updates; other files in the folder are nobody's business."""
    files = paths_in(run_dir / FOLDER, "update-*.json")
    return sorted((path for path in files if _NAME.fullmatch(path.name)), key=_update_of)


def was_evaluated(run_dir: Path, update: int) -> bool:
    return update in map(_update_of, evaluation_files(run_dir))


def _update_of(path: Path) -> int:
    return int(path.stem.removeprefix("update-"))


def read_evaluations(run_dir: Path) -> list[tuple[int, SuccessRate]]:
    """(update, totals) of every evaluation in a run folder, in order."""
    contents = [read_json(path, _File) for path in evaluation_files(run_dir)]
    return [(content["update"], shown(content["total"])) for content in contents]


def read_whole_evaluations(run_dir: Path) -> list[WholeEvaluation]:
    """Every evaluation in a run folder, in order."""
    return [read_json(path, WholeEvaluation) for path in evaluation_files(run_dir)]


def read_groups(run_dir: Path) -> list[tuple[str, str]]:
    """What the first and the last evaluation found on each group of task types (Deep Search: ID and OOD)."""
    paths = evaluation_files(run_dir)
    ends = [("first", paths[0]), ("last", paths[-1])] if paths else []
    return [
        (f"{when} {name}", text)
        for when, path in ends
        for name, text in group_lines(read_json(path, _File).get("averages", []))
    ]


def read_task_types(run_dir: Path, update: int) -> list[Mapping[str, Any]]:
    """What the evaluation after this update found on each task type: `kind`, `n`, `success_rate`, `lo`, `hi`, `steps`
    and `valid_actions`. Averages over the sources of Deep Search follow, under the name of their metric (`id`), without
    the last two. None where there is no such evaluation."""
    path = run_dir / FOLDER / f"update-{update:06d}.json"
    if not path.is_file():
        return []
    content = read_json(path, _File)
    averages = [{**row, "kind": row["name"].lower()} for row in content.get("averages", [])]
    return [*content.get("kinds", []), *averages]


def group_lines(averages: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(name, `61.2% [57.9%, 64.4%] n=750 (mean of 3 sources)`) of each group; what averages all has its own line."""
    return [
        (
            row["name"],
            f"{row['success_rate']:.1%} [{row['lo']:.1%}, {row['hi']:.1%}] n={row['n']} "
            f"(mean of {row['sources']} source{'s' if row['sources'] > 1 else ''})",
        )
        for row in averages
        if row["group"] != "all"
    ]


def shown(total: Mapping[str, Any]) -> SuccessRate:
    return {"success_rate": total["success_rate"], "lo": total["lo"], "hi": total["hi"], "n": total["n"]}
