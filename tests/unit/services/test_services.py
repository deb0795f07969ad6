"""What a service's failure means for an episode."""

from __future__ import annotations

import logging

import pytest

from empg_cli.benchmarks.border import EnvironmentFailed
from empg_cli.rollout.stepping import end_unscored
from empg_cli.services.errors import AccessDeniedError
from empg_cli.types import Task, Trajectory


def test_a_service_that_refuses_is_a_foreseen_failure_without_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    trajectory = Trajectory(Task("t", "k", "test"), 0, 0)
    said: set[str] = set()
    with caplog.at_level(logging.WARNING):
        refusal = AccessDeniedError("serper refused the request: HTTP 403")
        end_unscored(trajectory, EnvironmentFailed(refusal), said)
        assert trajectory.error == "AccessDeniedError: serper refused the request: HTTP 403"
        assert not caplog.records
        for _ in range(3):  # said once, however many episodes end with it
            end_unscored(trajectory, EnvironmentFailed(KeyError("page")), said)
    assert [record.getMessage() for record in caplog.records] == ["the environment failed on t"]
