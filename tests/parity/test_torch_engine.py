"""The rollout engine against Hugging Face's generate and against a plain forward pass over the whole transcript."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from empg_cli.rollout.torch_engine import TorchEngine, sample
from empg_cli.training.batching import make_batch
from empg_cli.training.update import score_batch
from tests.support.tiny import tiny_config, tiny_policy, tiny_rollout


def uniforms(rows: int, tokens: int, seed: int = 0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.random(tokens) for _ in range(rows)]


def test_greedy_turns_equal_generate_over_the_whole_history() -> None:
    policy = tiny_policy(tiny_config())
    session = TorchEngine(policy, [3]).start(3, append_only=True)
    generator = np.random.default_rng(1)
    history: list[list[int]] = [[], [], []]
    for turn in range(3):
        prompts = [generator.integers(4, 200, size=size).tolist() for size in (7 + turn, 3, 11)]
        responses = session.respond(prompts, uniforms(3, 6), max_new_tokens=6, temperature=0.0)
        for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            history[row] += prompt
            ids = torch.tensor([history[row]])
            out = policy.model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False, eos_token_id=3
            )
            assert response.token_ids == out[0, ids.shape[1] :].tolist()
            history[row] += response.token_ids


@pytest.mark.parametrize("context", ["transcript", "window"])
def test_sampled_logprobs_and_entropies_equal_the_training_forward(context: str) -> None:
    cfg = tiny_config(f"rollout={context}", "trainer.tokens_per_microbatch=300")
    policy = tiny_policy(cfg)
    batch = make_batch(tiny_rollout(cfg, policy), append_only=context == "transcript")
    logprob_ST, entropy_ST = score_batch(policy, batch, cfg)
    assert batch.mask_ST.sum() > 50
    torch.testing.assert_close(logprob_ST, batch.old_logprob_ST, atol=2e-5, rtol=0)
    torch.testing.assert_close(entropy_ST, batch.entropy_ST, atol=2e-5, rtol=0)


def test_an_episode_does_not_depend_on_its_company() -> None:
    policy = tiny_policy(tiny_config())
    prompts = [[5, 6, 7, 8], [9, 10], [11, 12, 13]]
    draws = uniforms(3, 8)
    together = TorchEngine(policy, [3]).start(3, append_only=True)
    all_three = together.respond(prompts, draws, max_new_tokens=8, temperature=1.0)
    together.keep([2])
    second = together.respond([[20, 21]], draws[:1], max_new_tokens=8, temperature=1.0)

    alone = TorchEngine(policy, [3]).start(1, append_only=True)
    assert (
        alone.respond(prompts[2:], draws[2:], max_new_tokens=8, temperature=1.0)[0].token_ids == all_three[2].token_ids
    )
    assert alone.respond([[20, 21]], draws[:1], max_new_tokens=8, temperature=1.0)[0].token_ids == second[0].token_ids


def test_sampling_follows_the_distribution() -> None:
    # p = softmax([0, ln 2, ln 5]) = [1/8, 2/8, 5/8]: a uniform draw falls below 0.125, 0.375 or above.
    logits = torch.tensor([[0.0, np.log(2.0), np.log(5.0)]], dtype=torch.float32).repeat(6, 1)
    draw = torch.tensor([0.0, 0.124, 0.126, 0.374, 0.376, 1.0])
    token, logprob, entropy = sample(logits, draw, 1.0)
    assert token.tolist() == [0, 0, 1, 1, 2, 2]
    torch.testing.assert_close(logprob.exp(), torch.tensor([1, 1, 2, 2, 5, 5]) / 8)
    # -(1/8 ln 1/8 + 1/4 ln 1/4 + 5/8 ln 5/8) = 0.2599 + 0.3466 + 0.2937
    torch.testing.assert_close(entropy, torch.full((6,), 0.900256), atol=1e-5, rtol=0)


def test_a_draw_of_almost_one_never_takes_an_impossible_token() -> None:
    logits = torch.tensor([[0.0, 0.0, -200.0]])  # the last token has probability 0 in float32
    token, _, _ = sample(logits, torch.tensor([1.0 - 1e-12], dtype=torch.float64), 1.0)
    assert token.item() == 1


def test_temperature_sharpens() -> None:
    # At temperature 0.5 the log-odds double: p = [1, 4] / 5 from logits [0, ln 2].
    token, logprob, _ = sample(torch.tensor([[0.0, np.log(2.0)]], dtype=torch.float32), torch.tensor([0.19]), 0.5)
    assert token.item() == 0
    torch.testing.assert_close(logprob.exp(), torch.tensor([0.2]))
