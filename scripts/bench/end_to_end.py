"""One update of our loop against one step of TRL's GRPOTrainer: the same model, prompts, tokens and optimiser.

    python scripts/bench/end_to_end.py        # needs trl; a few minutes

Single turn: 8 prompts of 97 to 128 tokens, 8 responses of 32 tokens each. Multi-turn: 8 turns of 8 sampled tokens with
replies of 21 to 60 tokens between them, through TRL's `environment_factory` (experimental) and through our transcripts.
Model: Qwen2, 128 wide, 4 layers, 512 words, fp32. GRPO, no KL term, one AdamW step per update, no early stop.

Both sides run in one process and take turns: TRL's trainer runs, and after each of its steps comes one update of ours.
The script stops if they did not sample the same number of tokens or did not learn from rows of the same total length.

What differs is what each side chose. TRL generates with Hugging Face's `generate`, in each turn over the whole history;
it computes more metrics (nothing is logged on either side); it does not play the last action. Its batch is tried whole
and in four micro-batches, and without gradient checkpointing, its default, which would cost it time. Ours splits by
`trainer.tokens_per_microbatch` (4096 padded tokens).

Peak memory: growth of the resident memory over two updates, from the moment when model and trainer stand ready, each
side in a process of its own; TRL with gradient checkpointing too.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable

import torch

from common import Report, argument_parser, fresh_process, peak_memory_mb, ratio, shown
from sides import Ours, Trl
from word_game import MULTI_TURN, SINGLE_TURN, Work

WORKS = {"single turn": SINGLE_TURN, "8 turns": MULTI_TURN}
MICRO_BATCHES = {"whole batch": 1, "4 micro-batches": 4}


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="counted updates of each side (5)")
    parser.add_argument("--memory", nargs=2, metavar=("SIDE", "WORK"), help=argparse.SUPPRESS)  # calls itself
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)  # transformers' renamings, which TRL still uses
    if options.memory:
        torch.set_num_threads(options.threads)
        side, work = options.memory
        print(json.dumps(peak_memory_mb(two_updates(side, WORKS[work]))))
        return

    report = Report("end_to_end", options)
    speed, memory = [], []
    for name, work in WORKS.items():
        for split, parts in MICRO_BATCHES.items():
            trl, ours = compare(work, options.rounds, parts)
            update = [trl.update.cpu, ours.update.cpu, ratio(trl.update, ours.update)]
            rates = [work.sampled_tokens / side.generation.cpu for side in (trl, ours)]
            speed.append([f"{name}, TRL: {split}", *update, *rates, ratio(trl.generation, ours.generation)])
            print(*map(shown, speed[-1]), flush=True)
        peaks = {
            side: fresh_process("--threads", str(options.threads), "--memory", side, name)
            for side in ("ours", *MICRO_BATCHES, "4 micro-batches, gradient checkpointing")
        }
        memory += [
            [f"{name}, TRL: {side}", peak, peaks["ours"], peaks["ours"] / peak]
            for side, peak in peaks.items()
            if side != "ours"
        ]
    columns = ["work", "TRL, CPU s", "ours, CPU s", "times", "TRL, tokens/s", "ours, tokens/s", "times in generation"]
    report.table(
        "An update",
        columns,
        speed,
        "tokens/s: sampled tokens per CPU second of generation; times: median over rounds of TRL's CPU time over ours",
    )
    report.table("Growth of resident memory", ["work", "TRL, MB", "ours, MB", "ours / TRL"], memory)
    report.finish()


def compare(work: Work, rounds: int, parts: int) -> tuple[Trl, Ours]:
    """`rounds` counted updates of both sides, in turn; TRL's batch in `parts` micro-batches."""
    trl, ours = Trl(work, steps=rounds + 1, parts=parts), Ours(work)
    trl.after_step = ours.step
    trl.run()
    if trl.tokens != ours.tokens or ours.tokens[0][0] != work.sampled_tokens:
        raise SystemExit(f"the sides did not do the same work: (sampled, all) tokens {trl.tokens}, {ours.tokens}")
    for side in (trl, ours):
        side.forget_first()
    return trl, ours


def two_updates(side: str, work: Work) -> Callable[[], None]:
    """What to measure the memory of; the side stands ready."""
    if side == "ours":
        ours = Ours(work)
        return lambda: [ours.step() for _ in range(2)][1]
    split, _, checkpointing = side.partition(", ")
    return Trl(work, steps=2, parts=MICRO_BATCHES[split], checkpointing=bool(checkpointing)).run


if __name__ == "__main__":
    main()
