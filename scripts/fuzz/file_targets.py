"""Data files: games, archives, products, questions, corpora, indexes."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import strategies as st

from scripts.archives import tar_of, zip_of
from scripts.fuzz.inputs import RANDOM, changed_bytes, changed_json, changed_value
from scripts.fuzz.target import Target, Wrong

PDDL = tuple(
    word.encode()
    for word in (
        "(",
        ")",
        "(:init",
        "(:goal",
        "; ",
        "(and ",
        "(holds a b)",
        "(atLocation a b)",
        "(objectType x)",
        "( )",
    )
)


def pddl(folder: Path) -> Target:
    """One game: its JSON, its PDDL text, its play."""
    from empg_cli.benchmarks.alfworld.checks import refuse_unplayable
    from empg_cli.benchmarks.alfworld.engine import AlfworldEnv
    from empg_cli.benchmarks.alfworld.expert import explore
    from empg_cli.benchmarks.alfworld.pddl import parse_game
    from empg_cli.reading.guard import json_of, reading
    from empg_cli.types import Task
    from tests.support.games import GAME

    def inputs(random: Random) -> bytes:
        if random.random() < 0.4:
            return changed_json(GAME, random)
        problem = changed_bytes(str(GAME["pddl_problem"]).encode(), random, PDDL).decode("utf-8", "replace")
        return json.dumps({**GAME, "pddl_problem": problem}).encode()

    def run(content: bytes) -> None:
        values = json_of(content, "game")
        with reading("game"):  # as `OfficialGame.compile` does
            game = parse_game(values)
        refuse_unplayable(game)
        env = AlfworldEnv(Task("t", "k", "s"), game)
        env.reset()
        for action in explore(env, Random(0)):
            env.step(action)

    return Target(RANDOM.map(inputs), run)


def alfworld(folder: Path) -> Target:
    """Folders and archives of games. Archives that are opened hold the games that were packed."""
    from empg_cli.benchmarks.alfworld.data import open_games
    from tests.support.games import GAME, HEAT, PLACE

    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    members = {
        f"json_2.1.1/{split}/{kind}/trial_{n}/game.tw-pddl": json.dumps(GAME).encode()
        for split in ("train", "valid_seen")
        for kind in (PLACE, HEAT)
        for n in range(3)
    }
    packed = {
        ".zip": zip_of(members),
        **{suffix: tar_of(members, suffix) for suffix in (".tar", ".tar.gz", ".tar.xz", ".tar.bz2")},
    }
    (folder / "good.zip").write_bytes(packed[".zip"])
    digest = open_games(str(folder / "good.zip")).digest

    def inputs(random: Random) -> tuple[str, bytes]:
        suffix = random.choice([*packed, "folder"])
        if suffix == "folder":
            return suffix, changed_json(GAME, random)
        return suffix, changed_bytes(packed[suffix], random)

    def run(given: tuple[str, bytes]) -> None:
        suffix, content = given
        if suffix == "folder":
            place = folder / "games"
            for name, game in members.items():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                (place / name).write_bytes(game)
            (place / next(iter(members))).write_bytes(content)
        else:
            place = folder / f"games{suffix}"
            place.write_bytes(content)
        try:
            games = open_games(str(place))
            if suffix not in ("folder", ".tar") and games.digest != digest:  # these two have no checksum
                raise Wrong(f"{suffix}: other games, digest {games.digest}")
            for split in games.games.values():
                for official in split:
                    official.compile()
        finally:
            shutil.rmtree(folder / "cache", ignore_errors=True)

    return Target(RANDOM.map(inputs), run, seconds=4)


def webshop(folder: Path) -> Target:
    """WebShop's three files, opened, searched and played."""
    from empg_cli.benchmarks.webshop.generator import generate
    from empg_cli.config import load
    from tests.support.webshop import HUMAN, INSTRUCTIONS, ITEMS, as_official

    official = dict(zip((ITEMS, INSTRUCTIONS, HUMAN), as_official(list(generate(12, seed=4))), strict=True))
    keys = load(
        ["benchmark=webshop", f"benchmark.data_dir={folder}", "benchmark.split_scheme=by_product"]
    ).benchmark.model_dump()

    def inputs(random: Random) -> tuple[str, bytes]:
        name = random.choice([ITEMS, ITEMS, INSTRUCTIONS, HUMAN])
        content = changed_json(official[name], random)
        if random.random() < 0.3:
            return f"{name}.gz", changed_bytes(gzip.compress(content), random)
        return name, content

    def run(given: tuple[str, bytes]) -> None:
        from empg_cli.benchmarks import make_benchmark

        for path in folder.iterdir():
            path.unlink()
        name, content = given
        for other, value in official.items():
            (folder / other).write_text(json.dumps(value))
        (folder / name.removesuffix(".gz")).unlink()
        (folder / name).write_bytes(content)
        benchmark = make_benchmark(**keys)
        for task in list(benchmark.tasks("train"))[:3]:
            env = benchmark.make_env(task)
            env.reset()
            for action in benchmark.expert(env):
                env.step(action)

    return Target(RANDOM.map(inputs), run)


def catalogue(folder: Path) -> Target:
    """A compiled catalogue with a damaged file: refused, or the same products."""
    from empg_cli.benchmarks.webshop.load import compile_webshop, open_shop

    whole = folder / "whole"
    made: Any = {"official_set": "small", "num_products": 20, "shop_seed": 0, "price_seed": 0}
    compile_webshop(None, str(whole), **made, progress=lambda _: None)
    options: Any = {**made, "goals": "synthetic", "nouns": "words", "show_attributes": False}

    def read(place: Path) -> Any:
        shop, source = open_shop(str(place), **options)
        goals = [shop.goals[number] for number in range(len(shop.goals))]
        return (
            source,
            [*map(shop.products.__getitem__, range(len(shop.products)))],
            goals,
            shop.search("red shirt for men"),
        )

    good = repr(read(whole))

    def run(given: tuple[str, bytes]) -> None:
        if repr(read(_replaced(whole, folder / "now", given))) != good:
            raise Wrong(f"another shop, with {given[0]}")

    return Target(RANDOM.map(lambda random: _damaged_file(whole, random)), run)


def rows(folder: Path) -> Target:
    """Questions and corpora as JSON, JSON Lines and tables, gzip or not."""
    from empg_cli.benchmarks.deepsearch.official.corpora import read_corpus
    from empg_cli.benchmarks.deepsearch.official.questions import load_folder

    values: list[dict[str, Any]] = [
        {"id": "q1", "question": "who is it", "golden_answers": ["Ann", "Bob"], "contents": '"A"\ntext', "url": "u"},
        {"_id": "q2", "question": "where", "answer": "Rome", "answer_aliases": ["Roma"], "title": "B", "text": "b"},
        {"data_source": "nq", "prompt": [{"content": "Question: when"}],
         "reward_model": {"ground_truth": {"target": ["1"]}}, "extra_info": {"index": 3}, "title": "C", "content": "c"},
    ]  # fmt: skip
    table = b'Question,Answer,title,text\r\nwho,Ann,A,a\r\n"where, then",Rome,B,b\r\n'

    def inputs(random: Random) -> tuple[str, bytes]:
        suffix = random.choice([".json", ".jsonl", ".csv", ".tsv"])
        if suffix == ".json":
            content = changed_json(values, random)
        elif suffix == ".jsonl":
            content = b"\n".join(
                changed_json(value, random) if random.random() < 0.4 else json.dumps(value).encode() for value in values
            )
        else:
            text = table if suffix == ".csv" else table.replace(b",", b"\t")
            content = changed_bytes(text, random, [b",", b'"', b"\r", b"\n\n", b"\t"])
        if random.random() < 0.2:
            packed = gzip.compress(content)
            return f"test{suffix}.gz", changed_bytes(packed, random) if random.random() < 0.8 else packed
        return f"test{suffix}", content

    def run(given: tuple[str, bytes]) -> None:
        path = folder / given[0]
        path.write_bytes(given[1])
        try:
            _both(lambda: load_folder(folder), lambda: [repr(passage).encode() for passage in read_corpus(path)])
        finally:
            path.unlink()

    return Target(RANDOM.map(inputs), run)


def _both(*readers: Any) -> None:
    """Each, although the one before may refuse."""
    from empg_cli.errors import UserError

    for reader in readers:
        try:
            reader()
        except UserError:
            continue


def parquet(folder: Path) -> Target:
    import pyarrow
    from pyarrow import parquet as files

    from empg_cli.benchmarks.deepsearch.official.questions import load_questions

    rows = [
        {"question": f"q{n}", "golden_answers": [f"a{n}"], "extra_info": {"index": n}, "data_source": "nq"}
        for n in range(50)
    ]
    samples = []
    for compression, checked in (("snappy", False), ("gzip", True), ("none", False), ("zstd", False)):
        files.write_table(
            pyarrow.Table.from_pylist(rows), folder / "s", compression=compression, write_page_checksum=checked
        )
        samples.append((folder / "s").read_bytes())

    def run(content: bytes) -> None:
        (folder / "test.parquet").write_bytes(content)
        load_questions(folder / "test.parquet", "test", source="nq")

    inputs = st.tuples(RANDOM, st.sampled_from(samples)).map(lambda pair: changed_bytes(pair[1], pair[0]))
    return Target(inputs, run)


def index(folder: Path) -> Target:
    """An index with a damaged file: refused, or the same answers."""
    import asyncio

    from empg_cli.benchmarks.deepsearch.corpus import Passage
    from empg_cli.benchmarks.deepsearch.index import build_index
    from empg_cli.benchmarks.deepsearch.search import open_index

    whole = folder / "whole"
    build_index([Passage(f"p{n}", f"Title {n}", f"the text of number {n} and {n * n}") for n in range(40)], whole)

    def read(place: Path) -> str:
        retriever = open_index(place)
        found = asyncio.run(retriever.search(["text number 7", "title 12 144"], 5))
        return repr((found, asyncio.run(retriever.open("p3")), retriever.fingerprint()))

    good = read(whole)

    def run(given: tuple[str, bytes]) -> None:
        if read(_replaced(whole, folder / "now", given)) != good:
            raise Wrong(f"other answers, with {given[0]}")

    return Target(RANDOM.map(lambda random: _damaged_file(whole, random)), run)


def _damaged_file(whole: Path, random: Random) -> tuple[str, bytes]:
    file = random.choice(sorted(path for path in whole.rglob("*") if path.is_file()))
    content = file.read_bytes()
    if file.suffix == ".json" and random.random() < 0.5:
        return str(file.relative_to(whole)), json.dumps(changed_value(json.loads(content), random)).encode()
    return str(file.relative_to(whole)), changed_bytes(content, random)


def _replaced(whole: Path, place: Path, given: tuple[str, bytes]) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(whole, place)
    (place / given[0]).write_bytes(given[1])
    return place
