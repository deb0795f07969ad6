"""One update of our loop against one step of TRL's GRPOTrainer: the same model, prompts, tokens and optimiser.

    python scripts/bench/end_to_end.py        # needs trl; a few minutes

Single turn: 8 prompts of 97 to 128 tokens, 8 responses of 32 tokens each. Multi-turn: 8 turns of 8 sampled tokens with
replies of 21 to 60 tokens between them, through TRL's `environment_factory` (experimental) and through our transcripts.
Model: Qwen2, 128 wide, 4 layers, 512 words, fp32. GRPO, no KL term, one AdamW step per update, no early stop.

Both sides run in one process and take turns: TRL's trainer runs, and after each of its steps comes one update of ours.
The script stops if they did not sample the same number of tokens or did not learn from rows of the same total length.

What differs is what each side chose. TRL generates with Hugging Face's `generate`, in each turn over the whole history;
it computes more metrics (nothing is logged on either side); it does not play the last action. Each side
splits its batch in its own way, TRL not at all or in four micro-batches, ours by tokens. TRL's gradient checkpointing,
its default, is off but for a column of the memory table: it would cost time.

Peak memory: growth of the resident memory over one update, from the moment when model and trainer stand ready, each
side in a process of its own.

Where the time goes: our update once more under torch's profiler, rollout and learning apart.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from common import Report, argument_parser, fresh_process, peak_memory_mb, ratio, shown
from empg_cli.types import Trajectory
from kernel_parts import NOTE, PARTS, kernel_parts
from sides import Ours, Trl, learn
from word_game import MULTI_TURN, SINGLE_TURN, Work

WORKS = {"single turn": SINGLE_TURN, "8 turns": MULTI_TURN}


@dataclass(frozen=True, slots=True)
class Split:
    """How both sides divide the batch of an update."""

    parts: int
    """TRL: micro-batches of equally many rows."""
    tokens: int
    """Ours: `trainer.tokens_per_microbatch`."""


SPLITS = {"whole": Split(parts=1, tokens=4096), "4 parts": Split(parts=4, tokens=1024)}


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="counted updates of each side (5)")
    parser.add_argument("--part", action="append", choices=("speed", "memory", "profile"), help="only this (all)")
    parser.add_argument("--memory", nargs=3, metavar=("SIDE", "WORK", "SPLIT"), help=argparse.SUPPRESS)  # calls itself
    options = parser.parse_args()
    if options.memory:
        torch.set_num_threads(options.threads)
        side, work, split = options.memory
        print(json.dumps(peak_memory_mb(one_update(side, WORKS[work], SPLITS[split]))))
        return

    report = Report("end_to_end", options)
    parts = options.part or ("speed", "memory", "profile")
    if "speed" in parts:
        report.table(
            "An update",
            ["work", "TRL, CPU s", "ours, CPU s", "times", "TRL, tokens/s", "ours, tokens/s", "times in generation"],
            [speed(*case, rounds=options.rounds) for case in cases()],
            "times: TRL's CPU time over ours, median over rounds; tokens/s: sampled tokens per CPU second of sampling",
        )
    if "memory" in parts:
        report.table(
            "Growth of resident memory over an update, MB",
            ["work", "ours", "TRL", "TRL with checkpointing", "ours / TRL"],
            [memory(*case, threads=options.threads) for case in cases()],
        )
    if "profile" in parts:
        report.table(
            "Where the CPU time of our update goes",
            ["work", "part", "CPU s", *PARTS],
            [row for case in cases() for row in parts_of_update(*case, rounds=options.rounds)],
            NOTE,
        )
    report.finish()


def cases() -> Iterator[tuple[str, str]]:
    """Names of a work and of a split, all pairs."""
    return itertools.product(WORKS, SPLITS)


def title(work: str, split: str) -> str:
    return f"{work}; TRL: {split}, ours: {SPLITS[split].tokens:,} tokens"


def speed(work: str, split: str, *, rounds: int) -> list[str | float]:
    trl, ours = compare(WORKS[work], rounds, SPLITS[split])
    rates = [WORKS[work].sampled_tokens / side.generation.cpu for side in (trl, ours)]
    generation = [*rates, ratio(trl.generation, ours.generation)]
    return progress([title(work, split), trl.update.cpu, ours.update.cpu, ratio(trl.update, ours.update), *generation])


def memory(work: str, split: str, *, threads: int) -> list[str | float]:
    ours, trl, checkpointing = (
        fresh_process("--threads", str(threads), "--memory", side, work, split) for side in SIDES
    )
    return progress([title(work, split), ours, trl, checkpointing, ours / trl])


def parts_of_update(work: str, split: str, *, rounds: int) -> list[list[str | float]]:
    """A row for the rollout and one for learning: CPU seconds, then shares."""
    ours = Ours(WORKS[work], tokens=SPLITS[split].tokens)
    for _ in range(rounds + 1):
        ours.step()
    ours.forget_first()
    played, whole = ours.generation.cpu, ours.update.cpu
    trajectories: list[Trajectory] = []
    rollout = kernel_parts(lambda: trajectories.extend(ours.play(0)))
    learning = kernel_parts(lambda: learn(ours.policy, ours.optimizer, trajectories, ours.cfg, 0))
    parts = {"rollout": (played, rollout), "learning": (whole - played, learning)}
    name = f"{work}; {SPLITS[split].tokens:,} tokens"
    return [progress([name, part, cpu, *(f"{share:.0%}" for share in shares)]) for part, (cpu, shares) in parts.items()]


def progress(row: list[str | float]) -> list[str | float]:
    print(*map(shown, row), flush=True)
    return row


def compare(work: Work, rounds: int, split: Split) -> tuple[Trl, Ours]:
    """`rounds` counted updates of both sides, in turn."""
    trl, ours = Trl(work, steps=rounds + 1, parts=split.parts), Ours(work, tokens=split.tokens)
    trl.after_step = ours.step
    trl.run()
    if trl.tokens != ours.tokens or ours.tokens[0][0] != work.sampled_tokens:
        raise SystemExit(f"the sides did not do the same work: (sampled, all) tokens {trl.tokens}, {ours.tokens}")
    for side in (trl, ours):
        side.forget_first()
    return trl, ours


SIDES = ("ours", "trl", "trl with checkpointing")


def one_update(side: str, work: Work, split: Split) -> Callable[[], None]:
    """What to measure the memory of; the side stands ready."""
    if side == "ours":
        return Ours(work, tokens=split.tokens).step
    return Trl(work, steps=1, parts=split.parts, checkpointing=side == SIDES[2]).run


if __name__ == "__main__":
    main()
