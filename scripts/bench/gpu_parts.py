"""The measurements of gpu.py, each a generator of JSON lines: what is measured is out before the next thing begins."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from chat_models import random_network, save_random
from chat_work import ChatWork, played, work_file
from empg_cli.learner.optim import make_optimizer
from empg_cli.model.attention import use_policy_attention
from empg_cli.model.policy import Policy
from empg_cli.model.precision import MasterWeights
from made import scratch_folder
from rollout import Turn
from rollout_sides import EngineSide, generated
from sides import learn, plain_grpo
from turn_server import Play
from update import model_flops
from vllm_side import SETTINGS, open_vllm

Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Size:
    """How much the parts do."""

    rollouts: ChatWork
    updates: ChatWork
    splits: Sequence[tuple[int, bool]]
    """Tokens of a micro-batch, and whether layers are computed twice (gradient checkpointing)."""
    alfworld: Sequence[str]
    gemm: int


SMALL_TEXTS = {"opening": (20, 30), "observed": (5, 10), "sampled": (3, 6)}
FULL = Size(
    rollouts=ChatWork(128, 4),
    updates=ChatWork(64, 8),
    splits=((8192, False), (16384, True)),
    alfworld=(
        "trainer.tasks_per_update=8",
        "algo.group_size=8",
        "benchmark.max_steps=8",
        "rollout.max_new_tokens=64",
    ),
    gemm=8192,
)
SMALL = Size(
    rollouts=ChatWork(4, 2, group_size=2, **SMALL_TEXTS),
    updates=ChatWork(4, 2, group_size=2, **SMALL_TEXTS),
    splits=((128, False), (128, True)),
    alfworld=(
        "trainer.tasks_per_update=1",
        "trainer.minibatches=1",
        "algo.group_size=2",
        "benchmark.max_steps=2",
        "rollout.max_new_tokens=4",
    ),
    gemm=256,
)


class Clock:
    """Seconds on the clock on the wall, with the device's queue empty at both ends; peak memory meanwhile."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __call__(self, run: Callable[[], Any]) -> tuple[float, float | None]:
        """Seconds, and GB (1e9 bytes) at the peak of what torch holds on a GPU, weights included."""
        self._wait()
        if self._is_gpu:
            torch.cuda.reset_peak_memory_stats(self._device)
        start = time.perf_counter()
        run()
        self._wait()
        seconds = time.perf_counter() - start
        return seconds, torch.cuda.max_memory_allocated(self._device) / 1e9 if self._is_gpu else None

    @property
    def _is_gpu(self) -> bool:
        return self._device.type == "cuda"

    def _wait(self) -> None:
        if self._is_gpu:
            torch.cuda.synchronize(self._device)


def gemm_tflops(device: torch.device, size: int) -> float:
    """Of bf16 matrix products; what the update's rate is measured against."""
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    clock, products = Clock(device), 10

    def run() -> None:
        for _ in range(products):
            left @ right

    run()
    return products * 2 * size**3 / clock(run)[0] / 1e12


# --- rollouts ------------------------------------------------------------------------------------


def rollout(shape: str, size: Size, device: torch.device) -> Iterator[Line]:
    """Sampled tokens per second: a warm-up of all turns, then the same again with the engine's memory emptied."""
    network = random_network(shape, device, torch.bfloat16)
    turns = size.rollouts.play(network.config.vocab_size)

    use_policy_attention(network)
    engine = EngineSide(Policy(network, None, device))
    yield _rollout_line("ours", engine.play, turns, device, begin_anew=partial(engine.end, size.rollouts.episodes))
    del engine  # its cache
    network.set_attn_implementation("sdpa")
    yield _rollout_line("generate", partial(generated, network), turns, device)


def vllm(shape: str, size: Size, device: torch.device) -> Iterator[Line]:
    """The same work by vLLM, in this environment and, for its memory to be seen, in this process."""
    os.environ.update(SETTINGS)
    os.environ["VLLM_LOGGING_STREAM"] = "ext://sys.stderr"  # lines of standard output are measurements
    folder = save_random(shape, scratch_folder("gpu"), device=device, dtype=torch.bfloat16)
    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    turns = size.rollouts.play(vocabulary)
    work = work_file(folder, turns, dtype="bfloat16", eager=device.type == "cpu")
    # Its prefix cache would hold the warm-up's prompts: it is warm after open_vllm's own.
    yield _rollout_line("vllm", open_vllm(work), turns, device, warm_up=False)
    shutil.rmtree(folder)


def _rollout_line(
    side: str,
    play: Play,
    turns: Sequence[Turn],
    device: torch.device,
    *,
    warm_up: bool = True,
    begin_anew: Callable[[], None] = lambda: None,
) -> Line:
    if warm_up:
        _play_all(play, turns)
        begin_anew()
    seconds, peak_gb = Clock(device)(lambda: _play_all(play, turns))
    sampled = len(turns[0].prompts) * sum(turn.new_tokens for turn in turns)
    episodes = f"{len(turns[0].prompts)} x {len(turns)} turns"
    return {
        "side": side,
        "episodes": episodes,
        "sampled": sampled,
        "seconds": seconds,
        "tokens_per_s": sampled / seconds,
        "peak_gb": peak_gb,
    }


def _play_all(play: Play, turns: Sequence[Turn]) -> None:
    histories: list[list[int]] = [[] for _ in turns[0].prompts]
    for turn in turns:
        prompts = [past + new for past, new in zip(histories, turn.prompts, strict=True)]
        answers = play(prompts, turn.new_tokens)
        assert all(len(answer) == turn.new_tokens for answer in answers), "all sides sample as many tokens"
        histories = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]


# --- updates -------------------------------------------------------------------------------------


def update(shape: str, size: Size, device: torch.device) -> Iterator[Line]:
    """Passes in bfloat16, parameters and AdamW in float32; a warm-up, then two updates for each way to split them.

    FLOPs are those of `update.py`: what the mathematics asks for, nothing twice.
    """
    limit = gemm_tflops(device, size.gemm)
    masters = MasterWeights(random_network(shape, device, torch.float32), torch.bfloat16)
    use_policy_attention(masters.computing)
    policy = Policy(masters.computing, None, device, masters)
    vocabulary = policy.model.config.vocab_size
    turns = size.updates.play(vocabulary)
    trajectories = played(turns, group_size=size.updates.group_size, vocabulary=vocabulary)
    cfg = plain_grpo(group_size=size.updates.group_size, tokens=size.splits[0][0])
    optimizer = make_optimizer(policy, cfg.trainer)
    for tokens, checkpointing in size.splits:
        if checkpointing:
            policy.model.gradient_checkpointing_enable()
        cfg = plain_grpo(group_size=size.updates.group_size, tokens=tokens)
        batch = learn(policy, optimizer, trajectories, cfg, 0)
        runs = [Clock(device)(partial(learn, policy, optimizer, trajectories, cfg, number)) for number in (1, 2)]
        seconds, peak_gb = min(runs, key=lambda run: run[0])
        rate = model_flops(policy, batch) / seconds / 1e12
        read = sum(map(len, batch.row_ids))
        yield {
            "rows": len(batch.row_ids),
            "tokens": read,
            "microbatch": tokens,
            "checkpointing": checkpointing,
            "seconds": seconds,
            "tokens_per_s": read / seconds,
            "model_tflops": rate,
            "gemm_tflops": limit,
            "of_gemm": rate / limit,
            "peak_gb": peak_gb,
        }


# --- a whole update ------------------------------------------------------------------------------


def alfworld(shape: str, size: Size, device: torch.device) -> Iterator[Line]:
    """Two updates of `empg train` on generated games: seconds of their parts; the first pays for what is made once."""
    with ExitStack() as stack:
        scratch = scratch_folder("gpu")
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        folder = save_random(shape, scratch / "model", device=device, dtype=torch.bfloat16)
        run = scratch / "run"
        fixed = ("trainer.updates=2", "trainer.eval_before=false", "trainer.eval_every=0", "trainer.checkpoint_every=0")
        command = [sys.executable, "-m", "empg_cli", "train", "model=local", f"model.path={folder}", f"run_dir={run}"]
        command += ["benchmark.data_dir=null", "benchmark.eval_tasks=1", "logger.console=quiet", *fixed]
        # Random weights solve nothing; EMPG's bonus gives them a gradient all the same.
        command += ["logger.wandb.mode=disabled", "algo=empg", "trainer.health.preflight=warn"]
        log = stack.enter_context((scratch / "log").open("w"))
        process = subprocess.Popen(
            [*command, f"trainer.device={device}", *size.alfworld], stdout=log, stderr=subprocess.STDOUT
        )
        yield from _rows(process, run / "metrics.jsonl")
        if process.returncode:
            raise SystemExit("empg train failed:\n" + "\n".join((scratch / "log").read_text().splitlines()[-15:]))


def _rows(process: subprocess.Popen[bytes], metrics: Path) -> Iterator[Line]:
    """What each update took, as soon as it is logged."""
    told = 0
    while True:
        has_ended = process.poll() is not None
        written = metrics.read_text().splitlines(keepends=True) if metrics.exists() else []
        for text in written[told:]:
            if not text.endswith("\n"):
                break
            row, told = json.loads(text), told + 1
            parts = {key: row[f"timing_s/{key}"] for key in ("rollout", "logprob", "update")}
            yield {
                "update": row["update"],
                "episodes": int(row["batch/episodes"]),
                "sampled": int(row["num_turns/mean"] * row["batch/episodes"] * row["response_length/mean"]),
                **{f"{name}_s": seconds for name, seconds in parts.items()},
                "seconds": sum(parts.values()),
                "peak_gb": row["perf/mem_gb"],
            }
        if has_ended:
            return
        time.sleep(0.5)
