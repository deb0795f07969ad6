"""Question files of the field as `Question`s.

| format | how it is known | question | answers |
|---|---|---|---|
| FlashRAG jsonl | `golden_answers` | `question` | `golden_answers` |
| verl parquet | `reward_model.ground_truth.target` | `question`, else the prompt after "Question:" | the list |
| DeepResearcher parquet | `reward_model.ground_truth` is a string | the prompt | split at `<|answer_split|>` |
| HotpotQA, 2Wiki json | `answer` | `question` | `answer` |
| MuSiQue jsonl | `answer`, `answer_aliases` | `question` | both |
| Bamboogle csv | `Question`, `Answer` | `Question` | `Answer` |
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from empg_cli.benchmarks.deepsearch.answers import normalise
from empg_cli.benchmarks.deepsearch.official.rows import Row, is_data_file, read_rows
from empg_cli.benchmarks.deepsearch.sources import canonical, group_of
from empg_cli.benchmarks.deepsearch.world.questions import Question
from empg_cli.errors import DataError
from empg_cli.reading.guard import plain_text, reading

ANSWER_SEPARATOR: Final = "<|answer_split|>"
SPLIT_NAMES: Final = {"train": "train", "dev": "dev", "validation": "dev", "valid": "dev", "val": "dev", "test": "test"}
_WITHOUT_QUESTIONS: Final = ("corpus", "qrels")


def load_folder(folder: Path) -> dict[str, list[Question]]:
    """Split -> questions of all data files of a folder, in the order of their paths; corpora and indexes may lie there
    too. `id` and `ood` divide the evaluation split (test, else dev) by source. Raises DataError when there are none."""
    with reading(folder):
        indexes = {path.parent for path in folder.rglob("index.json")}
        files = [
            path
            for path in sorted(folder.rglob("*"))
            if is_data_file(path)
            and not any(word in path.name.lower() for word in _WITHOUT_QUESTIONS)
            and not indexes & {*path.parents}
        ]
    if not files:
        raise DataError(
            f"{folder} holds no question files (.jsonl, .json, .csv or .parquet with train, dev or test in the name); "
            "leave benchmark.data_dir=null to play a generated world"
        )
    splits: dict[str, list[Question]] = {}
    for path in files:
        split = split_of(path, folder)
        splits.setdefault(split, []).extend(load_questions(path, split, source=_source_of(path, folder)))
    for split, questions in splits.items():
        _refuse_double_ids(folder, split, questions)
    evaluation = splits.get("test") or splits.get("dev") or []
    for group in ("id", "ood"):
        if members := [question for question in evaluation if group_of(question.kind) == group]:
            splits[group] = members
    return splits


def load_questions(path: Path, split: str, *, source: str) -> list[Question]:
    """The questions of one file.

    Args:
        source: data source of rows that do not say theirs.
    """
    questions = []
    for number, row in read_rows(path):
        if row.get("answerable") is False:  # MuSiQue-Full has unanswerable twins
            continue
        with reading(f"{path}, row {number}: not a question of a known format"):
            questions.append(_question(row, number, split, source))
    if not questions:
        raise DataError(f"{path} holds no questions")
    return questions


def split_of(path: Path, folder: Path) -> str:
    """The last of train, dev, test (or validation, val) in the file's name, else in its folders' names."""
    for part in reversed(path.relative_to(folder).parts):
        words = part.lower().replace("-", "_").replace(".", "_").split("_")
        for word in reversed(words):
            if word in SPLIT_NAMES:
                return SPLIT_NAMES[word]
    raise DataError(f"{path}: the file name must say its split: train, dev or test")


def _refuse_double_ids(folder: Path, split: str, questions: list[Question]) -> None:
    """Results are compared task by task, so an id must mean one task (the same file may lie there twice)."""
    double = [id_ for id_, count in Counter(question.id for question in questions).items() if count > 1]
    if double:
        raise DataError(
            f"{folder}, split {split}: {len(double):,} questions come twice, such as {double[0]}; "
            "is a file there in two forms?"
        )


def _source_of(path: Path, folder: Path) -> str:
    """The folder's name (FlashRAG: hotpotqa/dev.jsonl), else the file's first word."""
    parts = path.relative_to(folder).parts
    return canonical(parts[-2] if len(parts) > 1 else path.name.split(".")[0].split("_")[0])


def _question(row: Row, number: int, split: str, source: str) -> Question:
    kind = canonical(plain_text(row["data_source"], "data_source")) if row.get("data_source") else source
    text = _text(row)
    answers = tuple(dict.fromkeys(answer for answer in _answers(row) if normalise(answer)))
    if not text:
        raise ValueError("the question is empty")
    if not answers:
        raise ValueError("no answer is left after normalisation")
    return Question(id=f"{split}/{kind}/{_row_id(row, number)}", text=text, answers=answers, kind=kind, split=split)


def _text(row: Row) -> str:
    for key in ("question", "Question", "query"):
        if row.get(key):
            return plain_text(row[key], key).strip()
    content = plain_text(row["prompt"][-1]["content"], "prompt")
    return content.rpartition("Question:")[2].strip()


def _answers(row: Row) -> Iterator[str]:
    if row.get("golden_answers") is not None:
        return _strings(row["golden_answers"])
    if row.get("reward_model"):
        truth = row["reward_model"]["ground_truth"]
        if isinstance(truth, dict):
            return _strings(truth["target"])
        text = plain_text(truth, "reward_model.ground_truth")
        if text.startswith("{"):
            return _strings(json.loads(text)["target"])
        return iter(text.split(ANSWER_SEPARATOR))
    if "Answer" in row:
        return _strings(row["Answer"])
    return iter([*_strings(row["answer"]), *_strings(row.get("answer_aliases") or [])])


def _strings(value: Any) -> Iterator[str]:
    """A text or number, or a list of them."""
    return iter([_said(item) for item in (value if isinstance(value, list) else [value])])


def _said(value: Any) -> str:
    """A year may stand as a number."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number else plain_text(value, "an answer")


def _row_id(row: Row, number: int) -> str:
    extra = row.get("extra_info") or {}
    given = (row.get("_id"), row.get("id"), extra.get("index"))
    found = next((value for value in given if value not in (None, "")), number)
    return str(found) if isinstance(found, int) else plain_text(found, "the id")
