"""The vLLM engine against fakes of its server: a tiny policy, a model folder with other weights, and ways to ask."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from empg_cli.config.schema import TrainConfig
from empg_cli.model.policy import Policy
from empg_cli.ranks import ALONE
from empg_cli.rollout.collect import run
from empg_cli.rollout.engine import Completion, NoCompletion, Sampling
from empg_cli.rollout.vllm.engine import VllmEngine
from empg_cli.rollout.vllm.opening import opened_servers
from tests.support.tiny import tiny_config, tiny_policy
from tests.support.token_server import TokenServer

GENERATE = "/inference/v1/generate"
TEMPERATURE = 0.8
PARITY = 1e-5
"""Nats, in float32."""
STOP_IDS = (7,)
ATTEMPTS = 3


def served_config(*servers: TokenServer, words: Sequence[str] = ()) -> TrainConfig:
    return tiny_config(
        "rollout.engine=vllm",
        "trainer.old_logprobs=recompute",
        f"rollout.temperature={TEMPERATURE}",
        f"rollout.vllm.urls=[{','.join(server.url for server in servers)}]",
        "rollout.vllm.timeout_s=15",
        f"rollout.vllm.attempts={ATTEMPTS}",
        "rollout.vllm.start_timeout_s=20",
        *words,
    )


def policy_of(*words: str) -> Policy:
    """Random weights, larger than a fresh model's, so that distributions are far from uniform."""
    policy = tiny_policy(tiny_config(*words))
    shift(policy, 0, by=0.2)
    return policy


def shift(policy: Policy, seed: int, *, by: float = 0.05) -> None:
    """Other weights, as an update makes them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter += by * torch.randn(parameter.shape, generator=generator).to(parameter.dtype)


def saved(policy: Policy, folder: Path) -> Path:
    policy.save(folder)
    return folder


def served(policy: Policy, *servers: TokenServer, folder: Path, words: Sequence[str] = ()) -> Any:
    """An engine that has published nothing yet."""
    cfg = served_config(*servers, words=words)
    opened: AbstractContextManager[VllmEngine] = opened_servers(
        cfg.rollout, policy, STOP_IDS, model=cfg.model, folder=folder, ranks=ALONE
    )
    return opened


@contextmanager
def published(
    policy: Policy, *servers: TokenServer, folder: Path, words: Sequence[str] = (), version: int = 0
) -> Iterator[VllmEngine]:
    with served(policy, *servers, folder=folder, words=words) as engine:
        engine.publish(version)
        for server in servers:
            server.record.counts.clear()
            server.record.bodies.clear()
            server.record.most_at_once = 0
        yield engine


def prompt_of(size: int, first: int = 11) -> list[int]:
    return [first + 13 * number % 600 for number in range(size)]


def draws_of(seed: int, most: int) -> np.ndarray:
    return np.random.default_rng(seed).random(most)


def asked(
    engine: VllmEngine,
    prompts: Sequence[Sequence[int]],
    *,
    seeds: Sequence[int] | None = None,
    most: int = 8,
    names: Sequence[Any] | None = None,
    closes: bool = True,
) -> list[Completion[int] | NoCompletion]:
    """What each of the prompts is answered with, all asked at once."""
    found: list[Completion[int] | NoCompletion] = []
    names = range(len(prompts)) if names is None else names

    async def one(name: Any, prompt: Sequence[int], seed: int) -> Completion[int] | NoCompletion:
        sampling = Sampling(TEMPERATURE, most)
        try:
            return await engine.generate(prompt, episode=name, draws=draws_of(seed, most), sampling=sampling)
        except NoCompletion as none:
            return none
        finally:
            if closes:
                engine.close(name)

    async def all_of_them() -> None:
        own = zip(names, prompts, seeds or range(len(prompts)), strict=True)
        found.extend(await asyncio.gather(*(one(*each) for each in own)))

    run(all_of_them())
    return found


def generated(engine: VllmEngine, prompts: Sequence[Sequence[int]], **options: Any) -> list[Completion[int]]:
    found = asked(engine, prompts, **options)
    for one in found:
        assert isinstance(one, Completion), one
    return [one for one in found if isinstance(one, Completion)]


def largest_gap(policy: Policy, prompt: Sequence[int], answer: Completion[int], start: int = 0) -> float:
    """Nats between what was said of the tokens from `start` on and the policy's own."""
    ids = torch.tensor([[*prompt, *answer.response]])
    with torch.no_grad():
        logit_TV = policy.model(ids).logits[0, len(prompt) - 1 : -1].float() / TEMPERATURE
    own_T = torch.log_softmax(logit_TV, -1).gather(1, torch.tensor(answer.response)[:, None])[:, 0]
    return float((own_T - torch.tensor(answer.logprobs))[start:].abs().max())


def order_of(server: TokenServer) -> list[str]:
    """Paths of the requests that come from now on, in their order."""
    paths: list[str] = []
    came = server.record.came

    def noted(path: str, body: Any) -> None:
        paths.append(path)
        came(path, body)

    server.record.came = noted  # type: ignore[method-assign]
    return paths


def once_asked(
    server: TokenServer, number: int, action: Callable[[], None], *, path: str = GENERATE
) -> threading.Event:
    """Act, in a thread of its own, when the number-th call from now on comes. The event is set when that is done."""
    left, done = [number], threading.Event()
    came = server.record.came

    def acting() -> None:
        try:
            action()
        finally:
            done.set()

    def counted(of: str, body: Any) -> None:
        came(of, body)
        if of == path:
            left[0] -= 1
            if left[0] == 0:
                threading.Thread(target=acting).start()

    server.record.came = counted  # type: ignore[method-assign]
    return done


def until(condition: Callable[[], bool], limit_s: float = 20) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "in time"
        time.sleep(0.005)
