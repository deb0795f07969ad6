"""Everything that one experiment needs, opened in order; `loop.train` then runs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from empg_cli.agents.agent import AgentMaker, agents_of
from empg_cli.agents.vocabulary import closed_vocabulary
from empg_cli.benchmarks import data_facts, make_benchmark
from empg_cli.benchmarks.base import Benchmark
from empg_cli.config.schema import TrainConfig
from empg_cli.errors import UserError
from empg_cli.evaluation.evaluate import NothingJudged, evaluate
from empg_cli.learner.budget import TokenBudget
from empg_cli.learner.checkpoint import checkpoint_bytes, load_optimizer
from empg_cli.learner.imitation import warm_started
from empg_cli.learner.learner import Learner
from empg_cli.learner.optim import make_optimizer
from empg_cli.model.loading import check_context, load_own, load_policy, model_fingerprint, pick_device
from empg_cli.model.memory import is_out_of_memory
from empg_cli.model.policy import Policy
from empg_cli.observe.observer import Observer, observing
from empg_cli.owner import owning
from empg_cli.rollout.masking import EnvironmentsDown, TasksBroken
from empg_cli.rollout.parity import check_parity
from empg_cli.rollout.source import Source
from empg_cli.rollout.torch_engine.engine import TorchEngine
from empg_cli.runs.checkpoint import MODEL, TrainState, is_saved, load_state, warn_of_little_room
from empg_cli.runs.evaluations import Evaluation
from empg_cli.runs.folder import OpenFolder, open_folder
from empg_cli.runs.mixture import refuse_unlike
from empg_cli.runs.provenance import WEIGHTS
from empg_cli.runs.run_file import read_run_file, update_run_file
from empg_cli.runs.trajectories import text_with_special_tokens
from empg_cli.services.errors import ServerDown
from empg_cli.signals import Interrupted, caught, held


@dataclass(frozen=True, slots=True)
class Experiment:
    source: Source
    learner: Learner
    engine: TorchEngine
    """Plays with the learner's policy, whose weights it shares; told of every update by `publish`."""
    observer: Observer
    state: TrainState
    """Where the run is; the loop counts on."""
    cfg: TrainConfig
    run_dir: Path
    benchmark: Benchmark
    make_agent: AgentMaker[int]

    def evaluate(self) -> Evaluation:
        """Play the evaluation split once, always with the same random numbers, so that differences are the policy's."""
        cfg = self.cfg
        with self.observer.timed("eval"):
            progress = self.observer.progress("evaluation")
            return evaluate(
                self.engine,
                self.benchmark,
                self.make_agent,
                cfg.benchmark,
                cfg.rollout,
                seed=cfg.seed,
                max_failed_calls=cfg.trainer.health.max_failed_calls,
                progress=progress,
            )

    def save_what_stands(self) -> None:
        """Save the state that the run can go on from, unless it is saved or an update has changed a part of it."""
        if self.learner.is_whole and not is_saved(self.run_dir, self.state.update) and self.observer.sync(self.state):
            self.learner.save(self.run_dir, self.state)


@contextmanager
def open_experiment(cfg: TrainConfig, run_dir: Path) -> Iterator[Experiment]:
    """Data, run folder, policy, agents, engine: whatever is wrong with one of them is said before anything is played.

    The policy begins anew, warm start included, or at the checkpoint that `resume` means. The folder is this process's
    own until the end. When what the run plays with is gone, nothing of what came of it is trained or recorded, and the
    last update is saved.

    Raises:
        FolderOwned: another process works in the folder.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with owning(run_dir, "training", again=True), _opened(cfg, run_dir) as experiment:
        yield experiment


@contextmanager
def _opened(cfg: TrainConfig, run_dir: Path) -> Iterator[Experiment]:
    if cfg.trainer.threads:
        torch.set_num_threads(cfg.trainer.threads)
    benchmark = make_benchmark(**cfg.benchmark.model_dump())
    kinds = sorted({task.kind for task in benchmark.tasks("train")})
    folder = open_folder(cfg, run_dir, data=data_facts(benchmark), task_kinds=kinds)
    with caught(), observing(cfg, folder) as observer:
        initial = initial_policy(cfg, benchmark, folder, observer)
        observer.record_policy(model_fingerprint(initial), text_with_special_tokens(initial.tokenizer))
        reference = initial.frozen_copy() if cfg.algo.loss.kl_coef else None
        policy, optimizer, state = fresh_or_resumed(cfg, initial, folder)
        warn_of_little_room(folder.path, checkpoint_bytes(policy), keep=cfg.trainer.keep_checkpoints)
        make_agent = agents_of(cfg, policy, benchmark, today=folder.prompt_date)
        engine = TorchEngine(policy, make_agent().codec.stop_ids)
        engine.publish(state.update)
        budget = TokenBudget(cfg.trainer.tokens_per_microbatch, halves=cfg.trainer.oom == "halve")
        experiment = Experiment(
            source=Source(cfg, engine, benchmark, make_agent, observer.progress("rollout")),
            learner=Learner(cfg, policy, optimizer, reference, budget),
            engine=engine,
            observer=observer,
            state=state,
            cfg=cfg,
            run_dir=run_dir,
            benchmark=benchmark,
            make_agent=make_agent,
        )
        with ending_whole(experiment):
            yield experiment


@contextmanager
def ending_whole(experiment: Experiment) -> Iterator[None]:
    """While the block trains, a signal waits for a safe point: where it ends the block, or where memory or a server
    does, the state that the run can go on from is saved first."""
    observer, state = experiment.observer, experiment.state
    try:
        with held():
            yield
    except Interrupted:
        experiment.save_what_stands()
        observer.finish(state)
        raise
    except (ServerDown, EnvironmentsDown, NothingJudged) as gone:
        if state.update:
            experiment.save_what_stands()
        observer.raise_gone(state, str(gone))
    except Exception as error:
        if is_out_of_memory(error) or isinstance(error, TasksBroken):
            experiment.save_what_stands()
        raise


def initial_policy(cfg: TrainConfig, benchmark: Benchmark, folder: OpenFolder, observer: Observer) -> Policy:
    """The policy before RL, warm start included: the KL term's reference, and what a new run trains."""
    device = pick_device(cfg.trainer.device)
    words = closed_vocabulary(cfg.benchmark.name, benchmark)
    policy = load_policy(cfg.model, cfg.benchmark.name, words=words, seed=cfg.seed, device=device)
    check_context(policy, cfg.rollout.max_context_tokens)
    check_parity(policy)
    weights = {WEIGHTS: model_fingerprint(policy)["digest"]}
    began = read_run_file(folder.path).get(WEIGHTS) if folder.resume_from else None
    if began not in (None, weights[WEIGHTS]) and cfg.model.init != "scratch":  # those are drawn, and rounded by machine
        raise UserError(
            f"the initial policy is not the one that the run began with: digest {began}, now {weights[WEIGHTS]}; give "
            "the weights that it began with, or start a new run"
        )
    refuse_unlike(folder.path, weights)
    update_run_file(folder.path, **weights)
    steps = cfg.trainer.warm_start.steps
    if steps == 0:
        return policy
    progress = observer.progress("warm start")
    return warm_started(policy, benchmark, cfg, today=folder.prompt_date, on_step=lambda step, _: progress(step, steps))


def fresh_or_resumed(
    cfg: TrainConfig, initial: Policy, folder: OpenFolder
) -> tuple[Policy, torch.optim.Optimizer, TrainState]:
    """What to train and from where: the initial policy, or the checkpoint that `resume` found."""
    if folder.resume_from is None:
        state = TrainState(unlogged={} if cfg.trainer.eval_before else None)
        return initial, make_optimizer(initial, cfg.trainer), state
    policy = load_own(folder.resume_from / MODEL, cfg.model, initial.device)
    optimizer = make_optimizer(policy, cfg.trainer)
    load_optimizer(folder.resume_from, optimizer, policy.device)
    state = load_state(folder.resume_from)
    if folder.held is not None:
        folder.held.release()
    return policy, optimizer, state
