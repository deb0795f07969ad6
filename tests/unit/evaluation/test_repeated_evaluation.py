"""What several passes over the same tasks say: means over seeds, intervals, pass@k, and what is left out."""

from __future__ import annotations

from typing import Any

import pytest

from empg_cli.config import load
from empg_cli.config.problems import ConfigError
from empg_cli.evaluation.repeats import Pass, PlayedPass, passes, summarise_passes
from empg_cli.reports.evaluation_tables import evaluation_tables
from empg_cli.reports.tables import markdown

SERVER = ("endpoint=openai", "endpoint.model=m")


def played(which: Pass, outcomes: str, kinds: str) -> PlayedPass:
    """One letter per task: + solved, - not, ! lost through no fault of the agent."""
    status = {"+": "success", "-": "step_limit", "!": "env_error"}
    solved = {"+": True, "-": False, "!": None}
    tasks: list[dict[str, Any]] = [
        {"task_id": f"t{i}", "kind": kind, "success": solved[letter], "score": solved[letter], "steps": 4,
         "status": status[letter]}
        for i, (letter, kind) in enumerate(zip(outcomes, kinds, strict=True))
    ]  # fmt: skip
    return PlayedPass(which, tasks)


def rows(entry: dict[str, Any], part: str = "rows") -> dict[str, dict[str, Any]]:
    return {row["kind"]: row for row in entry[part]}


def test_passes_go_by_temperature_then_seed_then_sample() -> None:
    cfg = load(["seeds=2", "seed=5", "temperatures=[0.4,1.0]", "samples=2"], "eval")
    assert [one.name for one in passes(cfg)] == [
        f"temperature-{temperature}-seed-{seed}{sample}"
        for temperature in ("0.4", "1")
        for seed in (5, 6)
        for sample in ("", "-sample-1")
    ]
    assert passes(load([], "eval")) == [Pass(0.4, 0, 0)]


def test_greedy_is_played_once() -> None:
    cfg = load(["seeds=[4,9]", "temperatures=[0,1]", "samples=2"], "eval")
    assert passes(cfg) == [Pass(0.0, 4, 0), *(Pass(1.0, seed, sample) for seed in (4, 9) for sample in (0, 1))]


def test_means_and_t_intervals_are_over_seeds() -> None:
    seeds = ["++--", "+---", "+++-"]
    (entry,) = summarise_passes([played(Pass(1.0, s, 0), text, "aabb") for s, text in enumerate(seeds)])
    # rates 1/2, 1/4, 3/4: mean 1/2, sd 1/4, t(.975, 2) = 4.302653: half = 4.302653 / 4 / sqrt(3) = 0.621034
    assert rows(entry)["all"] | {"score": 0, "steps": 0} == {
        "kind": "all", "n": 4, "seeds": 3, "score": 0, "steps": 0,
        "success_rate": pytest.approx(0.5),
        "lo": pytest.approx(-0.121034, abs=1e-6), "hi": pytest.approx(1.121034, abs=1e-6),
    }  # fmt: skip
    assert rows(entry)["b"]["success_rate"] == pytest.approx((0 + 0 + 0.5) / 3)
    # Wilson of 2 of 4: centre .5, half = 1.959964 sqrt(.0625 + .060023) / 1.960365 = 0.349960
    first = entry["runs"][0]
    assert (first["lo"], first["hi"]) == pytest.approx((0.150040, 0.849960), abs=1e-5)
    assert first["interval"] == "wilson" and entry["not_judged"] == 0 and "pass_at_k" not in entry


def test_equal_seeds_have_no_interval_and_say_why() -> None:
    (entry,) = summarise_passes(
        [played(Pass(1.0, seed, 0), text, "aabb") for seed, text in enumerate(("+--+", "-+-+"))]
    )
    found = rows(entry)["all"]  # 1/2 and 1/2
    assert (found["success_rate"], found["lo"], found["hi"], found["seeds"]) == (0.5, None, None, 2)
    shown = "".join(markdown(table) for table in evaluation_tables(result([entry])))
    assert "| all | 4 | 50.0% | equal |" in shown
    assert "equal: 2 equal seeds carry no spread, so no interval, and are not certain for it." in shown


def test_pass_at_k_takes_the_attempts_of_all_seeds() -> None:
    passes_ = [Pass(1.0, seed, sample) for seed in (0, 1) for sample in (0, 1)]
    texts = ["+--", "+--", "-+-", "---"]
    (entry,) = summarise_passes([played(one, text, "aab") for one, text in zip(passes_, texts, strict=True)])
    # successes of 4: t0 2, t1 1, t2 0. pass@2: 5/6, 1/2, 0; pass@4: 1, 1, 0; each over tasks
    found = {k: value["value"] for k, value in rows(entry, "pass_at_k")["all"]["k"].items()}
    assert found == {"1": pytest.approx(3 / 12), "2": pytest.approx((5 / 6 + 1 / 2) / 3), "4": pytest.approx(2 / 3)}
    assert found["1"] == pytest.approx(rows(entry)["all"]["success_rate"])
    assert rows(entry, "pass_at_k")["b"]["k"]["4"]["value"] == 0
    # three tasks are too few for an interval over tasks
    assert rows(entry, "pass_at_k")["all"]["k"]["1"]["lo"] is None
    assert entry["runs"][0] == {"seed": 0, "n": 3, "success_rate": pytest.approx(1 / 3), "lo": None, "hi": None}


def test_intervals_over_tasks_come_with_enough_of_them() -> None:
    attempts = [played(Pass(1.0, 0, sample), "+-" * 15, "a" * 30) for sample in (0, 1)]
    (entry,) = summarise_passes(attempts)
    at_2 = rows(entry, "pass_at_k")["all"]["k"]["2"]
    assert at_2["lo"] < at_2["value"] == 0.5 < at_2["hi"]
    assert entry["runs"][0]["interval"] == "bootstrap"


def test_lost_episodes_count_nowhere_and_are_told() -> None:
    texts = {(0, 0): "+!", (0, 1): "-!", (1, 0): "++", (1, 1): "!-"}
    (entry,) = summarise_passes([played(Pass(0.7, *which), text, "ab") for which, text in texts.items()])
    assert entry["not_judged"] == 3
    # t0: + -, then + lost; t1: lost lost, then + -. Seed 0: mean over its one task 1/2; seed 1: (1 + 1/2) / 2
    assert [run["success_rate"] for run in entry["runs"]] == pytest.approx([0.5, 0.75])
    assert entry["runs"][0]["n"] == 1
    # pass@2 of t0 from 3 attempts with 2 right: 1; of t1 from 2 with 1 right: 1. pass@4: nobody has 4 attempts
    assert {k: value["value"] for k, value in rows(entry, "pass_at_k")["all"]["k"].items()} == {
        "1": pytest.approx((2 / 3 + 1 / 2) / 2), "2": 1.0,
    }  # fmt: skip
    shown = "".join(markdown(table) for table in evaluation_tables(result([entry])))
    assert "not judged: 3 episodes" in shown


def test_a_task_type_that_was_always_lost_has_no_rate() -> None:
    (entry,) = summarise_passes([played(Pass(0.7, seed, 0), "+!", "ab") for seed in (0, 1)])
    assert rows(entry)["b"]["success_rate"] is None and rows(entry)["b"]["n"] == 0
    assert "| b | 0 | – |" in "".join(markdown(table) for table in evaluation_tables(result([entry])))


def test_id_and_ood_count_each_source_once() -> None:
    averages = {"ID": ["1hop", "2hop"], "OOD": ["depth3"], "overall": ["1hop", "2hop", "depth3"]}
    kinds = ["1hop", "1hop", "1hop", "2hop", "depth3"]
    one = played(Pass(1.0, 0, 0), "++++-", "aaabc")
    tasks = [{**task, "kind": kind} for task, kind in zip(one.tasks, kinds, strict=True)]
    two = [{**task, "success": task["task_id"] == "t3"} for task in tasks]
    (entry,) = summarise_passes([PlayedPass(one.which, tasks), PlayedPass(Pass(1.0, 1, 0), two)], averages)
    found = rows(entry)
    # seed 0: 1hop 1, 2hop 1, depth3 0; seed 1: 0, 1, 0
    assert found["ID"]["success_rate"] == pytest.approx((1 + 1 / 2) / 2)
    assert found["overall"]["success_rate"] == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert found["all"]["success_rate"] == pytest.approx((4 / 5 + 1 / 5) / 2)
    # t interval over the two overall values, 2/3 and 1/3: t(.975, 1) = 12.7062, half = 12.7062 * (1/6)
    assert found["overall"]["hi"] == pytest.approx(0.5 + 12.706205 / 6, abs=1e-5)


def result(entries: list[dict[str, Any]]) -> dict[str, Any]:
    return {"data": {"name": "alfworld", "source": "generated"}, "split": "valid_seen", "temperatures": entries}


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["seeds=[1,1]"], "seeds: must be distinct"),
        (["temperatures=[0.4,0.4]"], "temperatures: must be distinct"),
        (["temperatures=[-1]"], "temperatures[0]"),
        (["temperatures=[1,1e-6]"], "temperatures[1]: must not be between 0 and 1e-05: logits that are divided by"),
        (["rollout.eval_temperature=1e-39"], "rollout.eval_temperature: must not be between 0 and 1e-05"),
        (["rollout.temperature=9e-6"], "rollout.temperature: must not be between 0 and 1e-05"),
        (["samples=0"], "samples"),
        (["policy=expert", "samples=2"], "samples: must be 1 when policy=expert"),
        (["policy=expert", "temperatures=[0]"], "temperatures: is not read when policy=expert"),
        (["policy=endpoint"], "endpoint=openai endpoint.model=NAME"),
        ([*SERVER, "policy=model"], "endpoint: is not read when policy=model"),
        (["endpoint=openai"], "endpoint.model: Missing mandatory value"),
        ([*SERVER, "endpoint.base_url=localhost:8000"], "endpoint.base_url: must begin with http"),
        ([*SERVER, "endpoint.base_url=http://me:secret@host/v1"], "endpoint.base_url: holds the user or password"),
        ([*SERVER, "+endpoint.extra_body.seed=1"], "endpoint.extra_body: must not hold seed"),
        ([*SERVER, "endpoint.api_key=abc"], "endpoint.api_key: holds what looks like a key"),
    ],
)
def test_mistakes_are_found_before_anything_is_played(words: list[str], answer: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(words, "eval")
    assert answer in str(raised.value)


def test_a_server_brings_budgets_for_a_chat_model_and_the_command_line_wins() -> None:
    cfg = load([*SERVER, "benchmark=webshop", "rollout=window"], "eval")
    assert (cfg.policy, cfg.rollout.max_new_tokens, cfg.rollout.context) == ("endpoint", 512, "window")
    assert load([*SERVER, "rollout.max_new_tokens=64"], "eval").rollout.max_new_tokens == 64


def test_passes_of_other_temperatures_have_other_names() -> None:
    names = [Pass(temperature, 0, 0).name for temperature in (0.12345678, 0.12345679, 1.0, 0.4, 0.0)]
    assert names == [
        "temperature-0.12345678-seed-0", "temperature-0.12345679-seed-0", "temperature-1-seed-0",
        "temperature-0.4-seed-0", "temperature-0-seed-0",
    ]  # fmt: skip
