"""Deep Search through the command line: index a corpus, serve it, evaluate the expert over it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from empg_cli.cli.app import app

SMALL_WORLD = (
    "benchmark=deepsearch",
    "benchmark.world.scale=0.3",
    "benchmark.world.train_questions=200",
    "benchmark.world.test_questions=10",
)
Empg = Callable[..., object]


def write_corpus(path: Path) -> Path:
    rows = [{"id": str(i), "contents": f'"Title {i}"\nThe text of number {i}.'} for i in range(30)]
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return path


def test_the_expert_is_evaluated_on_all_kinds(empg: Callable[..., object]) -> None:
    result = empg("eval", "policy=expert", *SMALL_WORLD, "benchmark.eval_tasks=28", "--json")
    found = json.loads(result.stdout)  # type: ignore[attr-defined]
    assert [row["name"] for row in found["averages"]] == ["ID", "OOD", "overall"]
    text = json.dumps(found)
    assert '"success_rate": 1.0' in text
    for kind in ("1hop", "2hop", "compare", "composition", "depth3", "depth4", "intersection"):
        assert f'"{kind}"' in text


def test_id_ood_and_overall_are_printed_apart(empg: Callable[..., object]) -> None:
    result = empg("eval", "policy=expert", *SMALL_WORLD, "benchmark.eval_tasks=14")
    lines = result.stdout.splitlines()  # type: ignore[attr-defined]
    assert [line.split(" ", 1)[0] for line in lines[-3:]] == ["ID,", "OOD,", "overall,"]
    assert "ID, mean of 3 sources        n 6      success 100.0%" in lines[-3]
    assert "OOD, mean of 4 sources       n 8      success 100.0%" in lines[-2]


def test_play_with_hints() -> None:
    answers = "hint\nsearch[nothing to see]\n1\nanswer[no idea]\n"
    result = CliRunner().invoke(app, ["play", *SMALL_WORLD, "--task", "2"], input=answers)
    assert result.exit_code == 0, result.output
    assert "the expert would: search[" in result.output
    assert "failed after 3 steps" in result.output


def test_play_takes_the_groups_inside_the_benchmark() -> None:
    pytest.importorskip("bm25s", reason="needs the extra bm25s")
    words = [*SMALL_WORLD, "retrieval@benchmark.retrieval=bm25s"]
    result = CliRunner().invoke(app, ["play", *words], input="search[capital]\nquit\n")
    assert result.exit_code == 0, result.output
    assert "Doc 1(Title: " in result.output
    refused = CliRunner().invoke(app, ["play", *words, "rollout=window", "retrieval=bm25s"])
    assert refused.exit_code == 2
    assert "rollout=window" in refused.output and "is not read by `empg play`" in refused.output


def test_index_and_serve(empg: Callable[..., object], tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl")
    result = empg("data", "index", "deepsearch", "--corpus", corpus, "--out", tmp_path / "index")
    assert result.stdout.strip() == (  # type: ignore[attr-defined]
        f"benchmark.retrieval.engine=tantivy benchmark.retrieval.index_dir={tmp_path / 'index'}"
    )
    pytest.importorskip("uvicorn", reason="serving needs the extra: empg-cli[serve]")
    words = ("data", "serve", "deepsearch", "--index", str(tmp_path / "index"), "--port")
    server = subprocess.Popen(
        [sys.executable, "-m", "empg_cli", *words, "0"], stderr=subprocess.PIPE, text=True, env=os.environ
    )
    assert server.stderr is not None
    try:
        line = server.stderr.readline()
        url = re.search(r"at (http://127\.0\.0\.1:(\d+))/retrieve; Ctrl-C ends it", line)
        assert url is not None, line + server.stderr.read()
        body = {"queries": ["title 7"], "topk": 1, "return_scores": True}
        answer = httpx.post(f"{url[1]}/retrieve", json=body, timeout=60)
        assert answer.json()["result"][0][0]["document"]["contents"] == '"Title 7"\nThe text of number 7.'
        assert outside_address_is_closed(int(url[2]))
        refused = empg(*words, url[2], code=2)
        assert f"cannot listen at 127.0.0.1, port {url[2]}" in refused.stderr  # type: ignore[attr-defined]
        assert "serving" not in refused.stderr  # type: ignore[attr-defined]
    finally:
        server.send_signal(signal.SIGINT)
        _, errors = server.communicate(timeout=30)
    assert (errors, server.returncode) == ("ended\n", 0)


def outside_address_is_closed(port: int) -> bool:
    """The default listens on 127.0.0.1 alone, not on the other addresses of the loopback network."""
    with socket.socket() as client:
        client.settimeout(2)
        return client.connect_ex(("127.0.0.2", port)) != 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--corpus", "none.jsonl", "--out", "i"], "no such corpus file: none.jsonl"),
        (["--corpus", "corpus.jsonl", "--out", "."], "is not empty"),
        (["--corpus", "corpus.jsonl", "--out", "i", "--engine", "dense"], "needs --encoder MODEL"),
        (["--corpus", "corpus.jsonl", "--out", "i", "--encoder", "x"], "--encoder is read with --engine dense"),
    ],
)
def test_mistakes_at_indexing(empg: Callable[..., object], tmp_path: Path, words: list[str], message: str) -> None:
    write_corpus(tmp_path / "corpus.jsonl")
    result = empg("data", "index", "deepsearch", *words, code=2)
    assert message in result.stderr  # type: ignore[attr-defined]
    assert "Traceback" not in result.stderr  # type: ignore[attr-defined]


def test_a_search_engine_that_is_down_stops_before_the_first_episode(empg: Callable[..., object]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    words = [
        "retrieval@benchmark.retrieval=http",
        f"benchmark.retrieval.urls=[{url}]",
        "benchmark.retrieval.attempts=1",
    ]
    result = empg("eval", "policy=expert", *SMALL_WORLD, *words, code=2)
    assert f"no search engine at {url}/retrieve" in result.stderr  # type: ignore[attr-defined]
    assert "empg data serve deepsearch" in result.stderr  # type: ignore[attr-defined]
