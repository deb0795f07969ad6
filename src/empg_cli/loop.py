"""The training loop, in the order of the paper's algorithm box (arXiv 2509.09265, Algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from empg_cli.agents.agent import AgentMaker, agent_maker
from empg_cli.agents.vocabulary import closed_vocabulary
from empg_cli.algorithms.assemble import credit_parts
from empg_cli.algorithms.describe import outcome_entropies
from empg_cli.benchmarks import make_benchmark
from empg_cli.benchmarks.base import Benchmark
from empg_cli.config.schema import TrainConfig
from empg_cli.evaluation.evaluate import evaluate
from empg_cli.learner.batching import make_batch
from empg_cli.learner.checkpoint import load_optimizer, save_checkpoint
from empg_cli.learner.imitation import warm_started
from empg_cli.learner.metrics import describe_batch, logprob_gap, won_steps
from empg_cli.learner.optim import learning_rate, make_optimizer
from empg_cli.learner.update import score_batch, update_policy
from empg_cli.model.loading import check_context, load_own, load_policy, model_fingerprint, pick_device
from empg_cli.model.policy import Policy
from empg_cli.observe.observer import Observer, observing
from empg_cli.rollout.masking import trainable
from empg_cli.rollout.parity import check_parity
from empg_cli.rollout.source import sample_trajectories
from empg_cli.rollout.torch_engine.engine import TorchEngine
from empg_cli.runs.checkpoint import MODEL, TrainState, load_state
from empg_cli.runs.evaluations import Evaluation
from empg_cli.runs.folder import OpenFolder, open_folder
from empg_cli.runs.trajectories import text_with_special_tokens


@dataclass(frozen=True, slots=True)
class RunSummary:
    run_dir: Path
    updates: int
    success_rate: float | None
    """Of the last evaluation; None when nothing was evaluated."""


def train(cfg: TrainConfig, run_dir: Path) -> RunSummary:
    """Run one experiment from a validated config; everything it leaves is in `run_dir`.

    Raises:
        Stopped: a signal asked to stop; a checkpoint was saved, and the exception says how to go on.
        HealthStop: the first batch holds nothing to learn from, or `trainer.health.stop` asked to stop.
    """
    if cfg.trainer.threads:
        torch.set_num_threads(cfg.trainer.threads)
    benchmark = make_benchmark(**cfg.benchmark.model_dump())
    kinds = sorted({task.kind for task in benchmark.tasks("train")})
    folder = open_folder(cfg, run_dir, data=benchmark.fingerprint(), task_kinds=kinds)
    with observing(cfg, folder) as run:
        initial = initial_policy(cfg, benchmark, folder, run)
        run.record_policy(model_fingerprint(initial), text_with_special_tokens(initial.tokenizer))
        reference = initial.frozen_copy() if cfg.algo.loss.kl_coef else None
        policy, optimizer, state = fresh_or_resumed(cfg, initial, folder)
        make_agent = agent_maker(
            cfg.benchmark,
            cfg.model.prompt,
            policy,
            context=cfg.rollout.context,
            history=cfg.rollout.history,
            today=folder.prompt_date,
            played=benchmark,
        )
        engine = TorchEngine(policy, make_agent().codec.stop_ids)
        evaluation = None
        if cfg.trainer.eval_before and state.update == 0:
            evaluation = evaluate_policy(cfg, engine, benchmark, make_agent, run)
            run.log(state, {}, evaluation)

        while state.update < cfg.trainer.updates:
            with run.timed("rollout"):
                trajectories, metrics = sample_trajectories(cfg, engine, benchmark, make_agent, state, run)

            trajectories = trainable(trajectories)
            metrics |= describe_batch(trajectories)
            batch = make_batch(trajectories, append_only=cfg.rollout.context == "transcript")
            with run.timed("logprob"):
                if cfg.trainer.old_logprobs == "recompute":
                    batch.rollout_logprob_ST = batch.old_logprob_ST
                    batch.old_logprob_ST, batch.entropy_ST = score_batch(policy, batch, cfg)
                    metrics |= logprob_gap(batch)
                if reference is not None:
                    batch.ref_logprob_ST, _ = score_batch(reference, batch, cfg)
            parts, credit_metrics = credit_parts(cfg.algo, batch)
            batch.credit_S = parts.credit_S
            was_won_S = won_steps(trajectories)
            metrics |= credit_metrics | outcome_entropies(parts.entropy_S, was_won_S)
            if state.update == 0:
                run.health.judge_first_batch(metrics, trajectories, played=state.episodes)

            with run.timed("update"):
                lr = learning_rate(cfg.trainer, state.update)
                metrics |= update_policy(policy, optimizer, batch, cfg, lr=lr, update=state.update)
            state.update += 1
            run.log_histograms(state.update, batch, parts, was_won_S)
            metrics |= run.health.watch(state.update, metrics, trajectories, batch, parts)

            is_last = state.update == cfg.trainer.updates
            evaluates = is_last or due(state.update, cfg.trainer.eval_every)
            if evaluates or run.must_stop:
                run.keep_trajectories(state.update, trajectories, parts)
            if evaluates:
                evaluation = evaluate_policy(cfg, engine, benchmark, make_agent, run)
            run.log(state, metrics, evaluation if evaluates else None)
            if is_last or run.must_stop or due(state.update, cfg.trainer.checkpoint_every):
                with run.timed("save"):
                    save_checkpoint(run_dir, policy, optimizer, state, keep=cfg.trainer.keep_checkpoints)
            run.raise_if_stopped(state)

        run.finish(state)
        return RunSummary(run_dir, state.update, evaluation.success_rate if evaluation else None)


def initial_policy(cfg: TrainConfig, benchmark: Benchmark, folder: OpenFolder, run: Observer) -> Policy:
    """The policy before RL, warm start included: the KL term's reference, and what a new run trains."""
    device = pick_device(cfg.trainer.device)
    words = closed_vocabulary(cfg.benchmark.name, benchmark)
    policy = load_policy(cfg.model, cfg.benchmark.name, words=words, seed=cfg.seed, device=device)
    check_context(policy, cfg.rollout.max_context_tokens)
    check_parity(policy)
    steps = cfg.trainer.warm_start.steps
    if steps == 0:
        return policy
    progress = run.progress("warm start")
    return warm_started(policy, benchmark, cfg, today=folder.prompt_date, on_step=lambda step, _: progress(step, steps))


def fresh_or_resumed(
    cfg: TrainConfig, initial: Policy, folder: OpenFolder
) -> tuple[Policy, torch.optim.Optimizer, TrainState]:
    """What to train and from where: the initial policy, or the checkpoint that `resume` found."""
    if folder.resume_from is None:
        return initial, make_optimizer(initial, cfg.trainer), TrainState()
    policy = load_own(folder.resume_from / MODEL, cfg.model, initial.device)
    optimizer = make_optimizer(policy, cfg.trainer)
    load_optimizer(folder.resume_from, optimizer, policy.device)
    return policy, optimizer, load_state(folder.resume_from)


def evaluate_policy(
    cfg: TrainConfig, engine: TorchEngine, benchmark: Benchmark, make_agent: AgentMaker[int], run: Observer
) -> Evaluation:
    """Play the evaluation split once, always with the same random numbers, so that differences are the policy's."""
    with run.timed("eval"):
        progress = run.progress("evaluation")
        return evaluate(engine, benchmark, make_agent, cfg.benchmark, cfg.rollout, seed=cfg.seed, progress=progress)


def due(update: int, every: int) -> bool:
    return every > 0 and update % every == 0
