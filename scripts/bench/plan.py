"""Is what `empg plan` says of memory true? Its estimate of a phase beside the measured peak of that phase.

    python scripts/bench/plan.py            # about 6 CPU minutes, 12 GB
    python scripts/bench/plan.py --case "0.5B, update"

Each peak is the resident memory of a process of its own at its highest: Python and torch, weights, optimiser, reference
and all. Weights are random, of the shapes of the presets; rows are as long as the context, so that nothing is left of
what the estimate allows for. An update is the second one, when the optimiser's state exists; micro-batches are two.
MB are 10**6 bytes.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from typing import Any

import torch

from common import Report, argument_parser, fresh_process, resident_peak_mb
from empg_cli.config.schema import TrainConfig
from empg_cli.learner.optim import make_optimizer
from empg_cli.learner.update import update_policy
from empg_cli.model.memory import map_large_tensors
from empg_cli.model.policy import Policy
from empg_cli.planning.job import Job, job_of
from empg_cli.planning.memory import phases
from empg_cli.planning.shapes import Shape
from empg_cli.rollout.torch_engine.reader import Reader
from empg_cli.rollout.torch_engine.sampling import sample
from made import made_batch, policy_of_shape, run_config


@dataclass(frozen=True)
class Case:
    preset: str
    phase: str
    """update or rollout."""
    context: int
    tokens: int = 0
    """Of a micro-batch."""
    episodes: int = 0
    """Played at once."""
    has_checkpointing: bool = False
    has_reference: bool = True


CASES = {
    "tiny agent, update": Case("tiny", "update", 512, tokens=4096),
    "tiny agent, rollout": Case("tiny", "rollout", 768, episodes=128),
    "SmolLM2-135M, update": Case("smollm2-135m", "update", 512, tokens=1024),
    "SmolLM2-135M, update, checkpointing": Case("smollm2-135m", "update", 512, tokens=2048, has_checkpointing=True),
    "SmolLM2-135M, rollout": Case("smollm2-135m", "rollout", 1024, episodes=16),
    "0.5B, update": Case("qwen2.5-0.5b", "update", 256, tokens=512, has_reference=False),
}
NO_MORE_THAN = 900
"""Token ids, within every vocabulary."""


def config_of(case: Case) -> TrainConfig:
    return run_config(
        f"model={case.preset}",
        "rollout=transcript",
        "model.dtype=float32",
        f"model.gradient_checkpointing={str(case.has_checkpointing).lower()}",
        f"algo.loss.kl_coef={0.01 if case.has_reference else 0.0}",
        f"rollout.max_context_tokens={case.context}",
        "rollout.max_new_tokens=32",
        f"trainer.tokens_per_microbatch={case.tokens or 4096}",
        "trainer.minibatches=1",
        f"rollout.max_concurrent={case.episodes}",
        f"benchmark.eval_tasks={case.episodes or 8}",
    )


def job_of_case(case: Case) -> Job:
    job = job_of(config_of(case), "cpu")
    assert job is not None, "the shapes are known"
    return job


def shape_of_case(case: Case) -> Shape:
    return job_of_case(case).shape


def measured(case: Case) -> float:
    """MB at the peak of the phase."""
    cfg = config_of(case)
    policy = policy_of_shape(shape_of_case(case))
    map_large_tensors(policy.num_parameters)
    reference = policy.frozen_copy() if case.has_reference else None
    optimizer = make_optimizer(policy, cfg.trainer)
    for parameter in policy.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    if case.has_checkpointing:
        policy.model.gradient_checkpointing_enable()
    run = _update(case, cfg, policy, optimizer) if case.phase == "update" else _rollout(case, policy)
    peak = resident_peak_mb(run)
    del reference
    return peak


def _update(case: Case, cfg: TrainConfig, policy: Policy, optimizer: torch.optim.Optimizer) -> Any:
    turns = case.context // 128
    batch = made_batch(
        2 * case.tokens // case.context, turns, opening=96, observation=96, response=32, vocabulary=NO_MORE_THAN
    )
    return lambda: update_policy(policy, optimizer, batch, cfg, lr=0.0, update=0)


def _rollout(case: Case, policy: Policy) -> Any:
    """Every episode reads a prompt of its own and one token more, which fill the context."""
    reader = Reader(policy, share=False)
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(NO_MORE_THAN, (case.episodes, case.context - 1), generator=generator).tolist()

    def play() -> None:
        rows = reader.open(list(enumerate(prompts)), columns=case.context)
        with torch.inference_mode():
            logit_BV = reader.read(rows, prompts)
            token_B, _, _ = sample(logit_BV, torch.rand(case.episodes), 1.0)
            reader.read(rows, [[*prompt, int(token)] for prompt, token in zip(prompts, token_B, strict=True)])

    return play


def estimated(case: Case) -> float:
    (phase,) = (phase for phase in phases(job_of_case(case)) if phase.name == case.phase)
    return phase.total / 1e6


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--case", choices=CASES, action="append", help="only this case; may be given again")
    parser.add_argument("--measure", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        torch.set_num_threads(options.threads)
        print(json.dumps(measured(CASES[options.measure])))
        return
    report = Report("plan", options)
    rows = []
    for name, case in CASES.items():
        if options.case and name not in options.case:
            continue
        found, said = fresh_process("--measure", name), estimated(case)
        what = f"{case.tokens:,} tokens" if case.phase == "update" else f"{case.episodes} episodes"
        rows.append([name, what, case.context, said, found, said / found])
    report.table(
        "Memory of a phase: the estimate of `empg plan` and the measured peak",
        ["phase", "at once", "context", "estimate MB", "measured MB", "estimate / measured"],
        rows,
        "Resident memory of the whole process; float32; with a reference model, but for the last row.",
    )
    report.finish()


if __name__ == "__main__":
    main()
