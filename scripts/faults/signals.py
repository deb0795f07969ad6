"""Every signal that asks to end, in every phase: obeyed soon, with its exit code, and the run goes on bit for bit."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from scripts.faults.case import Case, check, differences, succeeded
from scripts.faults.plants import at_call, sends
from scripts.faults.process import Finished, Running, forked, start

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
STEPS, TASKS, GROUP, EVALUATED = 3, 2, 2, 2
TINY = (
    *("logger.console=plain", "model=tiny-scratch", "model.arch.hidden_size=32", "model.arch.num_layers=2"),
    *("model.arch.num_heads=4", "model.arch.num_kv_heads=2", "model.arch.mlp_size=48", "trainer.device=cpu"),
    *("benchmark.train_games=8", f"benchmark.max_steps={STEPS}", f"benchmark.eval_tasks={EVALUATED}"),
    *("rollout.max_new_tokens=5", "trainer.threads=1"),
)
TRAIN = (
    *("train", *TINY, "run_dir=run", f"algo.group_size={GROUP}", f"trainer.tasks_per_update={TASKS}"),
    *("trainer.updates=3", "trainer.eval_every=2", "trainer.checkpoint_every=3", "trainer.minibatches=2"),
    *("trainer.tokens_per_microbatch=128", "trainer.warm_start.steps=2", "trainer.warm_start.batch_size=2"),
    *("trainer.warm_start.keep_failed=true",),
    *("trainer.health.preflight=off", "trainer.lr_warmup=0", "algo.loss.kl_coef=0.01"),
)
FIRST_EVALUATION = EVALUATED * STEPS
"""Turns, since a model of random weights solves nothing."""
UPDATE = TASKS * GROUP * STEPS

TRAINING: dict[str, tuple[str, int]] = {
    "loading the data": ("empg_cli.experiment:make_benchmark", 1),
    "loading the model": ("empg_cli.experiment:load_policy", 1),
    "the check of the model": ("empg_cli.model.policy:Policy.score", 1),
    "the warm start": ("empg_cli.learner.imitation:weighted_nll", 2),
    "the save of the warm start": ("empg_cli.model.policy:Policy.save", 1),
    "the first evaluation": ("empg_cli.rollout.episode:settle", 2),
    "the first rollout": ("empg_cli.rollout.episode:settle", FIRST_EVALUATION + 5),
    "scoring": ("empg_cli.learner.learner:score_batch", 2),
    "the gradient": ("empg_cli.learner.update:compute_loss", 2),
    "an optimiser step": ("empg_cli.learner.update:was_finite", 3),
    "a later evaluation": ("empg_cli.rollout.episode:settle", FIRST_EVALUATION + 2 * UPDATE + 2),
    "a save": ("torch:save", 1),
    "the summary": ("empg_cli.observe.observer:print_run_summary", 1),
}
"""Phase -> the call during which the signal comes."""
EVALUATING: dict[str, tuple[str, int]] = {
    "loading": ("empg_cli.evaluation.run_eval:load_folder", 1),
    "playing": ("empg_cli.rollout.episode:settle", 2),
    "writing": ("empg_cli.evaluation.run_eval:write_in_folder", 1),
    "printing": ("empg_cli.observe.summary:print_evaluation", 1),
}
OTHERS: dict[str, tuple[tuple[str, ...], tuple[str, int]]] = {
    "report": (("report", "{run}", "--no-figures", "-o", "report"), ("empg_cli.reports.page.page:write_page", 1)),
    "show": (("show", "{run}"), ("empg_cli.reports.show:_console", 1)),
    "diagnose": (("diagnose", "{run}", "--episodes", "2", "--gradients", "2", "-o", "found"),
                 ("empg_cli.rollout.episode:settle", 2)),
}  # fmt: skip


def cases(shared: Path, random_numbers: random.Random) -> Iterator[Case]:
    for phase, (where, number) in TRAINING.items():
        goes_on = random_numbers.choice(SIGNALS)
        for signum in SIGNALS:
            case = partial(stops, shared, signum, where, number, goes_on=signum == goes_on)
            yield Case(f"{signum.name} during {phase} of a training", case)
    for phase in ("the gradient", "an optimiser step", "a save", "a later evaluation"):
        yield Case(f"two Ctrl-C during {phase}", partial(stops_at_once, shared, *TRAINING[phase]))
    for phase, (where, number) in EVALUATING.items():
        for signum in SIGNALS:
            yield Case(
                f"{signum.name} during {phase} of an evaluation", partial(evaluation, shared, signum, where, number)
            )
    for name, (words, (where, number)) in OTHERS.items():
        for signum in (signal.SIGINT, signal.SIGTERM):
            yield Case(f"{signum.name} during {name}", partial(other, shared, signum, words, where, number))
    for number in range(8):
        signum = SIGNALS[number % len(SIGNALS)]
        delay = random_numbers.uniform(0, 1.5)
        yield Case(f"{signum.name} {delay:.2f} s after the start", partial(early, signum, delay))


def straight(shared: Path) -> Path:
    """The run that nothing interrupts."""
    if not (shared / "run" / "summary.json").exists():
        succeeded(forked(*TRAIN, folder=shared, env=cache(shared / "run")))
    return shared / "run"


def cache(run: Path) -> dict[str, str]:
    """Of warm starts: each run makes its own."""
    return {"XDG_CACHE_HOME": str(run.with_name("cache"))}


def stops(shared: Path, signum: signal.Signals, where: str, number: int, folder: Path, *, goes_on: bool) -> None:
    expected = outcome(straight(shared))
    finished = forked(*TRAIN, folder=folder, env=cache(folder / "run"), prepare=at_call(where, number, sends(signum)))
    was_stopped(finished, signum)
    nothing_left(folder)
    if goes_on:
        the_same_in_the_end(finished, folder, expected)


def stops_at_once(shared: Path, where: str, number: int, folder: Path) -> None:
    expected = outcome(straight(shared))
    interrupt = sends(signal.SIGINT)
    twice = at_call(where, number, lambda: (interrupt(), interrupt()))
    finished = forked(*TRAIN, folder=folder, env=cache(folder / "run"), prepare=twice)
    check(finished.code == 130, f"exit code {finished.code} from {finished}")
    check("updates " not in finished.output, f"it went on to its summary: {finished}")
    succeeded(again := forked("train", "--resume", "run", folder=folder, env=cache(folder / "run")))
    nothing_left(folder)
    check(not (found := differences(expected, outcome(folder / "run"))), f"{found} after {again}")


def was_stopped(finished: Finished, signum: signal.Signals) -> None:
    check(finished.code == 128 + signum, f"exit code {finished.code} from {finished}")


def nothing_left(folder: Path) -> None:
    left = [str(path.relative_to(folder)) for path in folder.rglob("*") if "tmp" in path.name or path.name == ".owner"]
    check(not left, f"left behind: {left}")


def the_same_in_the_end(finished: Finished, folder: Path, expected: list[Any]) -> None:
    """Go on as the command said."""
    check("To go on:" in finished.output, f"it does not say how to go on: {finished}")
    words = ("train", "--resume", "run") if "--resume run" in finished.output else TRAIN
    again = forked(*words, folder=folder, env=cache(folder / "run"))
    succeeded(again)
    check(not (found := differences(expected, outcome(folder / "run"))), f"{found} after {again}")
    nothing_left(folder)


def outcome(run: Path) -> list[Any]:
    """All that a run promises to be the same bit for bit."""
    from empg_cli.runs.rows import without_wall_clock

    rows = [without_wall_clock(json.loads(line)) for line in (run / "metrics.jsonl").read_text().splitlines()]
    histograms = (run / "histograms.jsonl").read_text().splitlines()
    evaluations = [(path.name, path.read_text()) for path in sorted((run / "evaluations").iterdir())]
    weights = (run / "checkpoints" / "step-000003" / "model" / "model.safetensors").read_bytes()
    optimizer = (run / "checkpoints" / "step-000003" / "state.json").read_text()
    return [*rows, *histograms, *evaluations, weights, optimizer]


def evaluation(shared: Path, signum: signal.Signals, where: str, number: int, folder: Path) -> None:
    words = ("eval", f"run={straight(shared)}", "logger.console=plain", "run_dir=found")
    finished = forked(*words, folder=folder, prepare=at_call(where, number, sends(signum)))
    was_stopped(finished, signum)
    nothing_left(folder)


def other(shared: Path, signum: signal.Signals, words: tuple[str, ...], where: str, number: int, folder: Path) -> None:
    run = str(straight(shared))
    finished = forked(
        *(word.format(run=run) for word in words), folder=folder, prepare=at_call(where, number, sends(signum))
    )
    was_stopped(finished, signum)
    nothing_left(folder)


def early(signum: signal.Signals, delay: float, folder: Path) -> None:
    """In a new interpreter, from the moment on where it catches signals."""
    with start(TRAIN, folder, cache(folder / "run"), anew=True) as running:
        wait_for(lambda: catches(running, signal.SIGUSR2), running)
        time.sleep(delay)
        running.send(signum)
        was_stopped(running.wait(), signum)
    nothing_left(folder)


def wait_for(holds: Callable[[], bool], running: Running) -> None:
    while not (running.is_over or holds()):
        time.sleep(0.002)


def catches(running: Running, signum: signal.Signals) -> bool:
    status = Path(f"/proc/{running.pid}/status").read_text()
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (signum - 1) & 1) and os.getpid() != running.pid
