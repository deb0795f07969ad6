"""The engine's schedule: who is read when, what a pass holds, and what happens when it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import numpy as np
import pytest
import torch

from empg_cli.model.policy import Policy
from empg_cli.rollout.collect import run
from empg_cli.rollout.engine import Completion, Sampling
from empg_cli.rollout.torch_engine import engine as module
from empg_cli.rollout.torch_engine.engine import LONGEST_WAIT, TorchEngine
from tests.support.tiny import tiny_config, tiny_policy


@pytest.fixture(scope="module")
def policy() -> Policy:
    return tiny_policy(tiny_config())


class Watched(TorchEngine):
    """Notes the episodes of each pass."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy, stop_ids=())
        self.passes: list[list[Any]] = []

    def _advance(self, going: Any, new: Any) -> Any:
        self.passes.append(sorted([*(request.episode for _, request in going), *(request.episode for request in new)]))
        return super()._advance(going, new)


async def say(engine: TorchEngine, episode: int, tokens: int, prompt: int = 5) -> Completion[int]:
    """A response of just so many tokens, as nothing ends one earlier."""
    draws = np.random.default_rng([episode, tokens]).random(tokens)
    sampling = Sampling(temperature=1.0, max_new_tokens=tokens)
    ids = [4 + (episode + number) % 50 for number in range(prompt)]
    return await engine.generate(ids, episode=episode, draws=draws, sampling=sampling)


def play(*episodes: Coroutine[Any, Any, Any]) -> list[Any]:
    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*episodes)

    return asyncio.run(all_of_them())


def test_no_turn_waits_for_a_longer_answer_of_another_episode(policy: Policy) -> None:
    engine, order = Watched(policy), list[str]()

    async def short() -> None:
        for turn in range(3):
            await say(engine, 0, 2, prompt=5 + turn)
            order.append(f"short {turn}")

    async def long() -> None:
        await say(engine, 1, 12)
        order.append("long")

    play(short(), long())
    assert order == ["short 0", "short 1", "short 2", "long"]
    assert engine.passes == [[0, 1]] * 6 + [[1]] * 6  # with one of two waiting, its prompt is read at once


def test_few_prompts_wait_for_others_but_not_for_long(policy: Policy) -> None:
    """Of 20 open episodes an eighth is 2.5: a single prompt waits, three do not."""
    engine = Watched(policy)

    async def again(episode: int, first: int) -> None:
        await say(engine, episode, first)
        await say(engine, episode, 2, prompt=9)

    async def once(episode: int) -> None:
        await say(engine, episode, 30)

    play(again(0, 3), *(once(episode) for episode in range(1, 20)))
    without = next(number for number, episodes in enumerate(engine.passes) if 0 not in episodes)
    back = next(number for number in range(without, 30) if 0 in engine.passes[number])
    assert (without, back) == (3, 3 + LONGEST_WAIT - 1)

    engine = Watched(policy)
    play(*(again(episode, 3) for episode in range(3)), *(once(episode) for episode in range(3, 20)))
    assert engine.passes[3][:3] == [0, 1, 2]


def test_requests_of_other_temperatures_and_lengths_share_passes(policy: Policy) -> None:
    async def ask(engine: TorchEngine, episode: int, temperature: float, tokens: int, top_p: float) -> Completion[int]:
        draws = np.random.default_rng(episode).random(tokens)
        prompt = [4 + episode, 9, 11]
        return await engine.generate(
            prompt, episode=episode, draws=draws, sampling=Sampling(temperature, tokens, top_p)
        )

    cases = [(0, 0.0, 4, 1.0), (1, 1.0, 7, 1.0), (2, 0.7, 2, 1.0), (3, 1.0, 5, 0.5)]
    together = Watched(policy)
    mixed = play(*(ask(together, *case) for case in cases))
    assert len(together.passes) == 7
    for case, one in zip(cases, mixed, strict=True):
        (alone,) = play(ask(TorchEngine(policy, stop_ids=()), *case))
        assert one.response == alone.response and len(one.response) == case[2]
        assert one.logprobs == pytest.approx(alone.logprobs, abs=2e-5)
        assert one.entropies == pytest.approx(alone.entropies, abs=2e-5)


@pytest.mark.parametrize("look_every", [0, 8])
def test_a_long_prompt_and_a_long_answer_share_a_pass_within_the_bound(policy: Policy, look_every: int) -> None:
    """60 + 4 and 3 + 50 tokens are each within 64; 60 + 50 would not be."""
    engine = TorchEngine(policy, stop_ids=(), most_tokens=64, look_every=look_every)
    long, short = play(say(engine, 0, 4, prompt=60), say(engine, 1, 50, prompt=3))
    assert (len(long.response), len(short.response)) == (4, 50)
    alone = [play(say(TorchEngine(policy, ()), *asked))[0].response for asked in ((0, 4, 60), (1, 50, 3))]
    assert [long.response, short.response] == alone


def test_slots_stay_dense_and_an_idle_engine_holds_nothing(policy: Policy) -> None:
    """Episodes end in the middle of others' answers; a row that moves to a free slot goes on as if it had not."""
    engine = TorchEngine(policy, stop_ids=())
    slots: list[list[int]] = []

    async def episode(number: int, turns: int) -> list[int]:
        said: list[int] = []
        for turn in range(turns):
            said += (await say(engine, number, 3, prompt=6 + 4 * turn)).response
        engine.close(number)
        slots.append(sorted(row.slot for row in engine._reader._rows.values()))
        return said

    turns = [1, 4, 2, 5, 3]
    together = play(*(episode(number, count) for number, count in enumerate(turns)))
    assert slots == [list(range(left)) for left in (4, 3, 2, 1, 0)]
    assert not engine._reader._cache.keys, "the cache goes with the last episode"
    for number, count in enumerate(turns):
        assert together[number] == play(episode(number, count))[0]


def test_a_version_is_published_between_rollouts_only(policy: Policy) -> None:
    engine = TorchEngine(policy, stop_ids=())
    assert play(say(engine, 0, 2))[0].policy_version == 0
    with pytest.raises(AssertionError, match="open episodes"):
        engine.publish(1)
    engine.close(0)
    engine.publish(1)
    assert play(say(engine, 0, 2))[0].policy_version == 1


def test_an_error_of_the_model_reaches_every_episode(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, calls = TorchEngine(policy, stop_ids=()), 0
    plain = module.sample

    def third_time_out(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise torch.OutOfMemoryError("no memory left")
        return plain(*arguments)

    monkeypatch.setattr(module, "sample", third_time_out)

    async def both() -> list[Any]:
        return await asyncio.gather(say(engine, 0, 5), say(engine, 1, 9), return_exceptions=True)

    assert [str(error) for error in asyncio.run(both())] == ["no memory left"] * 2
    monkeypatch.undo()
    assert len(play(say(engine, 0, 5))[0].response) == 5  # and the engine can go on


def test_an_episode_that_is_cancelled_leaves_the_others_alone(policy: Policy) -> None:
    engine = Watched(policy)

    async def leaves(episode: int) -> None:
        try:
            async with asyncio.timeout(0):  # its first chance to be noticed is after a token
                await say(engine, episode, 9)
        except TimeoutError:
            engine.close(episode)

    async def stays(episode: int) -> list[int]:
        return (await say(engine, episode, 6)).response

    *_, last = play(leaves(0), leaves(1), stays(2), stays(3))
    assert engine.passes[-1] == [2, 3]
    assert last == play(stays(3))[0]


def test_a_request_that_is_cancelled_before_its_first_pass_is_nobodys_error(policy: Policy) -> None:
    engine = TorchEngine(policy, stop_ids=())

    async def rollout() -> list[int]:
        gone, stays = (asyncio.create_task(say(engine, episode, 1)) for episode in (0, 1))
        await asyncio.sleep(0)
        gone.cancel()
        return (await stays).response

    assert len(asyncio.run(rollout())) == 1


def test_an_interrupt_before_the_first_pass_does_not_stop_the_next_rollout(policy: Policy) -> None:
    engine = TorchEngine(policy, stop_ids=())

    async def interrupted() -> None:
        asyncio.create_task(say(engine, 0, 3))  # noqa: RUF006 (it is not to be waited for)
        await asyncio.sleep(0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(interrupted())
    assert [len(one.response) for one in play(say(engine, 1, 3))] == [3]


def test_no_memory_for_a_larger_cache_is_what_the_episodes_say(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = TorchEngine(policy, stop_ids=())

    async def episode(number: int) -> None:
        try:
            await say(engine, number, 4, prompt=30)
        finally:
            engine.close(number)

    async def rollout() -> list[Any]:
        await say(engine, 0, 4)

        def refuse(*_: Any) -> Any:
            raise torch.OutOfMemoryError("no memory left")

        monkeypatch.setattr(torch.Tensor, "new_empty", refuse)
        return await asyncio.gather(*(episode(number) for number in range(1, 4)), return_exceptions=True)

    assert [str(error) for error in asyncio.run(rollout())] == ["no memory left"] * 3


def test_an_error_of_a_rollout_has_no_other_before_it() -> None:
    async def failing() -> None:
        raise LookupError("of the rollout")

    with pytest.raises(LookupError) as raised:
        run(failing())
    assert raised.value.__context__ is None


def test_a_rollout_can_be_called_where_an_event_loop_runs(policy: Policy) -> None:
    """In a notebook there is one already."""
    engine, answers = TorchEngine(policy, stop_ids=()), list[Completion[int]]()

    async def rollout() -> None:
        answers.append(await say(engine, 0, 4))

    async def failing() -> None:
        raise LookupError("of the rollout")

    async def notebook() -> None:
        run(rollout())
        with pytest.raises(LookupError, match="of the rollout"):
            run(failing())

    asyncio.run(notebook())
    assert len(answers[0].response) == 4
