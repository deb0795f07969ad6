"""Settings of rollout.engine=vllm: each that cannot be meant is refused, with its key, its value and a way out."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from empg_cli.config import load
from empg_cli.config.problems import ConfigError
from empg_cli.config.rollout import CHANGING, OURS, Vllm

VLLM = ("rollout.engine=vllm", "trainer.old_logprobs=recompute")
URLS = "rollout.vllm.urls=[http://127.0.0.1:8000]"


@pytest.fixture(scope="module")
def defaults() -> dict[str, Any]:
    return load(list(VLLM)).rollout.vllm.model_dump()


def refusal(defaults: dict[str, Any], **changes: Any) -> tuple[str, str]:
    """Key and reason."""
    with pytest.raises(ValidationError) as caught:
        Vllm.model_validate(defaults | changes)
    (found,) = caught.value.errors()
    return ".".join(map(str, found["loc"])), found["msg"]


@pytest.mark.parametrize("name", ["servers", "gpus_per_server", "max_gap", "timeout_s", "attempts", "start_timeout_s"])
def test_none_of_it_is_no_number(defaults: dict[str, Any], name: str):
    assert refusal(defaults, **{name: 0}) == (name, "Input should be greater than 0")


@pytest.mark.parametrize(("share", "rule"), [(0, "greater than 0"), (1, "less than 1")])
def test_a_server_has_a_share_of_the_memory(defaults: dict[str, Any], share: float, rule: str):
    assert refusal(defaults, gpu_memory=share) == ("gpu_memory", f"Input should be {rule}")


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "http://", "ftp://host", "http://host/a b", "http://host:0"])
def test_an_address_that_is_none(defaults: dict[str, Any], url: str):
    key, reason = refusal(defaults, urls=["http://127.0.0.1:8000", url])
    assert key == "urls.1" and "must begin with http:// or https://" in reason


def test_a_server_is_named_once(defaults: dict[str, Any]):
    """Both would have the same place among those that weights are sent to."""
    assert (
        refusal(defaults, urls=["http://a:1", "http://b:1", "http://a:1/"])[1]
        == "Value error, urls must name each server once"
    )


def test_no_server_is_no_list_of_servers(defaults: dict[str, Any]):
    assert "at least 1 item" in refusal(defaults, urls=[])[1]


@pytest.mark.parametrize("args", [["max-num-seqs=64"], ["--max-num-seqs", "64"], ["-tp=2"]])
def test_args_are_flags_with_their_values(defaults: dict[str, Any], args: list[str]):
    assert "must hold flags with their values, such as --max-num-seqs=64, not " in refusal(defaults, args=args)[1]
    assert repr(args[-1]) in refusal(defaults, args=args)[1]


@pytest.mark.parametrize("form", ["{}", "{}=1"])
@pytest.mark.parametrize("flag", OURS.split())
def test_flags_that_other_settings_make(defaults: dict[str, Any], flag: str, form: str):
    for spelt in (flag, "--" + flag[2:].replace("-", "_")):
        _, reason = refusal(defaults, args=["--seed=1", form.format(spelt)])
        assert f"must not hold {flag}: other settings decide that" in reason


@pytest.mark.parametrize("flag", CHANGING.split())
def test_flags_that_change_what_is_sampled(defaults: dict[str, Any], flag: str):
    for spelt in (flag, "--" + flag[2:].replace("-", "_"), f"{flag}.part"):
        _, reason = refusal(defaults, args=[f"{spelt}=x"])
        assert f"must not hold {flag}: another policy would be sampled than is trained" in reason


@pytest.mark.parametrize(
    ("arg", "said"),
    [
        ("--hos=0.0.0.0", "--host (as --hos): other settings decide that"),
        ("--logprobs_mod=raw_logprobs", "--logprobs-mode (as --logprobs-mod): another policy would be"),
        ("--quant=fp8", "--quantization (as --quant): another policy would be"),
        ("--no-enable-lora", "--enable-lora (as --no-enable-lora): other settings decide that"),
        ("--config=/tmp/vllm.yaml", "--config: its file could hold any of the flags that are refused here"),
        ("--conf=/tmp/vllm.yaml", "--config (as --conf): its file could hold any"),
    ],
)
def test_flags_are_refused_however_they_are_said(defaults: dict[str, Any], arg: str, said: str):
    assert f"args must not hold {said}" in refusal(defaults, args=["--max-num-seqs=64", arg])[1]


def test_other_flags_are_taken(defaults: dict[str, Any]):
    args = ["--max-num-seqs=64", "--no-enable-prefix-caching", "--config-format=hf", "--kv_cache_memory_bytes=1000"]
    assert Vllm.model_validate(defaults | {"args": args}).args == args


@pytest.mark.parametrize(("name", "value"), [("servers", 2), ("python", "/vllm/python"), ("args", ["--seed=1"])])
def test_nothing_is_said_of_how_to_start_servers_that_run_already(defaults: dict[str, Any], name: str, value: Any):
    _, reason = refusal(defaults, urls=["http://127.0.0.1:8000"], **{name: value})
    assert f"{name} is not read when urls are given" in reason and "leave it out" in reason


def said(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(list(overrides))
    (found,) = caught.value.problems
    return str(found)


@pytest.mark.parametrize("words", ["urls=[http://127.0.0.1:8000]", "servers=2", "python=python3", "args=['--seed=1']"])
def test_servers_are_not_named_for_an_engine_that_has_none(words: str):
    text = said("rollout.engine=torch", f"rollout.vllm.{words}")
    assert text.startswith(f"rollout.vllm.{words.partition('=')[0]}: is not read when engine=torch")
    assert "set rollout.engine=vllm" in text


def test_the_model_does_not_sample_while_it_learns():
    text = said("rollout.engine=torch", "rollout.max_staleness=2")
    assert text.startswith("rollout.max_staleness: must be 0 when engine=torch") and "(got 2)" in text
    assert load([*VLLM, "rollout.max_staleness=2"]).rollout.max_staleness == 2
    assert "rollout.max_staleness: must be greater than or equal to 0 (got -1)" in said(
        *VLLM, "rollout.max_staleness=-1"
    )


def test_servers_see_no_entropies():
    text = said("rollout.engine=vllm")
    assert "must be recompute when rollout.engine=vllm" in text and "set trainer.old_logprobs=recompute" in text


def test_mistakes_on_the_command_line():
    assert "must not hold --dtype" in said(*VLLM, "rollout.vllm.args=['--dtype=half']")
    assert "rollout.vllm.servers: is not read when urls are given" in said(*VLLM, URLS, "rollout.vllm.servers=1")
    assert "rollout.engine" in said("rollout.engine=vlm") and "vllm" in said("rollout.engine=vlm")


def test_what_is_meant_is_taken():
    settings = load([*VLLM, URLS, "rollout.vllm.max_gap=0.2", "rollout.vllm.timeout_s=3"]).rollout.vllm
    assert settings.urls == ["http://127.0.0.1:8000"]
    assert (settings.max_gap, settings.timeout_s, settings.servers, settings.args) == (0.2, 3.0, None, [])
