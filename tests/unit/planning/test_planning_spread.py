"""What one of several ranks takes: its parts, the whole weights to play with, and what its passes add up."""

from __future__ import annotations

import pytest

from empg_cli.config import load
from empg_cli.config.job import load_job
from empg_cli.config.schema import EvalConfig
from empg_cli.planning.fitting import settled
from empg_cli.planning.hardware import GB, Hardware
from empg_cli.planning.job import Job, beside_servers, eval_job_of, job_of, spread_of
from empg_cli.planning.memory import phases
from empg_cli.planning.plan import plan_of

WORDS = (
    "model=qwen2.5-7b",
    "model.lora.rank=0",
    "trainer.optimizer=adamw",
    "algo=empg",
    "rollout.max_concurrent=8",
    "trainer.tokens_per_microbatch=4096",
    "trainer.tasks_per_update=16",
    "algo.group_size=8",
)


def job(*words: str) -> Job:
    cfg = load([*WORDS, *words])
    found = job_of(cfg, "cuda", spread_of(cfg.dist, 0))
    assert found is not None
    return found


def items(of: Job, phase: str) -> dict[str, int]:
    (found,) = (one for one in phases(of) if one.name == phase)
    return dict(found.items)


def test_eight_ranks_hold_an_eighth_and_the_weights_to_play_with() -> None:
    """N parameters, float32 with bfloat16 passes: 4 N / 8 weights, 8 N / 8 moments, 2 N whole; of the reference 2 N / 8
    and, once gathered, 2 N; gradients of 4 N / 8 and 4 N of a rank's own sums."""
    of = job("dist=node", "dist.processes=8", "dist.reshard=false")
    n = of.shape.parameters
    rollout, update = items(of, "rollout"), items(of, "update")
    assert rollout["weights"] == 4 * n // 8
    assert rollout["optimiser state"] == n
    assert rollout["whole weights"] == 2 * n
    assert rollout["reference model"] == 2 * n // 8 + 2 * n
    assert update["gradients"] == 4 * n // 8 + 4 * n
    assert "copies to compute with" not in rollout


def test_layers_that_are_freed_leave_two_of_them() -> None:
    of = job("dist=node", "dist.processes=8", "dist.reshard=true")
    shape = of.shape
    two = shape.parameters - (shape.layers - 2) * shape.layer_parameters
    update = items(of, "update")
    assert update["whole weights"] == 2 * two
    assert update["gradients"] == 4 * shape.parameters // 8 + 4 * two
    assert update["reference model"] == 2 * shape.parameters // 8
    assert items(of, "rollout")["whole weights"] == 2 * shape.parameters


def test_two_copies_of_four_ranks_hold_a_quarter_each() -> None:
    of = job("dist=node", "dist.processes=8", "dist.shard=4")
    assert items(of, "rollout")["weights"] == of.shape.parameters


def test_every_rank_reads_the_whole_weights_first() -> None:
    assert items(job("dist=node", "dist.processes=8"), "load") == items(job(), "load")


def test_a_rank_plays_its_groups() -> None:
    """16 tasks on 5 ranks: 4 groups of 8 at the most; an evaluation of 160 tasks: 32 each."""
    words = ("rollout.max_concurrent=0", "dist=node", "dist.processes=5", "benchmark.eval_tasks=null")
    assert job(*words).concurrent == 32
    assert job("rollout.max_concurrent=3", "dist=node", "dist.processes=5").concurrent == 3


@pytest.mark.parametrize(("words", "fits"), [((), False), (("dist=node", "dist.reshard=true"), True)])
def test_a_model_that_no_single_gpu_trains_is_spread_over_those_there_are(words: tuple[str, ...], fits: bool) -> None:
    cfg = load([*WORDS, *words, "model.gradient_checkpointing=true"])
    plan = plan_of(cfg, Hardware("8 x 80 GB", "cuda", 80 * GB, devices=8))
    assert plan is not None
    assert plan.fits is fits
    if not fits:
        assert "dist=node" in plan.reason


def test_processes_on_one_cpu_share_its_memory() -> None:
    cfg = load([*WORDS, "dist=node", "dist.processes=4"])
    plan = plan_of(cfg, Hardware("a machine", "cpu", 64 * GB))
    assert plan is not None and plan.hardware.memory == 16 * GB


SERVED = ("rollout.engine=vllm", "trainer.old_logprobs=recompute")


def test_what_servers_play_takes_no_memory_of_the_learner() -> None:
    """Neither keys and values, nor whole weights where layers are freed; auto plays all at once."""
    words = ("dist=node", "dist.processes=8", "trainer.old_logprobs=recompute", "dist.reshard=true")
    of = settled(job(*SERVED, *words, "rollout.max_concurrent=auto"), 80 * GB)
    assert of.concurrent == of.episodes
    assert {"keys and values", "activations", "whole weights"}.isdisjoint(items(of, "rollout"))
    assert items(of, "update") == items(job(*words), "update")
    assert items(job(*SERVED, *words, "dist.reshard=false"), "rollout")["whole weights"] == 2 * of.shape.parameters


@pytest.mark.parametrize(
    ("words", "taken"),
    [
        ((), {"rollout"}),
        (("rollout.max_staleness=1",), {"rollout", "score", "update", "save"}),
        (("rollout.vllm.colocate=false",), set()),
        (("rollout.vllm.urls=[http://127.0.0.1:8000]",), set()),
    ],
)
def test_servers_on_the_same_gpu_take_their_share_of_it(words: tuple[str, ...], taken: set[str]) -> None:
    """0.5 of 80 GB while they play, and while the run learns where they play on meanwhile."""
    plan = plan_of(load([*WORDS, *SERVED, *words]), Hardware("80 GB", "cuda", 80 * GB))
    assert plan is not None
    assert {
        phase.name: phase.items["servers of vLLM"] for phase in plan.phases if "servers of vLLM" in phase.items
    } == (dict.fromkeys(taken, 40 * GB))


def test_a_model_that_fits_alone_may_not_fit_beside_its_servers() -> None:
    words = ["benchmark=webshop", "model=qwen2.5-1.5b", "rollout=transcript", "rollout.engine=vllm"]
    plans = [
        plan_of(load([*words, *more, "model.gradient_checkpointing=true"]), Hardware("48 GB", "cuda", 48 * GB))
        for more in ([], ["rollout.vllm.colocate=false"])
    ]
    assert [plan.fits for plan in plans if plan] == [False, True]


def test_an_evaluation_by_servers_plays_all_at_once() -> None:
    cfg = load_job("eval", ["benchmark=webshop", "model=qwen2.5-1.5b", "rollout.engine=vllm"], EvalConfig)
    job = eval_job_of(cfg, "cuda")
    assert job is not None
    beside = beside_servers(job, cfg.rollout, 48 * GB)
    assert beside.served_bytes == 24 * GB and settled(beside, 48 * GB).concurrent == job.episodes
