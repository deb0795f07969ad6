"""The command line as a stranger meets it: help, completion, version; quick, and without loading what it need not."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from empg_cli import __version__
from empg_cli.cli.app import app, train
from empg_cli.cli.cli_page import words_of
from empg_cli.cli.completion import complete_word

TRACKERS = {"wandb", "tensorboard", "mlflow", "trackio", "swanlab"}
HEAVY = {"torch", "transformers", "hydra", "omegaconf", "numpy", "pydantic", "rich"} | TRACKERS


def python(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env={**os.environ, **environ}, check=False
    )


def loaded_modules(code: str) -> set[str]:
    shown = python("-c", f"import sys\n{code}\nprint(*{{name.split('.')[0] for name in sys.modules}})")
    assert shown.returncode == 0, shown.stderr
    return set(shown.stdout.splitlines()[-1].split())


def test_the_command_line_itself_loads_nothing_heavy() -> None:
    assert loaded_modules("import empg_cli.cli.app") & HEAVY == set()


def test_help_draws_with_rich_and_loads_nothing_else() -> None:
    shown = loaded_modules("from typer.testing import CliRunner\nfrom empg_cli.cli.app import app\n"
                           "CliRunner().invoke(app, ['--help'])")  # fmt: skip
    assert shown & HEAVY == {"rich"}


def test_configurations_are_validated_before_torch_is_loaded() -> None:
    assert loaded_modules("from empg_cli.config import load\nload([])") & {"torch", "transformers", *TRACKERS} == set()


@pytest.mark.parametrize(
    "command",
    ["train", "evaluate", "ablate", "report", "play", "export", "serve", "init", "data_trajectories", "doctor", "verl"],
)
def test_torch_is_not_loaded_before_there_is_work_for_it(command: str) -> None:
    """Mistakes on a command line, `--cfg` and tables come at once."""
    loaded = loaded_modules(f"import empg_cli.cli.commands.{command}")
    assert loaded & {"torch", "transformers", "wandb", "numpy", "scipy", "httpx"} == set()


def test_help_lists_the_commands() -> None:
    shown = CliRunner().invoke(app, ["--help"])
    assert shown.exit_code == 0
    for command in ("train", "eval", "export", "serve", "verl", "play", "init", "doctor", "--install-completion"):
        assert command in shown.output


def test_help_of_train_lists_flags_groups_and_presets() -> None:
    shown = CliRunner().invoke(app, ["train", "--help"]).output
    for word in ("--multirun", "--cfg", "--resume", "benchmark", "alfworld", "dapo_empg", "qwen2.5-1.5b", "transcript"):
        assert word in shown


def test_an_ablation_has_hydras_flags_but_those_that_the_study_sets() -> None:
    shown = CliRunner().invoke(app, ["ablate", "--help"]).output
    assert "--cfg" in shown and "--config-dir" in shown and "--multirun" not in shown
    refused = CliRunner().invoke(app, ["ablate", "--multirun"])
    assert refused.exit_code == 2 and "No such option" in refused.output


def test_version() -> None:
    assert CliRunner().invoke(app, ["--version"]).output == f"empg {__version__}\n"


def test_a_misspelt_flag_is_named_with_its_neighbour() -> None:
    shown = CliRunner().invoke(app, ["train", "--multirn"])
    assert shown.exit_code == 2
    assert "--multirun" in shown.output


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("benchmark=al", ["benchmark=alfworld"]),
        ("rollout=", ["rollout=transcript", "rollout=window"]),
        ("trainer.warm", [f"trainer.warm_start.{key}=" for key in ("steps", "batch_size", "lr")]),
        ("+algo.credit.ze", ["+algo.credit.zeta="]),
        ("resu", ["resume="]),
        ("rolloutx", []),
    ],
)
def test_overrides_complete(typed: str, offered: list[str]) -> None:
    assert [word for word in offered if word not in complete_word(typed, {})] == []
    assert all(word.startswith(typed) for word in complete_word(typed, {}))


def test_bash_cuts_words_at_the_equals_sign() -> None:
    # `empg train benchmark=al<TAB>` arrives as the words empg, train, benchmark, =, al
    cut = {"COMP_WORDS": "empg train benchmark = al", "COMP_CWORD": "4"}
    assert complete_word("al", cut) == ["alfworld"]
    nothing_yet = {"COMP_WORDS": "empg train rollout =", "COMP_CWORD": "3"}
    assert complete_word("=", nothing_yet) == ["transcript", "window"]


def test_completion_through_the_shell_protocol() -> None:
    shown = python(
        "-c",
        "import sys; sys.argv = ['empg']\nfrom empg_cli.cli.app import app\napp(prog_name='empg')",
        _EMPG_COMPLETE="complete_bash",
        COMP_WORDS="empg train rollout = w",
        COMP_CWORD="4",
    )
    assert shown.stdout.split() == ["window"], shown.stderr


def test_hydras_help_names_only_flags_that_are_taken() -> None:
    shown = python("-m", "empg_cli", "train", "--hydra-help").stdout
    taken = {spelling for word in words_of(train) for spelling in word.spellings}
    named = set(re.findall(r"(?<!\S)--?[a-z][a-z-]*", shown))
    assert "--cfg" in named and named - taken == {"--help"}
    assert "hydra/launcher:" in shown
