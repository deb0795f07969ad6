"""Going on from an older checkpoint, or anew: what is left behind stays whole, in a run folder of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from empg_cli.config.problems import ConfigError
from empg_cli.config.schema import TrainConfig
from empg_cli.errors import UserError
from empg_cli.observe.identity import RunIdentity
from empg_cli.observe.sinks import open_sinks
from empg_cli.runs import abandoned
from empg_cli.runs.abandoned import branches, finish_leaving
from empg_cli.runs.checkpoint import TrainState, all_checkpoints, write_checkpoint
from empg_cli.runs.folder import FolderTaken, OpenFolder, open_folder
from empg_cli.runs.history import HistoryError
from empg_cli.runs.hold import Hold
from empg_cli.runs.manifest import CheckpointError
from empg_cli.runs.reading import open_runs
from empg_cli.runs.run_file import read_run_file, update_run_file
from empg_cli.runs.which_checkpoint import hold_checkpoint
from tests.support.tiny import tiny_config

DATA = {"name": "alfworld", "source": "generated", "digest": "one"}


@pytest.fixture(scope="module")
def cfg() -> TrainConfig:
    return tiny_config(
        "trainer.updates=4",
        "trainer.checkpoint_every=1",
        "trainer.keep_checkpoints=9",
        "logger.csv=false",
        "logger.wandb.mode=disabled",
    )


def changed(cfg: TrainConfig, **trainer: object) -> TrainConfig:
    return cfg.model_copy(update={"trainer": cfg.trainer.model_copy(update=trainer)})


def opened(cfg: TrainConfig, folder: Path, resume: str | Path | None) -> OpenFolder:
    asked = cfg.model_copy(update={"resume": None if resume is None else str(resume)})
    found = open_folder(asked, folder, data=DATA, task_kinds=["look"])
    if found.held is not None:
        found.held.release()
    return found


def made(
    cfg: TrainConfig, folder: Path, resume: str | Path | None = None, *, of: str = "first", skipped: int = 0
) -> Path:
    """A run to its end without a model: rows, evaluations, trajectories and checkpoints name who made them.

    Args:
        skipped: the update that is not evaluated.
    """
    start = opened(cfg, folder, resume)
    sinks = open_sinks(
        cfg.logger, folder, run_config={}, identity=RunIdentity.of_seed("x", 0),
        resume_from_update=start.done + 1 if start.resume_from else None,
    )  # fmt: skip
    for update in range(start.done + 1, cfg.trainer.updates + 1):
        sinks.log(update, {"who": {"first": 1.0, "second": 2.0}[of]})
        for name in (f"evaluations/update-{update:06d}.json", f"trajectories/update-{update:06d}-eval.jsonl"):
            (folder / name).parent.mkdir(exist_ok=True)
            content = {"update": update, "who": of, "total": {"n": 4, "success_rate": 0.1 * (update == 1)}}
            if update != skipped or name.startswith("trajectories"):
                (folder / name).write_text(json.dumps(content) + "\n")
        write_checkpoint(folder, TrainState(update), lambda path: (path / "who").write_text(of) and None, keep=9)
    sinks.summary({"updates": cfg.trainer.updates})
    sinks.close(0)
    return folder


def who(run: Path) -> dict[str, list[str]]:
    """Of which branch everything in a run folder is."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    kept = [json.loads(path.read_text())["who"] for path in sorted((run / "evaluations").iterdir())]
    played = [json.loads(path.read_text())["who"] for path in sorted((run / "trajectories").iterdir())]
    return {
        "rows": [f"{row['update']} {['', 'first', 'second'][int(row['who'])]}" for row in rows],
        "evaluations": kept,
        "trajectories": played,
        "checkpoints": [f"{path.name[-1]} {(path / 'who').read_text()}" for path in all_checkpoints(run)],
    }


def step(run: Path, update: int) -> Path:
    return run / "checkpoints" / f"step-{update:06d}"


def test_a_rewind_leaves_the_branch_aside_and_goes_on(cfg: TrainConfig, tmp_path: Path) -> None:
    run = made(cfg, tmp_path / "run")
    update_run_file(run, wandb_id="of the first")
    made(cfg, run, step(run, 2), of="second")
    two = ["first", "first", "second", "second"]
    assert who(run) == {
        "rows": ["1 first", "2 first", "3 second", "4 second"], "evaluations": two, "trajectories": two,
        "checkpoints": ["1 first", "2 first", "3 second", "4 second"],
    }  # fmt: skip
    branch = run / "abandoned" / "1-after-update-000002"
    assert who(branch) == {
        "rows": ["1 first", "2 first", "3 first", "4 first"], "evaluations": ["first"] * 4,
        "trajectories": ["first"] * 4, "checkpoints": ["3 first", "4 first"],
    }  # fmt: skip
    (told,) = branches(run)
    assert (told["folder"], told["after"], told["until"]) == ("abandoned/1-after-update-000002", 2, 4)
    assert branches(branch) == []
    assert read_run_file(branch)["wandb_id"] == "of the first"
    assert "wandb_id" not in read_run_file(run), "W&B would drop the steps that it has seen"
    with hold_checkpoint(run) as newest, hold_checkpoint(branch) as other:
        assert (newest.checkpoint, other.checkpoint) == (step(run, 4), step(branch, 4))
    assert open_runs([branch])[0].updates == 4
    assert open_runs([branch])[0].damaged == frozenset()


def test_the_branch_goes_on_too_and_a_second_rewind_has_the_next_number(cfg: TrainConfig, tmp_path: Path) -> None:
    run = made(cfg, tmp_path / "run")
    made(cfg, run, step(run, 2), of="second")
    branch = run / "abandoned" / "1-after-update-000002"
    longer = changed(cfg, updates=5)
    made(longer, branch, "auto", of="second")
    assert who(branch)["rows"] == ["1 first", "2 first", "3 first", "4 first", "5 second"]
    made(cfg, run, step(run, 3), of="first")
    assert [told["folder"] for told in branches(run)] == [
        "abandoned/1-after-update-000002", "abandoned/2-after-update-000003",
    ]  # fmt: skip


def test_a_killed_run_leaves_nothing_aside(cfg: TrainConfig, tmp_path: Path) -> None:
    run = made(cfg, tmp_path / "run")
    for resume in ("auto", step(run, 4)):
        opened(cfg, run, resume)
    (step(run, 4) / "who").unlink()
    step(run, 4).rename(tmp_path / "never saved")
    made(cfg, run, "auto", of="second")
    assert not (run / "abandoned").exists()
    assert who(run)["rows"] == ["1 first", "2 first", "3 first", "4 second"]


def test_what_stands_behind_a_damaged_checkpoint_is_set_aside(cfg: TrainConfig, tmp_path: Path) -> None:
    run = made(cfg, tmp_path / "run")
    (step(run, 4) / "who").write_text("nobody")
    made(cfg, run, "auto", of="second")
    assert who(run)["checkpoints"] == ["1 first", "2 first", "3 first", "4 second"]
    assert (step(run / "abandoned" / "1-after-update-000003", 4) / "who").read_text() == "nobody"


@pytest.mark.parametrize("survived", range(6))
def test_a_rewind_that_dies_is_finished_by_who_comes_next(
    survived: int, cfg: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dies before the step of this number: the folder's name, run.json, two moves, run.json."""
    run = made(cfg, tmp_path / "run")
    steps = iter(range(9))
    replace, update = Path.replace, abandoned.update_run_file

    def dies() -> None:
        if next(steps) == survived:
            raise KeyboardInterrupt

    def dying_replace(self: Path, target: Path) -> Path:
        if not self.name.endswith(".tmp"):  # those of write_atomically are below update_run_file
            dies()
        return replace(self, target)

    def dying_update(folder: Path, *without: tuple[str, ...], **facts: object) -> None:
        if folder == run:
            dies()
        update(folder, *without, **facts)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", dying_replace)
        patch.setattr(abandoned, "update_run_file", dying_update)
        try:
            opened(cfg, run, step(run, 2))
        except KeyboardInterrupt:
            assert survived < 5
        else:
            assert survived == 5
    is_decided = survived > 1
    opened(cfg, run, "auto")
    here = [path.name[-1] for path in all_checkpoints(run)]
    assert here == (["1", "2"] if is_decided else ["1", "2", "3", "4"])
    everywhere = [path for path in run.rglob("step-*") if path.is_dir()]
    assert sorted(path.name[-1] for path in everywhere) == ["1", "2", "3", "4"]
    assert len(branches(run)) == is_decided
    assert not list(run.rglob(".tmp-*"))


def test_a_checkpoint_that_is_read_is_not_moved(cfg: TrainConfig, tmp_path: Path) -> None:
    run = made(cfg, tmp_path / "run")
    with (
        Hold(step(run, 3)),
        pytest.raises(UserError, match="step-000003 is being read by another process: wait for it"),
    ):
        opened(cfg, run, step(run, 2))
    assert step(run, 3).is_dir()
    opened(cfg, run, step(run, 2))
    assert [path.name[-1] for path in all_checkpoints(run)] == ["1", "2"]
    assert len(branches(run)) == 1


def test_a_restart_begins_anew_and_loses_nothing(cfg: TrainConfig, tmp_path: Path) -> None:
    run = made(changed(cfg, updates=2), tmp_path / "run")
    made(changed(cfg, updates=3), run, "auto")
    for path in all_checkpoints(run):
        (path / "who").unlink()
    with pytest.raises(
        CheckpointError, match=r"no usable checkpoint:(\n.*step-00000[123] is damaged: who is missing){3}"
    ):
        opened(cfg, run, "auto")
    assert sorted(path.name for path in (run / "evaluations").iterdir())[-1] == "update-000003.json"
    made(cfg, run, "restart", of="second")
    assert who(run)["rows"] == ["1 second", "2 second", "3 second", "4 second"]
    branch = run / "abandoned" / "1-after-update-000000"
    assert (branch / "metrics.jsonl").read_text().count("\n") == 3
    assert len(all_checkpoints(branch)) == len(list((branch / "evaluations").iterdir())) == 3
    assert "changes" in read_run_file(branch)
    assert "changes" not in read_run_file(run), "of the run that was left"
    with pytest.raises(ConfigError, match="seed"):
        opened(cfg.model_copy(update={"seed": 5}), run, "restart")


@contextmanager
def unchanged(run: Path) -> Iterator[None]:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    yield
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_checkpoints_that_are_gone_are_missed(cfg: TrainConfig, tmp_path: Path) -> None:
    run = made(cfg, tmp_path / "run")
    for path in all_checkpoints(run):
        path.rename(tmp_path / path.name)
    with unchanged(run), pytest.raises(CheckpointError, match=r"rows up to update 4 and no checkpoint.*\n.*--restart"):
        opened(cfg, run, "auto")


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew(cfg: TrainConfig, tmp_path: Path) -> None:
    run = tmp_path / "run"
    opened(cfg, run, "auto")
    (run / "metrics.jsonl").write_text('{"update": 0}\n{"update": 1}\n')
    assert opened(cfg, run, "auto").resume_from is None


def test_a_broken_record_is_refused_and_an_older_checkpoint_shown(cfg: TrainConfig, tmp_path: Path) -> None:
    run = made(cfg, tmp_path / "run")
    rows = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join([*rows[:2], *rows[3:]]))
    with unchanged(run), pytest.raises(HistoryError, match=r"row of update 3 is missing\n.*--resume .*step-000002$"):
        opened(cfg, run, "auto")
    made(cfg, run, step(run, 2), of="second")
    assert who(run)["rows"] == ["1 first", "2 first", "3 second", "4 second"]


def test_a_run_without_its_facts_does_not_go_on(cfg: TrainConfig, tmp_path: Path) -> None:
    run = made(cfg, tmp_path / "run")
    (run / "run.json").unlink()
    with unchanged(run), pytest.raises(UserError, match=r"has no run\.json, which says what the run is made of"):
        opened(cfg, run, "auto")


def test_a_configuration_that_was_edited_is_refused(cfg: TrainConfig, tmp_path: Path) -> None:
    run = made(cfg, tmp_path / "run")
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("seed: 0", "seed: 1"))
    with unchanged(run), pytest.raises(ConfigError, match=r"config\.yaml: was changed"):
        opened(cfg, run, "auto")
    (run / "config.yaml").write_text(text)
    opened(cfg, run, "auto")


def test_a_killed_resume_leaves_a_configuration_that_is_known(
    cfg: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """run.json knows the new config.yaml before it is there, and the old one for as long as it is."""
    from empg_cli.runs import folder

    def dies(path: Path, text: str) -> None:
        raise KeyboardInterrupt

    run = made(cfg, tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(folder, "write_atomically", dies)
        with pytest.raises(KeyboardInterrupt):
            opened(changed(cfg, updates=6), run, "auto")
    assert opened(changed(cfg, updates=6), run, "auto").done == 4


def test_changes_are_written_down_and_stay(cfg: TrainConfig, tmp_path: Path) -> None:
    run = made(cfg, tmp_path / "run")
    bent = opened(changed(cfg, updates=6), run, "auto").bends
    opened(changed(cfg, updates=6, threads=2), run, "auto")
    changes = [tuple(change.values()) for change in read_run_file(run)["changes"]]
    assert changes == [(4, "trainer.updates", 4, 6), (4, "trainer.threads", 1, 2)]
    assert bent == ((4, 4),)


def test_a_run_does_not_end_where_it_was_not_evaluated(cfg: TrainConfig, tmp_path: Path) -> None:
    """It would count as finished, with the numbers of an older evaluation or none."""
    run = made(cfg, tmp_path / "run", skipped=2)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for folder in (run, tmp_path / "other"):
        with pytest.raises(ConfigError) as caught:
            opened(changed(cfg, updates=2), folder, step(run, 2))
        (problem,) = caught.value.problems
        assert (problem.key, problem.got) == ("trainer.updates", "2")
        assert "update 2 is done and was not evaluated" in problem.what
        assert "ask for 3 or more" in str(problem.hint) and f"eval run={step(run, 2)}" in str(problem.hint)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert opened(changed(cfg, updates=3), run, step(run, 2)).done == 2


def test_a_finished_run_whose_evaluations_are_not_kept_has_nothing_to_do(cfg: TrainConfig, tmp_path: Path) -> None:
    """Its end is not another one now, whatever an older empg has recorded."""
    run = made(cfg, tmp_path / "run", skipped=4)
    assert opened(cfg, run, "auto").done == 4
    update_run_file(run, changes=[{"update": 4, "key": "trainer.updates", "before": 6, "after": 4}])
    assert opened(cfg, run, "auto").done == 4


def test_an_evaluation_that_waits_is_played_at_the_end(cfg: TrainConfig, tmp_path: Path) -> None:
    run = made(changed(cfg, updates=1), tmp_path / "run")
    write_checkpoint(run, TrainState(2, unlogged={"who": 1.0}), lambda path: (path / "who").touch(), keep=9)
    assert opened(changed(cfg, updates=2), run, "auto").done == 2


def changes_of(run: Path) -> list[tuple[object, ...]]:
    return [tuple(change.values()) for change in read_run_file(run).get("changes", [])]


@pytest.fixture
def longer(cfg: TrainConfig, tmp_path: Path) -> Path:
    """A run of 4 updates that went on to 6."""
    run = made(cfg, tmp_path / "longer")
    return made(changed(cfg, updates=6, threads=2), run, "auto")


@pytest.mark.parametrize("place", ["there", "in another folder"])
def test_what_was_changed_after_the_checkpoint_is_of_the_branch_that_was_left(
    place: str, cfg: TrainConfig, longer: Path, tmp_path: Path
) -> None:
    run = longer if place == "there" else tmp_path / "other"
    start = opened(changed(cfg, updates=6), run, step(longer, 2))
    assert changes_of(run) == [(2, "trainer.updates", 4, 6)], "and one thread, as there were until then"
    assert start.bends == ((2, 4),)


def test_who_goes_back_to_the_length_of_the_beginning_has_a_run_of_one_length(
    cfg: TrainConfig, longer: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    straight = read_run_file(made(cfg, tmp_path / "straight"))["config_hash"]
    assert read_run_file(longer)["config_hash"] != straight
    caplog.clear()
    made(cfg, longer, step(longer, 2), of="second")
    assert (changes_of(longer), read_run_file(longer)["config_hash"]) == ([], straight)
    assert "rates" not in caplog.text
    branch = longer / "abandoned" / "1-after-update-000002"
    assert [change[:2] for change in changes_of(branch)] == [(4, "trainer.threads"), (4, "trainer.updates")]


def test_of_two_changes_at_one_place_there_is_one_and_none_where_it_is_taken_back(
    cfg: TrainConfig, longer: Path
) -> None:
    assert opened(changed(cfg, updates=6), longer, step(longer, 4)).bends == ((4, 4),)
    assert changes_of(longer) == [(4, "trainer.updates", 4, 6)]
    assert opened(changed(cfg, updates=5), longer, "auto").bends == ((4, 4),)
    assert changes_of(longer) == [(4, "trainer.updates", 4, 5)]
    assert opened(cfg, longer, "auto").bends == ()
    assert changes_of(longer) == []


def test_a_run_that_goes_on_elsewhere_has_rows_from_there_on(cfg: TrainConfig, tmp_path: Path) -> None:
    run, other = made(cfg, tmp_path / "run"), tmp_path / "other"
    update_run_file(run, hardware=["H100"])
    made(cfg, other, step(run, 2), of="second")
    assert who(other)["rows"] == ["3 second", "4 second"]
    assert read_run_file(other)["hardware"] == ["H100"], "its first updates were computed there"
    assert read_run_file(other)["began"] == {"run": str(run), "update": 2}
    assert opened(changed(cfg, updates=6), other, "auto").done == 4, "no row before is missing"
    with pytest.raises(FolderTaken):
        opened(cfg, other, step(run, 2))


def test_nothing_is_on_its_way(tmp_path: Path) -> None:
    finish_leaving(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_a_kill_kept_from_being_dropped_goes_when_the_run_goes_on(cfg: TrainConfig, tmp_path: Path) -> None:
    """It came between the save of the last checkpoint and the deletion of an old one."""
    run = made(cfg, tmp_path / "run")
    before = all_checkpoints(run)
    opened(changed(cfg, keep_checkpoints=1), run, "auto")
    assert len(before) > 2
    assert all_checkpoints(run)[-1] == before[-1]
    assert len(all_checkpoints(run)) <= 2, "the newest and the best"


def test_a_restart_sets_the_checkpoint_before_the_first_update_aside_too(cfg: TrainConfig, tmp_path: Path) -> None:
    """A signal in the first update has left it; it is of the run that ends there."""
    run = made(cfg, tmp_path / "run")
    write_checkpoint(run, TrainState(0), lambda path: (path / "who").write_text("first") and None, keep=9)
    update_run_file(run, code_before=["abc"], weights="w", model={"digest": "m"})
    opened(cfg, run, "restart")
    assert all_checkpoints(run) == []
    assert {"code_before", "weights", "model"}.isdisjoint(read_run_file(run))
    (branch,) = branches(run)
    assert len(all_checkpoints(run / branch["folder"])) == 5


def test_a_rewind_to_before_the_first_update_keeps_the_row_of_it(cfg: TrainConfig, tmp_path: Path) -> None:
    run = made(cfg, tmp_path / "run")
    (run / "metrics.jsonl").write_text('{"update": 0, "who": 1.0}\n' + (run / "metrics.jsonl").read_text())
    write_checkpoint(run, TrainState(0), lambda path: (path / "who").write_text("first") and None, keep=9)
    opened(cfg, run, run / "checkpoints" / "step-000000")
    assert [path.name for path in all_checkpoints(run)] == ["step-000000"]
    assert (run / "metrics.jsonl").read_text().startswith('{"update": 0')
