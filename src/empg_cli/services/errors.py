"""What goes wrong with a service. Whether that ends an episode, a run or nothing is the caller's to say."""

from __future__ import annotations

from empg_cli.errors import UserError


class ServiceError(Exception):
    """A call that failed."""


class NoAnswerError(ServiceError):
    """This call gave no answer that can be used (after retries)."""


class BadAnswerError(NoAnswerError):
    """Somebody answered, and asking again would bring the same: a refusal, or something that is no answer."""

    def __init__(self, message: str, said: str = "") -> None:
        """
        Args:
            said: all that came with a refusal, of which the message has the beginning.
        """
        super().__init__(message)
        self.said = said


class AccessDeniedError(ServiceError):
    """The service refused the credentials (HTTP 401 or 403); trying again cannot help."""


class MissingKeyError(UserError):
    """The environment variable that should hold a service's key is not set."""


class NoWayError(UserError):
    """The environment names a proxy, or certificates, with which an address cannot be reached."""


class ServerDown(UserError):  # noqa: N818 (a sentence for the user)
    """Too many calls of a rollout or an evaluation stayed without an answer: what was played means nothing."""
