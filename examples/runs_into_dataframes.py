"""Runs as tables: metrics, evaluations and single steps with their credit, in pandas and in polars.

`python runs_into_dataframes.py` makes two small runs to look at; give FOLDERS your own runs, sweeps or studies.
docs/run-folder.md says what every file holds, docs/metrics.md what every number means.
"""

from pathlib import Path

import pandas as pd
import polars as pl

from empg_cli.config import load
from empg_cli.loop import train
from empg_cli.runs.reading import open_runs

FOLDERS = [Path("runs/smoke")]

# %% Two runs of seconds, if there are none

if [Path("runs/smoke")] == FOLDERS:
    for seed in (0, 1):
        words = ["experiment=smoke", f"seed={seed}", "logger.console=quiet", "logger.wandb.mode=disabled"]
        train(load([*words, "resume=auto"]), FOLDERS[0] / f"empg-s{seed}")

# %% Metrics: a row an update. `open_runs` finds the runs in a folder, reads old formats, and warns of damaged files

runs = open_runs(FOLDERS)
metrics = pd.concat(
    [pd.DataFrame.from_dict(run.rows, orient="index").assign(run=run.title, seed=run.seed) for run in runs]
).rename_axis("update")
print(metrics[["seed", "episode/success_rate", "actor/entropy", "eval/success_rate"]].to_string(), "\n")

# %% The same file without empg, in polars: what is in it is plain JSON lines

rows = pl.concat([pl.read_ndjson(run.folder / "metrics.jsonl") for run in runs], how="diagonal_relaxed")
print(rows.group_by("update").agg(pl.mean("episode/success_rate", "actor/entropy")).sort("update"), "\n")

# %% Evaluations: a row a task

tasks = pd.concat(
    [
        pd.json_normalize(pd.read_json(file, typ="series")["tasks"]).assign(seed=run.seed, evaluation=file.stem)
        for run in runs
        for file in sorted((run.folder / "evaluations").glob("update-*.json"))
    ]
)
print(tasks.groupby(["kind", "evaluation"])["success"].agg(["mean", "size"]), "\n")

# %% Trajectories: a row a step, with its entropy and, of training, where its credit comes from

steps = pd.concat(
    [pd.json_normalize(run.trajectories(), "steps", ["phase", "task_id", "group", "index", "success"]) for run in runs]
)
of_training = steps[steps.phase == "train"]
print(of_training[["action", "entropy", "g", "f", "advantage", "credit"]].head(8).to_string(index=False), "\n")

# %% The same in polars, from the files

files = [file for run in runs for file in (run.folder / "trajectories").glob("*-train.jsonl")]
of_training = pl.concat(
    [pl.read_ndjson(file).select("success", "steps").explode("steps").unnest("steps") for file in files],
    how="diagonal_relaxed",
)
print(of_training.group_by("success").agg(pl.mean("entropy", "credit"), pl.len().alias("steps")).sort("success"))
