"""About how long an update takes, from the products that it computes: an estimate, right within a factor of two or so.

The assumptions are those of a model on paper: episodes of full length, answers of 150 tokens in a chat, and the shares
of the hardware's speed that passes of each kind reach.
"""

from __future__ import annotations

from dataclasses import dataclass

from empg_cli.planning.hardware import Hardware
from empg_cli.planning.job import Job
from empg_cli.planning.shapes import Shape

ANSWER = {True: 150, False: 3}
"""Tokens of an answer, in a chat and in the compact form, where the limit allows them."""
OPENING = {True: 800, False: 60}
OBSERVATION = {True: 150, False: 11}
WINDOW = {True: 1600, False: 120}
"""Tokens of a prompt of a window, of which a share is read already."""
SMALL = 3 * 10**9
"""Parameters; models below reach less of a GPU's speed."""
LEARNING_SHARE = {"small": 0.3, "large": 0.4}
READING_SHARE = 0.45
MEMORY_SHARE = 0.65
STRAGGLERS = 1.35
"""Longest episode over the mean one."""
STEP_S = 0.004
"""Of decoding one token for all, whatever their number, on a GPU and on a CPU."""
CPU_LEARNING, CPU_READING, CPU_DECODING = 0.5, 0.4, 0.25
"""Shares of the speed of large products in float32, on a CPU."""


@dataclass(frozen=True, slots=True)
class Duration:
    """Seconds of an update, evaluations and checkpoints apart."""

    rollout_s: float
    learning_s: float
    basis: str
    """What they were reckoned with."""

    @property
    def total_s(self) -> float:
        return self.rollout_s + self.learning_s


@dataclass(frozen=True, slots=True)
class Work:
    """Tokens of an update, or of a rank's share of it."""

    turns: int
    answer: int
    learned: int
    """Read by each pass of scoring and learning."""
    sampled: int
    read: int
    """Read by the rollout, what its cache holds apart."""
    mean_context: int
    """Columns that a token sees."""


def work_of(job: Job) -> Work:
    chat = job.is_chat
    turns, answer = job.max_steps, min(ANSWER[chat], job.new_tokens)
    if job.is_append_only:
        room = max(1, (job.context - OPENING[chat]) // (answer + OBSERVATION[chat]))
        turns = min(turns, room)
        row = min(job.context, OPENING[chat] + turns * answer + (turns - 1) * OBSERVATION[chat])
        learned, read = row, OPENING[chat] // 8 + (turns - 1) * OBSERVATION[chat]
    else:
        row = min(job.context, WINDOW[chat] + answer)
        learned, read = turns * row, turns * (row - answer) * 3 // 4
    episodes = -(-job.train_episodes // job.spread.ranks)
    return Work(turns, answer, episodes * learned, episodes * turns * answer, episodes * read, row // 2)


def token_flops(shape: Shape, context: float) -> float:
    """Of all layers in a pass forward over a token that sees so many columns."""
    return 2 * shape.layers * shape.layer_parameters + 4 * shape.layers * shape.query_width * context


def head_flops(shape: Shape) -> float:
    """Of the logits of a token."""
    return 2 * shape.embedding


def duration(job: Job, hardware: Hardware, cpu_flops: float | None) -> Duration | None:
    """
    Args:
        cpu_flops: of products on this machine's threads; None = not measured, so that a CPU's time is not told.
    """
    assert job.concurrent is not None, "settled before it is asked for"
    work, shape = work_of(job), job.shape
    token = token_flops(shape, work.mean_context)
    head = head_flops(shape)
    scoring = job.has_reference + job.recomputes
    passes = job.epochs * (3 + job.has_checkpointing) + scoring
    head_passes = job.epochs * 4 + scoring
    learning = passes * token * work.learned + head_passes * head * work.sampled
    waves = -(-job.train_episodes // (job.spread.ranks * job.concurrent))
    steps = waves * work.turns * work.answer
    decoding = (token + head) * work.sampled
    if hardware.kind == "cpu":
        if cpu_flops is None:
            return None
        rollout_s = token * work.read / (CPU_READING * cpu_flops) + decoding / (CPU_DECODING * cpu_flops)
        learning_s = learning / (CPU_LEARNING * cpu_flops)
        basis = f"products at {cpu_flops / 1e9:.0f} GFLOP/s, as measured here now"
        return Duration(rollout_s + steps * STEP_S, learning_s, basis)
    card = hardware.card
    share = LEARNING_SHARE["small" if shape.parameters < SMALL else "large"]
    cached = job.concurrent * 2 * shape.layers * shape.key_width * work.mean_context * job.dtype_bytes
    step_s = STEP_S + (shape.parameters * job.dtype_bytes + cached) / (MEMORY_SHARE * card.bytes_per_s)
    rollout_s = STRAGGLERS * steps * step_s + token * work.read / (READING_SHARE * card.flops)
    basis = f"the data sheet of the {card.name}, {100 * share:.0f} % of its speed in learning"
    return Duration(rollout_s, learning / (share * card.flops), basis)
