"""Every `empg` command that these pages show is composed and validated, as the command itself would do it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from empg_cli import config
from empg_cli.cli.app import app
from empg_cli.config import load
from empg_cli.config.command_line import check_command_line
from empg_cli.config.job import load_job
from empg_cli.config.schema import EvalConfig, TrainConfig
from empg_cli.runs.own_config import primary_config
from empg_cli.studies.plan import make_study

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("reproducing.md", "ablations.md", "evaluation.md", "sweeps.md", "warm-start.md", "scaling.md", "trackers.md")
PLACEHOLDERS = {"URL": "http://127.0.0.1:1/v1", "NAME": "name", "VARIABLE": "SOME_KEY"}
"""Words in capitals that are no folders. Folders are made: DIR, INDEX, STUDY, A, B, CHECKPOINT."""
OPTIONS_WITH_VALUE = {
    "--jobs": 1,
    "--resume": 1,
    "--detect": 1,
    "--sd": 1,
    "--compare": 2,
    "--config-dir": 1,
    "--out": 1,
}


def commands(page: str) -> Iterator[str]:
    """Lines of code blocks, and code spans that are a whole command; comments are left out."""
    text = (DOCS / page).read_text(encoding="utf-8")
    for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            command = line.partition("  #")[0].partition(" # ")[0].strip()
            if command.startswith("empg "):
                yield command
    outside = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    for span in re.findall(r"`(empg [a-z]+ [^`]+)`", outside):
        if "..." not in span:
            yield span


ALL = [(page, command) for page in PAGES for command in dict.fromkeys(commands(page))]


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with the folders that the pages name, runs among them."""
    monkeypatch.chdir(tmp_path)
    for name in ("DIR", "INDEX", "A", "B", "CHECKPOINT"):
        Path(name).mkdir()
    for run in (Path("RUN"), Path("STUDY"), Path("STUDY") / "dapo_empg-s0"):
        run.mkdir()
        config.write(load(["benchmark=deepsearch"]), run / "config.yaml")
    (tmp_path / "mine" / "ablation").mkdir(parents=True)
    block = re.search(r"```yaml\n# mine/ablation/clip.yaml\n(.*?)```", (DOCS / "ablations.md").read_text(), re.DOTALL)
    assert block
    Path("mine/ablation/clip.yaml").write_text(block[1])
    return tmp_path


@pytest.mark.parametrize(("page", "command"), ALL, ids=[f"{page}: {command}" for page, command in ALL])
def test_the_command_is_valid(page: str, command: str, folders: Path) -> None:
    for name, value in PLACEHOLDERS.items():
        command = re.sub(rf"\b{name}\b", value, command)
    _, name, *words = shlex.split(command)
    flags, overrides, values = parse(name, words)
    match name:
        case "train" if "-m" in flags:  # plugins may be absent
            check_command_line("train", [w for w in overrides if not w.startswith("hydra")], TrainConfig, multirun=True)
        case "train":
            load(overrides)
        case "eval" if "--compare" in flags:
            assert not overrides and all(Path(path).is_dir() for path in values["--compare"])
        case "eval":
            given = [Path(word.partition("=")[2]) for word in overrides if word.startswith("run=")]
            primary = primary_config("eval", given[0], overrides) if given else "eval"
            load_job(primary, overrides, EvalConfig)
        case "ablate" if "--across" in flags:
            assert overrides and not any("=" in word for word in overrides)
        case "ablate":
            plugin = "hydra/launcher="
            make_study(
                [word for word in overrides if not word.startswith(plugin)],
                config_dir=values.get("--config-dir", [None])[0],
            )
        case _:
            assert overrides, "a command of ours that takes a path or a word"


def parse(name: str, words: list[str]) -> tuple[set[str], list[str], dict[str, list[str]]]:
    """Flags, other words, and the values of flags; every flag must be one that the command declares."""
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    known = {option for parameter in command.params for option in parameter.opts}
    flags, rest, values = set(), [], {}
    left = list(words)
    while left:
        word = left.pop(0)
        if not word.startswith("-"):
            rest.append(word)
            continue
        assert word in known, f"empg {name} has no {word}"
        flags.add(word)
        values[word] = [left.pop(0) for _ in range(OPTIONS_WITH_VALUE.get(word, 0))]
    return flags, rest, values


def test_the_pages_show_commands() -> None:
    assert all(any(page == shown for shown, _ in ALL) for page in PAGES)
    assert len([page for page, _ in ALL if page == "reproducing.md"]) > 25
