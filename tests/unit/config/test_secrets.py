"""Keys and passwords in a configuration: what counts as one, and that no message repeats it."""

from __future__ import annotations

from pathlib import Path

import pytest

from empg_cli.config import load
from empg_cli.config.command_line import check_command_line
from empg_cli.config.keys import known_keys
from empg_cli.config.problems import ConfigError
from empg_cli.config.schema import EvalConfig, TrainConfig
from empg_cli.config.secrets import SECRET_NAME, TITLE, mask_secrets, refuse_in_values, refuse_in_words, without_secrets

KEY = "sk-proj-a1B2c3D4e5F6g7H8i9J0"
SERVER = ["endpoint=openai", "endpoint.model=big"]


@pytest.mark.parametrize(
    ("word", "key", "secret"),
    [
        (f"endpoint.api_key_env={KEY}", "endpoint.api_key_env", KEY),
        ("endpoint.api_key_env=my-own-key", "endpoint.api_key_env", "my-own-key"),
        ("endpoint.api_key_env=0123456789abcdef", "endpoint.api_key_env", "0123456789abcdef"),
        ("benchmark.judge.api_key_env='abcdef'", "benchmark.judge.api_key_env", "abcdef"),
        ("endpoint.api_key_env=AKIAIOSFODNN7EXAMPLE", "endpoint.api_key_env", "AKIAIOSFODNN7EXAMPLE"),
        ("benchmark.retrieval.reader_key_env=OPENAI_API_KEY,jina", "benchmark.retrieval.reader_key_env", "jina"),
        ("endpoint={model: m, api_key_env: hunter2}", "endpoint.api_key_env", "hunter2"),
        (f"endpoint.api_key={KEY}", "endpoint.api_key", KEY),
        ("+benchmark.password=hunter2", "benchmark.password", "hunter2"),
        ("endpoint.extra_body={api_key: hunter2}", "endpoint.extra_body.api_key", "hunter2"),
        ("logger.sinks=[{target: 'm:f', token: a1b2c3d4e5f6}]", "logger.sinks.token", "a1b2c3d4e5f6"),
        ("endpoint.base_url=http://me:hunter2@host/v1", "endpoint.base_url", "hunter2"),
        ("endpoint.base_url=http://me:hun/ter2@host/v1", "endpoint.base_url", "ter2"),
        ("endpoint.base_url=https://hunter2@host", "endpoint.base_url", "hunter2"),
        ("endpoint.base_url=me:hunter2@host/v1", "endpoint.base_url", "hunter2"),
        ("benchmark.retrieval.urls=[http://a:8000,http://u:hunter2@b]", "benchmark.retrieval.urls", "hunter2"),
        ("endpoint.base_url=http://host/v1?api_key=hunter2", "endpoint.base_url", "hunter2"),
        ("endpoint.base_url='http://host/v1?v=2&subscription-key=hunter2'", "endpoint.base_url", "hunter2"),
        ("model.path=hf_a1B2c3D4e5F6g7H8i9", "model.path", "hf_a1B2c3D4e5F6g7H8i9"),
        ("model.path=sk_live_a1B2c3D4e5F6g7H8i9", "model.path", "sk_live_a1B2c3D4e5F6g7H8i9"),
        ("endpoint.extra_body={Authorization: hunter2}", "endpoint.extra_body.Authorization", "hunter2"),
        ("benchmark.notes='Bearer hunter2'", "benchmark.notes", "hunter2"),
        ("benchmark.notes='run --password=hunter22 x'", "benchmark.notes", "hunter22"),
        (f"endpoint.extra_body={{sk_live_a1B2c3D4e5F6g7H8i9: {KEY}}}", "endpoint.extra_body", "sk_live_a1B2"),
        (KEY, "word 1 after the command", KEY),
        (f"{KEY}=1", "word 1 after the command", KEY),
    ],
)
def test_a_secret_among_the_words_is_refused_and_not_repeated(word: str, key: str, secret: str) -> None:
    with pytest.raises(ConfigError) as raised:
        refuse_in_words([word])
    assert raised.value.title == TITLE
    assert [problem.key for problem in raised.value.problems][:1] == [key]
    assert secret not in str(raised.value)


@pytest.mark.parametrize(
    "word",
    [
        "endpoint.api_key_env=OPENAI_API_KEY",
        "endpoint.api_key_env=OPENAI_API_KEY,ANTHROPIC_API_KEY",
        "endpoint.api_key_env=null",
        "endpoint.api_key_env=${nowhere}",
        "endpoint.base_url=http://127.0.0.1:8000/v1",
        "benchmark.retrieval.urls=[http://a:8000,http://b:8001/x]",
        "endpoint.base_url=http://host/v1?version=2&model=big",
        "endpoint.extra_body={chat_template_kwargs: {enable_thinking: false}}",
        "rollout.max_new_tokens=16",
        "benchmark.token=<act>",
        "judge@benchmark.judge=openai",
        "model.path=runs/sk-learn/model",
        "run_dir=runs/2026-11-29T12:00:00@home",
        "~algo.credit.key",
        "benchmark.prompt='the bearer of 12 news'",
        "endpoint.extra_body={stop_token_ids: [151645], eos_token: '<|im_end|>'}",
        "hydra.sweep.dir=sk_learn/test_live_20261130_120000",
        "benchmark.retrieval.urls=[http://a:8000/x@y,http://b:1/z@w]",
    ],
)
def test_what_is_no_secret_is_left_alone(word: str) -> None:
    refuse_in_words([word])
    assert without_secrets(word) == word


@pytest.mark.parametrize(
    "text", ["secret=unknown", "api_key=$KEY_1", "reader_key_env=JINA_API_KEY_2", "password=***", "max_tokens=100000"]
)
def test_nor_is_a_pair_without_one(text: str) -> None:
    refuse_in_values({"benchmark": {"prompt": f"say {text} now"}})
    assert without_secrets(text) == text


def test_a_variable_in_small_letters_is_a_name_where_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError):
        refuse_in_words(["endpoint.api_key_env=my_key"])
    monkeypatch.setenv("my_key", "x")
    refuse_in_words(["endpoint.api_key_env=my_key"])


def test_the_value_of_a_secret_variable_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "abcd1234efgh")
    with pytest.raises(ConfigError, match=r"model\.path: holds the value of a secret environment variable"):
        refuse_in_words(["model.path=abcd1234efgh"])
    assert without_secrets("GET http://host/abcd1234efgh") == "GET http://host/***"
    monkeypatch.setenv("SOME_TOKEN", "alfworld")  # a word that no key looks like
    refuse_in_words(["benchmark=alfworld"])


@pytest.mark.parametrize("value", ["s3same-1", "hf_abcdefghij"])
def test_what_is_masked_is_refused_and_the_reverse(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_PASSWORD", value)
    with pytest.raises(ConfigError):
        refuse_in_words([f"model.path={value}"])
    assert without_secrets(f"at {value}!") == "at ***!"
    assert mask_secrets({"notes": [f"at {value}!", KEY]}) == {"notes": ["at ***!", "***"]}


def test_no_setting_of_ours_has_the_name_of_a_secret() -> None:
    assert [key for schema in (TrainConfig, EvalConfig) for key in known_keys(schema) if SECRET_NAME.search(key)] == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"refused {KEY}!", "refused ***!"),
        ("http://me:pw@host/v1", "http://***@host/v1"),
        ("mysql://u:p@w@h/db", "mysql://***@h/db"),
        ("mysql://u:p@w@h/a@b", "mysql://***@h/a@b"),
        ("Authorization: Bearer ab.c1-d2/e==, next", "Authorization: ***, next"),
        ("sk_live_a1B2c3D4e5F6g7H8i9 and rk_test_a1B2c3D4e5F6g7H8i9", "*** and ***"),
        ("api_key=foo123, MY_SECRET='a1b2c3' --password=hunter22", "api_key=***, MY_SECRET='***' --password=***"),
        ("http://host/v1?api_key=abc&v=1", "http://host/v1?api_key=***&v=1"),
    ],
)
def test_what_is_shown_holds_no_secret(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


def test_keys_of_mappings_are_masked_as_texts_are() -> None:
    config = {"headers": {"Authorization": "Basic x", "X-Api-Key": "y", "Accept": "z"}, KEY: 1, 2: "two"}
    shown = {"headers": {"Authorization": "***", "X-Api-Key": "***", "Accept": "z"}, "***": 1, 2: "two"}
    assert mask_secrets(config) == shown


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"a": {KEY: 1}}, "a"),
        ({KEY: 1}, "a key of the configuration"),
        ({"a": {KEY: {"password": "hunter2"}, "b": 1}}, "a"),
        ({"headers": {"Authorization": "Basic x"}}, "headers.Authorization"),
        ({"endpoint": {"api_key_env": KEY}}, "endpoint.api_key_env"),
        ({"a": {"urls": ["http://x", "http://u:p@x"]}}, "a.urls[1]"),
        ({"logger": {"sinks": [{"target": "m:f", "password": 12345}]}}, "logger.sinks[0].password"),
        ({"ablation": {"variants": {"x": [f"benchmark.judge.api_key_env={KEY}"]}}}, "ablation.variants.x[0]"),
    ],
)
def test_secrets_in_files_are_refused_under_their_keys(values: dict, key: str) -> None:
    with pytest.raises(ConfigError) as raised:
        refuse_in_values(values)
    assert [problem.key for problem in raised.value.problems][:1] == [key]
    assert KEY not in str(raised.value)


def test_nothing_else_is_said_beside_a_secret() -> None:
    """Other problems would repeat values."""
    with pytest.raises(ConfigError) as raised:
        load([*SERVER, f"endpoint.api_key_env={KEY}", "seed=x"], "eval")
    assert raised.value.title == TITLE
    assert KEY not in str(raised.value)


def test_a_secret_in_a_file_of_ones_own_is_found(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        f"# @package _global_\nbenchmark: {{judge: {{api_key_env: {KEY}}}}}\nseed: x\n"
    )
    with pytest.raises(ConfigError, match=r"benchmark\.judge\.api_key_env: is no name") as raised:
        check_command_line("train", ["experiment=mine"], TrainConfig, config_dir=str(tmp_path))
    assert KEY not in str(raised.value)


@pytest.mark.parametrize(
    "url", ["host/v1", "ftp://host", "http://", "http://host:port/v1", "http://ho st", "http://[::1"]
)
def test_an_address_is_one(url: str) -> None:
    with pytest.raises(ConfigError, match=r"endpoint\.base_url: must begin with http:// or https://"):
        load([*SERVER, f"endpoint.base_url='{url}'"], "eval")


@pytest.mark.parametrize("hostile", ["eyJ", "http://a:", "a", "a.", "sk-", "bearer "])
def test_long_hostile_text_is_read_in_one_go(hostile: str) -> None:
    """Read anew from each of its characters it would take hours; each of these is no secret however long it is."""
    text = hostile * (400_000 // len(hostile))
    assert without_secrets(text) == text
    refuse_in_words([f"run_dir={text}"])


def test_a_token_of_three_long_parts_is_masked_whole() -> None:
    token = ".".join(("eyJ" + "a" * 300, "eyJ" + "b" * 5000, "c" * 400))
    assert without_secrets(f"got {token} back") == "got *** back"
