"""A signal in a command's own work: what nobody inside has answered ends it, and says how to go on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from empg_cli.errors import UserError
from empg_cli.observe.stop import Stopped
from empg_cli.signals import Interrupted, asked, caught


@contextlib.contextmanager
def interruptible(hint: str) -> Iterator[None]:
    """
    Args:
        hint: the command that goes on.

    Raises:
        Stopped: a signal came, and nothing inside has answered it.
    """
    with caught():
        try:
            yield
        except Interrupted as interrupted:
            raise Stopped(interrupted.signum, hint) from None
        except (UserError, Stopped):
            raise
        except Exception:
            if signum := asked():  # what a signal has cut short, such as an import, fails in its own ways
                raise Stopped(signum, hint) from None
            raise
