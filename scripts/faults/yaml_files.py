"""200 mutated YAML files and those that people write by mistake: an experiment of one's own, options of other groups, a
primary configuration, and `config.yaml` of a run. Each ends soon, with success or with one message."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from scripts.faults.case import Case, check, refused
from scripts.faults.command_lines import SMALL, bounded, one_message, prepare

MUTANTS = 200
CONF = Path(__file__).parents[2] / "conf"
GLOBAL = "# @package _global_\n"
SECRET = "sk-proj-a1B2c3D4e5F6g7H8i9J0"

OWN: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("experiment/mine.yaml", "experiment/smoke.yaml", ("train", "experiment=mine", *SMALL, "run_dir=run")),
    ("experiment/mine.yaml", "experiment/smoke.yaml", ("train", "experiment=mine", "--cfg", "job", "--resolve")),
    ("algo/mine.yaml", "algo/dapo_empg.yaml", ("train", "experiment=smoke", "algo=mine", *SMALL, "run_dir=run")),
    ("model/mine.yaml", "model/tiny-scratch.yaml", ("train", "experiment=smoke", "model=mine", *SMALL, "run_dir=run")),
    ("benchmark/mine.yaml", "benchmark/webshop.yaml", ("eval", "benchmark=mine", "policy=expert", "seeds=[]")),
    ("ablation/mine.yaml", "ablation/zeta.yaml", ("ablate", "ablation=mine", "experiment=smoke", "--plan")),
    ("train.yaml", "train.yaml", ("train", "experiment=smoke", *SMALL, "run_dir=run")),
)
"""(a file of the user's, what it is a mutant of, the command that reads it); a mutant that is valid meets a run in its
folder, which is refused as well, or is only shown."""
RUN: tuple[tuple[str, ...], ...] = (
    ("show", "run"),
    ("report", "run", "--no-figures"),
    ("eval", "run=run", *SMALL),
    ("eval", "--compare", "run", "run"),
    ("train", "--resume", "run"),
)
"""What reads `config.yaml` of a run."""

ALIAS_BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
LONG_CHAIN = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 500))
BROKEN: dict[str, bytes] = {
    "an alias bomb": ALIAS_BOMB.encode(),
    "a chain of aliases": LONG_CHAIN.encode(),
    "an alias of itself": b"a: &a [*a]\n",
    "binary": bytes(range(256)) * 8,
    "a tab": b"seed: 1\n\ttrainer: {}\n",
    "a key twice": b"seed: 1\nseed: 2\n",
    "an open bracket": b"trainer: {lr: [1\nseed: 3\n",
    "a colon too many": b"a: b: c\n",
    "deep nesting": b"a: " + b"[" * 2000 + b"]" * 2000,
    "nesting below what the parser takes": b"a: " + b"[" * 100 + b"]" * 100,
    "a huge integer": b"seed: " + b"9" * 5000,
    "a Python object": b'a: !!python/object/apply:os.system ["touch made"]\n',
    "an unknown tag": b"a: !thing 1\n",
    "a bad integer": b"seed: !!int abc\n",
    "UTF-16": "seed: 1\n".encode("utf-16"),
    "Latin-1": "name: naïve\n".encode("latin-1"),
    "a list": b"- 1\n- 2\n",
    "a text": b"just a text\n",
    "two documents": b"a: 1\n---\nb: 2\n",
    "a list for a key": b"? [1, 2]\n: 3\n",
    "a set": b"trainer: !!set {a, b}\n",
    "a bad merge": b"<<: 5\n",
    "a megabyte": b"a: " + b"x" * 1_000_000,
    "a NUL": b"seed: 1\x00\n",
    "an undefined alias": b"seed: *nobody\n",
    "a login": b"benchmark: {retrieval: {base_url: 'http://me:hunter2hunter2@host'}}\n",
    "a key": f"benchmark: {{judge: {{api_key_env: {SECRET}}}}}\n".encode(),
    "NaN": b"trainer: {lr: .nan}\n",
    "an interpolation to nowhere": b"seed: ${nobody}\n",
    "defaults that are a number": b"defaults: 3\n",
    "defaults that are nowhere": b"defaults: [nobody]\n",
}
GOOD: dict[str, bytes] = {
    "anchors": b"seed: &a 1\nrollout: {eval_temperature: *a}\n",
    "a merge": b"trainer:\n  <<: {lr: 1e-5}\n  threads: 1\n",
    "nothing": b"",
}


def cases(shared: Path, random_numbers: random.Random) -> Iterator[Case]:
    prepare(shared)
    for name, content in BROKEN.items():
        experiment = partial(
            own_file, shared, "experiment/mine.yaml", GLOBAL.encode() + content, OWN[0][2], is_bad=True
        )
        yield Case(f"experiment with {name}", experiment)
    for name, content in GOOD.items():
        yield Case(f"experiment with {name}", partial(good_file, shared, GLOBAL.encode() + content))
    for number, (name, content) in enumerate({**BROKEN, "nothing": b""}.items()):
        is_seen = name not in ("a login", "a key", "NaN", "an interpolation to nowhere")
        text = content if is_seen else saved(shared, content)
        yield Case(f"config.yaml with {name}", partial(run_file, shared, text, RUN[number % len(RUN)], is_bad=is_seen))
    for number in range(MUTANTS):
        if number % 2:
            where, of, words = OWN[number // 2 % len(OWN)]
            content = mutated((CONF / of).read_bytes(), random_numbers)
            yield Case(f"mutant {number} of {where}", partial(own_file, shared, where, content, words))
        else:
            content = mutated((shared / "run" / "config.yaml").read_bytes(), random_numbers)
            words = RUN[number // 2 % len(RUN)]
            yield Case(f"mutant {number} of config.yaml", partial(run_file, shared, content, words))


def saved(shared: Path, content: bytes) -> bytes:
    """The configuration of a run, with one more section at its end."""
    return (shared / "run" / "config.yaml").read_bytes() + b"more:\n  " + content


def mutated(content: bytes, random_numbers: random.Random) -> bytes:
    """One to four mutations of bytes, of characters that mean something, or of whole lines."""
    for _ in range(random_numbers.choice((1, 1, 2, 4))):
        at = random_numbers.randrange(len(content) + 1)
        lines = content.splitlines(keepends=True) or [b""]
        line = random_numbers.randrange(len(lines))
        match random_numbers.randrange(8):
            case 0:
                content = content[:at]
            case 1:
                content = content[:at] + bytes([random_numbers.randrange(256)]) + content[at + 1 :]
            case 2:
                content = content[:at] + random_numbers.choice(MARKS) + content[at:]
            case 3:
                content = b"".join([*lines[:line], *lines[line + 1 :]])
            case 4:
                content = b"".join([*lines[: line + 1], *lines[line:]])
            case 5:
                content = b"".join([*lines[:line], b"  ", *lines[line:]])
            case _:
                content = with_value(lines, line, random_numbers.choice(VALUES))
    return content


MARKS = (
    b":", b"- ", b"[", b"}", b"*a", b"&a ", b"!!int ", b"\t", b"\n", b"'", b'"', b"#", b"|", b"%", b"@", b"\xff", b"${",
)  # fmt: skip
VALUES = (
    b"", b"null", b"-1", b"0", b"1e400", b".nan", b"[]", b"{}", b"yes", b"???", b"${seed}", b"'x'", b"2026-01-01",
    b"[[1]]", b"!!binary aGk=", b"{a: {b: 1}}", b"0x10", b"1:30", b"!!float x", b"*a", b"|\n    text",
)  # fmt: skip


def with_value(lines: Sequence[bytes], place: int, value: bytes) -> bytes:
    key, colon, _ = lines[place].partition(b":")
    return b"".join([*lines[:place], key + (colon or b":") + b" " + value + b"\n", *lines[place + 1 :]])


def own_file(
    shared: Path, where: str, content: bytes, words: Sequence[str], folder: Path, *, is_bad: bool = False
) -> None:
    """In a folder given by --config-dir."""
    shutil.copytree(shared / "run", folder / "run")
    file = folder / "own" / where
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    before = set(folder.rglob("*"))
    finished = bounded(*words[:1], "--config-dir", "own", *words[1:], folder=folder)
    one_message(finished)
    check(SECRET not in finished.output and "hunter2" not in finished.output, f"a secret is repeated by {finished}")
    if is_bad:
        refused(finished)
        made = {path for path in set(folder.rglob("*")) - before if not path.name.startswith(".output-")}
        check(not made, f"{made} was made by {finished}")


def good_file(shared: Path, content: bytes, folder: Path) -> None:
    """What looks odd and is right is taken."""
    file = folder / "own" / "experiment" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    finished = bounded("train", "--config-dir", "own", "experiment=mine", "--cfg", "job", folder=folder)
    check(finished.code == 0, f"exit code {finished.code} from {finished}")


def run_file(shared: Path, content: bytes, words: Sequence[str], folder: Path, *, is_bad: bool = False) -> None:
    shutil.copytree(shared / "run", folder / "run")
    (folder / "run" / "config.yaml").write_bytes(content)
    finished = bounded(*words, folder=folder)
    one_message(finished)
    check(SECRET not in finished.output and "hunter2" not in finished.output, f"a secret is repeated by {finished}")
    if is_bad:
        refused(finished)
