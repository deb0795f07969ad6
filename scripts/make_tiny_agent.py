"""Make the tiny agent that ships with empg: a small Qwen2 model that imitates a benchmark's expert.

Deterministic: same arguments, same weights (one thread). It stops early on purpose: at the first evaluation that
reaches the target success, so that reinforcement learning has room. Writes a Hugging Face model folder, `record.json`
(settings, versions, the learning curve); the card beside them is written by hand.

    python scripts/make_tiny_agent.py --benchmark alfworld --out src/empg_cli/assets/tiny-alfworld
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from functools import reduce
from pathlib import Path
from typing import Any

import torch

from empg_cli import config
from empg_cli.agents.agent import agents_of
from empg_cli.agents.vocabulary import closed_vocabulary
from empg_cli.benchmarks import make_benchmark
from empg_cli.config.schema import TrainConfig
from empg_cli.evaluation.evaluate import evaluate
from empg_cli.learner.demonstrations import expert_lessons
from empg_cli.learner.imitation import imitate
from empg_cli.model.loading import load_policy, model_fingerprint
from empg_cli.rollout.torch_engine.engine import TorchEngine
from empg_cli.runs.evaluations import Evaluation
from empg_cli.runs.facts import package_versions

DEMONSTRATIONS: dict[str, dict[str, Any]] = {
    "alfworld": {"train_games": 200_000, "game_seed": 0},
    "webshop": {"num_products": 5000, "shop_seed": 1},
    "deepsearch": {"world.seed": 0, "expert_haste": 0.5},
}
"""Where demonstrations come from: many tasks, none of which users evaluate on."""

FAILURES_TOO = ("deepsearch",)
"""Whose demonstrations train also where they fail: hasty answers are the habit that RL is to unlearn."""

HELD_OUT: dict[str, dict[str, Any]] = {
    "alfworld": {"train_games": 200_000, "game_seed": 1},
    "webshop": {"num_products": 1000, "shop_seed": 2, "eval_tasks": 200},
    "deepsearch": {"world.seed": 1, "split": "id", "eval_tasks": 240},
}
"""What decides when to stop: neither demonstrated nor what users evaluate on (seed 0)."""


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)
    cfg = load_config(args, HELD_OUT[args.benchmark])
    held_out = make_benchmark(**cfg.benchmark.model_dump())
    benchmark = make_benchmark(**load_config(args, DEMONSTRATIONS[args.benchmark]).benchmark.model_dump())
    words = closed_vocabulary(cfg.benchmark.name)
    policy = load_policy(cfg.model, cfg.benchmark.name, words=words, seed=args.seed, device=torch.device("cpu"))
    make_agent = agents_of(cfg, policy, held_out, today=None)
    engine = TorchEngine(policy, make_agent().codec.stop_ids)
    print(f"{policy.num_parameters:,} parameters, {len(policy.tokenizer)} words", flush=True)

    curve: list[dict[str, Any]] = []
    started = time.process_time()

    def on_step(step: int, loss: float) -> bool:
        if step % args.eval_every and step != args.steps:
            return False
        policy.model.eval()
        sampled, greedy = (_play(cfg, engine, held_out, make_agent, temperature=t) for t in (1.0, 0.0))
        policy.model.train()
        row = {
            "step": step,
            "loss": round(loss, 4),
            "success_sampled": round(sampled.success_rate, 4),
            "success_greedy": round(greedy.success_rate, 4),
            "score_sampled": round(sampled.total.score, 4),
            "valid_actions": round(sampled.total.valid_actions, 4),
            "steps": round(sampled.total.steps, 2),
            "n": sampled.total.n,
        }
        curve.append(row)
        print(json.dumps(row | {"cpu_s": round(time.process_time() - started)}), flush=True)
        if args.keep_all:
            policy.save(args.out / f"step-{step:06d}")
        return sampled.success_rate >= float(args.stop_at)

    lessons = expert_lessons(benchmark, make_agent, cfg.trainer.warm_start, cfg.rollout, seed=args.seed)
    imitate(policy, lessons, lr=cfg.trainer.warm_start.lr, on_step=on_step)
    policy.save(args.out)
    record = {
        "command": "python scripts/make_tiny_agent.py " + " ".join(sys.argv[1:]),
        "architecture": cfg.model.arch.model_dump() if cfg.model.arch else None,
        "warm_start": cfg.trainer.warm_start.model_dump(),
        "seed": args.seed,
        "stop_at": args.stop_at,
        "demonstrations": benchmark.fingerprint(),
        "held_out": {key: _setting(cfg.benchmark, key) for key in ("split", "max_steps", *HELD_OUT[args.benchmark])},
        "model": model_fingerprint(policy),
        "versions": package_versions(),
        "curve": curve,
    }
    (args.out / "record.json").write_text(json.dumps(record, indent=1) + "\n")


def load_config(args: argparse.Namespace, source: dict[str, Any]) -> TrainConfig:
    """The settings of this run on one source of tasks."""
    return config.load(
        [
            f"benchmark={args.benchmark}",
            "model=tiny-scratch",
            "benchmark.data_dir=null",
            *(f"benchmark.{key}={value}" for key, value in source.items()),
            f"trainer.warm_start.steps={args.steps}",
            f"trainer.warm_start.lr={args.lr}",
            f"trainer.warm_start.batch_size={args.batch}",
            f"trainer.warm_start.mistakes={args.mistakes}",
            f"trainer.warm_start.prompt_weight={args.prompt_weight}",
            f"trainer.warm_start.keep_failed={args.benchmark in FAILURES_TOO}",
            *args.overrides,
        ]
    )


def _setting(benchmark: Any, key: str) -> Any:
    """As it was used: overrides may have changed it."""
    return reduce(getattr, key.split("."), benchmark)


def _play(cfg: TrainConfig, engine: TorchEngine, benchmark: Any, make_agent: Any, *, temperature: float) -> Evaluation:
    rollout = cfg.rollout.model_copy(update={"eval_temperature": temperature})
    return evaluate(engine, benchmark, make_agent, cfg.benchmark, rollout, seed=0)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--benchmark", default="alfworld", choices=sorted(HELD_OUT))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=8000, help="length of the learning-rate schedule")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--mistakes", type=float, default=0.15)
    parser.add_argument("--prompt-weight", type=float, default=0.1)
    parser.add_argument("--eval-every", type=int, default=250)
    parser.add_argument("--stop-at", type=float, default=0.40, help="sampled success on held-out games")
    parser.add_argument("--keep-all", action="store_true", help="save the policy at every evaluation")
    parser.add_argument("overrides", nargs="*", help="further settings, e.g. benchmark.max_steps=30")
    args = parser.parse_args()
    both = DEMONSTRATIONS[args.benchmark], HELD_OUT[args.benchmark]
    for key in both[0].keys() & both[1].keys():
        if both[0][key] != both[1][key] and any(word.startswith(f"benchmark.{key}=") for word in args.overrides):
            parser.error(f"benchmark.{key} is not to be given: it keeps demonstrations and held-out tasks apart")
    return args


if __name__ == "__main__":
    main()
