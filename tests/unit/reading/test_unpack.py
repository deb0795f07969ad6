"""Archives of others: what they hold comes out, and nothing lands outside."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from empg_cli.errors import DataError
from empg_cli.reading import unpack as module
from empg_cli.reading.unpack import unpack

MEMBERS = {"top/a.txt": b"one", "top/deep/b.txt": b"two" * 1000, "c.txt": b""}
Members = Sequence[tuple[str, bytes]]
OUTSIDE = ("../evil", "/etc/evil", "a/../../evil", "..\\evil", "C:\\evil", "\\\\host\\evil")


def zipped(path: Path, members: Members) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def tarred(path: Path, members: Members) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


MAKERS = {"games.zip": zipped, "games.tar": tarred, "games.tar.gz": tarred}


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", MAKERS)
def test_all_files_come_out(tmp_path: Path, name: str) -> None:
    archive = MAKERS[name](tmp_path / name, list(MEMBERS.items()))
    assert unpack(archive, tmp_path / "out") == 3
    assert files(tmp_path / "out") == MEMBERS


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("outside", OUTSIDE)
def test_a_member_that_points_outside_is_refused(tmp_path: Path, name: str, outside: str) -> None:
    archive = MAKERS[name](tmp_path / name, [(outside, b"evil")])
    with pytest.raises(DataError, match="points outside"):
        unpack(archive, tmp_path / "in" / "out")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [name]


@pytest.mark.parametrize("name", ["games.zip", "games.tar"])
@pytest.mark.parametrize(
    ("members", "said"),
    [
        (["."], "a file without a name"),
        (["./."], "a file without a name"),
        (["a" * 300], "a name that no file can have"),
        (["\u00e9" * 128], "a name that no file can have"),
        (["/".join("b" * 9 for _ in range(500))], "a name that no file can have"),
        (["a", "a"], "holds 'a' twice"),
        (["a", "./a"], r"holds '\./a' twice"),
        (["a", "a/b"], "holds 'a/b' twice, or as a file and as a folder"),
        (["a", "a/b/c"], "holds 'a/b/c' twice, or as a file and as a folder"),
        (["a/b", "a"], "holds 'a' twice, or as a file and as a folder"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_cannot_be_files_are_refused(tmp_path: Path, name: str, members: list[str], said: str) -> None:
    archive = MAKERS[name](tmp_path / name, [(member, b"x") for member in members])
    with pytest.raises(DataError, match=said):
        unpack(archive, tmp_path / "out")


def test_a_name_with_a_zero_in_it_is_refused(tmp_path: Path) -> None:
    """A tar says it in the header of its extended form; in a zip the name ends there."""
    with tarfile.open(tmp_path / "games.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("a")
        info.pax_headers = {"path": "a\0b"}
        archive.addfile(info)
    with pytest.raises(DataError, match="a name that no file can have"):
        unpack(tmp_path / "games.tar", tmp_path / "out")


@pytest.mark.parametrize("name", ["games.zip", "games.tar"])
def test_more_files_than_data_has_are_refused(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_FILES", 3)
    assert unpack(MAKERS[name](tmp_path / name, list(MEMBERS.items())), tmp_path / "right") == 3
    archive = MAKERS[name](tmp_path / name, [*MEMBERS.items(), ("d.txt", b"")])
    with pytest.raises(DataError, match="more than 3 files"):
        unpack(archive, tmp_path / "out")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "games.tar", "w") as archive:
        info = tarfile.TarInfo("link")
        info.type, info.linkname = kind, "../../etc/passwd"
        archive.addfile(info)
    with pytest.raises(DataError, match="a link or a device"):
        unpack(tmp_path / "games.tar", tmp_path / "out")


def test_a_link_in_a_zip_comes_out_as_a_plain_file(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "games.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    unpack(tmp_path / "games.zip", tmp_path / "out")
    assert not (tmp_path / "out/link").is_symlink()
    assert (tmp_path / "out/link").read_text() == "/etc/passwd"


def test_a_bomb_is_left_alone(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "games.zip", [("zeros", bytes(200 << 20))])
    with pytest.raises(DataError, match="a bomb"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_member_is_an_error_that_names_it(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "games.zip", [("a.txt", bytes(range(256)) * 40)])
    content = bytearray(archive.read_bytes())
    content[60] ^= 0xFF
    archive.write_bytes(content)
    with pytest.raises(DataError, match=r"games\.zip: a\.txt"):
        unpack(archive, tmp_path / "out")


@pytest.mark.parametrize("name", ["games.zip", "games.tar.gz", "notes.txt"])
def test_what_is_no_archive_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no archive at all")
    with pytest.raises(DataError, match=name):
        unpack(tmp_path / name, tmp_path / "out")
