"""Errors of the command line: what a user can put right, and a job that failed."""

from __future__ import annotations


class UserError(Exception):
    """Something that a user can put right: shown as one message without a traceback, exit code 2.

    The message says what is wrong, where, and what to do.
    """

    exit_code = 2


class DataError(UserError):
    """A file or folder that was read is missing, broken, or of another kind. The message names it and the place in it,
    and says what to do."""


class JobFailed(Exception):  # noqa: N818 (the error is its cause)
    """A job raised, and its own log holds the traceback; exit code 1.

    A plain text, so that it travels home from a launcher's worker.
    """
