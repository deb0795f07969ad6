"""What tests of the fake vLLM server ask it with, and a trainer that sends it weights."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from empg_cli.config.schema import Architecture
from empg_cli.model.tiny import scratch_model, word_tokenizer
from tests.support.token_server import TokenServer

WORDS = [f"w{number}" for number in range(60)]
PROMPT = [7, 9, 11, 40, 5, 6, 33]
LIMIT = timedelta(seconds=20)


def saved_model(folder: Path, *, seed: int) -> Path:
    """Random weights, far enough from uniform that others are told apart."""
    tokenizer = word_tokenizer(WORDS)
    shape = Architecture(hidden_size=32, num_layers=2, num_heads=4, num_kv_heads=2, mlp_size=48)
    network = scratch_model(shape, tokenizer, seed=seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 2:
                parameter.mul_(8)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def ask(url: str, path: str, body: Any = None, *, method: str = "POST", timeout: float = 30) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as reply:
            return reply.status, json.loads(reply.read() or "null")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def get(url: str, path: str) -> Any:
    status, body = ask(url, path, method="GET")
    assert status == 200
    return body


def body_of(seed: int = 3, *, prompt: Sequence[int] = PROMPT, tokens: int = 12, **sampling: Any) -> dict[str, Any]:
    own: dict[str, Any] = {
        "seed": seed,
        "max_tokens": tokens,
        "logprobs": 1,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": -1,
        "ignore_eos": True,
    }
    return {
        "model": "policy", "request_id": f"r{seed}", "token_ids": list(prompt), "sampling_params": own | sampling
    }  # fmt: skip


def generate(server: TokenServer, seed: int = 3, **options: Any) -> Any:
    status, body = ask(server.url, "/inference/v1/generate", body_of(seed, **options))
    assert status == 200, body
    return body


def refusal(server: TokenServer, **changes: Any) -> tuple[int, Any]:
    status, body = ask(server.url, "/inference/v1/generate", {**body_of(), **changes})
    return status, body["error"]


def logprobs(choice: Any) -> list[float]:
    return [entry["logprob"] for entry in choice["logprobs"]["content"]]


def error_against(
    network: Any, choice: Any, *, prompt: Sequence[int] = PROMPT, temperature: float = 1.0, span: Any = None
) -> float:
    """Largest difference to a plain forward pass over everything."""
    ids = choice["token_ids"]
    with torch.no_grad():
        logit_TV = network(input_ids=torch.tensor([[*prompt, *ids]]), use_cache=False).logits[0, len(prompt) - 1 : -1]
    logp_T = torch.log_softmax(logit_TV.double() / temperature, -1).gather(1, torch.tensor(ids)[:, None])[:, 0]
    places = slice(None) if span is None else slice(span["start"], span["end"])
    return float((logp_T - torch.tensor(logprobs(choice), dtype=torch.float64)).abs()[places].max())


class Trainer:
    """Rank 0 of a gloo group whose other members are servers."""

    def __init__(self, *servers: TokenServer) -> None:
        self.servers, self._size = servers, 1 + len(servers)
        self._store = dist.TCPStore(  # type: ignore[attr-defined]
            "127.0.0.1", 0, self._size, True, wait_for_workers=False, timeout=LIMIT
        )
        with ThreadPoolExecutor() as pool:
            joined = [pool.submit(self._join, server, rank) for rank, server in enumerate(servers, 1)]
            prefixed = dist.PrefixStore("wt", self._store)  # type: ignore[attr-defined]
            self._group: Any = dist.ProcessGroupGloo(prefixed, 0, self._size, LIMIT)
            assert [one.result()[0] for one in joined] == [200] * len(servers)

    def _join(self, server: TokenServer, rank: int) -> tuple[int, Any]:
        info = {"master_address": "127.0.0.1", "master_port": self._store.port, "world_size": self._size}
        return ask(server.url, "/init_weight_transfer_engine", {"init_info": {**info, "rank_offset": rank}})

    def push(self, network: Any, version: str) -> None:
        self._all("/pause?mode=keep")
        self._all("/start_weight_update")
        named = list(network.named_parameters())
        info = {
            "names": [name for name, _ in named],
            "dtype_names": [str(value.dtype).removeprefix("torch.") for _, value in named],
            "shapes": [list(value.shape) for _, value in named],
        }
        with ThreadPoolExecutor() as pool:
            updates = [pool.submit(ask, one.url, "/update_weights", {"update_info": info}) for one in self.servers]
            for _, value in named:
                options = dist.BroadcastOptions()
                options.rootRank = 0
                self._group.broadcast([value.detach().contiguous()], options).wait()
            assert [one.result()[0] for one in updates] == [200] * len(self.servers)
        self._all("/finish_weight_update", {"weight_version": version})
        self._all("/reset_prefix_cache")
        self._all("/resume")

    def _all(self, path: str, body: Any = None) -> None:
        for server in self.servers:
            status, answer = ask(server.url, path, body)
            assert status == 200, answer


def until(happened: Callable[[], bool], *, limit_s: float = 20) -> None:
    deadline = time.monotonic() + limit_s
    while not happened():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)


def is_up(url: str) -> bool:
    try:
        return ask(url, "/health", method="GET")[0] == 200
    except OSError:
        return False
