"""Files of run folders that are cut, binary, or of another shape: one sentence with file and place, or left alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from empg_cli.errors import DataError, UserError
from empg_cli.evaluation.diagnosis import read_diagnosis
from empg_cli.evaluation.head_to_head import read_evaluation
from empg_cli.reports.health_history import health_warnings
from empg_cli.runs.checkpoint import all_checkpoints, load_state
from empg_cli.runs.config_file import saved_run
from empg_cli.runs.evaluations import drop_evaluations, read_evaluations, read_groups
from empg_cli.runs.facts import prompt_date
from empg_cli.runs.histograms import read_histograms
from empg_cli.runs.manifest import checkpoint_fault
from empg_cli.runs.own_config import primary_config
from empg_cli.runs.reading import open_runs
from empg_cli.runs.rows import read_rows
from empg_cli.runs.run_file import read_run_file
from empg_cli.runs.study import StudyError, read_study
from empg_cli.runs.trajectories import drop_trajectories

OLD_RUN = Path(__file__).resolve().parents[2] / "fixtures" / "run-032f7dc"
CUT = b'{"update": 1, "tot'
DEEP = b"[" * 100_000


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD_RUN, tmp_path / "run"))


def an_evaluation(run: Path) -> Path:
    return sorted((run / "evaluations").glob("*.json"))[-1]


READERS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], Any]]] = {
    "run.json": (lambda run: run / "run.json", read_run_file),
    "config.yaml": (lambda run: run / "config.yaml", saved_run),
    "evaluation": (an_evaluation, read_evaluations),
    "evaluation's groups": (an_evaluation, read_groups),
    "evaluation to compare": (an_evaluation, read_evaluation),
    "trajectories": (
        lambda run: sorted((run / "trajectories").glob("*.jsonl"))[-1],
        lambda run: open_runs([run])[0].trajectories(),
    ),
    "histograms": (lambda run: run / "histograms.jsonl", lambda run: read_histograms(run, "hist/weight")),
    "warnings": (lambda run: run / "health.jsonl", lambda run: health_warnings(open_runs([run])[0])),
    "diagnosis": (lambda run: run / "diagnostics" / "diagnosis.json", lambda run: read_diagnosis(run / "diagnostics")),
    "study": (lambda run: run / "study.json", read_study),
    "state": (lambda run: run / "checkpoints" / "step-000001" / "state.json", lambda run: load_state(
        run / "checkpoints" / "step-000001")),
}  # fmt: skip


@pytest.mark.parametrize("content", [CUT + b"\n", b"\xff\x00\n", DEEP + b"\n", b"[1]\n", b'{"update": "x"}\n'])
@pytest.mark.parametrize("name", READERS)
def test_a_broken_file_is_one_sentence_that_names_it(run: Path, name: str, content: bytes) -> None:
    where, read = READERS[name]
    path = where(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    if name == "run.json" and b'"x"' in content:
        assert read(run) == {"update": "x"}  # a fact like others
        return
    with pytest.raises(UserError) as raised:
        read(run)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("run.json", {"prompt_date": "2026-99-01"}, "prompt_date"),
        ("run.json", {"data": "official"}, "data: input should be"),
        ("evaluation", {"total": {"success_rate": "1", "lo": 0.0, "hi": 1.0, "n": 4}}, "total.success_rate"),
        ("evaluation to compare", {"tasks": [{"task_id": 1, "kind": "a", "success": True}]}, "tasks.0.task_id"),
        ("evaluation to compare", {"tasks": {}}, "tasks: input should be a valid array"),
    ],
)
def test_a_value_of_another_kind_is_named_by_its_key(run: Path, name: str, change: dict, said: str) -> None:
    where, read = READERS[name]
    path = where(run)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=rf"{path.name}.*{said}"):
        read(run)


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("trajectories", '{"steps": [{"entropy": NUMBER}]}'),
        ("histograms", '{"update": 1, "hist/weight": {"low": 0.0, "high": NUMBER, "counts": [1]}}'),
        ("run.json", '{"data": {"mean": NUMBER}}'),
    ],
)
def test_a_number_that_is_none_is_refused_wherever_it_stands(run: Path, name: str, content: str, number: str) -> None:
    where, read = READERS[name]
    where(run).write_text(content.replace("NUMBER", number) + "\n")
    with pytest.raises(UserError) as raised:
        read(run)
    assert str(where(run)) in str(raised.value)


@pytest.mark.parametrize(("low", "counts"), [(2.0, [1]), (2.5, [1]), (0.0, []), (0.0, [0, 0]), (0.0, [3, -1])])
def test_a_histogram_that_nothing_is_in_is_none(run: Path, low: float, counts: list[int]) -> None:
    heap = {"low": low, "high": 2.0, "counts": counts}
    (run / "histograms.jsonl").write_text(json.dumps({"update": 1, "hist/weight": heap}) + "\n")
    with pytest.raises(DataError, match=r"histograms\.jsonl"):
        read_histograms(run, "hist/weight")


def test_a_diagnosis_without_bins_is_none(run: Path) -> None:
    estimate = {"value": 0.1, "low": 0.0, "high": 0.2, "n": 3}
    content = {
        "policy": "a", "benchmark": "b", "data": "generated", "split": "c", "temperature": 1.0, "seed": 0,
        "episodes": 1, "steps": 1, "tokens": 1, "gradients": None,
        "proposition1": {"bins": [], "largest_error": 0.0, "excess": list(estimate.values()), "shannon_rank": 1.0},
        "change": {"before": "initial", "after": "a", "bins": []},
    }  # fmt: skip
    path = run / "diagnostics" / "diagnosis.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"proposition1\.bins"):
        read_diagnosis(path.parent)


def test_the_line_is_named(run: Path) -> None:
    path = run / "histograms.jsonl"
    path.write_bytes(b'{"update": 1}\n{"update": 2, "hist/weight": {"low": 0.0, "high": 1.0}}\n')
    with pytest.raises(DataError, match=r"histograms\.jsonl: counts: field required"):
        read_histograms(run, "hist/weight")
    path.write_bytes(b'{"update": 1}\n{"update": }\n')
    with pytest.raises(DataError, match=r"histograms\.jsonl, line 2: is not readable JSON"):
        read_histograms(run, "hist/weight")


def test_a_last_line_that_a_crash_has_cut_is_left_out(run: Path) -> None:
    path = run / "histograms.jsonl"
    path.write_bytes(path.read_bytes() + CUT)
    assert read_histograms(run, "hist/weight")


@pytest.mark.parametrize("section", ["seed", "model", "benchmark", "algo", "rollout", "trainer"])
@pytest.mark.parametrize("left", ["nothing", "null"])
def test_a_configuration_without_a_part_of_a_run(run: Path, section: str, left: str) -> None:
    lines = (run / "config.yaml").read_text().splitlines(keepends=True)
    first = next(number for number, line in enumerate(lines) if line.startswith(f"{section}:"))
    last = next((n for n in range(first + 1, len(lines)) if not lines[n].startswith((" ", "-"))), len(lines))
    lines[first:last] = [] if left == "nothing" else [f"{section}: null\n"]
    (run / "config.yaml").write_text("".join(lines))
    for read in (lambda: open_runs([run]), lambda: primary_config("eval", run, []), lambda: read_evaluation(run)):
        with pytest.raises(DataError, match=rf"config\.yaml: {section}: "):
            read()


def test_strangers_in_the_folders_of_a_run_are_left_alone(run: Path) -> None:
    strangers = [
        *(run / "evaluations" / name for name in ("update-x.json", "update-000001 (copy).json", "notes.txt")),
        *(run / "trajectories" / name for name in ("update-x-eval.jsonl", "update-1.jsonl", "update-1-eval.jsonl.bak")),
    ]
    for path in strangers:
        path.write_text("mine")
    assert read_evaluations(run) and open_runs([run])[0].trajectories()
    assert read_evaluation(run).path.name == "update-000002.json"
    drop_evaluations(run, 1)
    drop_trajectories(run, 0)
    assert all(path.read_text() == "mine" for path in strangers)


@pytest.mark.parametrize(
    "manifest", [b"", CUT, DEEP, b"[]", b"{}", b'{"files": [1]}', b'{"files": {"a": {"bytes": 1}}}']
)
def test_a_manifest_that_is_none_is_a_fault_of_its_checkpoint(run: Path, manifest: bytes) -> None:
    path = all_checkpoints(run)[-1] if all_checkpoints(run) else run / "checkpoints" / "step-000002"
    path.mkdir(parents=True, exist_ok=True)
    (path / "manifest.json").write_bytes(manifest)
    assert "unreadable manifest.json" in str(checkpoint_fault(path))


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe\n",
        DEEP + b"\n",
        b"[]\n",
        b'{"update": 1e999}\n',
        b'{"update": 3, "a": "b"}\n',
        b'{"update": 3, "a": NaN}\n',
        b'{"update": 3, "a": -Infinity}\n',
        b'{"update": 3, "a": 1e999}\n',
    ],
)
def test_a_line_that_is_no_row_is_left_out_and_said(run: Path, line: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path = run / "metrics.jsonl"
    rows = read_rows(path)
    path.write_bytes(line + path.read_bytes())
    assert read_rows(path) == rows
    assert "line 1 is not a row" in caplog.text


def test_a_study_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"study\.json is not there, or not readable"):
        read_study(tmp_path)


def test_the_date_of_a_run_is_read_back(run: Path) -> None:
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(facts | {"prompt_date": "2026-02-03"}))
    assert prompt_date(run).isoformat() == "2026-02-03"
