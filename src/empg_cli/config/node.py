"""What every part of a configuration is: frozen, and closed to unknown keys.

`Node` and `BenchmarkSettings` are public: the settings of code from outside the package derive from them.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt


class Node(BaseModel):
    """Strict: `true` is no number and `"8"` no integer; infinities and NaN are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Brought(Node):
    """What code from outside reads: the keys of this class, and those of the model that it brings, which has checked
    them (config/outside.py)."""

    model_config = ConfigDict(extra="allow")
    target: str
    """package.module:name, or the name of an installed entry point."""

    @property
    def settings(self) -> dict[str, Any]:
        """What is set beside the keys of this class."""
        return dict(self.model_extra or {})


class BenchmarkNode(Node):
    name: str
    """Names runs and the family of its metrics."""
    data_dir: str | None
    """Official data; null plays generated data, and every report says so."""
    split: str
    """The split that evaluation plays. Training tasks always come from `train`."""
    eval_tasks: PositiveInt | None
    """The first n tasks of the split; null = all of them, each exactly once."""
    max_steps: int = Field(ge=1, le=200)
    """Model calls in an episode; refused actions count."""
    success_reward: PositiveFloat
    """Reward of a solved task (0 otherwise). verl-agent uses 10."""
    invalid_action_penalty: NonNegativeFloat
    """Subtracted from the reward for every step whose action is invalid; 0 = off."""
    invalid_action_scope: Literal["format", "admissible"]
    """format: only malformed responses are invalid (verl-agent); admissible: refused actions too."""


class BenchmarkSettings(BenchmarkNode):
    """What the settings of a benchmark from outside derive from: the keys that every benchmark has, with defaults."""

    data_dir: str | None = None
    split: str = "test"
    eval_tasks: PositiveInt | None = None
    max_steps: int = Field(default=50, ge=1, le=200)
    success_reward: PositiveFloat = 1.0
    invalid_action_penalty: NonNegativeFloat = 0.1
    invalid_action_scope: Literal["format", "admissible"] = "format"
