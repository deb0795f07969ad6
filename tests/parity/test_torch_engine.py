"""The rollout engine against Hugging Face's generate and against a plain forward pass over the whole transcript."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.generation.logits_process import TopPLogitsWarper

from empg_cli.learner.logprobs import score_batch
from empg_cli.model.attention import POLICY_ATTENTION
from empg_cli.model.batch import make_batch
from empg_cli.model.policy import Policy
from empg_cli.rollout.torch_engine import plans
from empg_cli.rollout.torch_engine.engine import TorchEngine
from empg_cli.rollout.torch_engine.prefix import PrefixReading
from empg_cli.rollout.torch_engine.reading import Chunk
from empg_cli.rollout.torch_engine.runs import plan_runs
from empg_cli.rollout.torch_engine.sampling import nucleus, sample
from empg_cli.types import Trajectory
from tests.support.tiny import tiny_config, tiny_policy, tiny_rollout
from tests.support.turns import Turns


def uniforms(rows: int, tokens: int, seed: int = 0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.random(tokens) for _ in range(rows)]


def test_greedy_turns_equal_generate_over_the_whole_history() -> None:
    policy = tiny_policy(tiny_config())
    session = Turns(TorchEngine(policy, [3]), 3, append_only=True)
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


def test_other_model_classes_read_alike() -> None:
    """Llama builds its masks and calls attention by other code than Qwen2; here every query head has its own keys."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, eos_token_id=3
    )
    hf = LlamaForCausalLM(config).eval()
    network = LlamaForCausalLM(config).eval()
    network.load_state_dict(hf.state_dict())
    network.set_attn_implementation(POLICY_ATTENTION)
    session = Turns(TorchEngine(Policy(network, None, torch.device("cpu")), [3]), 2, append_only=True)
    history: list[list[int]] = [[], []]
    for prompts in ([[5, 6, 7, 8], [9, 10]], [[20], [21, 22, 23]]):
        responses = session.respond(prompts, uniforms(2, 6), max_new_tokens=6, temperature=0.0)
        for row, response in enumerate(responses):
            ids = torch.tensor([history[row] + prompts[row]])
            out = hf.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False)
            assert response.token_ids == out[0, ids.shape[1] :].tolist()
            history[row] = out[0].tolist()


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
    together = Turns(TorchEngine(policy, [3]), 3, append_only=True)
    all_three = together.respond(prompts, draws, max_new_tokens=8, temperature=1.0)
    together.keep([2])
    second = together.respond([[20, 21]], draws[:1], max_new_tokens=8, temperature=1.0)

    alone = Turns(TorchEngine(policy, [3]), 1, append_only=True)
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


@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_a_long_vocabulary_costs_no_precision(top_p: float) -> None:
    """Sums of 150,000 float32 numbers against float64 ones."""
    logits = 3 * torch.randn(4, 150_000, generator=torch.Generator().manual_seed(0))
    token, logprob, entropy = sample(logits.clone(), torch.tensor([0.1, 0.4, 0.7, 0.95]), 0.8, top_p)
    exact = (logits.double() / 0.8).softmax(-1)
    if top_p < 1:
        kept = nucleus(exact, top_p)
        exact = exact * kept / (exact * kept).sum(-1, keepdim=True)
    drawn = exact.gather(1, token[:, None])[:, 0]
    torch.testing.assert_close(logprob.double(), drawn.log(), atol=5e-6, rtol=0)
    torch.testing.assert_close(entropy.double(), torch.special.entr(exact).sum(-1), atol=1e-5, rtol=0)


def test_a_draw_of_almost_one_never_takes_an_impossible_token() -> None:
    logits = torch.tensor([[0.0, 0.0, -200.0]])  # the last token has probability 0 in float32
    token, _, _ = sample(logits, torch.tensor([1.0 - 1e-12], dtype=torch.float64), 1.0)
    assert token.item() == 1


def test_temperature_sharpens() -> None:
    # At temperature 0.5 the log-odds double: p = [1, 4] / 5 from logits [0, ln 2].
    token, logprob, _ = sample(torch.tensor([[0.0, np.log(2.0)]], dtype=torch.float32), torch.tensor([0.19]), 0.5)
    assert token.item() == 0
    torch.testing.assert_close(logprob.exp(), torch.tensor([0.2]))


@pytest.mark.parametrize("context", ["transcript", "window"])
def test_sampled_turns_equal_a_slow_transcription(context: str) -> None:
    """Row by row, token by token, the whole text read anew for each token, probabilities and their sums in float64.

    Stop tokens that the random model likes make rows end at different times, so decoding runs with holes.
    """
    policy = tiny_policy(tiny_config())
    stops = [3, *frequent_tokens(policy, 40)]
    session = Turns(TorchEngine(policy, stops), 5, append_only=context == "transcript")
    generator = np.random.default_rng(2)
    history: list[list[int]] = [[] for _ in range(5)]
    lengths = set()
    for turn in range(3):
        prompts = [generator.integers(4, 200, size=size).tolist() for size in (9, 1 + turn, 30, 4, 17)]
        draws = uniforms(5, 10, seed=turn)
        responses = session.respond(prompts, draws, max_new_tokens=10, temperature=0.7)
        for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            history[row] = (history[row] if context == "transcript" else []) + prompt
            token_ids, logprobs, entropies = slow_response(policy, history[row], draws[row], stops, temperature=0.7)
            assert response.token_ids == token_ids
            assert response.ended == (token_ids[-1] in stops)
            assert response.logprobs == pytest.approx(logprobs, abs=2e-5)
            assert response.entropies == pytest.approx(entropies, abs=2e-5)
            history[row] += token_ids
            lengths.add(len(token_ids))
    assert len(lengths) > 3


def frequent_tokens(policy: Policy, count: int) -> list[int]:
    with torch.inference_mode():
        logit_V = policy.model(torch.arange(4, 200)[None]).logits[0].mean(0)
    return logit_V.topk(count).indices.tolist()


def slow_response(
    policy: Policy, context: list[int], draws: np.ndarray, stops: list[int], *, temperature: float
) -> tuple[list[int], list[float], list[float]]:
    token_ids: list[int] = []
    logprobs, entropies = [], []
    for draw in draws:
        with torch.inference_mode():
            logit_V = policy.model(torch.tensor([context + token_ids])).logits[0, -1].double().numpy() / temperature
        prob_V = np.exp(logit_V - logit_V.max())
        prob_V /= prob_V.sum()
        token = next(token for token, below in enumerate(np.cumsum(prob_V)) if draw < below)
        token_ids.append(token)
        logprobs.append(float(np.log(prob_V[token])))
        entropies.append(float(-(prob_V * np.log(prob_V)).sum()))
        if token in stops:
            break
    return token_ids, logprobs, entropies


@pytest.mark.parametrize("context", ["transcript", "window"])
def test_places_do_not_change_the_episodes(context: str) -> None:
    """Six episodes at once, or two places that waiting episodes take over: the same tokens. Matrix products of another
    height round differently, so log-probs agree to float32 rounding, not bit for bit."""
    cfg = tiny_config(f"rollout={context}")
    policy = tiny_policy(cfg)
    at_once = tiny_rollout(cfg, policy)
    refilled = tiny_rollout(tiny_config(f"rollout={context}", "rollout.max_concurrent=2"), policy)
    assert_same_episodes(at_once, refilled)


def assert_same_episodes(left: list[Trajectory], right: list[Trajectory]) -> None:
    for ours, theirs in zip(left, right, strict=True):
        assert (ours.task.task_id, ours.group, ours.index) == (theirs.task.task_id, theirs.group, theirs.index)
        assert [step.response_ids for step in ours.steps] == [step.response_ids for step in theirs.steps]
        assert ours.reward == theirs.reward
        for one, other in zip(ours.steps, theirs.steps, strict=True):
            assert one.logprobs == pytest.approx(other.logprobs, abs=2e-5)


@pytest.mark.parametrize("append_only", [True, False])
def test_shared_beginnings_change_nothing_but_rounding(append_only: bool) -> None:
    """Groups with equal prompts, a beginning that all prompts share, windows that repeat it, and a late row that finds
    its beginning in a running one. Copied keys come from another pass than computed ones: equal to float32 rounding."""
    policy = tiny_policy(tiny_config())
    generator = np.random.default_rng(3)
    common = generator.integers(4, 200, size=20).tolist()
    goals = [generator.integers(4, 200, size=size).tolist() for size in (3, 3, 8)]
    first = [common + goals[goal] for goal in (0, 0, 1, 1, 2)]
    later = [
        (common if not append_only else []) + generator.integers(4, 200, size=size).tolist() for size in (4, 9, 1, 5)
    ]
    answers = []
    for share in (True, False):
        session = Turns(TorchEngine(policy, [3], share_prefixes=share), 5, append_only=append_only)
        turns = [session.respond(first, uniforms(5, 6), max_new_tokens=6, temperature=1.0)]
        session.keep([0, 2, 4])
        session.add(1)
        prompts = [*later[:3], first[4]]
        turns.append(session.respond(prompts, uniforms(4, 6, seed=1), max_new_tokens=6, temperature=1.0))
        answers.append([response for turn in turns for response in turn])
    for shared, computed in zip(*answers, strict=True):
        assert shared.token_ids == computed.token_ids
        assert shared.logprobs == pytest.approx(computed.logprobs, abs=2e-5)


def test_a_long_first_prompt_is_shared() -> None:
    policy = tiny_policy(tiny_config())
    prompt = np.random.default_rng(4).integers(4, 200, size=256).tolist()
    answers = [
        Turns(TorchEngine(policy, [3], share_prefixes=share), 2, append_only=True).respond(
            [prompt, prompt], uniforms(2, 4), max_new_tokens=4, temperature=1.0
        )
        for share in (True, False)
    ]
    assert [row.token_ids for row in answers[0]] == [row.token_ids for row in answers[1]]


@pytest.mark.parametrize("append_only", [True, False])
def test_groups_read_their_prompt_once(append_only: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three prompts of four rows each, turns in which rows leave and come: the same tokens as one row at a time."""
    readings: list[int] = []
    plain = PrefixReading.attend

    def counted(self: PrefixReading, query: Tensor, *rest: Any) -> Tensor:
        readings.append(query.shape[2])
        return plain(self, query, *rest)

    monkeypatch.setattr(PrefixReading, "attend", counted)
    monkeypatch.setattr(plans, "saved_columns", lambda chunks, overhead: min(chunk.shared for chunk in chunks))
    policy = tiny_policy(tiny_config())
    generator = np.random.default_rng(5)
    openings = [generator.integers(4, 200, size=size).tolist() for size in (30, 42, 35)]
    session = Turns(TorchEngine(policy, [3]), 12, append_only=append_only)
    singles = [Turns(TorchEngine(policy, [3], share_prefixes=False), 1, append_only=append_only) for _ in range(14)]
    opening_of = [openings[row // 4] for row in range(12)] + [openings[0]] * 2
    going, started = list(range(12)), set[int]()
    for turn in range(3):
        news = [generator.integers(4, 200, size=1 + (row + turn) % 9).tolist() for row in going]
        prompts = [
            opening_of[row] if row not in started else new if append_only else opening_of[row][:25] + new
            for row, new in zip(going, news, strict=True)
        ]
        started |= set(going)
        draws = uniforms(len(going), 6, seed=turn)
        together = session.respond(prompts, draws, max_new_tokens=6, temperature=1.0)
        for row, prompt, draw, response in zip(going, prompts, draws, together, strict=True):
            (expected,) = singles[row].respond([prompt], [draw], max_new_tokens=6, temperature=1.0)
            assert response.token_ids == expected.token_ids
            assert response.logprobs == pytest.approx(expected.logprobs, abs=2e-5)
        if turn == 0:
            session.keep([0, 1, 4, 6, 7, 11])
            session.add(2)
            going = [0, 1, 4, 6, 7, 11, 12, 13]
    assert {8, 12} <= set(readings)


def test_the_same_settings_give_the_same_bits() -> None:
    cfg = tiny_config("rollout.max_concurrent=3")
    policy = tiny_policy(cfg)
    runs = [[step for trajectory in tiny_rollout(cfg, policy) for step in trajectory.steps] for _ in range(2)]
    assert [(step.response_ids, step.logprobs, step.entropies) for step in runs[0]] == [
        (step.response_ids, step.logprobs, step.entropies) for step in runs[1]
    ]


def test_top_p_keeps_what_generate_keeps() -> None:
    logit_BV = torch.randn(50, 30, generator=torch.Generator().manual_seed(0)) * 3
    for top_p in (0.05, 0.5, 0.9, 0.999):
        theirs_BV = TopPLogitsWarper(top_p)(torch.empty(50, 0), logit_BV).isfinite()
        assert torch.equal(nucleus(logit_BV.softmax(-1), top_p), theirs_BV)


def test_top_p_draws_from_the_cut_distribution() -> None:
    # p = [1/8, 2/8, 5/8]; 0.8 keeps the last two, which become [2/7, 5/7]: a draw falls below 2/7 = 0.2857 or above.
    logits = torch.tensor([[0.0, np.log(2.0), np.log(5.0)]], dtype=torch.float32).repeat(3, 1)
    token, logprob, entropy = sample(logits, torch.tensor([0.0, 0.285, 0.286]), 1.0, top_p=0.8)
    assert token.tolist() == [1, 1, 2]
    torch.testing.assert_close(logprob.exp(), torch.tensor([2, 2, 5]) / 7)
    # -(2/7 ln 2/7 + 5/7 ln 5/7) = 0.3579 + 0.2403
    torch.testing.assert_close(entropy, torch.full((3,), 0.598270), atol=1e-5, rtol=0)


def test_runs_are_cut_where_padding_costs_more_than_a_call() -> None:
    def runs(lengths: dict[int, int], overhead: int) -> list[tuple[int, int, int]]:
        chunks = [Chunk(slot, length - 1, length) for slot, length in lengths.items()]
        return [(run.first, run.last, run.columns) for run in plan_runs(chunks, overhead)]

    # Slot 1 beside slot 0: 2 x 12 columns instead of 10 + 12, 2 in vain. With slot 2: 3 x 40 instead of 24 + 40.
    assert runs({0: 10, 1: 12, 2: 40}, overhead=10) == [(0, 1, 12), (2, 2, 40)]
    # An idle slot between two costs its columns: 3 x 10 instead of 10 + 10.
    assert runs({0: 10, 2: 10}, overhead=10) == [(0, 2, 10)]
    assert runs({0: 10, 2: 10}, overhead=9) == [(0, 0, 10), (2, 2, 10)]
