"""What trackers get of an evaluation, where the command asks for some: a run of job type `eval`, a row a pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from empg_cli.config.schema import EvalConfig
from empg_cli.observe.identity import RunIdentity, identity_of, known_to_trackers
from empg_cli.observe.sinks import Fan, open_trackers
from empg_cli.observe.tracked import made_of
from empg_cli.runs.config_file import find_run_folder
from empg_cli.runs.evaluations import metrics_of
from empg_cli.runs.facts import DATA, MODEL, package_versions, source_commit
from empg_cli.runs.trajectories import trajectory_rows
from empg_cli.types import Trajectory

HOW = ("temperature", "seed", "sample")


class EvaluationLog:
    """Made by `evaluation_log`."""

    def __init__(self, cfg: EvalConfig, fan: Fan) -> None:
        self._cfg, self._fan = cfg, fan

    def trajectories(self, number: int, played: Sequence[Trajectory]) -> None:
        kept = played[: self._cfg.logger.trajectories]
        self._fan.table(number, "trajectories", partial(trajectory_rows, kept))

    def content(self, number: int, content: Mapping[str, Any]) -> None:
        """
        Args:
            number: of the pass, from 0 on.
            content: the file of the pass.
        """
        how = {f"eval/{key}": content[key] for key in HOW if content.get(key) is not None}
        self._fan.log(number, metrics_of(content, self._cfg.benchmark.name) | how)
        self._fan.table(number, "evaluations", lambda: content["tasks"])
        self._fan.summary({key: content["total"][key] for key in ("success_rate", "lo", "hi", "n")})


@contextmanager
def evaluation_log(
    cfg: EvalConfig, run_dir: Path, data: Mapping[str, Any], policy: Mapping[str, Any] | None
) -> Iterator[EvaluationLog]:
    """Open the trackers while the block plays; without any it does nothing.

    Args:
        policy: its fingerprint; None = the benchmark's expert.
    """
    if not cfg.logger.trackers:
        yield EvaluationLog(cfg, Fan())
        return
    trained = known_to_trackers(find_run_folder(Path(cfg.run))) if cfg.run is not None else {}
    group = trained.get("group") or f"{cfg.benchmark.name}-eval"
    whose = trained.get("name") or f"{group}-{cfg.model.name if cfg.policy == 'model' else cfg.policy}"
    default = RunIdentity(
        name=f"{whose}-{cfg.benchmark.split}", group=group, tags=(cfg.benchmark.name, cfg.policy), job_type="eval"
    )
    fan = open_trackers(
        cfg.logger, run_dir, run_config=cfg.model_dump(), identity=identity_of(cfg.logger.wandb, default)
    )
    facts = {DATA: data, MODEL: policy, "versions": package_versions(), "commit": source_commit()}
    fan.facts(made_of(facts))
    code = 1
    try:
        yield EvaluationLog(cfg, fan)
        code = 0
    finally:
        fan.close(code)
