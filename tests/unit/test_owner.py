"""One process at a time works in a folder (`empg_cli.owner`)."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from empg_cli.owner import OWNER_FILE, FolderOwned, owner_of, owning, working_in

HOLD = """
import sys, time
from pathlib import Path
from empg_cli.owner import owning
with owning(Path(sys.argv[1]), "training"):
    print("owned", flush=True)
    time.sleep(60)
"""


def holding(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "owned\n"
    return process


def test_a_second_owner_is_told_who_the_first_is(tmp_path: Path) -> None:
    with owning(tmp_path, "training"):
        owner = owner_of(tmp_path)
        assert owner is not None
        assert (owner.host, owner.pid, owner.doing) == (socket.gethostname(), os.getpid(), "training")
        with pytest.raises(FolderOwned, match=rf"in use by process {os.getpid()} on .* \(training since 20"):  # noqa: SIM117
            with owning(tmp_path, "evaluating"):
                pass
        assert owner_of(tmp_path) == owner
    assert not (tmp_path / OWNER_FILE).exists()
    with owning(tmp_path, "evaluating"):
        pass


def test_a_block_inside_another_goes_on_owning(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with owning(tmp_path, "training"):
        owner = owner_of(tmp_path)
        with owning(tmp_path / "link", "evaluating", again=True):
            assert owner_of(tmp_path) == owner
        assert owner_of(tmp_path) == owner, "the inner block has let go of it"
        child = os.fork()
        if child == 0:  # inherits what this process knows, and owns nothing
            try:
                with owning(tmp_path, "training", again=True):
                    os._exit(1)
            except FolderOwned:
                os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    with owning(tmp_path, "training", again=True):
        assert owner_of(tmp_path) is not None
    assert owner_of(tmp_path) is None


def test_another_process_holds_it_until_it_dies_however_it_dies(tmp_path: Path) -> None:
    process = holding(tmp_path)
    with pytest.raises(FolderOwned, match=f"process {process.pid} "), owning(tmp_path, "training"):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert owner_of(tmp_path) is not None, "a kill leaves the file"
    with owning(tmp_path, "training"):
        owner = owner_of(tmp_path)
        assert owner is not None
        assert owner.pid == os.getpid()


def test_a_file_that_says_nothing_is_no_owner(tmp_path: Path) -> None:
    (tmp_path / OWNER_FILE).write_text("{")
    with owning(tmp_path, "training"):
        pass


def test_an_owner_that_deletes_its_file_while_another_opens_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second has opened the file of the first; it must not own a file that is gone."""
    first = owning(tmp_path, "training")
    first.__enter__()
    real = fcntl.flock

    def first_ends(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", real)
        first.__exit__(None, None, None)
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", first_ends)
    with owning(tmp_path, "evaluating"):
        assert (tmp_path / OWNER_FILE).exists()
        with pytest.raises(FolderOwned), owning(tmp_path, "training"):
            pass


def no_locks(descriptor: int, operation: int) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


@pytest.mark.parametrize(
    ("host", "pid", "is_taken"),
    [("here", 2**22 - 1, False), ("here", os.getppid(), True), ("elsewhere", 1, True)],
)
def test_without_locks_the_process_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, pid: int, is_taken: bool
) -> None:
    monkeypatch.setattr(fcntl, "flock", no_locks)
    said = {"host": socket.gethostname() if host == "here" else host, "pid": pid, "since": "-", "doing": "training"}
    (tmp_path / OWNER_FILE).write_text(json.dumps(said))
    if is_taken:
        with pytest.raises(FolderOwned, match=f"process {pid}"), owning(tmp_path, "training"):
            pass
        assert json.loads((tmp_path / OWNER_FILE).read_text()) == said
    else:
        with owning(tmp_path, "training"):
            owner = owner_of(tmp_path)
            assert owner is not None
            assert owner.pid == os.getpid()


def test_a_folder_that_was_made_for_nothing_goes_again(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such policy"), working_in(tmp_path / "new", "diagnosing"):
        raise ValueError("no such policy")
    assert not (tmp_path / "new").exists()
    with working_in(tmp_path / "new", "diagnosing"):
        (tmp_path / "new" / "found").touch()
    (tmp_path / "mine").mkdir()
    with working_in(tmp_path / "mine", "diagnosing"):
        pass
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["mine", "new"]
    assert (tmp_path / "new" / "found").exists()


WORK = """
import sys
from pathlib import Path
from empg_cli.owner import FolderOwned, owned_by_parent, owning
folder = Path(sys.argv[1])
try:
    with owned_by_parent(folder), owning(folder, "training", again=True):
        print("worked")
except FolderOwned as taken:
    print(taken)
"""


def work_there(folder: Path) -> str:
    return subprocess.run([sys.executable, "-c", WORK, str(folder)], capture_output=True, text=True, check=True).stdout


def test_a_child_that_says_so_works_in_the_folder_of_its_parent(tmp_path: Path) -> None:
    with owning(tmp_path, "training"):
        owner = owner_of(tmp_path)
        assert work_there(tmp_path) == "worked\n"
        assert owner_of(tmp_path) == owner, "it is the parent's still"
    assert "is in use by another process" in work_there(tmp_path), "nobody's"
    process = holding(tmp_path)
    assert f"process {process.pid}" in work_there(tmp_path)
    process.kill()
    process.wait()
