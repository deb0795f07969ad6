"""A corpus on disk: passages in a fixed order, memory-mapped, shared by every embedded search engine.

`passages.jsonl` holds one `[id, title, text, url]` per line, `offsets.npy` where each line starts, `crc32.npy` the
checksum of each, and `id_hashes.npy` with `id_rows.npy` map ids to rows (absent when ids are the row numbers, as in the
generated world and wiki-18). 21 million passages need no memory but the page cache, which all workers of a machine
share.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from empg_cli.errors import DataError
from empg_cli.invocation import command
from empg_cli.reading.guard import damaged, reading

PASSAGES: Final = "passages.jsonl"
_CHECKS: Final = "crc32.npy"


def build_command(directory: Path | str, *options: str) -> str:
    """The command that makes an index in a folder."""
    return command("data", "index", "deepsearch", *options, "--corpus", "FILE", "--out", str(directory))


@dataclass(frozen=True, slots=True)
class Passage:
    """What one search hit shows; `id` is what `open` takes."""

    id: str
    title: str
    text: str
    url: str = ""


class PassageStore:
    """Read access to a corpus directory. A page is the run of neighbouring passages under one title."""

    def __init__(self, directory: Path) -> None:
        path = directory / PASSAGES
        if not path.is_file():
            raise DataError(
                f"{directory} holds no corpus (passages.jsonl is missing); build it: " + build_command(directory)
            )
        self.directory = directory
        with reading(directory, f"Build it again: {build_command(directory)}"):
            self._offsets = np.load(directory / "offsets.npy", mmap_mode="r")
            self._checks = np.load(directory / _CHECKS, mmap_mode="r") if (directory / _CHECKS).is_file() else None
            with path.open("rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""
            self._id_hashes = self._id_rows = None
            if (directory / "id_hashes.npy").is_file():
                self._id_hashes = np.load(directory / "id_hashes.npy", mmap_mode="r")
                self._id_rows = np.load(directory / "id_rows.npy", mmap_mode="r")

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, row: int) -> Passage:
        line = self._bytes[self._offsets[row] : self._offsets[row + 1]]
        if self._checks is not None and zlib.crc32(line) != self._checks[row]:
            hint = f"Build it again: {build_command(self.directory)}"
            raise damaged(f"{self.directory / PASSAGES}, line {row + 1}", "not what was written", hint)
        return Passage(*json.loads(line))

    def __iter__(self) -> Iterator[Passage]:
        return (self[row] for row in range(len(self)))

    def row_of(self, id_: str) -> int | None:
        """The row of a passage id, None if there is no such passage."""
        if self._id_hashes is None or self._id_rows is None:
            row = int(id_) if id_.isascii() and id_.isdigit() and len(id_) < 19 else -1
            return row if 0 <= row < len(self) and self[row].id == id_ else None
        wanted = _hash(id_)
        at = int(np.searchsorted(self._id_hashes, wanted))
        while at < len(self._id_hashes) and self._id_hashes[at] == wanted:
            row = int(self._id_rows[at])
            if self[row].id == id_:
                return row
            at += 1
        return None

    def page(self, id_: str) -> Passage | None:
        """The whole page that the passage belongs to: its title and the text of all its passages, one a line. A passage
        without a title is a page of its own."""
        row = self.row_of(id_)
        if row is None:
            return None
        hit = self[row]
        if not hit.title:
            return Passage(hit.id, hit.title, hit.text, hit.url)
        first = last = row
        while first > 0 and self[first - 1].title == hit.title:
            first -= 1
        while last + 1 < len(self) and self[last + 1].title == hit.title:
            last += 1
        return Passage(hit.id, hit.title, "\n".join(self[r].text for r in range(first, last + 1)), hit.url)


def write_corpus(passages: Iterable[Passage], directory: Path) -> PassageStore:
    """Write passages in order. Raises DataError for a duplicate id or an empty corpus."""
    directory.mkdir(parents=True, exist_ok=True)
    offsets, checks, hashes, ids_are_rows = [0], [], [], True
    with (directory / PASSAGES).open("wb") as file:
        for row, passage in enumerate(passages):
            fields = [passage.id, passage.title, passage.text] + ([passage.url] if passage.url else [])
            line = json.dumps(fields, ensure_ascii=False).encode() + b"\n"
            offsets.append(offsets[-1] + file.write(line))
            checks.append(zlib.crc32(line))
            hashes.append(_hash(passage.id))
            ids_are_rows = ids_are_rows and passage.id == str(row)
    if not hashes:
        raise DataError(f"the corpus written to {directory} is empty: nothing could be searched")
    np.save(directory / "offsets.npy", np.array(offsets, dtype=np.int64))
    np.save(directory / _CHECKS, np.array(checks, dtype=np.uint32))
    if not ids_are_rows:
        hash_by_row = np.array(hashes, dtype=np.uint64)
        order = np.argsort(hash_by_row, kind="stable")
        np.save(directory / "id_hashes.npy", hash_by_row[order])
        np.save(directory / "id_rows.npy", order)
        _refuse_duplicate_ids(PassageStore(directory), hash_by_row[order], order)
    return PassageStore(directory)


def _hash(id_: str) -> int:
    return int.from_bytes(hashlib.blake2b(id_.encode(), digest_size=8).digest(), "big")


def _refuse_duplicate_ids(store: PassageStore, hashes: np.ndarray, rows: np.ndarray) -> None:
    for at in np.flatnonzero(hashes[1:] == hashes[:-1]):
        first, second = int(rows[at]), int(rows[at + 1])
        if store[first].id == store[second].id:
            raise DataError(f"passage id {store[first].id!r} occurs twice in the corpus (rows {first} and {second})")
