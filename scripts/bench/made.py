"""Batches and models of a chosen size for the speed scripts: random tokens, but laid out by the code that runs use."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from empg_cli import config
from empg_cli.config.schema import TrainConfig
from empg_cli.model.attention import POLICY_ATTENTION
from empg_cli.model.batch import make_batch
from empg_cli.model.policy import Policy
from empg_cli.planning.shapes import Shape
from empg_cli.types import Batch, Step, Task, Trajectory


def run_config(*overrides: str) -> TrainConfig:
    """The default run of the demo (ALFWorld, EMPG, 16 tasks x 8), on one thread, without a dashboard."""
    fixed = ["experiment=demo", "trainer.device=cpu", "trainer.threads=1", "logger.console=quiet", "resume=null"]
    return config.load([*fixed, *overrides])


def made_policy(
    *, hidden: int, layers: int, heads: int, kv_heads: int, mlp: int, vocabulary: int, positions: int = 16384
) -> Policy:
    """Random weights, same ones each time; no tokenizer."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    shape = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        intermediate_size=mlp,
        max_position_embeddings=positions,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = Qwen2ForCausalLM(shape)
    model.set_attn_implementation(POLICY_ATTENTION)
    return Policy(model.eval(), None, torch.device("cpu"))


def policy_of_shape(shape: Shape) -> Policy:
    """Random weights in a shape that `empg plan` knows; no tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    kinds: Any = (Qwen2Config, Qwen2ForCausalLM) if shape.has_qkv_bias else (LlamaConfig, LlamaForCausalLM)
    config = kinds[0](
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        intermediate_size=shape.mlp,
        max_position_embeddings=16384,
        tie_word_embeddings=shape.is_tied,
    )
    model: Any = kinds[1](config)
    model.set_attn_implementation(POLICY_ATTENTION)
    return Policy(model.eval(), None, torch.device("cpu"))


def made_batch(
    trajectories: int, turns: int, *, opening: int = 60, observation: int = 11, response: int = 3, vocabulary: int = 900
) -> Batch:
    """Transcripts of equal length: `opening` tokens, then `turns` responses with observations between them. By default
    as long as ALFWorld's in the compact form, on average. Old and reference log-probs are those of equal odds."""
    generator = torch.Generator().manual_seed(0)

    def tokens(count: int) -> list[int]:
        return torch.randint(vocabulary, (count,), generator=generator).tolist()

    task = Task("made", "made", "train")
    played = []
    for number in range(trajectories):
        steps = [
            Step(tokens(observation if turn else opening), tokens(response), [-1.0] * response, [1.0] * response)
            for turn in range(turns)
        ]
        steps[-1].reward = float(number % 2)
        played.append(Trajectory(task, number // 8, number % 8, steps))
    batch = make_batch(played, append_only=True)
    batch.ref_logprob_ST = batch.old_logprob_ST.clone()
    batch.credit_S = torch.randn(batch.num_steps, generator=generator)
    return batch


def naive_score(policy: Policy, batch: Batch, rows: list[int], steps_S: Tensor, *, temperature: float) -> Any:
    """What `Policy.score` replaces: the logits of every position, log_softmax, entropy, all left to autograd."""
    ids = [batch.row_ids[row] for row in rows]
    logp_BTV = torch.log_softmax(policy.model(torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)).logits, -1)
    entropy_BT = -(logp_BTV.exp() * logp_BTV).sum(-1)
    mask_ST = batch.mask_ST[steps_S]
    place = {row: number for number, row in enumerate(rows)}
    row_S = torch.tensor([place[row] for row in batch.step_row_S[steps_S].tolist()])
    column_ST = (batch.step_start_S[steps_S, None] - 1 + torch.arange(mask_ST.shape[1])).clamp_max(
        logp_BTV.shape[1] - 1
    )
    logprob_ST = logp_BTV[row_S[:, None], column_ST, batch.token_ST[steps_S]]
    return logprob_ST * mask_ST, entropy_BT[row_S[:, None], column_ST] * mask_ST


def scratch_folder(name: str) -> Path:
    """An empty folder in the temporary directory of this machine."""
    return Path(tempfile.mkdtemp(prefix=f"empg-bench-{name}-"))
