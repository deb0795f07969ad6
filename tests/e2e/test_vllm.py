"""Our client, our transfers of weights and our probe against a real vLLM on the CPU: `make test-vllm`.

The model is a tiny one with heads of 32 numbers, the smallest that vLLM's attention on CPUs computes.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from empg_cli.config.rollout import Rollout
from empg_cli.config.schema import TrainConfig
from empg_cli.model.batch import make_batch
from empg_cli.model.policy import Policy
from empg_cli.ranks import ALONE
from empg_cli.rollout.collect import run
from empg_cli.rollout.engine import Completion, EngineLost, Sampling
from empg_cli.rollout.vllm.engine import VllmEngine
from empg_cli.rollout.vllm.opening import opened_servers
from empg_cli.services.errors import ServerDown
from empg_cli.services.vllm import Answer, question
from empg_cli.types import Step, Task, Trajectory
from tests.support.tiny import tiny_config, tiny_policy

pytestmark = pytest.mark.vllm

HEADS_OF_32 = (
    "model=tiny-scratch",
    "model.arch.hidden_size=64",
    "model.arch.num_layers=2",
    "model.arch.num_heads=2",
    "model.arch.num_kv_heads=1",
    "model.arch.mlp_size=96",
)
TEMPERATURE = 0.8
PARITY = 1e-5
"""Nats, in float32."""


def settings(*words: str, model: Sequence[str] = HEADS_OF_32) -> TrainConfig:
    python = os.environ.get("EMPG_VLLM_PYTHON")
    if not python:
        pytest.skip("EMPG_VLLM_PYTHON names no interpreter with vLLM: make test-vllm")
    return tiny_config(
        "rollout.engine=vllm",
        "trainer.old_logprobs=recompute",
        f"rollout.vllm.python={python}",
        f"rollout.temperature={TEMPERATURE}",
        "rollout.max_context_tokens=1024",
        *words,
        model=model,
    )


def fresh_policy(cfg: TrainConfig, *, tied: bool) -> Policy:
    """Random weights, larger than a fresh model's, so that distributions are far from uniform."""
    policy = tiny_policy(cfg)
    if not tied:
        network = policy.model
        head = torch.nn.Linear(network.config.hidden_size, network.config.vocab_size, bias=False)
        network.lm_head, network.config.tie_word_embeddings = head, False
        policy.__dict__.pop("lm", None)
    shift(policy, 0, by=0.05)
    return policy


def shift(policy: Policy, seed: int, *, by: float = 0.02) -> None:
    """Other weights, as an update makes them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter += by * torch.randn(parameter.shape, generator=generator)


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def policy(request: pytest.FixtureRequest) -> Policy:
    return fresh_policy(settings(), tied=request.param)


@pytest.fixture(scope="module")
def engine(policy: Policy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmEngine]:
    cfg, folder = settings(), tmp_path_factory.mktemp("servers")
    with opened(cfg.rollout, policy, cfg, folder) as engine:
        engine.publish(0)
        yield engine


def opened(rollout: Rollout, policy: Policy, cfg: TrainConfig, folder: Path):  # type: ignore[no-untyped-def]
    return opened_servers(rollout, policy, (7,), model=cfg.model, folder=folder, ranks=ALONE)


def generated(engine: VllmEngine, prompts: Sequence[Sequence[int]], *, seeds: Sequence[int], most: int = 24,
              temperature: float = TEMPERATURE) -> list[Completion[int]]:  # fmt: skip
    """All at once."""
    found: list[Completion[int]] = []

    async def ask() -> None:
        sampling = Sampling(temperature, most)
        found.extend(
            await asyncio.gather(
                *(
                    engine.generate(prompt, episode=number, sampling=sampling,
                                    draws=np.random.default_rng(seed).random(most))
                    for number, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True))
                )
            )
        )  # fmt: skip
        for number in range(len(prompts)):
            engine.close(number)

    run(ask())
    return found


def own_logprobs(policy: Policy, prompt: Sequence[int], response: Sequence[int]) -> torch.Tensor:
    """Of the model's own logits, at the temperature of sampling."""
    with torch.no_grad():
        logit_TV = policy.model(torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1] / TEMPERATURE
    return torch.log_softmax(logit_TV, -1).gather(1, torch.tensor(response)[:, None])[:, 0]


def largest_gap(policy: Policy, prompt: Sequence[int], answer: Completion[int]) -> float:
    return float((own_logprobs(policy, prompt, answer.response) - torch.tensor(answer.logprobs)).abs().max())


def prompt_of(size: int, first: int = 11) -> list[int]:
    return [first + 13 * number % 600 for number in range(size)]


def test_log_probs_are_the_policys_before_and_after_five_transfers(policy: Policy, engine: VllmEngine) -> None:
    prompts = [prompt_of(size) for size in (5, 40, 200)]
    before = generated(engine, prompts, seeds=[1, 2, 3])
    for number in range(1, 6):
        assert max(largest_gap(policy, *pair) for pair in zip(prompts, before, strict=True)) < PARITY
        shift(policy, number)
        published = engine.publish(engine.policy_version + 1)
        assert published["rollout/probe_gap"] < PARITY
        after = generated(engine, prompts, seeds=[1, 2, 3])
        assert {one.policy_version for one in after} == {engine.policy_version}
        assert max(largest_gap(policy, *pair) for pair in zip(prompts, before, strict=True)) > 1e-3  # they are others
        before = after
    assert max(largest_gap(policy, *pair) for pair in zip(prompts, before, strict=True)) < PARITY


def test_a_seed_is_an_answer_alone_and_in_company(engine: VllmEngine) -> None:
    prompt = prompt_of(30)
    (alone,) = generated(engine, [prompt], seeds=[5])
    together = generated(engine, [prompt] * 8, seeds=range(1, 9))
    assert together[4].response == alone.response
    assert len({tuple(one.response) for one in together}) > 4


def test_a_stop_token_ends_an_answer_and_stays_in_it(engine: VllmEngine) -> None:
    answers = generated(engine, [prompt_of(12)] * 64, seeds=range(64), most=200)
    ended = [one for one in answers if one.ended]
    assert ended, "of 64 answers of 200 tokens over some 700 words a few hold the one that stops"
    assert all(one.response[-1] == 7 and 7 not in one.response[:-1] for one in ended)
    assert all(len(one.response) == 200 and 7 not in one.response for one in answers if not one.ended)


def test_later_turns_read_their_beginning_from_the_cache(engine: VllmEngine) -> None:
    """vLLM caches whole blocks, on a CPU of 128 tokens."""
    context, cached = prompt_of(256, first=17), []
    for turn in range(3):
        body = question(context, name=f"turn-{turn}", seed=turn, stop_ids=(), max_tokens=8, temperature=1.0)
        (answer,) = engine.ask(lambda server, body=body: server.generate(body))  # type: ignore[misc]
        cached.append(answer.cached_tokens)
        context = [*context, *answer.token_ids, *prompt_of(132, first=100 + turn)]
    assert cached[0] <= 128 and cached[1] >= 256 and cached[2] >= 384


def test_an_answer_under_way_goes_on_with_the_new_weights(policy: Policy, engine: VllmEngine) -> None:
    """How fast a machine is nobody knows: the publication comes earlier or later until it meets the answer."""
    prompt = prompt_of(20)
    body = question(prompt, name="long", seed=3, stop_ids=(), max_tokens=900, temperature=TEMPERATURE)
    for attempt, delay_s in enumerate((0.3, 0.15, 0.6, 0.08, 1.2)):
        answers: list[Answer] = []
        asking = threading.Thread(
            target=lambda found=answers: found.extend(engine.ask(lambda server: server.generate(body)))
        )
        old_version, old = engine.policy_version, {k: v.clone() for k, v in policy.model.state_dict().items()}
        asking.start()
        time.sleep(delay_s)
        shift(policy, 77 + attempt)
        engine.publish(old_version + 1)
        asking.join(120)
        (answer,) = answers
        if len(answer.spans) == 2:
            break
    assert [span.version for span in answer.spans] == [old_version, old_version + 1]
    new = {k: v.clone() for k, v in policy.model.state_dict().items()}
    for span, weights in zip(answer.spans, (old, new), strict=True):
        policy.model.load_state_dict(weights)
        told = torch.tensor(answer.logprobs[span.start : span.end])
        own = own_logprobs(policy, [*prompt, *answer.token_ids[: span.start]], answer.token_ids[span.start : span.end])
        assert float((told - own).abs().max()) < PARITY, f"of version {span.version}"
    policy.model.load_state_dict(new)


def test_a_server_that_keeps_old_weights_is_caught(policy: Policy, engine: VllmEngine,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """It has the new label, and samples from the old policy."""
    transfer = engine._transfer
    assert transfer is not None
    monkeypatch.setattr(
        type(transfer), "send", lambda _, version: engine.ask(lambda server: server.label(version)), raising=True
    )
    shift(policy, 99)
    with pytest.raises(ServerDown, match="does not sample from the policy that learns"):
        engine.publish(engine.policy_version + 1)
    monkeypatch.undo()
    engine.publish(engine.policy_version)


def test_a_server_that_is_killed_is_started_again_with_the_weights_of_today(policy: Policy, engine: VllmEngine) -> None:
    (started,) = engine._started
    assert started._process is not None
    keeper = started._process.pid
    children = Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()
    os.killpg(int(children[0]), signal.SIGKILL)
    prompt = prompt_of(25)
    with pytest.raises(EngineLost):
        generated(engine, [prompt], seeds=[1])
    engine.revive()
    (answer,) = generated(engine, [prompt], seeds=[1])
    assert answer.policy_version == engine.policy_version
    assert largest_gap(policy, prompt, answer) < PARITY


def test_batches_hold_what_servers_said(policy: Policy, engine: VllmEngine) -> None:
    """The way of training: a batch of their answers, scored by the policy, shows no gap."""
    prompts = [prompt_of(9), prompt_of(90)]
    answers = generated(engine, prompts, seeds=[3, 4])
    played = []
    for number, (prompt, one) in enumerate(zip(prompts, answers, strict=True)):
        step = Step(list(prompt), one.response, one.logprobs, [0.0] * len(one.response))
        played.append(Trajectory(Task("t", "t", "t"), number, 0, [step]))
    batch = make_batch(played, append_only=True)
    with torch.no_grad():
        logprob_ST, _ = policy.score(batch, range(2), torch.arange(2), temperature=TEMPERATURE)
    assert float(((logprob_ST - batch.old_logprob_ST) * batch.mask_ST).abs().max()) < PARITY


def test_an_adapter_is_swapped_with_each_publication(tmp_path: Path) -> None:
    """The base weights stay; the server answers with the adapter of today, and says its version."""
    base = fresh_policy(settings(), tied=True)
    base.save(tmp_path / "base")
    words = ("model=local", f"model.path={tmp_path / 'base'}", "model.prompt=compact", "model.lora.rank=4")
    words += ("rollout.max_concurrent=0", "rollout=transcript", "model.dtype=float32")
    cfg = settings(model=words)
    policy = tiny_policy(cfg)
    prompt = prompt_of(33)
    with opened(cfg.rollout, policy, cfg, tmp_path / "servers") as engine:
        for version in range(3):
            published = engine.publish(version)
            assert published["rollout/probe_gap"] < PARITY
            (answer,) = generated(engine, [prompt], seeds=[version])
            assert answer.policy_version == version
            assert largest_gap(policy, prompt, answer) < PARITY
            with torch.no_grad():
                for parameter in policy.parameters():
                    parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(version))
            assert largest_gap(policy, prompt, answer) > 1e-3, "the next adapter is another"


def test_tokens_come_as_often_as_their_log_probs_say(policy: Policy, engine: VllmEngine) -> None:
    """Log-probs can be right and draws wrong, by another temperature or a cut. Of 4,000 draws of one token, a sharper
    or flatter distribution moves the mean of -log p away from the entropy by many of its standard errors."""
    prompt = prompt_of(15)
    answers = generated(engine, [prompt] * 4000, seeds=range(4000), most=1)
    with torch.no_grad():
        logit_V = policy.model(torch.tensor([prompt])).logits[0, -1] / TEMPERATURE
    logp_V = torch.log_softmax(logit_V.double(), -1)
    entropy = float(-(logp_V.exp() * logp_V).sum())
    drawn = torch.tensor([one.response[0] for one in answers])
    surprise = -logp_V[drawn]
    error = float(surprise.std()) / len(drawn) ** 0.5
    assert abs(float(surprise.mean()) - entropy) < 4 * error
    top = int(logp_V.argmax())
    expected = float(logp_V[top].exp())
    share = float((drawn == top).double().mean())
    assert abs(share - expected) < 4 * (expected * (1 - expected) / len(drawn)) ** 0.5
