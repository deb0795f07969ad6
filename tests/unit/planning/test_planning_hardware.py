"""What a machine is taken for, and how long an update is said to take on it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from empg_cli.config import load
from empg_cli.planning.duration import duration, work_of
from empg_cli.planning.hardware import Hardware, available_memory, named, resident_memory
from empg_cli.planning.plan import plan_of

MIB = 2**20


@pytest.mark.parametrize(
    ("name", "mebibytes", "card"),
    [
        ("NVIDIA H100 80GB HBM3", 81_559, "H100 SXM"),
        ("NVIDIA H200", 143_771, "H200"),
        ("NVIDIA A100-SXM4-80GB", 81_920, "A100"),
        ("NVIDIA GeForce RTX 4090", 24_564, "RTX 4090"),
        ("NVIDIA GeForce RTX 3090", 24_576, "RTX 3090"),
        ("NVIDIA L40S", 46_068, "L40S"),
        ("NVIDIA RTX A1000", 8_192, "RTX 4090"),
        ("a card of the future", 81_559, "H100 SXM"),
        ("a larger one", 400_000, "B200"),
    ],
)
def test_a_card_is_known_by_its_name_and_else_by_its_memory(name: str, mebibytes: int, card: str) -> None:
    busy = Hardware(name, "cuda", mebibytes * MIB // 2)
    free = Hardware(name, "cuda", mebibytes * MIB)
    assert free.card.name.startswith(card.split()[0]) and free.card.flops == {
        "H100 SXM": 989e12, "H200": 989e12, "A100": 312e12, "RTX 4090": 165e12, "RTX 3090": 71e12, "L40S": 362e12,
        "B200": 2250e12,
    }[card]  # fmt: skip
    assert name.startswith("a ") or busy.card == free.card


@pytest.mark.parametrize(("text", "card"), [("1x24GB", "RTX 4090"), ("1x80GB", "H100 SXM"), ("8x141GB", "H200")])
def test_named_hardware_has_the_card_of_its_size(text: str, card: str) -> None:
    hardware = named(text)
    assert hardware is not None and hardware.card.name == card


def test_what_is_free_is_the_least_of_system_and_container(tmp_path: Path) -> None:
    meminfo, cgroup = tmp_path / "meminfo", tmp_path / "cgroup"
    meminfo.write_text("MemTotal:       8000 kB\nMemAvailable:   4000 kB\n")
    own = tmp_path / "own"
    assert available_memory(meminfo, cgroup, own) == 4000 * 1024
    cgroup.mkdir()
    (cgroup / "memory.max").write_text("3000000\n")
    (cgroup / "memory.current").write_text("2500000\n")
    (cgroup / "memory.stat").write_text("anon 1\ninactive_file 500000\n")
    assert available_memory(meminfo, cgroup, own) == 3_000_000 - (2_500_000 - 500_000)
    (cgroup / "memory.max").write_text("max\n")
    assert available_memory(meminfo, cgroup, own) == 4000 * 1024
    assert available_memory(tmp_path / "none", tmp_path / "none", tmp_path / "none") is None
    for version, most, used in (
        (2, "memory.max", "memory.current"),
        (1, "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        own.write_text(
            "0::/slurm/job_7/step_0\n" if version == 2 else "5:cpu:/slurm\n4:hugetlb,memory:/slurm/job_7/step_0\n"
        )
        job = (cgroup if version == 2 else cgroup / "memory") / "slurm" / "job_7"
        (job / "step_0").mkdir(parents=True)
        (job / most).write_text("1000000\n")  # around the group of this process, which has no limit of its own
        (job / used).write_text("400000\n")
        (job / "memory.stat").write_text("")
        assert available_memory(meminfo, cgroup, own) == 600_000
        (job / most).unlink()
    (tmp_path / "status").write_text("VmRSS:\t   12 kB\n")
    assert resident_memory(tmp_path / "status") == 12 * 1024


def test_time_is_products_over_their_speed() -> None:
    """One row of 60 + 5 x 3 + 4 x 11 tokens an episode; forward and backward are three passes, the reference is one."""
    cfg = load(["model=tiny", "benchmark.max_steps=5", "rollout=transcript", "algo.loss.kl_coef=0.01"])
    plan = plan_of(cfg, Hardware("here", "cpu", None))
    assert plan is not None
    job = plan.job
    one = duration(job, plan.hardware, 1e11)
    assert one is not None and duration(job, plan.hardware, None) is None
    shape, tokens = job.shape, job.train_episodes * (60 + 5 * 3 + 4 * 11)
    sampled = job.train_episodes * 5 * 3
    token = 2 * shape.layers * shape.layer_parameters + 4 * shape.layers * shape.query_width * (119 // 2)
    products = 4 * token * tokens + 5 * 2 * shape.embedding * sampled
    assert one.learning_s == pytest.approx(products / (0.5 * 1e11))
    twice = duration(replace(job, epochs=2), plan.hardware, 1e11)
    assert twice is not None
    more = 3 * token * tokens + 4 * 2 * shape.embedding * sampled
    assert twice.learning_s - one.learning_s == pytest.approx(more / (0.5 * 1e11))
    assert twice.rollout_s == one.rollout_s
    faster = duration(job, plan.hardware, 2e11)
    assert faster is not None and faster.learning_s == pytest.approx(one.learning_s / 2)


def test_half_as_many_at_once_take_twice_the_steps_on_a_gpu() -> None:
    """Each step reads all weights anew; keys and values are read once either way. The longest episode counts."""
    plan = plan_of(load(["model=qwen2.5-7b"]), Hardware("1 x 80 GB", "cuda", 80 * 10**9))
    assert plan is not None and plan.job.concurrent is not None
    job = replace(plan.job, concurrent=plan.job.train_episodes)
    one, two = (duration(replace(job, concurrent=many), plan.hardware, None)
                for many in (job.train_episodes, job.train_episodes // 2))  # fmt: skip
    assert one is not None and two is not None
    work = work_of(job)
    weights_s = 0.004 + job.shape.parameters * 2 / (0.65 * 3.35e12)
    assert two.rollout_s - one.rollout_s == pytest.approx(1.35 * work.turns * work.answer * weights_s)
    assert two.learning_s == one.learning_s
    assert "data sheet of the H100 SXM" in one.basis
