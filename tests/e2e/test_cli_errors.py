"""Mistakes on the command line: exit code 2, one message, no traceback, no folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Empg = Callable[..., Result]
CONF = Path(__file__).parents[2] / "conf"
KEY = "sk-proj-a1B2c3D4e5F6g7H8i9J0"


@pytest.mark.parametrize(
    ("words", "answers"),
    [
        (["benchmark=alfwrld"], ["benchmark", "alfworld"]),
        (["algo.grp_size=4"], ["algo.grp_size", "algo.group_size"]),
        (["+algo.grp_size=4"], ["algo.grp_size", "algo.group_size"]),
        (["algo.group_size=1"], ["algo.group_size", "greater than or equal to 2", "got 1"]),
        (["trainer.lr=-1"], ["trainer.lr", "greater than 0", "got -1"]),
        (["algo=grpo", "algo.credit.zeta=0.1"], ["algo.credit.zeta", "algo.credit.kind=none", "algo=empg"]),
        (["benchmark.data_dir=/no/such/data"], ["benchmark.data_dir", "does not exist", "/no/such/data"]),
        (["-m", "seed=1,2", "algo.group_size=8,1"], ["algo.group_size", "in the job: seed=1 algo.group_size=1"]),
        (["-m", "seed=1,2", "--cfg", "job"], ["--multirun", "--cfg"]),
        (["seed=1,2"], ["seed", "-m"]),
        (["--config-dir", "nowhere"], ["--config-dir", "nowhere"]),
        (["--resume", "nowhere"], ["nowhere", "no such folder"]),
        (["hydra/launcher=ray"], ["hydra/launcher", "[ray]"]),
        (["experiment=1"], ["experiment: has no option '1'; choose one of: deepsearch, demo"]),
        (["experiment=nope"], ["experiment: has no option 'nope'; choose one of: deepsearch, demo"]),
        (["benchmark=null"], ["benchmark: has no option 'null'; choose one of: alfworld"]),
        (["endpoint=openai"], ["endpoint: is a config group of another command"]),
        ([f"seed={'9' * 5000}"], ["is not a KEY=VALUE override"]),
        ([f"seed={'[' * 3000}"], ["is not a KEY=VALUE override"]),
        (["-m", "seed=range(0,1,0)"], ["seed: cannot be swept"]),
        (["-m", "seed=range(100000000)"], ["seed: has more than 1,000 values"]),
        (["--resolve"], ["--resolve: is read with --cfg only"]),
        (["--cfg", "job", "--info", "all"], ["--info: cannot be combined with --cfg"]),
        (["--config-path", "nowhere"], ["--config-path: no such folder"]),
        (["--config-path", str(CONF), "trainer.lr=-1"], ["trainer.lr: must be greater than 0"]),
        (["--experimental-rerun", __file__], ["--experimental-rerun: is no configuration"]),
        (["--cfg", "job", "hydra.searchpath=5"], ["hydra.searchpath"]),
        (["trainer.lr=-1", "benchmark=alfwrld", "+x=1"], ["trainer.lr", "benchmark", "x: unknown key"]),
    ],
)
def test_a_mistake_ends_in_one_message_and_leaves_nothing(empg: Empg, words: list[str], answers: list[str]) -> None:
    result = empg("train", *words, code=2)
    for answer in answers:
        assert answer in result.stderr
    assert "Traceback" not in result.output
    assert result.stderr.count("error: ") == 1
    assert result.stdout == ""
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["--detect", "0.05"], "--detect: is read by --plan only"),
        (["--sd", "0"], "--sd: is read by --plan only"),
        (["--out", "tables"], "--out: is read by --across only"),
        (["--across", "a", "b", "--plan", "--jobs", "3"], "--plan, --jobs: is not read by --across"),
        (["--across", "a", "b", "--detect", "1", "--sd", "0"], "--detect, --sd: is not read by --across"),
        (["--across", "a", "b", "--config-dir", ".", "--cfg", "job"], "--cfg, --config-dir: is not read by --across"),
        (
            ["--plan", "--detect", "5"],
            "--detect: is more than a share can differ (got 5)",
        ),
        (["--plan", "--detect", "inf"], "--detect: is no number to plan with (got inf)"),
        (["--plan", "--sd", "inf"], "--sd: is no number to plan with (got inf)"),
        (["--plan", "--sd", "1.5"], "--sd: is more than a share can differ"),
    ],
)
def test_a_flag_of_ablate_that_would_do_nothing_is_a_mistake(empg: Empg, words: list[str], answer: str) -> None:
    result = empg("ablate", *words, code=2)
    assert answer in " ".join(result.stderr.split())
    assert result.stdout == ""
    assert list(Path().iterdir()) == []


def test_a_number_above_one_may_be_a_difference_of_other_metrics(empg: Empg) -> None:
    empg("ablate", "--plan", "--detect", "5", "ablation.metric=eval/length/mean", "seeds=2")


def test_eval_answers_in_the_same_way(empg: Empg) -> None:
    result = empg("eval", "policy=experto", "run=/no/such/run", code=2)
    assert "no such folder" in result.stderr
    result = empg("eval", "policy=experto", "benchmark.split=test", code=2)
    assert "policy" in result.stderr
    assert "valid_unseen" in result.stderr
    assert list(Path().iterdir()) == []


def test_raw_hydra_errors_on_request(empg: Empg, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    result = empg("train", "--cfg", "job", "nokey=1", code=1)
    assert type(result.exception).__name__ == "ConfigCompositionException"
    monkeypatch.delenv("HYDRA_FULL_ERROR")
    assert "nokey" in empg("train", "--cfg", "job", "nokey=1", code=2).stderr


def test_play_answers_in_the_same_way(empg: Empg) -> None:
    assert "benchmark: has no option 'null'; choose one of: alfworld" in empg("play", "benchmark=null", code=2).stderr


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        ("trainer: {lr: [1\nseed: 3\n", "mine.yaml, line 3, column 5: is not readable YAML"),
        ("a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9}]\n" for n in range(1, 9)), "holds too much"),
    ],
)
def test_a_broken_file_of_ones_own(empg: Empg, content: str, answer: str) -> None:
    file = Path("o'brien", "experiment", "mine.yaml")
    file.parent.mkdir(parents=True)
    file.write_text(f"# @package _global_\n{content}")
    for words in (["train"], ["train", "--cfg", "job"], ["ablate", "--plan"]):
        result = empg(*words, "--config-dir", "o'brien", "experiment=mine", code=2)
        assert answer in result.stderr
        assert result.stderr.count("error: ") == 1
        assert len(result.stderr.splitlines()) == 1
    assert [path.name for path in Path().iterdir()] == ["o'brien"]


SECRETS = [
    [f"endpoint.api_key_env={KEY}"],
    [f"endpoint.api_key={KEY}"],
    [f"endpoint.base_url=http://me:{KEY}@127.0.0.1:9/v1"],
    [f"endpoint.base_url=http://127.0.0.1:9/v1?api_key={KEY}"],
    [f"endpoint.extra_body={{api_key: {KEY}}}"],
    [f"benchmark.judge.api_key_env={KEY}", "benchmark=deepsearch"],
    [KEY],
    ["--config-dir", KEY],
]


@pytest.mark.parametrize("words", SECRETS)
@pytest.mark.parametrize("command", ["eval", "train", "ablate", "play", "diagnose"])
def test_a_secret_is_refused_and_found_nowhere(
    empg: Empg, command: str, words: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    server = ["endpoint=openai", "endpoint.model=m"] if command == "eval" else []
    result = empg(command, *(["run"] if command == "diagnose" else []), *server, *words, code=2)
    assert "secret must not stand in the configuration" in result.stderr
    assert KEY not in result.output + caplog.text
    assert list(Path().rglob("*")) == []


def test_a_secret_in_a_file_is_found_nowhere_else(empg: Empg) -> None:
    file = Path("own", "endpoint", "mine.yaml")
    file.parent.mkdir(parents=True)
    file.write_text(f"# @package _global_\npolicy: endpoint\nendpoint: {{model: m, api_key_env: {KEY}}}\n")
    for words in ([], ["--cfg", "job"], ["seed=x", "endpoint.concurrency=y"]):
        result = empg("eval", "--config-dir", "own", "endpoint=mine", *words, code=2)
        assert "endpoint.api_key_env: is no name of an environment variable" in result.stderr
        assert KEY not in result.output
    assert [path for path in Path().rglob("*") if path.is_file()] == [file]


def test_hydra_says_nothing_before_the_message_of_a_job(empg: Empg, small: tuple[str, ...]) -> None:
    Path("taken").mkdir()
    Path("taken", "metrics.jsonl").write_text("mine")
    result = empg("train", *small, "run_dir=taken", code=2)
    assert "already holds a run" in result.stderr
    assert "Error executing job" not in result.output


def test_a_bug_of_ours_shows_where_it_is_and_says_what_it_is(empg: Empg, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError(f"http://me:{KEY}@host")

    monkeypatch.setattr("empg_cli.cli.commands.doctor.run", broken)
    result = empg("doctor", code=1)
    assert "Traceback" in result.stderr
    assert "in broken" in result.stderr
    assert "this is a bug in empg" in result.stderr
    assert KEY not in result.output


@pytest.mark.parametrize("words", [["show", "FILE"], ["report", "FILE"], ["diagnose", "FILE"], ["eval", "run=FILE"],
                                   ["train", "--resume", "FILE"], ["train", "run_dir=FILE/x", "experiment=smoke"],
                                   ["ablate", "--across", "FILE"], ["eval", "--compare", "FILE", "FILE"]])  # fmt: skip
def test_a_file_in_the_place_of_a_folder(empg: Empg, words: list[str]) -> None:
    Path("FILE").write_text("mine")
    result = empg(*words, code=2)
    assert "FILE" in result.stderr
    assert result.stderr.count("error: ") == 1
    assert [path.name for path in Path().iterdir()] == ["FILE"]
