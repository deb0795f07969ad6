"""300 mutated command lines over all commands: each ends soon, with success or with one message and nothing made."""

from __future__ import annotations

import random
import resource
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from scripts.faults.case import Case, Lost, check, succeeded
from scripts.faults.process import Finished, forked, start

MUTANTS = 300
CPU_SECONDS, SECONDS = 20, 300.0

SMALL = ("benchmark.eval_tasks=1", "benchmark.max_steps=2", "logger.console=plain")
"""What keeps a mutant cheap that is valid by chance; the last words count, and they are not mutated."""
LINES: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("train", "experiment=smoke", "algo=grpo", "seed=1", "trainer.lr=1e-5"), (*SMALL, "run_dir=run")),
    (("train", "experiment=smoke", "algo.credit.zeta=0.1", "~resume"), (*SMALL, "run_dir=run")),
    (("train", "benchmark=webshop", "model=tiny-scratch", "model.arch={hidden_size:32}"), ("--cfg", "job")),
    (("train", "-m", "seed=1,2", "algo=glob(*empg)", "trainer.lr=interval(0,1)"), ("rollout.history=-1",)),
    (("train", "--resume", "run", "trainer.updates=2", "trainer.lr=1e-4"), ()),
    (("train", "--config-dir", "own", "--config-name", "train", "experiment=mine"), (*SMALL, "run_dir=run")),
    (("train", "--info", "defaults", "rollout=window", "hydra.job.name=x"), ("--info", "config")),
    (("train", "--cfg", "hydra", "--resolve", "--package", "hydra.run", "hydra.run.dir=${run_dir}"), ()),
    (("eval", "policy=expert", "benchmark=alfworld", "seeds=2", "temperatures=null"), SMALL),
    (("eval", "run=run", "samples=1", "benchmark.split=valid_seen", "benchmark.game_seed=1"), SMALL),
    (("eval", "endpoint=openai", "endpoint.model=m", "endpoint.base_url=http://127.0.0.1:9/v1", "seed=2"),
     (*SMALL, "seeds=[]")),
    (("eval", "--compare", "run", "run", "--json"), ()),
    (("ablate", "ablation=components", "seeds=[0,1]", "--detect", "0.1", "--sd", "0.2"), (*SMALL, "--plan")),
    (("ablate", "--across", "run", "own", "--out", "table"), ()),
    (("play", "benchmark=alfworld", "benchmark.split=valid_unseen", "--task", "1"), ()),
    (("diagnose", "run", "--episodes", "2", "--gradients", "0", "--out", "found", "--before", "initial"), SMALL),
    (("show", "run", "--trajectories", "1", "--texts"), ()),
    (("show", "--metrics", "entropy"), ()),
    (("report", "run", "--out", "page"), ("--no-figures",)),
    (("data", "index", "deepsearch", "--corpus", "corpus.jsonl", "--engine", "tantivy"), ("--out", "index")),
    (("data", "serve", "deepsearch", "--topk", "3", "--host", "127.0.0.1"), ("--port", "0", "--index", "nowhere")),
    (("data", "compile", "webshop", "--generate", "10", "--price-seed", "1"), ("--out", "shop")),
    (("doctor", "--json"), ()),
)  # fmt: skip
"""(words that are mutated, words that are not)."""

ODD = (
    "", " ", "null", "true", "-1", "0", "1", "nan", "inf", "1e999", "9" * 5000, "0x1F", "1_000", "[]", "{}", "[[[[",
    "{a:b", "${nowhere}", "${oc.env:NOPE}", "${seed", "a,b", "1,2", "range(3)", "range(0,1,0)", "glob(*)", "choice()",
    "sort(a,b)", "interval(1,0)", "shuffle(x)", "int(abc)", "str([)", "'", '"', "\\", "'a", "é", "\u202e", "\udcff",
    "\x1b[31m", "???", "~", "=", "/", ".", "..", "/etc/passwd", "/dev/null", "run", "run/config.yaml", "corpus.jsonl",
    "o'brien", "a b", "-", "--", "@", "a@b", "[" * 3000, "{a:" * 500, "x" * 3000, "None", "*", "&a",
    "!!python/object:os.system", "%s", "{}{}", "\n", "1e-5,",
)  # fmt: skip
KEYS = (
    "experiment", "benchmark", "algo", "rollout", "model", "endpoint", "trainer", "logger", "ablation", "judge",
    "retrieval", "seed", "seeds", "run", "resume", "hydra.run.dir", "hydra.sweep.dir", "hydra.job.name", "hydra.mode",
    "hydra.verbose", "hydra/launcher", "hydra/job_logging", "hydra.searchpath", "hydra", "defaults", "benchmark.target",
    "logger.sinks", "judge@benchmark.judge", "benchmark@algo", "algo.credit", "algo.credit.target", "model.path",
    "a..b", ".a", "a.", "", "trainer.health", "benchmark.data_dir", "rollout.history", "model.arch.num_heads",
    "_target_", "a[0]", "0",
)  # fmt: skip


def cases(shared: Path, random_numbers: random.Random) -> Iterator[Case]:
    prepare(shared)
    for number in range(MUTANTS):
        words, kept = LINES[number % len(LINES)]
        line = [*mutated(words, random_numbers), *kept]
        yield Case(f"`empg {shlex.join(line)[:300]}`", partial(answers, shared, line))


def prepare(shared: Path) -> None:
    """A finished run, a folder of configurations, a corpus: what the unmutated command lines find."""
    succeeded(forked("train", "experiment=smoke", *SMALL, "run_dir=run", folder=shared))
    (shared / "own" / "experiment").mkdir(parents=True)
    (shared / "own" / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 3\n")
    (shared / "corpus.jsonl").write_text('{"id": "0", "contents": "\\"Oslo\\"\\nOslo is a city."}\n')
    (shared / "o'brien").mkdir()


def mutated(words: Sequence[str], random_numbers: random.Random) -> list[str]:
    """One to three mutations of what follows the command."""
    first = 2 if words[0] == "data" else 1
    rest = list(words[first:])
    for _ in range(random_numbers.choice((1, 1, 2, 3))):
        place = random_numbers.randrange(len(rest)) if rest else 0
        word = rest[place] if rest else ""
        key, equals, value = word.partition("=")
        match random_numbers.randrange(8):
            case 0 | 1 | 2:
                odd = random_numbers.choice(ODD)
                rest[place : place + 1] = [f"{key}={odd}" if equals else odd]
            case 3:
                rest.insert(place, f"{random_numbers.choice(('', '+', '++', '~'))}{random_numbers.choice(KEYS)}"
                                   f"={random_numbers.choice(ODD)}")  # fmt: skip
            case 4 if equals:
                rest[place] = f"{random_numbers.choice(KEYS)}={value}"
            case 5:
                at = random_numbers.randrange(len(word) + 1)
                rest[place : place + 1] = [word[:at] + random_numbers.choice(",=[]{}()'\"\\:@~+.$ *é\x07") + word[at:]]
            case 6 if word:
                at = random_numbers.randrange(len(word))
                rest[place] = word[:at] + word[at + 1 :]
            case _:
                rest[place : place + 1] = random_numbers.choice(([], [word, word], [word, key]))
    return [*words[:first], *(word.replace("\0", "") for word in rest)]


def answers(shared: Path, line: Sequence[str], folder: Path) -> None:
    for path in shared.iterdir():
        if not path.name.startswith("."):
            (shutil.copytree if path.is_dir() else shutil.copy)(path, folder / path.name)
    before = contents(folder)
    finished = bounded(*line, folder=folder, env={"XDG_CACHE_HOME": str(shared / ".cache")})
    one_message(finished)
    if finished.code == 2:
        made = sorted(contents(folder) - before)
        check(not made, f"{', '.join(made[:5])} was made by {finished}")


def bounded(*words: str, folder: Path, env: Mapping[str, str] = {}) -> Finished:
    """A fork that is ended after `CPU_SECONDS` of work: on a busy machine the clock says little."""
    with start(words, folder, env) as running:
        resource.prlimit(running.pid, resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
        return running.wait(SECONDS)


def one_message(finished: Finished) -> None:
    """Success, or exit code 2 and one message."""
    check(finished.code in (0, 2), f"exit code {finished.code} from {finished}")
    starts = ("error: ", "╭─ Error")
    messages = sum(line.startswith(starts) for line in finished.output.splitlines())
    if messages != (finished.code == 2):
        raise Lost(f"{messages} messages with exit code {finished.code} from {finished}")
    check("Error executing job" not in finished.output, f"Hydra's own line in {finished}")


def contents(folder: Path) -> set[str]:
    """Names in the folder, of folders only those that are not in a run."""
    return {path.name for path in folder.iterdir() if not path.name.startswith(".output-")}
