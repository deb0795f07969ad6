"""WebShop through the command line: compiling a catalogue, playing it, and mistakes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from empg_cli.cli import app

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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--out", "x"), "either the folder of WebShop's official files or --generate N"),
        ((".", "--generate", "50", "--out", "x"), "either the folder"),
        ((".", "--out", "x"), "lacks items_shuffle.json and items_ins_v2.json"),
        (("nowhere", "--out", "x"), "is not a folder"),
        (("--generate", "50", "--out", "/dev/null/x"), "could not be compiled"),
    ],
)
def test_mistakes_are_one_message(empg: Empg, words: tuple[str, ...], message: str) -> None:
    result = empg("data", "compile", "webshop", *words, code=2)
    assert message in result.stderr.replace("\n", " ")
    assert "Traceback" not in result.stderr


def test_a_shop_without_data_is_one_message(empg: Empg, tmp_path: Path) -> None:
    result = empg("play", "benchmark=webshop", f"benchmark.data_dir={tmp_path}", code=2)
    assert "lacks items_shuffle_1000.json" in result.stderr
    assert "setup.sh" in result.stderr
