"""Question and corpus files of the field, in all their forms; and the real ones where they are."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from empg_cli.benchmarks.base import DataError
from empg_cli.benchmarks.deepsearch.benchmark import DeepSearchBenchmark
from empg_cli.benchmarks.deepsearch.corpus import Passage, write_corpus
from empg_cli.benchmarks.deepsearch.index import build_index
from empg_cli.benchmarks.deepsearch.official.corpora import read_corpus, split_contents
from empg_cli.benchmarks.deepsearch.official.questions import load_folder, load_questions
from empg_cli.benchmarks.deepsearch.retrieval.base import Runner
from empg_cli.benchmarks.deepsearch.search import open_index
from empg_cli.config import load
from empg_cli.config.deepsearch import Deepsearch

FLASHRAG = [
    {"id": "test_0", "question": "who sang it?", "golden_answers": ["ABBA", "Abba"], "metadata": {}},
    {"id": "test_1", "question": "where?", "golden_answers": ["Rome"]},
]
HOTPOT = [
    {
        "_id": "5a",
        "question": "Which?",
        "answer": "yes",
        "type": "comparison",
        "level": "hard",
        "context": [["T", ["s"]]],
    }
]
MUSIQUE = [
    {"id": "2hop__1", "question": "When?", "answer": "1990", "answer_aliases": ["in 1990"], "answerable": True},
    {"id": "2hop__1b", "question": "When not?", "answer": "1990", "answer_aliases": [], "answerable": False},
]
VERL = {
    "data_source": "searchR1_nq",
    "prompt": [{"role": "user", "content": "Answer it. For example, <answer> Beijing </answer>. Question: who won?\n"}],
    "ability": "fact-reasoning",
    "reward_model": {"style": "rule", "ground_truth": {"target": ["Ann", "Anne"]}},
    "extra_info": {"split": "test", "index": 3},
}
DEEPRESEARCHER = {
    "data_source": "Bamboogle",
    "prompt": [{"role": "user", "content": "Who was first?"}],
    "reward_model": {"style": "unknown", "ground_truth": "Ann<|answer_split|>Anne"},
    "extra_info": {"split": "dev", "index": "b_1"},
}


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join(json.dumps(row) for row in rows) + "\n"
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return path


def facts(path: Path, source: str = "x") -> list[tuple[str, str, tuple[str, ...], str]]:
    return [(q.id, q.text, q.answers, q.kind) for q in load_questions(path, "test", source=source)]


@pytest.mark.parametrize("name", ["test.jsonl", "test.jsonl.gz"])
def test_flashrag(tmp_path: Path, name: str) -> None:
    assert facts(write_lines(tmp_path / name, FLASHRAG), "nq") == [
        ("test/nq/test_0", "who sang it?", ("ABBA", "Abba"), "nq"),
        ("test/nq/test_1", "where?", ("Rome",), "nq"),
    ]


def test_hotpotqa_and_2wiki_arrays(tmp_path: Path) -> None:
    path = tmp_path / "hotpot_dev_distractor_v1.json"
    path.write_text("\n" + json.dumps(HOTPOT), encoding="utf-8")
    assert facts(path, "hotpotqa") == [("test/hotpotqa/5a", "Which?", ("yes",), "hotpotqa")]


def test_musique_leaves_out_what_cannot_be_answered(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "musique_full_v1.0_dev.jsonl", MUSIQUE)
    assert facts(path, "musique") == [("test/musique/2hop__1", "When?", ("1990", "in 1990"), "musique")]


def test_bamboogle_table(tmp_path: Path) -> None:
    path = tmp_path / "bamboogle_test.csv"
    path.write_text('Question,Answer\n"Who, if any?","Ann"\n', encoding="utf-8-sig")
    assert facts(path, "bamboogle") == [("test/bamboogle/1", "Who, if any?", ("Ann",), "bamboogle")]


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_verl_and_deepresearcher_rows(tmp_path: Path, form: str) -> None:
    expected = [
        ("test/nq/3", "who won?", ("Ann", "Anne"), "nq"),
        ("test/bamboogle/b_1", "Who was first?", ("Ann", "Anne"), "bamboogle"),
    ]
    found = []
    for name, row in (("verl", VERL), ("dr", DEEPRESEARCHER)):
        path = tmp_path / f"{name}_test.{form}"
        if form == "parquet":
            pyarrow = pytest.importorskip("pyarrow", reason="Parquet files need the extra: empg-cli[parquet]")
            import pyarrow.parquet as parquet

            parquet.write_table(pyarrow.Table.from_pylist([row]), path)
        else:
            write_lines(path, [row])
        found += facts(path)
    assert found == expected


@pytest.mark.parametrize("key", ["id", "_id", "index"])
def test_ids_may_count_from_nought(tmp_path: Path, key: str) -> None:
    rows = [{"question": f"who {n}?", "golden_answers": ["Ann"]} for n in range(3)]
    for number, row in enumerate(rows):
        row |= {"extra_info": {key: number}} if key == "index" else {key: number}
    assert [one[0] for one in facts(write_lines(tmp_path / "test.jsonl", rows))] == ["test/x/0", "test/x/1", "test/x/2"]


def test_a_title_keeps_its_own_quotes() -> None:
    assert split_contents('"Plain"\ntext') == ("Plain", "text")
    assert split_contents('""Heroes" (David Bowie album)"\ntext') == ('"Heroes" (David Bowie album)', "text")
    assert split_contents('Bare "quotes"\ntext') == ('Bare "quotes"', "text")
    assert split_contents('"\ntext') == ('"', "text")


def test_a_passage_without_a_title_is_a_page_of_its_own(tmp_path: Path) -> None:
    passages = [Passage(str(n), "" if n < 3 else "T", f"text {n}") for n in range(5)]
    store = write_corpus(passages, tmp_path / "corpus")
    assert [page.text for n in "014" if (page := store.page(n))] == ["text 0", "text 1", "text 3\ntext 4"]


def test_a_folder_of_data_sets(tmp_path: Path) -> None:
    write_lines(tmp_path / "nq" / "train.jsonl", FLASHRAG)
    write_lines(tmp_path / "nq" / "test.jsonl", FLASHRAG)
    (tmp_path / "hotpot_dev_fullwiki_v1.json").write_text(json.dumps(HOTPOT))
    write_lines(tmp_path / "musique_test.jsonl", MUSIQUE)
    write_lines(tmp_path / "wiki_corpus.jsonl", [{"id": "0", "contents": "x"}])  # no questions: left alone
    (tmp_path / "README.md").write_text("hello")
    splits = load_folder(tmp_path)
    assert {split: [q.kind for q in rows] for split, rows in splits.items()} == {
        "dev": ["hotpotqa"],
        "test": ["musique", "nq", "nq"],
        "train": ["nq", "nq"],
        "id": ["nq", "nq"],
        "ood": ["musique"],
    }


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("test.jsonl", '{"question": "q"}', "row 1: not a question of a known format: 'answer' is missing"),
        ("test.jsonl", '{"question": "", "golden_answers": ["a"]}', "row 1"),
        ("test.jsonl", '{"question": "q", "golden_answers": ["the", "!"]}', "no answer is left after normalisation"),
        ("test.jsonl", '{"question": "q", "golden_answers": ["a b"]}\n{broken', "row 2: not valid JSON"),
        ("test.jsonl", "3", "expected an object"),
        ("test.json", "[3]", "row 1: expected an object"),
        ("test.jsonl", "", "holds no questions"),
        ("test.jsonl.gz", "not gzip", "near byte .*Not a gzipped file"),
        ("test.parquet", "not parquet", "not a readable Parquet file"),
        ("test.jsonl", '{"question": "q", "golden_answers": {"a": 1}}', "an answer is dict, not text"),
        ("test.jsonl", '{"question": ["q"], "golden_answers": ["a"]}', "question is list, not text"),
        ("test.jsonl", '{"question": "q", "golden_answers": ["a"], "extra_info": [1]}', "row 1.*broken"),
        ("test.jsonl", '{"question": "\\ud800", "golden_answers": ["a"]}', "row 1.*half a character"),
        ("test.jsonl", '{"question": "q", "reward_model": {"ground_truth": "{"}}', "row 1: .*not valid JSON"),
        ("test.jsonl", "[" * 100_000, "nested too deep"),
        ("test.json", "[" * 100_000, "nested too deep"),
        ("test.csv", "Question,Answer\nwho,me,too\n", "row 1: 3 cells, not 2 as in the first line"),
        ("test.csv", "Question,Answer\nwho,me\nwhere", "row 2: 1 cells, not 2"),
        ("test.csv", 'Question,Answer\n"who,me\nwhere,there\n', "row 1: broken"),
        ("test.csv", f"Question,Answer\nwho,{'a' * 140_000}\n", "row 1: broken .field larger than field limit"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow", reason="Parquet files need the extra: empg-cli[parquet]")
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        load_questions(path, "test", source="x")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["test.jsonl.gz", "test.json.gz", "test.csv.gz", "test.tsv.gz"])
@pytest.mark.parametrize("damage", ["cut", "checksum", "middle"])
def test_a_damaged_gzip_file_is_never_read_as_if_it_were_whole(tmp_path: Path, name: str, damage: str) -> None:
    rows = [{"Question": f"who is number {n * n}", "Answer": f"the {n}th"} for n in range(500)]
    if name.startswith("test.json"):
        text = json.dumps(rows) if name == "test.json.gz" else "\n".join(json.dumps(row) for row in rows)
    else:
        between = "," if "csv" in name else "\t"
        text = "\n".join(between.join(row) for row in [("Question", "Answer"), *(row.values() for row in rows)])
    path, packed = tmp_path / name, bytearray(gzip.compress(text.encode()))
    path.write_bytes(packed)
    assert len(load_questions(path, "test", source="x")) == 500
    if damage == "cut":
        del packed[-20:]
    else:
        packed[-6 if damage == "checksum" else len(packed) // 2] ^= 1
    path.write_bytes(packed)
    with pytest.raises(DataError, match=rf"{name}, (near byte|line|row)"):
        load_questions(path, "test", source="x")


def test_a_table_in_another_encoding_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_bytes("Question,Answer\nwho is René,René\n".encode("latin-1"))
    with pytest.raises(DataError, match="line 2: not UTF-8 text: byte 10"):
        load_questions(tmp_path / "test.csv", "test", source="x")


def test_folders_without_questions_or_split_names(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"benchmark\.data_dir=null"):
        load_folder(tmp_path)
    write_lines(tmp_path / "questions.jsonl", FLASHRAG)
    with pytest.raises(DataError, match="must say its split"):
        load_folder(tmp_path)


def test_the_same_questions_twice_stop(tmp_path: Path) -> None:
    write_lines(tmp_path / "nq" / "test.jsonl", FLASHRAG)
    write_lines(tmp_path / "nq" / "test.jsonl.gz", FLASHRAG)
    with pytest.raises(DataError, match="2 questions come twice"):
        load_folder(tmp_path)


def test_corpora(tmp_path: Path) -> None:
    wiki = [{"id": "0", "contents": '"A title"\nThe text\nin lines.'}, {"id": "7", "contents": "B\nb"}]
    assert list(read_corpus(write_lines(tmp_path / "wiki-18.jsonl", wiki))) == [
        Passage("0", "A title", "The text\nin lines."),
        Passage("7", "B", "b"),
    ]
    rows = [{"title": "A", "text": "a", "url": "http://x"}, {"title": "B", "text": "b"}]
    expected = [Passage("0", "A", "a", "http://x"), Passage("1", "B", "b")]
    path = tmp_path / "corpus.json.gz"
    path.write_bytes(gzip.compress(json.dumps(rows).encode()))
    assert list(read_corpus(path)) == expected
    assert list(read_corpus(write_lines(tmp_path / "corpus.jsonl", rows))) == expected


def test_broken_corpora(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such corpus file"):
        list(read_corpus(tmp_path / "none.jsonl"))
    with pytest.raises(DataError, match='row 1: a passage needs "contents"'):
        list(read_corpus(write_lines(tmp_path / "a.jsonl", [{"body": "x"}])))
    with pytest.raises(DataError, match="is empty"):
        write_corpus([], tmp_path / "empty")
    twice = [Passage("a", "T", "x"), Passage("b", "T", "y"), Passage("a", "T", "z")]
    with pytest.raises(DataError, match=r"'a' occurs twice in the corpus \(rows 0 and 2\)"):
        write_corpus(twice, tmp_path / "twice")


def read_all(folder: Path) -> None:
    """A passage is checked when it is read."""
    retriever = open_index(folder)
    for row in range(20):
        asyncio.run(retriever.open(str(row)))


def test_a_damaged_index_is_never_searched(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    build_index([Passage(str(n), f"Title {n}", f"text {n}") for n in range(20)], folder)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size]
    assert len(files) > 8
    for file in files:
        content = file.read_bytes()
        damaged = bytearray(content)
        damaged[len(content) // 2] ^= 4
        file.write_bytes(damaged)
        with pytest.raises(DataError, match=r"not what was written|not valid JSON|missing|bytes instead") as caught:
            read_all(folder)
        assert file.name in str(caught.value) or "index.json" in str(caught.value)
        assert "uild it again" in str(caught.value)
        file.write_bytes(content)
    open_index(folder)


def test_an_index_from_before_checksums_is_searched_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build_index([Passage("0", "A", "a")], tmp_path / "index")
    manifest = json.loads((tmp_path / "index" / "index.json").read_text())
    fingerprint = open_index(tmp_path / "index").fingerprint()
    assert fingerprint.keys() == {"engine", "version", "passages", "digest"}  # the seal is nobody's fact
    del manifest["files"], manifest["check"]
    (tmp_path / "index" / "index.json").write_text(json.dumps(manifest))
    (tmp_path / "index" / "crc32.npy").unlink()
    assert open_index(tmp_path / "index").fingerprint() == fingerprint
    assert "built before indexes had checksums" in caplog.text


def test_an_index_folder_is_not_built_over(tmp_path: Path) -> None:
    build_index([Passage("0", "A", "a")], tmp_path / "index")
    with pytest.raises(DataError, match="is not empty"):
        build_index([Passage("0", "A", "a")], tmp_path / "index")
    with pytest.raises(DataError, match=r"no finished index"):
        open_index(tmp_path)


def benchmark(data_dir: Path, *words: str) -> DeepSearchBenchmark:
    settings = load(["benchmark=deepsearch", f"benchmark.data_dir={data_dir}", *words]).benchmark
    assert isinstance(settings, Deepsearch)
    keys = settings.model_dump()
    for key in ("name", "split", "eval_tasks", "invalid_action_penalty", "invalid_action_scope"):
        del keys[key]
    return DeepSearchBenchmark(**keys)


def test_official_questions_need_something_to_search(tmp_path: Path) -> None:
    write_lines(tmp_path / "nq" / "test.jsonl", FLASHRAG)
    with pytest.raises(DataError, match=r"benchmark\.retrieval\.index_dir=DIR"):
        benchmark(tmp_path)
    with pytest.raises(DataError, match=r"no finished index"):
        benchmark(tmp_path, f"benchmark.retrieval.index_dir={tmp_path}")


def test_official_questions_over_an_index_of_ones_own(tmp_path: Path) -> None:
    write_lines(tmp_path / "data" / "nq" / "test.jsonl", FLASHRAG)
    build_index([Passage("0", "ABBA", "ABBA sang it.")], tmp_path / "index")
    bench = benchmark(tmp_path / "data", f"benchmark.retrieval.index_dir={tmp_path / 'index'}")
    assert bench.splits == ("test", "id")
    task = bench.tasks("id")[0]
    env = bench.make_env(task)
    env.reset()
    assert "ABBA sang it." in env.step("search[who sang it]").text
    assert env.step("answer[abba]").success
    assert bench.fingerprint()["source"] == "official"
    with pytest.raises(ValueError, match="must be one of test, id here"):
        bench.tasks("train")
    with pytest.raises(DataError, match="generated world only"):
        bench.expert(env)


def test_deepresearcher_files(official_data: Path) -> None:
    pytest.importorskip("pyarrow", reason="Parquet files need the extra: empg-cli[parquet]")
    splits = load_folder(official_data / "deepsearch")
    assert len(splits["test"]) == 3197
    assert len(splits["dev"]) == 875
    kinds = Counter(question.kind for question in splits["test"])
    assert kinds == dict.fromkeys(("nq", "triviaqa", "hotpotqa", "2wiki", "musique", "popqa"), 512) | {"bamboogle": 125}
    assert len(splits["id"]) == 4 * 512
    assert len(splits["ood"]) == 2 * 512 + 125
    first = next(question for question in splits["test"] if question.kind == "2wiki")
    assert first.text == "What is the date of birth of Millicent Leveson-Gower, Duchess Of Sutherland's husband?"
    assert first.answers == ("20 July 1851",)


def test_2wiki_corpus_is_indexed_and_answers(official_data: Path, tmp_path: Path) -> None:
    corpus = official_data / "deepsearch" / "2wikimultihopqa_corpus.json.gz"
    phases: list[tuple[str, int]] = []
    build_index(read_corpus(corpus), tmp_path / "index", progress=lambda phase, rows: phases.append((phase, rows)))
    retriever = open_index(tmp_path / "index")
    assert retriever.fingerprint()["passages"] == 6119
    assert phases[-1] == ("tantivy", 6119)
    hits = Runner(is_local=True).run(retriever.search(["Teutberga queen of Lotharingia"], 3))[0]
    assert hits[0].title == "Teutberga"
    page = Runner(is_local=True).run(retriever.open(hits[0].id))
    assert page is not None
    assert page.text.startswith("Teutberga( died 11 November 875)")
