"""The scripts for Slurm are shell that parses, and the commands in them compose."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from empg_cli.config import load

SCRIPTS = sorted((Path(__file__).parents[3] / "scripts" / "slurm").glob("*.sbatch"))


def command_of(script: Path) -> list[str]:
    (found,) = re.findall(r"^ +empg train (.+)$", script.read_text(), re.MULTILINE)
    return [word.replace("$run_dir", "runs/mine") for word in shlex.split(found)]


def test_there_are_two() -> None:
    assert [script.name for script in SCRIPTS] == ["nodes.sbatch", "one_node.sbatch"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_it_parses_and_its_command_composes(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    words = command_of(script)
    assert words[-1] == "$@"
    (example,) = re.findall(r"^#   sbatch .*\.sbatch \S+ (.+)$", script.read_text(), re.MULTILINE)
    for more in ("", example):
        cfg = load([*words[:-1], *shlex.split(more)])
        assert (cfg.dist.launch, cfg.run_dir) == ("cluster" if script.stem == "nodes" else "node", "runs/mine")


@pytest.mark.parametrize(("code", "is_queued_again"), [(0, False), (1, False), (138, True)])
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_run_that_saved_before_the_limit_is_queued_again(
    script: Path, code: int, is_queued_again: bool, tmp_path: Path
) -> None:
    for name, body in (
        ("srun", f'echo "$@" > {tmp_path}/srun.txt; exit {code}'),
        ("scontrol", f'echo "$@" > {tmp_path}/asked'),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "7"}
    ended = subprocess.run(["bash", str(script), "runs/my run", "seed=1"], env=environ, check=False)
    assert ended.returncode == code
    assert (tmp_path / "srun.txt").read_text().endswith(" run_dir=runs/my run seed=1\n")
    assert (tmp_path / "asked").exists() == is_queued_again
