"""What fits: the numbers that `auto` stands for, and the settings that would make a run fit which does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from empg_cli.config.schema import Lora
from empg_cli.planning.job import EIGHT_BITS, FEWEST_TOKENS, MOST_TOKENS, Job, adapter_of
from empg_cli.planning.memory import (
    bytes_beside_an_episode,
    cache_bytes_of_an_episode,
    peak,
    phases,
)

FILLED = 0.9
"""Share of the memory that `auto` fills."""
CLEARLY = 0.85
"""Only what does not fit even at this share of its estimate is refused: estimates may be wrong by 15 %."""
PROPOSED = 3
"""Ways out that are told at most."""
FEWEST_CONTEXT = 1024
SHARES = (0.5, 0.4, 0.3)
"""Of a GPU that servers might have."""
SERVED = 1.5
"""Times its weights that a server needs at least: cache and activations too."""
LORA_RANK = 32


def settled(job: Job, memory: int | None) -> Job:
    """The job with numbers in the place of auto: as many episodes at once, and tokens in a micro-batch, as fit.

    Args:
        memory: bytes; None = not known, so that nothing is bounded by it.
    """
    most = MOST_TOKENS[job.device]
    if memory is None:
        return job.settled(concurrent=job.episodes, microbatch=most)
    return job.settled(concurrent=_episodes(job, memory), microbatch=_tokens(job, memory, most))


def _episodes(job: Job, memory: int) -> int:
    if not job.plays:
        return job.episodes
    none = replace(job, concurrent=0, microbatch=FEWEST_TOKENS)
    (rollout,) = (phase for phase in phases(none) if phase.name == "rollout")
    each = cache_bytes_of_an_episode(job) + bytes_beside_an_episode(job)
    return max(1, min(job.episodes, int(FILLED * memory - rollout.total) // each))


def _tokens(job: Job, memory: int, most: int) -> int:
    """Of `most` and its halves the largest that fits. A row is never split, so fewer than the context save nothing."""
    tokens = most
    while tokens > max(FEWEST_TOKENS, job.context) and not _learns(
        replace(job, microbatch=tokens, concurrent=1), memory
    ):
        tokens //= 2
    return tokens


def _learns(job: Job, memory: int) -> bool:
    return all(phase.total <= FILLED * memory for phase in phases(job) if phase.name in ("score", "update"))


def is_clearly_too_large(job: Job, memory: int | None) -> bool:
    return memory is not None and CLEARLY * peak(job).total > memory


def fits(job: Job, memory: int | None) -> bool:
    return memory is None or peak(job).total <= memory


@dataclass(frozen=True, slots=True)
class WayOut:
    settings: tuple[str, ...]
    """Overrides."""
    job: Job

    @property
    def text(self) -> str:
        return " ".join(self.settings)


Lever = Callable[[Job], Iterator[WayOut]]
"""A job -> the same with one setting less hungry, the mildest first."""


def _fewer_at_once(job: Job) -> Iterator[WayOut]:
    if job.concurrent is not None and job.concurrent > 1:
        yield WayOut(("rollout.max_concurrent=auto",), replace(job, concurrent=None))


def _smaller_servers(job: Job) -> Iterator[WayOut]:
    for share in SHARES:
        size = int(job.served_bytes * share / job.served_share) if share < job.served_share else 0
        if size > SERVED * job.shape.parameters * job.dtype_bytes:
            settings = (f"rollout.vllm.gpu_memory={share}",)
            yield WayOut(settings, replace(job, served_share=share, served_bytes=size))


def _smaller_passes(job: Job) -> Iterator[WayOut]:
    if job.microbatch is None or not job.train_episodes:
        return
    tokens = job.microbatch
    while tokens // 2 >= max(FEWEST_TOKENS, job.context):
        tokens //= 2
        yield WayOut((f"trainer.tokens_per_microbatch={tokens}",), replace(job, microbatch=tokens))


def _checkpointing(job: Job) -> Iterator[WayOut]:
    if job.train_episodes and not job.has_checkpointing:
        yield WayOut(("model.gradient_checkpointing=true",), replace(job, has_checkpointing=True))


def _no_reference(job: Job) -> Iterator[WayOut]:
    if job.has_reference and not job.has_adapter:
        yield WayOut(("algo.loss.kl_coef=0",), replace(job, has_reference=False))


def _eight_bits(job: Job) -> Iterator[WayOut]:
    if job.train_episodes and job.moment_bytes > EIGHT_BITS:
        yield WayOut(("trainer.optimizer=adamw8bit",), replace(job, moment_bytes=EIGHT_BITS))


def _adapter(job: Job) -> Iterator[WayOut]:
    if job.train_episodes and not job.has_adapter and job.is_chat:  # random weights get none
        adapter = adapter_of(job.shape, Lora(rank=LORA_RANK, alpha=1.0, targets=None))
        assert adapter is not None, "all layers that are known"
        yield WayOut((f"model.lora.rank={LORA_RANK}",), replace(job, adapter=adapter))


def _shorter(job: Job) -> Iterator[WayOut]:
    context = job.context
    while context // 2 >= max(FEWEST_CONTEXT, 2 * job.new_tokens):
        context //= 2
        yield WayOut((f"rollout.max_context_tokens={context}",), replace(job, context=context))


LEVERS: Sequence[Lever] = (
    _fewer_at_once,
    _smaller_servers,
    _smaller_passes,
    _checkpointing,
    _eight_bits,
    _adapter,
    _no_reference,
    _shorter,
)
"""Those that change no result first."""


def ways_out(job: Job, memory: int) -> list[WayOut]:
    """The smallest sets of settings with which the estimate fits, `PROPOSED` of them at most; none where none does."""
    for number in range(1, len(LEVERS) + 1):
        found = []
        for levers in combinations(LEVERS, number):
            way = next(
                (way for way in _pulled(job, levers) if fits(settled(way.job, memory), int(FILLED * memory) + 1)), None
            )
            if way is not None:
                found.append(WayOut(way.settings, settled(way.job, memory)))
        if found:
            return found[:PROPOSED]
    return []


def _pulled(job: Job, levers: Sequence[Lever]) -> Iterator[WayOut]:
    """All the settings of these levers together, each lever pulled."""
    if not levers:
        yield WayOut((), job)
        return
    first, *rest = levers
    for way in first(job):
        for more in _pulled(way.job, rest):
            yield WayOut((*way.settings, *more.settings), more.job)
