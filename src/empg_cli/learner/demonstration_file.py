"""The demonstrations of a file as lessons: which rows they become, which are held out, in which order they train."""

from __future__ import annotations

import itertools
import logging
import math
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from empg_cli.agents.agent import AgentMaker
from empg_cli.agents.chat_template import ChatTemplateError
from empg_cli.agents.codec import ChatCodec
from empg_cli.agents.conversation import rows_of
from empg_cli.benchmarks.base import Benchmark
from empg_cli.config.schema import TrainConfig
from empg_cli.errors import DataError, UserError
from empg_cli.learner.demonstrations import ImitationRow, Lessons, trains
from empg_cli.learner.replay import replayed, tasks_of
from empg_cli.runs.demonstrations import Conversation, KeptEpisode, Told, refuse_if_compact
from empg_cli.signals import obey
from empg_cli.types import Task

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Shown:
    """A demonstration as it is read."""

    rows: list[ImitationRow]
    source: str
    """Task or line; demonstrations of one source are held out together."""


def file_lessons(told: Sequence[Told], benchmark: Benchmark, make_agent: AgentMaker[int], cfg: TrainConfig) -> Lessons:
    """What a file says, in the form that the run plays in. What is left out is counted in the log.

    Raises:
        UserError: nothing of it can be imitated, or it does not go with the model or the benchmark.
    """
    settings = cfg.trainer.warm_start
    left_out: Counter[str] = Counter()
    found = list(_shown(told, benchmark, make_agent, cfg, left_out))
    for reason, count in left_out.items():
        log.warning("warm start: %d of %d demonstrations are left out: %s", count, len(told), reason)
    if not found:
        raise UserError(
            f"trainer.warm_start.file={settings.file}: nothing of it can be imitated\n"
            + "".join(f"  {count} of {len(told)}: {reason}\n" for reason, count in left_out.items()).rstrip()
        )
    training, held_out = split(found, settings.held_out, seed=cfg.seed)
    size = settings.batch_size
    total = settings.steps * size or settings.epochs * len(training)
    steps = math.ceil(total / size)
    log.info(
        "warm start: %d demonstrations train and %d are held out; %d steps of %d are %.3g passes",
        len(training), len(held_out), steps, min(size, total), total / len(training),
    )  # fmt: skip

    def batches(first: int) -> Iterator[Sequence[ImitationRow]]:
        order = in_order(len(training), total, seed=cfg.seed)
        for start in range(0, total, size):
            chosen = list(itertools.islice(order, size))
            if start >= first * size:
                yield [row for number in chosen for row in training[number].rows]

    return Lessons(batches, steps, [row for shown in held_out for row in shown.rows])


def in_order(count: int, total: int, *, seed: int) -> Iterator[int]:
    """`total` numbers below `count`: whole passes, each in an order of its own, and the beginning of the next."""
    for start in range(0, total, count):
        numbers = list(range(count))
        random.Random(f"warm-start/{seed}/pass/{start // count}").shuffle(numbers)
        yield from numbers[: total - start]


def split(found: Sequence[Shown], share: float, *, seed: int) -> tuple[list[Shown], list[Shown]]:
    """Those that train, and those of about this share of the sources: at least one of each kind where there are two."""
    sources = list(dict.fromkeys(shown.source for shown in found))
    count = min(max(1, round(share * len(sources))), len(sources) - 1) if share else 0
    random.Random(f"warm-start/{seed}/held-out").shuffle(sources)
    apart = set(sources[:count])
    return [shown for shown in found if shown.source not in apart], [one for one in found if one.source in apart]


def _shown(
    told: Sequence[Told],
    benchmark: Benchmark,
    make_agent: AgentMaker[int],
    cfg: TrainConfig,
    left_out: Counter[str],
) -> Iterator[Shown]:
    if isinstance(told[0], Conversation):
        yield from _conversations(told, make_agent, cfg, left_out)
    else:
        yield from _episodes(told, benchmark, make_agent, cfg, left_out)


def _conversations(
    told: Sequence[Told], make_agent: AgentMaker[int], cfg: TrainConfig, left_out: Counter[str]
) -> Iterator[Shown]:
    refuse_if_compact(told, cfg.model.prompt)
    settings, most = cfg.trainer.warm_start, cfg.rollout.max_context_tokens
    codec, apart = make_agent().codec, 0
    for one in told:
        obey()
        assert isinstance(one, Conversation) and isinstance(codec, ChatCodec)
        rows = _conversation_rows(codec, one, settings.prompt_weight)
        apart += len(rows) > 1
        if max(len(row.token_ids) for row in rows) > most:
            left_out[f"more than rollout.max_context_tokens={most} tokens"] += 1
        elif not any(any(row.weights[1:]) for row in rows):
            left_out["every answer has weight 0"] += 1
        else:
            yield Shown(rows, one.where)
    if apart:
        log.info("warm start: in %d of %d conversations the chat template shows earlier answers otherwise than they "
                 "were written (thoughts dropped), so each answer is a row of its own", apart, len(told))  # fmt: skip


def _conversation_rows(codec: ChatCodec, one: Conversation, prompt_weight: float) -> list[ImitationRow]:
    try:
        pieces = rows_of(codec, one.messages)
    except ChatTemplateError as error:
        raise DataError(f"{one.where}: {error}") from error
    rows = []
    for own in pieces:
        row = ImitationRow()
        for piece in own:
            weight = prompt_weight if piece.message is None else float(one.messages[piece.message].trains)
            row.add(piece.token_ids, weight)
        rows.append(row)
    return rows


def _episodes(
    told: Sequence[Told],
    benchmark: Benchmark,
    make_agent: AgentMaker[int],
    cfg: TrainConfig,
    left_out: Counter[str],
) -> Iterator[Shown]:
    settings = cfg.trainer.warm_start
    tasks: dict[str, Mapping[str, Task]] = {}
    evaluated, another_way = 0, ""
    for one in told:
        obey()
        assert isinstance(one, KeptEpisode)
        if not (one.success or settings.keep_failed):
            left_out["not solved (trainer.warm_start.keep_failed=true imitates them too)"] += 1
            continue
        if one.split not in tasks:
            tasks[one.split] = tasks_of(benchmark, one.split, one.where)
        if (task := tasks[one.split].get(one.task_id)) is None:
            raise DataError(
                f"{one.where}: no task {one.task_id!r} in split {one.split} of this benchmark; give benchmark.* the "
                "data and settings that the episode was played with"
            )
        found = replayed(benchmark, task, one, make_agent, prompt_weight=settings.prompt_weight, rollout=cfg.rollout)
        if found.did_not_fit:
            left_out[f"does not fit into {found.did_not_fit.partition(' ')[0]}"] += 1
        elif found.broke:
            another_way = another_way or f"goes another way here, such as {found.broke}"
            left_out[another_way] += 1
        elif not trains(found, settings):
            left_out["no move of it trains"] += 1
        else:
            evaluated += one.split == cfg.benchmark.split
            yield Shown(found.rows, f"{one.split}/{one.task_id}")
    if evaluated:
        log.warning("warm start: %d demonstrations are of split %s, which this run evaluates on: its evaluations then "
                    "say nothing of unseen tasks", evaluated, cfg.benchmark.split)  # fmt: skip
