"""Tokens that are drawn and read on by the device, several before the host looks, against a look after every pass."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from empg_cli.model.policy import Policy
from empg_cli.rollout.engine import Completion, Sampling
from empg_cli.rollout.torch_engine import decoding, reader
from empg_cli.rollout.torch_engine.cache import EpisodeCache
from empg_cli.rollout.torch_engine.decoding import Decoder
from empg_cli.rollout.torch_engine.engine import LONGEST_WAIT, TorchEngine
from tests.parity.test_architectures import networks_of
from tests.support.recorded import recorded
from tests.support.tiny import tiny_config, tiny_policy, tiny_rollout
from tests.support.turns import Answer, Turns

STOPS = range(3, 60)
"""A random model likes all words about as well: answers end after about 15 of 912."""


@pytest.fixture(scope="module")
def policy() -> Policy:
    return tiny_policy(tiny_config())


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes of many shapes."""
    monkeypatch.setattr(decoding, "FEWEST_SLOTS", 2)
    monkeypatch.setattr(decoding, "COLUMNS", 16)


def answers(policy: Policy, look_every: int, *, append_only: bool = True, top_p: float = 1.0) -> list[Answer]:
    """Three turns in which rows leave and join, their answers of different lengths."""
    session = Turns(TorchEngine(policy, STOPS, look_every=look_every), 6, append_only=append_only)
    generator = np.random.default_rng(7)
    opening = generator.integers(60, 200, size=25).tolist()
    given: list[Answer] = []
    for turn, rows in enumerate((6, 4, 5)):
        new = [generator.integers(60, 200, size=3 + (5 * row + turn) % 11).tolist() for row in range(rows)]
        prompts = [opening + part for part in new] if turn == 0 or not append_only else new
        draws = [generator.random(20) for _ in prompts]
        given += session.respond(prompts, draws, max_new_tokens=20, temperature=0.8, top_p=top_p)
        if turn == 0:
            session.keep([0, 2, 3, 5])
        if turn == 1:
            session.add(1)
    return given


def assert_alike(ours: list[Answer], theirs: list[Answer]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert (one.token_ids, one.ended) == (other.token_ids, other.ended)
        assert one.logprobs == pytest.approx(other.logprobs, abs=2e-5)
        assert one.entropies == pytest.approx(other.entropies, abs=2e-5)


@pytest.mark.parametrize(("append_only", "top_p"), [(True, 1.0), (False, 1.0), (True, 0.9)])
@pytest.mark.usefixtures("small_steps")
def test_the_same_answers_come_out_however_seldom_the_host_looks(
    policy: Policy, append_only: bool, top_p: float
) -> None:
    planned = answers(policy, 0, append_only=append_only, top_p=top_p)
    assert len({len(answer.token_ids) for answer in planned}) > 4 and {answer.ended for answer in planned} == {
        True,
        False,
    }
    for look_every in (1, 3, 8):
        assert_alike(answers(policy, look_every, append_only=append_only, top_p=top_p), planned)


@pytest.mark.parametrize("context", ["transcript", "window"])
def test_a_rollout_is_the_same(policy: Policy, context: str) -> None:
    cfg = tiny_config(f"rollout={context}", "rollout.max_concurrent=4")
    one, eight = (tiny_rollout(cfg, policy, look_every=look_every) for look_every in (1, 8))
    for left, right in zip(one, eight, strict=True):
        assert (left.status, left.score) == (right.status, right.score)
        assert [step.response_ids for step in left.steps] == [step.response_ids for step in right.steps]
        for ours, theirs in zip(left.steps, right.steps, strict=True):
            assert ours.logprobs == pytest.approx(theirs.logprobs, abs=2e-5)


@pytest.mark.parametrize("name", ["gemma2", "cohere2", "mistral", "qwen3"])
def test_windows_and_soft_caps_hold(name: str) -> None:
    network, _ = networks_of(name)
    other = Policy(network, None, torch.device("cpu"))
    prompts = [[5, 6, 7, 8, 9, 10, 11], [9, 10]]
    draws = [np.random.default_rng(row).random(12) for row in range(2)]

    def of(look_every: int) -> list[Answer]:
        session = Turns(TorchEngine(other, [], look_every=look_every), 2, append_only=True)
        return session.respond(prompts, draws, max_new_tokens=12, temperature=1.0)

    assert_alike(of(5), of(0))


@pytest.mark.usefixtures("small_steps")
def test_passes_can_be_played_again(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the contents of tensors may differ between two passes of a kind, and none asks the device."""
    captured: list[Callable[[], None]] = []

    def capture(run: Callable[[], None]) -> Callable[[], None]:
        captured.append(recorded(run))
        return captured[-1]

    expected = answers(policy, 8)
    monkeypatch.setattr(reader, "capture_of", lambda policy: capture)
    passes = counted(monkeypatch, Decoder, "_pass")
    assert_alike(answers(policy, 8), expected)
    kinds = set(passes)
    assert len(kinds) > 3  # of several numbers of slots and columns
    assert len(captured) <= len(passes) <= 2 * len(kinds) + len(captured)
    assert len(passes) < 40 < sum(len(answer.token_ids) for answer in expected) / 3


def counted(monkeypatch: pytest.MonkeyPatch, kind: type, name: str) -> list[Any]:
    """The arguments of every call."""
    calls: list[Any] = []
    plain = getattr(kind, name)

    def noting(self: Any, *arguments: Any) -> Any:
        calls.append(arguments)
        return plain(self, *arguments)

    monkeypatch.setattr(kind, name, noting)
    return calls


def test_the_host_looks_every_few_passes(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    passes, bursts = counted(monkeypatch, Decoder, "_pass"), counted(monkeypatch, Decoder, "burst")
    session = Turns(TorchEngine(policy, [], look_every=8), 1, append_only=True)
    session.respond([[5, 6, 7]], [np.random.default_rng(0).random(20)], max_new_tokens=20, temperature=1.0)
    # The first token comes with the prompt; 8 + 8 + 3 are left.
    assert [len(burst[3]) for burst in bursts] == [8, 8, 3]
    assert len(passes) == 19


@pytest.mark.parametrize("prompt", range(50, 57))
def test_the_longest_prompt_that_fits_is_answered(policy: Policy, prompt: int) -> None:
    """A context of 64 takes a prompt of 56 and an answer of 8, whose burst draws on after its end."""
    draws = [np.random.default_rng(prompt).random(8)]

    def of(look_every: int) -> list[Answer]:
        session = Turns(TorchEngine(policy, [], most_tokens=64, look_every=look_every), 1, append_only=True)
        return session.respond([list(range(60, 60 + prompt))], draws, max_new_tokens=8, temperature=1.0)

    assert_alike(of(8), of(0))


def test_a_prompt_waits_for_one_burst(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 20 open episodes an eighth is 2.5, so one that comes back waits; eight passes are as long as it may."""
    assert LONGEST_WAIT == 8
    of_reader = counted(monkeypatch, reader.Reader, "read")
    bursts = counted(monkeypatch, Decoder, "burst")
    ours, seen = TorchEngine(policy, [], look_every=8), list[tuple[int, int]]()

    async def say(episode: int, tokens: int) -> Completion[int]:
        draws = np.random.default_rng([episode, tokens]).random(tokens)
        prompt = [4 + episode, 9, 11, tokens]
        return await ours.generate(prompt, episode=episode, draws=draws, sampling=Sampling(1.0, tokens))

    async def twice() -> None:
        for tokens in (9, 2):
            await say(0, tokens)
            seen.append((len(of_reader), len(bursts)))

    async def play() -> None:
        await asyncio.gather(twice(), *(say(episode, 60) for episode in range(1, 20)))

    asyncio.run(play())
    # All prompts, and a burst for the other 8; a burst in which it waits, its prompt, and a burst for the second token.
    assert seen == [(1, 1), (2, 3)]


def test_slots_of_a_pass_double(policy: Policy) -> None:
    cache = EpisodeCache(0)
    cache.reserve(slots=40, columns=8)
    decoder = Decoder(policy, cache, most_passes=1, capture=None)
    assert [decoder.slots(highest) for highest in (0, 7, 8, 15, 16, 39)] == [8, 8, 16, 16, 32, 40]


@pytest.mark.parametrize(
    ("device", "name", "rope_type", "captured"),
    [
        ("cpu", "llama", "default", False),
        ("cuda", "llama", "default", True),
        ("cuda", "llama", "llama3", True),
        ("cuda", "llama", "dynamic", False),
        ("cuda", "llama", "longrope", False),
        ("cuda", "gemma2", "default", False),
    ],
)
def test_passes_are_captured_where_no_layer_asks_the_device(
    device: str, name: str, rope_type: str, captured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, _ = networks_of(name)
    network.base_model.rotary_emb.rope_type = rope_type
    monkeypatch.setattr(decoding, "_cuda_graphs", lambda: recorded)  # there is no GPU here
    found = decoding.capture_of(Policy(network, None, torch.device(device)))
    assert found is (recorded if captured else None)
