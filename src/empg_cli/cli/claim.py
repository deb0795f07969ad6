"""The folder that a command works in: made, owned and looked at before Hydra writes a line there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from empg_cli.files import emptied
from empg_cli.invocation import as_value
from empg_cli.owner import owning

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from empg_cli.config.place import Place

Admit = Callable[["DictConfig", Path], None]
"""Raises a UserError where the command must not touch the folder; it is given what the words compose to."""


@contextlib.contextmanager
def claimed(place: Place, doing: str, admit: Admit | None = None) -> Iterator[list[str]]:
    """While the block runs the folder is this process's own. Yields the word that tells Hydra of it.

    A folder named by the time is always a new one: two commands of one second get two.

    Raises:
        FolderOwned: another process works there; nothing in it was changed.
        OSError: it cannot be made or written.
        UserError: `admit` has refused it.
    """
    was_there = place.folder.exists() and not place.is_stamped
    with contextlib.ExitStack() as stack:
        folder = new_folder(place.folder) if place.is_stamped else place.folder
        folder.mkdir(parents=True, exist_ok=True)
        stack.enter_context(emptied(folder, was_there=was_there))
        stack.enter_context(owning(folder, doing))
        if admit is not None:
            admit(place.config, folder)
        yield [f"hydra.run.dir={as_value(folder)}"]


def new_folder(path: Path) -> Path:
    """Of this name, or with -2, -3 ... behind it: made by this call."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        candidate = path if number == 1 else path.with_name(f"{path.name}-{number}")
        with contextlib.suppress(FileExistsError):
            candidate.mkdir()
            return candidate
    raise AssertionError
