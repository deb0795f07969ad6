"""A policy is a causal language model with its tokenizer; `score` gives log-probs and entropies of sampled tokens."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter
from transformers.utils import logging as transformers_logging

from empg_cli.errors import UserError
from empg_cli.model import lora
from empg_cli.model.batch import tokens_read
from empg_cli.model.decoder import Places, choosing, has_standard_layers
from empg_cli.model.head import Head
from empg_cli.model.language_model import LanguageModel
from empg_cli.model.packed_attention import PackedAttention, has_packed_attention
from empg_cli.model.packing import pack
from empg_cli.model.precision import MasterWeights, kept_long
from empg_cli.pulse import beat
from empg_cli.ranks import Ranks
from empg_cli.types import Batch

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

    from empg_cli.model.sharding import Sharding

transformers_logging.disable_progress_bar()  # the dashboard shows what takes long


@dataclass(frozen=True, slots=True)
class Reading:
    """The input of one pass, see `model.decoder.hidden_states`."""

    ids_BT: Tensor
    wanted: Places
    """The tokens that are asked what follows them."""
    position_ids: Tensor | None = None
    attention: PackedAttention | None = None
    """None where rows are padded."""


@dataclass
class Policy:
    model: Any
    """A Hugging Face causal language model; all passes run through it, in the type of its parameters."""
    tokenizer: Any
    device: torch.device
    masters: MasterWeights | None = None
    """What is trained and saved where that is kept in a longer type; None = the parameters of `model` themselves."""
    base: lora.Base | None = None
    """The frozen weights, where an adapter on them is all that is trained and saved; None = all weights are."""
    compute_dtype: torch.dtype | None = None
    """What passes compute in, where the parameters are rounded to it as they are gathered; None = as they are kept."""
    sharding: Sharding | None = None
    """How the weights are spread over ranks (`model.sharding`); None = they are whole, here."""

    @property
    def trained(self) -> Any:
        """The model that holds the parameters that an optimiser steps on."""
        return self.model if self.masters is None else self.masters.network

    @property
    def dtype(self) -> torch.dtype:
        """What passes compute in."""
        return self.compute_dtype or self.head.weight_VD.dtype

    @property
    def param_dtype(self) -> torch.dtype:
        """What an optimiser's parameters are kept in."""
        return self.parameters()[0].dtype

    def parameters(self) -> list[Parameter]:
        """What an optimiser steps on; gradients arrive here."""
        return [parameter for parameter in self.trained.parameters() if parameter.requires_grad]

    def follow(self, optimizer: torch.optim.Optimizer) -> None:
        """Let passes see every step that the optimiser takes from now on."""
        if (masters := self.masters) is not None:
            optimizer.register_step_post_hook(lambda *_: masters.refresh())

    def clip_gradients(self, most: float) -> float:
        """Scale the gradients down to this norm, where theirs is larger; returns what it was."""
        norm: Any = torch.nn.utils.clip_grad_norm_(self.parameters(), most)
        return float(norm if self.sharding is None else norm.full_tensor())

    def drop_gradients(self) -> None:
        """Also those that a backward pass has left half way to the parameters."""
        for parameter in (*self.trained.parameters(), *self.model.parameters()):
            parameter.grad = None

    def before_backward(self, *, is_last: bool) -> None:
        """Before each forward pass with a gradient; `is_last` of those before the optimiser steps."""
        if self.sharding is not None:
            self.sharding.before_backward(is_last=is_last)

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

    @property
    def packs_rows(self) -> bool:
        """Whether passes that score or train read packed rows (`model.packing`); else they read padded ones."""
        is_known = has_standard_layers(self.model.config) and not getattr(self.model.config, "attention_dropout", 0.0)
        return is_known and has_packed_attention(self.device, self.dtype)

    def padded(self, rows: Sequence[Tensor]) -> Tensor:
        """Ragged rows as ids [B, T]. They are padded on the right, where the causal mask already keeps padding out of
        every real position, so no attention mask is needed, and all count their positions from 0, as the model does
        when it is given none."""
        return torch.nn.utils.rnn.pad_sequence([row.to(self.device) for row in rows], batch_first=True)

    def reading(self, rows: Sequence[np.ndarray], row_W: np.ndarray, column_W: np.ndarray) -> Reading:
        """A pass over rows of ids, in which some tokens are asked what follows them."""
        if not self.packs_rows:
            wanted = torch.from_numpy(row_W).to(self.device), torch.from_numpy(column_W).to(self.device)
            return Reading(self.padded([torch.from_numpy(row) for row in rows]), wanted)
        packed = pack(rows)
        size_B = np.array([len(places) for places in packed.places])
        place_W = np.concatenate(packed.places)[(size_B.cumsum() - size_B)[row_W] + column_W]
        place = torch.from_numpy(place_W).to(self.device)
        return Reading(
            packed.ids_N[None].to(self.device),
            (torch.zeros_like(place), place),
            position_ids=packed.position_N[None].to(self.device),
            attention=PackedAttention(packed, place_W, self.device),
        )

    def before_samples(self, batch: Batch, rows: Sequence[int], steps: Tensor) -> tuple[Reading, Tensor]:
        """What the model reads to predict the sampled tokens of some steps, and these tokens, long [T], in the order of
        `batch.mask_ST[steps]`. Arguments as in `score`."""
        ids = tokens_read(batch, steps)
        number_B = np.full(len(batch.row_ids), -1)
        number_B[list(rows)] = np.arange(len(rows))
        mask_ST = batch.mask_ST[steps]
        # Position p predicts token p + 1, so a response that starts at column c is predicted from column c - 1 on.
        column_ST = batch.step_start_S[steps, None] - 1 + torch.arange(mask_ST.shape[1])[None]
        row_ST = torch.from_numpy(number_B)[batch.step_row_S[steps, None]].expand_as(column_ST)
        reading = self.reading([ids[row] for row in rows], row_ST[mask_ST].numpy(), column_ST[mask_ST].numpy())
        return reading, batch.token_ST[steps][mask_ST].to(self.device)

    def score(self, batch: Batch, rows: Sequence[int], steps: Tensor, *, temperature: float) -> tuple[Tensor, Tensor]:
        """Log-probs and entropies of the sampled tokens of some rows.

        Args:
            batch: the whole rollout batch.
            rows: the rows to read in this forward pass.
            steps: long [s], the steps that are asked for; each of the rows holds one at least.

        Returns:
            logprob_ST, entropy_ST: float [s, T], zero where `batch.mask_ST` is False.
        """
        reading, target_T = self.before_samples(batch, rows, steps)
        logprob_T, entropy_T = self.lm(
            reading.ids_BT,
            reading.wanted,
            target_T,
            temperature=temperature,
            position_ids=reading.position_ids,
            episodes=reading.attention,
        )
        mask_ST = batch.mask_ST[steps].to(self.device)
        zero_ST = torch.zeros(mask_ST.shape, device=self.device)
        return zero_ST.masked_scatter(mask_ST, logprob_T), zero_ST.masked_scatter(mask_ST, entropy_T)

    def frozen_copy(self) -> Policy:
        """The policy as it is now, for the KL term; takes no gradient, so it is kept in the compute type alone.

        Of a policy with an adapter it is a copy of that, on the same frozen weights. (To switch the adapter off while
        the reference scores would not do: after a warm start the reference has one, too.)
        """
        shared: dict[int, Parameter] = {}
        if self.base is not None:
            shared = {id(weight): weight for weight in self.model.parameters() if not weight.requires_grad}
        model = copy.deepcopy(self.model, shared).eval().requires_grad_(False)
        if self.base is not None and lora.is_silent(model):
            lora.switch_off(model)
        return Policy(model, self.tokenizer, self.device)

    def spread(self, mesh: DeviceMesh, *, frees: bool) -> Policy:
        """The policy with its weights spread over the ranks, which all hold the same ones; this one is gone.

        Args:
            frees: see `model.sharding`.

        Raises:
            UserError: one process computes some parameters in a longer type than the others; here they would not be.
        """
        assert self.base is None, "refused by the configuration"
        from empg_cli.model.sharding import Sharding  # brings torch.distributed, which one process does without

        network = self.trained
        names = [name for name, parameter in network.named_parameters() if parameter.dtype != self.dtype]
        if kept := [name for name in names if any(part in name for part in kept_long(network))]:
            raise UserError(
                f"{type(network).__name__} computes {kept[0]} in a longer type than model.dtype, which several "
                "processes cannot do yet: set model.dtype=float32, or dist=none"
            )
        if self.model.is_gradient_checkpointing:  # of the copies that it would have computed with
            network.gradient_checkpointing_enable({"use_reentrant": False})
        policy = replace(self, model=network, masters=None, compute_dtype=self.dtype)
        layers = network.base_model.layers
        if has_standard_layers(network.config):
            choosing(layers[-1])  # another class of layer, so before hooks are put on it
        policy.sharding = Sharding(policy.lm, layers, mesh, compute_dtype=self.dtype, frees=frees)
        return policy

    def whole_weights(self, *, is_kept: bool) -> dict[str, Tensor]:
        """The weights with all their parts, on the CPU; a common point of all ranks.

        Args:
            is_kept: False helps the others, and returns nothing.
        """
        from empg_cli.model.sharding import whole

        found: dict[str, Tensor] = {}
        seen: dict[int, Tensor] = {}
        tensors = [*self.trained.named_parameters(remove_duplicate=False), *self.trained.named_buffers()]
        saved = self.trained.state_dict().keys()
        for name, value in tensors:
            if name not in saved:  # a buffer that is computed anew
                continue
            beat()
            if id(value) not in seen:  # tied ones stay one tensor
                seen[id(value)] = whole(value.detach()).cpu() if is_kept else whole(value.detach())[:0]
            if is_kept:
                found[name] = seen[id(value)]
        return found

    def take_over(self, ranks: Ranks) -> None:
        """Give all ranks the weights of the first one's policy."""
        if ranks.size == 1:
            return
        for parameter in self.trained.parameters():
            parameter.data.copy_(ranks.of_first(parameter.data.cpu()))
        if self.masters is not None:
            self.masters.refresh()

    def release(self) -> None:
        """Free the memory of the weights, whoever still refers to them; from here on it is no policy any more."""
        for parameter in (*self.trained.parameters(), *self.model.parameters()):
            parameter.data = parameter.data.new_empty(0)

    def save(self, folder: Path, state: Mapping[str, Tensor] | None = None) -> None:
        """Write a Hugging Face model folder (safetensors weights as they are kept, config, tokenizer), or peft's form
        of an adapter with the tokenizer.

        Args:
            state: the weights, where the model has only parts of them.
        """
        if self.base is not None:
            lora.save(self.trained, self.base, folder)
        else:
            self.trained.save_pretrained(folder, state_dict=state)
        for where_from in ("is_local", "local_files_only"):  # equal policies are equal files, wherever they were loaded
            self.tokenizer.init_kwargs.pop(where_from, None)
        self.tokenizer.save_pretrained(folder)
