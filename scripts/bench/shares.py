"""Where the CPU time of whole updates goes: the real `train` loop with clocks around its parts."""

from __future__ import annotations

import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch.profiler import ProfilerActivity, profile

from empg_cli import loop
from empg_cli.benchmarks import make_benchmark
from empg_cli.experiment import Experiment
from empg_cli.learner.learner import Learner
from empg_cli.model import head, language_model
from empg_cli.observe.observer import Observer
from empg_cli.rollout import source
from empg_cli.rollout.torch_engine import engine as torch_engine
from empg_cli.runs.checkpoint import TrainState
from made import run_config, scratch_folder

MODEL = ("model forward", "backward", "log-prob and entropy head")
"""What counts as the model; the rest is everything around it."""


class Clocks:
    """CPU seconds by label. A call inside another is taken off the outer one, so that the labels add up."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner = [0.0]

    def around(self, function: Callable[..., Any], label: str) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            start = time.process_time()
            self._inner.append(0.0)
            try:
                return function(*arguments, **named)
            finally:
                taken = time.process_time() - start
                self.seconds[label] += taken - self._inner.pop()
                self._inner[-1] += taken

        return timed


@contextmanager
def clocked(clocks: Clocks, benchmark: Any) -> Iterator[None]:
    """Clocks around the parts of the training loop, of the rollout and of the update."""
    env = type(benchmark.make_env(benchmark.tasks("train")[0]))
    places: Sequence[tuple[Any, str, str]] = (
        (source.Source, "next", "agents, the rest of the rollout"),
        (torch_engine.TorchEngine, "_advance", "rollout engine around the model"),
        (torch_engine, "sample", "drawing tokens"),
        (env, "step", "environments"),
        (env, "reset", "environments"),
        (type(benchmark), "make_env", "environments"),
        (source, "describe_rollout", "metrics"),
        (loop, "make_batch", "trajectories to tensors"),
        (Learner, "score", "micro-batches, loss, bookkeeping"),
        (loop, "credit_parts", "credit"),
        (Learner, "step", "micro-batches, loss, bookkeeping"),
        (torch.nn.utils, "clip_grad_norm_", "optimiser"),
        (torch.optim.AdamW, "step", "optimiser"),
        (head, "logprob_and_entropy", "log-prob and entropy head"),
        (torch.Tensor, "backward", "backward"),
        (language_model, "hidden_states", "model forward"),
        (Observer, "log", "logging"),
    )
    with ExitStack() as stack:
        for owner, name, label in places:
            stack.enter_context(patch.object(owner, name, clocks.around(getattr(owner, name), label)))
        yield


def train_updates(updates: int, after_update: Callable[[int, dict[str, float]], None]) -> None:
    """Train `updates` of `experiment=demo` without evaluations; `after_update` is told its number and metrics."""
    folder = scratch_folder("shares")
    cfg = run_config(
        f"run_dir={folder}",
        f"trainer.updates={updates}",
        "trainer.eval_before=false",
        "trainer.eval_every=0",
        "trainer.checkpoint_every=0",
        "benchmark.eval_tasks=1",
    )
    plain = Observer.log

    def log(self: Observer, state: TrainState, metrics: dict[str, float], evaluation: None = None) -> None:
        plain(self, state, metrics, evaluation)
        after_update(state.update, metrics)

    with patch.object(Experiment, "evaluate", lambda _: None), patch.object(Observer, "log", log):
        loop.train(cfg, folder)
    shutil.rmtree(folder)


def update_shares(updates: int) -> tuple[dict[str, float], float]:
    """CPU seconds of each part per update of `experiment=demo`, largest first, and padding's share of the tokens.

    The first update is left out: it pays for what is made once.
    """
    clocks = Clocks()
    first: dict[str, float] = {}
    padding: list[float] = []

    def after_update(number: int, metrics: dict[str, float]) -> None:
        padding.append(metrics["perf/padding"])
        if number == 1:
            first.update(clocks.seconds)

    with clocked(clocks, make_benchmark(**run_config().benchmark.model_dump())):
        train_updates(updates + 1, after_update)
    parts = {name: (seconds - first.get(name, 0.0)) / updates for name, seconds in clocks.seconds.items()}
    return dict(sorted(parts.items(), key=lambda part: -part[1])), sum(padding[1:]) / updates


def kernel_shares(count: int) -> list[tuple[str, float, int]]:
    """The kernels with most CPU time in the second update, by torch's profiler: name, share of all kernels, calls."""
    profiler = profile(activities=[ProfilerActivity.CPU])

    def after_update(number: int, metrics: dict[str, float]) -> None:
        (profiler.start if number == 1 else profiler.stop)()

    train_updates(2, after_update)
    kernels = sorted(profiler.key_averages(), key=lambda kernel: -kernel.self_cpu_time_total)
    total = sum(kernel.self_cpu_time_total for kernel in kernels)
    return [(kernel.key, kernel.self_cpu_time_total / total, kernel.count) for kernel in kernels[:count]]
