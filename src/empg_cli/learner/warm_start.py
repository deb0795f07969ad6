"""Warm start: imitation before RL, so that it begins with a policy that sometimes succeeds. Made once, then cached."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import empg_cli
from empg_cli.agents.agent import agents_of
from empg_cli.agents.chat_template import shows_date
from empg_cli.benchmarks.base import Benchmark
from empg_cli.config import outside
from empg_cli.config.schema import TrainConfig
from empg_cli.disk import refusal
from empg_cli.files import cache_root
from empg_cli.learner.course import Course
from empg_cli.learner.demonstration_file import file_lessons
from empg_cli.learner.demonstrations import Lessons, expert_lessons
from empg_cli.learner.imitation import TOKENS_PER_MICROBATCH, imitate, learning_rate_factor, mean_loss
from empg_cli.model.loading import model_fingerprint, reloaded
from empg_cli.model.policy import Policy
from empg_cli.reading.seal import seal, unsealed
from empg_cli.runs.demonstrations import read_demonstrations
from empg_cli.runs.facts import demonstrations_digest, package_versions
from empg_cli.runs.run_file import read_run_file
from empg_cli.runs.warm_start import RECORD, STATE, WARM_START, WarmStartRecord
from empg_cli.signals import held
from empg_cli.types import Progress

log = logging.getLogger(__name__)

SEAL = "seal.json"
NOT_DEMONSTRATED = ("split", "eval_tasks", "invalid_action_penalty", "invalid_action_scope")
"""Settings of a benchmark that say how policies are evaluated and penalised; demonstrations do not depend on them."""
OF_EXPERTS, OF_FILES = ("mistakes",), ("epochs", "held_out")
"""Settings that are read without a file, and with one only."""
CODE = ("learner/demonstrations.py", "learner/demonstration_file.py", "learner/replay.py", "learner/imitation.py",
        "runs/demonstrations.py")  # fmt: skip
"""What makes rows of demonstrations and imitates them, beside agents and benchmarks."""


def warm_started(
    policy: Policy,
    benchmark: Benchmark,
    cfg: TrainConfig,
    run_dir: Path,
    *,
    key: str | None = None,
    today: date | None = None,
    progress: Progress = lambda done, total: None,
) -> Policy:
    """`policy` after imitation in the form that the run plays in, from the cache when it was made before.

    Losses are in `run_dir`, and where it is interrupted the state from which the next call goes on.

    Args:
        key: of `key_to_take`; None = `warm_start_key`.
        today: the date that chat templates with a date show; None = the clock's.
        progress: told of every optimiser step.

    Raises:
        ExpertFails: the expert has nothing to show.
        UserError: the file has nothing to imitate.
    """
    key = key or warm_start_key(policy, benchmark, cfg, today=today)
    folder = _place(key)
    if _is_kept(folder):
        unsealed(folder, SEAL, "Delete that folder: it is made again")
        log.info("warm start taken from %s", folder)
        if (folder / RECORD).is_file():
            shutil.copyfile(folder / RECORD, run_dir / RECORD)
        (run_dir / STATE).unlink(missing_ok=True)  # of this one, where another run was faster
        return reloaded(policy, folder, cfg.model)
    course = Course(run_dir / STATE, key, policy.device)
    _imitate(policy, lessons_of(policy, benchmark, cfg, today=today), cfg, run_dir, course, progress)
    try:
        with held():
            _keep(policy, folder, run_dir / RECORD)
            course.forget()
    except Exception as error:  # only the next run with the same warm start would have been quicker
        if not (isinstance(error, OSError) or refusal(error)):
            raise
        log.warning("the warm start is not kept for later runs in %s: %s", folder, error)
    return policy


def key_to_take(
    run_dir: Path, policy: Policy, benchmark: Benchmark, cfg: TrainConfig, *, today: date | None = None
) -> str:
    """`warm_start_key`; of a run that goes on the one that it began with, as long as the cache has it. Other code and
    other packages make another policy, and the KL reference stays."""
    began = read_run_file(run_dir).get(WARM_START)
    return began if began and _is_kept(_place(began)) else warm_start_key(policy, benchmark, cfg, today=today)


def _place(key: str) -> Path:
    return cache_root() / "warm-start" / key


def _is_kept(folder: Path) -> bool:
    return (folder / SEAL).is_file() and os.access(folder / "tokenizer_config.json", os.R_OK)


def lessons_of(policy: Policy, benchmark: Benchmark, cfg: TrainConfig, *, today: date | None = None) -> Lessons:
    """What the settings say is imitated."""
    settings, make_agent = cfg.trainer.warm_start, agents_of(cfg, policy, benchmark, today=today)
    if settings.file is not None:
        return file_lessons(read_demonstrations(Path(settings.file).expanduser()), benchmark, make_agent, cfg)
    limit = cfg.trainer.health.max_failed_calls
    return expert_lessons(benchmark, make_agent, settings, cfg.rollout, seed=cfg.seed, max_failed_calls=limit)


def _imitate(
    policy: Policy, lessons: Lessons, cfg: TrainConfig, run_dir: Path, course: Course, progress: Progress
) -> None:
    lr, tokens = cfg.trainer.warm_start.lr, cfg.trainer.microbatch_tokens
    with closing(WarmStartRecord(run_dir, course.done)) as record:

        def measure(done: int) -> None:
            if lessons.held_out:
                was_training = policy.model.training
                policy.model.eval()
                loss = mean_loss(policy, lessons.held_out, min(tokens, TOKENS_PER_MICROBATCH))
                policy.model.train(was_training)
                record.add(done, held_out_loss=loss)
                log.info("warm start: %.4f nats per token of what is held out after step %d", loss, done)

        def on_step(done: int, loss: float) -> None:
            rate = lr * learning_rate_factor(done - 1, lessons.steps)
            record.add(done, loss=loss, lr=rate)
            progress(done, lessons.steps)
            if done == lessons.steps:  # within the course: a signal meanwhile saves it
                measure(done)

        if course.done == 0:
            measure(0)
        progress(course.done, lessons.steps)
        kind = cfg.trainer.optimizer
        imitate(policy, lessons, lr=lr, kind=kind, tokens_per_microbatch=tokens, course=course, on_step=on_step)
        if course.done == lessons.steps:  # a signal came behind the last step
            measure(course.done)


def _keep(policy: Policy, folder: Path, record: Path) -> None:
    temporary = folder.with_name(f".tmp-{folder.name}-{os.getpid()}")
    try:
        policy.save(temporary)
        shutil.copyfile(record, temporary / RECORD)
        seal(temporary, SEAL, {})
        if not folder.exists():  # else another process was faster; its result is the same
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def warm_start_key(policy: Policy, benchmark: Benchmark, cfg: TrainConfig, *, today: date | None = None) -> str:
    """Digest of all that the weights after a warm start depend on, given the policy before it."""
    rollout, settings = cfg.rollout, cfg.trainer.warm_start
    identity: dict[str, Any] = {
        "settings": settings.model_dump(exclude={"file", *(OF_EXPERTS if settings.file else OF_FILES)}),
        "file": demonstrations_digest(cfg),
        "optimizer": cfg.trainer.optimizer,
        "seed": cfg.seed,
        "data": benchmark.fingerprint(),
        "benchmark": cfg.benchmark.model_dump(exclude=set(NOT_DEMONSTRATED)),
        "form": [cfg.model.prompt, rollout.context, rollout.history],
        "limits": [rollout.max_context_tokens, rollout.max_new_tokens],
        "model": model_fingerprint(policy),
        "types": [cfg.model.dtype, cfg.model.param_dtype],
        "tokenizer": tokenizer_digest(policy.tokenizer),
        "today": str(today) if shows_date(policy.tokenizer) else None,
        "code": code_digest(cfg.benchmark.name),
        "outside": outside.facts({"benchmark": cfg.benchmark.model_dump()}),
        "versions": package_versions(),
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:24]


def code_digest(benchmark: str) -> str:
    """Digest of the files that make demonstrations and imitate them: wordings, environments with their tables and
    services, experts.

    A version number stays the same while code is edited, and a commit differs when only a comment elsewhere does; the
    files themselves are exact, and reading them takes milliseconds.
    """
    package = Path(empg_cli.__file__).parent
    benchmarks = package / "benchmarks"
    code = [package / name for name in CODE]
    digest = hashlib.sha256()
    for path in (package / "agents", package / "services", benchmarks / "base.py", benchmarks / benchmark, *code):
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and file.suffix != ".pyc":
                digest.update(str(file.relative_to(package)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def tokenizer_digest(tokenizer: Any) -> str:
    """Of the rules that make ids from text, chat template included."""
    rules = [tokenizer.backend_tokenizer.to_str(), getattr(tokenizer, "chat_template", None)]
    return hashlib.sha256(json.dumps(rules).encode()).hexdigest()
