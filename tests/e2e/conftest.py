"""Running `empg` inside the test process, in a folder of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from empg_cli.cli.app import app

Empg = Callable[..., Result]

SMALL = (
    "experiment=smoke",
    "model=tiny-scratch",
    "model.arch={hidden_size:32,num_layers:1,num_heads:2,num_kv_heads:1,mlp_size:32}",
    "logger.wandb.mode=disabled",
)
"""Two real updates in about two seconds."""


def invoke(*words: str, code: int = 0) -> Result:
    """`empg WORDS`; fails with the output when the exit code is another."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exit_code != code:
        raise AssertionError(
            f"exit code {result.exit_code}, not {code}\n{result.stdout}\n{result.stderr}\n{result.exception!r}"
        ) from result.exception
    return result


@pytest.fixture
def empg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Empg]:
    """Run a command in an empty folder, the current one."""
    monkeypatch.chdir(tmp_path)
    before = list(logging.getLogger().handlers)
    yield invoke
    for handler in [handler for handler in logging.getLogger().handlers if handler not in before]:
        logging.getLogger().removeHandler(handler)
        handler.close()


@pytest.fixture(scope="session")
def small() -> tuple[str, ...]:
    return SMALL


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small run that has finished. Do not change it: copy it."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    invoke("train", *SMALL, f"run_dir={folder}")
    return folder
