"""Whole data of every form, the command that reads it, and what the command found."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import shutil
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from empg_cli.benchmarks.deepsearch.corpus import Passage
from empg_cli.benchmarks.deepsearch.index import build_index
from empg_cli.benchmarks.deepsearch.store import open_world
from empg_cli.benchmarks.deepsearch.world.build import WorldSpec
from empg_cli.benchmarks.webshop.generator import generate
from empg_cli.benchmarks.webshop.load import compile_webshop
from empg_cli.model.loading import packaged_agent
from scripts.archives import tar_of, zip_of
from tests.support.games import GAME, HEAT, PLACE
from tests.support.webshop import HUMAN, INSTRUCTIONS, ITEMS, as_official

PASSAGES = [Passage(f"p{n}", f"Title {n}", f"The text of number {n}; its square is {n * n}.") for n in range(60)]
QUESTIONS = [
    {"id": f"q{n}", "question": f"what is the square of {n}?", "golden_answers": [str(n * n)]} for n in range(60)
]


@dataclass(frozen=True)
class Sample:
    name: str
    whole: Path
    files: list[str]
    """Those that are damaged, below `whole`."""
    cases: int
    words: Callable[[Path, Path], list[str]]
    """The command, given the folder of data and where it may write."""
    result: Callable[[Path, str], tuple[str, Any]]
    """(digest, what was found), given where it wrote and its output."""
    has_checksums: bool = True


def samples(shared: Path) -> Iterator[Sample]:
    yield from _games(shared)
    yield from _products(shared)
    yield from _passages(shared)
    yield from _questions(shared)
    yield _world(shared)
    yield _model(shared)


def _expert(data: Path, out: Path, *words: str) -> list[str]:
    return ["eval", "policy=expert", f"run_dir={out}", "benchmark.eval_tasks=3", "logger.console=quiet", *words]


def _evaluated(out: Path, _: str) -> tuple[str, Any]:
    found = json.loads((out / "evaluation.json").read_text())
    return found["data"]["digest"], [found["total"], found["tasks"], found["policy"], found["data"]]


def _games(shared: Path) -> Iterator[Sample]:
    names = [
        f"json_2.1.1/{split}/{kind}/trial_{n}/game.tw-pddl"
        for split in ("train", "valid_seen", "valid_unseen")
        for kind in (PLACE, HEAT)
        for n in range(8)
    ]
    games = {name: json.dumps(GAME).encode() for name in names}
    forms = {"zip": zip_of(games), **{form: tar_of(games, form) for form in ("tar.gz", "tar.xz", "tar.bz2", "tar")}}
    for form, content in forms.items():
        whole = shared / f"games-{form}"
        whole.mkdir()
        (whole / f"games.{form}").write_bytes(content)
        yield Sample(
            f"games.{form}",
            whole,
            [f"games.{form}"],
            28 if form != "tar" else 14,
            lambda data, out, form=form: _expert(data, out, f"benchmark.data_dir={data / f'games.{form}'}"),  # type: ignore[misc]
            _evaluated,
            has_checksums=form != "tar",
        )
    whole = shared / "games-folder"
    for name, game in games.items():
        (whole / name).parent.mkdir(parents=True)
        (whole / name).write_bytes(game)
    damaged = [name for name in names if "valid_unseen" in name][:3]
    words = lambda data, out: _expert(data, out, f"benchmark.data_dir={data}")  # noqa: E731
    yield Sample("games in a folder", whole, damaged, 50, words, _evaluated, has_checksums=False)


def _products(shared: Path) -> Iterator[Sample]:
    official = dict(zip((ITEMS, INSTRUCTIONS, HUMAN), as_official(list(generate(30, seed=4))), strict=True))
    for form in ("json", "json.gz"):
        whole = shared / f"products-{form}"
        whole.mkdir()
        for name, value in official.items():
            content = json.dumps(value).encode()
            if form == "json":
                (whole / name).write_bytes(content)
            else:
                (whole / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))
        yield Sample(
            f"products.{form}",
            whole,
            sorted(path.name for path in whole.iterdir()),
            55,
            lambda data, out: ["data", "compile", "webshop", str(data), "--set", "small", "--out", str(out)],
            _compiled,
            has_checksums=form != "json",
        )
    whole = shared / "catalogue"
    made: Any = {"official_set": "small", "num_products": 40, "shop_seed": 0, "price_seed": 0}
    compile_webshop(None, str(whole), **made, progress=lambda _: None)
    files = sorted(path.name for path in whole.iterdir())
    words = lambda data, out: _expert(data, out, "benchmark=webshop", f"benchmark.data_dir={data}")  # noqa: E731
    yield Sample("catalogue", whole, files, 60, words, _evaluated)


def _compiled(out: Path, _: str) -> tuple[str, Any]:
    found = json.loads((out / "webshop-store.json").read_text())
    return found["crc32"].__repr__(), found


def _passages(shared: Path) -> Iterator[Sample]:
    import pyarrow
    from pyarrow import parquet

    rows = [{"id": passage.id, "title": passage.title, "text": passage.text} for passage in PASSAGES]
    table = "\r\n".join(["id,title,text", *(",".join(f'"{cell}"' for cell in row.values()) for row in rows)])
    contents = {
        "json": json.dumps(rows).encode(),
        "jsonl": "\n".join(map(json.dumps, rows)).encode(),
        "csv": table.encode(),
        "tsv": table.replace('","', '"\t"').replace("id,title,text", "id\ttitle\ttext").encode(),
    }
    contents |= {f"{form}.gz": gzip.compress(contents[form], mtime=0) for form in ("jsonl", "csv")}
    for form, content in contents.items():
        whole = shared / f"passages-{form}"
        whole.mkdir()
        (whole / f"corpus.{form}").write_bytes(content)
        yield _corpus(whole, form, 16, has_checksums=form.endswith("gz"))
    for compression, checked in (("snappy", False), ("gzip", True)):
        whole = shared / f"passages-{compression}"
        whole.mkdir()
        file = whole / "corpus.parquet"
        parquet.write_table(pyarrow.Table.from_pylist(rows), file, compression=compression, write_page_checksum=checked)
        yield _corpus(whole, "parquet", 15, has_checksums=False)


def _corpus(whole: Path, form: str, cases: int, *, has_checksums: bool) -> Sample:
    def words(data: Path, out: Path) -> list[str]:
        return ["data", "index", "deepsearch", "--corpus", str(data / f"corpus.{form}"), "--out", str(out)]

    def result(out: Path, _: str) -> tuple[str, Any]:
        found = json.loads((out / "index.json").read_text())
        return found["digest"], (out / "passages.jsonl").read_text()

    return Sample(f"{whole.name}", whole, [f"corpus.{form}"], cases, words, result, has_checksums=has_checksums)


def _questions(shared: Path) -> Iterator[Sample]:
    """Questions over an index: the questions damaged, and the index."""
    asked, index = shared / "questions", shared / "index"
    (asked / "nq").mkdir(parents=True)
    (asked / "nq" / "test.jsonl").write_text("\n".join(map(json.dumps, QUESTIONS)))
    build_index(PASSAGES, index)

    def play(questions: Path, engine: Path) -> list[str]:
        return [
            "play", "benchmark=deepsearch", f"benchmark.data_dir={questions}", "benchmark.split=test",
            f"benchmark.retrieval.index_dir={engine}",
        ]  # fmt: skip

    def shown(_: Path, output: str) -> tuple[str, Any]:
        return output, output

    yield Sample(
        "questions", asked, ["nq/test.jsonl"], 25, lambda data, out: play(data, index), shown, has_checksums=False
    )
    files = sorted(str(path.relative_to(index)) for path in index.rglob("*") if path.is_file() and path.stat().st_size)
    yield Sample("index", index, files, 40, lambda data, out: play(asked, data), shown)


def _world(shared: Path) -> Sample:
    """The kept world, searched by the expert."""
    cache = shared / "worlds"
    open_world(WorldSpec("fictional", 0, 0.2, 20, 3), cache)
    files = sorted(str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file() and path.stat().st_size)
    size = ["benchmark.world.scale=0.2", "benchmark.world.train_questions=20", "benchmark.world.test_questions=3"]
    return Sample(
        "world",
        cache,
        files,
        35,
        lambda data, out: _expert(data, out, "benchmark=deepsearch", f"benchmark.cache_dir={data}", *size),
        _evaluated,
    )


def _model(shared: Path) -> Sample:
    """A model folder has no checksums; a run records the digest of the weights that were read."""
    whole = shared / "model"
    shutil.copytree(packaged_agent("alfworld"), whole)

    def words(data: Path, out: Path) -> list[str]:
        return [
            "eval", "model=local", f"model.path={data}", "model.prompt=compact", f"run_dir={out}",
            "benchmark.eval_tasks=1", "benchmark.max_steps=3", "logger.console=quiet",
        ]  # fmt: skip

    def result(out: Path, _: str) -> tuple[str, Any]:
        found = json.loads((out / "evaluation.json").read_text())
        return json.dumps(found["policy"]) + repr((out / "trajectories").exists()), found["tasks"]

    files = ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]
    return Sample("model", whole, files, 36, words, result, has_checksums=False)


def _file(name: str, content: bytes, *words: str) -> Callable[[Path], list[str]]:
    def make(folder: Path) -> list[str]:
        (folder / name).write_bytes(content)
        return [word.format(folder / name) for word in words]

    return make


def _zeros(megabytes: int) -> bytes:
    """So many megabytes of zeros as gzip: a thousandth."""
    file = io.BytesIO()
    with gzip.open(file, "wb", compresslevel=9) as stream:
        for _ in range(megabytes):
            stream.write(bytes(1 << 20))
    return file.getvalue()


def _tar_bomb(size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A tar.gz whose one member says that it has `size` bytes, with 300 MB of zeros behind it."""
    info = tarfile.TarInfo(f"train/{PLACE}/trial/game.tw-pddl")
    info.size, info.type = size, kind
    file = io.BytesIO()
    with gzip.open(file, "wb", compresslevel=9) as stream:
        stream.write(info.tobuf(tarfile.GNU_FORMAT))
        for _ in range(300):
            stream.write(bytes(1 << 20))
    return file.getvalue()


def _pipe(folder: Path) -> list[str]:
    path = folder / f"train/{PLACE}/trial/game.tw-pddl"
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    return ["play", f"benchmark.data_dir={folder}"]


def _shop(name: str, content: bytes) -> Callable[[Path], list[str]]:
    def make(folder: Path) -> list[str]:
        for other in (ITEMS, INSTRUCTIONS):
            (folder / other).write_text("[]" if other == ITEMS else "{}")
        (folder / name.removesuffix(".gz")).unlink()
        (folder / name).write_bytes(content)
        return ["data", "compile", "webshop", str(folder), "--set", "small", "--out", str(folder / "out")]

    return make


_INDEX = ("data", "index", "deepsearch", "--corpus", "{}", "--out", "{}-out")
_PLAY = ("play", "benchmark.data_dir={}")
_NOISE = random.Random(0)
BOMBS: dict[str, Callable[[Path], list[str]]] = {
    "gzip of zeros, one line": _file("c.jsonl.gz", _zeros(400), *_INDEX),
    "gzip of blanks, an array": _file("c.json.gz", gzip.compress(b"[" + b" " * (300 << 20)), *_INDEX),
    "gzip of zeros as a table": _file("c.csv.gz", _zeros(400), *_INDEX),
    "a product of 300 MB": _shop(f"{ITEMS}.gz", gzip.compress(b'[{"asin": "' + b"a" * (300 << 20))),
    "instructions of 300 MB": _shop(f"{INSTRUCTIONS}.gz", gzip.compress(b'{"a": "' + b"a" * (300 << 20))),
    "deep JSON of passages": _file("c.json", b"[" * 2_000_000, *_INDEX),
    "deep JSON of a line": _file("c.jsonl", b'{"title":' * 500_000, *_INDEX),
    "deep JSON of products": _shop(ITEMS, b"[" * 2_000_000),
    "deep JSON of instructions": _shop(INSTRUCTIONS, b'{"a":' * 500_000),
    "a number of a million digits": _file(
        "c.jsonl", b'{"title": "a", "text": "b", "id": ' + b"9" * 1_000_000 + b"}", *_INDEX
    ),
    "a line without an end": _file("c.jsonl", b'"' + b"a" * (80 << 20), *_INDEX),
    "a cell without an end": _file("c.csv", b'title,text\n"' + b"a" * (10 << 20), *_INDEX),
    "a tar of zeros": _file("g.tar.gz", _tar_bomb(1 << 40), *_PLAY),
    "a sparse tar": _file("g.tar.gz", _tar_bomb(1 << 40, tarfile.GNUTYPE_SPARSE), *_PLAY),
    "a tar with a name of 300 MB": _file("g.tar.gz", _tar_bomb(300 << 20, tarfile.GNUTYPE_LONGNAME), *_PLAY),
    "a tar with a header of 300 MB": _file("g.tar.gz", _tar_bomb(300 << 20, tarfile.XHDTYPE), *_PLAY),
    "a tar that goes backwards": _file("g.tar.gz", _tar_bomb(-1024), *_PLAY),
    "a zip of zeros": _file(
        "g.zip", zip_of({f"train/{PLACE}/t{n}/game.tw-pddl": bytes(100 << 20) for n in range(3)}), *_PLAY
    ),
    "a pipe for a game": _pipe,
    "noise": _file("g.tar.gz", _NOISE.randbytes(100_000), *_PLAY),
}
