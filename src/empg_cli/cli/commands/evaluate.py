"""`empg eval`: a checkpoint, a model, one behind a server, or the expert on the tasks of a split."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empg_cli.cli.flags import HydraFlags
from empg_cli.cli.interrupts import interruptible
from empg_cli.cli.jobs import COMMAND_LINE, job_border, prepare
from empg_cli.cli.launch import launch
from empg_cli.config.schema import EvalConfig
from empg_cli.errors import UserError
from empg_cli.invocation import as_value, command, from_here
from empg_cli.owner import owning
from empg_cli.runs.config_file import find_run_folder, is_run
from empg_cli.runs.own_config import primary_config, run_given

if TYPE_CHECKING:
    from omegaconf import DictConfig

log = logging.getLogger(__name__)


def eval_task(cfg: DictConfig) -> dict[str, Any]:
    """One job: plays the tasks, prints the tables, returns what `run_eval` found."""
    return _evaluate(cfg, _show)


def _show(result: dict[str, Any]) -> None:
    if "temperatures" in result:
        from empg_cli.reports.evaluation_tables import evaluation_tables
        from empg_cli.reports.tables import print_table

        for table in evaluation_tables(result):
            print_table(table, sys.stdout)
        return
    from empg_cli.observe.summary import print_evaluation
    from empg_cli.runs.evaluations import Success

    title = f"{result['split']}, temperature {result['temperature']:g}"
    print_evaluation([Success(**row) for row in result["kinds"]], Success(**result["total"]), title)
    if rows := result.get("averages"):
        from empg_cli.benchmarks.deepsearch.report import averages_as_text

        print(*averages_as_text(rows), sep="\n")


def eval_task_json(cfg: DictConfig) -> dict[str, Any]:
    """The same, with the result as one line of JSON on stdout."""
    return _evaluate(cfg, lambda result: print(json.dumps(result)))


def _evaluate(cfg: DictConfig, show: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    config, run_dir = prepare(cfg, EvalConfig)
    with job_border(run_dir, "eval"), owning(run_dir, "evaluating", again=True):
        who = config.run or _name_of_policy(config)
        log.info("evaluating %s on %s, split %s -> %s", who, config.benchmark.name, config.benchmark.split, run_dir)
        from empg_cli.evaluation.run_eval import run_eval  # brings torch: seconds

        with interruptible(_again(run_dir)):
            return run_eval(config, run_dir, show=show)


def _again(run_dir: Path) -> str:
    """The command that goes on behind the passes that are done."""
    is_said = any(word.startswith("run_dir=") for word in COMMAND_LINE)
    return command(*COMMAND_LINE[1:], *([] if is_said else [f"run_dir={as_value(from_here(run_dir))}"]))


def _name_of_policy(config: EvalConfig) -> str:
    if config.endpoint is not None:
        return f"{config.endpoint.model} at {config.endpoint.base_url}"
    return config.model.name if config.policy == "model" else config.policy


def run(overrides: Sequence[str], flags: HydraFlags, *, as_json: bool = False) -> None:
    given, config_name = run_given(overrides), flags.config_name or "eval"
    if given is not None and config_name == "eval":
        config_name = primary_config("eval", find_run_folder(given), overrides)
    task = eval_task_json if as_json else eval_task
    launch(task, EvalConfig, config_name, overrides, flags, doing="evaluating", admit=_no_run_there)


def _no_run_there(cfg: DictConfig, folder: Path) -> None:
    """An evaluation would write its data and weights over those of the run."""
    if is_run(folder):
        raise UserError(f"{from_here(folder)} is the folder of a run: give the evaluation a run_dir of its own")
