"""docs/adding-a-benchmark.md as it stands: its files in an empty folder, its commands run, its mistakes made."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from empg_cli import config
from tests.e2e.conftest import Empg, invoke

PAGE = (Path(__file__).parents[2] / "docs" / "adding-a-benchmark.md").read_text(encoding="utf-8")
RUNS = ("run_dir=runs/lamps", "run_dir=runs/file", "run_dir=runs/both")


def commands() -> Iterator[list[str]]:
    for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL):
        for line in block.splitlines():
            if "# not run" not in line:
                yield shlex.split(line)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the files of the page, in which all its commands have run. Do not change it."""
    folder, path, here = tmp_path_factory.mktemp("outside"), list(sys.path), Path.cwd()
    for name, content in re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", PAGE, re.DOTALL):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    os.chdir(folder)
    for program, *words in commands():
        assert program == "empg"
        small = ["logger.wandb.mode=disabled"] if words[0] == "train" else []
        invoke(*words, *small)
    yield folder
    os.chdir(here)
    sys.path[:] = path
    for name in ("lamps", "extras"):
        sys.modules.pop(name, None)


@pytest.fixture
def here(place: Path, empg: Empg, monkeypatch: pytest.MonkeyPatch) -> Empg:
    """`empg` in the folder of the page."""
    monkeypatch.chdir(place)
    return empg


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_two_updates_one_more_after_a_resume_and_an_evaluation(place: Path) -> None:
    logged = rows(place / "runs" / "lamps")
    assert [row["update"] for row in logged] == [0, 1, 2, 3]
    assert all(0 <= row["lamps/lit"] <= 1 for row in logged[1:])
    assert 0 <= logged[0]["eval/lamps/lit"] <= 1
    (folder,) = [path for path in (place / "runs" / "eval").iterdir() if "lamps" in (path / "eval.log").read_text()
                 and json.loads((path / "evaluation.json").read_text())["policy"] != "expert"]  # fmt: skip
    found = json.loads((folder / "evaluation.json").read_text())
    assert found["split"] == "valid"
    assert found["total"]["n"] == 8  # every fourth of the 31 rows of five lamps with one off, from the first on
    assert found["rules"]["max_steps"] == 6  # the default of Settings


def test_the_expert_plays_it(place: Path) -> None:
    found = [json.loads((path / "evaluation.json").read_text()) for path in (place / "runs" / "eval").iterdir()]
    assert [one["total"]["success_rate"] for one in found if one["policy"] == "expert"] == [1.0]


def test_turn_credit_reads_the_score_of_every_step(here: Empg, tmp_path: Path) -> None:
    """The score of the lamps, the share that is lit, moves before an episode ends."""
    words = ["benchmark.target=lamps:Lamps", "benchmark.width=5", "model=tiny-scratch", "trainer.warm_start.steps=20"]
    words += ["algo=turn_credit_empg", "trainer.updates=1", "trainer.tasks_per_update=4", "logger.wandb.mode=disabled"]
    here("train", *words, "trainer.eval_before=false", f"run_dir={tmp_path / 'run'}")
    (row,) = [row for row in rows(tmp_path / "run") if "actor/pg_loss" in row]
    assert row["turn_credit/progress_frac"] * row["episode/length/mean"] > 1  # steps of a mean episode
    assert row["empg/weight/max"] >= 1


def test_the_run_says_what_it_was_made_of(place: Path) -> None:
    saved = yaml.safe_load((place / "runs" / "both" / "config.yaml").read_text())
    assert saved["benchmark"] == {
        "name": "lamps", "target": "lamps:Lamps", "width": 5, "split": "valid", "max_steps": 6, "data_dir": None,
        "eval_tasks": None, "success_reward": 1.0, "invalid_action_penalty": 0.1, "invalid_action_scope": "format",
    }  # fmt: skip
    assert saved["algo"]["credit"] == {"kind": "custom", "target": "extras:tempered", "power": 2.0}
    assert saved["algo"]["name"] == "grpo_tempered"
    assert saved["logger"]["sinks"] == [
        {"target": "extras:Lines", "metric": "critic/rewards/mean", "file": "lines.txt"}
    ]
    facts = json.loads((place / "runs" / "both" / "run.json").read_text())["outside"]
    assert {key: fact["target"] for key, fact in facts.items()} == {
        "benchmark": "lamps:Lamps",
        "algo.credit": "extras:tempered",
        "logger.sinks[0]": "extras:Lines",
    }
    assert facts["benchmark"]["digest"] != facts["algo.credit"]["digest"]


def test_a_file_and_the_command_line_set_its_keys(place: Path) -> None:
    saved = yaml.safe_load((place / "runs" / "file" / "config.yaml").read_text())["benchmark"]
    assert (saved["width"], saved["max_steps"]) == (5, 5)


def test_the_sink_got_its_settings_and_every_row(place: Path) -> None:
    run = place / "runs" / "both"
    expected = [f"{row['update']} {row.get('critic/rewards/mean')}" for row in rows(run)]
    assert (run / "lines.txt").read_text().splitlines() == expected


def test_several_passes_and_a_comparison(here: Empg, place: Path) -> None:
    words = ["run=runs/lamps", "benchmark.target=lamps:Lamps", "benchmark.eval_tasks=2"]
    tables = here("eval", *words, "samples=2", "run_dir=runs/twice").stdout
    assert "lamps (generated data), valid" in tables
    assert "pass@k: lamps" in tables
    assert json.loads((place / "runs" / "twice" / "run.json").read_text())["data"]["name"] == "lamps"
    assert "lamps (generated data), valid" in here("eval", "--compare", "runs/lamps", "runs/lamps").stdout


def test_an_evaluation_opens_no_sink(here: Empg, place: Path) -> None:
    words = ["run=runs/lamps", "benchmark.target=lamps:Lamps", "logger.sinks=['extras:Lines']", "run_dir=runs/sink"]
    result = here("eval", *words, code=2)
    assert "logger.sinks: must be empty: evaluations log no rows" in " ".join(result.stderr.split())
    assert not (place / "runs" / "sink").exists()


def test_the_mistakes_of_the_page(here: Empg) -> None:
    (block,) = re.findall(r"```text\n(\$ empg.*?)```", PAGE, re.DOTALL)
    shown = list(zip(*[iter(block.splitlines())] * 2, strict=True))
    assert len(shown) == 3
    for command, answer in shown:
        result = here(*shlex.split(command)[2:], code=2)
        assert answer in " ".join(result.stderr.split())
        assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("words", "answers"),
    [
        (["benchmark=custom"], ["benchmark.target: must name what is to be called"]),
        (["benchmark.target=nowhere:make"], ["no module named nowhere", "modules are looked for in"]),
        (["benchmark.target=lamps"], ["is not package.module:name, nor the name of an installed entry point"]),
        (["benchmark.target=lamps:Row"], ["cannot be called as (settings): missing a required"]),
        (["benchmark.target=untyped:make"], ["brings no settings", "a subclass of BenchmarkSettings"]),
        (["benchmark.target=lamps:PAGE"], ["has no PAGE"]),
        (["benchmark.target=lamps:Lamps.splits"], ["is tuple, nothing that can be called"]),
        (["benchmark.target=broken:make"], ["cannot be imported: ZeroDivisionError", "broken.py, line 2"]),
        (["benchmark.target=grammar:make"], ["SyntaxError", "grammar.py, line 1"]),
        (["benchmark.target=needs:make"], ["cannot be imported: ModuleNotFoundError", "no_such_package"]),
        (["benchmark.target=lamps:Lamps", "benchmark.width=x"], ["benchmark.width: must be a valid integer (got x)"]),
        (["benchmark.target=lamps:Lamps", "benchmark.width=10"], ["benchmark.width: must be less than or equal to 9"]),
        (["benchmark.target=lamps:Lamps", "benchmark.split=test"], ["benchmark.split: must be train or valid"]),
        (["benchmark.target=lamps:Lamps", "benchmark.max_steps=0"], ["benchmark.max_steps: must be greater than or"]),
        (["benchmark.target=lamps:Lamps", "benchmark.name=webshop"], ["benchmark.name: webshop is a benchmark of"]),
        (["benchmark.target=lamps:Lamps", "model=tiny"], ["model.init: no agent ships for a benchmark from outside"]),
        (["benchmark=alfworld", "benchmark.target=lamps:Lamps"], ["benchmark.target: is not read"]),
        (["algo=empg", "algo.credit.target=extras:tempered"], ["would take the place of another credit", "algo=grpo"]),
        (["algo=grpo", "algo.credit.kind=custom"], ["algo.credit.target: must name what is to be called"]),
        (["algo=grpo", "algo.credit.target=extras:tempered", "algo.credit.pwer=1"], ["did you mean algo.credit.power"]),
        (
            ["algo=grpo", "algo.credit.target=extras:tempered", "algo.credit.power=-1"],
            ["algo.credit.power: must be gr"],
        ),
        (["algo=grpo", "algo.credit.target=extras:Lines"], ["cannot be called as (advantage_S, entropy_S, next_S"]),
        (["algo=grpo", "algo.credit.target=untyped:credit"], ["its parameter k has no type"]),
        (["logger.sinks=[lines]"], ["logger.sinks[0]: is not package.module:name"]),
        (["logger.sinks=[{target: 'extras:Lines', fille: x}]"], ["did you mean logger.sinks[0].file?"]),
        (["logger.sinks=['extras:Lines', {metric: x}]"], ["logger.sinks[1]: must be a target, or {target: ..., key"]),
        (
            ["benchmark.target=lamps:Lamps", "benchmark.widht=3", "trainer.lr=-1", "logger.sinks=[nosuch]"],
            ["benchmark.widht: unknown key", "trainer.lr: must be greater than 0", "logger.sinks[0]"],
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_ends_in_one_message_before_anything_is_made(
    here: Empg, place: Path, words: list[str], answers: list[str]
) -> None:
    for name, content in (
        ("broken", "a = 1\nb = a / 0\n"),
        ("grammar", "def make(:\n"),
        ("needs", "import no_such_package\n"),
        ("untyped", "def credit(a, b, c, *, k): ...\ndef make(settings): ...\n"),
    ):
        (place / f"{name}.py").write_text(content)
    before = sorted((place / "runs").rglob("*"))
    model = [] if any(word.startswith("model") for word in words) else ["model=tiny-scratch"]
    result = here("train", *model, *words, code=2)
    said = " ".join(result.stderr.split())
    assert [answer for answer in answers if answer not in said] == [], said
    assert "Traceback" not in result.output
    assert result.stdout == ""
    assert sorted((place / "runs").rglob("*")) == before


def test_a_run_folder_alone_makes_nothing_run(here: Empg, place: Path, tmp_path: Path) -> None:
    """Somebody else's folder: a module that would leave a trace when it is imported."""
    run = tmp_path / "theirs"
    shutil.copytree(place / "runs" / "both", run)
    (place / "theirs.py").write_text("from pathlib import Path\nPath('imported').touch()\nfrom lamps import Lamps\n")
    text = (run / "config.yaml").read_text()
    for name in ("lamps:Lamps", "extras:tempered", "extras:Lines"):
        text = text.replace(name, f"theirs:{name.split(':')[1]}")
    (run / "config.yaml").write_text(text)
    facts = json.loads((run / "run.json").read_text())
    del facts["config_digests"], facts["checksum"]  # whoever writes the one can write the other
    (run / "run.json").write_text(json.dumps(facts))
    for words, keys in (
        (["eval", f"run={run}"], ["benchmark.target"]),
        (["eval", f"run={run}/checkpoints/step-000002"], ["benchmark.target"]),
        (["diagnose", run], ["benchmark.target"]),
        (["train", "--resume", run], ["benchmark.target", "algo.credit.target", "logger.sinks"]),
        (["train", "--resume", run, "benchmark.target=theirs:Lamps"], ["algo.credit.target", "logger.sinks"]),
    ):
        result = here(*words, code=2)
        for key in ("benchmark.target", "algo.credit.target", "logger.sinks"):
            assert (f"{key}: is code" in result.stderr) == (key in keys)
    here("show", run)
    here("report", run, "--no-figures")
    assert config.read(run / "config.yaml").algo.name == "grpo_tempered"
    assert not (place / "imported").exists()
    here("eval", f"run={run}", "benchmark.target=theirs:Lamps", "run_dir=runs/theirs")
    assert (place / "imported").exists()


def test_other_code_on_resume_is_said_and_another_target_refused(here: Empg, place: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(place / "runs" / "lamps", run)
    words = ["train", "--resume", run, "trainer.updates=4", "logger.wandb.mode=disabled"]
    result = here(*words, "benchmark.target=lamps:Other", code=2)
    assert "has no Other" in result.stderr
    code = place / "lamps.py"
    original = code.read_text()
    try:
        code.write_text(original + "\nOther = Lamps\n")
        sys.modules.pop("lamps")
        result = here(*words, "benchmark.target=lamps:Other", code=2)
        assert "benchmark.target: cannot change when resuming" in result.stderr
        here(*words, "benchmark.target=lamps:Lamps")
        assert "the code from outside is not what this run began with" in (run / "train.log").read_text()
    finally:
        code.write_text(original)
        sys.modules.pop("lamps", None)


def test_a_sweep_and_a_study_vary_its_keys(here: Empg, place: Path) -> None:
    model = "model.arch={hidden_size:32,num_layers:1,num_heads:2,num_kv_heads:1,mlp_size:32}"
    small = ["algo=grpo", "model=tiny-scratch", model, "trainer.updates=1", "trainer.tasks_per_update=2",
             "algo.group_size=2", "trainer.minibatches=1", "trainer.eval_before=false", "trainer.warm_start.steps=0",
             "trainer.health.preflight=off", "logger.wandb.mode=disabled"]  # fmt: skip
    target = "benchmark.target=lamps:Lamps"
    here("train", "-m", target, "benchmark.width=2,3", *small, "run_dir=runs/sweep")
    saved = [yaml.safe_load(path.read_text()) for path in sorted((place / "runs" / "sweep").glob("*/config.yaml"))]
    assert [one["benchmark"]["width"] for one in saved] == [2, 3]
    assert sorted(path.name for path in (place / "runs" / "sweep").iterdir() if path.is_dir()) == [
        "0-benchmark.width=2", "1-benchmark.width=3"]  # fmt: skip
    (place / "two.py").write_text("from lamps import Lamps, Settings\nclass Other(Lamps): ...\n")
    here("train", "-m", "benchmark.target=two:Lamps,two:Other", *small, "run_dir=runs/targets")
    names = sorted(path.name for path in (place / "runs" / "targets").iterdir() if path.is_dir())
    assert names == ["0-benchmark.target=two:Lamps", "1-benchmark.target=two:Other"]
    assert (
        yaml.safe_load((place / "runs" / "targets" / names[1] / "config.yaml").read_text())["benchmark"]["name"]
        == "two"
    )
    result = here("train", "-m", "benchmark.target=two:Lamps,two:Othr", *small, "run_dir=runs/no", code=2)
    assert "in the job: benchmark.target=two:Othr" in result.stderr
    (place / "mine" / "ablation").mkdir()
    (place / "mine" / "ablation" / "width.yaml").write_text(
        "name: width\nmetric: eval/lamps/lit\nbase: two\n"
        "variants:\n  two: [benchmark.width=2]\n  tempered: [algo.credit.target=extras:tempered]\n"
    )
    here("ablate", "--config-dir", "mine", "ablation=width", target, "seeds=1", *small, "run_dir=runs/study")
    study = place / "runs" / "study"
    assert yaml.safe_load((study / "two-s0" / "config.yaml").read_text())["benchmark"]["width"] == 2
    credit = yaml.safe_load((study / "tempered-s0" / "config.yaml").read_text())["algo"]["credit"]
    assert credit == {"kind": "custom", "target": "extras:tempered", "power": 1.0}


def test_a_console_script_finds_modules_of_the_current_folder(place: Path, tmp_path: Path) -> None:
    """Its own folder is the first on Python's path, and the current one is not on it."""
    script = tmp_path / "bin" / "empg"
    script.parent.mkdir()
    script.write_text("from empg_cli.__main__ import main\nmain()\n")
    words = ["play", "benchmark.target=lamps:Lamps", "benchmark.width=2"]
    environ = os.environ | {"PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        [sys.executable, str(script), *words], cwd=place, env=environ, input="flip 1\n", capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "solved after 1 steps" in done.stdout
