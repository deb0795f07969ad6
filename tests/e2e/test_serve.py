"""`empg serve` over a real socket: what OpenAI's clients send and get, and a benchmark played through it."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from empg_cli.loop import train
from empg_cli.model.loading import load_folder
from tests.e2e.conftest import Empg, invoke
from tests.support.chat import save_chat_model
from tests.support.serving import Served, serving
from tests.support.tiny import tiny_config

pytest.importorskip("uvicorn", reason="serving needs the extra: empg-cli[serve]")

TASKS = ("benchmark.eval_tasks=3", "benchmark.train_games=3", "benchmark.max_steps=2", "logger.console=quiet")
PLAYED = (*TASKS, "rollout.max_new_tokens=8", "rollout.eval_temperature=0")
"""Greedy, so that no seed is in play."""
HELLO = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "go to fridge 1"}]


@pytest.fixture(scope="module")
def chat_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chat")
    model = save_chat_model(folder / "model")
    cfg = tiny_config(
        *("trainer.updates=1", "trainer.tasks_per_update=1", "algo.group_size=2", "trainer.minibatches=1"),
        *(
            "trainer.warm_start.steps=0",
            "trainer.old_logprobs=recompute",
            "rollout=window",
            "rollout.max_new_tokens=8",
            "rollout.max_context_tokens=8000",
        ),
        *("benchmark.train_games=3", "benchmark.max_steps=2", "logger.wandb.mode=disabled"),
        model=("model=qwen2.5-0.5b", f"model.path={model}", "model.dtype=float32"),
    )
    train(cfg, folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def chat(chat_run: Path) -> Iterator[Served]:
    with serving(chat_run, "name=mine") as served:
        yield served


@pytest.fixture(scope="module")
def tiny(finished_run: Path) -> Iterator[Served]:
    with serving(finished_run) as served:
        yield served


def ask(served: Served, path: str, code: int = 200, **body: Any) -> dict[str, Any]:
    answer = httpx.post(f"{served.url}/v1/{path}", json=body, timeout=120)
    assert answer.status_code == code, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_it_says_which_model_it_has(chat: Served, chat_run: Path) -> None:
    (model,) = httpx.get(f"{chat.url}/v1/models").json()["data"]
    assert (model["id"], model["object"]) == ("mine", "model")
    assert model["root"] == str(chat_run / "checkpoints" / "step-000001")
    assert httpx.get(f"{chat.url}/v1/models/mine").json() == model
    assert httpx.get(f"{chat.url}/health").json() == {"status": "ok"}


def test_a_chat_is_answered_in_openais_form(chat: Served) -> None:
    found = ask(
        chat, "chat/completions", model="mine", messages=HELLO, max_tokens=5, seed=1, logprobs=True, stream=False
    )
    (choice,) = found["choices"]
    assert found["object"] == "chat.completion" and choice["message"]["role"] == "assistant"
    tokens = choice["logprobs"]["content"]
    assert found["usage"]["completion_tokens"] == len(tokens) == 5
    assert found["usage"]["total_tokens"] == found["usage"]["prompt_tokens"] + 5
    assert choice["finish_reason"] == "length"
    assert all(token["logprob"] <= 0 for token in tokens)


def test_the_prompt_is_that_of_the_models_template_and_the_logprobs_are_its_own(chat: Served, chat_run: Path) -> None:
    found = ask(chat, "chat/completions", model="mine", messages=HELLO, max_tokens=6, seed=3, logprobs=True,
                temperature=0.7, return_token_ids=True)  # fmt: skip
    (choice,) = found["choices"]
    policy = load_folder(str(chat_run / "checkpoints/step-000001/model"), dtype="float32", device=torch.device("cpu"))
    prompt, ids = choice["prompt_token_ids"], choice["token_ids"]
    shown = policy.tokenizer.apply_chat_template(HELLO, tokenize=False, add_generation_prompt=True)
    assert policy.tokenizer.decode(prompt) == shown
    with torch.no_grad():
        logits = policy.model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
    own = (logits / 0.7).log_softmax(-1)[range(len(ids)), ids].tolist()
    assert [token["logprob"] for token in choice["logprobs"]["content"]] == pytest.approx(own, abs=1e-4)


def test_requests_at_once_are_answered_as_one_by_one(chat: Served) -> None:
    """Of different lengths, temperatures and limits, so that they join and leave each other's passes."""
    bodies = [
        {"model": "mine", "seed": number, "max_tokens": 3 + 5 * (number % 4), "temperature": (0, 1.0, 0.7)[number % 3],
         "top_p": (1.0, 0.9)[number % 2], "messages": [{"role": "user", "content": "go to fridge 1 " * (number + 1)}]}
        for number in range(12)
    ]  # fmt: skip

    def text(body: dict[str, Any]) -> str:
        content: str = ask(chat, "chat/completions", **body)["choices"][0]["message"]["content"]
        return content

    one_by_one = [text(body) for body in bodies]
    with ThreadPoolExecutor(12) as threads:
        assert list(threads.map(text, bodies)) == one_by_one
    assert len(set(one_by_one)) > 6


def test_several_answers_and_seeds(chat: Served) -> None:
    body = {"model": "mine", "messages": HELLO, "max_tokens": 8}
    several = ask(chat, "chat/completions", **body, seed=5, n=3)
    texts = [choice["message"]["content"] for choice in several["choices"]]
    alone = [ask(chat, "chat/completions", **body, seed=5 + n)["choices"][0]["message"]["content"] for n in range(3)]
    assert texts == alone and len(set(texts)) == 3
    assert several["usage"]["completion_tokens"] == 24
    free = {ask(chat, "chat/completions", **body)["choices"][0]["message"]["content"] for _ in range(4)}
    assert len(free) > 1  # no seed: each draws its own


def test_a_stop_text_ends_the_answer_before_it(chat: Served) -> None:
    body = {"model": "mine", "messages": HELLO, "max_tokens": 60, "seed": 2}
    whole = ask(chat, "chat/completions", **body)["choices"][0]["message"]["content"]
    place = len(whole) // 2
    stop = whole[place : place + 3]
    found = ask(chat, "chat/completions", **body, stop=["never said", stop])
    (choice,) = found["choices"]
    assert choice["message"]["content"] == whole[: whole.find(stop)]
    assert choice["finish_reason"] == "stop" and found["usage"]["completion_tokens"] < 60


def test_token_ids_and_texts_give_the_same_completion(tiny: Served) -> None:
    text = "task put apple in fridge <act>"
    by_text = ask(
        tiny, "completions", model="run", prompt=text, seed=4, max_tokens=6, logprobs=0, return_token_ids=True
    )
    (choice,) = by_text["choices"]
    ids = choice["prompt_token_ids"]
    assert len(ids) == 6
    by_ids = ask(tiny, "completions", model="run", prompt=[ids, ids], seed=4, max_tokens=6)
    assert [each["text"] for each in by_ids["choices"]] == [choice["text"]] * 2
    lists = choice["logprobs"]
    assert len(lists["tokens"]) == len(lists["token_logprobs"]) == by_text["usage"]["completion_tokens"]
    assert by_ids["usage"]["prompt_tokens"] == 12


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ({"stream": True}, 400, "streaming is not supported"),
        ({"model": "other"}, 404, "the model 'other' does not exist"),
        ({"temperature": -1}, 400, "temperature: "),
        ({"max_tokens": 0}, 400, "max_tokens: "),
        ({"max_tokens": 10**6}, 400, "maximum context length is 32768 tokens"),
        ({"messages": []}, 400, "messages: "),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "messages.0.role: "),
        ({"messages": None}, 400, "messages: "),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": [{}]}]}, 400, "messages.0.tool_calls is not sup"),
        ({"messages": [{"role": "user", "content": "x", "refusal": "no"}]}, 400, "messages.0.refusal is not supported"),
        ({"messages": [{"role": "user", "content": "x", "cnotent": "y"}]}, 400, "field: messages.0.cnotent"),
        ({"frequency_penalty": 0.5}, 400, "frequency_penalty is not supported"),
        ({"tools": [{"type": "function"}]}, 400, "tools is not supported"),
        ({"top_logprobs": 2, "logprobs": True}, 400, "top_logprobs is not supported"),
        ({"tempreature": 1}, 400, "unrecognised request field: tempreature"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_openais_form(
    chat: Served, body: dict[str, Any], code: int, said: str
) -> None:
    error = ask(chat, "chat/completions", code, **{"model": "mine", "messages": HELLO, **body})["error"]
    assert said in error["message"]
    assert error.keys() == {"message", "type", "param", "code"} and error["type"] == "invalid_request_error"


def test_neutral_fields_ask_for_nothing(chat: Served) -> None:
    neutral = {"frequency_penalty": 0, "response_format": {"type": "text"}, "user": "me", "tools": None, "top_p": None}
    ask(chat, "chat/completions", model="mine", messages=HELLO, max_tokens=1, **neutral)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"tool_calls": None, "function_call": None, "audio": None, "annotations": None, "name": None},  # as openai's
        {"tool_calls": [], "annotations": [], "reasoning_content": None},
    ],
)
def test_its_own_answer_is_a_part_of_the_next_question(chat: Served, more: dict[str, Any]) -> None:
    first = ask(chat, "chat/completions", model="mine", messages=HELLO, max_tokens=4, seed=1)
    said = first["choices"][0]["message"]
    further = [*HELLO, {**said, **more}, {"role": "user", "content": "and now?"}]
    second = ask(chat, "chat/completions", model="mine", messages=further, max_tokens=4, seed=1)
    assert second["usage"]["prompt_tokens"] > first["usage"]["prompt_tokens"] + 4


def test_other_paths_methods_and_bodies(chat: Served, tiny: Served) -> None:
    assert httpx.get(f"{chat.url}/v1/embeddings").status_code == 404
    assert httpx.get(f"{chat.url}/v1/completions").status_code == 405
    answer = httpx.post(f"{chat.url}/v1/chat/completions", content=b"{not json")
    assert answer.status_code == 400 and "not JSON" in answer.json()["error"]["message"]
    assert "no token 100000" in ask(chat, "completions", 400, model="mine", prompt=[100_000])["error"]["message"]
    said = ask(tiny, "chat/completions", 400, model="run", messages=HELLO)["error"]["message"]
    assert "no chat template: ask /v1/completions" in said


@pytest.mark.parametrize("context", ["window", "transcript"])
def test_a_benchmark_is_played_through_it_as_from_the_run(
    empg: Empg, chat: Served, chat_run: Path, context: str
) -> None:
    """Greedy, so the same steps come out token for token, up to texts that are encoded otherwise than sampled."""
    empg("eval", f"run={chat_run}", f"rollout={context}", *PLAYED, "run_dir=own")
    address = ("endpoint=openai", f"endpoint.base_url={chat.url}/v1", "endpoint.model=mine")
    shown = json.loads(empg("eval", *address, f"rollout={context}", *PLAYED, "run_dir=served", "--json").stdout)
    assert shown["total"]["n"] == 3 and shown["total"]["not_judged"] == 0
    assert shown["policy"]["usage"]["answered"] == 6
    own, served = (
        [json.loads(line) for line in (Path(name) / "trajectories/update-000000-eval.jsonl").read_text().splitlines()]
        for name in ("own", "served")
    )
    steps = slice(None) if context == "window" else slice(1)
    actions = [[[step["action"] for step in one["steps"][steps]] for one in played] for played in (own, served)]
    assert actions[0] == actions[1]


def test_ctrl_c_ends_it_cleanly(finished_run: Path) -> None:
    with serving(finished_run, "checkpoint=last") as served:
        assert httpx.get(f"{served.url}/health").status_code == 200
        assert served.interrupt() == 0
    assert served.said[-1] == "ended" and not any("Traceback" in line for line in served.said)


def test_ctrl_c_does_not_wait_for_a_request_that_never_comes(finished_run: Path) -> None:
    with serving(finished_run, "checkpoint=last") as served:
        host, _, port = served.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as half:
            half.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{")
            assert httpx.get(f"{served.url}/health").status_code == 200
            assert served.interrupt() == 0
    assert served.said[-1] == "ended" and not any("Traceback" in line for line in served.said)


def test_no_page_from_elsewhere_uses_it(chat: Served) -> None:
    assert httpx.get(f"{chat.url}/v1/models", headers={"host": "evil.example"}).status_code == 403
    assert httpx.get(f"{chat.url}/v1/models", headers={"origin": "http://evil.example"}).status_code == 403
    assert httpx.get(chat.url.replace("127.0.0.1", "localhost") + "/v1/models").status_code == 200


def test_an_address_of_this_machine_may_be_spelt_otherwise(finished_run: Path) -> None:
    with serving(finished_run, "host=127.1") as served:
        url = f"{served.url}/v1/models"
        assert httpx.get(url, headers={"host": "evil.example"}).status_code == 403
        assert [httpx.get(url, headers={"host": host}).status_code for host in ("127.1", "127.0.0.1")] == [200, 200]
        assert not any("whoever reaches" in line for line in served.said)


def test_it_warns_when_others_can_reach_it_and_does_not_tell_them_where_it_is(finished_run: Path) -> None:
    with serving(finished_run, "host=0.0.0.0") as served:
        assert any("whoever reaches 0.0.0.0 can use the model" in line for line in served.said)
        (model,) = httpx.get(f"{served.url}/v1/models", headers={"host": "elsewhere.example"}).json()["data"]
        assert model["root"] == "step-000002"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "run: must name the folder of a run"),
        (["run=RUN", "port=99999"], "port: must be"),
        (["run=RUN", "seed=3"], "seed: is not read by empg serve"),
        (["run=RUN", "checkpoint=77"], "has no checkpoint of update 77"),
        (["run=nowhere"], "no such folder"),
        (["run=RUN", "host=a..b"], "cannot listen at a..b, port 8000: that is no name of a machine"),
        (["run=RUN", "max_context_tokens=100000"], "more than the 4096 positions"),
    ],
)
def test_wrong_words_are_one_message(empg: Empg, finished_run: Path, words: list[str], said: str) -> None:
    refused = empg("serve", *(word.replace("RUN", str(finished_run)) for word in words), code=2)
    assert said in " ".join(refused.stderr.split()) and "Traceback" not in refused.output


def test_a_port_that_is_taken(empg: Empg, finished_run: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert (
            f"cannot listen at 127.0.0.1, port {port}"
            in empg("serve", f"run={finished_run}", f"port={port}", code=2).stderr
        )


def test_openais_own_client_speaks_to_it(chat: Served) -> None:
    openai = pytest.importorskip("openai", reason="openai is not installed")
    with openai.OpenAI(base_url=f"{chat.url}/v1", api_key="none", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["mine"]
        reply = client.chat.completions.create(model="mine", messages=HELLO, max_tokens=4, logprobs=True, seed=0)
        assert reply.choices[0].finish_reason == "length" and reply.usage.completion_tokens == 4
        assert len(reply.choices[0].logprobs.content) == 4
        further = [*HELLO, reply.choices[0].message, {"role": "user", "content": "and now?"}]
        assert client.chat.completions.create(model="mine", messages=further, max_tokens=4).choices[0].message.content
        with pytest.raises(openai.BadRequestError, match="streaming is not supported"):
            client.chat.completions.create(model="mine", messages=HELLO, stream=True)
        text = client.completions.create(model="mine", prompt="go to fridge 1", max_tokens=3, logprobs=0)
        assert len(text.choices[0].logprobs.token_logprobs) == 3


def test_of_help(empg: Empg) -> None:
    shown = invoke("serve", "--help").output
    assert "run=DIR" in shown and "port=8000" in shown
