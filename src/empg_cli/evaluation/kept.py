"""Passes that an interrupted evaluation has finished: the same command goes on behind them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from empg_cli.config.schema import EvalConfig
from empg_cli.errors import UserError
from empg_cli.invocation import from_here

SETTINGS = "settings"
"""Key of a pass's file: digest of what it depends on beside its own numbers, data and weights."""


class AnotherEvaluation(UserError):  # noqa: N818 (a sentence for the user)
    """The folder holds a pass that this command would not have made."""


def settings_digest(cfg: EvalConfig) -> str:
    """Where data and weights lie, and how fast they are played, makes no difference to a pass."""
    content = cfg.model_dump(
        exclude={
            **dict.fromkeys(
                ("run", "checkpoint", "run_dir", "seed", "seeds", "temperatures", "samples", "logger", "trainer"), True
            ),
            "model": {"path"},
            "benchmark": {"data_dir", "cache_dir"},
            "rollout": {"eval_temperature", "temperature", "max_concurrent", "max_staleness", "vllm"},
            "endpoint": {"api_key_env", "attempts", "timeout_s", "concurrency"},
        }
    )
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def kept_pass(path: Path, wanted: Mapping[str, Any]) -> dict[str, Any] | None:
    """What this file of a pass holds; None where there is none.

    Args:
        wanted: what the pass would say of itself if it was played now: settings, data, policy and its own numbers.

    Raises:
        AnotherEvaluation: it says something else, or cannot be read.
    """
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        found = _identity(content)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError):
        found = {"file": "not a pass of this empg"}
    expected = _identity(wanted)
    if others := [key for key in found if found.get(key) != expected.get(key)]:
        said = ", ".join(f"{key} {found[key]}, now {expected.get(key)}" for key in others)
        raise AnotherEvaluation(
            f"{from_here(path)} is a pass of another evaluation ({said}): give another run_dir, or delete that file"
        )
    kept: dict[str, Any] = content
    return kept


def _identity(content: Mapping[str, Any]) -> dict[str, Any]:
    policy, data = content["policy"], content["data"]
    if isinstance(policy, dict):
        policy = policy.get("digest") or [policy["source"], policy.get("name")]
    own = {key: content[key] for key in (SETTINGS, "split", "temperature", "seed", "sample")}
    return {**own, "policy": policy, "data": data.get("digest") or data}
