"""Batched sampling with the training model itself; in transcript context the KV cache lives over all turns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from empg_cli.policy.policy import Policy
from empg_cli.rollout.cache import EpisodeCache
from empg_cli.rollout.engine import Response

FIRST_COLUMNS = 256


class TorchEngine:
    def __init__(self, policy: Policy, stop_ids: Sequence[int]) -> None:
        self.policy = policy
        self.stop_ids = torch.tensor(sorted(stop_ids), device=policy.device)

    def start(self, num_rows: int, *, append_only: bool) -> TorchSession:
        return TorchSession(self, num_rows, append_only)


class TorchSession:
    def __init__(self, engine: TorchEngine, num_rows: int, append_only: bool) -> None:
        self._policy, self._stop_ids, self._append_only = engine.policy, engine.stop_ids, append_only
        self._num_rows = num_rows
        self._open()

    def _open(self) -> None:
        weight = self._policy.output_weight
        config = self._policy.model.config
        self._cache = EpisodeCache(config, self._num_rows, FIRST_COLUMNS, weight.dtype, weight.device)
        self._length_B = torch.zeros(self._num_rows, dtype=torch.long, device=weight.device)
        self._unread: list[list[int]] = [[] for _ in range(self._num_rows)]

    def keep(self, rows: Sequence[int]) -> None:
        if len(rows) == self._num_rows:
            return
        index = torch.tensor(list(rows), dtype=torch.long, device=self._policy.device)
        self._cache.keep(index)
        self._length_B = self._length_B[index]
        self._unread = [self._unread[row] for row in rows]
        self._num_rows = len(rows)

    @torch.inference_mode()
    def respond(
        self,
        prompts: Sequence[Sequence[int]],
        uniforms: Sequence[np.ndarray],
        *,
        max_new_tokens: int,
        temperature: float,
    ) -> list[Response]:
        if not self._append_only:
            self._open()
        # The last token of a response is sampled but not yet read; it leads the next chunk.
        logit_BV = self._read([[*unread, *prompt] for unread, prompt in zip(self._unread, prompts, strict=True)])
        uniform_BT = torch.from_numpy(np.stack(uniforms)).to(self._policy.device)
        going_B = torch.ones(self._num_rows, dtype=torch.bool, device=self._policy.device)
        columns: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        for position in range(max_new_tokens):
            token_B, logprob_B, entropy_B = sample(logit_BV, uniform_BT[:, position], temperature)
            columns.append((token_B, logprob_B, entropy_B, going_B))
            going_B = going_B & ~torch.isin(token_B, self._stop_ids)
            if position + 1 == max_new_tokens or not going_B.any():
                break
            logit_BV = self._decode(token_B, going_B)
        return self._responses(columns, going_B)

    def _read(self, chunks: list[list[int]]) -> Tensor:
        """Read ragged chunks; returns the logits [B, V] after each row's last token."""
        device = self._policy.device
        count_B = torch.tensor([len(chunk) for chunk in chunks], device=device)
        rows = [torch.tensor(chunk, dtype=torch.long) for chunk in chunks]
        ids_BT = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device)
        position_BT = self._length_B[:, None] + torch.arange(ids_BT.shape[1], device=device)[None]
        hidden_BTD = self._forward(ids_BT, position_BT)
        self._length_B = self._length_B + count_B
        last_BD = hidden_BTD[torch.arange(len(chunks), device=device), count_B - 1]
        return self._logits(last_BD)

    def _decode(self, token_B: Tensor, going_B: Tensor) -> Tensor:
        """Read one token per row. Rows that have ended read one too, into a column that is overwritten later."""
        hidden_BTD = self._forward(token_B[:, None], self._length_B[:, None])
        self._length_B = self._length_B + going_B.long()
        return self._logits(hidden_BTD[:, 0])

    def _forward(self, ids_BT: Tensor, position_BT: Tensor) -> Tensor:
        visible = int(position_BT.max()) + 1
        self._cache.reserve(visible)
        self._cache.aim(position_BT, visible)
        column_V = torch.arange(visible, device=ids_BT.device)
        mask_B1TV = (column_V[None, None] <= position_BT[:, :, None])[:, None]
        output = self._policy.model.model(
            input_ids=ids_BT,
            position_ids=position_BT,
            attention_mask=mask_B1TV,
            past_key_values=self._cache,
            use_cache=True,
        )
        hidden_BTD: Tensor = output.last_hidden_state
        return hidden_BTD

    def _logits(self, hidden_BD: Tensor) -> Tensor:
        return (hidden_BD @ self._policy.output_weight.t()).float()

    def _responses(self, columns: list[tuple[Tensor, Tensor, Tensor, Tensor]], going_B: Tensor) -> list[Response]:
        tokens, logprobs, entropies, live = (torch.stack(parts, 1).tolist() for parts in zip(*columns, strict=True))
        responses = []
        for row, open_end in enumerate(going_B.tolist()):
            size = sum(live[row])
            token_ids = tokens[row][:size]
            responses.append(Response(token_ids, logprobs[row][:size], entropies[row][:size], ended=not open_end))
            self._unread[row] = token_ids[-1:]
        return responses


def sample(logit_BV: Tensor, uniform_B: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Draw one token per row by inverting the cumulative distribution; temperature 0 takes the most likely one.

    Returns:
        token_B (long), its log-probability and the entropy (nats) of the distribution it was drawn from.
    """
    logprob_BV = torch.log_softmax(logit_BV / temperature if temperature > 0 else logit_BV, -1)
    prob_BV = logprob_BV.exp()
    if temperature > 0:
        cumulative_BV = prob_BV.cumsum(-1)
        total_B = cumulative_BV[:, -1]  # 1 but for rounding; staying below it keeps every draw on a possible token
        threshold_B = torch.minimum(uniform_B.to(total_B.dtype) * total_B, torch.nextafter(total_B, total_B * 0))
        token_B = torch.searchsorted(cumulative_BV, threshold_B[:, None], right=True)[:, 0]
    else:
        token_B = logit_BV.argmax(-1)
    entropy_B = -(prob_BV * logprob_BV).sum(-1)
    return token_B, logprob_BV.gather(1, token_B[:, None])[:, 0], entropy_B
