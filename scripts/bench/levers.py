"""What do the levers on memory save? Updates of one pretrained model with each of them, and a run that goes on.

    python scripts/bench/levers.py --model FOLDER                 # a Hugging Face folder; about 4 CPU minutes for 135M
    python scripts/bench/levers.py --model FOLDER --part resume

update   peak of loading, and of two updates of the same micro-batch with their optimiser's state
resume   peak of what `train --resume` loads, without a KL term

MB are 2**20 bytes. Each number comes from a process of its own. A peak is what it adds to the resident memory at most,
above what the imports take: weights, gradients, optimiser and activations.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from common import Report, argument_parser, fresh_process, peak_memory_mb
from empg_cli.config.schema import TrainConfig
from empg_cli.experiment import fresh_or_resumed
from empg_cli.learner.checkpoint import save_checkpoint
from empg_cli.learner.optim import make_optimizer
from empg_cli.learner.update import update_policy
from empg_cli.model.loading import load_policy, model_fingerprint
from empg_cli.model.policy import Policy
from empg_cli.ranks import ALONE
from empg_cli.runs.checkpoint import TrainState
from made import made_batch, run_config, scratch_folder

CPU = torch.device("cpu")
LORA = "model.lora.rank=16"
CHECKPOINTING = "model.gradient_checkpointing=true"
VARIANTS: dict[str, tuple[str, ...]] = {
    "all weights, AdamW": (),
    "all weights, AdamW with 8-bit state": ("trainer.optimizer=adamw8bit",),
    "all weights, layers computed twice": (CHECKPOINTING,),
    "all weights, bfloat16 passes": ("model.dtype=bfloat16",),
    "LoRA of rank 16": (LORA,),
    "LoRA, layers computed twice": (LORA, CHECKPOINTING),
}


def config_of(model: str, words: tuple[str, ...]) -> TrainConfig:
    return run_config(
        f"model.path={model}", "model.dtype=float32", "model.gradient_checkpointing=false", "trainer.minibatches=1",
        "trainer.tokens_per_microbatch=100000", "algo.loss.kl_coef=0", *words,
    )  # fmt: skip


def loaded(cfg: TrainConfig) -> Policy:
    return load_policy(cfg.model, cfg.benchmark.name, seed=0, device=CPU)


def update_peak(model: str, variant: str, tokens: int) -> float:
    cfg = config_of(model, VARIANTS[variant])
    turns, observation, response = 4, tokens // 12, tokens // 25
    opening = tokens // 2 - (turns - 1) * observation - turns * response
    batch = made_batch(2, turns, opening=opening, observation=observation, response=response)
    state: dict[str, Any] = {}

    def learn() -> None:
        policy = state["policy"] = loaded(cfg)
        optimizer = make_optimizer(policy, cfg.trainer)
        for update in range(2):  # the optimiser's state exists from the first step on
            update_policy(policy, optimizer, batch, cfg, lr=1e-5, update=update)

    return peak_memory_mb(learn)


def stepped(model: str, folder: str) -> float:
    """A checkpoint after one step; MB of its weights."""
    cfg = config_of(model, ())
    policy = loaded(cfg)
    optimizer = make_optimizer(policy, cfg.trainer)
    for parameter in policy.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    save_checkpoint(Path(folder), policy, optimizer, TrainState(update=1), keep=1)
    return sum(parameter.numel() * parameter.element_size() for parameter in policy.parameters()) / 2**20


def resume_peak(model: str, folder: str) -> float:
    """As `experiment.open_experiment` goes on: the initial weights, their digest, then those of the checkpoint."""
    cfg = config_of(model, ())
    run: Any = type("Run", (), {"resume_from": Path(folder) / "checkpoints" / "step-000001", "held": None})()
    state: dict[str, Any] = {}

    def go_on() -> None:
        initial = state["initial"] = loaded(cfg)
        model_fingerprint(initial)
        state["resumed"] = fresh_or_resumed(cfg, initial, run, ALONE)

    return peak_memory_mb(go_on)


def update(report: Report, model: str, tokens: int) -> None:
    peaks = {name: measured("--measure", "update", "--model", model, "--tokens", str(tokens), "--variant", name)
             for name in VARIANTS}  # fmt: skip
    whole = peaks["all weights, AdamW"]
    report.table(
        f"Two updates of {Path(model).name} with a micro-batch of {tokens} tokens",
        ["", "peak MB", "of AdamW on all weights"],
        [[name, peak, peak / whole] for name, peak in peaks.items()],
    )


def resume(report: Report, model: str) -> None:
    folder = scratch_folder("levers")
    try:
        weights = measured("--measure", "stepped", "--model", model, "--folder", str(folder))
        peak = measured("--measure", "resume", "--model", model, "--folder", str(folder))
    finally:
        shutil.rmtree(folder)
    report.table(
        f"A run of {Path(model).name} that goes on, without a KL term",
        ["", "MB", "copies of the weights"],
        [["weights", weights, 1.0], ["weights and optimiser", 3 * weights, 3.0], ["peak", peak, peak / weights]],
    )


def measured(*arguments: str) -> float:
    return float(fresh_process(*arguments))


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--model", required=True, metavar="FOLDER")
    parser.add_argument("--tokens", type=int, default=512, help="of a micro-batch (512)")
    parser.add_argument("--part", choices=["update", "resume"], action="append", help="only this part")
    for hidden in ("--measure", "--variant", "--folder"):
        parser.add_argument(hidden)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    match options.measure:
        case "update":
            print(json.dumps(update_peak(options.model, options.variant, options.tokens)))
            return
        case "stepped":
            print(json.dumps(stepped(options.model, options.folder)))
            return
        case "resume":
            print(json.dumps(resume_peak(options.model, options.folder)))
            return
    report = Report("levers", options)
    if not options.part or "update" in options.part:
        update(report, options.model, options.tokens)
    if not options.part or "resume" in options.part:
        resume(report, options.model)
    report.finish()


if __name__ == "__main__":
    main()
