"""Rollout and scoring against the model's own logits, for every family of models that is said to work.

Small random weights, windows of 6 tokens, contexts several times as long, the family's own (eager) attention as the
reference. The weights are spread so that attention and head are far from uniform: a head that lacks its scale, bias or
cap, or a layer that looks past its window, is wrong by far more than the tolerance.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from empg_cli.model.attention import POLICY_ATTENTION
from empg_cli.model.batch import make_batch
from empg_cli.model.policy import Policy
from empg_cli.rollout.torch_engine.engine import TorchEngine
from empg_cli.types import Step, Task, Trajectory
from tests.support.turns import Turns

VOCABULARY, WINDOW = 40, 6
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 40,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MIXED = ["sliding_attention", "full_attention"]
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 6, "v_head_dim": 8}
PLAYED: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen2, a window in some layers": {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
    "qwen3": {"head_dim": 8},
    "qwen3_moe": {"head_dim": 8, **EXPERTS},
    "mistral": {"sliding_window": WINDOW},
    "mixtral": {"sliding_window": WINDOW, **EXPERTS},
    "gemma": {"head_dim": 8},
    "gemma2": {
        "head_dim": 8,
        "sliding_window": WINDOW,
        "final_logit_softcapping": 1.5,
        "attn_logit_softcapping": 0.7,
        "query_pre_attn_scalar": 8,
    },
    "gemma3_text": {"head_dim": 8, "sliding_window": WINDOW, "layer_types": MIXED, "query_pre_attn_scalar": 8},
    "phi": {},
    "phi3": {"sliding_window": WINDOW},
    "cohere": {"logit_scale": 0.3},
    "cohere2": {"logit_scale": 0.3, "sliding_window": WINDOW, "layer_types": MIXED, "head_dim": 8},
    "granite": {"logits_scaling": 4.0, "attention_multiplier": 0.5, "residual_multiplier": 0.7},
    "starcoder2": {"sliding_window": WINDOW},
    "olmo2": {},
    "olmo3": {"sliding_window": WINDOW, "layer_types": MIXED},
    "smollm3": {"use_sliding_window": True, "sliding_window": WINDOW, "layer_types": MIXED},
    "glm": {"head_dim": 8},
    "glm4": {"head_dim": 8},
    "helium": {"head_dim": 8},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},
    "gpt_neox": {},
    "opt": {"ffn_dim": 40, "word_embed_proj_dim": 32},
    "deepseek_v3": {
        **LATENT,
        "n_routed_experts": 4,
        "n_group": 2,
        "topk_group": 1,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
        "first_k_dense_replace": 1,
    },
    "minicpm3": LATENT,
    "ernie4_5": {"head_dim": 8},
    "hunyuan_v1_dense": {"head_dim": 8},
    "apertus": {},
}


def networks_of(name: str) -> tuple[Any, Any]:
    """One as its makers run it, and one of the same weights as a policy runs it."""
    config = CONFIG_MAPPING[name.partition(",")[0]](**SHAPE | PLAYED[name])
    torch.manual_seed(0)
    theirs = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for parameter in theirs.parameters():
        parameter.data.add_(0.15 * torch.randn_like(parameter))
    ours = AutoModelForCausalLM.from_config(config).eval()
    ours.load_state_dict(theirs.state_dict())
    ours.set_attn_implementation(POLICY_ATTENTION)
    return ours, theirs


def played(policy: Policy) -> list[Trajectory]:
    """Two turns of three episodes, two of which begin alike: prompts of 21 and 9 tokens, then of 11, 2 and 5."""
    generator = np.random.default_rng(0)
    session = Turns(TorchEngine(policy, []), 3, append_only=True)
    trajectories = [Trajectory(Task("t", "k", "train"), 0, index) for index in range(3)]
    first, second = (generator.integers(3, VOCABULARY, size=size).tolist() for size in (21, 9))
    for prompts in ([first, first, second], [generator.integers(3, VOCABULARY, size=n).tolist() for n in (11, 2, 5)]):
        uniforms = [generator.random(5) for _ in prompts]
        responses = session.respond(prompts, uniforms, max_new_tokens=5, temperature=1.0)
        for trajectory, prompt, response in zip(trajectories, prompts, responses, strict=True):
            trajectory.steps.append(Step(prompt, response.token_ids, response.logprobs, response.entropies))
    return trajectories


@pytest.mark.parametrize("name", PLAYED)
def test_rollout_and_scores_equal_the_models_own_logits(name: str) -> None:
    ours, theirs = networks_of(name)
    policy = Policy(ours, None, torch.device("cpu"))
    batch = make_batch(played(policy), append_only=True)
    with torch.no_grad():
        logprob_ST, entropy_ST = policy.score(batch, range(3), torch.arange(6), temperature=1.0)
        for step in range(6):
            row, start = batch.row_ids[int(batch.step_row_S[step])], int(batch.step_start_S[step])
            logp_TV = theirs(input_ids=row[None]).logits[0].log_softmax(-1)[start - 1 : start + 4]
            want_T = logp_TV.gather(1, row[start : start + 5, None])[:, 0]
            want_entropy_T = -(logp_TV.exp() * logp_TV).sum(-1)
            for got, want in (
                (batch.old_logprob_ST[step], want_T),
                (logprob_ST[step], want_T),
                (batch.entropy_ST[step], want_entropy_T),
                (entropy_ST[step], want_entropy_T),
            ):
                torch.testing.assert_close(got, want, atol=1e-5, rtol=0)
