"""The border between environments and the rest: numbers leave as Python's own."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from empg_cli.benchmarks.base import StepResult
from empg_cli.rollout.outcomes import reported_numbers

NUMPY: dict[str, Any] = {
    "reward": np.float32(0.5), "done": np.bool_(True), "success": np.bool_(False), "score": np.float64(0.25),
    "valid": np.array(True),
}  # fmt: skip


def test_numbers_of_numpy_leave_as_pythons_own() -> None:
    info = {"n": np.int64(3), "met": np.bool_(True), "zero_d": np.array(2.0), "text": "red", "list": [1]}
    result = StepResult("text", ("look",), **NUMPY, info=info)
    values = (result.reward, result.done, result.success, result.score, result.valid, result.info)
    assert json.dumps(values) == (
        '[0.5, true, false, 0.25, true, {"n": 3, "met": true, "zero_d": 2.0, "text": "red", "list": [1]}]'
    )
    assert [type(value) for value in values[:5]] == [float, bool, bool, float, bool]
    assert reported_numbers(result.info) == {"n": 3.0, "met": 1.0, "zero_d": 2.0}


def test_numbers_of_torch_too() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    result = StepResult("", (), torch.tensor(1.5), torch.tensor(True), False, 1, True, {"x": torch.tensor(2)})
    assert (result.reward, result.done, result.score, result.info) == (1.5, True, 1.0, {"x": 2})
    assert [type(value) for value in (result.reward, result.done, result.score, result.info["x"])] == [
        float, bool, float, int,
    ]  # fmt: skip
