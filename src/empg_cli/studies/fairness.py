"""What a reader must know before comparing the numbers of a study: who has chosen its settings, and unequal budgets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from empg_cli.config.deepsearch import PARTS
from empg_cli.runs.study import Study

SAME = 0.01
"""Relative difference of budgets that is no difference."""


def tasks_of(study: Study) -> dict[str, Any]:
    """Which tasks its runs were evaluated on: the split, how many, and the data's fingerprint."""
    benchmark = dict(next(iter(study.settings.values()), {}).get("benchmark", {}))
    data: Mapping[str, Any] = next((found for cell in study.cells if (found := study.cell_facts(cell).get("data"))), {})
    fingerprint = {key: data.get(key) for key in ("name", "source", "digest", "tasks")}
    return {"split": benchmark.get("split"), "eval_tasks": benchmark.get("eval_tasks"), "data": fingerprint}


def unfair(study: Study, seeds: set[int], episodes: Mapping[str, float]) -> Iterator[str]:
    """
    Args:
        seeds: of the runs that are compared.
        episodes: variant -> training episodes that its runs have played, their mean; none where runs do not tell.
    """
    if study.arms:
        yield ("TUNING: these seeds choose settings, and the best of many draws looks better than it is; play the "
               "winners on fresh seeds with ablation.tuning=null ablation.confirms=FOLDER.")  # fmt: skip
    if study.confirms:
        if reused := sorted(seeds & set(study.confirms["seeds"])):
            yield f"TUNED ON THESE SEEDS: {', '.join(map(str, reused))} have chosen the settings compared here."
        if share_tasks(study.confirms["tasks"], tasks_of(study)):
            yield ("TUNED ON THESE TASKS: the evaluation plays some or all of what has chosen the settings; give "
                   "another benchmark.split, or other data.")  # fmt: skip
    if episodes and max(episodes.values()) > min(episodes.values()) * (1 + SAME):
        each = ", ".join(f"{name} {count:,.0f}" for name, count in episodes.items())
        yield f"UNEQUAL BUDGETS: training episodes that a run has played, on average: {each}."


def share_tasks(tuned: Mapping[str, Any], played: Mapping[str, Any]) -> bool:
    """`benchmark.eval_tasks=N` are the first N tasks of a split, so of two evaluations of it one holds the other. Of a
    split and another one that holds it, too, some tasks are taken to be the same."""
    one, other = tuned["split"], played["split"]
    return tuned["data"] == played["data"] and (one == other or _hold_each_other(one, other, tuned["data"]))


def _hold_each_other(one: str, other: str, data: Mapping[str, Any]) -> bool:
    if data.get("name") != "deepsearch":
        return False
    is_without_test = "test" not in (data.get("tasks") or ("test",))  # parts of official data are then those of `dev`
    one, other = ("test" if name == "dev" and is_without_test else name for name in (one, other))
    return other in PARTS.get(one, ()) or one in PARTS.get(other, ())
