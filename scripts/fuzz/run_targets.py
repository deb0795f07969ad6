"""What runs leave behind, what people type, what servers answer."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Coroutine
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import strategies as st

from scripts.fuzz.inputs import ODD, RANDOM, changed_bytes, changed_json, texts
from scripts.fuzz.target import Target

FIXTURE = Path(__file__).parents[2] / "tests" / "fixtures" / "run-032f7dc"


def model(folder: Path) -> Target:
    """A model folder with a damaged file: what is loaded can score."""
    import torch

    from empg_cli.model.loading import load_folder, packaged_agent
    from empg_cli.rollout.parity import check_parity

    whole = packaged_agent("alfworld")
    files = ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]

    def inputs(random: Random) -> tuple[str, bytes]:
        name = random.choice(files)
        content = (whole / name).read_bytes()
        if name == "model.safetensors":  # its header
            return name, changed_bytes(content[:4000], random) + (content[4000:] if random.random() < 0.8 else b"")
        import json

        return name, changed_json(json.loads(content), random)

    def run(given: tuple[str, bytes]) -> None:
        place = folder / "model"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(whole, place)
        (place / given[0]).write_bytes(given[1])
        policy = load_folder(str(place), dtype="float32", device=torch.device("cpu"))
        check_parity(policy)
        policy.tokenizer("put a hot apple in fridge <act>")

    return Target(RANDOM.map(inputs), run, seconds=10)


def run_folder(folder: Path) -> Target:
    """A run folder with a damaged file, read by everything that reads one."""
    from empg_cli.runs.checkpoint import load_state
    from empg_cli.runs.config_file import saved_values
    from empg_cli.runs.evaluations import read_evaluations
    from empg_cli.runs.reading import open_runs
    from empg_cli.runs.which_checkpoint import find_checkpoint

    files = sorted(path.relative_to(FIXTURE) for path in FIXTURE.rglob("*") if path.is_file())

    def inputs(random: Random) -> tuple[str, bytes]:
        import json

        name = random.choice(files)
        content = (FIXTURE / name).read_bytes()
        if name.suffix == ".json" and random.random() < 0.5:
            return str(name), changed_json(json.loads(content), random)
        return str(name), changed_bytes(content, random)

    def run(given: tuple[str, bytes]) -> None:
        from empg_cli.errors import UserError

        place = folder / "run"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(FIXTURE, place)
        (place / given[0]).write_bytes(given[1])
        for read in (
            lambda: saved_values(place),
            lambda: [run.trajectories() for run in open_runs([place])],
            lambda: read_evaluations(place),
            lambda: load_state(find_checkpoint(place)),
        ):
            try:
                read()
            except UserError:
                continue

    return Target(RANDOM.map(inputs), run)


def overrides(folder: Path) -> Target:
    """Words of a command line."""
    from empg_cli.config import load

    keys = [
        "algo", "benchmark", "model", "experiment", "trainer.lr", "trainer.updates", "seed", "rollout.context",
        "algo.credit.zeta", "benchmark.data_dir", "benchmark.task_types", "logger.sinks", "run_dir", "hydra.run.dir",
        "hydra", "x", "", "a.b.c.d", "resume", "benchmark.target", "algo@benchmark", "endpoint",
    ]  # fmt: skip
    values = st.one_of(
        st.sampled_from([str(value) for value in ODD if str(value).isprintable()][:30]),
        st.sampled_from([
            "grpo", "empg", "alfworld", "null", "[1,2]", "{a:1}", "1,2", "${seed}", "${oc.env:HOME}", "'", '"', "\\",
            "choice(1,2)", "range(1,3)", "glob(*)", "int(3)", "1e5", "-1", "a=b", "[", "{", "${", "???", "smoke",
        ]),
        st.text(max_size=6),
    )  # fmt: skip
    word = st.tuples(
        st.sampled_from(["", "", "", "+", "++", "~"]),
        st.sampled_from(keys),
        st.sampled_from(["=", "=", "=", ""]),
        values,
    )
    return Target(st.lists(word.map("".join), min_size=1, max_size=3), load, seconds=5)


def replies(folder: Path) -> Target:
    """What servers answer: a model, a judge, search engines."""
    import numpy as np

    from empg_cli.agents.messages import Message
    from empg_cli.benchmarks.deepsearch.judge import Judge
    from empg_cli.benchmarks.deepsearch.retrieval.opensearch import OpenSearchRetriever
    from empg_cli.benchmarks.deepsearch.retrieval.qdrant import QdrantRetriever
    from empg_cli.benchmarks.deepsearch.retrieval.search_r1 import HttpRetriever
    from empg_cli.config import deepsearch as schema
    from empg_cli.config import load
    from empg_cli.rollout.endpoint import EndpointEngine
    from empg_cli.rollout.engine import Sampling
    from tests.support.server import FakeServer, Reply

    chat = {
        "choices": [{"message": {"content": "look"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
    }
    verdict = {"choices": [{"message": {"content": '{"judgement": "correct"}'}}]}
    document = {"id": "1", "contents": '"A"\ntext', "url": "u"}
    retrieve = {"result": [[{"document": document, "score": 1.5}]]}
    search = {"responses": [{"hits": {"hits": [{"_id": "1", "_score": 1.0, "_source": {"title": "A", "text": "t"}}]}}]}
    points = {
        "result": [{"points": [{"id": 1, "score": 0.5, "payload": {"title": "A", "text": "t"}}]}],
        "data": [{"embedding": [0.1, 0.2]}],
    }
    samples = {"chat": chat, "judge": verdict, "retrieve": retrieve, "opensearch": search, "qdrant": points}
    now = Reply(b"")
    server = FakeServer(lambda request: now)
    limits: Any = {"timeout_s": 5.0, "attempts": 1, "concurrency": 4}
    keys: Any = {"api_key_env": None, "title_field": "title", "text_field": "text", **limits}
    engines: dict[str, Any] = {
        "retrieve": HttpRetriever(schema.HttpRetrieval(engine="http", urls=[server.url], dialect="queries", **limits)),
        "opensearch": OpenSearchRetriever(
            schema.OpenSearchRetrieval(engine="opensearch", url=server.url, index="x", title_boost=1, **keys)
        ),
        "qdrant": QdrantRetriever(
            schema.QdrantRetrieval(
                engine="qdrant", url=server.url, collection="x", embeddings_url=server.url, embeddings_model="m",
                embeddings_key_env=None, query_prefix="", **keys,
            )
        ),
    }  # fmt: skip
    judge = Judge(
        schema.Judge(
            base_url=server.url, model="m", api_key_env=None, temperature=0, max_tokens=9, max_answer_chars=99, **limits
        )
    )
    endpoint = load(["endpoint=openai", f"endpoint.base_url={server.url}", "endpoint.model=m",
    "endpoint.api_key_env=null",
                     *(f"endpoint.{key}={value}" for key, value in limits.items())], "eval").endpoint  # fmt: skip
    assert endpoint is not None
    model = EndpointEngine(endpoint)
    loop = asyncio.new_event_loop()

    def wait(coroutine: Coroutine[Any, Any, Any]) -> Any:
        return loop.run_until_complete(asyncio.wait_for(coroutine, 20))

    def inputs(random: Random) -> tuple[str, bytes, dict[str, str]]:
        kind = random.choice([*samples, "chat"])
        headers: dict[str, str] = {}
        if random.random() < 0.1:
            headers = random.choice(
                [{"Content-Encoding": "gzip"}, {"Content-Type": "text/plain; charset=x"}, {"Content-Encoding": "br"}]
            )
        return kind, changed_json(samples[kind], random), headers

    def run(given: tuple[str, bytes, dict[str, str]]) -> None:
        nonlocal now
        kind, now = given[0], Reply(given[1], headers=given[2])
        model._lost_in_a_row = 0
        if kind == "chat":
            asked = model.generate([Message("user", "x")], episode=0, draws=np.zeros(4), sampling=Sampling(1.0, 4))
            wait(asked).response[0].content.encode()
            return
        if kind == "judge":
            judge._verdicts.clear()
            wait(judge("q", ["a"], "b"))
            return
        for hits in wait(engines[kind].search(["text"], 3)):
            for hit in hits:
                f"{hit.title}{hit.text}{hit.id}".encode()

    return Target(RANDOM.map(inputs), run)


def retry_after(folder: Path) -> Target:
    import httpx

    from empg_cli.services.http import retry_after as seconds

    def run(value: str) -> None:
        told = seconds(httpx.Response(429, headers=[(b"Retry-After", value.encode("utf-8", "replace"))]).headers)
        assert told is None or told >= 0

    dates = "Wed, 21 Oct 2026 07:28:00 GMT"
    return Target(
        texts("1", ".", "-", "²", "e9", "inf", "nan", dates, "Wed, ", "GMT", " ", "99999999999999999999", "+0000"), run
    )
