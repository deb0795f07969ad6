"""WebShop through the command line: compiling a catalogue, playing it, and mistakes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from empg_cli.benchmarks.webshop.generator import generate
from empg_cli.cli.app import app
from empg_cli.runs.rows import without_wall_clock
from tests.support.webshop import as_official, write

Empg = Callable[..., Result]


@pytest.fixture(autouse=True)
def generated_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WEBSHOP_DATA", raising=False)


def test_compile_then_play(empg: Empg, tmp_path: Path) -> None:
    result = empg("data", "compile", "webshop", "--generate", "120", "--out", "shop")
    overrides = result.stdout.split()
    assert overrides == ["benchmark=webshop", "benchmark.data_dir=shop"]
    assert "120 generated products" in result.stderr
    assert (tmp_path / "shop" / "webshop-store.json").is_file()
    lines = "hint\nsearch[red shoes]\nclick[nothing]\n?\nquit\n"
    in_memory = CliRunner().invoke(app, ["play", "benchmark=webshop", "benchmark.num_products=120"], input=lines)
    compiled = CliRunner().invoke(app, ["play", *overrides], input=lines)
    assert (compiled.exit_code, compiled.stdout) == (0, in_memory.stdout)
    for shown in (
        "WebShop [SEP] Instruction:",
        "the expert would: search[",
        "Total results",
        "refused",
        "click[next >]",
    ):
        assert shown in compiled.stdout


@pytest.fixture
def official_and_compiled(empg: Empg, tmp_path: Path) -> tuple[str, str]:
    """Folders of one small shop: WebShop's own files, and the same compiled."""
    (tmp_path / "files").mkdir()
    write(tmp_path / "files", *as_official(list(generate(120, seed=4))))
    empg("data", "compile", "webshop", "files", "--set", "small", "--out", "ws")
    return "files", "ws"


def test_a_compiled_shop_is_evaluated_as_its_files_are(empg: Empg, official_and_compiled: tuple[str, str]) -> None:
    found = []
    for shop in official_and_compiled:
        keys = ("model=tiny", "benchmark=webshop", f"benchmark.data_dir={shop}", "benchmark.eval_tasks=8")
        empg("eval", *keys, "trainer.threads=1", f"run_dir=eval-{shop}")
        found.append(json.loads(Path(f"eval-{shop}", "evaluation.json").read_text()))
    files, compiled = found
    assert compiled == files
    assert {task["success"] for task in compiled["tasks"]} == {True, False}


def test_a_compiled_shop_trains_as_its_files_do(empg: Empg, official_and_compiled: tuple[str, str]) -> None:
    rows, evaluations = [], []
    for shop in official_and_compiled:
        empg(
            *("train", "model=tiny", "benchmark=webshop", f"benchmark.data_dir={shop}", f"run_dir=train-{shop}"),
            *("benchmark.eval_tasks=4", "benchmark.max_steps=7", "algo.group_size=2", "trainer.updates=1"),
            *("trainer.tasks_per_update=3", "trainer.minibatches=1", "trainer.threads=1", "trainer.eval_before=true"),
            "logger.wandb.mode=disabled",
        )
        lines = Path(f"train-{shop}", "metrics.jsonl").read_text().splitlines()
        rows.append([without_wall_clock(json.loads(line)) for line in lines])
        files = sorted(Path(f"train-{shop}", "evaluations").iterdir())
        evaluations.append([json.loads(file.read_text())["tasks"] for file in files])
    assert rows[0] == rows[1]
    assert evaluations[0] == evaluations[1] and len(evaluations[0]) == 2
    assert any(row.get("episode/success_rate", 0) > 0 for row in rows[1])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--out", "x"), "either the folder of WebShop's official files or --generate N"),
        ((".", "--generate", "50", "--out", "x"), "either the folder"),
        ((".", "--out", "x"), "lacks items_shuffle.json and items_ins_v2.json"),
        (("nowhere", "--out", "x"), "is not a folder"),
        (("--generate", "50", "--out", "/dev/null/x"), "/dev/null: "),
    ],
)
def test_mistakes_are_one_message(empg: Empg, words: tuple[str, ...], message: str) -> None:
    result = empg("data", "compile", "webshop", *words, code=2)
    assert message in result.stderr.replace("\n", " ")
    assert "Traceback" not in result.stderr


def test_a_shop_without_data_is_one_message(empg: Empg, tmp_path: Path) -> None:
    result = empg("play", "benchmark=webshop", f"benchmark.data_dir={tmp_path}", code=2)
    assert "lacks items_shuffle_1000.json" in result.stderr
    assert "data fetch webshop" in result.stderr
