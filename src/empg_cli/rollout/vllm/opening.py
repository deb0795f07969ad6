"""From settings to an engine whose servers run, or are on their way."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from empg_cli.config.rollout import Rollout, Vllm
from empg_cli.config.schema import Model
from empg_cli.errors import UserError
from empg_cli.model.policy import Policy
from empg_cli.ranks import Ranks
from empg_cli.rollout.vllm.engine import VllmEngine
from empg_cli.rollout.vllm.launch import Started, Wanted
from empg_cli.rollout.vllm.probe import Probe
from empg_cli.rollout.vllm.transfer import ADAPTER, AdapterTransfer, GlooTransfer, Transfer, Weights
from empg_cli.services.vllm import MODEL, VllmServer

log = logging.getLogger(__name__)

MOST_CONCURRENT = 4096
"""Requests that one rank has with a server at once; how many of them run is the server's affair."""
ADAPTERS = "adapters"
FULLY, KEEPING_WEIGHTS = 2, 1
"""Levels of sleep."""


@contextmanager
def opened_servers(
    rollout: Rollout, policy: Policy, stop_ids: Sequence[int], *, model: Model, folder: Path, ranks: Ranks
) -> Iterator[VllmEngine]:
    """An engine, to be published to; its servers, where they are the run's own, end with the block.

    Args:
        model: what the policy was made from.
        folder: for the logs of servers, and what they read; all of it is gone after the block but the logs.

    Raises:
        UserError: there are too few GPUs.
    """
    settings = rollout.vllm
    on_gpus = policy.device.type == "cuda"
    shares = on_gpus and settings.colocate and settings.urls is None
    transport = ("ipc" if shares else "nccl") if on_gpus else "gloo"
    sleeps = shares and not rollout.max_staleness
    with ExitStack() as stack:
        started: list[Started] = []
        if settings.urls is None:
            # Of the same form; the first transfer brings the right ones.
            weights = model.path if policy.base is None else policy.base.path
            if weights is None:
                weights = str(folder / "model")
                _write(policy, Path(weights), ranks)
                stack.callback(shutil.rmtree, weights, ignore_errors=True)
            wanted = Wanted(
                model=weights,
                dtype=str(policy.dtype).removeprefix("torch."),
                most_tokens=rollout.max_context_tokens,
                transfer=transport,
                lora_rank=0 if policy.base is None else model.lora.rank,
                sleeps=sleeps,
            )
            with ranks.first_decides():
                if ranks.is_first:
                    places = _gpus(settings, policy.device, shares=shares, ranks=ranks.size)
                    for number, gpus in enumerate(places):
                        started.append(Started(settings, wanted, number, gpus, folder))
                        stack.callback(started[-1].end)
                        started[-1].start()
                    log.info("starting %d of vLLM: %s", len(started), folder)
        urls = settings.urls or ranks.of_first([one.url for one in started])
        servers = [
            VllmServer(
                url,
                timeout_s=settings.timeout_s,
                attempts=settings.attempts,
                concurrency=rollout.places or MOST_CONCURRENT,
            )
            for url in urls
        ]
        is_adapter = policy.base is not None
        name = ADAPTER if is_adapter else MODEL
        engine = VllmEngine(
            servers,
            started,
            stop_ids,
            ranks=ranks,
            goes_on=rollout.max_staleness > 0,
            start_timeout_s=settings.start_timeout_s,
            sleep_level=(KEEPING_WEIGHTS if is_adapter else FULLY) if sleeps else 0,
            model=name,
        )
        stack.callback(engine.shut)
        transfer: Transfer
        if is_adapter:
            transfer = AdapterTransfer(policy, folder / ADAPTERS, engine.ask)
            stack.callback(shutil.rmtree, folder / ADAPTERS, ignore_errors=True)
        elif transport == "gloo":
            transfer = GlooTransfer(Weights(policy), servers, engine.ask, ranks, settings.timeout_s)
        else:
            from empg_cli.rollout.vllm.transfer_gpu import VllmTransfer

            transfer = VllmTransfer(transport, Weights(policy), servers, engine.ask, ranks)
        probe = Probe(policy, temperature=rollout.temperature, ranks=ranks, max_gap=settings.max_gap, model=name)
        engine.attach(transfer, probe)
        yield engine


def _write(policy: Policy, folder: Path, ranks: Ranks) -> None:
    state = policy.whole_weights(is_kept=ranks.is_first) if policy.sharding is not None else None
    if ranks.is_first:
        policy.save(folder, state)


def _gpus(settings: Vllm, device: torch.device, *, shares: bool, ranks: int) -> list[list[int]]:
    """GPUs of each server: those of the ranks, where a server shares them, or those behind."""
    if device.type != "cuda":
        return [[] for _ in range(settings.servers or 1)]
    if ranks == 1 and device.index:
        raise UserError(
            f"trainer.device ({device}) must be auto or cuda when rollout.engine=vllm starts servers: GPUs are counted "
            "from the first; CUDA_VISIBLE_DEVICES says which that is"
        )
    each, there = settings.gpus_per_server, torch.cuda.device_count()
    first, end = (0, min(ranks, there)) if shares else (ranks, there)
    number = settings.servers or (end - first) // each
    if number < 1 or first + number * each > end:
        whose = "the ranks have" if shares else "are behind those of the ranks"
        raise UserError(
            f"{max(number, 1)} servers of {each} GPUs do not fit on the {max(end - first, 0)} that {whose} (this "
            f"machine shows {there}); see rollout.vllm.servers, gpus_per_server and colocate"
        )
    return [list(range(first + k * each, first + (k + 1) * each)) for k in range(number)]
