"""The vLLM engine over HTTP against fakes of its server: what goes wrong there, and what episodes see of it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from empg_cli.benchmarks import make_benchmark
from empg_cli.model.policy import Policy
from empg_cli.rollout.collect import collect
from empg_cli.rollout.engine import Completion, EngineLost, NoCompletion
from empg_cli.rollout.episode import episode_rules
from empg_cli.rollout.vllm.engine import VllmEngine
from empg_cli.services import http
from empg_cli.services.errors import ServerDown
from empg_cli.signals import Interrupted, caught
from empg_cli.types import Status, Trajectory
from tests.support.served import (
    ATTEMPTS,
    GENERATE,
    PARITY,
    asked,
    draws_of,
    generated,
    largest_gap,
    once_asked,
    order_of,
    policy_of,
    prompt_of,
    published,
    saved,
    served,
    served_config,
    shift,
    until,
)
from tests.support.server import FakeServer, Reply, Request
from tests.support.tiny import tiny_agents
from tests.support.token_server import TokenServer, token_server
from tests.support.token_server_protocol import Refused

PROMPT = prompt_of(20)
PROMPTS = [prompt_of(5 + number % 20, first=11 + number) for number in range(64)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What servers begin with: other weights than those that are published."""
    policy = policy_of()
    shift(policy, 1234)
    return saved(policy, tmp_path_factory.mktemp("weights") / "model")


@pytest.fixture(scope="module")
def policy() -> Policy:
    return policy_of()


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "FIRST_WAIT_S", 0.001)


@pytest.fixture
def server(folder: Path) -> Iterator[TokenServer]:
    with token_server(folder) as server:
        yield server


@pytest.fixture
def other(folder: Path) -> Iterator[TokenServer]:
    with token_server(folder) as server:
        yield server


@pytest.fixture
def engine(policy: Policy, server: TokenServer, tmp_path: Path) -> Iterator[VllmEngine]:
    with published(policy, server, folder=tmp_path) as engine:
        yield engine


@pytest.fixture
def engine_of_two(policy: Policy, server: TokenServer, other: TokenServer, tmp_path: Path) -> Iterator[VllmEngine]:
    with published(policy, server, other, folder=tmp_path) as engine:
        yield engine


def bodies(server: TokenServer) -> list[Any]:
    return list(server.record.bodies[GENERATE])


# --- answers ---------------------------------------------------------------------------------------------


def test_log_probs_are_those_of_what_was_published(policy: Policy, engine: VllmEngine):
    answers = generated(engine, PROMPTS[:8])
    assert max(largest_gap(policy, *pair) for pair in zip(PROMPTS[:8], answers, strict=True)) < PARITY
    assert {one.policy_version for one in answers} == {0}
    assert all(one.entropies is None for one in answers), "servers do not see them"


def test_the_first_random_number_of_an_answer_is_its_seed_and_its_name(engine: VllmEngine, server: TokenServer):
    generated(engine, [PROMPT], seeds=[5])
    (body,) = bodies(server)
    seed = int(draws_of(5, 1)[0] * 2**62)
    assert (body["sampling_params"]["seed"], body["request_id"]) == (seed, f"empg-{seed:016x}")
    assert (body["token_ids"], body["sampling_params"]["stop_token_ids"]) == (PROMPT, [7])
    assert (body["sampling_params"]["temperature"], body["sampling_params"]["max_tokens"]) == (0.8, 8)


@pytest.mark.parametrize(
    "fault",
    [
        "status_500", "status_503", "hang_up", "broken_json", "short_logprobs", "null_logprob", "unknown_logprob",
        "no_logprobs", "extra_token", "empty", "no_choices", "no_versions", "wrong_versions",
    ],
)  # fmt: skip
def test_what_went_wrong_is_asked_again_word_for_word(engine: VllmEngine, server: TokenServer, fault: str):
    (right,) = generated(engine, [PROMPT], seeds=[3])
    server.faults.update({fault: ATTEMPTS - 1})
    server.record.bodies.clear()
    (again,) = generated(engine, [PROMPT], seeds=[3])
    assert getattr(server.faults, fault) == 0, "each was met"
    assert (again.response, again.logprobs) == (right.response, pytest.approx(right.logprobs, abs=1e-5))
    first, *others = bodies(server)
    assert others == [first] * (ATTEMPTS - 1), "with the same name and the same seed"


def test_a_time_out_is_asked_again(policy: Policy, server: TokenServer, tmp_path: Path):
    with published(policy, server, folder=tmp_path, words=["rollout.vllm.timeout_s=2"]) as engine:
        (right,) = generated(engine, [PROMPT], seeds=[3])
        server.faults.hang, server.faults.hang_s = 1, 6.0
        began = time.monotonic()
        (again,) = generated(engine, [PROMPT], seeds=[3])
        assert again.response == right.response and 2 <= time.monotonic() - began < 5
    assert bodies(server)[1] == bodies(server)[2]


@pytest.mark.parametrize("fault", ["swapped", "other_id"])
def test_answers_of_other_requests_are_not_taken(engine: VllmEngine, server: TokenServer, fault: str):
    own = [generated(engine, [prompt], seeds=[number])[0] for number, prompt in enumerate(PROMPTS[:8])]
    server.faults.update({fault: 2})
    server.record.counts.clear()
    together = generated(engine, PROMPTS[:8])
    assert getattr(server.faults, fault) == 0 and server.record.counts[GENERATE] > 8
    assert [one.response for one in together] == [one.response for one in own]


def test_sixty_four_episodes_whose_answers_come_in_another_order(
    policy: Policy, engine: VllmEngine, server: TokenServer
):
    own = [generated(engine, [prompt], seeds=[number])[0] for number, prompt in enumerate(PROMPTS)]
    server.faults.delay_s = 0.2
    ends: list[int] = []
    together = _in_order_of_ends(engine, ends)
    assert ends != sorted(ends), "they came out of order"
    assert [one.response for one in together] == [one.response for one in own]
    for prompt, one in zip(PROMPTS, together, strict=True):
        assert largest_gap(policy, prompt, one) < PARITY


def _in_order_of_ends(engine: VllmEngine, ends: list[int]) -> list[Completion[int]]:
    class Noting:
        async def generate(self, prompt: Any, *, episode: int, **options: Any) -> Completion[int]:
            answer = await engine.generate(prompt, episode=episode, **options)
            ends.append(episode)
            return answer

        def close(self, episode: int) -> None:
            engine.close(episode)

    return generated(Noting(), PROMPTS)  # type: ignore[arg-type]


def test_a_hundred_and_twenty_eight_episodes_are_in_flight_at_once(engine: VllmEngine, server: TokenServer):
    answers: list[Completion[int]] = []
    server.host.pause(aborts=False, clears=False)
    asking = threading.Thread(target=lambda: answers.extend(generated(engine, [*PROMPTS, *PROMPTS], most=4)))
    asking.start()
    try:
        until(lambda: server.record.most_at_once == 128)
    finally:
        server.host.resume()
        asking.join(60)
    assert len(answers) == 128 and server.record.counts[GENERATE] == 128


def test_places_bound_what_is_in_flight(policy: Policy, server: TokenServer, tmp_path: Path):
    with published(policy, server, folder=tmp_path, words=["rollout.max_concurrent=5"]) as engine:
        server.faults.delay_s = 0.05
        assert len(generated(engine, PROMPTS[:30])) == 30
    assert server.record.most_at_once <= 5


def test_a_prompt_that_is_too_long_ends_its_episode_alone(policy: Policy, folder: Path, tmp_path: Path):
    with token_server(folder, max_model_len=50) as server, published(policy, server, folder=tmp_path) as engine:
        long, longest, short = asked(engine, [prompt_of(51), prompt_of(50), PROMPT])
        assert isinstance(long, NoCompletion) and long.status is Status.CONTEXT_OVERFLOW
        assert isinstance(longest, NoCompletion) and longest.status is Status.CONTEXT_OVERFLOW
        assert isinstance(short, Completion)
        assert server.record.counts[GENERATE] == 3, "none of it was asked again"


def test_an_answer_without_room_ends_its_episode_as_a_prompt_without_room_does(
    policy: Policy, folder: Path, tmp_path: Path
):
    """A server of somebody else may read less than rollout.max_context_tokens."""
    with token_server(folder, max_model_len=50) as server, published(policy, server, folder=tmp_path) as engine:
        (none,) = asked(engine, [prompt_of(46)])
        assert isinstance(none, NoCompletion) and none.status is Status.CONTEXT_OVERFLOW
        assert "reads 50 tokens" in none.reason and server.url in none.reason


@pytest.mark.parametrize("fault", ["short_logprobs", "broken_json", "no_versions", "extra_token"])
def test_an_episode_that_is_never_answered_ends_and_others_go_on(engine: VllmEngine, server: TokenServer, fault: str):
    server.faults.update({fault: ATTEMPTS})
    (none,) = asked(engine, [PROMPT])
    assert isinstance(none, NoCompletion) and none.status is Status.ENV_ERROR
    assert server.url in none.reason and f"tried {ATTEMPTS} times" in none.reason
    assert server.record.counts[GENERATE] == ATTEMPTS
    (answer,) = generated(engine, [PROMPT])
    assert answer.policy_version == 0


def test_a_question_that_is_refused_ends_its_episode_at_once(engine: VllmEngine, server: TokenServer):
    none, answer = asked(engine, [[5, 100_000], PROMPT])
    assert isinstance(none, NoCompletion) and none.status is Status.ENV_ERROR and "vocabulary" in none.reason
    assert isinstance(answer, Completion) and server.record.counts[GENERATE] == 2


# --- whole episodes --------------------------------------------------------------------------------------


def played(
    engine: VllmEngine, policy: Policy, server: TokenServer, *, words: list[str] | None = None, groups: int = 4
) -> list[Trajectory]:
    cfg = served_config(server, words=words or [])
    benchmark = make_benchmark(**cfg.benchmark.model_dump())
    return collect(
        engine,
        benchmark,
        tiny_agents(cfg, policy),
        benchmark.tasks("train")[:groups],
        group_size=2,
        rules=episode_rules(cfg.rollout, cfg.benchmark, temperature=cfg.rollout.temperature),
        stream=(0,),
    )


def responses(trajectories: list[Trajectory]) -> list[list[list[int]]]:
    return [[step.response_ids for step in one.steps] for one in trajectories]


def test_one_episode_without_an_answer_leaves_the_others_whole(policy: Policy, engine: VllmEngine, server: TokenServer):
    right = played(engine, policy, server)
    server.faults.null_logprob = ATTEMPTS
    first, *others = played(engine, policy, server, words=["rollout.max_concurrent=1"])
    assert first.status is Status.ENV_ERROR and not first.steps and server.url in str(first.error)
    assert responses(others) == responses(right[1:])
    assert all(one.status is not Status.ENV_ERROR for one in others)


def test_an_engine_that_is_lost_comes_back_and_the_batch_is_what_it_would_have_been(
    policy: Policy, engine: VllmEngine, server: TokenServer
):
    right = played(engine, policy, server)
    server.record.counts.clear()
    done = once_asked(server, 10, server.restart)
    again = played(engine, policy, server)
    assert done.is_set() and server.record.counts["/init_weight_transfer_engine"] == 1
    assert responses(again) == responses(right)
    assert [one.status for one in again] == [one.status for one in right]
    assert {step.policy_version for one in again for step in one.steps} == {0}


def test_a_server_that_is_lost_each_time_ends_the_rollout(policy: Policy, engine: VllmEngine, server: TokenServer):
    def again() -> None:
        once_asked(server, 10, again)
        server.restart()

    once_asked(server, 5, again)
    with pytest.raises(ServerDown, match="lost 4 times in one batch, the last time: .*" + server.url):
        played(engine, policy, server)


def test_ctrl_c_ends_a_rollout_and_what_it_had_asked(policy: Policy, engine: VllmEngine, server: TokenServer):
    server.faults.delay_s = 0.01
    once_asked(server, 12, lambda: os.kill(os.getpid(), signal.SIGINT))
    long = ["rollout.max_new_tokens=3000", "rollout.max_context_tokens=4000"]
    began = time.monotonic()
    with caught(), pytest.raises(Interrupted):
        played(engine, policy, server, words=long, groups=8)
    assert time.monotonic() - began < 10
    until(lambda: not server.host._going)
    assert not engine._home and set(engine._load.values()) == {0}


# --- servers that are stale, gone, or new ----------------------------------------------------------------


def test_a_stale_server_is_not_asked_again_before_the_next_publication(
    policy: Policy, engine_of_two: VllmEngine, server: TokenServer, other: TokenServer, caplog: pytest.LogCaptureFixture
):
    own = generated(engine_of_two, PROMPTS[:16])
    for one in (server, other):
        one.record.counts.clear()
    server.faults.old_version = 1000
    with caplog.at_level(logging.WARNING):
        first = generated(engine_of_two, PROMPTS[:16])
        asked_by_then = server.record.counts[GENERATE]
        assert 0 < asked_by_then <= 8, "its own episodes, once each"
        second = generated(engine_of_two, PROMPTS[:16])
    assert server.record.counts[GENERATE] == asked_by_then and other.record.counts[GENERATE] == 32
    assert [one.response for one in first] == [one.response for one in second] == [one.response for one in own]
    assert {one.policy_version for one in (*first, *second)} == {0}
    (said,) = [one.getMessage() for one in caplog.records if server.url in one.getMessage()]
    assert "samples with weights of no version" in said and "its episodes go on elsewhere" in said, "once"
    server.faults.old_version = 0
    engine_of_two.publish(1)
    generated(engine_of_two, PROMPTS[:16])
    assert server.record.counts[GENERATE] > asked_by_then + 3, "more than the probe's"


def test_an_only_server_that_is_stale_is_no_engine(engine: VllmEngine, server: TokenServer):
    server.faults.old_version = 1
    with pytest.raises(EngineLost, match=f"{server.url} samples with weights of no version that a run"):
        asked(engine, [PROMPT])


def test_weights_that_nobody_has_named_are_stale_where_episodes_go_on_too(
    policy: Policy, server: TokenServer, tmp_path: Path
):
    """Version 0 is no neighbour of none: the server was started anew, with the weights that it began with."""
    with published(policy, server, folder=tmp_path, words=["rollout.max_staleness=1"]) as engine:
        server.restart()
        with pytest.raises(EngineLost, match=server.url):
            asked(engine, [PROMPT])


def test_two_updates_old_is_stale_and_one_is_not_where_episodes_go_on(
    policy: Policy, server: TokenServer, tmp_path: Path
):
    with published(policy, server, folder=tmp_path, words=["rollout.max_staleness=3"], version=5) as engine:
        for version, is_taken in ((4, True), (5, True), (6, True), (3, False)):
            server._relabel(str(version))
            if is_taken:
                assert generated(engine, [PROMPT])[0].policy_version == version
            else:
                with pytest.raises(EngineLost):
                    asked(engine, [PROMPT])


def test_a_server_that_dies_leaves_its_episodes_to_the_other(
    policy: Policy, engine_of_two: VllmEngine, server: TokenServer, other: TokenServer
):
    own = generated(engine_of_two, PROMPTS[:16])
    server.faults.delay_s = other.faults.delay_s = 0.1
    done = once_asked(server, 4, server.stop)
    answers = generated(engine_of_two, PROMPTS[:16])
    assert done.wait(10)
    assert [one.response for one in answers] == [one.response for one in own]
    other.stop()
    with pytest.raises(EngineLost, match=other.url):
        asked(engine_of_two, [PROMPT])


def test_a_server_that_comes_back_has_the_weights_of_today(
    policy: Policy, engine_of_two: VllmEngine, server: TokenServer
):
    before = {name: value.clone() for name, value in policy.model.state_dict().items()}
    try:
        server.stop()
        shift(policy, 5)
        threading.Timer(0.5, server.start).start()
        published = engine_of_two.publish(1)
        assert published["rollout/probe_gap"] < PARITY
        assert server.label == "1"
        answers = generated(engine_of_two, PROMPTS[:8])
        assert server.record.counts[GENERATE] > 3, "more than the probe's"
        assert max(largest_gap(policy, *pair) for pair in zip(PROMPTS[:8], answers, strict=True)) < PARITY
    finally:
        policy.model.load_state_dict(before)


def test_a_server_that_was_started_anew_between_two_publications_has_the_weights_of_today(
    policy: Policy, engine: VllmEngine, server: TokenServer
):
    """Nobody asked it meanwhile; it is in no group any more."""
    server.restart()
    assert engine.publish(1)["rollout/probe_gap"] < PARITY
    assert server.record.counts["/start_weight_update"] == 1, "at the first try"


def test_a_server_that_never_comes_back_is_named_when_its_time_is_over(
    policy: Policy, server: TokenServer, other: TokenServer, tmp_path: Path
):
    words = ["rollout.vllm.start_timeout_s=1.5"]
    with published(policy, server, other, folder=tmp_path, words=words) as engine:
        other.stop()
        began = time.monotonic()
        with pytest.raises(ServerDown, match=rf"no server of vLLM answers at {other.url} after 1.5 s"):
            engine.publish(1)
        assert 1.5 <= time.monotonic() - began < 3, "once"
        assert engine.policy_version == 0


def test_a_server_that_was_never_there_is_named_when_its_time_is_over(policy: Policy, folder: Path, tmp_path: Path):
    with token_server(folder) as server:
        pass
    with served(policy, server, folder=tmp_path, words=["rollout.vllm.start_timeout_s=0.6"]) as engine:
        began = time.monotonic()
        with pytest.raises(ServerDown, match=server.url):
            engine.publish(0)
        assert time.monotonic() - began < 2


def test_ctrl_c_ends_the_wait_for_a_server(policy: Policy, server: TokenServer, tmp_path: Path):
    words = ["rollout.vllm.start_timeout_s=30"]
    with published(policy, server, folder=tmp_path, words=words) as engine:
        server.stop()
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        began = time.monotonic()
        with caught(), pytest.raises(Interrupted):
            engine.publish(1)
        assert time.monotonic() - began < 5


# --- two servers -----------------------------------------------------------------------------------------


def test_episodes_are_shared_out_and_stay_where_they_are(
    engine_of_two: VllmEngine, server: TokenServer, other: TokenServer
):
    prompts, names = PROMPTS[:10], range(10)
    for turn in range(3):
        longer = [[*prompt, *prompt_of(turn)] for prompt in prompts]
        generated(engine_of_two, longer, names=names, seeds=[100 * turn + name for name in names], closes=False)
    begins = [[tuple(body["token_ids"][:5]) for body in bodies(one)] for one in (server, other)]
    assert [len(one) for one in begins] == [15, 15]
    assert not set(begins[0]) & set(begins[1]), "no episode was asked of both"
    assert engine_of_two._load == dict.fromkeys(engine_of_two._servers, 5)
    for name in names[:5]:
        engine_of_two.close(name)
    until(lambda: sum(engine_of_two._load.values()) == 5)


def test_the_one_with_fewer_open_episodes_is_asked(engine_of_two: VllmEngine, server: TokenServer, other: TokenServer):
    for name in range(4):
        generated(engine_of_two, [PROMPT], names=[name], closes=False)
    homes = dict(engine_of_two._home)
    gone = [name for name, home in homes.items() if home.url == server.url]
    for name in gone:
        engine_of_two.close(name)
    generated(engine_of_two, [PROMPT, PROMPT], names=[10, 11], closes=False)
    assert {engine_of_two._home[name].url for name in (10, 11)} == {server.url}


def test_nothing_is_kept_of_a_thousand_episodes(engine_of_two: VllmEngine):
    for start in range(0, 1000, 100):
        generated(engine_of_two, [PROMPT[:3]] * 100, names=range(start, start + 100), most=1)
    until(lambda: not engine_of_two._home)
    assert set(engine_of_two._load.values()) == {0}
    assert not asyncio.run_coroutine_threadsafe(_others(), engine_of_two._loop).result()


async def _others() -> set[Any]:
    return asyncio.all_tasks() - {asyncio.current_task()}


def test_both_servers_have_the_weights(policy: Policy, engine_of_two: VllmEngine, server: TokenServer,
                                       other: TokenServer):  # fmt: skip
    for one in (server, other):
        theirs = dict(one.host.policy.model.named_parameters())
        for name, value in policy.model.named_parameters():
            assert torch.equal(theirs[name], value), name
        assert one.label == "0"


# --- publications ----------------------------------------------------------------------------------------


def test_a_publication_stops_sends_and_goes_on(policy: Policy, engine: VllmEngine, server: TokenServer):
    paths = order_of(server)
    engine.publish(1)
    assert [path for path in paths if path not in ("/health", "/version", "/weight_info")] == [
        "/pause", "/start_weight_update", "/update_weights", "/finish_weight_update", "/reset_prefix_cache", "/resume",
        *[GENERATE] * 3,
    ]  # fmt: skip
    assert not server.host.is_paused and server.label == "1" and engine.policy_version == 1


def test_the_first_publication_makes_the_group(policy: Policy, server: TokenServer, tmp_path: Path):
    paths = order_of(server)
    with served(policy, server, folder=tmp_path) as engine:
        engine.publish(3)
    assert [path for path in paths if path != "/health"] == [
        "/version", "/weight_info", "/pause",
        "/get_world_size", "/shutdown_weight_transfer_engine", "/init_weight_transfer_engine",
        "/start_weight_update", "/update_weights", "/finish_weight_update", "/reset_prefix_cache", "/resume",
        *[GENERATE] * 3,
    ]  # fmt: skip
    assert server.label == "3"


def test_an_answer_under_way_goes_on_with_the_new_weights(policy: Policy, server: TokenServer, tmp_path: Path):
    before = {name: value.clone() for name, value in policy.model.state_dict().items()}
    with published(policy, server, folder=tmp_path, words=["rollout.max_staleness=1"]) as engine:
        answers: list[Completion[int]] = []
        asking = threading.Thread(target=lambda: answers.extend(generated(engine, PROMPTS[:3], most=400)))
        sampled = server.host.engine.sampled
        asking.start()
        until(lambda: server.host.engine.sampled > sampled + 60)
        shift(policy, 6)
        engine.publish(1)
        asking.join(30)
        found = [one for one in answers if len(one.response) > 60]
        assert found, "one that no stop token ended"
        assert {one.policy_version for one in found} == {0}, "that of its first tokens"
        try:
            for prompt, one in zip(PROMPTS, answers, strict=False):
                if len(one.response) > 60:
                    assert largest_gap(policy, prompt, one, start=len(one.response) - 5) < 1e-4, "the last are new"
                    assert largest_gap(policy, prompt, one) > 1e-2, "the first are not"
            after = generated(engine, PROMPTS[:3])
            assert {one.policy_version for one in after} == {1}
        finally:
            policy.model.load_state_dict(before)


def test_weights_go_in_the_type_that_passes_compute_in(folder: Path, tmp_path: Path):
    half = policy_of("model.dtype=bfloat16")
    assert half.dtype is torch.bfloat16
    with token_server(folder, dtype="bfloat16") as server:
        with published(half, server, folder=tmp_path, words=["model.dtype=bfloat16"]) as engine:
            published_again = engine.publish(1)
            (update,) = server.record.bodies["/update_weights"]
            assert set(update["update_info"]["dtype_names"]) == {"bfloat16"}
            theirs = dict(server.host.policy.model.named_parameters())
            for name, value in half.model.named_parameters():
                assert torch.equal(theirs[name], value), name
            assert published_again["rollout/probe_gap"] < 0.1
            answers = generated(engine, PROMPTS[:4])
        assert max(largest_gap(half, *pair) for pair in zip(PROMPTS[:4], answers, strict=True)) < 0.3


def test_a_server_that_keeps_its_old_weights_is_caught(policy: Policy, server: TokenServer, tmp_path: Path):
    server.faults.ignore_updates = True
    with served(policy, server, folder=tmp_path) as engine:
        with pytest.raises(ServerDown, match=r"server 0 does not sample from the policy that learns.*max_gap: 0.0001"):
            engine.publish(0)
        server.faults.ignore_updates = False
        assert engine.publish(0)["rollout/probe_gap"] < PARITY


def test_which_of_two_servers_keeps_its_old_weights(
    policy: Policy, server: TokenServer, other: TokenServer, tmp_path: Path
):
    other.faults.ignore_updates = True
    wrong = "server 1 does not sample from the policy"
    with served(policy, server, other, folder=tmp_path) as engine, pytest.raises(ServerDown, match=wrong):
        engine.publish(0)


def test_a_gap_that_is_allowed(policy: Policy, server: TokenServer, tmp_path: Path):
    server.faults.ignore_updates = True
    with served(policy, server, folder=tmp_path, words=["rollout.vllm.max_gap=20"]) as engine:
        assert engine.publish(0)["rollout/probe_gap"] > 0.1


def test_a_probe_that_is_answered_with_other_weights(policy: Policy, engine: VllmEngine, server: TokenServer):
    server.faults.old_version = 1
    with pytest.raises(ServerDown, match="server 0 answers with weights of version 0 after it took 1"):
        engine.publish(1)


def test_a_probe_without_an_answer(policy: Policy, engine: VllmEngine, server: TokenServer):
    server.faults.no_logprobs = ATTEMPTS
    with pytest.raises(ServerDown, match=r"a server that has just taken weights does not answer: .*unknown form"):
        engine.publish(1)


@pytest.mark.parametrize(
    "path",
    [
        "/pause", "/start_weight_update", "/finish_weight_update", "/reset_prefix_cache", "/resume", "/weight_info",
    ],
)  # fmt: skip
def test_a_publication_that_breaks_is_made_again(
    policy: Policy, engine_of_two: VllmEngine, server: TokenServer, other: TokenServer, path: str
):
    """On the second server: the first has done its part by then."""
    fails_once(other, path)
    began = time.monotonic()
    engine_of_two.publish(1)
    assert time.monotonic() - began < 10, "before any time is over"
    assert other.record.counts[path] == (3 if path == "/finish_weight_update" else 2), "it is ended first"
    for one in (server, other):
        assert one.label == "1" and not one.host.is_paused
    generated(engine_of_two, PROMPTS[:2])


@pytest.mark.parametrize(
    "path", ["/get_world_size", "/shutdown_weight_transfer_engine", "/init_weight_transfer_engine"]
)
def test_a_group_that_cannot_be_made_is_made_again(policy: Policy, server: TokenServer, tmp_path: Path, path: str):
    fails_once(server, path)
    with served(policy, server, folder=tmp_path) as engine:
        began = time.monotonic()
        assert engine.publish(0)["rollout/probe_gap"] < PARITY
        assert time.monotonic() - began < 10, "before any time is over"
    assert server.record.counts[path] == 2


def fails_once(server: TokenServer, path: str) -> None:
    """With HTTP 500."""
    routed = server._routed
    left = [1]

    def failing(call: Any) -> Any:
        if call.path == path and left:
            left.pop()
            raise Refused(500, {"error": {"message": "it broke", "code": 500}})
        return routed(call)

    server._routed = failing  # type: ignore[method-assign]


def test_a_publication_that_breaks_each_time_says_where(engine: VllmEngine, server: TokenServer):
    server.faults.routes["/start_weight_update"] = 500
    with pytest.raises(ServerDown, match=f"do not have the weights of update 1: the vLLM server at {server.url}.*500"):
        engine.publish(1)
    assert server.record.counts["/start_weight_update"] == 3
    assert engine.policy_version == 0


def test_a_server_without_a_transfer_of_weights_says_so_at_once(policy: Policy, folder: Path, tmp_path: Path):
    with token_server(folder, backend=None) as server, served(policy, server, folder=tmp_path) as engine:
        began = time.monotonic()
        with pytest.raises(ServerDown, match="Weight transfer not configured"):
            engine.publish(0)
        assert time.monotonic() - began < 10


def test_a_server_without_its_routes_says_how_to_open_them(policy: Policy, folder: Path, tmp_path: Path):
    with (
        token_server(folder, dev_mode=False) as server,
        served(policy, server, folder=tmp_path) as engine,
        pytest.raises(ServerDown, match="start it with VLLM_SERVER_DEV_MODE=1"),
    ):
        engine.publish(0)


def test_a_server_of_another_model_name_is_refused(policy: Policy, folder: Path, tmp_path: Path):
    with (
        token_server(folder, names=("qwen",)) as server,
        served(policy, server, folder=tmp_path) as engine,
        pytest.raises(ServerDown, match="The model `policy` does not exist"),
    ):
        engine.publish(0)


# --- who is there ----------------------------------------------------------------------------------------


def vllm_of(version: str) -> Any:
    def answer(request: Request) -> Reply:
        return {"/health": Reply(b""), "/version": Reply({"version": version})}.get(request.path, Reply({}, 404))

    return answer


@pytest.mark.parametrize(
    ("handler", "text"),
    [
        (vllm_of("0.11.2"), "has version 0.11.2; 0.32 or newer is needed"),
        (lambda request: Reply({"detail": "Not Found"}, 404), "is it a server of vLLM?"),
        (lambda request: Reply(b"<html>hello</html>"), "is it a server of vLLM?"),
    ],
    ids=["an older vLLM", "another server", "a page for people"],
)
def test_what_cannot_be_spoken_with_is_refused_at_once(policy: Policy, tmp_path: Path, handler: Any, text: str):
    fake = FakeServer(handler)
    try:
        with served(policy, fake, folder=tmp_path) as engine:  # type: ignore[arg-type]
            began = time.monotonic()
            with pytest.raises(ServerDown) as refused:
                engine.publish(0)
            assert time.monotonic() - began < 5
        message = str(refused.value)
        assert fake.url in message and text in message and "\n" not in message
        assert not [one for one in fake.requests if one.path == "/pause"], "it was told nothing"
    finally:
        fake.close()


def test_an_engine_that_is_shut_leaves_no_connection(policy: Policy, server: TokenServer, tmp_path: Path):
    with published(policy, server, folder=tmp_path) as engine:
        generated(engine, PROMPTS[:4])
        assert server._http.connections
        thread = engine._thread
    until(lambda: not server._http.connections)
    assert not thread.is_alive()


def test_a_port_that_nobody_listens_at_is_nobody(policy: Policy, tmp_path: Path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        words = ["rollout.vllm.start_timeout_s=0.3"]
        gone = type("Gone", (), {"url": f"http://127.0.0.1:{free.getsockname()[1]}"})()
        with served(policy, gone, folder=tmp_path, words=words) as engine, pytest.raises(ServerDown, match=gone.url):
            engine.publish(0)
