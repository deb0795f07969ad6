"""600 damaged data files through the real command line.

After a fault the command ends with exit code 2 and one message that names the file, or with 0. With 0 the damage did no
harm: what was read is what the whole files hold. How that is known depends on the form:

* archives, gzip, and what empg compiles have checksums: the result must be that of the whole files, digest and all;
* plain text and Parquet have none: the result may differ where its digest does, since a run records that.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.faults.case import Case, Lost, check, succeeded
from scripts.faults.data_samples import BOMBS, Sample, samples
from scripts.faults.process import forked
from scripts.fuzz.inputs import DEEP, changed_bytes, changed_json

SLOWEST_S = 60
"""Of wall clock on a loaded machine; a bomb that is unpacked takes longer, and the memory of the machine."""


def cases(shared: Path, random_numbers: random.Random) -> Iterator[Case]:
    os.environ["XDG_CACHE_HOME"] = str(shared / "cache")
    _import_readers()
    for sample in samples(shared):
        good = Straight(sample, shared / f"{sample.name}-straight")
        for number in range(sample.cases):
            file = random_numbers.choice(sample.files)
            how = random_numbers.choice(list(DAMAGES))
            seed = random_numbers.getrandbits(32)
            name = f"{sample.name}: {file} {how} ({number})"
            yield Case(name, _damaged(sample, good, file, DAMAGES[how], seed))
    for name, make in BOMBS.items():
        yield Case(f"bomb: {name}", _bomb(make))


def _import_readers() -> None:
    """Once, before the forks."""
    import hydra
    import pyarrow.parquet  # noqa: F401

    import empg_cli.benchmarks.alfworld.benchmark
    import empg_cli.benchmarks.deepsearch.benchmark
    import empg_cli.benchmarks.deepsearch.retrieval.tantivy
    import empg_cli.benchmarks.webshop.benchmark
    import empg_cli.cli.app
    import empg_cli.cli.launch
    import empg_cli.evaluation.run_eval  # noqa: F401

    assert hydra


@dataclass
class Straight:
    """What the command finds in the whole files; made when the first case asks."""

    sample: Sample
    folder: Path
    _found: Any = None

    @property
    def found(self) -> Any:
        if self._found is None:
            self._found = _run(self.sample, self.sample.whole, self.folder)
        return self._found


Damage = Callable[[bytes, random.Random], bytes]


def _odd_json(content: bytes, numbers: random.Random) -> bytes:
    """A value of another type somewhere, where the file is JSON; bits flipped elsewhere."""
    try:
        value = json.loads(content)
    except ValueError:
        return changed_bytes(content, numbers)
    return changed_json(value, numbers)


DAMAGES: dict[str, Damage] = {
    "flipped": lambda content, numbers: _flip(content, numbers),
    "flipped again": lambda content, numbers: _flip(content, numbers),
    "cut off": lambda content, numbers: content[: numbers.randrange(len(content) + 1)],
    "with a hole": lambda content, numbers: _hole(content, numbers),
    "zeroed": lambda content, numbers: _hole(content, numbers, fill=True),
    "empty": lambda content, numbers: b"",
    "of other types": _odd_json,
    "in another encoding": lambda content, numbers: content.decode("latin-1").encode(
        numbers.choice(["utf-16", "utf-32", "utf-8"])
    ),
    "nested": lambda content, numbers: numbers.choice(DEEP),
    "mixed": changed_bytes,
    "noise": lambda content, numbers: numbers.randbytes(len(content)),
}


def _flip(content: bytes, numbers: random.Random) -> bytes:
    damaged = bytearray(content)
    if damaged:
        damaged[numbers.randrange(len(damaged))] ^= 1 << numbers.randrange(8)
    return bytes(damaged)


def _hole(content: bytes, numbers: random.Random, *, fill: bool = False) -> bytes:
    start = numbers.randrange(len(content) + 1)
    end = min(len(content), start + numbers.choice([1, 30, 500]))
    return content[:start] + (bytes(end - start) if fill else b"") + content[end:]


def _damaged(sample: Sample, good: Straight, file: str, damage: Damage, seed: int) -> Callable[[Path], object]:
    def run(folder: Path) -> None:
        whole = good.found
        place = folder / "data"
        shutil.copytree(sample.whole, place)
        (place / file).write_bytes(damage((place / file).read_bytes(), random.Random(seed)))
        found = _run(sample, place, folder, refusable=file)
        if found is None or found == whole:
            return
        check(not sample.has_checksums, f"another result, and nothing was said: {str(found)[:300]}")
        check(found[0] != whole[0], f"another result with the same digest: {str(found)[:300]}")

    return run


def _run(sample: Sample, data: Path, folder: Path, *, refusable: str | None = None) -> Any:
    """(digest, result) of the command; None where it was refused as it must be."""
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / "out"
    finished = forked(*sample.words(data, out), folder=folder, timeout=SLOWEST_S)
    if refusable is not None and finished.code == 2:
        named = " ".join(finished.output.split())
        parts = (Path(refusable).name, data.name, str(data))
        flat = "".join(finished.output.split()).replace("│", "").replace("|", "")
        check(any(part in named or part in flat for part in parts), f"the file is not named by {finished}")
        return None
    succeeded(finished)
    return sample.result(out, finished.output)


def _bomb(make: Callable[[Path], list[str]]) -> Callable[[Path], object]:
    def run(folder: Path) -> None:
        finished = forked(*make(folder), folder=folder, timeout=SLOWEST_S)
        if finished.code != 2:
            raise Lost(f"exit code {finished.code}, not 2, from {finished}")

    return run
