"""The training loop, in the order of the paper's algorithm box (arXiv 2509.09265, Algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from empg_cli.algorithms.assemble import credit_parts
from empg_cli.algorithms.describe import outcome_entropies
from empg_cli.config.schema import TrainConfig
from empg_cli.experiment import open_experiment
from empg_cli.model.batch import make_batch, won_steps
from empg_cli.ranks import ALONE, Ranks
from empg_cli.rollout.masking import trainable
from empg_cli.rollout.outcomes import describe_batch
from empg_cli.runs.checkpoint import is_best_yet


@dataclass(frozen=True, slots=True)
class RunSummary:
    run_dir: Path
    updates: int
    success_rate: float | None
    """Of the last evaluation; None when nothing was evaluated."""


def train(cfg: TrainConfig, run_dir: Path, ranks: Ranks = ALONE) -> RunSummary:
    """Run one experiment from a validated config; everything it leaves is in `run_dir`.

    Every rank of several runs this loop, on the same batches.

    Raises:
        Stopped: a signal asked to stop; a checkpoint was saved, and the exception says how to go on.
        NotSaved: the disk did not take the last checkpoint, or a part of what was logged.
        OutOfMemory: the memory of the device or the machine ran out; the exception says which settings help.
        HealthStop: the first batch holds nothing to learn from, a health check asked to stop, or a server is gone.
        Ended: on ranks other than the first, in the place of what the first alone has decided.
    """
    with open_experiment(cfg, run_dir, ranks) as experiment:
        source, engine, learner = experiment.source, experiment.engine, experiment.learner
        observer, state = experiment.observer, experiment.state
        evaluation, is_saved = None, True
        if state.unlogged is not None:  # at the beginning, or where a stop has cut off the end of an update
            evaluation = experiment.evaluate() if evaluates(cfg, state.update) else None
            observer.log(state, state.unlogged, evaluation)
            state.unlogged = None
            experiment.save_again()

        while state.update < cfg.trainer.updates:
            # Rollout: group_size attempts at each task; what nobody can judge does not train. Whatever ends this
            # update before it has changed the weights leaves `state` as it was.
            after = replace(state)
            with observer.timed("rollout"):
                trajectories, metrics = source.next(after)
                engine.rest()
            trajectories = trainable(trajectories)
            metrics |= describe_batch(trajectories)
            batch = make_batch(trajectories, append_only=cfg.rollout.context == "transcript")

            # Score: log-probs and entropies under the policy that sampled, log-probs under the reference.
            with observer.timed("logprob"):
                metrics |= learner.score(batch)

            # Credit: from rewards to the advantage of each step, by EMPG weighed with the entropies.
            parts, credit_metrics = credit_parts(cfg.algo, batch)
            batch.credit_S = parts.credit_S
            was_won_S = won_steps(trajectories)
            metrics |= credit_metrics | outcome_entropies(parts.entropy_S, was_won_S)
            if state.update == 0:
                with ranks.first_decides():
                    observer.health.judge_first_batch(metrics, trajectories, played=after.episodes)

            # Update, and publish: what is sampled from now on is the new policy's.
            with observer.timed("update"):
                metrics |= learner.step(batch, state.update)
            after.update += 1
            state.become(after)
            observer.log_histograms(state.update, batch, parts, was_won_S)
            metrics |= observer.health.watch(state.update, metrics, trajectories, batch, parts)
            is_evaluated = evaluates(cfg, state.update)
            if is_evaluated or observer.must_stop:
                observer.keep_trajectories(state.update, trajectories, parts)
            state.unlogged = (
                metrics  # waits with a checkpoint, for the next process, where servers or a signal end it here
            )
            metrics |= engine.publish(state.update)

            # Evaluate, log, save.
            if is_evaluated:
                evaluation = experiment.evaluate()
            observer.log(state, metrics, evaluation if is_evaluated else None)
            state.unlogged = None
            is_last = state.update == cfg.trainer.updates
            is_due = is_last or observer.must_stop or due(state.update, cfg.trainer.checkpoint_every)
            if ranks.of_first(is_due or (is_evaluated and is_best_yet(run_dir, state.update))):
                with observer.timed("save"):
                    is_saved = experiment.save()
            with ranks.first_decides():
                observer.raise_if_stopped(state)
            ranks.obey()

        observer.finish(state)
        with ranks.first_decides():
            observer.raise_if_unsaved(state, is_saved=is_saved)
        return RunSummary(run_dir, state.update, evaluation.success_rate if evaluation else None)


def evaluates(cfg: TrainConfig, update: int) -> bool:
    """Whether the row of this update has an evaluation; that of update 0 is one."""
    return update in (0, cfg.trainer.updates) or due(update, cfg.trainer.eval_every)


def due(update: int, every: int) -> bool:
    return every > 0 and update % every == 0
