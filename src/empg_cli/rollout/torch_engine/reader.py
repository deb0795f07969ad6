"""What the model has read of each open episode, and how it reads on: only what is new, packed, without padding."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from empg_cli.model.policy import Policy
from empg_cli.model.windows import windows_of
from empg_cli.rollout.torch_engine.cache import EpisodeCache
from empg_cli.rollout.torch_engine.decoding import Decoder, capture_of
from empg_cli.rollout.torch_engine.plans import ChunkPlan
from empg_cli.rollout.torch_engine.reading import Chunk, positions

TOKENS_AT_ONCE = 2048
"""Tokens in one forward pass, but for a single longer prompt: bounds memory."""
CPU_ACTIVATIONS = 2**22
"""Bytes, four times hidden states in float32: more fall out of a CPU's caches between two layers. Takes tokens ..."""
CPU_TOKENS_AT_LEAST = 256
"""... but no more than down to these, since every pass reads the weights."""
SHARED_AT_LEAST = 16
"""A common beginning of different prompts that is shorter is not worth a forward pass of its own."""


@dataclass(slots=True, eq=False)
class Row:
    """The model's side of one episode."""

    slot: int
    read: list[int] = field(default_factory=list)
    """Token ids whose keys and values are in the slot's columns."""
    family: int = -1
    """Rows of one number began with the same prompt; -1 before the first."""
    shared: int = 0
    """Tokens at the beginning of `read` that are still those of the family's first prompt."""

    def chunk(self, stop: int) -> Chunk:
        """What it has not read yet of its first `stop` tokens."""
        return Chunk(self.slot, len(self.read), stop, self.family, self.shared)

    def forget_beyond(self, prompt: Sequence[int], *, share: bool) -> None:
        """Keep what the prompt begins with; its last token is always read, as its output is asked for.

        share: else only a whole beginning is kept, as in a transcript.
        """
        length = min(common_prefix(self.read, prompt), len(prompt) - 1)
        if length < len(self.read):
            self.read = self.read[:length] if share else []
            self.shared = min(self.shared, len(self.read))


class Reader:
    """share: keys and values that the cache holds already are copied, not computed again: the first prompt of a group,
    the beginning that all first prompts have in common, and the beginning of a window that the episode has read.
    most_columns: tokens of the longest episode there can be; None = not known.
    burst: tokens that `decode` draws at most before anybody looks at them."""

    def __init__(self, policy: Policy, *, share: bool, most_columns: int | None = None, burst: int = 0) -> None:
        self._policy, self._share, self._most_columns = policy, share, most_columns
        self._burst = burst
        self._decoder: Decoder | None = None
        self._rows: dict[Hashable, Row] = {}
        self._cache = self._empty_cache()
        self._families = 0
        self._at_once = _tokens_at_once(policy)

    def __len__(self) -> int:
        """Open episodes."""
        return len(self._rows)

    @torch.inference_mode()
    def close(self, episode: Hashable) -> None:
        """Its slot goes to the row in the highest one: the slots in use stay neighbours, which are read together."""
        gone = self._rows.pop(episode, None)
        if gone is None:
            return
        if not self._rows:
            # An update needs the memory, and makes what it held wrong.
            self._cache, self._decoder = self._empty_cache(), None
            return
        last = max(self._rows.values(), key=lambda row: row.slot)
        if last.slot > gone.slot:
            self._cache.copy(last.slot, [gone.slot], 0, len(last.read))
            last.slot = gone.slot

    def open(self, prompts: Sequence[tuple[Hashable, list[int]]], *, columns: int) -> list[Row]:
        """The rows that read these prompts, each ready to read on from what it holds of its own.

        Args:
            columns: tokens of the longest episode among them, with what will be sampled.
        """
        new = [episode for episode, _ in prompts if episode not in self._rows]
        self._cache.reserve(slots=len(self._rows) + len(new), columns=columns)
        self._rows |= {episode: Row(slot) for slot, episode in enumerate(new, len(self._rows))}
        for episode, prompt in prompts:
            self._rows[episode].forget_beyond(prompt, share=self._share)
        return [self._rows[episode] for episode, _ in prompts]

    def read(self, rows: Sequence[Row], contexts: Sequence[list[int]]) -> Tensor:
        """Read what is new in each context; returns the logits [B, V] after each.

        rows: in the order of their slots, since neighbouring slots are read together.
        """
        leaders = list(range(len(rows)))  # leaders[i]: the row that reads the context of row i
        fresh = [number for number, row in enumerate(rows) if not row.read]
        if self._share and fresh:
            first: dict[tuple[int, ...], int] = {}
            for number in fresh:
                leaders[number] = first.setdefault(tuple(contexts[number]), number)
            self._read_beginnings([(rows[number], contexts[number]) for number in first.values()])
        readers = sorted(set(leaders)) if fresh else leaders
        logit_BV = self._forward([rows[n] for n in readers], [contexts[n] for n in readers])
        for leader in {leaders[number] for number in fresh}:
            followers = [rows[n] for n in fresh if leaders[n] == leader and n != leader]
            self._copy(rows[leader], followers, len(contexts[leader]))
            if self._share and rows[leader].family == -1:
                self._families += 1
                for row in (rows[leader], *followers):
                    row.family, row.shared = self._families, len(contexts[leader])
        if len(readers) < len(rows):
            place = {leader: number for number, leader in enumerate(readers)}
            logit_BV = logit_BV[[place[leader] for leader in leaders]]
        return logit_BV

    def decode(
        self,
        rows: Sequence[Row],
        contexts: Sequence[list[int]],
        uniform_KN: np.ndarray,
        temperature: float,
        top_p: float,
    ) -> np.ndarray:
        """Read the last token of each context, draw one, read that, and so on: K tokens for each of N rows, whatever
        they say. How many of them count is said by `keep`.

        Args:
            rows: all has been read of each context but its last token, and there is room for K more.

        Returns:
            Token, log-prob and entropy of each draw: float64 [3, K, N].
        """
        decoder = self._decoder_of_cache()
        slot_N = np.array([row.slot for row in rows])
        slots = decoder.slots(int(slot_N.max()))
        token_P, position_P, moves_P = np.zeros((3, slots), dtype=np.int64)
        for row in self._rows.values():
            if row.slot < slots:
                position_P[row.slot] = len(row.read)
        token_P[slot_N], moves_P[slot_N] = [context[-1] for context in contexts], 1
        uniform_KP = np.zeros((len(uniform_KN), slots))
        uniform_KP[:, slot_N] = uniform_KN
        drawn_3KP = decoder.burst(token_P, position_P, moves_P, uniform_KP, temperature, top_p)
        return drawn_3KP[:, :, slot_N]

    def keep(self, row: Row, context: Sequence[int]) -> None:
        """After `decode`: this is what counts, its last token not yet read."""
        row.read += context[len(row.read) : -1]

    def _decoder_of_cache(self) -> Decoder:
        """Made anew with the cache and when it grows, for its tensors are others then."""
        cache = self._cache
        if self._decoder is None or self._decoder.shape != (cache.slots, cache.columns):
            self._decoder = Decoder(self._policy, cache, most_passes=self._burst, capture=capture_of(self._policy))
        return self._decoder

    def _read_beginnings(self, fresh: Sequence[tuple[Row, list[int]]]) -> None:
        """Fill fresh rows with the longest beginning that another row holds, or that all of them have in common."""
        donors = [row for row in self._rows.values() if row.read]
        alone = []
        for row, context in fresh:
            lengths = [common_prefix(donor.read, context) for donor in donors]
            length = min(max(lengths, default=0), len(context) - 1)
            if length >= SHARED_AT_LEAST:
                self._copy(donors[int(np.argmax(lengths))], [row], length)
            else:
                alone.append((row, context))
        if len(alone) > 1:
            contexts = [context for _, context in alone]
            length = min(common_prefix(min(contexts), max(contexts)), min(map(len, contexts)) - 1)
            if length >= SHARED_AT_LEAST:
                self._forward([alone[0][0]], [contexts[0][:length]])
                self._copy(alone[0][0], [row for row, _ in alone[1:]], length)

    def _copy(self, source: Row, targets: Sequence[Row], length: int) -> None:
        if targets:
            self._cache.copy(source.slot, [row.slot for row in targets], 0, length)
            for row in targets:
                row.read = source.read[:length]

    def _forward(self, rows: Sequence[Row], contexts: Sequence[list[int]]) -> Tensor:
        """Read the rest of each context; returns the logits [B, V] after it."""
        chunks = [row.chunk(len(context)) for row, context in zip(rows, contexts, strict=True)]
        new = [context[len(row.read) :] for row, context in zip(rows, contexts, strict=True)]
        logits = [self._pass(chunks[part], new[part]) for part in _parts([len(ids) for ids in new], self._at_once)]
        for row, ids in zip(rows, new, strict=True):
            row.read += ids
        return torch.cat(logits) if len(logits) > 1 else logits[0]

    def _pass(self, chunks: Sequence[Chunk], ids: Sequence[Sequence[int]]) -> Tensor:
        """One forward pass over packed chunks; returns the logits [B, V] after each."""
        device = self._policy.device
        self._cache.aim(ChunkPlan(chunks))
        end_B = torch.from_numpy(np.cumsum([len(part) for part in ids]) - 1).to(device)
        logit_BV: Tensor = self._policy.lm(
            torch.tensor([[token for part in ids for token in part]], device=device),
            (torch.zeros_like(end_B), end_B),
            position_ids=torch.from_numpy(positions(chunks))[None].to(device),
            episodes=self._cache,
        )
        return logit_BV

    def _empty_cache(self) -> EpisodeCache:
        return EpisodeCache(0, windows_of(self._policy.model.config), most_columns=self._most_columns)


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """Number of equal items at the beginning of both."""
    length = min(len(left), len(right))
    if left[:length] == right[:length]:
        return length
    return next(number for number in range(length) if left[number] != right[number])


def _tokens_at_once(policy: Policy) -> int:
    if policy.device.type != "cpu":
        return TOKENS_AT_ONCE
    in_caches = CPU_ACTIVATIONS // (16 * policy.head.weight_VD.shape[1])
    return min(TOKENS_AT_ONCE, max(CPU_TOKENS_AT_LEAST, in_caches))


def _parts(sizes: Sequence[int], at_once: int) -> Iterator[slice]:
    """Consecutive chunks of at most `at_once` tokens together, or a single longer one."""
    start = total = 0
    for number, size in enumerate(sizes):
        if number > start and total + size > at_once:
            yield slice(start, number)
            start, total = number, 0
        total += size
    yield slice(start, len(sizes))
