"""`empg data trajectories`: written, and read back by pyarrow and by Hugging Face datasets."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from empg_cli.integrations import trajectory_dataset
from tests.e2e.conftest import Empg

pa = pytest.importorskip("pyarrow", reason="needs the extra: empg-cli[parquet]")
pq = pytest.importorskip("pyarrow.parquet")


def kept(run: Path) -> list[tuple[dict[str, Any], int, dict[str, Any]]]:
    """(trajectory, number, step) of every step, as the run wrote them."""
    found = []
    for path in sorted((run / "trajectories").iterdir(), key=lambda path: path.name):
        for trajectory in map(json.loads, path.read_text().splitlines()):
            found += [(trajectory, number, step) for number, step in enumerate(trajectory["steps"])]
    return found


def test_every_step_is_a_row_with_what_the_run_kept_of_it(empg: Empg, finished_run: Path) -> None:
    shown = empg("data", "trajectories", f"run={finished_run}", "out=set/steps.parquet").stdout
    table = pq.read_table("set/steps.parquet")
    expected = kept(finished_run)
    assert shown == f"{len(expected)} steps -> set/steps.parquet\n"
    rows = table.to_pylist()
    assert len(rows) == len(expected) > 20
    for row, (trajectory, number, step) in zip(rows, expected, strict=True):
        for name in ("phase", "update", "task_id", "kind", "split", "group", "index", "status", "success", "score"):
            assert row[name] == trajectory[name], name
        for name in ("observation", "action", "reward", "tokens", "policy_version", "well_formed", "admissible"):
            assert row[name] == step[name], name
        for name in ("entropy", "advantage", "g", "f", "credit", "prompt", "response"):
            assert row[name] == step.get(name), name
        assert row["step"] == number and row["is_last"] == (step is trajectory["steps"][-1])
        assert row["trajectory_reward"] == trajectory["reward"]
        assert (row["benchmark"], row["data_source"], row["algorithm"], row["seed"]) == (
            "alfworld",
            "generated",
            "empg",
            0,
        )
    assert any(row["credit"] is not None for row in rows) and any(row["credit"] is None for row in rows)


def test_the_columns_have_their_types_even_where_all_is_null(empg: Empg, finished_run: Path) -> None:
    empg("data", "trajectories", f"run={finished_run}", "out=set/steps.parquet", "phase=eval")
    schema = pq.read_schema("set/steps.parquet")
    assert schema.field("credit").type == pa.float64() and schema.field("error").type == pa.string()
    assert schema.field("tokens").type == pa.int32() and schema.field("success").type == pa.bool_()
    table = pq.read_table("set/steps.parquet")
    assert table["credit"].null_count == len(table) and set(table["phase"].to_pylist()) == {"eval"}


def test_the_card_is_there_with_the_file_or_neither_is(
    empg: Empg, finished_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device", "README.md")

    with monkeypatch.context() as patch:
        patch.setattr(trajectory_dataset, "dataset_card", refused)
        empg("data", "trajectories", f"run={finished_run}", "out=set/steps.parquet", code=1)
    assert not list(Path("set").iterdir())
    empg("data", "trajectories", f"run={finished_run}", "out=set/steps.parquet")  # the same command, once there is room
    assert sorted(path.name for path in Path("set").iterdir()) == ["README.md", "steps.parquet"]


def test_an_evaluation_has_them_too(empg: Empg, finished_run: Path) -> None:
    empg("eval", f"run={finished_run}", "benchmark.eval_tasks=2", "run_dir=eval")
    empg("data", "trajectories", "run=eval", "out=set/steps.parquet")
    table = pq.read_table("set/steps.parquet")
    assert len(table) and table["algorithm"].null_count == len(table) and set(table["run"].to_pylist()) == {"eval"}


def test_the_card_is_one_of_the_hubs(empg: Empg, finished_run: Path) -> None:
    from huggingface_hub import DatasetCard

    empg("data", "trajectories", f"run={finished_run}", "out=set/steps.parquet")
    card = DatasetCard.load("set/README.md")
    assert card.data.configs[0]["data_files"] == [{"split": "train", "path": "steps.parquet"}]
    names = pq.read_schema("set/steps.parquet").names
    assert all(f"| `{name}` | " in card.text for name in names)
    assert "alfworld on generated data, algorithm empg, seed 0" in card.text


def test_datasets_loads_the_folder(empg: Empg, finished_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(Path("cache").absolute()))
    empg("data", "trajectories", f"run={finished_run}", "out=set/steps.parquet")
    loaded = datasets.load_dataset("set", split="train", cache_dir="cache")
    assert len(loaded) == len(kept(finished_run))
    assert loaded.features["credit"].dtype == "float64" and loaded.features["well_formed"].dtype == "bool"
    assert loaded[0]["task_id"] == kept(finished_run)[0][0]["task_id"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["out=set/steps.parquet"], "run: must be given; empg data trajectories run="),
        (["run=RUN"], "out: must be given; empg data trajectories run="),
        (["run=RUN", "out=set/steps.csv"], "must end in .parquet"),
        (["run=RUN", "out=full/steps.parquet"], "README.md is there already"),
        (["run=RUN", "out=set/s.parquet", "seed=1"], "seed: is not read by empg data trajectories"),
        (["run=RUN", "out=set/s.parquet", "phase=test"], "phase"),
        (["run=full", "out=set/s.parquet"], "holds no trajectories"),
        (["run=nowhere", "out=set/s.parquet"], "no such folder"),
    ],
)
def test_wrong_words_are_one_message(empg: Empg, finished_run: Path, words: list[str], said: str) -> None:
    Path("full").mkdir()
    Path("full", "README.md").touch()
    refused = empg("data", "trajectories", *(word.replace("RUN", str(finished_run)) for word in words), code=2)
    assert said in " ".join(refused.stderr.split()) and "Traceback" not in refused.output
    assert [path.name for path in Path().rglob("*")] == ["full", "README.md"]
