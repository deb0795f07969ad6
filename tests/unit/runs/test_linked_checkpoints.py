"""A run whose `checkpoints` is a link to a folder elsewhere, on a larger disk say, is a run like another."""

from __future__ import annotations

from pathlib import Path

import pytest

from empg_cli.config.problems import ConfigError
from empg_cli.config.schema import TrainConfig
from empg_cli.runs.checkpoint import all_checkpoints
from empg_cli.runs.config_file import find_run_folder
from empg_cli.runs.run_file import read_run_file
from tests.unit.runs.test_rewind import cfg, made, opened, step, who  # noqa: F401 (a fixture)


@pytest.fixture
def run(cfg: TrainConfig, tmp_path: Path) -> Path:  # noqa: F811
    (tmp_path / "run").mkdir()
    (tmp_path / "disk" / "weights").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints").symlink_to(tmp_path / "disk" / "weights")
    return made(cfg, tmp_path / "run")


def test_it_is_resumed(cfg: TrainConfig, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    assert opened(cfg, run, "auto").resume_from == step(run, 4)
    assert opened(cfg, run, run).resume_from == step(run, 4)
    monkeypatch.chdir(run)
    assert opened(cfg, Path("../run"), "auto").done == 4
    assert opened(cfg, run, "checkpoints/step-000004").done == 4
    assert "began" not in read_run_file(run), "it is this run that has gone on"


def test_it_is_rewound(cfg: TrainConfig, run: Path) -> None:  # noqa: F811
    made(cfg, run, step(run, 2), of="second")
    assert who(run)["checkpoints"] == ["1 first", "2 first", "3 second", "4 second"]
    branch = run / "abandoned" / "1-after-update-000002"
    assert who(branch)["checkpoints"] == ["3 first", "4 first"]
    elsewhere = {path.resolve().parents[1].name for path in all_checkpoints(branch)}
    assert elsewhere == {"weights"}, "they have not moved to another disk"
    assert opened(cfg, branch, "auto").done == 4


def test_it_goes_on_in_another_folder(cfg: TrainConfig, run: Path, tmp_path: Path) -> None:  # noqa: F811
    opened(cfg, tmp_path / "other", step(run, 2))
    assert read_run_file(tmp_path / "other")["began"] == {"run": str(run), "update": 2}


def test_the_run_of_a_path(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_run_folder(step(run, 2)) == run
    monkeypatch.chdir(run / "checkpoints")
    assert find_run_folder(run / "checkpoints" / "step-000002") == run
    monkeypatch.chdir(tmp_path)
    assert find_run_folder(Path("run/checkpoints/step-000002")).samefile(run)
    (tmp_path / "link").symlink_to(step(run, 2))
    (tmp_path / "whole").symlink_to(run)
    assert find_run_folder(Path("whole/checkpoints/step-000002")).samefile(run)
    with pytest.raises(ConfigError, match="Not a run"):
        find_run_folder(Path("link"))
    with pytest.raises(ConfigError, match="Not a run"):  # nor what is written before the dots
        find_run_folder(run / "..")
    (tmp_path / "another").mkdir()
    (tmp_path / "another" / "config.yaml").touch()
    (tmp_path / "another" / "from").symlink_to(tmp_path / "plain" / "checkpoints" / "step-000001")
    (tmp_path / "plain" / "checkpoints" / "step-000001").mkdir(parents=True)
    (tmp_path / "plain" / "config.yaml").touch()
    assert find_run_folder(tmp_path / "another" / "from") == tmp_path / "plain"  # what lies there is not its own
