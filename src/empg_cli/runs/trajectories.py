"""Trajectories on disk, for people and reports: what was seen and done, how sure the policy was, where credit went.

`trajectories/update-000008-eval.jsonl` and `-train.jsonl`, one JSON object a line. Training steps carry advantage and
credit, and with EMPG g and f; evaluation steps carry the entropy alone. `prompt` and `response` of a step are what the
model read and wrote, special tokens included: all of a window prompt, of a transcript what is new. `policy_version`
counts the updates that the policy had seen; an expert and a model behind a server have none.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NotRequired

from typing_extensions import TypedDict

from empg_cli.files import WriteText, paths_in, write_in_folder
from empg_cli.runs.shapes import OPEN, read_json_lines
from empg_cli.types import Step, Trajectory

if TYPE_CHECKING:
    from empg_cli.algorithms.assemble import CreditParts  # brings torch: seconds

FOLDER = "trajectories"
_NAME = re.compile(r"update-(\d+)-(?:eval|train)\.jsonl")
Phase = Literal["train", "eval"]
TextOf = Callable[[Sequence[int]], str]
"""Token ids as people can read them."""


def text_with_special_tokens(tokenizer: Any) -> TextOf:
    """Decodes with everything that the model saw: where turns end is half of what goes wrong."""
    return lambda ids: str(tokenizer.backend_tokenizer.decode(list(ids), skip_special_tokens=False))


class KeptStep(TypedDict):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    observation: str
    action: str
    well_formed: bool
    admissible: bool
    reward: NotRequired[float | None]
    tokens: NotRequired[int | None]
    entropy: NotRequired[float | None]
    g: NotRequired[float | None]
    f: NotRequired[float | None]
    advantage: NotRequired[float | None]
    credit: NotRequired[float | None]
    prompt: NotRequired[str | None]
    response: NotRequired[str | None]


class KeptTrajectory(TypedDict):
    """What is read of a line of a file of trajectories."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    phase: Phase
    update: int
    task_id: str
    kind: str
    group: int
    index: int
    status: str
    success: bool
    score: float
    reward: float
    error: NotRequired[str | None]
    steps: list[KeptStep]


def save_trajectories(
    run_dir: Path,
    update: int,
    phase: Phase,
    trajectories: Sequence[Trajectory],
    parts: CreditParts | None = None,
    *,
    text_of: TextOf | None = None,
    write: WriteText = write_in_folder,
) -> None:
    """Write them as the file of this update and phase; nothing when there are none.

    Args:
        trajectories: the first ones of the batch that `parts` describes, in its order.
        parts: one row per step of that batch.
        text_of: None leaves prompts and responses out, but for those that were texts from the beginning.
    """
    if not trajectories:
        return
    first_step, lines = 0, []
    for trajectory in trajectories:
        record = trajectory_record(trajectory, phase, update, parts, first_step, text_of)
        lines.append(json.dumps(record, allow_nan=False) + "\n")
        first_step += len(trajectory.steps)
    write(run_dir / FOLDER / f"update-{update:06d}-{phase}.jsonl", "".join(lines))


def trajectory_rows(trajectories: Sequence[Trajectory]) -> list[dict[str, Any]]:
    """A row each, for tables: how it went, and what was seen and done as one text."""
    return [
        {
            "task_id": one.task.task_id,
            "kind": one.task.kind,
            "success": one.success,
            "score": one.score,
            "status": str(one.status),
            "steps": len(one.steps),
            "text": "\n".join(f"{step.observation}\n> {step.action}" for step in one.steps),
        }
        for one in trajectories
    ]


def trajectory_files(folder: Path) -> list[tuple[int, Path]]:
    """(update, file) in order, evaluation before training; other files in there are nobody's business."""
    found = ((_NAME.fullmatch(path.name), path) for path in paths_in(folder / FOLDER, "update-*.jsonl"))
    return sorted((int(name[1]), path) for name, path in found if name)


def read_trajectories(path: Path) -> list[dict[str, Any]]:
    """
    Raises:
        DataError: a line holds no trajectory.
    """
    return [dict(record) for record in read_json_lines(path, KeptTrajectory)]


def drop_trajectories(run_dir: Path, done: int) -> None:
    """Remove what was kept after update `done`: a resumed run makes it again; -1 = a new run, remove all."""
    for update, path in trajectory_files(run_dir):
        if update > done:
            path.unlink()


def trajectory_record(
    trajectory: Trajectory,
    phase: Phase,
    update: int,
    parts: CreditParts | None,
    first_step: int,
    text_of: TextOf | None = None,
) -> dict[str, Any]:
    """One trajectory as plain data; `first_step` is the row of its first step in `parts`."""
    return {
        "phase": phase,
        "update": update,
        "task_id": trajectory.task.task_id,
        "kind": trajectory.task.kind,
        "split": trajectory.task.split,
        "group": trajectory.group,
        "index": trajectory.index,
        "status": str(trajectory.status),
        "success": trajectory.success,
        "score": trajectory.score,
        "reward": trajectory.reward,
        "error": trajectory.error,
        "steps": [
            _step(step) | _texts(step, text_of) | (_credit(parts, first_step + turn) if parts else {})
            for turn, step in enumerate(trajectory.steps)
        ],
    }


def _step(step: Step) -> dict[str, Any]:
    is_known = step.texts is None  # of a model behind a server nothing is known of its tokens
    tokens = len(step.response_ids) if is_known else 0
    return {
        "observation": step.observation,
        "action": step.action,
        "well_formed": step.well_formed,
        "admissible": step.admissible,
        "reward": step.reward,
        "tokens": tokens if is_known else None,
        "policy_version": step.policy_version if tokens else None,
        "entropy": _number(sum(step.entropies) / tokens) if tokens else None,
    }


def _texts(step: Step, text_of: TextOf | None) -> dict[str, Any]:
    """Nothing for an expert's step, which no model made."""
    if step.texts is not None:
        return dict(zip(("prompt", "response"), step.texts, strict=True))
    if text_of is None or not step.prompt_ids:
        return {}
    return {"prompt": text_of(step.prompt_ids), "response": text_of(step.response_ids)}


def _credit(parts: CreditParts, row: int) -> dict[str, Any]:
    values = {
        "entropy": parts.entropy_S,  # the training model's own, if log-probs were computed again
        "advantage": parts.advantage_S,
        "g": parts.weight_S,
        "f": parts.clarity_S,
        "credit": parts.credit_S,
    }
    return {name: _number(float(value_S[row])) for name, value_S in values.items() if value_S is not None}


def _number(value: float) -> float | None:
    """Six digits are plenty to look at; JSON has no NaN."""
    return float(f"{value:.6g}") if math.isfinite(value) else None
