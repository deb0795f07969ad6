"""How much memory does learning take? The output head, one update as the batch grows, and a run as it goes on.

    python scripts/bench/memory.py            # about 2 CPU minutes
    python scripts/bench/memory.py --part run

head     peak of log-prob + entropy, forward and backward, at a vocabulary of 151,936
update   peak of one update against the number of trajectories
run      resident memory after 5, 10, 20 and 40 updates of a tiny run

MB are 2**20 bytes. Each number comes from a process of its own, a fork of this one. A peak is what a call adds to the
resident memory at most: the gradients included, the weights not.
"""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from common import Report, argument_parser, peak_memory_mb
from empg_cli import loop
from empg_cli.experiment import Experiment
from empg_cli.learner.optim import make_optimizer
from empg_cli.learner.update import update_policy
from empg_cli.model.scoring import logprob_and_entropy
from empg_cli.observe.observer import Observer
from empg_cli.runs.checkpoint import TrainState
from made import made_batch, made_policy, run_config, scratch_folder

VOCABULARY, WIDTH = 151_936, 64
CHECKPOINTS = (5, 10, 20, 40)


def in_child(measure: Callable[..., Any], *arguments: Any) -> Any:
    """The result of the call in a fork of this process, whose memory no earlier measurement has touched."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(measure, arguments)


def head_peak(form: str, tokens: int) -> float:
    """MB at the peak of the head; `form` is ours or naive."""
    hidden_TD = torch.randn(tokens, WIDTH, requires_grad=True)
    weight_VD = (0.05 * torch.randn(VOCABULARY, WIDTH)).requires_grad_()
    target_T = torch.randint(VOCABULARY, (tokens,))

    def learn() -> None:
        if form == "ours":
            logprob_T, entropy_T = logprob_and_entropy(hidden_TD, weight_VD, target_T)
        else:
            logp_TV = torch.log_softmax(hidden_TD @ weight_VD.t(), -1)
            logprob_T, entropy_T = logp_TV.gather(1, target_T[:, None])[:, 0], -(logp_TV.exp() * logp_TV).sum(-1)
        (logprob_T.sum() + entropy_T.sum()).backward()

    return peak_memory_mb(learn)


def update_peak(trajectories: int) -> float:
    """MB at the peak of the second update, when the optimiser's state exists; the shape of the shipped agent."""
    cfg = run_config()
    policy = made_policy(hidden=96, layers=3, heads=4, kv_heads=2, mlp=192, vocabulary=912)
    batch, optimizer = made_batch(trajectories, 5), make_optimizer(policy, cfg.trainer)

    def learn() -> None:
        update_policy(policy, optimizer, batch, cfg, lr=0.0, update=0)

    learn()
    return peak_memory_mb(learn)


def resident_after_updates() -> list[float]:
    """MB resident after each of CHECKPOINTS updates of one run: rollout, update, logging and checkpoints."""
    folder = scratch_folder("memory")
    cfg = run_config(
        f"run_dir={folder}",
        "model=tiny-scratch",
        *(f"model.arch.{key}={size}" for key, size in (("hidden_size", 32), ("num_layers", 2), ("mlp_size", 48))),
        *("model.arch.num_heads=4", "model.arch.num_kv_heads=2"),
        *(
            f"trainer.{key}"
            for key in ("tasks_per_update=1", "eval_before=false", "eval_every=0", "checkpoint_every=5")
        ),
        f"trainer.updates={CHECKPOINTS[-1]}",
        "benchmark.max_steps=8",
    )
    resident: list[float] = []
    plain = Observer.log

    def log(self: Observer, state: TrainState, *arguments: Any) -> None:
        plain(self, state, *arguments)
        if state.update in CHECKPOINTS:
            resident.append(resident_mb())

    with patch.object(Observer, "log", log), patch.object(Experiment, "evaluate", lambda _: None):
        loop.train(cfg, folder)
    shutil.rmtree(folder)
    return resident


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def head(report: Report) -> None:
    cases = [("ours", 8192), ("ours", 2048), ("ours", 512), ("naive", 512)]
    report.table(
        f"Log-prob + entropy, forward and backward: width {WIDTH}, vocabulary {VOCABULARY:,}",
        ["", "tokens", "peak MB", "one [tokens, vocabulary] MB"],
        [[form, tokens, in_child(head_peak, form, tokens), 4 * tokens * VOCABULARY / 2**20] for form, tokens in cases],
        f"The gradient of the output weights, {4 * VOCABULARY * WIDTH / 2**20:.0f} MB, is part of every peak.",
    )


def update(report: Report) -> None:
    sizes = (8, 64, 512)
    report.table(
        "One update of 5 turns (shape of the shipped ALFWorld agent) against trajectories",
        ["", *(f"{size}" for size in sizes)],
        [["peak MB", *(in_child(update_peak, size) for size in sizes)]],
    )


def whole_run(report: Report) -> None:
    report.table(
        "Resident memory of a run (a model of hidden 32; checkpoints every 5 updates)",
        ["after update", *(f"{number}" for number in CHECKPOINTS)],
        [["MB", *in_child(resident_after_updates)]],
    )


PARTS = {"head": head, "update": update, "run": whole_run}


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--part", choices=PARTS, action="append", help="only this part; may be given again")
    options = parser.parse_args()
    report = Report("memory", options)
    for name, run_part in PARTS.items():
        if not options.part or name in options.part:
            run_part(report)
    report.finish()


if __name__ == "__main__":
    main()
