"""Warm start: imitate the benchmark's expert, so that RL begins with a policy that sometimes succeeds."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import empg_cli
from empg_cli.agents.agent import AgentMaker, agents_of
from empg_cli.agents.chat_template import shows_date
from empg_cli.benchmarks.base import Benchmark
from empg_cli.config import outside
from empg_cli.config.schema import Rollout, TrainConfig
from empg_cli.config.trainer import WarmStart
from empg_cli.learner.demonstrations import ImitationRow, demonstrations
from empg_cli.model.loading import load_own, model_fingerprint
from empg_cli.model.policy import Policy
from empg_cli.runs.facts import package_versions

log = logging.getLogger(__name__)

LR_WARMUP_STEPS = 100
FINAL_LR_FRACTION = 0.1
TOKENS_PER_MICROBATCH = 2048
"""Padded tokens in one forward pass; changes speed and memory only."""
NOT_DEMONSTRATED = ("split", "eval_tasks", "invalid_action_penalty", "invalid_action_scope")
"""Settings of a benchmark that say how policies are evaluated and penalised; demonstrations do not depend on them."""


def imitate(
    policy: Policy,
    benchmark: Benchmark,
    make_agent: AgentMaker[int],
    settings: WarmStart,
    rollout: Rollout,
    *,
    seed: int,
    on_step: Callable[[int, float], bool | None] | None = None,
) -> None:
    """Train `policy` on fresh demonstrations of the train split, in place.

    Args:
        make_agent: makes agents in the context of `rollout`.
        on_step: called after each optimiser step with (step, mean loss per weighted token); True stops early.

    Raises:
        ExpertFails: the expert has nothing to show.
    """
    optimizer = torch.optim.AdamW(policy.parameters(), lr=settings.lr, betas=(0.9, 0.95), weight_decay=0.01)
    policy.follow(optimizer)
    policy.model.train()
    batches = demonstrations(benchmark, make_agent, settings, rollout, seed=seed)
    for step, batch in zip(range(settings.steps), batches, strict=False):
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * learning_rate_factor(step, settings.steps)
        loss = accumulate_imitation_gradient(policy, [row for shown in batch for row in shown.rows])
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if on_step and on_step(step + 1, loss):
            break
    policy.model.eval()


def learning_rate_factor(step: int, steps: int) -> float:
    """Linear warm-up, then linear decay to a tenth."""
    warmup = min(1.0, (step + 1) / LR_WARMUP_STEPS)
    return warmup * (1 - (1 - FINAL_LR_FRACTION) * step / max(steps, 1))


def accumulate_imitation_gradient(policy: Policy, rows: Sequence[ImitationRow]) -> float:
    """Backward through the weighted mean negative log-likelihood of the rows' tokens; returns it.

    Rows of similar length share a forward pass; the denominator is the whole batch's, so the split does not change the
    gradient. A row's first token is never predicted, so its weight does not count.
    """
    total_weight = sum(sum(row.weights[1:]) for row in rows)
    ordered = sorted((row for row in rows if any(row.weights[1:])), key=lambda row: -len(row.token_ids))
    total, start = 0.0, 0
    while start < len(ordered):
        size = max(1, TOKENS_PER_MICROBATCH // len(ordered[start].token_ids))
        loss = weighted_nll(policy, ordered[start : start + size]) / total_weight
        loss.backward()
        total += float(loss.detach())
        start += size
    return total


def weighted_nll(policy: Policy, rows: Sequence[ImitationRow]) -> Tensor:
    """Sum of weight times negative log-likelihood over the rows' tokens."""
    ids = [torch.tensor(row.token_ids) for row in rows]
    target_BT = torch.nn.utils.rnn.pad_sequence([row[1:] for row in ids], batch_first=True)
    weight_BT = torch.nn.utils.rnn.pad_sequence([torch.tensor(row.weights[1:]) for row in rows], batch_first=True)
    trained_BT = weight_BT > 0
    row_T, column_T = trained_BT.to(policy.device).nonzero(as_tuple=True)
    ids_BT, target_T = policy.padded([row[:-1] for row in ids]), target_BT[trained_BT].to(policy.device)
    logprob_T, _ = policy.lm(ids_BT, (row_T, column_T), target_T)
    loss: Tensor = -(weight_BT[trained_BT].to(policy.device) * logprob_T).sum()
    return loss


def warm_started(
    policy: Policy,
    benchmark: Benchmark,
    cfg: TrainConfig,
    *,
    today: date | None = None,
    on_step: Callable[[int, float], bool | None] | None = None,
) -> Policy:
    """`policy` after `imitate` in the form that the run plays in, from the cache when it was made before.

    Args:
        today: the date that chat templates with a date show; None = the clock's.
    """
    folder = cache_root() / "warm-start" / warm_start_key(policy, benchmark, cfg, today=today)
    if (folder / "config.json").is_file():
        log.info("warm start taken from %s", folder)
        return load_own(folder, cfg.model, policy.device)
    make_agent = agents_of(cfg, policy, benchmark, today=today)
    imitate(policy, benchmark, make_agent, cfg.trainer.warm_start, cfg.rollout, seed=cfg.seed, on_step=on_step)
    temporary = folder.with_name(f".tmp-{folder.name}-{os.getpid()}")
    try:
        policy.save(temporary)
        with contextlib.suppress(OSError):  # another process was faster; its result is the same
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return policy


def warm_start_key(policy: Policy, benchmark: Benchmark, cfg: TrainConfig, *, today: date | None = None) -> str:
    """Digest of all that the weights after a warm start depend on, given the policy before it."""
    rollout = cfg.rollout
    identity: dict[str, Any] = {
        "settings": cfg.trainer.warm_start.model_dump(),
        "seed": cfg.seed,
        "data": benchmark.fingerprint(),
        "benchmark": cfg.benchmark.model_dump(exclude=set(NOT_DEMONSTRATED)),
        "form": [cfg.model.prompt, rollout.context, rollout.history],
        "limits": [rollout.max_context_tokens, rollout.max_new_tokens],
        "model": model_fingerprint(policy),
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
    benchmarks, learner = package / "benchmarks", package / "learner"
    code = (learner / "demonstrations.py", learner / "imitation.py")
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


def cache_root() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "empg"
