"""One history: rewinds, changed settings, damaged checkpoints and records, and every file of a run folder broken."""

from __future__ import annotations

import json
import random
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from scripts.faults.case import Case, check, refused, succeeded
from scripts.faults.process import Finished, forked, start
from scripts.faults.runs import TINY, copied, digests, killed_before, rows, same_history, straight

UPDATES = 3
DAMAGES = ("flipped", "cut", "removed")
CHANGES = (
    ("seed=7",),
    ("rollout=window",),
    ("algo=grpo",),
    ("trainer.lr=1e-3",),
    ("model.arch.num_layers=2",),
    ("benchmark.train_games=8",),
    ("benchmark.max_steps=5",),
    ("rollout.temperature=0.7",),
    ("trainer.tasks_per_update=1",),
    ("trainer.updates=2",),
)
ALLOWED = ("trainer.threads=2", "trainer.tokens_per_microbatch=512", "rollout.max_concurrent=2", "trainer.eval_every=2")


def cases(shared: Path, random_numbers: random.Random) -> Iterator[Case]:
    run = straight(shared, UPDATES)
    yield Case("a rewind", partial(rewind, run))
    for number in range(4):
        yield Case(f"a rewind that is killed, {number}", partial(killed_rewind, run, random_numbers.random() * 0.05))
    yield Case("an abandoned branch goes on", partial(branch_goes_on, run))
    for words in CHANGES:
        yield Case(f"going on with {' '.join(words)}", partial(changed, run, words))
    yield Case("going on with other data", partial(other_data, run))
    yield Case("what may change is written down", partial(allowed, run))
    yield Case("all checkpoints are damaged", partial(all_damaged, run))
    yield Case("all checkpoints are gone", partial(all_gone, run))
    for name in ("missing", "doubled", "cut", "swapped"):
        yield Case(f"a row is {name}", partial(broken_row, run, name))
    yield Case("the last row is cut by a crash", partial(cut_last_row, run))
    yield Case("the best checkpoint is damaged", partial(damaged_best, run))
    for file in damageable(run):
        is_one_of_many = "/model/" in file and not file.endswith(".safetensors")
        for damage in [random_numbers.choice(DAMAGES)] if is_one_of_many else DAMAGES:
            yield Case(f"{file} is {damage}", partial(damaged, run, file, damage, random_numbers.random()))


def damageable(run: Path) -> list[str]:
    """Every file of the run, but Hydra's own; of the checkpoints those of the one that is gone on from."""
    read = f"checkpoints/step-{UPDATES - 1:06d}/"
    return [name for name in digests(run) if name.startswith(read) or not name.startswith("checkpoints/")]


def rewind(run: Path, folder: Path) -> None:
    mine = copied(run, folder)
    done = forked("train", "--resume", "run/checkpoints/step-000001", "trainer.lr_schedule=linear", folder=folder)
    succeeded(done)
    check("set aside" in done.output and "abandoned/1-after-update-000001" in done.output, f"not said by {done}")
    same_history(mine, run, UPDATES)  # the same settings make the same branch
    branch = mine / "abandoned" / "1-after-update-000001"
    kept = sorted(path.name for path in (branch / "checkpoints").iterdir())
    check(kept == ["step-000002", "step-000003"], f"the branch that was left has {kept}")
    check(rows(branch) == rows(run), "rows of the branch that was left are other ones")
    short = forked("train", "--resume", "run/checkpoints/step-000001", "trainer.updates=2", folder=folder)
    succeeded(short)
    played = forked("eval", "run=run", "run_dir=played", folder=folder)
    succeeded(played)
    source = json.loads((folder / "played" / "evaluation.json").read_text())["policy"]["source"]
    check(source.endswith("run/checkpoints/step-000002"), f"the evaluation played {source}")
    succeeded(forked("train", "--resume", "run", "trainer.updates=3", folder=folder))
    check([row["update"] for row in rows(mine)] == [0, 1, 2, 3], "rows after two rewinds")


def killed_rewind(run: Path, delay: float, folder: Path) -> None:
    """Wherever it dies, no checkpoint is lost, and the same command ends in the straight run."""
    import time

    mine = copied(run, folder)
    command = ["train", "--resume", "run/checkpoints/step-000001"]
    with start(command, folder) as rewinding:
        rewinding.wait_until(mine / "abandoned")
        time.sleep(delay)
        rewinding.send(signal.SIGKILL)
        rewinding.wait()
    found = sorted(path.name for path in mine.rglob("step-*") if path.is_dir())
    check(found == ["step-000001", "step-000002", "step-000003"], f"checkpoints after the kill: {found}")
    succeeded(forked(*command, folder=folder))
    same_history(mine, run, UPDATES)
    check(not list(mine.rglob(".tmp-*")), "temporary files are left")


def branch_goes_on(run: Path, folder: Path) -> None:
    mine = copied(run, folder)
    succeeded(forked("train", "--resume", "run/checkpoints/step-000001", "trainer.updates=1", folder=folder))
    branch = mine / "abandoned" / "1-after-update-000001"
    killed_before(branch, UPDATES)
    succeeded(forked("train", "--resume", str(branch), folder=folder))
    same_history(branch, run, UPDATES)


def changed(run: Path, words: Sequence[str], folder: Path) -> None:
    mine = copied(run, folder)
    before = digests(mine, ())
    refused(forked("train", "--resume", "run", *words, folder=folder), "run cannot be resumed like this")
    check(digests(mine, ()) == before, "something in the folder was changed")
    refused(forked(*TINY, f"trainer.updates={UPDATES}", "run_dir=run", "resume=auto", *words, folder=folder), "resumed")
    check(digests(mine) == digests(run), "something in the folder was changed by resume=auto")


def other_data(run: Path, folder: Path) -> None:
    """The path of other data is no other setting: only its content tells."""
    facts = json.loads((copied(run, folder) / "run.json").read_text())
    facts["data"]["digest"] = "of other contents"
    del facts["checksum"]
    (folder / "run" / "run.json").write_text(json.dumps(facts))
    refused(forked("train", "--resume", "run", folder=folder), "not the data that the run was trained on")


def allowed(run: Path, folder: Path) -> None:
    mine = copied(run, folder)
    succeeded(forked("train", "--resume", "run", "trainer.updates=4", *ALLOWED, folder=folder))
    noted = [change["key"] for change in json.loads((mine / "run.json").read_text())["changes"]]
    expected = sorted([word.split("=")[0] for word in ALLOWED] + ["trainer.updates"])
    check(noted == expected, f"run.json notes {noted}")
    check(rows(mine)[:4] == rows(run), "rows of before are other ones")


def all_damaged(run: Path, folder: Path) -> None:
    mine = copied(run, folder)
    for checkpoint in (mine / "checkpoints").iterdir():
        flip(checkpoint / "optimizer.pt", 0.5)
    shutil.copytree(mine, folder / "sound")
    before = digests(mine)
    names = [f"step-{update:06d}" for update in range(1, UPDATES + 1)]
    refused(forked("train", "--resume", "run", folder=folder), *names, "optimizer.pt", "--restart")
    check(digests(mine) == before, "something in the folder was changed")
    succeeded(forked("train", "--resume", "run", "--restart", folder=folder))
    same_history(mine, run, UPDATES)
    branch = mine / "abandoned" / "1-after-update-000000"
    kept, before = digests(branch), digests(folder / "sound")
    del kept["run.json"], before["run.json"]
    check(kept == before, "the old run is not all there")


def all_gone(run: Path, folder: Path) -> None:
    mine = copied(run, folder)
    shutil.rmtree(mine / "checkpoints")
    before = digests(mine)
    refused(forked("train", "--resume", "run", folder=folder), "no checkpoint", "--restart")
    check(digests(mine) == before, "something in the folder was changed")


def broken_row(run: Path, how: str, folder: Path) -> None:
    """Rows of updates 0 to 3 stand in lines 1 to 4; the run goes on from update 3."""
    mine = copied(run, folder)
    path = mine / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    words = {"missing": "update 2", "doubled": "lines 3 and 4", "cut": "line 3", "swapped": "line 4"}[how]
    match how:
        case "missing":
            del lines[2]
        case "doubled":
            lines.insert(2, lines[2])
        case "cut":
            lines[2] = lines[2][:40] + b"\n"
        case _:
            lines[2], lines[3] = lines[3], lines[2]
    path.write_bytes(b"".join(lines))
    before = digests(mine)
    refused(forked("train", "--resume", "run", "trainer.updates=4", folder=folder), "metrics.jsonl", words)
    check(digests(mine) == before, "something in the folder was changed")
    succeeded(forked("train", "--resume", "run/checkpoints/step-000001", folder=folder))  # before the fault
    same_history(mine, run, UPDATES)


def cut_last_row(run: Path, folder: Path) -> None:
    mine = killed_before(copied(run, folder), UPDATES)
    path = mine / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    succeeded(forked("train", "--resume", "run", folder=folder))
    same_history(mine, run, UPDATES)


def damaged_best(run: Path, folder: Path) -> None:
    mine = copied(run, folder)
    flip(mine / "checkpoints" / "step-000001" / "model" / "model.safetensors", 0.9)  # of equal ones the earliest
    said = forked("eval", "run=run", "checkpoint=best", "run_dir=played", folder=folder)
    refused(said, "step-000001", "model.safetensors")


def damaged(run: Path, file: str, damage: str, place: float, folder: Path) -> None:
    """Every command that reads it answers as without the damage, or says which file it is, or refuses."""
    mine = copied(run, folder)
    shutil.copytree(run, folder / "sound")
    broken = mine / file
    match damage:
        case "flipped":
            flip(broken, place)
        case "cut":
            broken.write_bytes(broken.read_bytes()[: int(broken.stat().st_size * place)])
        case _:
            broken.unlink()
    is_in_checkpoint = file.startswith("checkpoints/")
    if not is_in_checkpoint or file.endswith(("history.json", "manifest.json")):
        for words in (("show", "{}"), ("report", "{}", "--no-figures", "-o", "drawn")):
            answers(folder, words, file, lambda finished: finished.output)
    if is_in_checkpoint or file in ("config.yaml", "run.json"):
        answers(folder, ("eval", "run={}", "checkpoint=2", "run_dir=played-{}"), file, lambda _: played(folder))
    resumed(run, killed_before(mine, UPDATES), file)


def answers(folder: Path, words: Sequence[str], file: str, answer: Callable[[Finished], str]) -> None:
    given = forked(*(word.format("run") for word in words), folder=folder)
    if given.code == 2 and file.rsplit("/", 1)[-1].split(".")[0] in given.output.replace("Not a run", "config run"):
        return
    check(given.code == 0, f"exit code {given.code}, and {file} is not named by {given}")
    if file in given.output or file.rsplit("/", 1)[-1] in given.output:
        return
    mine = answer(given)
    expected = forked(*(word.format("sound") for word in words), folder=folder)
    succeeded(expected)
    other = answer(expected).replace("sound", "run")
    check(mine.replace("sound", "run") == other, f"{words[0]} answers otherwise, and says nothing of {file}: {given}")


def played(folder: Path) -> str:
    """What the newest evaluation of the case has found."""
    newest = max(folder.glob("played-*"), key=lambda path: path.stat().st_mtime_ns)
    return str(json.loads((newest / "evaluation.json").read_text())["tasks"])


def resumed(run: Path, mine: Path, file: str) -> None:
    before = digests(mine)
    done = forked("train", "--resume", "run", folder=mine.parent)
    if done.code == 0:
        if file == "metrics.csv" or not file.startswith(("trajectories/", "metrics.csv")):
            same_history(mine, run, UPDATES)
        return
    refused(done)
    check(digests(mine) == before, f"refused, and changed all the same: {done}")


def flip(path: Path, place: float) -> None:
    """One bit."""
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 1 << int(place * 80) % 7
    path.write_bytes(content)
