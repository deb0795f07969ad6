"""Every code block of every page runs, or is checked as far as can be without its run, or says why not.

The rules are those of tests/support/pages.py. Nothing is left out in silence: a block without a language fails, and so
do a mark without a reason, and a program that these tests do not know.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.support.pages import LANGUAGES, ROOT, Block, blocks, pages, shell_lines, spans
from tests.support.shown_commands import check, exists

BLOCKS = [block for page in pages() for block in blocks(page)]
RUN = [block for block in BLOCKS if block.mark is None]
LINES = {line: str(block) for block in RUN if block.language == "bash" for line in shell_lines(block)}
COMMANDS = [(where, line) for line, where in LINES.items()]
SPANS = [(page, span) for span, page in {span: page for page in pages() for span in spans(page)}.items()]
"""One that stands in several places is checked once."""
EXAMPLES = {"empg train algo=median", "empg train -m algo=grpo,median seed=0,1,2", "empg train benchmark=lamps"}
"""Of files that the page tells the reader to write; the tests of that page run them."""
LAUNCHERS = re.compile(r"^(?:srun |torchrun .* -m empg_cli |python -m empg_cli |\.venv/bin/empg |empg )")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ELSEWHERE = {
    "cd", "docker", "export", "git", "source", "uv", "uvx", "vllm", "wandb", "alfworld-download", "gh", "pre-commit",
}  # fmt: skip
"""Programs of others, whose words only a reader can check."""


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_the_block_says_what_it_is(block: Block) -> None:
    assert block.language in LANGUAGES, f"{block}: ```{block.language} is none of {', '.join(LANGUAGES)}"
    if block.mark == "run by":
        test = ROOT / block.reason
        assert test.is_file() and Path(block.page).name in test.read_text(encoding="utf-8"), f"{block}: {block.reason}"
    if block.mark == "not run":
        assert len(block.reason.split()) >= 2, f"{block}: say why"
    assert block.language != "diff" or block.mark == "run by", f"{block}: a diff is applied by a test of its own"


@pytest.mark.parametrize(("where", "command"), COMMANDS, ids=[f"{where} {command}" for where, command in COMMANDS])
def test_the_command_is_valid(where: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if LAUNCHERS.match(command):
        monkeypatch.chdir(tmp_path)
        _ablation_of_the_page()
        rest = LAUNCHERS.sub("", command)
        check(f"empg {rest.removeprefix('empg ')}")
        return
    for part in re.split(r" && | \| ", command):
        _other_program(shlex.split(part), where)


def _ablation_of_the_page() -> None:
    """`--config-dir mine` of docs/ablations.md: the file is on the page."""
    page = (ROOT / "docs" / "ablations.md").read_text(encoding="utf-8")
    found = re.search(r"```yaml\n# (mine/ablation/clip.yaml)\n(.*?)```", page, re.DOTALL)
    assert found
    Path(found[1]).parent.mkdir(parents=True)
    Path(found[1]).write_text(found[2])


def _other_program(words: list[str], where: str) -> None:
    while words and "=" in words[0]:  # variables before the program
        words = words[1:]
    match words:
        case ["make", target, *_]:
            assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), f"{where}: there is no make {target}"
        case ["python" | ".venv/bin/python", "-m", module, *rest] if module.startswith("scripts"):
            _flags_exist(ROOT / module.replace(".", "/"), rest, where)
        case ["python" | ".venv/bin/python", script, *rest] if script.startswith(("scripts/", "examples/")):
            _flags_exist(ROOT / script, rest, where)
        case ["pip", "install", *rest]:
            for extra in re.findall(r"\[([\w,-]+)\]", " ".join(rest)):
                assert set(extra.split(",")) <= set(PYPROJECT["project"]["optional-dependencies"]), f"{where}: {extra}"
        case ["sbatch", *rest]:
            (script,) = [word for word in rest if word.endswith(".sbatch")]
            assert (ROOT / script).is_file(), f"{where}: {script}"
        case ["tee", _]:
            pass
        case [program, *_]:
            assert program in ELSEWHERE, f"{where}: {program} is unknown: check it here, or mark the block as not run"


def _flags_exist(script: Path, words: list[str], where: str) -> None:
    file = next(path for path in (script, script.with_suffix(".py"), script / "__main__.py") if path.is_file())
    source = file.read_text(encoding="utf-8")
    for flag in (word.split("=")[0] for word in words if word.startswith("--")):
        assert f'"{flag}"' in source, f"{where}: {file.name} has no {flag}"


@pytest.mark.parametrize(("page", "command"), SPANS, ids=[f"{page}: {command}" for page, command in SPANS])
def test_the_command_in_a_sentence_is_valid(
    page: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if command in EXAMPLES:
        return
    monkeypatch.chdir(tmp_path)
    if "=" in command:
        _ablation_of_the_page()
        check(command)
    else:
        exists(command)


@pytest.mark.parametrize("block", [block for block in RUN if block.language == "python"], ids=str)
def test_the_python_runs(block: Block, tmp_path: Path) -> None:
    ast.parse(block.content)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "WANDB_MODE": "disabled"}
    done = subprocess.run(
        [sys.executable, "-c", block.content], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("block", [block for block in RUN if block.language in ("yaml", "json", "toml")], ids=str)
def test_the_data_is_read(block: Block) -> None:
    match block.language:
        case "yaml":
            assert yaml.safe_load(block.content)
        case "json":
            for line in block.content.splitlines():
                json.loads(line)
        case "toml":
            assert tomllib.loads(block.content)


def test_the_pages_show_commands_of_every_kind() -> None:
    shown = {command.split()[1] for _, command in [*COMMANDS, *SPANS] if command.startswith("empg ")}
    assert {
        "train",
        "eval",
        "ablate",
        "report",
        "show",
        "play",
        "plan",
        "doctor",
        "export",
        "diagnose",
        "data",
    } <= shown
    assert len(COMMANDS) > 100 and len(SPANS) > 60


def test_make_help_lists_every_target_that_says_what_it_does() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    told = re.findall(r"^([\w-]+):.*## ", MAKEFILE, re.MULTILINE)
    assert "smollm2" in told
    assert [line.split()[1] for line in shown.splitlines() if line.startswith("  make ")] == told
