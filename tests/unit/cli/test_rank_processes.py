"""The ranks of a run are watched by the command: how they end, die, hang, are stopped, and go on.

A rank here is a few lines of Python that play one: nothing is trained, and torch is not loaded.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from empg_cli.cli.interrupts import interruptible
from empg_cli.cli.ranks import processes
from empg_cli.cli.ranks.children import Pace
from empg_cli.cli.ranks.processes import RankDied, processes_of, resume_after, train_on_ranks
from empg_cli.config.problems import ConfigError
from empg_cli.config.schema import TrainConfig
from empg_cli.errors import JobFailed
from empg_cli.observe.stop import Stopped
from empg_cli.owner import FolderOwned, owning
from empg_cli.ranks import Ended
from empg_cli.runs.checkpoint import TrainState, write_checkpoint
from tests.support.tiny import tiny_config

FAST = Pace(poll_s=0.01, look_s=0.01, grace_s=0.3, stacks_s=0.05, sign_s=0.3)
RANK = """
import faulthandler, json, os, signal, sys, threading, time
job = json.loads(sys.stdin.buffer.raw.readline())
rank, folder, run_dir = int(os.environ["RANK"]), job["folder"], job["run_dir"]
attempt, count = int(os.path.basename(folder)), 0
def tell(name, told):
    with open(f"{folder}/{name}.{rank}", "w") as file:
        json.dump(told, file)
    os.replace(f"{folder}/{name}.{rank}", f"{folder}/{name}-{rank}.json")
def live(phase="update", silence_s=0.0, is_waiting=False):
    global count
    count += 1
    tell("rank", dict(phase=phase, silence_s=silence_s, is_waiting=is_waiting, count=count))
def end(kind, **told):
    tell("end", dict(kind=kind, **told))
    sys.exit(kind != "done")
def wait(phase="update", is_waiting=True, **life):
    while True:
        live(phase, is_waiting=is_waiting, **life)
        time.sleep(0.02)
"""


def playing(body: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", RANK + body]


@pytest.fixture(scope="module")
def alone() -> TrainConfig:
    return tiny_config()


def several(cfg: TrainConfig, **dist: object) -> TrainConfig:
    node = {"launch": "node", "processes": 2, "shard": None, "reshard": True, "restarts": 0, "timeout_s": 60.0, **dist}
    return TrainConfig.model_validate({**cfg.model_dump(), "dist": node})


def train(cfg: TrainConfig, run_dir: Path, body: str, **dist: object) -> float | None:
    return train_on_ranks(
        several(cfg, **dist), run_dir, 2, job_logging={}, command_line=["empg"], pace=FAST, command=playing(body)
    )


def test_the_end_of_the_first_rank_is_that_of_the_run(alone: TrainConfig, tmp_path: Path) -> None:
    body = """
if rank == 0:
    time.sleep(0.05)
    assert os.get_inheritable(job["listen_fd"])
    end("done", success_rate=0.5)
print("said by", rank, os.environ["WORLD_SIZE"], os.environ["OMP_NUM_THREADS"])
end("done")
"""
    assert train(alone, tmp_path / "run", body) == 0.5
    said = (tmp_path / "run" / "ranks" / "rank-1.log").read_text()
    assert said.splitlines()[1].startswith("said by 1 2 ")
    assert not (tmp_path / "run" / "ranks" / "rank-0.log").exists(), "it speaks for itself"


def test_a_rank_that_stays_is_ended_with_the_run(alone: TrainConfig, tmp_path: Path) -> None:
    body = f"""
if rank == 1:
    open({str(tmp_path / "pid")!r}, "w").write(str(os.getpid()))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    wait()
while not os.path.exists({str(tmp_path / "pid")!r}):
    time.sleep(0.01)
end("done")
"""
    assert train(alone, tmp_path / "run", body) is None
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize(
    ("end", "error", "text", "code"),
    [
        ("end('refused', text='out of memory', exit_code=2)", Ended, "out of memory", 2),
        ("end('refused', text='stopped by health', exit_code=3)", Ended, "stopped by health", 3),
        ("end('failed', text='KeyError: 1')", JobFailed, "KeyError: 1", None),
        ("end('stopped', text='empg go on', signum=15)", Stopped, "SIGTERM; to go on: empg go on", 143),
    ],
)
def test_what_the_first_rank_ends_with_is_raised_here(
    end: str, error: type[Exception], text: str, code: int | None, alone: TrainConfig, tmp_path: Path
) -> None:
    with pytest.raises(error, match=text) as caught:
        train(alone, tmp_path, f"if rank == 0: {end}\nwait()", restarts=3)
    assert getattr(caught.value, "exit_code", None) == code


def test_an_error_that_another_rank_alone_has_met_is_said(alone: TrainConfig, tmp_path: Path) -> None:
    body = "end('refused', text='no such file', exit_code=2) if rank else wait(silence_s=9)"
    with pytest.raises(Ended, match="no such file"):
        train(alone, tmp_path, body, restarts=3)


def test_a_rank_that_dies_takes_the_others_along_and_is_named(alone: TrainConfig, tmp_path: Path) -> None:
    body = "live('rollout'); time.sleep(0.1)\nif rank: os.kill(os.getpid(), signal.SIGKILL)\nwait()"
    with pytest.raises(RankDied) as caught:
        train(alone, tmp_path, body)
    said = str(caught.value)
    assert "rank 1 of 2 (phase rollout) was killed by SIGKILL: the machine may have run out of memory" in said
    assert "rank-1.log" in said
    assert "To go on" in said
    assert caught.value.exit_code == 1


def test_a_rank_that_ends_without_a_word_has_died(alone: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(RankDied, match=r"rank 0 of 2 \(phase starting\) ended with exit code 7") as caught:
        train(alone, tmp_path, "if rank == 0: os._exit(7)\nwait()")
    assert "train.log" in str(caught.value), "which the first rank writes"


def test_an_error_of_the_first_rank_is_the_death_of_another(alone: TrainConfig, tmp_path: Path) -> None:
    """A collective that loses its peer may raise anything."""
    body = "os.kill(os.getpid(), signal.SIGSEGV) if rank else (time.sleep(0.2), end('failed', text='RuntimeError'))"
    with pytest.raises(RankDied, match="was killed by SIGSEGV"):
        train(alone, tmp_path, body)


def test_an_error_of_another_rank_is_a_loss(alone: TrainConfig, tmp_path: Path) -> None:
    body = "end('failed', text='KeyError: 3') if rank else end('lost', text='closed by peer')"
    with pytest.raises(RankDied, match=r"rank 1 of 2 \(phase starting\) failed: KeyError: 3"):
        train(alone, tmp_path, body)


def test_it_goes_on_as_often_as_it_may(alone: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    body = """
if rank == 0 and attempt == 3:
    end("done", success_rate=job["config"]["resume"] == "auto")
live(is_waiting=True)
time.sleep(0.1)
os._exit(1) if rank else wait()
"""
    assert train(alone, tmp_path, body, restarts=2) == 1
    said = [record.getMessage() for record in caplog.records]
    assert [text.rpartition("(")[2] for text in said] == ["restart 1 of 2)", "restart 2 of 2)"]
    assert "going on from its beginning" in said[0]
    with pytest.raises(RankDied, match="2 restarts are used up"):
        train(alone, tmp_path / "again", "os._exit(1) if rank else wait()", restarts=2)


@pytest.mark.parametrize("is_alive", [True, False], ids=["and says so", "and holds the lock of Python"])
def test_a_rank_that_hangs_is_named_with_its_phase_and_shows_its_stacks(
    is_alive: bool, alone: TrainConfig, tmp_path: Path
) -> None:
    hangs = "wait(is_waiting=False, phase='update', silence_s=9)" if is_alive else "live('update'); time.sleep(60)"
    body = f"""
faulthandler.register(signal.SIGQUIT, sys.stderr)
def hangs_here():
    {hangs}
hangs_here() if rank else wait(silence_s=9)
"""
    with pytest.raises(RankDied, match=r"rank 1 of 2 \(phase update\) hangs: nothing was done for 0.4 s"):
        train(alone, tmp_path, body, timeout_s=0.4)
    assert "in hangs_here" in (tmp_path / "ranks" / "rank-1.log").read_text()


def test_a_frozen_rank_is_named_before_those_that_wait_unseen(alone: TrainConfig, tmp_path: Path) -> None:
    """Its last sign may be of a wait that is over; others may be stuck in a collective that nobody has marked."""
    body = "live(is_waiting=True), time.sleep(60)\nwait(is_waiting=False)"
    with pytest.raises(RankDied, match=r"^rank 1 of 2 \(phase update\) hangs"):
        train(alone, tmp_path, f"if rank: {body}", timeout_s=0.5)


def test_whoever_is_late_is_named_when_another_gives_up_first(alone: TrainConfig, tmp_path: Path) -> None:
    body = "time.sleep(0.1); end('lost', text='timeout') if rank else wait(is_waiting=False, phase='save')"
    with pytest.raises(RankDied, match=r"rank 0 of 2 \(phase save\) hangs"):
        train(alone, tmp_path, body)


def test_loading_may_take_as_long_as_it_likes(alone: TrainConfig, tmp_path: Path) -> None:
    body = "live('loading', silence_s=99); time.sleep(0.4); end('done')"
    train(alone, tmp_path, body, timeout_s=0.1)


def test_others_wait_for_a_warm_start_as_long_as_it_takes(alone: TrainConfig, tmp_path: Path) -> None:
    body = "live('warm start', silence_s=99, is_waiting=rank > 0); time.sleep(0.4); end('done')"
    train(alone, tmp_path, body, timeout_s=0.1)


@pytest.mark.parametrize(("waits", "named"), [("rank > 0", r"rank 0 of 2 \(phase loading\) hangs"),
                                              ("True", r"rank 0 .*, rank 1 .*\) hang: ")])  # fmt: skip
def test_whoever_keeps_others_waiting_hangs(waits: str, named: str, alone: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(RankDied, match=named):
        train(alone, tmp_path, f"wait('loading', silence_s=9, is_waiting={waits})", timeout_s=0.1)


ASK = """
if rank == 1: os.kill(os.getppid(), signal.SIGTERM)
"""
ASKED = """
def stop(signum, _):
    time.sleep(0.3 * (rank == 0))
    end("stopped", text="empg go on", signum=signum)
for signum in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(signum, stop)
"""


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_sent_on_and_the_save_waited_for(signum: int, alone: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(Stopped) as caught, interruptible("the same"):
        train(alone, tmp_path, f"{ASKED}if rank: os.kill(os.getppid(), {int(signum)})\nwait(is_waiting=False)")
    assert (caught.value.signum, caught.value.hint) == (signum, "empg go on")


def test_a_signal_waits_until_the_rank_can_hear_it(alone: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(Stopped, match="empg go on"), interruptible("the same"):
        train(alone, tmp_path, f"{ASK}time.sleep(0.3){ASKED}wait(is_waiting=False)")


def test_a_rank_that_dies_while_it_is_asked_to_stop_is_no_reason_to_go_on(
    alone: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Stopped), interruptible("the same"):
        train(alone, tmp_path, f"live(){ASK}wait()", restarts=3)  # knows no handler
    assert "what came after the last checkpoint is lost" in caplog.text


PARENT = """
import json, signal, sys
from pathlib import Path
from empg_cli.cli.ranks.job import RankJob
from empg_cli.cli.ranks.watch import Pace, attended
from empg_cli.signals import caught, held
run_dir = Path(sys.argv[1])
job = RankJob({}, str(run_dir), str(run_dir), 0, -1, {}, [], [])
with caught(), held():
    attended(job, 2, timeout_s=60, environment={}, pace=Pace(poll_s=0.01), command=json.loads(sys.argv[2]))
"""
UNTIL_THE_PARENT_IS_GONE = """
def left_alone():
    while os.read(0, 1):
        pass
    os._exit(1)
threading.Thread(target=left_alone, daemon=True).start()
signal.signal(signal.SIGINT, signal.SIG_IGN)
open(f"{run_dir}/pid-{rank}", "w").write(str(os.getpid()))
wait(is_waiting=False)
"""


@pytest.mark.parametrize("ends", [[signal.SIGKILL], [signal.SIGINT, signal.SIGINT]], ids=["killed", "Ctrl-C twice"])
def test_no_rank_outlives_the_command(ends: list[int], tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    command = json.dumps(playing(UNTIL_THE_PARENT_IS_GONE))
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path / "1"), command])
    pids = [tmp_path / "1" / f"pid-{rank}" for rank in range(2)]
    until(lambda: all(pid.exists() and pid.read_text() for pid in pids))
    for signum in ends:
        parent.send_signal(signum)
        time.sleep(0.1)
    assert parent.wait(5) == (-signal.SIGKILL if ends == [signal.SIGKILL] else 130)
    until(lambda: not any(lives(int(pid.read_text())) for pid in pids))


def until(holds) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_folder_is_the_commands(alone: TrainConfig, tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", f"import fcntl, time; f = open({str(tmp_path / '.owner')!r}, 'w')\n"
         "fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); time.sleep(60)"],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout is not None
    holder.stdout.readline()
    with pytest.raises(FolderOwned):
        train(alone, tmp_path, "end('done')")
    holder.kill()
    holder.wait()
    with owning(tmp_path, "training"):
        assert train(alone, tmp_path, "end('done')") is None, "launch has claimed it already"


def checkpoint(run_dir: Path, update: int) -> Path:
    found = write_checkpoint(run_dir, TrainState(update=update), lambda folder: None, keep=9)
    assert isinstance(found, Path)
    return found


def test_what_resume_means_after_a_death(tmp_path: Path) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    for folder in (run, other):
        folder.mkdir()
        (folder / "config.yaml").write_text("seed: 0\n")
    foreign = str(checkpoint(other, 3))
    nothing: set[tuple[str, int]] = set()
    assert resume_after(None, run, nothing) == "auto"
    assert resume_after("restart", run, nothing) == "restart"
    assert resume_after(foreign, run, nothing) == foreign
    (run / "metrics.jsonl").write_text('{"train/update": 4}\n')
    assert resume_after(foreign, run, nothing) == foreign
    assert not (run / "metrics.jsonl").exists(), "or another run's checkpoint would not be taken there"
    own = str(checkpoint(run, 4))
    assert resume_after(foreign, run, nothing) == "auto"
    began_with = processes._checkpoints(run)
    assert resume_after(own, run, began_with) == own, "nothing has come of it yet"
    checkpoint(run, 5)
    assert resume_after(own, run, began_with) == resume_after("restart", run, began_with) == "auto"


def test_how_many_processes_there_are(alone: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    anywhere = alone.model_copy(update={"trainer": alone.trainer.model_copy(update={"device": "auto"})})
    assert processes_of(alone) == 1
    assert processes_of(several(alone, processes=3)) == 3
    with pytest.raises(ConfigError, match=r"dist\.processes: must be given where a run has no GPU"):
        processes_of(several(alone, processes=None))
    monkeypatch.setattr(processes, "gpus_here", lambda: 0)
    with pytest.raises(ConfigError, match=r"dist\.processes: must be given: no GPU is here"):
        processes_of(several(anywhere, processes=None))
    monkeypatch.setattr(processes, "gpus_here", lambda: 4)
    assert processes_of(several(anywhere, processes=None)) == 4
    assert processes_of(several(alone, processes=8)) == 8, "on the CPU"
    with pytest.raises(ConfigError, match="must not exceed the GPUs of this machine, 4"):
        processes_of(several(anywhere, processes=5))
    with pytest.raises(ConfigError, match=r"dist\.shard: must divide the number of processes, 4"):
        processes_of(several(anywhere, processes=None, shard=3))
