"""Which rank a process is, by what srun and torchrun tell it; and what is refused before anything is made."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from empg_cli.cli.commands.train import run
from empg_cli.cli.flags import HydraFlags
from empg_cli.cli.ranks.cluster import FIRST_PORT, Place, is_not_first, place_of, slurm_hosts
from empg_cli.cli.ranks.cluster_ranks import ClusterJob, _said, _sees, _tell
from empg_cli.config import load
from empg_cli.config.problems import ConfigError
from empg_cli.errors import UserError
from empg_cli.invocation import CALLED_IN
from empg_cli.ranks import Ended, RankLost
from empg_cli.signals import Interrupted

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "one", "MASTER_PORT": "29500"}
SLURM = {
    "SLURM_PROCID": "5",
    "SLURM_NTASKS": "8",
    "SLURM_LOCALID": "1",
    "SLURM_JOB_NODELIST": "node[1-4]",
    "SLURM_JOB_ID": "120007",
}
FOUR = ["node1", "node2", "node3", "node4"]


def test_torchrun_says_all() -> None:
    assert place_of(TORCHRUN) == Place(5, 8, 1, "one", 29500)
    assert place_of({**TORCHRUN, "TORCHELASTIC_USE_AGENT_STORE": "True"}).agent_answers
    assert place_of({**SLURM, **TORCHRUN}) == place_of(TORCHRUN), "torchrun may run below srun"


def test_slurm_says_all_but_the_address_of_the_first() -> None:
    assert place_of(SLURM, lambda hosts: FOUR) == Place(5, 8, 1, "node1", FIRST_PORT + 7)
    assert place_of({**SLURM, "MASTER_ADDR": "one", "MASTER_PORT": "29500"}) == Place(5, 8, 1, "one", 29500)
    step = {"SLURM_STEP_NUM_TASKS": "6", "SLURM_STEP_NODELIST": "node[3-4]"}
    assert place_of({**SLURM, **step}, lambda hosts: [hosts]) == Place(5, 6, 1, "node[3-4]", FIRST_PORT + 7)
    assert not place_of({**SLURM, "TORCHELASTIC_USE_AGENT_STORE": "True"}, lambda hosts: FOUR).agent_answers


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({}, "neither RANK nor SLURM_PROCID is set here (got cluster); start it on every process with srun"),
        ({"RANK": "1"}, "needs WORLD_SIZE in the environment"),
        ({**TORCHRUN, "MASTER_ADDR": ""}, "needs MASTER_ADDR in the environment (got cluster); export MASTER_ADDR"),
        ({**TORCHRUN, "RANK": "-1"}, "needs a whole number from 0 on in RANK, which is -1"),
        ({**TORCHRUN, "RANK": "8"}, "this is rank 8 of 8"),
        ({"SLURM_PROCID": "0"}, "needs SLURM_NTASKS in the environment"),
        (SLURM, "scontrol names no host of SLURM_JOB_NODELIST=node[1-4]"),
        (
            {**SLURM, "SLURM_JOB_NODELIST": ""},
            "needs SLURM_JOB_NODELIST in the environment (got cluster); export MASTER",
        ),
    ],
)
def test_what_is_missing_is_said(environ: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        place_of(environ, lambda hosts: [])
    assert said in str(error.value)
    assert len(error.value.problems) == 1


def test_scontrol_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert slurm_hosts("node[1-2]") == []
    (tmp_path / "scontrol").write_text(
        '#!/bin/sh\n[ "$*" = "show hostnames node[1-2]" ] && printf "node1\\nnode2\\n"\n'
    )
    (tmp_path / "scontrol").chmod(0o755)
    assert slurm_hosts("node[1-2]") == ["node1", "node2"]


@pytest.mark.parametrize(
    ("environ", "is_one"),
    [({}, False), ({"RANK": "0"}, False), (TORCHRUN, True), (SLURM, True), ({"RANK": "x"}, False)],
)
def test_who_is_not_the_first(environ: dict[str, str], is_one: bool) -> None:
    assert is_not_first(environ) == is_one


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in [name for name in os.environ if name in TORCHRUN or name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_command_that_nobody_has_started_makes_no_folder(alone: Path) -> None:
    with pytest.raises(ConfigError, match="needs a process that srun or torchrun has started"):
        run(["dist=cluster"], HydraFlags())
    assert list(alone.glob("runs/*/*")) == []


def test_sweeps_are_refused(alone: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be cluster in a sweep"):
        run(["dist=cluster", "seed=0,1"], HydraFlags(multirun=True))
    assert list(alone.iterdir()) == []


def test_shards_are_equal(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"dist\.shard: must divide the number of processes, 8"):
        run(["dist=cluster", "dist.shard=3"], HydraFlags())


class Others:
    """Ranks of which this is the first; each other one answers as it is told to."""

    def __init__(self, *answers: str) -> None:
        self.answers = answers

    def of_first(self, job: Any) -> Any:
        assert _sees(job), "while they look, the sign is there"
        return job

    def of_all(self, value: str) -> list[str]:
        return [value, *self.answers]


def test_a_machine_that_does_not_see_the_folder_is_named(tmp_path: Path) -> None:
    cfg, others = load(["dist=cluster"]), Others("", "two (rank 2)")
    with pytest.raises(UserError, match=r"is not there, or another folder, on two \(rank 2\): every machine must see"):
        _tell(cfg, tmp_path, others)  # type: ignore[arg-type]
    _tell(cfg, tmp_path, Others("", ""))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_another_disk_is_not_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("empg_cli.cli.ranks.cluster_ranks.SEEN_WITHIN_S", 0.1)
    assert not _sees(ClusterJob({}, tmp_path, ".seen-abc"))


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (Interrupted(10), 138, None),
        (UserError("no such file"), 2, "rank 1: no such file"),
        (Ended("stopped by trainer.health", 3), 3, None),
        (RankLost("another rank is gone"), 1, "rank 1: another rank is gone"),
        (ValueError("a bug"), 1, "rank 1: train failed"),
    ],
)
def test_how_a_rank_that_is_not_the_first_ends(
    error: BaseException, code: int, said: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert _said(error, load(["dist=cluster"]), Path("run"), Place(1, 2, 1, "one", 1)) == code
    assert [record.getMessage() for record in caplog.records] == ([said] if said else [])
    assert all(bool(record.exc_info) == isinstance(error, ValueError) for record in caplog.records)


def test_a_rank_whose_memory_ends_says_it_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The first notices no more than that it is gone. The folder is the first's, whatever the own command line says."""
    monkeypatch.delenv(CALLED_IN, raising=False)
    cfg, run_dir = load(["dist=cluster", "run_dir=elsewhere"]), tmp_path / "run"
    assert _said(MemoryError("no room"), cfg, run_dir, Place(1, 2, 1, "one", 1)) == 2
    (record,) = caplog.records
    assert record.levelname == "ERROR" and not record.exc_info
    first, *_, last = record.getMessage().splitlines()
    assert first.startswith(f"rank 1: out of memory on rank 1 ({socket.gethostname()}) in phase ")
    assert last.endswith(f"train --resume {run_dir} KEY=VALUE")


@pytest.fixture
def second(alone: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This process is the second of two, and the first does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    places = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for name, value in places.items():
        monkeypatch.setenv(name, value)
    return alone


def test_a_rank_gives_up_on_a_first_that_does_not_come(second: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SystemExit) as end:
        run(["dist=cluster", "dist.timeout_s=0.5", "trainer.device=cpu"], HydraFlags())
    assert end.value.code == 1
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert line.startswith("rank 1: the ranks have not found each other: nobody answers at 127.0.0.1:")
    assert list(second.iterdir()) == [], "it makes no folder"
