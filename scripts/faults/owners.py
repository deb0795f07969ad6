"""Two processes, one folder; and a checkpoint that one reads while another would delete it."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from pathlib import Path

from empg_cli.runs.checkpoint import all_checkpoints
from empg_cli.runs.hold import Hold
from scripts.faults.case import Case, check, refused, succeeded
from scripts.faults.process import forked, start
from scripts.faults.runs import TINY, copied, digests, rows, straight

LONG = (*TINY, "run_dir=run", "trainer.updates=40", "trainer.eval_every=0", "trainer.keep_checkpoints=1")
ALL = ()


def cases(shared: Path, random_numbers: random.Random) -> Iterator[Case]:
    yield Case("a second run in the folder of a live one", lambda folder: second(folder, [*TINY, "run_dir=run"]))
    yield Case("a live run is resumed", lambda folder: second(folder, ["train", "--resume", "run"]))
    yield Case("a live run is begun anew", lambda folder: second(folder, ["train", "--resume", "run", "--restart"]))
    yield Case("twins start at one moment in one folder", twins)
    yield Case("two runs of one second", two_of_one_second)
    yield Case("two sweeps of one second", two_sweeps)
    yield Case("an owner that was killed", killed_owner)
    yield Case("a checkpoint is read while its run goes on", read_while_it_runs)
    yield Case("another run goes on from a checkpoint of a live one", lambda folder: from_a_live_one(folder))
    yield Case("a report of a live run", report_of_a_live_run)
    yield Case("two evaluations in one folder", lambda folder: two_evaluations(folder, straight(shared, 3)))
    yield Case("an evaluation in a run's folder", lambda folder: evaluation_in_a_run(folder, straight(shared, 3)))


def second(folder: Path, words: list[str]) -> None:
    """Refused at once, and not a byte of the live run's folder is another one, Hydra's files included."""
    with start([*LONG[:-3], "trainer.updates=6"], folder) as first:
        first.wait_until(folder / "run" / "metrics.jsonl")
        before = digests(folder / "run" / ".hydra", ALL)
        refused(forked(*words, folder=folder), "run is in use by process", str(first.pid), "training since")
        check(not first.is_over, "the live run was over before the second was refused")
        check(digests(folder / "run" / ".hydra", ALL) == before, "Hydra's files are those of the second run")
        succeeded(first.wait())
    check([row["update"] for row in rows(folder / "run")] == list(range(7)), "rows of another run")
    check("in use" not in (folder / "run" / "train.log").read_text(), "the second run wrote into the log of the first")


def twins(folder: Path) -> None:
    with (
        start([*TINY, "run_dir=run", "trainer.updates=3"], folder) as one,
        start([*TINY, "run_dir=run", "trainer.updates=3"], folder) as other,
    ):
        ends = sorted([one.wait(), other.wait()], key=lambda end: end.code)
    succeeded(ends[0])
    refused(ends[1], "run")
    check([row["update"] for row in rows(folder / "run")] == [0, 1, 2, 3], "rows of both runs")


def two_of_one_second(folder: Path) -> None:
    words = [*TINY, "trainer.updates=1", "run_dir=of/${now:%Y}"]
    with start(words, folder) as one, start(words, folder) as other:
        succeeded(one.wait())
        succeeded(other.wait())
    found = sorted(path for path in (folder / "of").iterdir())
    check(len(found) == 2, f"{len(found)} folders of two runs")
    for run in found:
        check([row["update"] for row in rows(run)] == [0, 1], f"rows of {run.name}")


def two_sweeps(folder: Path) -> None:
    words = [*TINY, "trainer.updates=0", "-m", "seed=0", "hydra.sweep.dir=of/${now:%Y}"]
    with start(words, folder) as one, start(words, folder) as other:
        succeeded(one.wait())
        succeeded(other.wait())
    check(len(list((folder / "of").iterdir())) == 2, "two sweeps share a folder")


def killed_owner(folder: Path) -> None:
    with start([*TINY, "run_dir=run", "trainer.updates=3"], folder) as first:
        first.wait_until("update 1/")
        first.send(signal.SIGKILL)
        first.wait()
    check((folder / "run" / ".owner").exists(), "the case shows nothing: the owner file went")
    succeeded(forked("train", "--resume", "run", folder=folder))
    check(not (folder / "run" / ".owner").exists(), "an owner file is left")


def read_while_it_runs(folder: Path) -> None:
    """This process is the reader."""
    with start(list(LONG), folder) as running:
        running.wait_until(folder / "run" / "checkpoints" / "step-000002")
        seen = all_checkpoints(folder / "run")[-1]
        with Hold(seen):
            files = digests(seen, ALL)
            running.wait_until(seen.with_name(f"step-{int(seen.name[-6:]) + 3:06d}"))
            check(digests(seen, ALL) == files, "a checkpoint went while it was read")
        running.send(signal.SIGTERM)
        check(running.wait().code == 128 + signal.SIGTERM, "the run did not stop")
    left = [path.name for path in (folder / "run" / "checkpoints").iterdir()]
    check(len(left) <= 2, f"what was read stays for ever: {left}")


def from_a_live_one(folder: Path) -> None:
    with start(list(LONG), folder) as running:
        running.wait_until(folder / "run" / "checkpoints" / "step-000001")
        words = ["resume=run", "run_dir=other", "trainer.eval_every=0", "trainer.keep_checkpoints=1"]
        with start([*TINY, *words, "trainer.updates=40"], folder) as other:
            other.wait_until("update ")
            other.send(signal.SIGTERM)
            check(other.wait().code == 128 + signal.SIGTERM, "the other run did not get going")
        check(not running.is_over, "the first run has ended")


def report_of_a_live_run(folder: Path) -> None:
    with start(list(LONG), folder) as running:
        running.wait_until("update 1/")
        succeeded(forked("report", "run", "--no-figures", folder=folder))
        succeeded(forked("show", "run", folder=folder))
        check(not running.is_over, "the run has ended")


def two_evaluations(folder: Path, run: Path) -> None:
    words = ["eval", f"run={copied(run, folder)}", "run_dir=played", "benchmark.eval_tasks=40"]
    with start(words, folder) as first:
        first.wait_until(folder / "played" / "eval.log")
        refused(forked(*words, folder=folder), "played is in use", "evaluating since")
        succeeded(first.wait())


def evaluation_in_a_run(folder: Path, run: Path) -> None:
    before = digests(copied(run, folder), ALL)
    refused(forked("eval", "run=run", "run_dir=run", folder=folder), "run is the folder of a run")
    check(digests(folder / "run", ALL) == before, "something in the run was changed")
