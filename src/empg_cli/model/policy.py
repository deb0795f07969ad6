"""A policy is a causal language model with its tokenizer; `score` gives log-probs and entropies of sampled tokens."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from transformers.utils import logging as transformers_logging

from empg_cli.model.decoder import Places
from empg_cli.model.head import Head, head_of
from empg_cli.model.language_model import LanguageModel
from empg_cli.model.precision import MasterWeights
from empg_cli.types import Batch

transformers_logging.disable_progress_bar()  # the dashboard shows what takes long


@dataclass
class Policy:
    model: Any
    """A Hugging Face causal language model; all passes run through it, in the type of its parameters."""
    tokenizer: Any
    device: torch.device
    masters: MasterWeights | None = None
    """What is trained and saved where that is kept in a longer type; None = the parameters of `model` themselves."""

    @property
    def trained(self) -> Any:
        """The model that holds the parameters that an optimiser steps on."""
        return self.model if self.masters is None else self.masters.network

    @property
    def dtype(self) -> torch.dtype:
        """What passes compute in."""
        return self.head.weight_VD.dtype

    @property
    def param_dtype(self) -> torch.dtype:
        """What parameters are kept in."""
        return head_of(self.trained).weight_VD.dtype

    def parameters(self) -> list[Parameter]:
        """What an optimiser steps on; gradients arrive here."""
        return list(self.trained.parameters())

    def follow(self, optimizer: torch.optim.Optimizer) -> None:
        """Let passes see every step that the optimiser takes from now on."""
        if (masters := self.masters) is not None:
            optimizer.register_step_post_hook(lambda *_: masters.refresh())

    def drop_gradients(self) -> None:
        """Also those that a backward pass has left half way to the parameters."""
        for parameter in (*self.trained.parameters(), *self.model.parameters()):
            parameter.grad = None

    @property
    def num_parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    @cached_property
    def lm(self) -> LanguageModel:
        """What every pass runs through."""
        return LanguageModel(self.model)

    @property
    def head(self) -> Head:
        """From the model's hidden states to its logits."""
        return self.lm.head

    def padded(self, rows: Sequence[Tensor]) -> Tensor:
        """Ragged rows as ids [B, T]. They are padded on the right, where the causal mask already keeps padding out of
        every real position, so no attention mask is needed, and all count their positions from 0, as the model does
        when it is given none."""
        return torch.nn.utils.rnn.pad_sequence([row.to(self.device) for row in rows], batch_first=True)

    def before_samples(self, batch: Batch, rows: Sequence[int], steps: Tensor) -> tuple[Tensor, Places, Tensor]:
        """What the model reads to predict the sampled tokens of some steps: ids, the places before these tokens, and
        the tokens, long [T], in the order of `batch.mask_ST[steps]`. Arguments as in `score`."""
        place = torch.full((len(batch.row_ids),), -1, dtype=torch.long)
        place[torch.as_tensor(rows)] = torch.arange(len(rows))
        mask_ST = batch.mask_ST[steps]
        # Position p predicts token p + 1, so a response that starts at column c is predicted from column c - 1 on.
        column_ST = batch.step_start_S[steps, None] - 1 + torch.arange(mask_ST.shape[1])[None]
        row_ST = place[batch.step_row_S[steps], None].expand_as(column_ST)
        wanted = row_ST[mask_ST].to(self.device), column_ST[mask_ST].to(self.device)
        ids_BT = self.padded([batch.row_ids[row] for row in rows])
        return ids_BT, wanted, batch.token_ST[steps][mask_ST].to(self.device)

    def score(self, batch: Batch, rows: Sequence[int], steps: Tensor, *, temperature: float) -> tuple[Tensor, Tensor]:
        """Log-probs and entropies of the sampled tokens of some rows.

        Args:
            batch: the whole rollout batch.
            rows: the rows to read in this forward pass.
            steps: long [s], the steps that lie in these rows.

        Returns:
            logprob_ST, entropy_ST: float [s, T], zero where `batch.mask_ST` is False.
        """
        logprob_T, entropy_T = self.lm(*self.before_samples(batch, rows, steps), temperature=temperature)
        mask_ST = batch.mask_ST[steps].to(self.device)
        zero_ST = torch.zeros(mask_ST.shape, device=self.device)
        return zero_ST.masked_scatter(mask_ST, logprob_T), zero_ST.masked_scatter(mask_ST, entropy_T)

    def frozen_copy(self) -> Policy:
        """The policy as it is now, for the KL term; takes no gradient, so it is kept in the compute type alone."""
        model = copy.deepcopy(self.model).eval().requires_grad_(False)
        return Policy(model, self.tokenizer, self.device)

    def save(self, folder: Path) -> None:
        """Write a Hugging Face model folder (safetensors weights as they are kept, config, tokenizer)."""
        self.trained.save_pretrained(folder)
        for where_from in ("is_local", "local_files_only"):  # equal policies are equal files, wherever they were loaded
            self.tokenizer.init_kwargs.pop(where_from, None)
        self.tokenizer.save_pretrained(folder)
