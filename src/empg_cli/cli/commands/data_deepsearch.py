"""`empg data index deepsearch` and `empg data serve deepsearch`: search engines of one's own."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from empg_cli.benchmarks.base import DataError
from empg_cli.benchmarks.building import built_aside
from empg_cli.benchmarks.deepsearch.index import EmbeddedEngine, Progress, build_index
from empg_cli.benchmarks.deepsearch.official.corpora import read_corpus
from empg_cli.cli.interrupts import interruptible
from empg_cli.cli.jobs import COMMAND_LINE
from empg_cli.cli.path_errors import writing
from empg_cli.invocation import command
from empg_cli.observe.console import get_console, is_watched
from empg_cli.observe.terminal import printable, write_line
from empg_cli.services.listening import address, bound, serve_until_stopped

LINE_EVERY = 100_000


def index(
    corpora: Sequence[Path],
    out: Path,
    engine: EmbeddedEngine,
    *,
    encoder: str | None,
    pooling: Literal["mean", "cls"],
    query_prefix: str,
    passage_prefix: str,
    device: str,
) -> None:
    """Index the passages of the files, in order, into the new folder `out`; print how to search it.

    Args:
        encoder: folder or hub id of the model for the engine `dense`; the settings after it are read by `dense` only.
    """
    if missing := [str(path) for path in corpora if not path.is_file()]:
        raise DataError(f"no such corpus file: {', '.join(missing)}")  # before the folder is made
    dense = _dense_options(engine, encoder, pooling, query_prefix, passage_prefix, device)
    passages = chain.from_iterable(read_corpus(path) for path in corpora)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} is not empty; give another --out or delete it first")
    again = command(*COMMAND_LINE[1:])
    with writing(out), interruptible(again), _progress() as progress, built_aside(out) as folder:
        store = build_index(passages, folder, engine, progress=progress, dense=dense)
    write_line(sys.stderr, f"{len(store):,} passages in {out}")
    print(f"benchmark.retrieval.engine={engine} benchmark.retrieval.index_dir={out}")


def serve(
    index_dir: Path | None,
    *,
    mode: Literal["fictional", "real"],
    seed: int,
    cache_dir: Path | None,
    host: str,
    port: int,
    top_k: int,
) -> None:
    """Serve an index folder, or without one the generated world of conf/benchmark/deepsearch.yaml, until stopped."""
    from empg_cli.benchmarks.deepsearch.search import open_index
    from empg_cli.benchmarks.deepsearch.serve import RetrieveApp, refuse_without_uvicorn

    def say(line: str) -> None:
        write_line(sys.stderr, printable(line))

    refuse_without_uvicorn()
    hint = "give another --host or --port, or --port 0 for a free one"
    with interruptible(command(*COMMAND_LINE[1:])), bound(host, port, hint=hint) as listening:
        directory = _world_index(mode, seed, cache_dir) if index_dir is None else index_dir
        app = RetrieveApp(open_index(directory), top_k)
        listening.listen()  # who reads the next line may connect
        say(f"serving {directory} at {address(host, listening)}/retrieve; Ctrl-C ends it")
        serve_until_stopped(app, listening, say)


def _world_index(mode: Literal["fictional", "real"], seed: int, cache_dir: Path | None) -> Path:
    from empg_cli.benchmarks.deepsearch.store import open_world
    from empg_cli.benchmarks.deepsearch.world.build import WorldSpec
    from empg_cli.config import load
    from empg_cli.config.deepsearch import Deepsearch

    words = [f"benchmark.world.mode={mode}", f"benchmark.world.seed={seed}"]
    settings = load(["benchmark=deepsearch", *words], "eval").benchmark
    assert isinstance(settings, Deepsearch)
    world = settings.world
    spec = WorldSpec(world.mode, world.seed, world.scale, world.train_questions, world.test_questions)
    return open_world(spec, cache_dir).index_dir("tantivy")


def _dense_options(
    engine: EmbeddedEngine,
    encoder: str | None,
    pooling: Literal["mean", "cls"],
    query_prefix: str,
    passage_prefix: str,
    device: str,
) -> Mapping[str, Any] | None:
    if engine != "dense":
        if encoder is not None:
            raise DataError(f"--encoder is read with --engine dense, not {engine}")
        return None
    if encoder is None:
        raise DataError(
            "--engine dense needs --encoder MODEL: a Hugging Face folder or hub id, such as intfloat/e5-base-v2"
        )
    from empg_cli.benchmarks.deepsearch.retrieval.dense import EncoderSpec

    return {"encoder": EncoderSpec(encoder, pooling, query_prefix, passage_prefix), "device": device}


@contextmanager
def _progress() -> Iterator[Progress]:
    """A live count where somebody watches, a line every hundred thousand passages elsewhere."""
    if not is_watched():

        def report(phase: str, rows: int) -> None:
            if rows % LINE_EVERY == 0:
                write_line(sys.stderr, f"{phase}: {rows:,} passages")

        yield report
        return
    from rich.progress import Progress as Bar
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TextColumn("{task.completed:,.0f} passages"),
        TimeElapsedColumn(),
    )
    with Bar(*columns, console=get_console(), transient=True) as bar:
        lines: dict[str, Any] = {}

        def count(phase: str, rows: int) -> None:
            if phase not in lines:
                lines[phase] = bar.add_task(phase, total=None)
            bar.update(lines[phase], completed=rows)

        yield count
