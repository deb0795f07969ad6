"""What each credit does to a policy in one optimiser step, from the same weights on the same batch.

Plays `--batches` batches (seeds 0, 1, ...) with the settings of `empg train`, takes one step under every variant of an
ablation, and scores the batch again. Writes two CSV files into `--out`:

* `one-step.csv`: per batch, variant and class of steps the mean credit, change of the response's log-prob (nats) and
  change of its mean token entropy (nats). Classes: the episode was won or lost; the action was valid, refused, or
  repeats one that was refused before in the episode.
* `explained.csv`: per batch and variant, how much of the variance over steps of (credit - base credit), and of (change
  of log-prob - that under the base), is explained by entropy, validity and episode length: R2 of each alone, its
  share of the joint R2 (the mean over the orders in which they enter, LMG), and the joint R2.

    python -m scripts.why.one_step --batches 8 --out build/why experiment=demo trainer.tasks_per_update=8
    python -m scripts.why.one_step --model RUN/checkpoints/step-000006/model ...    # from a checkpoint's weights
"""

from __future__ import annotations

import argparse
import csv
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from empg_cli import config
from empg_cli.agents.agent import agents_of
from empg_cli.agents.vocabulary import closed_vocabulary
from empg_cli.algorithms.assemble import credit_parts
from empg_cli.benchmarks import make_benchmark
from empg_cli.config.location import conf_dir
from empg_cli.config.schema import TrainConfig
from empg_cli.learner.budget import TokenBudget
from empg_cli.learner.learner import Learner
from empg_cli.learner.logprobs import score_batch
from empg_cli.learner.optim import make_optimizer
from empg_cli.model.batch import make_batch, won_steps
from empg_cli.model.loading import load_policy
from empg_cli.model.policy import Policy
from empg_cli.rollout.masking import trainable
from empg_cli.rollout.source import Source
from empg_cli.rollout.torch_engine.engine import TorchEngine
from empg_cli.runs.checkpoint import TrainState
from empg_cli.types import Batch, Trajectory

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Steps:
    """What is known of each step of a batch, arrays [S]."""

    won: Array
    kind: Array
    """0 valid, 1 refused or malformed, 2 repeats an action that was refused before in the episode."""
    length: Array
    """Steps of its episode."""
    entropy: Array
    """H_t, nats a token."""


KINDS = ("valid", "refused", "repeated")


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--ablation", default="controls", help="whose variants are credits; the first is the base")
    parser.add_argument("--model", type=Path, help="a checkpoint's model/, in the place of the initial policy")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("overrides", nargs="*", help="as for empg train")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    variants = yaml.safe_load((conf_dir() / "ablation" / f"{arguments.ablation}.yaml").read_text())["variants"]
    words = [*arguments.overrides, *([f"model.path={arguments.model}"] if arguments.model else [])]
    changes: list[dict[str, Any]] = []
    explained: list[dict[str, Any]] = []
    for seed in range(arguments.batches):
        found = one_batch([*words, f"seed={seed}"], variants)
        changes += [{"batch": seed, **row} for row in found[0]]
        explained += [{"batch": seed, **row} for row in found[1]]
        print(f"batch {seed}: {found[0][0]['n']} steps")
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, rows in (("one-step.csv", changes), ("explained.csv", explained)):
        with (arguments.out / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        print(arguments.out / name)


def one_batch(
    words: Sequence[str], variants: Mapping[str, Sequence[str]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of both files for the batch that `seed` plays."""
    base, *others = variants
    cfgs = {name: config.load([*words, *own]) for name, own in variants.items()}
    trajectories = played(cfgs[base])
    batch = make_batch(trajectories, append_only=cfgs[base].rollout.context == "transcript")
    steps = described(trajectories)
    changes, credits, logprobs = [], {}, {}
    for name, cfg in cfgs.items():
        credit, logprob, entropy = stepped(cfg, batch)
        credits[name], logprobs[name] = credit, logprob
        changes += [{"variant": name, **row} for row in by_class(steps, credit, logprob, entropy)]
    explained = [
        {"variant": name, "of": of, **row}
        for name in others
        for of, values in (("credit", credits), ("logprob", logprobs))
        for row in explanations(steps, values[name] - values[base])
    ]
    return changes, explained


def fresh(cfg: TrainConfig) -> Policy:
    words = closed_vocabulary(cfg.benchmark.name)
    return load_policy(cfg.model, cfg.benchmark.name, words=words, seed=cfg.seed, device=torch.device("cpu"))


def played(cfg: TrainConfig) -> list[Trajectory]:
    """The first batch of a run with this configuration."""
    benchmark, policy = make_benchmark(**cfg.benchmark.model_dump()), fresh(cfg)
    make_agent = agents_of(cfg, policy, benchmark, today=None)
    engine = TorchEngine(policy, make_agent().codec.stop_ids)
    trajectories, _ = Source(cfg, engine, benchmark, make_agent).next(TrainState())
    return [trajectory for trajectory in trainable(trajectories) if trajectory.steps]


def described(trajectories: Sequence[Trajectory]) -> Steps:
    kinds, lengths, entropies = [], [], []
    for trajectory in trajectories:
        refused: set[str] = set()
        for step in trajectory.steps:
            is_valid = step.well_formed and step.admissible
            kinds.append(0 if is_valid else 2 if step.action in refused else 1)
            if not is_valid:
                refused.add(step.action)
            lengths.append(len(trajectory.steps))
            entropies.append(sum(step.entropies) / len(step.entropies))
    won = won_steps(trajectories).double().numpy()
    return Steps(won, np.array(kinds, float), np.array(lengths, float), np.array(entropies))


def stepped(cfg: TrainConfig, batch: Batch) -> tuple[Array, Array, Array]:
    """Credit, change of log-prob and change of mean token entropy of each step, by one update at full learning rate."""
    policy = fresh(cfg)
    reference = policy.frozen_copy() if cfg.algo.loss.kl_coef else None
    learner = Learner(
        cfg, policy, make_optimizer(policy, cfg.trainer), reference, TokenBudget(cfg.trainer.microbatch_tokens)
    )
    before = score_batch(policy, batch, cfg)
    learner.score(batch)
    batch.credit_S = credit_parts(cfg.algo, batch)[0].credit_S
    learner.step(batch, cfg.trainer.lr_warmup)
    after = score_batch(policy, batch, cfg)
    logprob_S, entropy_S = (
        torch.where(batch.mask_ST, new - old, 0.0).sum(1) for new, old in zip(after, before, strict=True)
    )
    return batch.credit_S.double().numpy(), logprob_S.double().numpy(), (entropy_S / batch.mask_ST.sum(1)).numpy()


def by_class(steps: Steps, credit: Array, logprob: Array, entropy: Array) -> Iterator[dict[str, Any]]:
    """All steps, then each class that has any."""
    classes = {("all", "all"): np.ones(len(steps.won), bool)}
    classes |= {
        (outcome, kind): (steps.won == won) & (steps.kind == number)
        for won, outcome in ((1, "won"), (0, "lost"))
        for number, kind in enumerate(KINDS)
    }
    for (outcome, kind), chosen in classes.items():
        if chosen.any():
            means = [float(values[chosen].mean()) for values in (credit, logprob, entropy)]
            yield {
                "episode": outcome, "action": kind, "n": int(chosen.sum()),
                "credit": means[0], "d_logprob": means[1], "d_entropy": means[2],
            }  # fmt: skip


def explanations(steps: Steps, values: Array) -> Iterator[dict[str, Any]]:
    """R2 of each explanation, alone and as its share of all of them."""
    parts = {
        "entropy": np.stack([steps.entropy, steps.entropy**2], 1),
        "validity": np.stack([steps.kind == 1, steps.kind == 2], 1).astype(float),
        "length": np.stack([steps.length, steps.length**2], 1),
    }

    def explains(names: Sequence[str]) -> float:
        return r_squared([parts[name] for name in names], values)

    orders = list(itertools.permutations(parts))
    joint = explains(list(parts))
    for name in parts:
        gains = [explains(order[: (at := order.index(name)) + 1]) - explains(order[:at]) for order in orders]
        yield {"by": name, "alone": explains([name]), "share": sum(gains) / len(gains), "joint": joint}


def r_squared(columns: Sequence[Array], values: Array) -> float:
    """Of a least-squares fit with intercept; 0 where the values do not vary."""
    centred = values - values.mean()
    if not columns or not np.abs(centred).max() > 1e-12:
        return 0.0
    design = np.concatenate([np.ones((len(values), 1)), *columns], 1)
    design /= np.abs(design).max(0, keepdims=True).clip(1e-12)
    rest = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    return float(1 - (rest**2).sum() / (centred**2).sum())


if __name__ == "__main__":
    main()
