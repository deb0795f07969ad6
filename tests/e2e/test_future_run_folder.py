"""A run folder that a newer empg has made: every command that reads one refuses it with one message."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from empg_cli.runs.format import FORMAT

Empg = Callable[..., Result]

STUDY = ("ablation=components", "seeds=1", "run_dir=study")


def from_the_future(folder: Path) -> Path:
    """Make it so."""
    facts = json.loads((folder / "run.json").read_text())
    assert facts["format"] == FORMAT
    (folder / "run.json").write_text(json.dumps({**facts, "format": FORMAT + 1}))
    return folder


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize(
    "words",
    [
        ["show", "RUN"],
        ["report", "RUN", "--no-figures"],
        ["report", "present", "RUN", "--no-figures"],
        ["diagnose", "RUN"],
        ["eval", "run=RUN"],
        ["export", "run=RUN", "out=new"],
        ["serve", "run=RUN", "port=0"],
        ["data", "trajectories", "run=RUN", "out=new/steps.parquet"],
        ["eval", "run=RUN/checkpoints/step-000002"],
        ["eval", "--compare", "present", "RUN"],
        ["eval", "--compare", "RUN/evaluations/update-000002.json", "present"],
        ["train", "--resume", "RUN"],
        ["train", "--resume", "RUN/checkpoints/step-000002"],
        ["train", "run_dir=RUN", "resume=auto"],
        ["train", "run_dir=new", "resume=RUN/checkpoints/step-000002"],
    ],
    ids=" ".join,
)
def test_a_run_is_refused_with_one_message_and_left_alone(words: list[str], empg: Empg, finished_run: Path) -> None:
    shutil.copytree(finished_run, "present")
    run = from_the_future(shutil.copytree(finished_run, Path("run")))
    before = contents(Path())
    stderr = empg(*(word.replace("RUN", str(run)) for word in words), code=2).stderr
    assert stderr.count("error:") == 1
    message = " ".join(stderr.split())
    assert f"run is a run folder of format {FORMAT + 1}" in message
    assert f"this one reads formats up to {FORMAT}: update empg" in message
    assert contents(Path()) == before


@pytest.mark.parametrize(
    "words", [["ablate", *STUDY], ["ablate", *STUDY, "--plan"], ["ablate", "--across", "study", "other"],
              ["show", "study"], ["report", "study", "--no-figures"]], ids=" ".join,
)  # fmt: skip
def test_so_is_a_cell_of_a_study(words: list[str], empg: Empg, finished_run: Path) -> None:
    from empg_cli.runs.study import write_study
    from empg_cli.studies.plan import make_study

    for name in ("study", "other"):
        study = make_study([*STUDY[:2], f"run_dir={name}"])
        write_study(study)
        cell = study.cells[0]
        folder = shutil.copytree(finished_run, study.cell_dir(cell))
        done = {"exit_code": 0, "cell_hash": cell.cell_hash}
        (folder / "summary.json").write_text(json.dumps(done))
    from_the_future(Path("study") / cell.folder)
    before = contents(Path())
    stderr = empg(*words, code=2).stderr
    assert stderr.count("error:") == 1
    assert f"{cell.folder} is a run folder of format {FORMAT + 1}" in " ".join(stderr.split())
    assert contents(Path()) == before


def test_an_evaluation_is_refused_too(empg: Empg, finished_run: Path) -> None:
    empg("eval", f"run={finished_run}", "benchmark.eval_tasks=1", "run_dir=played")
    from_the_future(Path("played"))
    for words in (["show", "played"], ["eval", "--compare", "played", "played"]):
        assert f"played is a run folder of format {FORMAT + 1}" in empg(*words, code=2).stderr


def test_a_strangers_run_does_not_stop_a_plan(empg: Empg, finished_run: Path) -> None:
    from_the_future(shutil.copytree(finished_run, Path("runs/alfworld/new")))
    empg("ablate", *STUDY, "--plan")


def test_a_resumed_run_of_an_older_format_has_todays(empg: Empg, finished_run: Path) -> None:
    import yaml

    run = shutil.copytree(finished_run, Path("run"))
    facts, config = json.loads((run / "run.json").read_text()), yaml.safe_load((run / "config.yaml").read_text())
    del facts["format"], facts["checksum"], facts["config_digests"]  # as an older empg wrote it
    del config["model"]["param_dtype"], config["algo"]["advantage"]["penalty"]
    (run / "run.json").write_text(json.dumps(facts))
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    empg("train", "--resume", run, "trainer.updates=3")
    assert json.loads((run / "run.json").read_text())["format"] == FORMAT
    resumed = yaml.safe_load((run / "config.yaml").read_text())
    assert (resumed["model"]["param_dtype"], resumed["algo"]["advantage"]["penalty"]) == ("float32", "episode")
