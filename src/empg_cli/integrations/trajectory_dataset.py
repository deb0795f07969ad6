"""The trajectories that a run has kept as a dataset: Parquet, one row a step, with a card as the Hub reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from empg_cli.config.secrets import mask_secrets
from empg_cli.errors import UserError
from empg_cli.extras import install_command
from empg_cli.files import replacing
from empg_cli.runs.config_file import is_run, saved_run
from empg_cli.runs.run_file import read_run_file
from empg_cli.runs.trajectories import FOLDER, read_trajectories, trajectory_files

CARD = "README.md"
COLUMNS: Mapping[str, tuple[str, str]] = {
    "run": ("string", "name of the run folder"),
    "benchmark": ("string", "what was played"),
    "data_source": ("string", "official or generated"),
    "algorithm": ("string", "null of an evaluation by itself"),
    "seed": ("int64", "of the run"),
    "phase": ("string", "train or eval"),
    "update": ("int64", "updates that were done"),
    "policy_version": ("int64", "updates that the policy had seen when it sampled the step; null of other players"),
    "task_id": ("string", "the task"),
    "kind": ("string", "its type"),
    "split": ("string", "its split"),
    "group": ("int64", "the attempts at one task in one batch share it"),
    "index": ("int64", "of the attempt in its group"),
    "step": ("int32", "from 0"),
    "is_last": ("bool", "the trajectory ends with it"),
    "observation": ("string", "what the agent saw"),
    "prompt": ("string", "what the model read, special tokens included: all of a window, of a transcript what is new"),
    "response": ("string", "what it wrote"),
    "action": ("string", "what the environment got"),
    "well_formed": ("bool", "the response had the form that was asked for"),
    "admissible": ("bool", "the environment accepted the action"),
    "reward": ("float64", "of the step, less what an invalid action costs"),
    "tokens": ("int32", "sampled; null where they are not known"),
    "entropy": ("float64", "nats, mean over the step's tokens"),
    "advantage": ("float64", "training only"),
    "g": ("float64", "EMPG's scaling; training with EMPG only"),
    "f": ("float64", "EMPG's future clarity; training with EMPG only"),
    "credit": ("float64", "what the loss used; training only"),
    "status": ("string", "how the trajectory ended"),
    "success": ("bool", "of the trajectory"),
    "score": ("float64", "of the trajectory, the benchmark's own"),
    "trajectory_reward": ("float64", "what trains"),
    "error": ("string", "why there is no score"),
}
"""Name -> type in Arrow, meaning. The order is that of the file."""


def write_dataset(folder: Path, out: Path, phase: str | None = None) -> int:
    """Write them to a new file, and the card beside it, both or none; returns the number of rows.

    Args:
        folder: of a run, or of an evaluation.
        out: ends in .parquet, in a folder that has no README.md.
        phase: train or eval; None = both.

    Raises:
        UserError: a file is there already, pyarrow is missing, or there are no trajectories.
        DataError: a file of the run is damaged.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise UserError(f"Parquet needs the package pyarrow: {install_command('parquet')}") from None
    card = out.with_name(CARD)
    _refuse_what_is_there(out, card)
    files = [path for _, path in trajectory_files(folder) if phase is None or path.stem.endswith(f"-{phase}")]
    if not files:
        what = f"{folder / FOLDER} holds no trajectories" + (f" of phase={phase}" if phase else "")
        raise UserError(f"{what}: runs keep some with logger.trajectories=N, evaluations too")
    about = _about(folder)
    schema = pa.schema([(name, pa.type_for_alias(kind)) for name, (kind, _) in COLUMNS.items()])
    out.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with replacing(card) as new_card, replacing(out) as new_out:  # both or none
        with pq.ParquetWriter(new_out, schema, compression="zstd") as writer:
            for path in files:
                rows = list(_rows(path, about))
                writer.write_table(pa.Table.from_pylist(rows, schema))
                count += len(rows)
        new_card.write_text(dataset_card(folder, about, out.name, count, phase), encoding="utf-8")
    return count


def _refuse_what_is_there(out: Path, card: Path) -> None:
    if out.suffix != ".parquet":
        raise UserError(f"out={out} must end in .parquet")
    for path in (out, card):
        if path.exists():
            raise UserError(
                f"{path} is there already: give an out in a new folder, such as out=trajectories/{out.name}"
            )


def _about(folder: Path) -> dict[str, Any]:
    """What all rows share."""
    facts = read_run_file(folder)
    data = facts.get("data") or {}
    run = mask_secrets(saved_run(folder)) if is_run(folder) else {}
    return {
        "run": folder.resolve().name,
        "benchmark": data.get("name") or (run.get("benchmark") or {}).get("name"),
        "data_source": data.get("source"),
        "algorithm": (run.get("algo") or {}).get("name") if "algo" in run else None,
        "seed": facts.get("seed"),
    }


def _rows(path: Path, about: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for trajectory in read_trajectories(path):
        shared = {name: trajectory.get(name) for name in COLUMNS if name not in ("reward", "run")} | {**about}
        shared["trajectory_reward"] = trajectory["reward"]
        for number, step in enumerate(trajectory["steps"]):
            own = {name: step[name] for name in COLUMNS if name in step}
            yield {**shared, **own, "step": number, "is_last": number == len(trajectory["steps"]) - 1}


def dataset_card(folder: Path, about: Mapping[str, Any], file: str, rows: int, phase: str | None) -> str:
    facts = read_run_file(folder)
    front = {
        "pretty_name": f"Trajectories of {about['run']}",
        "task_categories": ["reinforcement-learning", "text-generation"],
        "tags": ["empg", "llm-agent", *([str(about["benchmark"])] if about["benchmark"] else [])],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": file}]}],
    }
    columns = "\n".join(f"| `{name}` | {kind} | {meaning} |" for name, (kind, meaning) in COLUMNS.items())
    versions = ", ".join(f"{name} {version}" for name, version in (facts.get("versions") or {}).items())
    source = about["data_source"] or "unknown"
    made = (
        f"{rows} steps of trajectories that `{about['run']}` kept ({phase or 'training and evaluation'}): "
        f"{about['benchmark']} on {source} data, algorithm {about['algorithm'] or '–'}, seed {about['seed']}."
    )
    return (
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n# {front['pretty_name']}\n\n{made} One row is one step: "
        "one model call and the environment's reply. Those of a trajectory share `phase`, `update`, `group` and "
        f"`index`.\n\n| column | type | meaning |\n|---|---|---|\n{columns}\n\n"
        f"Configuration {facts.get('config_hash', 'unknown')}, data digest {(facts.get('data') or {}).get('digest')}"
        f"{f', {versions}' if versions else ''}.\n\n"
        "A run keeps the first trajectories of a batch, no random sample of it: they are for reading, not for rates. "
        "Texts of official data have the licence of that data.\n"
    )
