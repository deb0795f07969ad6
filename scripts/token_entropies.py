"""Where the entropy of a chat model's responses is: in its tags, its thoughts, or its actions.

Plays tasks with a model and the settings of `empg train`, at `rollout.temperature`, and sums token entropies by the
part of the response that a token begins in. EMPG takes the mean over all tokens of a step, so a part that has most of
the tokens and little of the entropy dilutes the others.

    python scripts/token_entropies.py --model RUN/checkpoints/step-000015/model --tasks 24 experiment=smollm2
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from empg_cli import config
from empg_cli.agents.agent import agents_of
from empg_cli.benchmarks import make_benchmark
from empg_cli.evaluation.evaluate import evaluate
from empg_cli.model.loading import load_policy
from empg_cli.rollout.torch_engine.engine import TorchEngine
from empg_cli.types import Trajectory

TAG = re.compile(r"</?(think|search|open|answer|action)>")


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face folder, such as a checkpoint's model/")
    parser.add_argument("--tasks", type=int, default=24)
    parser.add_argument("--json", type=Path, help="write the numbers here as well")
    parser.add_argument("overrides", nargs="*", help="as for empg train")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    words = [f"model.path={arguments.model}", f"benchmark.eval_tasks={arguments.tasks}", "rollout.max_concurrent=0"]
    cfg = config.load([*arguments.overrides, *words])
    benchmark = make_benchmark(**cfg.benchmark.model_dump())
    policy = load_policy(cfg.model, cfg.benchmark.name, seed=cfg.seed, device=torch.device("cpu"))
    make_agent = agents_of(cfg, policy, benchmark, today=None)
    engine = TorchEngine(policy, make_agent().codec.stop_ids)
    sampled = cfg.rollout.model_copy(update={"eval_temperature": cfg.rollout.temperature})
    played = evaluate(engine, benchmark, make_agent, cfg.benchmark, sampled, seed=cfg.seed)
    table = entropy_by_part(played.trajectories, policy.tokenizer)
    total = played.total
    print(f"{total.n} episodes at temperature {cfg.rollout.temperature}, success {total.success_rate:.3f}")
    print(f"{'part':<12}{'tokens':>8}{'of tokens':>11}{'nats':>9}{'of entropy':>12}   surest and least sure words")
    for row in table:
        print(
            f"{row['part']:<12}{row['tokens']:>8}{row['share_of_tokens']:>11.1%}{row['nats']:>9.4f}"
            f"{row['share_of_entropy']:>12.1%}   {row['words']}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"success": total.success_rate, "parts": table}, indent=1) + "\n")


def entropy_by_part(trajectories: Sequence[Trajectory], tokenizer: Any) -> list[dict[str, Any]]:
    """One row a part, the part with the most entropy first."""
    entropies: dict[str, list[float]] = defaultdict(list)
    by_word: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for trajectory in trajectories:
        for step in trajectory.steps:
            pieces = [tokenizer.decode([token]) for token in step.response_ids]
            for part, piece, entropy in zip(parts_of(pieces), pieces, step.entropies, strict=True):
                entropies[part].append(entropy)
                by_word[part][piece].append(entropy)
    tokens, total = sum(map(len, entropies.values())), sum(map(sum, entropies.values()))
    rows = []
    for part, values in sorted(entropies.items(), key=lambda item: -sum(item[1])):
        often = {word: sum(at) / len(at) for word, at in by_word[part].items() if len(at) >= 5}
        ranked = sorted(often, key=lambda word: often[word])
        words = ", ".join(f"{word!r} {often[word]:.2f}" for word in (*ranked[:2], *ranked[2:][-4:]))
        rows.append(
            {
                "part": part,
                "tokens": len(values),
                "share_of_tokens": len(values) / tokens,
                "nats": sum(values) / len(values),
                "share_of_entropy": sum(values) / total if total else 0.0,
                "words": words,
            }
        )
    return rows


def parts_of(pieces: Sequence[str]) -> list[str]:
    """The part that each token of a response begins in: `tags`, `thought`, the name of an action, `after` (what stands
    outside of all tags, the end of the turn included)."""
    text = "".join(pieces)
    part_at = ["after"] * (len(text) + 1)
    inside, position = "after", 0
    for tag in TAG.finditer(text):
        part_at[position : tag.start()] = [inside] * (tag.start() - position)
        part_at[tag.start() : tag.end()] = ["tags"] * (tag.end() - tag.start())
        opens = not tag[0].startswith("</")
        inside = ("thought" if tag[1] == "think" else tag[1]) if opens else "after"
        position = tag.end()
    part_at[position : len(text)] = [inside] * (len(text) - position)
    parts, begin = [], 0
    for piece in pieces:
        parts.append(part_at[min(begin, len(text))])
        begin += len(piece)
    return parts


if __name__ == "__main__":
    main()
