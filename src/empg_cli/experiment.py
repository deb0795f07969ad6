"""Everything that one experiment needs, opened in order; `loop.train` then runs it."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from empg_cli.agents.agent import AgentMaker, agents_of
from empg_cli.agents.vocabulary import closed_vocabulary
from empg_cli.benchmarks import data_facts, make_benchmark
from empg_cli.benchmarks.base import Benchmark
from empg_cli.config.dist import Dist, NoDist
from empg_cli.config.schema import TrainConfig
from empg_cli.errors import UserError
from empg_cli.evaluation.evaluate import NothingJudged, evaluate
from empg_cli.learner.budget import TokenBudget
from empg_cli.learner.checkpoint import checkpoint_bytes, load_optimizer
from empg_cli.learner.learner import Learner
from empg_cli.learner.optim import bitsandbytes, make_optimizer
from empg_cli.learner.warm_start import key_to_take, warm_started
from empg_cli.model import lora
from empg_cli.model.loading import check_context, load_policy, model_fingerprint, pick_device, reloaded
from empg_cli.model.memory import hardware_of, is_out_of_memory, map_large_tensors
from empg_cli.model.policy import Policy
from empg_cli.observe.observer import Observer, observing
from empg_cli.observe.onlooker import Onlooker, onlooking
from empg_cli.observe.trackers import refuse_missing
from empg_cli.owner import owning
from empg_cli.planning.auto import within_memory
from empg_cli.ranks import ALONE, Ranks
from empg_cli.rollout.ahead_source import AheadSource, open_source
from empg_cli.rollout.engine import LearnersEngine
from empg_cli.rollout.engines import SERVERS, opened_engine
from empg_cli.rollout.masking import EnvironmentsDown, TasksBroken
from empg_cli.rollout.parity import check_parity
from empg_cli.rollout.source import Source
from empg_cli.runs.checkpoint import MODEL, TrainState, is_saved, load_state, may_be_rewritten, warn_of_little_room
from empg_cli.runs.evaluations import Evaluation
from empg_cli.runs.facts import SETTLED, note_hardware, processor
from empg_cli.runs.folder import OpenFolder, open_folder, putting_back
from empg_cli.runs.mixture import refuse_unlike
from empg_cli.runs.provenance import WEIGHTS
from empg_cli.runs.run_file import read_run_file, update_run_file
from empg_cli.runs.trajectories import text_with_special_tokens
from empg_cli.services.errors import ServerDown
from empg_cli.signals import Interrupted, caught, held

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Experiment:
    source: Source | AheadSource
    learner: Learner
    engine: LearnersEngine
    """Plays with the learner's policy; told of every update by `publish`."""
    observer: Observer | Onlooker
    """The first rank's, which writes; an onlooker on the others."""
    state: TrainState
    """Where the run is; the loop counts on."""
    cfg: TrainConfig
    run_dir: Path
    benchmark: Benchmark
    make_agent: AgentMaker[int]
    ranks: Ranks

    def evaluate(self) -> Evaluation:
        """Play the evaluation split once, always with the same random numbers, so that differences are the policy's."""
        cfg = self.cfg
        with self.observer.timed("eval"), self.source.paused():
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
                ranks=self.ranks,
            )

    def save(self) -> bool:
        """A checkpoint of the state; False, and said, where the disk refuses it or what was logged before it."""
        is_synced = self.ranks.of_first(self.observer.sync(self.state))
        return is_synced and self.learner.save(self.run_dir, self.state)

    def save_again(self) -> None:
        """A checkpoint that held what was not logged yet, now that it is: else every process that goes on from it would
        play the evaluation once more. One that somebody reads stays as it is."""
        if self.ranks.of_first(may_be_rewritten(self.run_dir, self.state.update)):
            with self.observer.timed("save"):
                self.save()

    def save_what_stands(self) -> None:
        """Save the state that the run can go on from, unless it is saved or an update has changed a part of it. Whether
        it is saved the first rank says: another may see a file system later."""
        if self.ranks.of_first(self.learner.is_whole and not is_saved(self.run_dir, self.state.update)):
            self.save()


@contextmanager
def open_experiment(cfg: TrainConfig, run_dir: Path, ranks: Ranks = ALONE) -> Iterator[Experiment]:
    """Data, run folder, policy, agents, engine: whatever is wrong with one of them is said before anything is played.

    The policy begins anew, warm start included, or at the checkpoint that `resume` means. The folder is this process's
    own until the end; of several ranks the first has it, and alone writes there, but for its parts of a checkpoint
    that each rank writes. When what the run plays with is gone, nothing of what came of it is trained or recorded, and
    the last update is saved.

    Raises:
        FolderOwned: another process works in the folder.
    """
    with ExitStack() as stack:
        if ranks.is_first:
            run_dir.mkdir(parents=True, exist_ok=True)
            stack.enter_context(owning(run_dir, "training", again=True))
        yield stack.enter_context(_opened(cfg, run_dir, ranks))


@contextmanager
def _opened(cfg: TrainConfig, run_dir: Path, ranks: Ranks) -> Iterator[Experiment]:
    if cfg.trainer.threads:
        torch.set_num_threads(cfg.trainer.threads)
    refuse_missing(cfg.logger.trackers)  # what is not installed is said before there is any work
    if cfg.model.lora.rank:
        lora.peft()
    if cfg.trainer.optimizer == "adamw8bit":
        bitsandbytes()
    benchmark = make_benchmark(**cfg.benchmark.model_dump())
    folder = None
    with ExitStack() as opening:
        with ranks.first_decides():
            if ranks.is_first:
                kinds = sorted({task.kind for task in benchmark.tasks("train")})
                folder = open_folder(cfg, run_dir, data=data_facts(benchmark), task_kinds=kinds)
                goes_on = opening.enter_context(putting_back(folder))
                cfg = fitted(cfg, folder, ranks)
        cfg, folder = together(cfg, folder, ranks)
        watching = observing(cfg, folder) if ranks.is_first else onlooking(cfg, folder.path, ranks.rank)
        with caught(), watching as observer, ExitStack() as stack:
            experiment = _begun(cfg, folder, benchmark, observer, ranks, stack)
            if ranks.is_first:
                goes_on()
            with ending_whole(experiment):
                yield experiment


def _begun(
    cfg: TrainConfig,
    folder: OpenFolder,
    benchmark: Benchmark,
    observer: Observer | Onlooker,
    ranks: Ranks,
    stack: ExitStack,
) -> Experiment:
    """All that a loop needs, in its folder; what is to be closed in the end is in `stack`."""
    initial = initial_policy(cfg, benchmark, folder, observer, ranks)
    observer.keep_texts(text_with_special_tokens(initial.tokenizer))
    reference = initial.frozen_copy() if cfg.algo.loss.kl_coef else None
    policy, optimizer, state = fresh_or_resumed(cfg, initial, folder, ranks)
    del initial  # spread over ranks it is another policy, and its weights would stay
    if reference is not None and policy.sharding is not None:
        reference = spread(reference, cfg.dist, ranks)
    if ranks.is_first:
        warn_of_little_room(folder.path, checkpoint_bytes(policy, optimizer), keep=cfg.trainer.keep_checkpoints)
    make_agent = agents_of(cfg, policy, benchmark, today=folder.prompt_date)
    engine = stack.enter_context(
        opened_engine(
            cfg.rollout,
            policy,
            make_agent().codec.stop_ids,
            model=cfg.model,
            folder=folder.path / SERVERS,
            ranks=ranks,
        )
    )
    with held():  # servers are not left in the middle of it
        engine.publish(state.update)
    ranks.obey()
    budget = TokenBudget(cfg.trainer.microbatch_tokens, halves=cfg.trainer.oom == "halve")
    progress = observer.progress("rollout")
    source = stack.enter_context(open_source(cfg, engine, benchmark, make_agent, progress, ranks))
    return Experiment(
        source=source,
        learner=Learner(cfg, policy, optimizer, reference, budget, ranks),
        engine=engine,
        observer=observer,
        state=state,
        cfg=cfg,
        run_dir=folder.path,
        benchmark=benchmark,
        make_agent=make_agent,
        ranks=ranks,
    )


def together(cfg: TrainConfig, folder: OpenFolder | None, ranks: Ranks) -> tuple[TrainConfig, OpenFolder]:
    """What the first rank has settled and opened, on all of them; the hold on the checkpoint stays its own."""
    if folder is not None:
        ranks.of_first((cfg, replace(folder, held=None)))
        return cfg, folder
    found, opened = ranks.of_first((cfg, folder))
    assert opened is not None, "the first rank has opened it"
    return found, opened


def spread(policy: Policy, dist: Dist, ranks: Ranks) -> Policy:
    """The policy over all ranks, which hold the same one; it is whole everywhere until a part is to be saved."""
    from empg_cli.model.sharding import mesh_of

    assert not isinstance(dist, NoDist), "or there would be one rank"
    return policy.spread(mesh_of(policy.device, ranks.size, dist.shard), frees=dist.reshard)


def fitted(cfg: TrainConfig, folder: OpenFolder, ranks: Ranks) -> TrainConfig:
    """The configuration with numbers in the place of auto, those that the run has recorded where it goes on.

    Raises:
        DoesNotFit: it clearly needs more memory than there is. No weights are loaded by then.
    """
    recorded = read_run_file(folder.path).get(SETTLED, {})
    hardware = hardware_of(pick_device(cfg.trainer.device))
    if folder.done < cfg.trainer.updates:
        note_hardware(folder.path, hardware.name if hardware.kind == "cuda" else processor())
    settled, plan = within_memory(cfg, hardware, recorded, ranks.size)
    if plan is not None:
        log.info("%s", plan.line)
        update_run_file(folder.path, **{SETTLED: plan.chosen})
    return settled


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
        with held():  # a signal waits for the save here too
            if state.update:
                experiment.save_what_stands()
            observer.raise_gone(state, str(gone))
    except Exception as error:
        is_alone = experiment.ranks.size == 1  # memory runs out on one rank, and a save needs every rank
        if isinstance(error, TasksBroken) or (is_alone and is_out_of_memory(error)):
            with held():
                experiment.save_what_stands()
        raise


def initial_policy(
    cfg: TrainConfig, benchmark: Benchmark, folder: OpenFolder, observer: Observer | Onlooker, ranks: Ranks
) -> Policy:
    """The policy before RL, warm start included: the KL term's reference, and what a new run trains. A run that goes on
    without a KL term needs neither, so there the warm start, which may be hours of work, is left out.

    Of several ranks the first alone makes the warm start; the others wait for its weights.
    """
    device = pick_device(cfg.trainer.device)
    words = closed_vocabulary(cfg.benchmark.name, benchmark)
    policy = load_policy(cfg.model, cfg.benchmark.name, words=words, seed=cfg.seed, device=device)
    if device.type == "cpu":
        map_large_tensors(policy.num_parameters)
    check_context(policy, cfg.rollout.max_context_tokens)
    check_parity(policy)
    refuse_unequal(policy, benchmark, ranks)
    if ranks.is_first:
        note_weights(cfg, policy, folder)
    key = None
    if cfg.trainer.warm_start.is_on:
        if folder.resume_from is not None and not cfg.algo.loss.kl_coef:
            return policy
        if ranks.is_first:
            progress, today = observer.progress("warm start"), folder.prompt_date
            key = key_to_take(folder.path, policy, benchmark, cfg, today=today)
            policy = warm_started(policy, benchmark, cfg, folder.path, key=key, today=today, progress=progress)
        policy.take_over(ranks)
    if ranks.is_first:
        observer.record_policy(model_fingerprint(policy), key)
    return policy


def refuse_unequal(policy: Policy, benchmark: Benchmark, ranks: Ranks) -> None:
    """Weights that are to be spread, and tasks that are dealt out by their number, are the same for every rank.

    Raises:
        UserError: a rank has read others; on all of them.
    """
    if ranks.size == 1:
        return
    facts = {"weights": model_fingerprint(policy)["digest"], "data": data_facts(benchmark)}
    first, *others = ranks.of_all((socket.gethostname(), facts))
    for number, (host, found) in enumerate(others, 1):
        if unlike := [name for name, fact in found.items() if fact != first[1][name]]:
            raise UserError(
                f"rank {number} on {host} has read other {' and '.join(unlike)} than the first on {first[0]}: give "
                "all machines the same model and the same data"
            )


def note_weights(cfg: TrainConfig, policy: Policy, folder: OpenFolder) -> None:
    """In run.json: what the policy is before a warm start.

    Raises:
        UserError: a run that goes on began with others.
    """
    fingerprint = model_fingerprint(policy)
    weights = {WEIGHTS: fingerprint.get("base", fingerprint["digest"])}  # a new adapter is drawn, and adds nothing
    began = read_run_file(folder.path).get(WEIGHTS) if folder.resume_from else None
    if began not in (None, weights[WEIGHTS]) and cfg.model.init != "scratch":  # those are drawn, and rounded by machine
        raise UserError(
            f"the initial policy is not the one that the run began with: digest {began}, now {weights[WEIGHTS]}; give "
            "the weights that it began with, or start a new run"
        )
    refuse_unlike(folder.path, weights)
    update_run_file(folder.path, **weights)


def fresh_or_resumed(
    cfg: TrainConfig, initial: Policy, folder: OpenFolder, ranks: Ranks
) -> tuple[Policy, torch.optim.Optimizer, TrainState]:
    """What to train and from where: the initial policy, or the checkpoint that `resume` found, in its place."""
    start = folder.resume_from
    policy = initial if start is None else reloaded(initial, start / MODEL, cfg.model)
    if ranks.size > 1:
        policy = spread(policy, cfg.dist, ranks)
    optimizer = make_optimizer(policy, cfg.trainer)
    if start is None:
        state = TrainState(unlogged={} if cfg.trainer.eval_before else None)
    else:
        load_optimizer(start, optimizer, policy)
        state = load_state(start)
        ranks.meet()
        if folder.held is not None:
            folder.held.release()
    return policy, optimizer, state
