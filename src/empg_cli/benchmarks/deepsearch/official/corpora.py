"""Corpora to index: wiki-18 jsonl (`id`, `contents`: quoted title, line break, text) and `{"title", "text"}` files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from empg_cli.benchmarks.deepsearch.corpus import Passage
from empg_cli.benchmarks.deepsearch.official.rows import Row, read_rows
from empg_cli.errors import DataError
from empg_cli.reading.guard import plain_text, reading


def read_corpus(path: Path) -> Iterator[Passage]:
    """The passages of a corpus file, in order. Ids are the file's own, else row numbers from 0."""
    if not path.is_file():
        raise DataError(f"no such corpus file: {path}")
    for number, row in read_rows(path):
        with reading(f"{path}, row {number}"):
            title, text = _title_and_text(row)
            url = plain_text(row.get("url") or "", "url")
            id_ = row.get("id", row.get("_id", number - 1))
            id_ = str(id_) if isinstance(id_, int) else plain_text(id_, "id")
        if not title and not text:
            raise DataError(
                f'{path}, row {number}: a passage needs "contents" (title on its first line), or "title" and "text"; '
                f"got the keys {', '.join(sorted(row)) or 'none'}"
            )
        yield Passage(id_, title, text, url)


def split_contents(contents: str) -> tuple[str, str]:
    """Title and text of wiki-18's `contents`: the title is the first line, in quotes."""
    title, _, text = contents.partition("\n")
    title = title.strip()
    if len(title) > 1 and title[0] == title[-1] == '"':  # this pair alone: a title may end in a quotation
        title = title[1:-1]
    return title, text.strip()


def _title_and_text(row: Row) -> tuple[str, str]:
    if row.get("contents"):
        return split_contents(plain_text(row["contents"], "contents"))
    title, text = row.get("title") or "", row.get("text") or row.get("content") or ""
    return plain_text(title, "title").strip(), plain_text(text, "text").strip()
