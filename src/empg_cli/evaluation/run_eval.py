"""`empg eval`: find the policy that is asked for and play the split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from empg_cli.agents.agent import agent_maker
from empg_cli.benchmarks import make_benchmark
from empg_cli.config.schema import EvalConfig
from empg_cli.evaluation.evaluate import Evaluation, evaluate, evaluate_expert
from empg_cli.policy.loading import check_context, load_folder, load_policy, model_fingerprint, pick_device
from empg_cli.policy.policy import Policy
from empg_cli.rollout.torch_engine import TorchEngine
from empg_cli.tracking.dashboard import Dashboard
from empg_cli.tracking.files import update_run_file, write_atomically
from empg_cli.training.checkpoint import MODEL, find_checkpoint
from empg_cli.training.trajectories import save_trajectories


def run_eval(cfg: EvalConfig, run_dir: Path) -> dict[str, Any]:
    """Evaluate a run's newest checkpoint, a checkpoint, a model that no run has trained, or the benchmark's expert.

    Writes `evaluation.json` (totals, task types, every task), `run.json` (data and weights) and the first
    `logger.trajectories` trajectories to `run_dir`.
    """
    benchmark = make_benchmark(**cfg.benchmark.model_dump())
    if cfg.trainer.threads:
        torch.set_num_threads(cfg.trainer.threads)
    run_dir.mkdir(parents=True, exist_ok=True)
    data = benchmark.fingerprint()
    title = f"evaluating {cfg.run or cfg.policy} on {cfg.benchmark.name} ({data['source']} data)"
    with Dashboard(cfg.logger.console, title, total_updates=1) as dashboard:

        def progress(done: int, total: int) -> None:
            dashboard.phase("evaluation", done, total)

        model: dict[str, Any] | None = None
        if cfg.policy == "expert":
            evaluation = evaluate_expert(benchmark, cfg.benchmark, seed=cfg.seed, progress=progress)
        else:
            policy, source = _policy(cfg)
            check_context(policy, cfg.rollout.max_context_tokens)
            model = {"source": source, **model_fingerprint(policy)}
            make_agent = agent_maker(
                cfg.benchmark.name, cfg.model.prompt, policy, context=cfg.rollout.context, history=cfg.rollout.history
            )
            engine = TorchEngine(policy, make_agent().codec.stop_ids)
            evaluation = evaluate(
                engine, benchmark, make_agent, cfg.benchmark, cfg.rollout, seed=cfg.seed, progress=progress
            )
    return _record(run_dir, cfg, evaluation, data, model)


def _policy(cfg: EvalConfig) -> tuple[Policy, str]:
    device = pick_device(cfg.trainer.device)
    if cfg.run is None:
        return load_policy(cfg.model, cfg.benchmark.name, seed=cfg.seed, device=device), cfg.model.init
    checkpoint = find_checkpoint(Path(cfg.run))
    return load_folder(str(checkpoint / MODEL), dtype=cfg.model.dtype, device=device), str(checkpoint)


def _record(
    run_dir: Path, cfg: EvalConfig, evaluation: Evaluation, data: dict[str, Any], model: dict[str, Any] | None
) -> dict[str, Any]:
    result = {**evaluation.as_dict(), "seed": cfg.seed, "policy": model or cfg.policy, "data": data}
    content = {**result, "tasks": evaluation.tasks()}
    write_atomically(run_dir / "evaluation.json", json.dumps(content, indent=1) + "\n")
    save_trajectories(run_dir, 0, "eval", evaluation.trajectories[: cfg.logger.trajectories])
    update_run_file(run_dir, data=data, model=model)
    return result
