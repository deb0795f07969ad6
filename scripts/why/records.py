"""Keep what a study has measured, small enough to commit, and lay it out again so that the same command goes on.

    python -m scripts.why.records pack ablations/alfworld-fair-... docs/studies/records/fair.tar.xz
    python -m scripts.why.records unpack docs/studies/records/fair.tar.xz ablations/alfworld-fair-...

Kept are the study's plan and tables, and of each finished cell `config.yaml`, `run.json`, `summary.json` and
`metrics.jsonl`: all that tables, winners and `scripts/why/recompute.py` read. Checkpoints and trajectories are not.
Equal studies are equal files.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import lzma
import statistics
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from scripts.why.recompute import read

Row = dict[str, str]
OF_THE_STUDY = ("study.json", "plan.json", "ablation.csv", "runs.csv")
OF_A_CELL = ("config.yaml", "run.json", "summary.json", "metrics.jsonl")


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("what", choices=("pack", "unpack"))
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    if arguments.what == "pack":
        cells = pack(arguments.source, arguments.target)
        print(f"{arguments.target}: {cells} finished cells, {arguments.target.stat().st_size:,} bytes")
    elif not arguments.source.is_file():
        parser.error(f"there is no record {arguments.source}")
    else:
        print(f"{arguments.target}: {unpack(arguments.source, arguments.target)} files")
    return 0


def pack(study: Path, archive: Path) -> int:
    """Returns the number of cells that were kept: those whose run is done. One that was stopped could not go on where
    it is laid out, without its checkpoint."""
    if not (study / "study.json").is_file():
        sys.exit(f"{study} is no study: it has no study.json")
    cells = sorted(path.parent for path in study.glob("*-s*/summary.json") if read(path).get("exit_code") == 0)
    files = [study / name for name in OF_THE_STUDY] + [cell / name for cell in cells for name in OF_A_CELL]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in files:
            if path.is_file():
                entry = tarfile.TarInfo(str(path.relative_to(study)))
                entry.size = path.stat().st_size
                with path.open("rb") as file:
                    tar.addfile(entry, file)
    archive.parent.mkdir(parents=True, exist_ok=True)
    archive.write_bytes(lzma.compress(buffer.getvalue(), preset=9 | lzma.PRESET_EXTREME))
    return len(cells)


def unpack(archive: Path, study: Path) -> int:
    """Files that are there already stay as they are. Returns the number of files that were written. Two may unpack at
    once, as `play` on two terminals does: no file is seen half written."""
    written = 0
    study.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, mode="r:xz") as tar, tempfile.TemporaryDirectory(dir=study.parent) as scratch:
        for entry in tar:
            if not (target := study / entry.name).exists():
                tar.extract(entry, scratch, filter="data")
                target.parent.mkdir(parents=True, exist_ok=True)
                Path(scratch, entry.name).replace(target)
                written += 1
    return written


def rows_of(archive: Path, name: str = "ablation.csv") -> list[Row]:
    """Of one of a study's tables; `ablation.csv` has a row for each variant, `runs.csv` one for each run."""
    return list(csv.DictReader(io.StringIO(member(archive, name))))


def member(archive: Path, name: str) -> str:
    """
    Raises:
        FileNotFoundError: there is no such archive.
        KeyError: it has no such file.
    """
    found = archive.stat()
    return _contents(archive, found.st_mtime_ns, found.st_size)[name].decode()


def study_of(archive: Path) -> dict[str, Any]:
    """study.json."""
    return dict(json.loads(member(archive, "study.json")))


@lru_cache(maxsize=2)
def _contents(archive: Path, mtime_ns: int, size: int) -> dict[str, bytes]:
    """All files of an archive, which is one stream: to find one in it takes as long as to read all."""
    with tarfile.open(archive, mode="r:xz") as tar:
        return {entry.name: file.read() for entry in tar if (file := tar.extractfile(entry)) is not None}


def of_cells(archive: Path, study: Mapping[str, Any], name: str) -> Iterator[tuple[str, int, str]]:
    """Variant, seed and the file `name` of every cell that is kept."""
    found = archive.stat()
    contents = _contents(archive, found.st_mtime_ns, found.st_size)
    for cell in study["cells"]:
        if text := contents.get(f"{cell['variant']}-s{cell['seed']}/{name}"):
            yield cell["variant"], cell["seed"], text.decode()


def values_of(archive: Path) -> dict[str, dict[int, float]]:
    """Variant -> seed -> what the study compares."""
    values: dict[str, dict[int, float]] = {}
    for row in rows_of(archive, "runs.csv"):
        values.setdefault(row["variant"], {})[int(row["seed"])] = float(row["value"])
    return values


def curves(archive: Path, study: Mapping[str, Any]) -> Iterator[tuple[str, int, list[dict[str, Any]]]]:
    """Variant, seed and the rows of metrics.jsonl of every cell that is kept."""
    for variant, seed, text in of_cells(archive, study, "metrics.jsonl"):
        yield variant, seed, [json.loads(line) for line in text.splitlines()]


def later_half(rows: Sequence[Mapping[str, Any]]) -> int:
    """The first update of a run's later half, of its metrics.jsonl: 7 of 12, 8 of 15."""
    return int(max(row["update"] for row in rows)) // 2 + 1


def late_success(archive: Path, study: Mapping[str, Any]) -> dict[str, dict[int, float]]:
    """Variant -> seed -> mean success of training episodes in the later half of the updates."""
    success: dict[str, dict[int, float]] = {}
    for variant, seed, rows in curves(archive, study):
        first = later_half(rows)
        late = [row for row in rows if row["update"] >= first and "episode/success_rate" in row]
        success.setdefault(variant, {})[seed] = statistics.fmean(row["episode/success_rate"] for row in late)
    return success


def by_temperature(file: Path) -> dict[float, dict[str, dict[int, float]]]:
    """What scripts/why/temperatures.py wrote: temperature -> variant -> seed -> success rate."""
    found: dict[float, dict[str, dict[int, float]]] = {}
    with file.open() as lines:
        for row in csv.DictReader(lines):
            of_variant = found.setdefault(float(row["temperature"]), {}).setdefault(row["variant"], {})
            of_variant[int(row["seed"])] = float(row["success_rate"])
    return found


def runs_of(archive: Path) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Variant, seed and run.json of every cell that is kept."""
    for variant, seed, text in of_cells(archive, study_of(archive), "run.json"):
        yield variant, seed, json.loads(text)


def split_seeds(archive: Path) -> list[int]:
    """Seeds whose arms were played on more than one platform: another CPU rounds otherwise, so they pair less well."""
    platforms: dict[int, set[str]] = {}
    for _, seed, run in runs_of(archive):
        platforms.setdefault(seed, set()).add(run["platform"])
    return sorted(seed for seed, found in platforms.items() if len(found) > 1)


def markdown(lines: Iterable[Sequence[str]]) -> str:
    """A table of cells, its second line the rule below the head."""
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
