"""The folder of a command is its own before Hydra writes there; one named by the time is always a new one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from empg_cli.cli.claim import claimed
from empg_cli.cli.path_errors import path_error
from empg_cli.config.place import Place, output_place
from empg_cli.errors import UserError
from empg_cli.owner import FolderOwned, owner_of, owning


def place(folder: Path, *, is_stamped: bool = False) -> Place:
    return Place(folder, is_stamped, OmegaConf.create({"resume": None}))


def test_where_a_run_goes_is_known_before_hydra_makes_it() -> None:
    stamped = output_place("train", ["algo=grpo", "seed=3"])
    assert stamped is not None
    assert stamped.is_stamped
    assert stamped.folder.parent == Path("runs/alfworld-grpo-tiny")
    assert stamped.folder.name.endswith("-s3")
    assert stamped.config.resume is None
    named = output_place("train", ["run_dir=mine/it is", "resume=auto"])
    assert named is not None
    assert (named.folder, named.is_stamped) == (Path("mine/it is"), False)
    assert named.config.resume == "auto"
    hydras = output_place("train", ["run_dir=mine", "hydra.run.dir=at/${now:%H}"])
    assert hydras is not None
    assert (hydras.folder.parent, hydras.is_stamped) == (Path("at"), True)


def test_a_place_that_only_the_job_can_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)  # a job of another test may have set it
    assert output_place("train", ["hydra.run.dir=${hydra:runtime.cwd}/x"]) is None


def test_commands_of_one_second_get_folders_of_their_own(tmp_path: Path) -> None:
    wanted = place(tmp_path / "runs" / "now", is_stamped=True)
    with claimed(wanted, "training") as one, claimed(wanted, "training") as two, claimed(wanted, "training") as three:
        names = [word for words in (one, two, three) for word in words]
        assert names == [f"hydra.run.dir={tmp_path}/runs/now{end}" for end in ("", "-2", "-3")]
        assert owner_of(tmp_path / "runs" / "now-3") is not None
    assert list((tmp_path / "runs").iterdir()) == [], "nothing was put there"


def test_a_folder_of_somebody_else_is_left_as_it_is(tmp_path: Path) -> None:
    def admit(*_: object) -> None:
        raise AssertionError("it was looked at before it was owned")

    with owning(tmp_path, "training"):
        before = (tmp_path / ".owner").read_bytes()
        with pytest.raises(FolderOwned), claimed(place(tmp_path), "training", admit):
            pass
        assert (tmp_path / ".owner").read_bytes() == before
    assert list(tmp_path.iterdir()) == []


def test_what_is_refused_leaves_no_folder_behind(tmp_path: Path) -> None:
    def admit(config: object, folder: Path) -> None:
        assert folder.is_dir()
        raise UserError("no")

    with pytest.raises(UserError, match="no"), claimed(place(tmp_path / "new"), "training", admit):
        pass
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    with pytest.raises(UserError, match="no"), claimed(place(tmp_path / "old"), "training", admit):
        pass
    assert (tmp_path / "old").is_dir()


@pytest.mark.parametrize("is_stamped", [False, True])
def test_a_folder_that_cannot_be_is_one_message(is_stamped: bool, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    wanted = place(tmp_path / "file" / "run", is_stamped=is_stamped)
    with pytest.raises(OSError, match="file") as raised, claimed(wanted, "training"):
        pass
    said = str(path_error(raised.value))
    assert str(tmp_path / "file") in said
    assert "run_dir=DIR" in said


def test_a_name_is_quoted_for_hydra(tmp_path: Path) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    folder = tmp_path / 'a "b", c=d'
    with claimed(place(folder), "training") as words:
        assert OverridesParser.create().parse_overrides(words)[0].value() == str(folder)
