"""Bytes of others: what they mean, or one message that names file and place; and folders whose every byte is known."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from empg_cli.errors import DataError, UserError
from empg_cli.reading import seal as sealing
from empg_cli.reading import streams
from empg_cli.reading.guard import json_of, plain_text, plain_texts, reading
from empg_cli.reading.seal import is_sealed, seal, unsealed
from empg_cli.reading.streams import lines, open_bytes, read_json, read_text


class PanicException(BaseException):
    """As pyo3 names it."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (IndexError("list index out of range"), "a.json, row 3: broken (list index out of range). Get it again"),
        (RecursionError("x"), "a.json, row 3: is nested too deep. Get it again"),
        (MemoryError(), "a.json, row 3: asks for more memory than there is. Get it again"),
        (KeyError("id"), "a.json, row 3: 'id' is missing. Get it again"),
        (PermissionError(13, "Permission denied"), "a.json, row 3: cannot be read (Permission denied). Get it again"),
        (AssertionError(), "a.json, row 3: broken (AssertionError). Get it again"),
        (PanicException("index out of bounds"), "a.json, row 3: broken (index out of bounds). Get it again"),
    ],
)
def test_whatever_is_raised_is_one_message(error: BaseException, said: str) -> None:
    with pytest.raises(DataError) as caught, reading("a.json, row 3", "Get it again"):
        raise error
    assert str(caught.value) == said
    assert caught.value.__cause__ is error


def test_what_is_ours_and_what_stops_passes() -> None:
    for error in (DataError("x"), UserError("y"), KeyboardInterrupt(), SystemExit(3)):
        with pytest.raises(type(error)) as caught, reading("a"):
            raise error
        assert caught.value is error


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("[" * 100_000, "a: is nested too deep"),
        (b'{"a":' * 100_000, "a: is nested too deep"),
        ("{", "a: not valid JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))"),
        (b"caf\xe9", "a: not UTF-8 text: byte 3: unexpected end of data"),
        ("9" * 5000, "a: broken (Exceeds the limit"),
    ],
)
def test_json_of_anything(source: str | bytes, said: str) -> None:
    with pytest.raises(DataError) as caught:
        json_of(source, "a")
    assert str(caught.value).startswith(said)


def test_texts_are_texts() -> None:
    assert plain_texts(["a", "é"], "x") == ("a", "é")
    for value in (None, 3, ["a"], {"a": 1}):
        with pytest.raises(TypeError, match="x is"):
            plain_text(value, "x")
    for value in ("abc", {"a": 1}, [1], None):  # a text is no list of its characters
        with pytest.raises(TypeError, match="x is"):
            plain_texts(value, "x")
    with pytest.raises(DataError, match="row 1: no text: half a character"), reading("row 1"):
        plain_text("a\ud800", "x")


def test_a_line_says_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\n\nfo\xffur")
    read = lines(path)
    assert [next(read) for _ in range(3)] == [(1, "one\r\n"), (2, "two\n"), (3, "\n")]
    with pytest.raises(DataError, match=r"a.txt, line 4: not UTF-8 text: byte 2"):
        next(read)
    monkeypatch.setattr(streams, "LONGEST_LINE", 10)
    path.write_bytes(b"a" * 10 + b"\n" + b"b" * 11)
    with pytest.raises(DataError, match=r"a.txt, line 1: longer than 10 bytes"):
        list(lines(path))


def damage_of(content: bytes, at: int) -> bytes:
    damaged = bytearray(content)
    damaged[at] ^= 1
    return bytes(damaged)


@pytest.mark.parametrize("damage", [lambda c: c[:-20], lambda c: damage_of(c, -6), lambda c: damage_of(c, len(c) // 2)])
def test_gzip_is_read_to_its_checksum(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path, text = tmp_path / "a.gz", "".join(f"line {n * n}\n" for n in range(3000))
    path.write_bytes(gzip.compress(text.encode()))
    assert read_text(path) == text
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"a\.gz, near byte \d+: .*It may be cut off or damaged"):
        for _ in lines(path):
            pass


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "FREE_BYTES", 1 << 20)
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(bytes(1 << 20)))
    read_text(path)
    path.write_bytes(gzip.compress(bytes(3 << 20)))
    with pytest.raises(DataError, match="more than 200 times its size"):
        read_text(path)
    with pytest.raises(DataError, match="more than 100 bytes cannot be read at once"):
        (tmp_path / "b").write_bytes(bytes(101)) and read_text(tmp_path / "b", 100)


def test_a_stream_is_told_by_its_content(tmp_path: Path) -> None:
    import bz2
    import lzma

    for pack in (gzip.compress, bz2.compress, lzma.compress, bytes):
        (tmp_path / "a").write_bytes(pack(b"0123456789"))
        with open_bytes(tmp_path / "a", by_content=True) as file:
            assert file.read() == b"0123456789"
            file.seek(3)
            assert (file.tell(), file.read(2)) == (3, b"34")


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none: cannot be read \(No such file or directory\)"):
        read_json(tmp_path / "none")
    with pytest.raises(DataError, match=r"cannot be read \(Is a directory\)"):
        read_json(tmp_path)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    place = tmp_path / "sealed"
    (place / "below").mkdir(parents=True)
    (place / "a.bin").write_bytes(bytes(range(200)))
    (place / "below" / "b.txt").write_text("text")
    (place / "large").write_text("checked elsewhere")
    (place / "lock").touch()
    seal(place, "m.json", {"engine": "x", "rows": 3}, sized_only=["large"])
    return place


def test_a_sealed_folder_gives_its_facts(folder: Path) -> None:
    assert unsealed(folder, "m.json", "") == {"engine": "x", "rows": 3}
    (folder / "lock").unlink()  # an empty file holds nothing
    (folder / "new").write_text("not of the seal")
    (folder / "large").write_text("CHECKED elsewhere")
    assert unsealed(folder, "m.json", "") == {"engine": "x", "rows": 3}
    assert is_sealed(json.loads((folder / "m.json").read_text()))
    assert not is_sealed({"engine": "x"}) and not is_sealed([])
    assert is_sealed({"filez": {}, "check": ""}) and is_sealed({"files": {}, "chfck": ""})


def test_every_flipped_bit_of_a_sealed_folder_is_noticed(folder: Path) -> None:
    for name in ("a.bin", "below/b.txt", "m.json"):
        content = (folder / name).read_bytes()
        for place in range(0, len(content), 7):
            (folder / name).write_bytes(damage_of(content, place))
            with pytest.raises(DataError, match=r"sealed.*Make it again"):
                unsealed(folder, "m.json", "Make it again")
        (folder / name).write_bytes(content)
    unsealed(folder, "m.json", "")


def test_a_missing_or_cut_file_is_named(folder: Path) -> None:
    (folder / "large").write_text("checked")
    with pytest.raises(DataError, match="large: 7 bytes instead of 17"):
        unsealed(folder, "m.json", "")
    (folder / "below" / "b.txt").unlink()
    with pytest.raises(DataError, match=r"b\.txt: missing"):
        unsealed(folder, "m.json", "")


def test_large_folders_are_checked_once_for_each_identity(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counted(path: Path) -> int:
        read.append(path.name)
        return crc32(path)

    crc32 = sealing.crc32
    monkeypatch.setattr(sealing, "crc32", counted)
    unsealed(folder, "m.json", "")
    unsealed(folder, "m.json", "")
    assert len(read) == 4  # small: each time
    monkeypatch.setattr(sealing, "CHECKED_EACH_TIME", 100)
    unsealed(folder, "m.json", "")
    assert len(read) == 6
    unsealed(folder, "m.json", "")
    assert len(read) == 6  # remembered
    (folder / "a.bin").write_bytes(damage_of((folder / "a.bin").read_bytes(), 5))
    with pytest.raises(DataError, match=r"a\.bin: not what was written"):
        unsealed(folder, "m.json", "")
