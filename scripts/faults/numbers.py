"""Memory that runs out, NaN and infinity, and a hang, planted in a training: said, counted, and survived."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

from scripts.faults.case import Case, check, refused, succeeded
from scripts.faults.plants import at_call, replaces
from scripts.faults.process import forked
from scripts.faults.signals import TINY

TRAIN = (
    *("train", *TINY, "run_dir=run", "algo.group_size=2", "trainer.tasks_per_update=2", "trainer.updates=4"),
    *("trainer.eval_every=0", "trainer.checkpoint_every=4", "trainer.minibatches=1", "trainer.lr_warmup=0"),
    *("trainer.tokens_per_microbatch=512", "trainer.health.preflight=off", "algo.loss.kl_coef=0.01"),
)
CPU = "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
FULL: dict[str, Callable[[], BaseException]] = {
    "the machine's memory, said by Python": MemoryError,
    "the machine's memory, said by torch": lambda: RuntimeError(CPU),
    "the device's memory": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
}
PHASES: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "loading": ("empg_cli.experiment:load_policy", 1, ("model.dtype=float32", "model.param_dtype=float32")),
    "rollout": ("empg_cli.rollout.torch_engine.reader:Reader.read", 40, ("rollout.max_concurrent=", "model.dtype=")),
    "logprob": ("empg_cli.learner.learner:score_batch", 2, ("trainer.tokens_per_microbatch=512", "trainer.oom=halve")),
    "update": ("empg_cli.learner.update:compute_loss", 2, ("trainer.tokens_per_microbatch=512",
                                                            "model.gradient_checkpointing=false", "model.dtype=")),
}  # fmt: skip


def cases(shared: Path, random_numbers: random.Random) -> Iterator[Case]:
    for phase, (where, number, knobs) in PHASES.items():
        for name, error in FULL.items():
            yield Case(f"{name} runs out in {phase}", partial(stops, where, number, error, phase, knobs))
    for name, error in FULL.items():
        yield Case(f"{name} runs out, trainer.oom=halve", partial(halves, shared, error))
    for value in ("nan", "inf"):
        yield Case(f"one {value} in the loss", partial(skipped, f"empg_cli.learner.update:compute_loss={value}"))
    yield Case("NaN in every update", gives_up)
    yield Case("weights of NaN", broken_weights)
    yield Case("a hang", hangs)


def raises(error: Callable[[], BaseException]) -> Callable[[], None]:
    def does() -> None:
        raise error()

    return does


def stops(
    where: str, number: int, error: Callable[[], BaseException], phase: str, knobs: tuple[str, ...], folder: Path
) -> None:
    finished = forked(*TRAIN, folder=folder, prepare=at_call(where, number, raises(error)))
    refused(finished, f"out of memory in phase {phase}", *knobs, "--resume run KEY=VALUE")
    succeeded(forked("train", "--resume", "run", "trainer.tokens_per_microbatch=256", folder=folder))
    updates = [row["update"] for row in rows(folder)]
    check(updates == [0, 1, 2, 3, 4], f"rows of updates {updates}")


def halves(shared: Path, error: Callable[[], BaseException], folder: Path) -> None:
    """In a backward pass, when a part of the gradient is there already."""
    plant = at_call("torch:Tensor.backward", 2, raises(error))
    finished = forked(*TRAIN, "trainer.oom=halve", folder=folder, prepare=plant)
    succeeded(finished)
    check("passes of" in finished.output, f"it is not said: {finished}")
    if not (shared / "run").exists():
        succeeded(forked(*TRAIN, folder=shared))
    for expected, row in zip(rows(shared), rows(folder), strict=True):
        for name in ("actor/grad_norm", "actor/pg_loss", "actor/kl_loss"):
            if name in expected:
                difference = abs(expected[name] - row[name])
                check(difference <= 1e-4 * max(1.0, abs(expected[name])), f"{name} at {row['update']}: {difference}")
    check("perf/tokens_per_microbatch" in rows(folder)[-1], "what is halved does not stay so")


def skipped(what: str, folder: Path) -> None:
    """The third update has it; the others train."""
    where, _, number = what.partition("=")
    finished = forked(*TRAIN, folder=folder, prepare=replaces(where, partial(spoiled, float(number)), calls={3}))
    succeeded(finished)
    found = [row.get("actor/skipped_steps", 0) for row in rows(folder)]
    check(sum(found) == 1, f"skipped steps {found} in {finished}")
    check(rows(folder)[-1]["health/bad_updates"] == 1, "not counted")
    check("nonfinite_gradient" in finished.output, f"not said: {finished}")


def spoiled(number: float, terms: object) -> object:
    from dataclasses import replace

    return replace(terms, loss=terms.loss * number)  # type: ignore[attr-defined, type-var]


def gives_up(folder: Path) -> None:
    plant = replaces("empg_cli.learner.update:compute_loss", partial(spoiled, float("nan")))
    finished = forked(*TRAIN, "trainer.health.max_bad_updates=2", folder=folder, prepare=plant)
    check(finished.code == 3, f"exit code {finished.code} from {finished}")
    kept = sorted(path.name for path in (folder / "run" / "bad-batch").iterdir())
    check(kept == ["update-000002.json", "update-000002.safetensors"], f"the batch: {kept}")
    check((folder / "run" / "checkpoints" / "step-000002").is_dir(), f"no checkpoint: {finished}")
    succeeded(forked("train", "--resume", "run", folder=folder))


def broken_weights(folder: Path) -> None:
    """From the second update on every number that the model gives is NaN."""

    def plant() -> None:
        from empg_cli.rollout.source import Source

        played = Source.next
        calls = 0

        def spoil(self: Source, state: object) -> object:
            nonlocal calls
            calls += 1
            if calls == 2:
                with torch.no_grad():
                    for parameter in self._engine._reader._policy.parameters():  # type: ignore[attr-defined]
                        parameter.fill_(float("nan"))
            return played(self, state)  # type: ignore[arg-type]

        Source.next = spoil  # type: ignore[method-assign, assignment]

    finished = forked(*TRAIN, "trainer.health.max_bad_updates=2", folder=folder, prepare=plant)
    check(finished.code == 3, f"exit code {finished.code} from {finished}")
    said = json.loads((folder / "run" / "bad-batch" / "update-000003.json").read_text())
    check(said["not_finite"].get("entropy_ST", 0) > 0, f"what was not finite: {said['not_finite']}")


def hangs(folder: Path) -> None:
    plant = at_call("empg_cli.rollout.episode:settle", 20, lambda: time.sleep(3))
    finished = forked(*TRAIN, "trainer.watchdog=1", folder=folder, prepare=plant)
    succeeded(finished)
    check("in phase rollout" in finished.output, f"not said: {finished}")
    stacks = (folder / "run" / "hang.txt").read_text()
    check("in planted" in stacks and "in settle" not in finished.output, f"the stacks: {stacks}")


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
