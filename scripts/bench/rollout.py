"""How fast does the rollout engine sample? Against Hugging Face's `generate` on the same weights.

    python scripts/bench/rollout.py                            # about 10 CPU minutes, most of it `generate` at 50 turns
    python scripts/bench/rollout.py --only turns12 single64

The model is Qwen2 with hidden size 128, 4 layers, 4 query and 2 key-value heads, MLP 384, vocabulary 2,048, fp32,
random weights and no stop token, so both sides sample equally many tokens. `generate` reads the whole history in every
turn, padded on the left, with its dynamic cache within the turn and sdpa attention: what a trainer around it does.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from common import Report, argument_parser, interleaved, ratio
from empg_cli.model.attention import POLICY_ATTENTION
from empg_cli.model.policy import Policy
from empg_cli.rollout.engine import Sampling
from empg_cli.rollout.torch_engine.engine import TorchEngine
from kernel_parts import NOTE, PARTS, kernel_parts
from rollout_sides import PAD, generated

VOCABULARY = 2048
GROUP = 8
CASES = ("turns12", "turns50", "single8", "single64", "window", "ragged", "prefix", "step8", "step64")

Prompts = list[list[int]]


@dataclass(frozen=True, slots=True)
class Turn:
    prompts: Prompts
    """Per row, what is new in this turn; with window context the whole prompt."""
    new_tokens: int
    """Tokens that every row samples."""


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--long-episodes", type=int, default=8, help="episodes of 50 turns (8); generate takes minutes")
    parser.add_argument("--only", nargs="+", choices=CASES, default=CASES)
    options = parser.parse_args()
    report = Report("rollout", options)
    hf, ours = models()
    with torch.inference_mode():
        against_generate(report, options, hf, ours)
        if "ragged" in options.only:
            ragged_answers(report, options)
        if "prefix" in options.only:
            prefix_sharing(report, options, ours)
        rows = [decode_step(size, ours) for size in (8, 64) if f"step{size}" in options.only]
        if rows:
            report.table(
                "One decoding step, 384 columns: where its time goes",
                ["rows", "CPU ms", "tokens / CPU s", *PARTS],
                rows,
                NOTE,
            )
    report.finish()


def models() -> tuple[Qwen2ForCausalLM, Policy]:
    """Two of the same weights: for `generate`, and for the engine."""
    ours = model_of(VOCABULARY, hidden=128, layers=4, mlp=384)
    hf = Qwen2ForCausalLM(copy.deepcopy(ours.model.config)).eval()
    hf.set_attn_implementation("sdpa")
    hf.load_state_dict(ours.model.state_dict())
    return hf, ours


def model_of(vocabulary: int, *, hidden: int, layers: int, mlp: int) -> Policy:
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=mlp,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        pad_token_id=PAD,
        bos_token_id=None,
        eos_token_id=None,
    )
    torch.manual_seed(0)
    network = Qwen2ForCausalLM(config).eval()
    network.set_attn_implementation(POLICY_ATTENTION)
    return Policy(network, None, torch.device("cpu"))


def against_generate(report: Report, options: argparse.Namespace, hf: Qwen2ForCausalLM, ours: Policy) -> None:
    generator = np.random.default_rng(0)
    long = options.long_episodes
    cases: dict[str, tuple[str, list[Turn], bool, int]] = {
        "turns12": ("32 episodes, 12 turns", episodes(generator, 32, 12), True, options.repeats),
        "turns50": (f"{long} episodes, 50 turns", episodes(generator, long, 50), True, 1),
        "window": ("32 episodes, 12 turns, window", windows(generator, 32, 12), False, options.repeats),
        "single8": ("8 rows, 1 turn", single(generator, 8), True, 5 * options.repeats),
        "single64": ("64 rows, 1 turn", single(generator, 64), True, options.repeats),
    }
    rows = []
    for name, (label, turns, append_only, repeats) in cases.items():
        if name not in options.only:
            continue
        times = interleaved(
            {
                "generate": partial(with_generate, hf, turns, append_only=append_only),
                "ours": partial(with_engine, ours, turns, append_only=append_only),
            },
            repeats=repeats,
            warmup=1 if name.startswith("single") else 0,
        )
        tokens = sum(len(turn.prompts) * turn.new_tokens for turn in turns)
        slow, fast = times["generate"], times["ours"]
        rates = [tokens / slow.cpu, tokens / fast.cpu, ratio(slow, fast)]
        rows.append([label, slow.cpu, fast.cpu, *rates, slow.wall / fast.wall])
        print(label, *rates, flush=True)
    if rows:
        report.table(
            "Sampled tokens per CPU second, against generate over the whole history",
            [
                "case",
                "generate CPU s",
                "empg CPU s",
                "generate tokens / CPU s",
                "empg tokens / CPU s",
                "ratio",
                "wall ratio",
            ],
            rows,
            "Turns: prompt 160 (groups of 8 share it), then 20 to 60 observed and 4 to 12 sampled tokens each.",
            "Window: 120 tokens that stay, 60 to 180 new ones, 8 sampled. One turn: 256 to 384 read, 24 sampled.",
        )


def random_tokens(generator: np.random.Generator, low: int, high: int) -> list[int]:
    return [int(token) for token in generator.integers(1, VOCABULARY, size=generator.integers(low, high + 1))]


def episodes(generator: np.random.Generator, rows: int, turns: int) -> list[Turn]:
    first = [random_tokens(generator, 160, 160) for _ in range(-(-rows // GROUP))]
    prompts = [[list(first[row // GROUP]) for row in range(rows)]]
    prompts += [[random_tokens(generator, 20, 60) for _ in range(rows)] for _ in range(turns - 1)]
    return [Turn(new, int(generator.integers(4, 13))) for new in prompts]


def windows(generator: np.random.Generator, rows: int, turns: int) -> list[Turn]:
    fixed = [random_tokens(generator, 120, 120) for _ in range(-(-rows // GROUP))]
    return [
        Turn([fixed[row // GROUP] + random_tokens(generator, 60, 180) for row in range(rows)], new_tokens=8)
        for _ in range(turns)
    ]


def single(generator: np.random.Generator, rows: int) -> list[Turn]:
    return [Turn([random_tokens(generator, 256, 384) for _ in range(rows)], new_tokens=24)]


def with_engine(policy: Policy, turns: Sequence[Turn], *, append_only: bool, share: bool = True) -> None:
    engine = TorchEngine(policy, [], share_prefixes=share)
    generator = np.random.default_rng(0)
    draws = [[generator.random(turn.new_tokens) for _ in turn.prompts] for turn in turns]

    async def episode(row: int) -> None:
        past: list[int] = []
        for turn, drawn in zip(turns, draws, strict=True):
            prompt = [*past, *turn.prompts[row]]
            sampling = Sampling(temperature=1.0, max_new_tokens=turn.new_tokens)
            answer = await engine.generate(prompt, episode=row, draws=drawn[row], sampling=sampling)
            assert len(answer.response) == turn.new_tokens
            past = [*prompt, *answer.response] if append_only else []
        engine.close(row)

    asyncio.run(all_of([episode(row) for row in range(len(turns[0].prompts))]))


async def all_of(coroutines: Sequence[Coroutine[Any, Any, None]]) -> None:
    await asyncio.gather(*coroutines)


@dataclass(frozen=True, slots=True)
class Ragged:
    """Episodes whose answers differ in length: an answer ends with probability 1 / mean at each token."""

    label: str
    mean: int
    cap: int
    opening: int
    observed: tuple[int, int]
    """Tokens of a turn after the first, from and to."""


RAGGED_VOCABULARY, RAGGED_ROWS, RAGGED_TURNS = 912, 64, 12
EPISODES = 4 * RAGGED_ROWS
RAGGED = (
    Ragged("answers of 8 tokens on average, 2 to 6 observed", 8, 24, 24, (2, 6)),
    Ragged("answers of 16 tokens on average, 10 to 20 observed", 16, 48, 60, (10, 20)),
)


def ragged_answers(report: Report, options: argparse.Namespace) -> None:
    """A turn that waits for nobody, against one that waits for the longest answer of all 64 rows."""
    policy = model_of(RAGGED_VOCABULARY, hidden=96, layers=3, mlp=192)
    rows = []
    for case in RAGGED:
        tokens = play_ragged(policy, case, in_step=False)
        assert tokens == play_ragged(policy, case, in_step=True), "the same draws give the same answers"
        times = interleaved(
            {
                "in step": lambda case=case: play_ragged(policy, case, in_step=True),  # type: ignore[misc]
                "ours": lambda case=case: play_ragged(policy, case, in_step=False),  # type: ignore[misc]
            },
            repeats=2 * options.repeats,
        )
        slow, fast = times["in step"], times["ours"]
        rows.append([case.label, slow.cpu, fast.cpu, tokens / slow.cpu, tokens / fast.cpu, ratio(slow, fast)])
    report.table(
        "Answers that differ in length: nobody waits for the longest",
        ["case", "in step CPU s", "empg CPU s", "in step tokens / CPU s", "empg tokens / CPU s", "ratio"],
        rows,
        f"{EPISODES} episodes of {RAGGED_TURNS} turns, {RAGGED_ROWS} at once, answers cut at three times their "
        "mean; the shape of the shipped ALFWorld agent.",
    )


def play_ragged(policy: Policy, case: Ragged, *, in_step: bool) -> int:
    """Tokens that all episodes sampled together."""
    generator = np.random.default_rng(0)
    openings = [random_tokens(generator, case.opening, case.opening) for _ in range(EPISODES // GROUP)]
    turns = [
        [openings[row // GROUP], *(random_tokens(generator, *case.observed) for _ in range(RAGGED_TURNS - 1))]
        for row in range(EPISODES)
    ]
    # A random model likes all tokens about as well.
    engine = TorchEngine(policy, range(round(RAGGED_VOCABULARY / case.mean)))
    sampling = Sampling(temperature=1.0, max_new_tokens=case.cap)
    tokens = 0

    async def episode(row: int, places: asyncio.Semaphore, barrier: asyncio.Barrier | None) -> None:
        nonlocal tokens
        rng, past = np.random.default_rng([1, row]), list[int]()
        async with places:
            for new in turns[row]:
                past += [1 + token % (RAGGED_VOCABULARY - 1) for token in new]
                answer = await engine.generate(past, episode=row, draws=rng.random(case.cap), sampling=sampling)
                past += answer.response
                tokens += len(answer.response)
                if barrier:
                    await barrier.wait()
            engine.close(row)

    async def play() -> None:
        places = asyncio.Semaphore(RAGGED_ROWS)
        barrier = asyncio.Barrier(RAGGED_ROWS) if in_step else None
        await all_of([episode(row, places, barrier) for row in range(EPISODES)])

    asyncio.run(play())
    return tokens


def with_generate(model: Any, turns: Sequence[Turn], *, append_only: bool) -> None:
    history: Prompts = [[] for _ in turns[0].prompts]
    for turn in turns:
        history = [[*(old if append_only else []), *new] for old, new in zip(history, turn.prompts, strict=True)]
        answers = generated(model, history, turn.new_tokens)
        history = [row + new for row, new in zip(history, answers, strict=True)]


def prefix_sharing(report: Report, options: argparse.Namespace, ours: Policy) -> None:
    generator = np.random.default_rng(1)
    rows = []
    for label, turns, append_only in (
        ("first turn: 64 rows, groups of 8, prompt 512", [first_turn(generator)], True),
        ("32 episodes, 12 turns", episodes(generator, 32, 12), True),
        ("32 episodes, 12 turns, window", windows(generator, 32, 12), False),
    ):
        times = interleaved(
            {
                "off": partial(with_engine, ours, turns, append_only=append_only, share=False),
                "on": partial(with_engine, ours, turns, append_only=append_only),
            },
            repeats=options.repeats,
        )
        rows.append([label, times["off"].cpu, times["on"].cpu, ratio(times["off"], times["on"])])
    report.table("Shared beginnings computed once", ["case", "off CPU s", "on CPU s", "ratio"], rows)


def first_turn(generator: np.random.Generator) -> Turn:
    prompts = [random_tokens(generator, 512, 512) for _ in range(8)]
    return Turn([list(prompts[row // GROUP]) for row in range(64)], new_tokens=8)


def decode_step(size: int, ours: Policy, *, columns: int = 384, steps: int = 24) -> list[object]:
    """CPU milliseconds of one step at `columns` columns on average, and the shares of its parts."""
    generator = np.random.default_rng(2)
    start = columns - steps // 2
    prompts = [random_tokens(generator, start, start) for _ in range(size)]
    first = Turn(prompts, new_tokens=1)
    engine = TorchEngine(ours, [])
    past: Prompts = [[] for _ in prompts]

    def play(turn: Turn) -> None:
        async def row(number: int) -> None:
            past[number] += turn.prompts[number]
            sampling = Sampling(temperature=1.0, max_new_tokens=turn.new_tokens)
            draws = generator.random(turn.new_tokens)
            answer = await engine.generate(past[number], episode=number, draws=draws, sampling=sampling)
            past[number] += answer.response

        asyncio.run(all_of([row(number) for number in range(size)]))

    def respond() -> None:
        play(Turn([[1]] * size, new_tokens=steps))

    play(first)
    respond()
    seconds = interleaved({"step": respond}, repeats=5, warmup=0)["step"].cpu / steps
    shares = [f"{share:.0%}" for share in kernel_parts(respond)]
    return [str(size), seconds * 1e3, size / seconds, *shares]


if __name__ == "__main__":
    main()
