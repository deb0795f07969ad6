"""Sweeps, passes and builds, killed: no worker lives on, what was done stays, the same command goes on."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from scripts.faults.case import Case, check, succeeded
from scripts.faults.process import Finished, Running, forked, start

UPDATES = 12
TINY = (
    *("experiment=smoke", "model=tiny-scratch", "logger.console=plain"),
    "model.arch={hidden_size:32,num_layers:1,num_heads:2,num_kv_heads:1,mlp_size:32}",
)
TRAIN = ("train", "-m", "seed=0,1", *TINY, f"trainer.updates={UPDATES}", "trainer.eval_before=false")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL)
LAUNCHERS = {
    "joblib": ("hydra_joblib_launcher", ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")),
    "submitit": ("hydra_submitit_launcher", ("hydra/launcher=submitit_local",)),
}
ENDS_WITHIN_S = 20
"""Of a parent that is gone: a worker looks twice a second, finishes an update and saves; two cores have much to do."""


def cases(shared: Path, random_numbers: random.Random) -> Iterator[Case]:
    for name, (plugin, words) in LAUNCHERS.items():
        if importlib.util.find_spec(f"hydra_plugins.{plugin}") is None:
            print(f"sweeps: the extra {name} is not installed: its cases are not injected", flush=True)
            continue
        for signum in SIGNALS if name == "joblib" else (signal.SIGTERM, signal.SIGKILL):
            rows = random_numbers.randint(2, 4)
            yield Case(f"the parent of {name}: {signum.name}", partial(parent_killed, words, signum, rows))
        if name == "submitit":
            yield Case("a time-out of submitit", partial(timed_out, words))
        else:
            yield Case("a worker of joblib killed", partial(worker_killed, words))
    for signum in SIGNALS:
        yield Case(f"a serial sweep: {signum.name}", partial(serial_sweep, signum))
    for signum in (signal.SIGTERM, signal.SIGKILL):
        yield Case(f"an evaluation of six passes: {signum.name}", partial(passes, shared, signum))
    for signum in SIGNALS:
        delay = random_numbers.uniform(0, 0.5)
        yield Case(f"data compile: {signum.name}", partial(data_built, compile_words, signum, delay))
        yield Case(f"data index: {signum.name}", partial(data_built, index_words, signum, delay))
    if importlib.util.find_spec("hydra_plugins.hydra_optuna_sweeper") is None:
        print("sweeps: the extra optuna is not installed: its cases are not injected", flush=True)
    else:
        for signum in (signal.SIGTERM, signal.SIGKILL):
            yield Case(f"an Optuna study: {signum.name}", partial(optuna_study, signum))


def parent_killed(launcher: tuple[str, ...], signum: int, rows: int, folder: Path) -> None:
    words = (*TRAIN, *launcher, "run_dir=sweep")
    with start(words, folder) as running:
        for seed in (0, 1):
            check(wait_for_rows(running, folder / "sweep" / f"{seed}-seed={seed}", rows), "the jobs did not begin")
        running.send(signum)
        ended = running.wait(60)
        said_how_to_go_on(ended, signum)
        nobody_lives(running.pid)
    for seed in (0, 1):
        saved = list((folder / "sweep" / f"{seed}-seed={seed}" / "checkpoints").glob("step-*"))
        check(bool(saved), f"no checkpoint of seed {seed}")
    if signum == signal.SIGTERM and "joblib" in launcher[0]:
        succeeded(forked(*again(ended), folder=folder))
        complete(folder / "sweep")
    elif signum in (signal.SIGTERM, signal.SIGKILL):  # one after the other: without seconds of imports in each worker
        succeeded(forked(*TRAIN, "run_dir=sweep", folder=folder))
        complete(folder / "sweep")


def worker_killed(launcher: tuple[str, ...], folder: Path) -> None:
    words = (*TRAIN, *launcher, "run_dir=sweep")
    with start(words, folder) as running:
        check(wait_for_rows(running, folder / "sweep" / "0-seed=0", 2), "the jobs did not begin")
        for pid, command in processes(running.pid):
            if "popen_loky" in command:
                os.kill(pid, signal.SIGKILL)
                break
        ended = running.wait(60)
        check(ended.code == 1, f"exit code {ended.code}, not 1, from {ended}")
        check("run_dir=sweep" in ended.output.splitlines()[-1] + ended.output, f"not how to go on: {ended}")
        nobody_lives(running.pid)


def timed_out(launcher: tuple[str, ...], folder: Path) -> None:
    """What submitit does shortly before its time limit: USR2 to the job, which is queued again and goes on."""
    with start((*TRAIN, *launcher, "hydra.launcher.timeout_min=60", "run_dir=sweep"), folder) as running:
        check(wait_for_rows(running, folder / "sweep" / "0-seed=0", 2), "the jobs did not begin")
        jobs = [pid for pid, command in processes(running.pid) if "submitit.core._submit" in command]
        check(len(jobs) == 2, f"{len(jobs)} jobs of two seeds")
        for pid in jobs:
            os.kill(pid, signal.SIGUSR2)
        succeeded(running.wait())
        nobody_lives(running.pid)
    complete(folder / "sweep")
    logs = [path.read_text() for path in (folder / "sweep" / ".submitit").rglob("*_log.out")]
    logs += [path.read_text() for path in (folder / "sweep" / ".submitit").rglob("*_log.err")]
    check(sum("Requeued job" in text for text in logs) >= 1, "no job was queued again")


def serial_sweep(signum: int, folder: Path) -> None:
    """In the second of three jobs, in a folder that is named by the time."""
    with start(("train", "-m", "seed=0,1,2", *TINY, "trainer.updates=4"), folder) as running:
        check(running.wait_until("seed 1 ->", 300), "the second job did not begin")
        time.sleep(0.3)
        running.send(signum)
        ended = running.wait(60)
        said_how_to_go_on(ended, signum)
    (sweep,) = (folder / "multirun").iterdir()
    words = again(ended) or ("train", "-m", "seed=0,1,2", *TINY, "trainer.updates=4", f"run_dir={sweep}")
    finished = forked(*words, folder=folder)
    succeeded(finished)
    check(finished.output.count("done already") == 1, f"what was done was run again: {finished}")
    complete(sweep, seeds=3, updates=4)


def passes(shared: Path, signum: int, folder: Path) -> None:
    words = ("eval", *EVAL, "seeds=6", "rollout.eval_temperature=1.0")
    if not (shared / "straight").exists():
        succeeded(forked(*words, "run_dir=straight", folder=shared))
    with start((*words, "run_dir=cut"), folder) as running:
        check(running.wait_until(folder / "cut" / "passes" / "temperature-1-seed-1.json", 300), "no pass was played")
        running.send(signum)
        ended = running.wait(60)
        said_how_to_go_on(ended, signum)
    kept = {path: path.stat().st_mtime_ns for path in (folder / "cut" / "passes").glob("*.json")}
    check(2 <= len(kept) < 6, f"{len(kept)} passes were kept")
    finished = forked(*(again(ended) or (*words, "run_dir=cut")), folder=folder)
    succeeded(finished)
    check(all(path.stat().st_mtime_ns == time for path, time in kept.items()), "a pass was played again")
    left, right = (json.loads((path / "evaluation.json").read_text()) for path in (shared / "straight", folder / "cut"))
    check(left["temperatures"] == right["temperatures"], "not the result of a straight evaluation")


EVAL = (
    *("model=tiny", "benchmark.eval_tasks=12", "benchmark.split=valid_seen", "trainer.threads=1"),
    "logger.console=plain",
)


def compile_words(folder: Path) -> tuple[str, ...]:
    return ("data", "compile", "webshop", "--generate", "4000", "--out", "out")


def index_words(folder: Path) -> tuple[str, ...]:
    corpus = folder / "corpus.jsonl"
    if not corpus.exists():
        rows = ({"id": str(row), "contents": f'"Title {row}"\nThe text of passage {row}.'} for row in range(60_000))
        corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ("data", "index", "deepsearch", "--corpus", "corpus.jsonl", "--out", "out")


def data_built(words_in: Callable[[Path], tuple[str, ...]], signum: int, delay: float, folder: Path) -> None:
    words = words_in(folder)
    with start(words, folder) as running:
        end = time.monotonic() + 60
        while not list(folder.glob(".out.partial-*")) and time.monotonic() < end:
            time.sleep(0.005)
        time.sleep(delay)
        check(not (folder / "out").exists(), "built before the signal")
        running.send(signum)
        ended = running.wait(60)
        said_how_to_go_on(ended, signum)
    left = [path.name for path in folder.glob("*out*") if not path.name.startswith(".output")]
    left += [path.name for path in folder.glob(".out.partial-*")]
    check(not left or signum == signal.SIGKILL, f"left behind: {left}")
    succeeded(forked(*(again(ended) or words), folder=folder))
    left = [path.name for path in folder.glob(".out.partial-*")]
    check((folder / "out").is_dir() and not left, f"left behind: {left}")


def optuna_study(signum: int, folder: Path) -> None:
    options = ("hydra/sweeper=optuna", "hydra.sweeper.storage=sqlite:///study.db", "hydra.sweeper.study_name=s")
    numbers = ("hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=1", "hydra.sweeper.direction=maximize")
    space = ("trainer.updates=4", "trainer.lr=interval(0.0001,0.001)")
    words = ("train", "-m", *TINY, *space, *options, *numbers, "run_dir=sweep")
    with start(words, folder) as running:
        check(running.wait_until("#1 :", 300), "the second trial did not begin")
        time.sleep(1)
        running.send(signum)
        ended = running.wait(60)
        said_how_to_go_on(ended, signum)
    succeeded(forked(*(again(ended) or words), folder=folder))
    import sqlite3

    with sqlite3.connect(folder / "study.db") as database:
        states = [row[0] for row in database.execute("select state from trials")]
    check(states.count("COMPLETE") == 4 and "RUNNING" not in states, f"trials: {states}")


def wait_for_rows(running: Running, run: Path, rows: int) -> bool:
    end = time.monotonic() + 600
    metrics = run / "metrics.jsonl"
    while time.monotonic() < end and not running.is_over:
        if metrics.exists() and metrics.read_text().count("\n") >= rows:
            return True
        time.sleep(0.02)
    return False


def said_how_to_go_on(ended: Finished, signum: int) -> None:
    check(ended.code == 128 + signum, f"exit code {ended.code}, not {128 + signum}, from {ended}")
    if signum != signal.SIGKILL:
        check(bool(again(ended)), f"not how to go on: {ended}")


def again(ended: Finished) -> tuple[str, ...]:
    """The command that was said to go on, without the program."""
    said = re.findall(r"^To go on:  (.+)$", ended.output, re.MULTILINE)
    if not said:
        return ()
    words = shlex.split(said[-1])
    first = next(number for number, word in enumerate(words) if word in ("train", "eval", "data"))
    return tuple(words[first:])


def complete(sweep: Path, *, seeds: int = 2, updates: int = UPDATES) -> None:
    for seed in range(seeds):
        rows = (sweep / f"{seed}-seed={seed}" / "metrics.jsonl").read_text().splitlines()
        done = [int(json.loads(row)["train/update"]) for row in rows]
        check(done == list(range(done[0], updates + 1)) and done[0] < 2, f"rows of seed {seed}: {done}")


def nobody_lives(group: int) -> None:
    """No process of the command's group is at work after a while."""
    end = time.monotonic() + ENDS_WITHIN_S
    while (living := processes(group)) and time.monotonic() < end:
        time.sleep(0.2)
    check(not living, f"{len(living)} processes live on: {living}")


def processes(group: int) -> list[tuple[int, str]]:
    """(pid, command line) of what the command has started; the dead that nobody has reaped do not count."""
    listed = subprocess.run(["ps", "-Ao", "pid=,pgid=,stat=,args="], capture_output=True, text=True, check=True).stdout
    found = []
    for line in listed.splitlines():
        pid, pgid, state, *command = line.split(maxsplit=3)
        if int(pgid) == group and int(pid) != group and not state.startswith("Z"):
            found.append((int(pid), command[0] if command else ""))
    return found
