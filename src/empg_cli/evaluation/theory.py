"""`empg diagnose`: play episodes with a run's policy and check what EMPG's theory says about it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

from empg_cli.agents.agent import agents_of
from empg_cli.agents.vocabulary import closed_vocabulary
from empg_cli.algorithms.empg import step_entropy
from empg_cli.algorithms.logit_gradient import logit_gradient
from empg_cli.benchmarks import make_benchmark
from empg_cli.benchmarks.base import Benchmark
from empg_cli.config.schema import EvalConfig
from empg_cli.errors import UserError
from empg_cli.evaluation.diagnosis import (
    ChangeBin,
    Diagnosis,
    EntropyChange,
    GradientNorms,
    GradientStep,
    Proposition1,
    TokenBin,
)
from empg_cli.learner.split import microbatches
from empg_cli.model.batch import make_batch
from empg_cli.model.decoder import hidden_states
from empg_cli.model.loading import check_context, load_policy, load_to_play, model_fingerprint, pick_device
from empg_cli.model.memory import hardware_of
from empg_cli.model.policy import Policy
from empg_cli.planning.auto import playing_within_memory
from empg_cli.rollout.collect import collect
from empg_cli.rollout.episode import episode_rules
from empg_cli.rollout.parity import check_parity
from empg_cli.rollout.torch_engine.engine import TorchEngine
from empg_cli.runs.checkpoint import MODEL, all_checkpoints
from empg_cli.runs.facts import prompt_date
from empg_cli.runs.run_file import read_run_file
from empg_cli.runs.which_checkpoint import hold_checkpoint
from empg_cli.stats.clustered import clustered_mean, clustered_rank_correlation, rank_correlation
from empg_cli.stats.intervals import Estimate
from empg_cli.types import Batch, Progress, Trajectory

_STREAM = 5
"""Keeps this use of the seed apart from others."""
BINS = 20
"""As many as Figure 3 of the paper has."""
LOGITS_AT_ONCE = 2**24
"""Bounds the memory of one chunk: 128 MiB in float64, a few times over."""
FEWEST_RANKED = 3
"""Steps of which a rank correlation says something: that of two is 1 or -1."""
Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, slots=True)
class PlayedSteps:
    trajectories: list[Trajectory]
    batch: Batch
    episode_S: np.ndarray
    """Which trajectory each step belongs to."""


def diagnose(
    cfg: EvalConfig,
    run: Path,
    run_dir: Path,
    *,
    episodes: int,
    gradients: int,
    before: str | None,
    progress: Progress | None = None,
) -> Diagnosis:
    """Proposition 1 and gradient norms of the newest checkpoint; Figure 3 against an earlier policy.

    Args:
        run: the run folder, or one of its checkpoints.
        run_dir: the run folder.
        episodes: played with each of the two policies, on as many tasks of the split, at the training temperature.
        gradients: steps whose gradient in all parameters is computed, spread evenly over the ranks of entropy.
        before: the earlier policy: `initial`, a checkpoint, or None for the earliest that there is.
    """
    if cfg.trainer.threads:
        torch.set_num_threads(cfg.trainer.threads)
    cfg = playing_within_memory(cfg, hardware_of(pick_device(cfg.trainer.device)))
    benchmark = make_benchmark(**cfg.benchmark.model_dump())
    with hold_checkpoint(run, cfg.checkpoint) as held:
        checkpoint = held.checkpoint
        policy = _load(cfg, checkpoint)
    check_context(policy, cfg.rollout.max_context_tokens)
    check_parity(policy)
    earlier = _earlier_policy(cfg, benchmark, run_dir, checkpoint, before)

    played = play(cfg, policy, benchmark, episodes, progress)
    values = token_statistics(cfg, policy, played.batch)
    change = None
    if earlier is not None:
        change = entropy_change(cfg, earlier[1], policy, play(cfg, earlier[1], benchmark, episodes, progress),
                                names=(earlier[0], checkpoint.name))  # fmt: skip
    data = benchmark.fingerprint()
    return Diagnosis(
        policy=checkpoint.name,
        benchmark=cfg.benchmark.name,
        data=str(data["source"]),
        split=cfg.benchmark.split,
        temperature=cfg.rollout.temperature,
        seed=cfg.seed,
        episodes=len(played.trajectories),
        steps=played.batch.num_steps,
        tokens=int(played.batch.mask_ST.sum()),
        proposition1=proposition1(values, played.batch.mask_ST),
        gradients=gradient_norms(cfg, policy, played, values, gradients) if gradients else None,
        change=change,
    )


def play(
    cfg: EvalConfig, policy: Policy, benchmark: Benchmark, episodes: int, progress: Progress | None
) -> PlayedSteps:
    """One episode on each of the first tasks of the split, sampled as in training."""
    make_agent = agents_of(cfg, policy, benchmark, today=prompt_date(cfg.run))
    trajectories = collect(
        TorchEngine(policy, make_agent().codec.stop_ids, most_tokens=cfg.rollout.max_context_tokens),
        benchmark,
        make_agent,
        benchmark.tasks(cfg.benchmark.split)[:episodes],
        group_size=1,
        rules=episode_rules(cfg.rollout, cfg.benchmark, temperature=cfg.rollout.temperature),
        stream=(_STREAM, cfg.seed),
        progress=progress,
    )
    batch = make_batch(trajectories, append_only=cfg.rollout.context == "transcript")
    if len(set(batch.trajectory_S.tolist())) < 2:
        raise UserError("fewer than 2 episodes have a step, so nothing can be said about chance: give more --episodes")
    return PlayedSteps(trajectories, batch, batch.trajectory_S.numpy())


@torch.no_grad()
def token_statistics(cfg: EvalConfig, policy: Policy, batch: Batch) -> dict[str, Tensor]:
    """The fields of `LogitGradient` as float64 [S, T] under a policy, 0 where masked."""
    values: dict[str, Tensor] = {}
    chunk = max(1, LOGITS_AT_ONCE // len(policy.head.weight_VD))
    everything_S = torch.arange(batch.num_steps)
    budget = cfg.trainer.microbatch_tokens
    for rows, steps_S in microbatches(batch, everything_S, budget, packs=policy.packs_rows):
        reading, token_T = policy.before_samples(batch, rows, steps_S)
        hidden_TD = hidden_states(
            policy.model,
            reading.ids_BT,
            wanted=reading.wanted,
            position_ids=reading.position_ids,
            episodes=reading.attention,
        )
        parts = [
            logit_gradient(policy.head.logits(hidden) / cfg.rollout.temperature, token)
            for hidden, token in zip(hidden_TD.split(chunk), token_T.split(chunk), strict=True)
        ]
        mask_ST = batch.mask_ST[steps_S]
        for name in parts[0].__slots__:
            value_T = torch.cat([getattr(part, name) for part in parts]).cpu()
            table = values.setdefault(name, torch.zeros(batch.mask_ST.shape, dtype=torch.float64))
            table[steps_S] = torch.zeros(mask_ST.shape, dtype=torch.float64).masked_scatter(mask_ST, value_T)
    return values


def proposition1(values: Mapping[str, Tensor], mask_ST: Tensor) -> Proposition1:
    """Both sides of the identity on every token that was played; `values` from `token_statistics`."""
    token = {name: table[mask_ST].numpy() for name, table in values.items()}
    order = np.argsort(token["entropy_T"], kind="stable")
    bins = [
        TokenBin(
            entropy=float(token["entropy_T"][part].mean()),
            renyi2=float(token["renyi2_T"][part].mean()),
            predicted=float(token["predicted_T"][part].mean()),
            exact=float(token["exact_T"][part].mean()),
            sampled=_around(float(token["sampled_T"][part].mean()), token["sampled_T"][part] - token["exact_T"][part]),
        )
        for part in np.array_split(order, min(BINS, len(order)))
    ]
    excess_T = token["sampled_T"] - token["exact_T"]
    return Proposition1(
        bins=tuple(bins),
        largest_error=float(np.abs(token["exact_T"] - token["predicted_T"]).max()),
        excess=_around(float(excess_T.mean()), excess_T),
        shannon_rank=rank_correlation(token["entropy_T"], token["predicted_T"]),
    )


def _around(value: float, surplus_T: np.ndarray) -> Estimate:
    """95 % interval of a mean from what each token adds to its own expectation.

    Given its prefix, a token's surplus has mean 0, so the surpluses of an episode are uncorrelated however alike its
    tokens are: the variance of their sum is the sum of their squares.
    """
    half = Z * math.sqrt(float(np.square(surplus_T).sum())) / len(surplus_T)
    return Estimate(value, value - half, value + half, len(surplus_T))


def gradient_norms(
    cfg: EvalConfig, policy: Policy, played: PlayedSteps, values: Mapping[str, Tensor], count: int
) -> GradientNorms:
    """L2 norm, over all trainable parameters, of the gradient of a step's mean token log-prob."""
    batch = played.batch
    entropy_S = step_entropy(values["entropy_T"], batch.mask_ST)
    predicted_S = step_entropy(values["predicted_T"], batch.mask_ST)
    ranks = np.argsort(entropy_S.numpy(), kind="stable")
    chosen = np.sort(ranks[np.unique(np.linspace(0, len(ranks) - 1, count).round().astype(int))])
    first_S = torch.searchsorted(batch.trajectory_S, batch.trajectory_S)  # row of the first step of the same episode
    steps = [
        GradientStep(
            task_id=played.trajectories[int(batch.trajectory_S[step])].task.task_id,
            step=step - int(first_S[step]) + 1,
            tokens=int(batch.mask_ST[step].sum()),
            entropy=float(entropy_S[step]),
            logit_norm2=float(predicted_S[step]),
            gradient_norm=_gradient_norm(policy, batch, step, temperature=cfg.rollout.temperature),
        )
        for step in chosen.tolist()
    ]
    episodes = played.episode_S[chosen].tolist()
    rank = None
    if len(steps) >= FEWEST_RANKED and len(set(episodes)) > 1:
        rank = clustered_rank_correlation(
            [step.entropy for step in steps], [step.gradient_norm for step in steps], episodes
        )
    return GradientNorms(tuple(steps), rank)


def _gradient_norm(policy: Policy, batch: Batch, step: int, *, temperature: float) -> float:
    start, tokens = int(batch.step_start_S[step]), int(batch.mask_ST[step].sum())
    row = batch.row_ids[int(batch.step_row_S[step])][: start + tokens]  # what comes later has no say
    column_T = torch.arange(start - 1, start - 1 + tokens, device=policy.device)
    places = torch.zeros_like(column_T), column_T
    logprob_T, _ = policy.lm(policy.padded([row]), places, row[start:].to(policy.device), temperature=temperature)
    parameters = [parameter for parameter in policy.model.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(logprob_T.mean(), parameters, allow_unused=True)
    return math.sqrt(sum(float(gradient.double().square().sum()) for gradient in gradients if gradient is not None))


def entropy_change(
    cfg: EvalConfig, before: Policy, after: Policy, played: PlayedSteps, *, names: tuple[str, str]
) -> EntropyChange:
    """The same steps under two policies; `played` by the earlier one."""
    mask_ST = played.batch.mask_ST
    before_S, after_S = (
        step_entropy(token_statistics(cfg, policy, played.batch)["entropy_T"], mask_ST).numpy()
        for policy in (before, after)
    )
    parts = bins_of_episodes(np.argsort(before_S, kind="stable"), played.episode_S)
    width = 100 / len(parts)
    return EntropyChange(
        before=names[0],
        after=names[1],
        bins=tuple(
            ChangeBin(
                percentile=(number * width, (number + 1) * width),
                before=float(before_S[part].mean()),
                after=float(after_S[part].mean()),
                change=clustered_mean(after_S[part] - before_S[part], played.episode_S[part]),
                absolute=float(np.abs(after_S[part] - before_S[part]).mean()),
            )
            for number, part in enumerate(parts)
        ),
    )


def bins_of_episodes(order: np.ndarray, episode_S: np.ndarray, at_most: int = BINS) -> list[np.ndarray]:
    """Steps in bins of equal size, `at_most` of them, fewer where a bin would hold one episode's steps alone."""
    for count in range(min(at_most, len(order)), 1, -1):
        parts = np.array_split(order, count)
        if all(len(np.unique(episode_S[part])) > 1 for part in parts):
            return parts
    return [order]


def _earlier_policy(
    cfg: EvalConfig, benchmark: Benchmark, run_dir: Path, newest: Path, before: str | None
) -> tuple[str, Policy] | None:
    """The one asked for; else the initial policy if it can be made again, else the first checkpoint that is kept."""
    if before not in (None, "initial"):
        with hold_checkpoint(Path(str(before))) as held:
            return held.checkpoint.name, _load(cfg, held.checkpoint)
    device, words = pick_device(cfg.trainer.device), closed_vocabulary(cfg.benchmark.name, benchmark)
    initial = load_policy(cfg.model, cfg.benchmark.name, words=words, seed=cfg.seed, device=device)
    recorded = read_run_file(run_dir).get("model", {}).get("digest")
    if model_fingerprint(initial)["digest"] == recorded:
        return "initial", initial
    if before == "initial":
        raise UserError(
            f"the initial policy of {run_dir} cannot be made again (a warm start, other weights, or another seed): "
            "leave --before out, or give a checkpoint"
        )
    kept: Sequence[Path] = all_checkpoints(run_dir)
    return (kept[0].name, _load(cfg, kept[0])) if kept and kept[0].name != newest.name else None


def _load(cfg: EvalConfig, checkpoint: Path) -> Policy:
    device = pick_device(cfg.trainer.device)
    return load_to_play(checkpoint / MODEL, cfg.model, cfg.benchmark.name, device)
