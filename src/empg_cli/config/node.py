"""What every part of a configuration is: frozen, and closed to unknown keys."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt


class Node(BaseModel):
    """Strict: `true` is no number and `"8"` no integer; infinities and NaN are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class BenchmarkNode(Node):
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
