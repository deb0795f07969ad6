"""A large file over HTTP: whole or not there, gone on with where the server still has the same, never mixed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from empg_cli.services import download as module
from empg_cli.services.download import download
from empg_cli.services.errors import BadAnswerError, NoAnswerError
from empg_cli.signals import Interrupted
from tests.support.disks import files_end_at
from tests.support.files import FileServer
from tests.support.server import FakeServer, Reply

CONTENT = random.Random(0).randbytes(300_000)
OTHER = random.Random(1).randbytes(300_000)
SHA = hashlib.sha256(CONTENT).hexdigest()

Serve = Callable[..., FakeServer]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    monkeypatch.setattr(module, "FIRST_WAIT_S", 0.0)
    servers: list[FakeServer] = []

    def start(handler: FileServer) -> FakeServer:
        servers.append(FakeServer(handler))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def there(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir())}


def cut_in_chunks() -> Reply:
    """An answer that does not tell its size, and whose line is cut in the middle of its chunks."""
    body = b"186a0\r\n" + CONTENT[:100_000] + b"\r\n"
    return Reply(body, 200, {"ETag": '"one"', "Transfer-Encoding": "chunked"}, says_length=False)


def stopped_at(bytes_: int) -> Callable[[int, int | None], None]:
    def progress(done: int, total: int | None) -> None:
        if done >= bytes_:
            raise Interrupted(2)

    return progress


def test_a_whole_file_comes_with_its_progress_and_its_digest(serve: Serve, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    url = serve(FileServer(CONTENT)).url
    digest = download(url, tmp_path / "file", size=len(CONTENT), sha256=SHA, progress=lambda *now: seen.append(now))
    assert digest == SHA
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert there(tmp_path) == {"file": 300_000}
    assert seen[0] == (0, 300_000) and seen[-1] == (300_000, 300_000)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


@pytest.mark.parametrize("etag", ['"one"', None])
def test_a_cut_line_is_gone_on_with(serve: Serve, tmp_path: Path, etag: str | None) -> None:
    """Without an ETag the size that the server names with the rest has to be the same."""
    server = serve(FileServer(CONTENT, etag, cuts=[100_000, 50_000]))
    assert download(server.url, tmp_path / "file", sha256=SHA) == SHA
    starts = [int(request.headers.get("range", "bytes=0-")[6:-1]) for request in server.requests]
    assert starts[0] == 0 and 0 < starts[1] < starts[2] <= 150_000
    assert [request.headers.get("if-range") for request in server.requests] == [None, etag, etag]


def test_a_rest_of_a_file_whose_size_nobody_told_is_taken(serve: Serve, tmp_path: Path) -> None:
    server = serve(FileServer(CONTENT))
    server.script = [cut_in_chunks()]
    assert download(server.url, tmp_path / "file") == SHA
    assert len(server.requests) == 2


def test_bytes_that_came_before_are_no_progress(serve: Serve, tmp_path: Path) -> None:
    """Each rest is another file's, so all begins anew, and not for ever."""
    server = serve(FileServer(CONTENT))
    other = Reply(OTHER[1:], 206, {"ETag": '"two"', "Content-Range": "bytes 1-299999/300000"})
    server.script = [cut_in_chunks(), other] * 20
    with pytest.raises(NoAnswerError, match="tried 4 times"):
        download(server.url, tmp_path / "file")
    assert len(server.requests) == 4


def test_the_first_bytes_of_another_file_are_progress(serve: Serve, tmp_path: Path) -> None:
    """Each answer brings 20,000 bytes of the new file; the part of the old one had 100,000."""
    server = serve(FileServer(OTHER, '"old"'))
    with pytest.raises(Interrupted):
        download(server.url, tmp_path / "file", progress=stopped_at(100_000))
    server.handler = FileServer(CONTENT, '"new"', cuts=[20_000] * 14)
    assert download(server.url, tmp_path / "file") == SHA


def test_ctrl_c_keeps_the_part_and_the_next_call_asks_for_the_rest(serve: Serve, tmp_path: Path) -> None:
    server = serve(FileServer(CONTENT))
    with pytest.raises(Interrupted):
        download(server.url, tmp_path / "file", progress=stopped_at(1))
    part = there(tmp_path)["file.part"]
    assert 0 < part < 300_000
    assert download(server.url, tmp_path / "file", sha256=SHA) == SHA
    assert server.requests[-1].headers["range"] == f"bytes={part}-"
    assert there(tmp_path) == {"file": 300_000}


def test_a_part_that_is_whole_is_not_asked_for_again(serve: Serve, tmp_path: Path) -> None:
    server = serve(FileServer(CONTENT))
    with pytest.raises(Interrupted):
        download(server.url, tmp_path / "file", progress=stopped_at(300_000))
    assert download(server.url, tmp_path / "file", sha256=SHA) == SHA
    assert len(server.requests) == 1


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_file_that_has_changed_meanwhile_is_fetched_anew(serve: Serve, tmp_path: Path, knows_ranges: bool) -> None:
    files = FileServer(CONTENT, knows_ranges=knows_ranges)
    server = serve(files)
    with pytest.raises(Interrupted):
        download(server.url, tmp_path / "file", progress=stopped_at(1))
    files.content, files.etag = OTHER, '"two"'
    assert download(server.url, tmp_path / "file") == hashlib.sha256(OTHER).hexdigest()
    assert (tmp_path / "file").read_bytes() == OTHER


def test_a_server_that_gives_a_rest_of_another_file_is_not_believed(serve: Serve, tmp_path: Path) -> None:
    """It does not know If-Range; the size of the whole, or the ETag, gives it away."""
    files = FileServer(CONTENT, etag=None)
    server = serve(files)
    with pytest.raises(Interrupted):
        download(server.url, tmp_path / "file", progress=stopped_at(1))
    files.content = OTHER + b"more"
    digest = hashlib.sha256(OTHER + b"more").hexdigest()
    assert download(server.url, tmp_path / "file", sha256=digest) == digest
    assert server.requests[1].headers["range"]


def test_without_validator_and_checksum_nothing_is_gone_on_with(serve: Serve, tmp_path: Path) -> None:
    """Another version of the same size would be mixed with the first."""
    files = FileServer(CONTENT, etag=None)
    server = serve(files)
    with pytest.raises(Interrupted):
        download(server.url, tmp_path / "file", progress=stopped_at(1))
    files.content = OTHER
    assert download(server.url, tmp_path / "file", size=300_000) == hashlib.sha256(OTHER).hexdigest()
    assert "range" not in server.requests[1].headers


def test_the_part_of_another_address_is_not_gone_on_with(serve: Serve, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        download(serve(FileServer(OTHER)).url, tmp_path / "file", progress=stopped_at(1))
    server = serve(FileServer(CONTENT))
    assert download(server.url, tmp_path / "file") == SHA
    assert "range" not in server.requests[0].headers


@pytest.mark.parametrize("note", ["", "{", "[1]", '{"url": 3}'])
def test_a_broken_note_begins_anew(serve: Serve, tmp_path: Path, note: str) -> None:
    (tmp_path / "file.part").write_bytes(OTHER[:1000])
    (tmp_path / "file.part.json").write_text(note)
    assert download(serve(FileServer(CONTENT)).url, tmp_path / "file") == SHA


def test_a_wrong_checksum_is_an_error_and_leaves_nothing(serve: Serve, tmp_path: Path) -> None:
    with pytest.raises(BadAnswerError, match=f"another file: sha256 {SHA}, not 0{{64}}"):
        download(serve(FileServer(CONTENT)).url, tmp_path / "file", sha256="0" * 64)
    assert there(tmp_path) == {}


def test_another_size_is_refused_before_a_byte_is_fetched(serve: Serve, tmp_path: Path) -> None:
    seen: list[int] = []
    with pytest.raises(BadAnswerError, match="another file: 300,000 bytes, not 300,001"):
        download(serve(FileServer(CONTENT)).url, tmp_path / "file", size=300_001, progress=lambda n, _: seen.append(n))
    assert there(tmp_path) == {} and not seen


def test_nor_is_another_size_kept_that_the_server_did_not_tell(serve: Serve, tmp_path: Path) -> None:
    server = serve(FileServer(CONTENT))
    server.script = [Reply(CONTENT[:-1], says_length=False)]
    with pytest.raises(BadAnswerError, match="another file: 299,999 bytes, not 300,000"):
        download(server.url, tmp_path / "file", size=300_000)
    assert there(tmp_path) == {}


def test_what_is_there_is_never_written_over(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    server = serve(FileServer(CONTENT))
    with pytest.raises(FileExistsError):
        download(server.url, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine" and not server.requests


def test_no_network_is_an_error_and_leaves_nothing(serve: Serve, tmp_path: Path) -> None:
    server = FakeServer(FileServer(CONTENT))
    server.close()
    with pytest.raises(NoAnswerError, match=r"127\.0\.0\.1:\d+: .*refused.*, tried 2 times"):
        download(server.url, tmp_path / "file", attempts=2)
    assert there(tmp_path) == {}


def test_a_line_that_brings_nothing_more_ends_but_keeps_the_part(serve: Serve, tmp_path: Path) -> None:
    with pytest.raises(NoAnswerError, match="tried 2 times"):
        download(serve(FileServer(CONTENT, cuts=[70_000, 0, 0, 0])).url, tmp_path / "file", attempts=2)
    assert there(tmp_path)["file.part"] == 70_000


def test_a_silent_server_is_left(serve: Serve, tmp_path: Path) -> None:
    server = serve(FileServer(CONTENT))
    server.script = [Reply(b"", delay_s=2.0)]
    assert download(server.url, tmp_path / "file", timeout_s=0.2) == SHA


@pytest.mark.parametrize(("status", "tries"), [(404, 1), (403, 1), (503, 2)])
def test_a_refusal_is_final_and_a_busy_server_is_asked_again(
    serve: Serve, tmp_path: Path, status: int, tries: int
) -> None:
    server = serve(FileServer(CONTENT))
    server.script = [Reply(b"", status)] * 2
    with pytest.raises(NoAnswerError, match=f"HTTP {status}"):
        download(server.url, tmp_path / "file", attempts=2)
    assert len(server.requests) == tries and there(tmp_path) == {}


def test_redirections_are_followed_but_not_in_a_circle(serve: Serve, tmp_path: Path) -> None:
    server = serve(FileServer(CONTENT))
    server.script = [Reply(b"", 302, {"Location": "/elsewhere"})]
    assert download(f"{server.url}/here", tmp_path / "file") == SHA
    assert [request.path for request in server.requests] == ["/here", "/elsewhere"]
    server.script = [Reply(b"", 302, {"Location": "/here"})] * 9
    with pytest.raises(BadAnswerError, match="sends on more than"):
        download(f"{server.url}/here", tmp_path / "second")


NO_ADDRESSES = (
    "http://[bad",
    "http://host:99999",
    "nope://host/file",
    "file:///etc/passwd",
    "ftp://host/file",
    f"http://{'a' * 70}.com",
)


@pytest.fixture
def no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    def sleep(seconds: float) -> None:
        pytest.fail(f"slept {seconds} s")

    monkeypatch.setattr(module, "time", SimpleNamespace(sleep=sleep))


@pytest.mark.usefixtures("no_sleep")
@pytest.mark.parametrize("address", [*NO_ADDRESSES, "http:///file", "http://host/a\0b", "host/file", ""])
def test_what_is_no_address_is_refused_at_once(tmp_path: Path, address: str) -> None:
    with pytest.raises(BadAnswerError, match=r"no address|cannot be asked"):
        download(address, tmp_path / "file")
    assert there(tmp_path) == {}


@pytest.mark.usefixtures("no_sleep")
@pytest.mark.parametrize("address", NO_ADDRESSES)
def test_nor_is_it_followed(serve: Serve, tmp_path: Path, address: str) -> None:
    server = serve(FileServer(CONTENT))
    server.script = [Reply(b"", 302, {"Location": address})]
    with pytest.raises(BadAnswerError, match=r"no address|cannot be asked"):
        download(server.url, tmp_path / "file")
    assert len(server.requests) == 1 and there(tmp_path) == {}


@pytest.mark.parametrize("limit", [100_000, 299_999])
def test_a_full_disk_keeps_the_part_and_names_it(serve: Serve, tmp_path: Path, limit: int) -> None:
    server = serve(FileServer(CONTENT))
    with files_end_at(limit), pytest.raises(OSError, match=r"file\.part") as raised:
        download(server.url, tmp_path / "file")
    assert raised.value.errno == errno.EFBIG and raised.value.filename == str(tmp_path / "file.part")
    assert there(tmp_path)["file.part"] == limit
    assert download(server.url, tmp_path / "file", sha256=SHA) == SHA
    assert server.requests[-1].headers["range"] == f"bytes={limit}-"


def test_a_disk_without_room_is_noticed_before_anything_is_fetched(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "free_bytes", lambda path: 1000)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        download(serve(FileServer(CONTENT)).url, tmp_path / "file")
    assert there(tmp_path) == {}


def test_a_note_says_what_the_part_is_of(serve: Serve, tmp_path: Path) -> None:
    server = serve(FileServer(CONTENT))
    with pytest.raises(Interrupted):
        download(server.url, tmp_path / "file", progress=stopped_at(1))
    noted = json.loads((tmp_path / "file.part.json").read_text())
    assert noted == {"url": server.url, "validator": '"one"', "total": 300_000}
