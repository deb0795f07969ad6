"""Studies killed at random moments, doubled, mixed and grown."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from empg_cli.runs.rows import read_rows, without_wall_clock
from scripts.faults.case import Case, check, differences, refused, succeeded
from scripts.faults.process import Finished, Running, forked, start

SMALL = (
    *("ablate", "ablation=dapo_empg", "ablation.metric=actor/entropy", "run_dir=study", "benchmark=webshop"),
    *("benchmark.num_products=40", "benchmark.eval_tasks=2", "benchmark.max_steps=2", "model=tiny"),
    *("algo.group_size=2", "algo.sampling.max_resamples=1", "trainer.updates=2", "trainer.tasks_per_update=2"),
    *("trainer.minibatches=1", "trainer.lr=0.01", "trainer.lr_warmup=0", "trainer.checkpoint_every=1"),
    *("logger.wandb.mode=disabled", "logger.console=quiet", "logger.trajectories=0"),
)
KILLS = 6
MORE = '+ablation.variants.double=["algo=dapo_kl","algo.loss.clip_high=0.4"]'


def cases(shared: Path, random_numbers: random.Random) -> Iterator[Case]:
    straight = Straight(shared)
    for number in range(KILLS):
        moments = sorted(random_numbers.random() for _ in range(1 + number % 3))
        yield Case(f"a study killed at {moments}", partial(killed, straight, moments))
    for signum in (signal.SIGTERM, signal.SIGINT):
        yield Case(f"a study stopped by {signum.name}", partial(stopped, straight, signum))
    yield Case("two commands, the same seeds", partial(doubled, straight, ("seeds=2", "seeds=2")))
    yield Case("two commands, a seed each", partial(doubled, straight, ("seeds=[0]", "seeds=[1]")))
    yield Case("three commands, seeds that overlap", partial(doubled, straight, ("seeds=[0]", "seeds=2", "seeds=[1]")))
    for moment in (random_numbers.random(), random_numbers.random()):
        yield Case(f"one of two commands killed at {moment:.2f}", partial(widowed, straight, moment))
    yield Case("a command with other settings beside a live one", redefined)
    yield Case("a cell that is played by hand", partial(by_hand, straight))
    for key, value in (("code", "0123456789ab"), ("versions", {"torch": "1.0.0"}), ("weights", "0123456789abcdef")):
        yield Case(f"a cell made by other {key}", partial(recorded, straight, key, value))
    yield Case("a cell of an empg that recorded no digest of its code", partial(recorded, straight, "code", None))
    yield Case("other data under the same path", other_data)
    yield Case("data that has moved", moved_data)
    yield Case("other weights under the same path", other_weights)
    yield Case("seeds, then another seed, then a variant", partial(grown, straight))
    yield Case("a variant redefined, a base and a metric exchanged", not_redefined)
    for cut in (0.0, random_numbers.random(), random_numbers.random()):
        yield Case(f"study.json cut at {cut:.2f}", partial(damaged, straight, cut))


class Straight:
    """The undisturbed study of two seeds, played once, when the first case asks for it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seconds = 0.0

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self._seconds if self.study else 0.0

    @property
    def study(self) -> Path:
        study = self._folder / "study"
        if not study.exists():
            began = time.monotonic()
            succeeded(ablate("seeds=2", folder=self._folder))
            self._seconds = time.monotonic() - began
        return study

    def equals(self, study: Path) -> None:
        check_whole(study)
        for folder in sorted(self.study.glob("*-s[01]")):
            here, there = (rows(one / folder.name) for one in (study, self.study))
            check(not (where := differences(there, here)), f"rows of {folder.name}: {where}")
        check(tables(study) == tables(self.study), "the tables are not those of the undisturbed study")


def ablate(*words: str, folder: Path) -> Finished:
    return forked(*SMALL, *words, folder=folder)


def rows(run: Path) -> list[tuple[int, dict[str, Any]]]:
    return [(update, without_wall_clock(row)) for update, row in read_rows(run / "metrics.jsonl").items()]


def tables(study: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((study / "ablation.json").read_text())
    return {"rows": content["rows"], "planned": content["runs_planned"], "mixtures": content["mixtures"]}


def check_whole(
    study: Path, seeds: tuple[int, ...] = (0, 1), variants: tuple[str, ...] = ("dapo", "dapo_empg")
) -> None:
    """Every cell is in the tables, was played once, and nothing temporary is left."""
    content = json.loads((study / "ablation.json").read_text())
    found = {row["variant"]: tuple(sorted(run["seed"] for run in row["runs"])) for row in content["rows"]}
    check(found == dict.fromkeys(variants, tuple(sorted(seeds))), f"the tables hold {found}")
    for run in study.glob("*-s*"):
        lines = [json.loads(line)["update"] for line in (run / "metrics.jsonl").read_text().splitlines()]
        check(lines == sorted(set(lines)), f"{run.name} has rows {lines}")
    left = [path for path in study.rglob("*") if path.name == ".owner" or path.name.startswith((".tmp", ".study"))]
    check(not left, f"left behind: {left}")


def killed(straight: Straight, moments: list[float], folder: Path) -> None:
    whole = max(straight.seconds, 1.0)
    for moment in moments:
        with start([*SMALL, "seeds=2"], folder) as running:
            _wait(running, moment * whole)
            running.send(signal.SIGKILL)
            running.wait()
    succeeded(ablate("seeds=2", folder=folder))
    straight.equals(folder / "study")


def stopped(straight: Straight, signum: signal.Signals, folder: Path) -> None:
    with start([*SMALL, "seeds=2"], folder) as running:
        running.wait_until(folder / "study" / "dapo_empg-s0" / "metrics.jsonl")
        running.send(signum)
        end = running.wait()
    check(end.code in (0, 128 + signum), f"exit code {end.code} from {end}")
    succeeded(ablate("seeds=2", folder=folder))
    straight.equals(folder / "study")


def doubled(straight: Straight, seeds: tuple[str, ...], folder: Path) -> None:
    running = [start([*SMALL, word], folder) for word in seeds]
    for end in [one.wait() for one in running]:
        succeeded(end)
    straight.equals(folder / "study")


def widowed(straight: Straight, moment: float, folder: Path) -> None:
    """The other one takes the cell of the dead one, or says whose it was; the next command has them all."""
    whole = max(straight.seconds, 1.0)
    with start([*SMALL, "seeds=2"], folder) as dies, start([*SMALL, "seeds=2"], folder) as lives:
        _wait(dies, moment * whole)
        dies.send(signal.SIGKILL)
        dies.wait()
        succeeded(lives.wait())
    succeeded(ablate("seeds=2", folder=folder))
    straight.equals(folder / "study")


def redefined(folder: Path) -> None:
    with start([*SMALL, "seeds=2"], folder) as first:
        first.wait_until(folder / "study" / "study.json")
        refused(ablate("seeds=2", "trainer.lr=0.5", folder=folder), "dapo: trainer.lr", "0.01", "0.5")
        succeeded(first.wait())
    check_whole(folder / "study")


def by_hand(straight: Straight, folder: Path) -> None:
    """`empg train --resume CELL` owns the cell; the study leaves it and says so."""
    shutil.copytree(straight.study, folder / "study")
    cell = folder / "study" / "dapo-s1"
    (cell / "summary.json").unlink()
    with start(["train", "--resume", "study/dapo-s1", "logger.console=quiet"], folder) as hand:
        if hand.wait_until(cell / ".owner"):
            beside = ablate("seeds=2", folder=folder)
            succeeded(beside)
        succeeded(hand.wait())
    succeeded(ablate("seeds=2", folder=folder))
    check_whole(folder / "study")


def recorded(straight: Straight, key: str, value: Any, folder: Path) -> None:
    """A finished cell whose run.json says that something else has made it."""
    shutil.copytree(straight.study, folder / "study")
    path = folder / "study" / "dapo-s0" / "run.json"
    facts = json.loads(path.read_text()) | {key: value, "checksum": None}
    path.write_text(json.dumps({name: fact for name, fact in facts.items() if fact is not None}))
    part = {"versions": "packages"}.get(key, key)
    refused(ablate("seeds=2", folder=folder), f"{part}: ", "dapo-s0", "ablation.mixed=mark")
    refused(ablate("seeds=3", folder=folder), f"{part}: ")
    if key != "weights":  # those are known only when the model is there
        check(not (folder / "study" / "dapo-s2").exists(), "a cell was begun that no table would have")
    marked = ablate("seeds=2", "ablation.mixed=mark", folder=folder)
    succeeded(marked)
    above(marked.output, f"MIXED {part}: ")
    content = {row["variant"]: row for row in json.loads((folder / "study" / "ablation.json").read_text())["rows"]}
    check(content["dapo_empg"]["difference"] is None, "a pair of unlike cells was compared")
    above(forked("show", "study", folder=folder).output, f"MIXED {part}: ")
    shutil.copytree(straight.study, folder / "other")
    refused(forked("ablate", "--across", "study", "other", folder=folder), "not made of the same")


def above(output: str, warning: str) -> None:
    place, numbers = output.find(warning), output.find("Δ to dapo")
    check(0 <= place < numbers, f"not said above the numbers: {output[-600:]}")


def other_data(folder: Path) -> None:
    shops(folder)
    succeeded(ablate("seeds=1", "benchmark.data_dir=shop", folder=folder))
    (folder / "shop").rename(folder / "moved")
    (folder / "other").rename(folder / "shop")
    refused(ablate("seeds=2", "benchmark.data_dir=shop", folder=folder), "data: ", "dapo-s1 (now)")
    check(not list((folder / "study").glob("*-s1/checkpoints/*")), "a cell was played on other data")
    succeeded(ablate("seeds=2", "benchmark.data_dir=moved", folder=folder))
    check_whole(folder / "study")


def moved_data(folder: Path) -> None:
    shops(folder)
    succeeded(ablate("seeds=2", "benchmark.data_dir=shop", folder=folder))
    played = {path: path.stat().st_mtime_ns for path in (folder / "study").glob("*/metrics.jsonl")}
    (folder / "shop").rename(folder / "moved")
    succeeded(ablate("seeds=2", "benchmark.data_dir=moved", folder=folder))
    check({path: path.stat().st_mtime_ns for path in played} == played, "a finished cell was played again")
    refused(ablate("seeds=2", "benchmark.data_dir=other", folder=folder), "data: ", "(now)")
    check_whole(folder / "study")


def shops(folder: Path) -> None:
    for name, seed in (("shop", "0"), ("other", "1")):
        compiled = forked(
            "data", "compile", "webshop", "--generate", "40", "--shop-seed", seed, "--out", name, folder=folder
        )
        succeeded(compiled)


def other_weights(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    from empg_cli.model.loading import packaged_agent

    shutil.copytree(packaged_agent("webshop"), folder / "agent")
    model = ("model.init=pretrained", "model.path=agent")
    succeeded(ablate("seeds=1", *model, folder=folder))
    weights = load_file(folder / "agent" / "model.safetensors")
    name = min(weights)
    weights[name] = weights[name] + torch.ones_like(weights[name])
    save_file(weights, folder / "agent" / "model.safetensors", metadata={"format": "pt"})
    refused(ablate("seeds=2", *model, folder=folder), "weights: ", "dapo-s1 (now)")
    check(not list((folder / "study").glob("*-s1/checkpoints/*")), "a cell was played from other weights")


def grown(straight: Straight, folder: Path) -> None:
    shutil.copytree(straight.study, folder / "study")
    succeeded(ablate("seeds=[7]", folder=folder))
    check_whole(folder / "study", seeds=(0, 1, 7))
    succeeded(ablate("seeds=[0,1,7]", MORE, folder=folder))
    check_whole(folder / "study", seeds=(0, 1, 7), variants=("dapo", "dapo_empg", "double"))
    for cell in straight.study.glob("*-s[01]"):
        check(rows(folder / "study" / cell.name) == rows(cell), f"{cell.name} is another run now")
    succeeded(ablate("seeds=1", folder=folder))
    check_whole(folder / "study", seeds=(0, 1, 7), variants=("dapo", "dapo_empg", "double"))


def not_redefined(folder: Path) -> None:
    with start([*SMALL, "seeds=1"], folder) as running:
        running.wait_until(folder / "study" / "study.json")
        running.send(signal.SIGKILL)
        running.wait()
    refused(ablate("seeds=1", "trainer.lr=0.5", folder=folder), "dapo: trainer.lr")
    refused(ablate("seeds=1", "ablation.base=dapo_empg", folder=folder), "ablation.base")
    refused(ablate("seeds=1", "ablation.metric=eval/success_rate", folder=folder), "ablation.metric")
    refused(ablate("seeds=1", "ablation.name=other", folder=folder), "ablation.name")
    succeeded(ablate("seeds=1", folder=folder))
    check_whole(folder / "study", seeds=(0,))


def damaged(straight: Straight, cut: float, folder: Path) -> None:
    """One message; without the file, the same command finds all cells again."""
    shutil.copytree(straight.study, folder / "study")
    path = folder / "study" / "study.json"
    path.write_bytes(path.read_bytes()[: int(cut * path.stat().st_size)])
    for command in (("show", "study"), ("ablate", "--across", "study", "study")):
        end = forked(*command, folder=folder)
        check(end.code == 2, f"exit code {end.code} from {end}")
    refused(ablate("seeds=2", folder=folder), "study.json", "may be deleted")
    path.unlink()
    (folder / "study" / "ablation.json").unlink()
    again = ablate("seeds=2", folder=folder)
    succeeded(again)
    check("4 of 4 cells are done already" in again.output, f"cells were played again: {again}")
    straight.equals(folder / "study")


def _wait(running: Running, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not running.is_over:
        time.sleep(0.01)
