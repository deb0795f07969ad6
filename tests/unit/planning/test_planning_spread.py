"""What one of several ranks takes: its parts, the whole weights to play with, and what its passes add up."""

from __future__ import annotations

import pytest

from empg_cli.config import load
from empg_cli.planning.fitting import settled
from empg_cli.planning.hardware import GB, Hardware
from empg_cli.planning.job import Job, job_of, spread_of
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
