"""What each credit does to a policy in one optimiser step, from the same weights on the same batch.

Plays `--batches` batches (seeds 0, 1, ...) with the settings of `empg train`, takes one step under every variant of an
ablation, and scores the batch again. It is one step over the whole batch, with `trainer.minibatches=1` and
`trainer.epochs=1` whatever the settings say, so all probability ratios in the loss are 1. Which one is `--optimizer`:

* `sgd`: along the gradient, by the same length `--norm` of the change of all parameters together under every variant.
  What shows is the direction: how a credit deals out its weight among steps. How large the credit is as a whole shows
  in `grad_norm` alone. With the demo's agent changes of entropy are in proportion to a norm up to 0.01, and 0.1 moves
  about as far as AdamW's first step.
* `adamw`: the training's own, at the full learning rate. Without `--model` its moments are empty, and such a first step
  is nearly the sign of the gradient: neither the size of a credit nor, within a parameter's sign, of its parts shows.
  With `--model` they are the checkpoint's, and the step is the one that the run would have taken on this batch.

`--model RUN/checkpoints/step-N` starts at a checkpoint's weights. The KL term's reference is the policy that the run
began with; without a checkpoint that is the policy itself, so the term has no gradient.

Writes two CSV files into `--out`:

* `one-step.csv`: per batch, variant and class of steps the mean credit, change of the response's log-prob (nats) and
  change of its mean token entropy (nats), and the norm of the variant's gradient before any clipping or scaling.
  Classes: the episode was won or lost; the action was valid, refused, or repeats one that was refused before in the
  episode.
* `explained.csv`: per batch and variant, how much of the variance over steps of (credit - base credit), and of (change
  of log-prob - that under the base), is explained by entropy, validity and episode length: R2 of each alone, its
  share of the joint R2 (the mean over the orders in which they enter, LMG), and the joint R2. The base is the first
  variant of the ablation.

    python -m scripts.why.one_step --batches 8 --out build/why experiment=demo trainer.tasks_per_update=8
    python -m scripts.why.one_step --model RUN/checkpoints/step-000006 --optimizer adamw --out build/why experiment=demo
"""

from __future__ import annotations

import argparse
import csv
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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
from empg_cli.errors import UserError
from empg_cli.learner.budget import TokenBudget
from empg_cli.learner.checkpoint import load_optimizer
from empg_cli.learner.learner import Learner
from empg_cli.learner.logprobs import score_batch
from empg_cli.learner.optim import make_optimizer
from empg_cli.model.batch import make_batch, won_steps
from empg_cli.model.loading import load_policy, reloaded
from empg_cli.model.policy import Policy
from empg_cli.rollout.masking import trainable
from empg_cli.rollout.source import Source
from empg_cli.rollout.torch_engine.engine import TorchEngine
from empg_cli.runs.checkpoint import MODEL, TrainState
from empg_cli.runs.config_file import find_run_folder, saved_config
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
NORM = 0.01
"""Of the change of all parameters by a step of `sgd`."""
ONE_STEP = ("trainer.minibatches=1", "trainer.epochs=1")


class GradientStep(torch.optim.Optimizer):
    """Plain gradient descent by steps of one length over all parameters, whatever the gradient's."""

    def __init__(self, policy: Policy, norm: float) -> None:
        super().__init__(policy.parameters(), {"norm": norm})
        policy.follow(self)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        (group,) = self.param_groups
        moved = [parameter for parameter in group["params"] if parameter.grad is not None]
        length = float(torch.nn.utils.get_total_norm([parameter.grad for parameter in moved]))
        if length > 0:
            for parameter in moved:
                parameter.sub_(parameter.grad, alpha=group["norm"] / length)


@dataclass(frozen=True, slots=True)
class Setup:
    """From where the step is taken, and which."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    norm: float = NORM
    """Read by sgd."""
    checkpoint: Path | None = None

    def initial(self, cfg: TrainConfig) -> Policy:
        """The policy before RL, the KL term's reference."""
        own = saved_config(find_run_folder(self.checkpoint)) if self.checkpoint else cfg
        if own.trainer.warm_start.is_on:
            raise UserError("trainer.warm_start is not made here: give the model after it as model.path")
        words = closed_vocabulary(own.benchmark.name)
        return load_policy(own.model, own.benchmark.name, words=words, seed=own.seed, device=torch.device("cpu"))

    def policy(self, cfg: TrainConfig) -> Policy:
        """The one that plays and takes the step."""
        initial = self.initial(cfg)
        if self.checkpoint is None:
            return initial
        return reloaded(initial, self.checkpoint / MODEL, saved_config(find_run_folder(self.checkpoint)).model)

    def learner(self, cfg: TrainConfig) -> Learner:
        policy = self.policy(cfg)
        reference = self.initial(cfg).frozen_copy() if cfg.algo.loss.kl_coef else None
        optimizer: torch.optim.Optimizer
        if self.optimizer == "sgd":
            optimizer = GradientStep(policy, self.norm)
        else:
            optimizer = make_optimizer(policy, cfg.trainer)
            if self.checkpoint is not None:
                load_optimizer(self.checkpoint, optimizer, policy)
        return Learner(cfg, policy, optimizer, reference, TokenBudget(cfg.trainer.microbatch_tokens))


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--ablation", default="controls", help="whose variants are credits; the first is the base")
    parser.add_argument("--model", type=Path, help="RUN/checkpoints/step-N to start from, not the initial policy")
    parser.add_argument("--optimizer", choices=("sgd", "adamw"), default="sgd", help="sgd: all of one length")
    parser.add_argument("--norm", type=float, default=NORM, help="of the change of all parameters, for sgd")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("overrides", nargs="*", help="as for empg train")
    arguments = parser.parse_args()
    if arguments.model and not (arguments.model / MODEL).is_dir():
        parser.error(f"--model {arguments.model} has no {MODEL}/: give a checkpoint, RUN/checkpoints/step-N")
    torch.set_num_threads(1)
    variants = yaml.safe_load((conf_dir() / "ablation" / f"{arguments.ablation}.yaml").read_text())["variants"]
    setup = Setup(arguments.optimizer, arguments.norm, arguments.model)
    changes: list[dict[str, Any]] = []
    explained: list[dict[str, Any]] = []
    for seed in range(arguments.batches):
        try:
            found = one_batch([*arguments.overrides, f"seed={seed}"], variants, setup)
        except UserError as error:
            parser.error(str(error))
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
    words: Sequence[str], variants: Mapping[str, Sequence[str]], setup: Setup
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of both files for the batch that `seed` plays."""
    base, *others = variants
    cfgs = {name: config.load([*words, *own, *ONE_STEP]) for name, own in variants.items()}
    trajectories = played(cfgs[base], setup)
    batch = make_batch(trajectories, append_only=cfgs[base].rollout.context == "transcript")
    steps = described(trajectories)
    changes, credits, logprobs = [], {}, {}
    for name, cfg in cfgs.items():
        credit, logprob, entropy, grad_norm = stepped(cfg, batch, setup)
        credits[name], logprobs[name] = credit, logprob
        rows = by_class(steps, credit, logprob, entropy)
        changes += [{"variant": name, **row, "grad_norm": grad_norm} for row in rows]
    explained = [
        {"variant": name, "of": of, **row}
        for name in others
        for of, values in (("credit", credits), ("logprob", logprobs))
        for row in explanations(steps, beyond(values[name], values[base]))
    ]
    return changes, explained


def played(cfg: TrainConfig, setup: Setup) -> list[Trajectory]:
    """The first batch of a run with this configuration."""
    benchmark, policy = make_benchmark(**cfg.benchmark.model_dump()), setup.policy(cfg)
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


def stepped(cfg: TrainConfig, batch: Batch, setup: Setup) -> tuple[Array, Array, Array, float]:
    """Credit, change of log-prob and change of mean token entropy of each step by one update at full learning rate, and
    the norm of its gradient."""
    learner = setup.learner(cfg)
    before = score_batch(learner.policy, batch, cfg)
    learner.score(batch)
    batch.credit_S = credit_parts(cfg.algo, batch)[0].credit_S
    metrics = learner.step(batch, cfg.trainer.lr_warmup)
    after = score_batch(learner.policy, batch, cfg)
    logprob_S, entropy_S = (
        torch.where(batch.mask_ST, new - old, 0.0).sum(1) for new, old in zip(after, before, strict=True)
    )
    entropy_S = entropy_S / batch.mask_ST.sum(1)
    credit, logprob, entropy = (values.double().numpy() for values in (batch.credit_S, logprob_S, entropy_S))
    return credit, logprob, entropy, metrics["actor/grad_norm"]


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


def beyond(values: Array, base: Array) -> Array:
    """Their difference; 0 where it is a constant but for what float32 rounds, as under a centring."""
    difference = values - base
    noise = 1e-6 * max(np.abs(values).max(), np.abs(base).max())
    return difference if np.ptp(difference) > noise else np.zeros_like(difference)


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
