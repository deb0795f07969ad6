"""Make the tiny agent that ships with empg: a small Qwen2 model that imitates a benchmark's expert.

Deterministic: same arguments, same weights (one thread). It stops early on purpose: at the first evaluation that
reaches the target success, so that reinforcement learning has room. Writes a Hugging Face model folder, `record.json`
(settings, versions, the learning curve) and a model card.

    python scripts/make_tiny_agent.py --benchmark alfworld --out src/empg_cli/assets/tiny-alfworld
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import torch
import transformers

from empg_cli import config
from empg_cli.agents.agent import agent_maker
from empg_cli.benchmarks import make_benchmark
from empg_cli.config.schema import Architecture, Model, TrainConfig, WarmStart
from empg_cli.evaluation.evaluate import Evaluation, evaluate
from empg_cli.policy.loading import load_policy, model_fingerprint
from empg_cli.rollout.torch_engine import TorchEngine
from empg_cli.training.warm_start import imitate


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)
    cfg = config.load([f"benchmark={args.benchmark}", f"benchmark.train_games={args.train_games}", *args.overrides])
    arch = Architecture(
        hidden_size=args.hidden,
        num_layers=args.layers,
        num_heads=args.heads,
        num_kv_heads=args.kv_heads,
        mlp_size=args.mlp,
    )
    model = Model(
        name="tiny",
        init="scratch",
        path=None,
        prompt="compact",
        dtype="float32",
        gradient_checkpointing=False,
        arch=arch,
    )
    settings = WarmStart(
        steps=args.steps, batch_size=args.batch, lr=args.lr, mistakes=args.mistakes, prompt_weight=args.prompt_weight
    )
    benchmark = make_benchmark(**cfg.benchmark.model_dump())
    policy = load_policy(model, cfg.benchmark.name, seed=args.seed, device=torch.device("cpu"))
    make_agent = agent_maker(cfg.benchmark.name, "compact", policy, context="transcript", history=0)
    engine = TorchEngine(policy, make_agent().codec.stop_ids)
    print(f"{policy.num_parameters:,} parameters, {len(policy.tokenizer)} words", flush=True)

    curve: list[dict[str, Any]] = []
    started = time.process_time()

    def on_step(step: int, loss: float) -> bool:
        if step % args.eval_every and step != settings.steps:
            return False
        policy.model.eval()
        sampled = _play(cfg, engine, benchmark, make_agent, temperature=1.0)
        greedy = _play(cfg, engine, benchmark, make_agent, temperature=0.0)
        policy.model.train()
        row = {
            "step": step,
            "loss": round(loss, 4),
            "success_sampled": sampled.success_rate,
            "success_greedy": greedy.success_rate,
            "valid_actions": round(sampled.total.valid_actions, 4),
            "steps": round(sampled.total.steps, 2),
            "n": sampled.total.n,
        }
        curve.append(row)
        print(json.dumps(row | {"cpu_s": round(time.process_time() - started)}), flush=True)
        if args.keep_all:
            policy.save(args.out / f"step-{step:06d}")
        return sampled.success_rate >= args.stop_at

    imitate(policy, benchmark, make_agent, settings, seed=args.seed, on_step=on_step)
    policy.save(args.out)
    record = {
        "arguments": {key: value for key, value in vars(args).items() if key != "out"},
        "architecture": arch.model_dump(),
        "warm_start": settings.model_dump(),
        "benchmark": benchmark.fingerprint(),
        "model": model_fingerprint(policy),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "curve": curve,
    }
    (args.out / "record.json").write_text(json.dumps(record, indent=1, default=str) + "\n")


def _play(cfg: TrainConfig, engine: TorchEngine, benchmark: Any, make_agent: Any, *, temperature: float) -> Evaluation:
    rollout = cfg.rollout.model_copy(update={"eval_temperature": temperature})
    return evaluate(engine, benchmark, make_agent, cfg.benchmark, rollout, seed=0)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--benchmark", default="alfworld")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--mistakes", type=float, default=0.15)
    parser.add_argument("--prompt-weight", type=float, default=0.1)
    parser.add_argument("--train-games", type=int, default=200_000, help="demonstrations are drawn from these")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--kv-heads", type=int, default=2)
    parser.add_argument("--mlp", type=int, default=256)
    parser.add_argument("--eval-every", type=int, default=500)
    parser.add_argument("--stop-at", type=float, default=2.0, help="sampled success on the evaluation split")
    parser.add_argument("--keep-all", action="store_true", help="save the policy at every evaluation")
    parser.add_argument("overrides", nargs="*", help="further settings, e.g. benchmark.max_steps=30")
    return parser.parse_args()


if __name__ == "__main__":
    main()
