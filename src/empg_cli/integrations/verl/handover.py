"""A folder that verl trains from: our configuration, the tasks as its datasets, and the command."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString

from empg_cli.benchmarks import make_benchmark
from empg_cli.config import as_yaml
from empg_cli.config.schema import TrainConfig
from empg_cli.errors import UserError
from empg_cli.extras import install_command
from empg_cli.integrations.verl import NAME, SETTINGS
from empg_cli.integrations.verl.words import Words, words
from empg_cli.runs.format import lookup
from empg_cli.runs.study import PLACES
from empg_cli.types import Task

CONFIG, TRAIN, EVAL, SCRIPT = "empg.yaml", "train.parquet", "eval.parquet", "run.sh"
HERE = "$here"
"""The folder, to the script."""
_PLAIN = re.compile(r"(?!(?:true|false|null|nan|inf)$)[A-Za-z/][\w./-]*|\d{4}-\d\d-\d\d")


def write(cfg: TrainConfig, out: Path) -> dict[str, int]:
    """Write the folder; returns how many tasks each dataset has.

    Raises:
        UserError: there is something in `out`, no package that writes Parquet, or fewer tasks than a batch has.
        DataError: the benchmark's data are not there.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise UserError(f"writing Parquet needs pyarrow: {install_command('parquet')}") from None
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already: give another out, or delete it")
    benchmark = make_benchmark(**cfg.benchmark.model_dump())
    played = {
        TRAIN: list(rows(benchmark.name, "train", benchmark.tasks("train"))),
        EVAL: list(
            rows(benchmark.name, cfg.benchmark.split, benchmark.tasks(cfg.benchmark.split)[: cfg.benchmark.eval_tasks])
        ),
    }
    if (tasks := len(played[TRAIN])) < cfg.trainer.tasks_per_update:
        raise UserError(
            f"verl needs {cfg.trainer.tasks_per_update} training tasks for a batch (trainer.tasks_per_update), and "
            f"there are {tasks}: set trainer.tasks_per_update={tasks} or lower, or give more tasks"
        )
    out.mkdir(parents=True, exist_ok=True)
    for name, of_split in played.items():
        pq.write_table(pa.Table.from_pylist(of_split), out / name)
    (out / CONFIG).write_text(as_yaml(_readable_from_anywhere(cfg)), encoding="utf-8")
    script = out / SCRIPT
    script.write_text(command(words(cfg), date.today()), encoding="utf-8")
    script.chmod(0o755)
    return {name: len(of_split) for name, of_split in played.items()}


def _readable_from_anywhere(cfg: TrainConfig) -> TrainConfig:
    """With whole names of the folders where data lies: verl's workers begin elsewhere."""
    values = cfg.model_dump()
    for key in PLACES:
        above, _, name = key.rpartition(".")
        node = lookup(values, above)
        if isinstance(node, dict) and node.get(name):
            node[name] = str(Path(node[name]).expanduser().resolve())
    return TrainConfig.model_validate(values)


def rows(benchmark: str, split: str, tasks: Sequence[Task]) -> Iterator[dict[str, Any]]:
    """A row a task, in the columns that verl's dataset reads. The agent loop writes the prompts, so theirs only names
    the task."""
    for index, task in enumerate(tasks):
        yield {
            "data_source": benchmark,
            "agent_name": NAME,
            "prompt": [{"role": "user", "content": f"{benchmark} {split} {task.task_id}"}],
            "reward_model": {"style": "environment", "ground_truth": ""},
            "extra_info": {"index": index, "split": split, "task_id": task.task_id, "kind": task.kind},
        }


def overrides(found: Words, prompt_date: date, folder: str) -> list[str]:
    """Words of Hydra for `verl.trainer.main_ppo`: a key that this verl does not have ends the command."""
    ours = {
        "data.train_files": f"{folder}/{TRAIN}",
        "data.val_files": f"{folder}/{EVAL}",
        f"+trainer.v1.{SETTINGS}.config": f"{folder}/{CONFIG}",
        f"+trainer.v1.{SETTINGS}.prompt_date": prompt_date.isoformat(),
    }
    return [f"{key}={_text(value)}" for key, value in (ours | found).items()]


def command(found: Words, prompt_date: date) -> str:
    """The script. What is put behind it goes before what stands in it."""
    lines = [_quoted(word) for word in overrides(found, prompt_date, HERE)]
    return (
        "#!/usr/bin/env bash\n"
        "# By `empg verl`. In an environment with verl and empg: ./run.sh trainer.n_gpus_per_node=8\n"
        "set -euo pipefail\n"
        'here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"\n'
        "here=\"${here//\\'/\\\\\\'}\"  # in quotes of Hydra's below\n"
        "# Of what verl loads by itself it passes over what fails; this it does not.\n"
        "export VERL_USE_EXTERNAL_MODULES=empg_cli.integrations.verl.plugin\n"
        "exec python3 -m verl.trainer.main_ppo \\\n  " + " \\\n  ".join([*lines, '"$@"']) + "\n"
    )


def _text(value: object) -> str:
    """As Hydra's grammar has it: texts of other than letters, / and the like in quotes."""
    if not isinstance(value, str):
        return json.dumps(value)
    return value if _PLAIN.fullmatch(value) else QuotedString(value, Quote.single).with_quotes()


def _quoted(word: str) -> str:
    """For the shell, which puts the folder in where it is named."""
    return f'"{word}"' if HERE in word else shlex.quote(word)
