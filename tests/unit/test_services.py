"""What a service's failure means for an episode."""

from __future__ import annotations

import logging

import pytest

from empg_cli.rollout.stepping import describe_failure
from empg_cli.services.errors import AccessDeniedError
from empg_cli.types import Task


def test_a_service_that_refuses_is_a_foreseen_failure_without_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        text = describe_failure(AccessDeniedError("serper refused the request: HTTP 403"), Task("t", "k", "test", None))
        assert text == "AccessDeniedError: serper refused the request: HTTP 403"
        assert not caplog.records
        describe_failure(KeyError("page"), Task("t", "k", "test", None))
    assert [record.getMessage() for record in caplog.records] == ["the environment failed on t"]
