"""Batched sampling with the training model itself.

Each episode's keys and values stay in the cache for all its turns. A turn reads only the tokens that are new to it, all
episodes packed into one row without padding; an episode whose response has ended leaves the decoding of the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from empg_cli.model.decoder import hidden_states
from empg_cli.model.loading import ModelError
from empg_cli.model.policy import Policy
from empg_cli.model.windows import windows_of
from empg_cli.rollout.engine import Response
from empg_cli.rollout.torch_engine.cache import EpisodeCache
from empg_cli.rollout.torch_engine.reading import Chunk, positions
from empg_cli.rollout.torch_engine.sampling import sample

TOKENS_AT_ONCE = 2048
"""Prompt tokens in one forward pass, but for a single longer prompt: bounds memory, and activations stay in the CPU's
caches."""
SHARED_AT_LEAST = 16
"""A common beginning of different prompts that is shorter is not worth a forward pass of its own."""

READ_LAYERS = frozenset({"full_attention", "sliding_attention"})
"""Of the kinds that Hugging Face configs list in `layer_types`."""


class TorchEngine:
    """share_prefixes: keys and values that the cache holds already are copied, not computed again: the first prompt of
    a group, the beginning that all first prompts have in common, and the beginning of a window that the episode has
    read before. Off, the same tokens come out up to rounding; only benchmarks and tests want that."""

    def __init__(self, policy: Policy, stop_ids: Sequence[int], *, share_prefixes: bool = True) -> None:
        config = policy.model.config.get_text_config()
        if foreign := sorted(set(getattr(config, "layer_types", None) or ()) - READ_LAYERS):
            raise ModelError(
                f"rollout.engine=torch reads layers of attention, full or in a sliding window, and {config.model_type} "
                f"has layers of {', '.join(foreign)}"
            )
        self.policy, self.share_prefixes = policy, share_prefixes
        self.stop_ids = frozenset(stop_ids)

    def start(self, num_rows: int, *, append_only: bool) -> TorchSession:
        return TorchSession(self, num_rows, append_only)


@dataclass(slots=True)
class _Row:
    """The model's side of one episode."""

    slot: int
    read: list[int] = field(default_factory=list)
    """Token ids whose keys and values are in the slot's columns."""
    unread: list[int] = field(default_factory=list)
    """The last sampled token; it leads the next chunk of a transcript."""
    sampled: int = 0
    """Tokens of the last response."""
    family: int = -1
    """Rows of one number began with the same prompt; -1 before the first."""
    shared: int = 0
    """Tokens at the beginning of `read` that are still those of the family's first prompt."""

    def chunk(self, stop: int) -> Chunk:
        """What it has not read yet of its first `stop` tokens."""
        return Chunk(self.slot, len(self.read), stop, self.family, self.shared)


class TorchSession:
    def __init__(self, engine: TorchEngine, num_rows: int, append_only: bool) -> None:
        self._policy, self._stop_ids = engine.policy, engine.stop_ids
        self._share, self._append_only = engine.share_prefixes, append_only
        self._cache = EpisodeCache(num_rows, windows_of(self._policy.model.config))
        self._rows = [_Row(slot) for slot in range(num_rows)]
        self._families = 0

    def keep(self, rows: Sequence[int]) -> None:
        self._rows = [self._rows[row] for row in rows]

    def cut(self, responses: Sequence[Sequence[int]]) -> None:
        for row, response in zip(self._rows, responses, strict=True):
            if len(response) < row.sampled:
                tokens = [*row.read, *row.unread][: len(response) - row.sampled]
                row.read, row.unread, row.sampled = tokens[:-1], tokens[-1:], len(response)

    def add(self, count: int) -> None:
        taken = {row.slot for row in self._rows}
        self._cache.reserve(slots=len(taken) + count)
        free = (slot for slot in range(self._cache.slots) if slot not in taken)
        self._rows += [_Row(slot) for slot, _ in zip(free, range(count), strict=False)]

    @torch.inference_mode()
    def respond(
        self,
        prompts: Sequence[Sequence[int]],
        uniforms: Sequence[np.ndarray],
        *,
        max_new_tokens: int,
        temperature: float,
        top_p: float = 1.0,
    ) -> list[Response]:
        contexts = [self._context(row, prompt) for row, prompt in zip(self._rows, prompts, strict=True)]
        self._cache.reserve(columns=max(map(len, contexts)) + max_new_tokens)
        # Neighbouring slots are read together, so the rows go through the model in the order of their slots.
        going = sorted(range(len(self._rows)), key=lambda row: self._rows[row].slot)
        logit_BV = self._read_all([self._rows[row] for row in going], [contexts[row] for row in going])
        uniform_BT = torch.from_numpy(np.stack(uniforms)).to(self._policy.device)
        responses = [Response([], [], [], ended=False) for _ in self._rows]
        numbers: list[tuple[list[int], Tensor, Tensor]] = []
        for position in range(max_new_tokens):
            token_B, logprob_B, entropy_B = sample(logit_BV, uniform_BT[going, position], temperature, top_p)
            numbers.append((going, logprob_B, entropy_B))
            for row, token in zip(going, token_B.tolist(), strict=True):
                responses[row].token_ids.append(token)
                responses[row].ended = token in self._stop_ids
            going = [row for row in going if not responses[row].ended]
            if position + 1 == max_new_tokens or not going:
                break
            logit_BV = self._decode(going, [responses[row].token_ids[-1] for row in going])
        for rows, logprob_B, entropy_B in numbers:
            for row, logprob, entropy in zip(rows, logprob_B.tolist(), entropy_B.tolist(), strict=True):
                responses[row].logprobs.append(logprob)
                responses[row].entropies.append(entropy)
        for held, response in zip(self._rows, responses, strict=True):
            held.unread, held.sampled = response.token_ids[-1:], len(response.token_ids)
        return responses

    def _context(self, row: _Row, prompt: Sequence[int]) -> list[int]:
        """All tokens before the response; forgets what the row has read beyond them."""
        if self._append_only:
            return [*row.read, *row.unread, *prompt]
        row.read = row.read[: min(common_prefix(row.read, prompt), len(prompt) - 1)] if self._share else []
        row.shared = min(row.shared, len(row.read))
        return list(prompt)

    def _read_all(self, rows: Sequence[_Row], contexts: Sequence[list[int]]) -> Tensor:
        """Read what is new in each context; returns the logits [B, V] after each."""
        leaders = list(range(len(rows)))  # leaders[i]: the row that reads the context of row i
        if self._share:
            first: dict[tuple[int, ...], int] = {}
            for number, row in enumerate(rows):
                if not row.read:
                    leaders[number] = first.setdefault(tuple(contexts[number]), number)
            self._read_beginnings([row for row in rows if row.read], [(rows[n], contexts[n]) for n in first.values()])
        readers = sorted(set(leaders))
        hidden_BD = self._read([rows[n] for n in readers], [contexts[n] for n in readers])
        for leader in readers:
            followers = [rows[n] for n, reads in enumerate(leaders) if reads == leader and n != leader]
            self._copy(rows[leader], followers, len(contexts[leader]))
            if self._share and rows[leader].family == -1:
                self._families += 1
                for row in (rows[leader], *followers):
                    row.family, row.shared = self._families, len(contexts[leader])
        if len(readers) < len(rows):
            place = {leader: number for number, leader in enumerate(readers)}
            hidden_BD = hidden_BD[[place[leader] for leader in leaders]]
        return self._logits(hidden_BD)

    def _read_beginnings(self, donors: Sequence[_Row], fresh: Sequence[tuple[_Row, list[int]]]) -> None:
        """Fill fresh rows with the longest beginning that another row holds, or that all of them have in common."""
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
                self._read([alone[0][0]], [contexts[0][:length]])
                self._copy(alone[0][0], [row for row, _ in alone[1:]], length)

    def _copy(self, source: _Row, targets: Sequence[_Row], length: int) -> None:
        if targets:
            self._cache.copy(source.slot, [row.slot for row in targets], 0, length)
            for row in targets:
                row.read = source.read[:length]

    def _read(self, rows: Sequence[_Row], contexts: Sequence[list[int]]) -> Tensor:
        """Read the rest of each context; returns the hidden states [B, D] of the last tokens."""
        chunks = [row.chunk(len(context)) for row, context in zip(rows, contexts, strict=True)]
        new = [context[len(row.read) :] for row, context in zip(rows, contexts, strict=True)]
        hidden = [self._forward(chunks[part], new[part]) for part in _parts([len(ids) for ids in new])]
        for row, context in zip(rows, contexts, strict=True):
            row.read = context
        return torch.cat(hidden)

    def _decode(self, going: Sequence[int], tokens: Sequence[int]) -> Tensor:
        """Read the tokens that were sampled last; returns the logits [B, V] after them."""
        rows = [self._rows[row] for row in going]
        chunks = [row.chunk(len(row.read) + 1) for row in rows]
        logit_BV = self._logits(self._forward(chunks, [[token] for token in tokens]))
        for row, token in zip(rows, tokens, strict=True):
            row.read.append(token)
        return logit_BV

    def _forward(self, chunks: Sequence[Chunk], ids: Sequence[Sequence[int]]) -> Tensor:
        """One forward pass over packed chunks; returns the hidden states [B, D] of their last tokens."""
        device = self._policy.device
        self._cache.aim(chunks)
        end_B = torch.from_numpy(np.cumsum([len(part) for part in ids]) - 1).to(device)
        return hidden_states(
            self._policy.model,
            torch.tensor([[token for part in ids for token in part]], device=device),
            position_ids=torch.from_numpy(positions(chunks))[None].to(device),
            wanted=(torch.zeros_like(end_B), end_B),
            episodes=self._cache,
        )

    def _logits(self, hidden_BD: Tensor) -> Tensor:
        return self._policy.head.logits(hidden_BD)


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """Number of equal items at the beginning of both."""
    length = min(len(left), len(right))
    if left[:length] == right[:length]:
        return length
    return next(number for number in range(length) if left[number] != right[number])


def _parts(sizes: Sequence[int]) -> Iterator[slice]:
    """Consecutive chunks of at most TOKENS_AT_ONCE tokens together, or a single longer one."""
    start = total = 0
    for number, size in enumerate(sizes):
        if number > start and total + size > TOKENS_AT_ONCE:
            yield slice(start, number)
            start, total = number, 0
        total += size
    yield slice(start, len(sizes))
