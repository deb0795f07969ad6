"""The engine that `rollout.engine` names, for a policy that learns or is evaluated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from empg_cli.config.rollout import Rollout
from empg_cli.config.schema import Model
from empg_cli.model.policy import Policy
from empg_cli.ranks import ALONE, Ranks
from empg_cli.rollout.engine import LearnersEngine
from empg_cli.rollout.torch_engine.engine import TorchEngine

SERVERS = "servers"
"""Folder, in that of a run, for what servers of its own say."""


@contextmanager
def opened_engine(
    rollout: Rollout,
    policy: Policy,
    stop_ids: Sequence[int],
    *,
    model: Model,
    folder: Path,
    ranks: Ranks = ALONE,
) -> Iterator[LearnersEngine]:
    """Publish the policy before anything is played.

    Args:
        model: what the policy was made from.
        folder: for what servers leave, where there are any.
    """
    if rollout.engine == "torch":
        yield TorchEngine(policy, stop_ids, most_tokens=rollout.max_context_tokens)
        return
    from empg_cli.rollout.vllm.opening import opened_servers

    with opened_servers(rollout, policy, stop_ids, model=model, folder=folder, ranks=ranks) as engine:
        yield engine
