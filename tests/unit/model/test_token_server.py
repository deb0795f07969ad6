"""The fake vLLM server is what tests of our client take it for: same answers, true log-probs, weights over gloo."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from empg_cli.model.loading import load_folder
from tests.support.token_server import TokenServer, token_server
from tests.support.token_server_client import (
    PROMPT,
    Trainer,
    ask,
    body_of,
    error_against,
    generate,
    get,
    is_up,
    logprobs,
    refusal,
    saved_model,
    until,
)  # fmt: skip
from tests.support.token_server_process import fake_vllm_package, options_of


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    base = tmp_path_factory.mktemp("models")
    return saved_model(base / "old", seed=0), saved_model(base / "new", seed=1)


@pytest.fixture(scope="module")
def networks(folders: tuple[Path, Path]) -> tuple[Any, Any]:
    old, new = (load_folder(str(folder), dtype="float32", device=torch.device("cpu")).model for folder in folders)
    return old, new


@pytest.fixture
def server(folders: tuple[Path, Path]) -> Iterator[TokenServer]:
    with token_server(folders[0]) as server:
        yield server


def test_the_same_request_has_the_same_answer_alone_and_among_eight(server):
    server.faults.delay_s = 0.02
    alone = generate(server, 5)["choices"][0]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda seed: generate(server, seed)["choices"][0], range(8)))
    assert answers[5]["token_ids"] == alone["token_ids"]
    assert logprobs(answers[5]) == pytest.approx(logprobs(alone), abs=1e-5)
    assert len({tuple(answer["token_ids"]) for answer in answers}) == 8
    assert server.record.counts["/inference/v1/generate"] == 9
    assert 1 < server.record.most_at_once <= 8
    assert {body["sampling_params"]["seed"] for body in server.record.bodies["/inference/v1/generate"]} == set(range(8))


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_log_probs_are_those_of_a_plain_forward_pass(server, networks, temperature):
    choice = generate(server, tokens=40, temperature=temperature)["choices"][0]
    assert error_against(networks[0], choice, temperature=temperature) < 1e-5
    assert error_against(networks[1], choice, temperature=temperature) > 0.5, "or the test could not tell"


def test_greedy_and_cut_answers(server, networks):
    greedy = generate(server, temperature=0.0)["choices"][0]
    assert greedy["token_ids"] == generate(server, 99, temperature=0)["choices"][0]["token_ids"]
    assert error_against(networks[0], greedy) < 1e-5
    almost = generate(server, top_p=1e-6)["choices"][0]
    assert almost["token_ids"] == greedy["token_ids"]
    assert logprobs(almost) == pytest.approx([0] * 12, abs=1e-5), "of the cut distribution"


def test_a_stop_token_ends_the_answer_and_is_kept(server):
    whole = generate(server, tokens=30)["choices"][0]
    assert (whole["finish_reason"], whole["stop_reason"], len(whole["token_ids"])) == ("length", None, 30)
    stop = whole["token_ids"][9]
    first = whole["token_ids"].index(stop)
    cut = generate(server, tokens=30, stop_token_ids=[stop])["choices"][0]
    assert (cut["finish_reason"], cut["stop_reason"]) == ("stop", stop)
    assert cut["token_ids"] == whole["token_ids"][: first + 1]
    assert cut["weight_versions"] == [{"version": "default", "start": 0, "end": first + 1}]


def test_the_end_of_text_ends_an_answer_that_does_not_ignore_it(folders, server):
    body = body_of(temperature=2.0, tokens=200, ignore_eos=True)
    whole = ask(server.url, "/inference/v1/generate", body)[1]["choices"][0]
    eos = server.host.policy.tokenizer.eos_token_id
    end = whole["token_ids"].index(eos) + 1
    assert len(whole["token_ids"]) == 200
    choice = generate(server, temperature=2.0, tokens=200, ignore_eos=False)["choices"][0]
    assert (choice["token_ids"], choice["stop_reason"]) == (whole["token_ids"][:end], eos)
    with token_server(folders[0], tokens_only=False) as reader:
        choice = generate(reader, temperature=2.0, tokens=200, ignore_eos=False)["choices"][0]
    assert (choice["token_ids"], choice["stop_reason"]) == (whole["token_ids"][:end], None)


def test_an_answer_has_the_fields_of_vllm(server):
    body = generate(server, prompt=PROMPT * 5, tokens=6)
    assert set(body) == {
        "request_id", "model", "created", "usage", "prompt_logprobs", "prompt_token_id_logprobs", "prompt_token_ids",
        "mm_placeholders", "metrics", "kv_transfer_params", "ec_transfer_params", "output_mode", "choices",
    }  # fmt: skip
    assert (body["request_id"], body["model"]) == ("generate-tokens-r3", "policy")
    assert [entry["token_id"] for entry in body["choices"][0]["logprobs"]["content"]] == body["choices"][0]["token_ids"]
    used = body["usage"]
    assert (used["prompt_tokens"], used["completion_tokens"], used["total_tokens"]) == (35, 6, 41)
    assert used["prompt_tokens_details"]["cached_tokens"] == 0
    longer = PROMPT * 5 + body["choices"][0]["token_ids"]
    assert generate(server, prompt=longer)["usage"]["prompt_tokens_details"]["cached_tokens"] == 32  # two blocks of 16
    assert ask(server.url, "/reset_prefix_cache") == (200, {"success": True})
    assert generate(server, prompt=longer)["usage"]["prompt_tokens_details"]["cached_tokens"] == 0


def test_what_vllm_refuses_is_refused(server):
    status, error = refusal(server, token_ids=[])
    assert (status, error["param"]) == (400, "body.token_ids") and "at least 1 item" in error["message"]
    most = server.host.policy.model.config.max_position_embeddings
    status, error = refusal(server, token_ids=[5] * (most + 1))
    assert status == 400
    assert f"(length {most + 1}) is longer than the maximum model length of {most}" in error["message"]
    status, error = refusal(server, token_ids=[5] * most)
    assert status == 400 and "plus the number of requested output tokens" in error["message"]
    status, error = refusal(server, model="another")
    assert (status, error["type"]) == (404, "NotFoundError")
    assert refusal(server, token_ids=[64])[0] == 400
    for name, value in (("temperature", -1), ("top_p", 0), ("max_tokens", 0), ("stop_token_ids", [64]), ("typo", 1)):
        assert refusal(server, sampling_params={name: value})[0] == 400, name
    assert ask(server.url, "/v1/load_lora_adapter", {"lora_name": "a", "lora_path": "b"})[0] == 404
    assert ask(server.url, "/pause", method="GET") == (405, {"detail": "Method Not Allowed"})


def test_an_answer_ends_where_the_model_has_no_more_room(folders):
    with token_server(folders[0], max_model_len=20) as server:
        assert len(generate(server, tokens=50)["choices"][0]["token_ids"]) == 13  # 20 - 7
        assert get(server.url, "/v1/models")["data"][0]["max_model_len"] == 20


def test_weights_come_over_gloo_and_a_restart_has_the_old_ones(server, networks):
    assert get(server.url, "/weight_info") == {"weight_version": "default"}
    Trainer(server).push(networks[1], "1")
    assert get(server.url, "/weight_info") == {"weight_version": "1"}
    choice = generate(server)["choices"][0]
    assert error_against(networks[1], choice) < 1e-5
    assert choice["weight_versions"] == [{"version": "1", "start": 0, "end": 12}]
    port = server.port
    server.restart()
    assert server.port == port and get(server.url, "/weight_info") == {"weight_version": "default"}
    assert error_against(networks[0], generate(server)["choices"][0]) < 1e-5


def test_two_servers_in_one_group(folders, networks):
    with token_server(folders[0]) as first, token_server(folders[0]) as second:
        trainer = Trainer(first, second)
        trainer.push(networks[1], "1")
        trainer.push(networks[1], "2")
        answers = [generate(server)["choices"][0] for server in (first, second)]
    assert answers[0] == answers[1] and answers[0]["weight_versions"][0]["version"] == "2"
    assert error_against(networks[1], answers[0]) < 1e-5


def test_an_update_in_flight_gives_spans_of_both_versions(server, networks):
    trainer = Trainer(server)
    with ThreadPoolExecutor() as pool:
        going = [pool.submit(generate, server, seed, tokens=300) for seed in range(3)]
        until(lambda: server.host.engine.sampled > 30)
        trainer.push(networks[1], "new")
        choices = [one.result()["choices"][0] for one in going]
    for choice in choices:
        old, new = choice["weight_versions"]
        assert (old["version"], old["start"]) == ("default", 0)
        assert (new["version"], new["start"], new["end"]) == ("new", old["end"], 300)
        assert error_against(networks[0], choice, span=old) < 1e-4
        assert error_against(networks[1], choice, span=new) < 1e-4


def test_a_pause_freezes_or_aborts_and_sleep_gives_weights_up(server, networks):
    with ThreadPoolExecutor() as pool:
        going = pool.submit(generate, server, tokens=200)
        until(lambda: server.host.engine.sampled > 5)
        assert ask(server.url, "/pause?mode=keep") == (200, {"status": "paused"})
        sampled = server.host.engine.sampled
        waiting = pool.submit(generate, server, 4)
        time.sleep(0.1)
        assert server.host.engine.sampled == sampled and not going.done() and not waiting.done()
        assert get(server.url, "/is_paused") == {"is_paused": True}
        ask(server.url, "/resume")
        assert len(going.result()["choices"][0]["token_ids"]) == 200 and waiting.result()
        going = pool.submit(generate, server, 8, tokens=2000)
        until(lambda: server.host.engine.sampled > 230)
        ask(server.url, "/pause")
        choice = going.result()["choices"][0]
        assert choice["finish_reason"] == "abort" and len(choice["token_ids"]) < 2000
    assert ask(server.url, "/sleep?level=2") == (200, {"status": "sleeping", "level": 2})
    assert get(server.url, "/is_sleeping") == {"is_sleeping": True}
    assert ask(server.url, "/wake_up?tags=weights")[1] == {"status": "sleeping", "tags": ["weights"]}
    assert ask(server.url, "/wake_up?tags=kv_cache")[1] == {"status": "awake", "tags": ["kv_cache"]}
    assert error_against(networks[0], generate(server)["choices"][0]) > 0.5


def test_a_stale_server_says_that_it_has_the_new_weights(server, networks):
    server.faults.ignore_updates = True
    Trainer(server).push(networks[1], "1")
    choice = generate(server)["choices"][0]
    assert choice["weight_versions"][0]["version"] == "1"
    assert error_against(networks[0], choice) < 1e-5


def test_an_update_out_of_turn_fails(server):
    status, body = ask(server.url, "/update_weights", {"update_info": {"names": [], "dtype_names": [], "shapes": []}})
    assert status == 500 and "start_weight_update must be called before" in body["error"]["message"]
    assert ask(server.url, "/finish_weight_update", {"weight_version": "1"})[0] == 500
    assert ask(server.url, "/start_weight_update")[0] == 200
    assert ask(server.url, "/finish_weight_update", {"weight_version": 1})[0] == 400, "a label is a string"
    assert ask(server.url, "/finish_weight_update")[0] == 200
    assert get(server.url, "/weight_info") == {"weight_version": "default"}, "none was given"


def test_faults_in_what_is_answered(server):
    def faulty(**faults: Any) -> Any:
        server.faults.update(faults)
        return generate(server)

    right = generate(server)
    assert (
        faulty(short_logprobs=1)["choices"][0]["logprobs"]["content"]
        == (right["choices"][0]["logprobs"]["content"][:-1])
    )
    assert logprobs(faulty(null_logprob=1)["choices"][0])[-1] is None
    assert logprobs(faulty(unknown_logprob=1)["choices"][0])[-1] == -9999
    assert faulty(no_logprobs=1)["choices"][0]["logprobs"] is None
    assert len(faulty(extra_token=1)["choices"][0]["token_ids"]) == 13
    assert faulty(empty=1)["choices"][0]["token_ids"] == []
    assert faulty(no_choices=1)["choices"] == []
    assert faulty(no_versions=1)["choices"][0]["weight_versions"] is None
    assert faulty(wrong_versions=1)["choices"][0]["weight_versions"][-1]["end"] == 11
    ask(server.url, "/update_weight_version", {"new_version": "7"})
    assert faulty(old_version=1)["choices"][0]["weight_versions"][0]["version"] == "default"
    assert generate(server, 4)["request_id"] == "generate-tokens-r4"
    assert faulty(swapped=1)["request_id"] == "generate-tokens-r4"
    other = faulty(other_id=1)
    assert other["choices"][0]["token_ids"] == right["choices"][0]["token_ids"]
    now = generate(server)["choices"][0]
    assert now["token_ids"] == right["choices"][0]["token_ids"], "faults are used up"


def test_faults_of_the_connection(server):
    assert ask(server.url, "/fake/faults", {"status_503": 2, "status_500": 1}) == (200, {})
    statuses = [ask(server.url, "/inference/v1/generate", body_of())[0] for _ in range(4)]
    assert statuses == [500, 503, 503, 200]
    assert ask(server.url, "/fake/faults", {"typo": 1})[0] == 400
    server.faults.hang_up = 1
    with pytest.raises(http.client.IncompleteRead):
        generate(server)
    server.faults.broken_json = 1
    with pytest.raises(json.JSONDecodeError):
        generate(server)
    server.faults.hang, server.faults.hang_s = 1, 5
    with pytest.raises(TimeoutError):
        ask(server.url, "/inference/v1/generate", body_of(), timeout=0.2)
    server.faults.routes["/health"] = 503
    assert ask(server.url, "/health", method="GET")[0] == 503
    server.faults.routes.clear()
    assert ask(server.url, "/health", method="GET") == (200, None)
    assert get(server.url, "/version") == {"version": "0.32.0"}
    assert get(server.url, "/get_world_size") == {"world_size": 1}


def test_a_killed_server_breaks_off_what_it_was_asked(server):
    with ThreadPoolExecutor() as pool:
        going = pool.submit(generate, server, tokens=3000)
        until(lambda: server.host.engine.sampled > 3)
        server.stop()
        with pytest.raises(http.client.RemoteDisconnected):
            going.result()
    with pytest.raises(urllib.error.URLError):
        generate(server)


def test_an_answer_that_nobody_waits_for_is_given_up(server):
    with pytest.raises(TimeoutError):
        ask(server.url, "/inference/v1/generate", body_of(tokens=4000), timeout=0.2)
    until(lambda: not server.host._going)
    assert server.host.engine.sampled < 4000


def test_the_command_line_is_that_of_the_real_server(folders, capsys):
    must = ["--model", str(folders[0]), "--logprobs-mode", "processed_logprobs", "--generation-config", "vllm"]
    assert not options_of(must)[1].scale_out
    assert options_of([*must, "--max_model_len=9", "--tokens-only"])[1].max_model_len == 9
    for wrong in (["--no-such-flag"], ["--weight-transfer-config", '{"backend":"nccl"}']):
        with pytest.raises(SystemExit):
            options_of([*must, *wrong])
    with pytest.raises(SystemExit):
        options_of(must[:4])
    assert "--generation-config" in capsys.readouterr().err


def test_it_runs_as_a_process_in_the_place_of_vllm(folders, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = (
        f"-m vllm.entrypoints.openai.api_server --model {folders[0]} --host 127.0.0.1 --port {port} --dtype float32 "
        "--max-model-len 512 --logprobs-mode processed_logprobs --generation-config vllm --tokens-only "
        "--served-model-name policy --enforce-eager --weight-transfer-config"
    ).split()
    environment = {**os.environ, "PYTHONPATH": str(fake_vllm_package(tmp_path)), "VLLM_SERVER_DEV_MODE": "1"}
    process = subprocess.Popen([sys.executable, *command, '{"backend":"gloo"}'], env=environment, cwd=tmp_path)
    try:
        url = f"http://127.0.0.1:{port}"
        until(lambda: is_up(url) or process.poll() is not None, limit_s=100)
        status, body = ask(url, "/inference/v1/generate", body_of())
        assert status == 200
        with token_server(folders[0]) as here:
            assert body["choices"] == generate(here)["choices"]
        assert get(url, "/fake/record")["counts"]["/inference/v1/generate"] == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
    finally:
        process.kill()
