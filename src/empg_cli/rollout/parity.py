"""Every model proves itself before anything is played: rollout, scoring and the model's own logits on a few tokens.

Rollout and scoring read a model in ways of their own (packed rows, a cache, the last layer and the head spelled out),
and a model that does something else besides would be played and trained wrongly in silence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count

import numpy as np
import torch
from torch import Tensor

from empg_cli.errors import UserError
from empg_cli.model import lora
from empg_cli.model.attention import use_policy_attention
from empg_cli.model.batch import make_batch
from empg_cli.model.loading import ModelError
from empg_cli.model.policy import Policy
from empg_cli.rollout.collect import run
from empg_cli.rollout.engine import Sampling
from empg_cli.rollout.torch_engine.engine import TorchEngine
from empg_cli.types import Step, Task, Trajectory

PROMPTS = ((23, 9), (4, 6))
"""Tokens of each prompt of two episodes, turn by turn."""
NEW_TOKENS = 3
TOLERANCE = {torch.float32: 2e-4, torch.float64: 1e-6}
"""Nats; no log-prob or entropy may differ by more."""
HALF_TOLERANCE = 0.1
"""Nats; in half precision logits of 10 to 20 come in steps of 1/16 to 1/8, so single tokens differ by that and more
without a fault: their mean difference may be this much. A misread head is off by 0.5 and more as a rule; what is
smaller is found where the parameters are kept in float32."""


def check_parity(policy: Policy) -> None:
    """Two turns of two episodes through rollout, scoring and a pass of training, against the model's forward pass with
    its own attention.

    Where the parameters are kept in a longer type than passes compute in, they are read in that type as well, which
    shows what rounding would hide. A policy with an adapter is read with another one on the same weights as well: a new
    adapter adds nothing, which would hide that it is not computed. Draws nothing from any stream of random numbers, and
    leaves the policy as it was.

    Raises:
        ModelError: they differ, or the model cannot be read this way. Nothing has been played yet.
    """
    if policy.base is not None:
        probe = policy.frozen_copy()
        lora.fill(probe.model)
        check_parity(probe)
    elif policy.masters is not None:
        check_parity(Policy(policy.masters.network, policy.tokenizer, policy.device))
    name = type(policy.model).__name__
    try:
        difference = largest_differences(policy)
    except UserError as error:
        raise ModelError(f"{name} cannot be played: {error}; choose another model") from error
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # code of a model that was not made for this; the reason is all that a user can use
        first_line = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"{name} cannot be played: its code does not take what rollout.engine=torch hands through it "
            f"({type(error).__name__}: {first_line}); choose another model"
        ) from error
    limit = TOLERANCE.get(policy.dtype, HALF_TOLERANCE)
    for path, nats in difference.items():
        if not nats <= limit:
            raise ModelError(
                f"{name} is not computed right here: log-probs and entropies of the {path} differ from the model's own "
                f"by {nats:.2g} nats ({limit:.2g} is rounding in {str(policy.dtype).removeprefix('torch.')}); choose "
                "another model, and please report this one"
            )


@torch.no_grad()
def largest_differences(policy: Policy) -> dict[str, float]:
    """Nats between log-probs and entropies of sampled tokens and those of the model's own logits, for rollout, scoring
    and scoring as a model in training: the largest difference, in half precision the mean one."""
    batch = make_batch(_play(policy), append_only=True)
    every_step = torch.arange(batch.num_steps)
    scored = policy.score(batch, range(len(batch.row_ids)), every_step, temperature=1.0)
    policy.model.train()
    try:
        learnt = policy.score(batch, range(len(batch.row_ids)), every_step, temperature=1.0)
    finally:
        policy.model.eval()
    own = [torch.zeros_like(part) for part in scored]
    with _own_attention(policy):
        for step in range(batch.num_steps):
            row, start = batch.row_ids[int(batch.step_row_S[step])], int(batch.step_start_S[step])
            places = slice(start - 1, start - 1 + NEW_TOKENS)
            logit_TV = policy.model(input_ids=row[None].to(policy.device), use_cache=False).logits[0, places].float()
            logp_TV = torch.log_softmax(logit_TV, -1)
            target_T = row[start : start + NEW_TOKENS].to(policy.device)
            own[0][step] = logp_TV.gather(1, target_T[:, None])[:, 0]
            own[1][step] = -(logp_TV.exp() * logp_TV).sum(-1)
    played = [part.to(policy.device) for part in (batch.old_logprob_ST, batch.entropy_ST)]
    paths = {"rollout": played, "scoring": list(scored), "passes of training": list(learnt)}
    return {path: _difference(found, own, policy) for path, found in paths.items()}


def _difference(ours: list[Tensor], own: list[Tensor], policy: Policy) -> float:
    gap = (torch.stack(ours) - torch.stack(own)).abs()
    return float(gap.max() if policy.dtype in TOLERANCE else gap.mean())


def _play(policy: Policy) -> list[Trajectory]:
    """Tokens from all over the vocabulary in a fixed order, responses drawn with fixed numbers."""
    vocabulary = len(policy.head.weight_VD)
    ids = (int(number * 0.6180339887 % 1 * vocabulary) for number in count(1))
    engine = TorchEngine(policy, stop_ids=())
    draws, sampling = np.linspace(0.2, 0.8, NEW_TOKENS), Sampling(temperature=1.0, max_new_tokens=NEW_TOKENS)
    episodes = [Trajectory(Task("parity", "parity", "none"), group, 0) for group in range(2)]

    async def play(episode: Trajectory, prompts: Sequence[list[int]]) -> None:
        past: list[int] = []
        for prompt in prompts:
            past += prompt
            answer = await engine.generate(past, episode=episode.group, draws=draws, sampling=sampling)
            past += answer.response
            assert answer.entropies is not None, "it sees the whole distribution"
            episode.steps.append(Step(prompt, answer.response, answer.logprobs, answer.entropies))

    async def play_both() -> None:
        turns = [[[next(ids) for _ in range(size)] for size in sizes] for sizes in zip(*PROMPTS, strict=True)]
        await asyncio.gather(
            *(play(episode, prompts) for episode, prompts in zip(episodes, zip(*turns, strict=True), strict=True))
        )

    run(play_both())
    return episodes


@contextmanager
def _own_attention(policy: Policy) -> Iterator[None]:
    """The model's attention as its makers spell it out."""
    policy.model.set_attn_implementation("eager")
    try:
        yield
    finally:
        use_policy_attention(policy.model)
