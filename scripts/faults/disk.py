"""Disks that are full, read-only, too small or somebody else's; homes that cannot be written; streams that refuse."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from scripts.faults.case import Case, Lost, check, differences, refused, succeeded
from scripts.faults.process import Finished, empg, forked, start

UPDATES = 4
SMOKE = (
    "experiment=smoke",
    "logger.console=plain",
    f"trainer.updates={UPDATES}",
    "trainer.eval_every=2",
    "trainer.health.preflight=off",
)
TRAIN = ("train", *SMOKE)
LEVELS_KB = (60, 120, 250, 1000, 3000, 4300, 6000, 8400, 9000, 13000)
"""Room on the disk. A checkpoint has 4100 kB: none, one, two (the third takes the place of the first), and all fit."""
COMPARED = ("metrics.jsonl", "histograms.jsonl")


def cases(shared: Path, random_numbers: random.Random) -> Iterator[Case]:
    if can_mount(shared):
        for room in LEVELS_KB:
            yield Case(f"a disk of {room} kB", partial(small_disk, room, shared))
        yield Case("a disk that fills in the middle and is freed", partial(fills, shared, is_freed=True))
        yield Case("a disk that fills in the middle and stays full", partial(fills, shared, is_freed=False))
        yield Case("a disk that is full when an evaluation ends", partial(full_for_an_evaluation, shared))
        for name, words in writers(shared, "{out}"):
            yield Case(f"{name} on a read-only disk", partial(on_a_read_only_disk, words))
            yield Case(f"{name} on a full disk", partial(on_a_full_disk, words))
        yield Case("a home on a read-only disk", partial(homes, shared, on_a_disk=True))
    else:
        print("disk: a tmpfs cannot be mounted here (not root): full and read-only disks are left out", flush=True)
    for kilobytes in (20, 600, 2000):
        yield Case(f"`ulimit -f`, {kilobytes} kB", partial(short_files, kilobytes, shared))
    for place in ("/etc/passwd/x", "/proc/x", f"{'n' * 300}", "loop/x", "file/x", "closed/x"):
        for name, words in writers(shared, "{out}"):
            yield Case(f"{name} into {place[:20]}", partial(impossible, words, place))
    yield Case("a home that cannot be", partial(homes, shared, on_a_disk=False))
    for part in ("", "config.yaml", "run.json", "metrics.jsonl", "checkpoints", "evaluations", "trajectories",
                 "summary.json", "histograms.jsonl"):  # fmt: skip
        yield Case(f"a run folder of somebody else: {part or 'the folder'}", partial(closed_part, shared, part))
    yield Case("streams that refuse", partial(full_streams, shared))


def writers(shared: Path, out: str) -> list[tuple[str, tuple[str, ...]]]:
    """Every command that writes, with the folder that it writes to as `{out}`."""
    run, corpus = str(shared / "straight" / "run"), str(shared / "corpus.jsonl")
    if not (shared / "corpus.jsonl").exists():
        (shared / "corpus.jsonl").write_text('{"id": "0", "contents": "a title\\na text"}\n')
    return [
        ("train", (*TRAIN, f"run_dir={out}")),
        ("train -m", (*TRAIN, "-m", "seed=0,1", f"hydra.sweep.dir={out}")),
        ("eval", ("eval", f"run={run}", "logger.console=plain", f"run_dir={out}")),
        ("ablate", ("ablate", "ablation=zeta", *SMOKE, "seeds=1", f"run_dir={out}")),
        ("report", ("report", run, "--no-figures", "--out", out)),
        ("diagnose", ("diagnose", run, "--episodes", "2", "--gradients", "0", "--out", out)),
        ("data compile", ("data", "compile", "webshop", "--generate", "20", "--out", out)),
        ("data index", ("data", "index", "deepsearch", "--corpus", corpus, "--out", out)),
    ]


def straight(shared: Path) -> Path:
    """The run that every other one is compared with."""
    folder = shared / "straight"
    if not (folder / "run" / "summary.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        succeeded(forked(*TRAIN, "run_dir=run", folder=folder))
    return folder / "run"


def small_disk(room: int, shared: Path, folder: Path) -> None:
    expected = rows(straight(shared))
    with disk(folder / "small", room) as small:
        run = small / "run"
        first = forked(*TRAIN, f"run_dir={run}", folder=folder)
        check(first.code in (0, 1), f"exit code {first.code} from {first}")
        if first.code == 1:
            check("No space left" in first.output, f"nothing said about the disk by {first}")
        is_tidy(run)
        if "was not saved" in first.output:
            check("are free" in first.output and "it needs" in first.output, f"no numbers from {first}")
        grow(small)
        ends_like(expected, run, folder)


def fills(shared: Path, folder: Path, *, is_freed: bool) -> None:
    expected = rows(straight(shared))
    with disk(folder / "small", 30_000) as small:
        run, filler = small / "run", small / "filler"
        take(filler, 29_800_000)
        with start([*TRAIN, f"run_dir={run}"], folder) as training:
            training.wait_until("evaluation at update 0")
            fill(filler)
            training.wait_until("kept in memory" if is_freed else "update 3/")
            if is_freed:
                filler.unlink()
            ended = training.wait()
        is_tidy(run)
        check("kept in memory" in ended.output, f"nothing said about rows that wait by {ended}")
        if is_freed and ended.code == 0:
            check("there is room again" in ended.output, f"nothing said about the room by {ended}")
        else:
            check(ended.code == 1, f"exit code {ended.code} from {ended}")
            check("No space left" in ended.output and "are free, and" in ended.output, f"unsaid by {ended}")
            filler.unlink(missing_ok=True)
        ends_like(expected, run, folder)


def full_for_an_evaluation(shared: Path, folder: Path) -> None:
    run = straight(shared)
    with disk(folder / "small", 400) as small:
        words = ("eval", f"run={run}", f"run_dir={small / 'eval'}", "logger.console=plain")
        with start(words, folder) as evaluating:
            evaluating.wait_until("on alfworld (generated data)")
            fill(small / "filler")
            ended = evaluating.wait()
        check(ended.code == 1, f"exit code {ended.code} from {ended}")
        check("95% interval" in ended.output, f"what was played is not shown by {ended}")
        check("all that is left" in ended.output, f"nothing said about the disk by {ended}")
        is_tidy(small)


def on_a_read_only_disk(words: Sequence[str], folder: Path) -> None:
    with disk(folder / "small", 1000, "ro") as small:
        refused(to(small / "out", words, folder), str(small), "read-only")


def on_a_full_disk(words: Sequence[str], folder: Path) -> None:
    with disk(folder / "small", 100) as small:
        fill(small / "filler")
        finished = to(small / "out", words, folder)
        check(finished.code == 1, f"exit code {finished.code} from {finished}")
        check("No space left" in finished.output, f"nothing said about the disk by {finished}")
        is_tidy(small)


def impossible(words: Sequence[str], place: str, folder: Path) -> None:
    (folder / "loop").symlink_to("loop")
    (folder / "file").touch()
    (folder / "closed").mkdir(mode=0o555)
    refused(to(folder / place, words, folder, prepare=obey_modes))


def short_files(kilobytes: int, shared: Path, folder: Path) -> None:
    expected = rows(straight(shared))
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (kilobytes * 1000, resource.RLIM_INFINITY))
    first = forked(*TRAIN, "run_dir=run", folder=folder, prepare=limit)
    check(first.code == 1 and "File too large" in first.output, f"exit code {first.code}, or unsaid, from {first}")
    is_tidy(folder / "run")
    ends_like(expected, folder / "run", folder)


def homes(shared: Path, folder: Path, *, on_a_disk: bool) -> None:
    """Nothing but the official data and a cache is ever looked for in a home, and no command needs one."""
    run = straight(shared)
    warm = ("model=tiny-scratch", "trainer.warm_start.steps=1", "trainer.updates=1", "trainer.eval_before=false")
    with disk(folder / "home", 100, "ro") if on_a_disk else contextlib.nullcontext(Path("/proc/nobody")) as home:
        env = {"HOME": str(home), "XDG_CACHE_HOME": "", "MPLCONFIGDIR": ""}
        warmed = forked(*TRAIN, "run_dir=warm", *warm, folder=folder, env=env)
        succeeded(warmed)
        check("is not kept" in warmed.output, f"nothing said about the cache by {warmed}")
        if on_a_disk:  # what wandb and matplotlib do about a home, they do on import
            offline = {**env, "WANDB_MODE": "offline"}
            succeeded(empg(*TRAIN, "run_dir=wandb", "trainer.updates=1", folder=folder, env=offline))
            succeeded(empg("report", str(run), "--out", "report", folder=folder, env=env))
        succeeded(forked("doctor", folder=folder, env=env))
        succeeded(forked("show", str(run), folder=folder, env=env))
        deep = ("eval", "policy=expert", "benchmark=deepsearch", "run_dir=deep")
        refused(forked(*deep, folder=folder, env=env), str(home), "benchmark.cache_dir")


def closed_part(shared: Path, part: str, folder: Path) -> None:
    """Commands that need it say which file; the others go on; none shows a traceback or changes the folder."""
    shutil.copytree(straight(shared), folder / "run")
    closed = folder / "run" / part
    mode = closed.stat().st_mode
    closed.chmod(0)
    resume = ("train", "--resume", "run", f"trainer.updates={UPDATES + 1}", "logger.console=plain")
    try:
        for words in (
            ("show", "run"),
            ("report", "run", "--no-figures", "--out", "report"),
            ("eval", "run=run", "run_dir=eval", "logger.console=plain"),
            ("eval", "--compare", "run", "run"),
            ("diagnose", "run", "--episodes", "2", "--gradients", "0", "--out", "diagnosis"),
            resume,
        ):
            finished = forked(*words, folder=folder, prepare=obey_modes)
            check(finished.code in (0, 2), f"exit code {finished.code} from {finished}")
            if finished.code == 2:
                check(part in finished.output, f"{part} is not named by {finished}")
                check(finished.output.count("error: ") <= 1, f"more than one message from {finished}")
    finally:
        closed.chmod(mode)
    check(bool(list((folder / "run" / "evaluations").iterdir())), "the evaluations are gone")


def full_streams(shared: Path, folder: Path) -> None:
    run = str(straight(shared))
    shown = forked("show", run, folder=folder, prepare=partial(stream_to_full, 1))
    check(shown.code == 1 and "standard output" in shown.output, f"exit code {shown.code}, or unsaid, from {shown}")
    listed = forked("eval", f"run={run}", "--json", "run_dir=eval", folder=folder, prepare=partial(stream_to_full, 1))
    check(listed.code == 1 and (folder / "eval" / "evaluation.json").is_file(), f"not kept by {listed}")
    succeeded(forked(*TRAIN, "run_dir=quiet", folder=folder, prepare=partial(stream_to_full, 2)))
    wrong = forked("train", "no.such.key=1", folder=folder, prepare=partial(stream_to_full, 2))
    check(wrong.code == 2, f"exit code {wrong.code} from {wrong}")
    trained = forked(*TRAIN, "run_dir=unseen", folder=folder, prepare=partial(stream_to_full, 1))
    check("cannot be shown" in trained.output, f"nothing said about standard output by {trained}")
    summary = json.loads((folder / "unseen" / "summary.json").read_text())
    check(summary["exit_code"] == 0, "a run that finished is not marked so, as its summary could not be shown")


def to(out: Path, words: Sequence[str], folder: Path, prepare: Callable[[], None] = lambda: None) -> Finished:
    return forked(*(word.replace("{out}", str(out)) for word in words), folder=folder, prepare=prepare)


def is_tidy(run: Path) -> None:
    """No temporary file, no half row, no damaged checkpoint."""
    for path in run.rglob("*"):
        check(not path.name.startswith(".tmp-") and not path.name.endswith((".tmp", ".part")), f"{path} was left")
        if path.suffix == ".jsonl":
            for line in path.read_text().splitlines(keepends=True):
                check(line.endswith("\n") and is_json(line), f"half a row in {path}: {line[-40:]!r}")
    for checkpoint in (run / "checkpoints").glob("*"):
        from empg_cli.runs.manifest import checkpoint_fault

        fault = checkpoint_fault(checkpoint)
        check(fault is None, f"{checkpoint}: {fault}")


def is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def ends_like(expected: list[object], run: Path, folder: Path) -> None:
    """Gone on with on a disk with room, it is the straight run, bit for bit."""
    if any((run / "checkpoints").glob("step-*")):
        succeeded(forked("train", "--resume", str(run), folder=folder))
    elif (run / "config.yaml").exists():
        succeeded(forked("train", "--resume", str(run), "--restart", folder=folder))
    else:
        succeeded(forked(*TRAIN, f"run_dir={run}", folder=folder))
    is_tidy(run)
    if difference := differences(expected, rows(run)):
        raise Lost(f"not the straight run: {difference}")


def rows(run: Path) -> list[object]:
    """All that a run has logged, but for times; and what its last evaluation found."""
    from empg_cli.runs.rows import without_wall_clock

    logged = [
        without_wall_clock(json.loads(line)) for name in COMPARED for line in (run / name).read_text().splitlines()
    ]
    played = [json.loads(path.read_text()) for path in sorted((run / "evaluations").glob("update-*.json"))]
    return [*logged, *played]


def obey_modes() -> None:
    """Root ignores who may read and write what; without these two capabilities it does not. Others have none."""
    if os.geteuid() != 0:
        return
    override, search, version = 1 << 1, 1 << 2, 0x20080522  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, version 3
    header = (ctypes.c_uint32 * 2)(version, 0)
    sets = (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.capget(header, sets)
    for number in range(3):  # effective, permitted, inheritable
        sets[number] &= ~(override | search)
    if libc.capset(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def stream_to_full(descriptor: int) -> None:
    os.dup2(os.open("/dev/full", os.O_WRONLY), descriptor)
    (sys.stdout if descriptor == 1 else sys.stderr).flush()


def take(path: Path, size: int) -> None:
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)


def fill(path: Path) -> None:
    """Take all the room that is left."""
    with path.open("ab", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * size)


@contextlib.contextmanager
def disk(folder: Path, kilobytes: int, mode: str = "rw") -> Iterator[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k,{mode}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def grow(small: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=64m", small], check=True)


def can_mount(shared: Path) -> bool:
    try:
        with disk(shared / "mounted", 100):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False
