"""`auto` in a configuration: the numbers that it stands for on this machine, settled before any weights are loaded."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, TypeVar

from empg_cli.config.schema import EvalConfig, TrainConfig
from empg_cli.planning.fitting import settled
from empg_cli.planning.hardware import Hardware
from empg_cli.planning.job import MOST_TOKENS, Job, beside_servers, eval_job_of
from empg_cli.planning.plan import Plan, plan_of

log = logging.getLogger(__name__)

Config = TypeVar("Config", TrainConfig, EvalConfig)


def within_memory(
    cfg: TrainConfig, hardware: Hardware, recorded: Mapping[str, Any], ranks: int = 1
) -> tuple[TrainConfig, Plan | None]:
    """A configuration without auto, and its plan, None where the shape of the model is not known.

    What auto has stood for in a run stays, so that it goes on bit for bit; where it does not fit by now, it is settled
    anew.

    Args:
        recorded: `settled` of run.json.
        ranks: that carry out the run.

    Raises:
        DoesNotFit: it clearly needs more memory than there is.
    """
    given = {key: int(value) for key, value in recorded.items()}
    plan = plan_of(cfg, hardware, given=given or None, ranks=ranks)
    if plan is None:
        return _with(cfg, 0, MOST_TOKENS[hardware.kind]), None
    if given and plan.is_refused:
        anew = plan_of(cfg, hardware, ranks=ranks)
        if anew is not None and anew.settled != plan.settled:
            log.warning("memory: %s do not fit here by now; from here on %s", plan.settled, anew.settled)
            plan = anew
    plan.refuse()
    assert plan.job.concurrent is not None and plan.job.microbatch is not None, "settled"
    return _with(cfg, plan.job.concurrent, plan.job.microbatch), plan


def playing_within_memory(cfg: EvalConfig, hardware: Hardware) -> EvalConfig:
    """The same for an evaluation."""
    job: Job | None = eval_job_of(cfg, hardware.kind)
    if job is None:
        return _with(cfg, 0, MOST_TOKENS[hardware.kind])
    job = settled(beside_servers(job, cfg.rollout, hardware.memory), hardware.memory)
    assert job.concurrent is not None and job.microbatch is not None, "settled"
    return _with(cfg, job.concurrent, job.microbatch)


def with_all_at_once(cfg: EvalConfig) -> EvalConfig:
    """For a policy behind a server, whose memory is not ours."""
    return _with(cfg, 0, MOST_TOKENS["cpu"])


def _with(cfg: Config, concurrent: int, microbatch: int) -> Config:
    """The configuration with these numbers in the place of auto."""
    parts: dict[str, Any] = {}
    if cfg.rollout.max_concurrent == "auto":
        parts["rollout"] = cfg.rollout.model_copy(update={"max_concurrent": concurrent})
    if cfg.trainer.tokens_per_microbatch == "auto":
        parts["trainer"] = cfg.trainer.model_copy(update={"tokens_per_microbatch": microbatch})
    return cfg.model_copy(update=parts)
