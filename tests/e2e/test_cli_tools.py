"""`empg doctor` and `empg play`: they ask nothing that a pipe could not answer."""

from __future__ import annotations

import io
import json
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from empg_cli import extras
from empg_cli.benchmarks import make_benchmark
from empg_cli.cli.app import app
from empg_cli.cli.commands import doctor
from empg_cli.cli.commands.play import play
from empg_cli.config import load
from empg_cli.extras import CORE, EXTRAS, PLUGIN_EXTRAS, install_command
from empg_cli.observe.trackers import wandb_is_wanted

Empg = Callable[..., Result]

PYPROJECT = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())


def names(requirements: list[str]) -> set[str]:
    return {requirement.split(">")[0].split("=")[0].split("<")[0] for requirement in requirements}


def findings(empg: Empg, code: int = 0) -> dict[str, dict[str, Any]]:
    shown = json.loads(empg("doctor", "--json", code=code).stdout)
    assert shown["works"] is (code == 0)
    return {f"{entry['area']}/{entry['name']}": entry for entry in shown["findings"]}


# --- doctor ---


def test_doctor_finds_the_core_and_says_what_is_missing(empg: Empg) -> None:
    found = findings(empg)
    assert found["compute/torch"]["status"] == "ok"
    assert "trainer.threads=" in found["compute/threads"]["value"]
    assert "torch" in found["empg/packages"]["value"]
    assert found["data/alfworld"]["advice"].startswith("official games:")
    assert "offline" in found["wandb/mode"]["value"]
    assert list(Path().iterdir()) == []


def test_doctor_prints_the_command_that_installs_an_extra(empg: Empg, monkeypatch: pytest.MonkeyPatch) -> None:
    known = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "hydra-joblib-launcher" else known(name))
    joblib = findings(empg)["extras/joblib"]
    assert joblib["status"] == "note"
    assert joblib["advice"] == install_command("joblib")
    assert joblib["advice"].endswith("[joblib]'")


def test_doctor_speaks_of_make_in_a_checkout_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert extras.gpu_torch_command().startswith("make ")
    monkeypatch.setattr(extras, "_checkout", lambda: None)  # as in an installed wheel
    assert extras.gpu_torch_command().endswith("install --force-reinstall torch")
    assert extras.install_command("lora").endswith("'empg-cli[lora]'")


def test_doctor_fails_when_the_core_is_broken(empg: Empg, monkeypatch: pytest.MonkeyPatch) -> None:
    known = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "tokenizers" else known(name))
    result = empg("doctor", code=1)
    assert "broken  packages" in result.stdout
    assert "missing: tokenizers" in result.stdout
    assert "pip install tokenizers" in result.stdout


def test_doctor_looks_for_official_data(empg: Empg, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path / "nowhere"))
    assert "does not exist" in findings(empg)["data/alfworld"]["value"]
    assert findings(empg)["data/webshop"]["value"] == "WEBSHOP_DATA is not set: a generated shop is played"
    assert empg("data", "compile", "webshop", "--generate", "60", "--out", str(tmp_path / "shop")).exit_code == 0
    monkeypatch.setenv("WEBSHOP_DATA", str(tmp_path / "shop"))
    assert findings(empg)["data/webshop"]["value"].startswith(f"generated tasks in {tmp_path / 'shop'}: train ")


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"WANDB_MODE": "disabled"}, "WANDB_MODE=disabled means disabled here"),
        ({"WANDB_DISABLED": "true"}, "WANDB_DISABLED=true means disabled here"),
        ({"WANDB_DISABLED": "true", "WANDB_MODE": "online"}, "WANDB_DISABLED=true means disabled here"),
        ({"WANDB_DISABLED": "false", "WANDB_MODE": "offline"}, "WANDB_MODE=offline means offline here"),
        ({"WANDB_MODE": "dryrun"}, "WANDB_MODE=dryrun means offline here"),
        ({"WANDB_API_KEY": "a" * 40}, "mode auto means online here"),
    ],
    ids=str,
)
def test_doctor_knows_the_mode_of_wandb(
    empg: Empg, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: str
) -> None:
    """As a run decides it: `wandb_is_wanted` and `login_free_mode`."""
    for name in ("WANDB_MODE", "WANDB_DISABLED", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = findings(empg)["wandb/mode"]
    assert found["value"] == said
    assert ("unset WANDB_" in found["advice"]) is ("disabled here" in said)
    assert wandb_is_wanted("auto") is ("disabled here" not in said)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("WANDB_MODE", "shared", "must be online, offline, disabled or dryrun, in the environment (got shared)"),
        ("WANDB_SILENT", "true", None),
        ("WANDB_CONSOLE", "foo", "is refused by W&B"),
        ("OMP_NUM_THREADS", "many", "must be a whole number above 0"),
    ],
)
def test_doctor_names_the_variables_that_a_run_refuses(
    empg: Empg, monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str | None
) -> None:
    monkeypatch.setenv(name, value)
    found = findings(empg, code=1 if said else 0)
    if said is None:
        assert not [key for key in found if key.startswith("environment/")]
    else:
        assert (
            said in found[f"environment/{name}"]["value"] and f"unset {name}" in found[f"environment/{name}"]["advice"]
        )


def test_the_lists_of_packages_are_those_of_the_project_file() -> None:
    project = PYPROJECT["project"]
    assert names(project["dependencies"]) == set(CORE)
    assert {name: names(packages) for name, packages in project["optional-dependencies"].items()} == {
        name: set(extra.packages) for name, extra in EXTRAS.items()
    }
    assert {extra for options in PLUGIN_EXTRAS.values() for extra in options.values()} <= set(EXTRAS)


# --- play ---


def typed(text: str, *words: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["play", *words], input=text)
    assert result.exit_code == code, result.output
    return str(result.output)


@pytest.fixture
def game() -> tuple[Any, Any, int]:
    settings = load([], "eval").benchmark
    benchmark = make_benchmark(**settings.model_dump())
    return benchmark, benchmark.tasks("valid_unseen")[0], settings.max_steps


def on_paper() -> Console:
    return Console(file=io.StringIO(), width=200)


def text_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_following_the_hints_solves_the_task(game: tuple[Any, Any, int]) -> None:
    console = on_paper()

    def follow() -> Iterator[str]:
        while True:
            yield "hint"
            yield text_of(console).rsplit("the expert would: ", 1)[1].splitlines()[0]

    lines = follow()
    assert play(*game, console, lambda: next(lines)) is True
    assert "solved after" in text_of(console)


def test_numbers_choose_from_the_list() -> None:
    shown = typed("?\n1\nquit\n")
    first = next(line.split(maxsplit=1)[1] for line in shown.splitlines() if line.strip().startswith("1  "))
    assert f"> {first}" in shown
    assert "left after 1 steps" in shown


def test_refused_and_impossible_input_is_answered() -> None:
    shown = typed("fly away\n999\n\n")
    assert "refused: nothing changed" in shown
    assert "? lists them" in shown
    assert "left after 1 steps" in shown  # the end of the input


def test_step_limit_ends_the_game() -> None:
    assert "failed after 2 steps" in typed("look\nlook\nlook\n", "benchmark.max_steps=2")


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert "\x1b" not in typed("\x1b[31mred\x1b[0m\nquit\n")


def test_ctrl_c_leaves_quietly(game: tuple[Any, Any, int], monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupting(io.StringIO):
        def readline(self, *_: object) -> str:
            raise KeyboardInterrupt

        __next__ = readline

    from empg_cli.cli.commands.play import _keyboard

    console = on_paper()
    monkeypatch.setattr("sys.stdin", Interrupting())
    assert play(*game, console, _keyboard(console)) is None
    assert "left after 0 steps" in text_of(console)


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["--task", "500", "benchmark.split=valid_seen"], "the split valid_seen has the tasks 0 to 139"),
        (["trainer.lr=1"], "is not read by `empg play`"),
        (["benchmark.split=test"], "benchmark.split"),
    ],
)
def test_mistakes(words: list[str], answer: str) -> None:
    assert answer in typed("", *words, code=2)


def test_the_task_number_chooses_the_task() -> None:
    assert typed("quit\n", "--task", "1").splitlines()[0] != typed("quit\n", "--task", "2").splitlines()[0]
