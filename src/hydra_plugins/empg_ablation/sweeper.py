"""The sweeper behind `empg ablate`: every variant with every seed, through any launcher, done cells left out."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper

if TYPE_CHECKING:
    from hydra.plugins.launcher import Launcher
    from hydra.types import HydraContext, TaskFunction
    from omegaconf import DictConfig

log = logging.getLogger(__name__)


class AblationSweeper(Sweeper):
    """Runs the cells of the study whose `study.json` lies in `hydra.sweep.dir`, and returns Hydra's job results.

    The command has written that file after validating every variant; the digests in it say which cells are done.
    """

    def __init__(self) -> None:
        self.config: DictConfig | None = None
        self.launcher: Launcher | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        from empg_cli.runs.study import job_overrides, read_study

        assert self.config is not None and self.launcher is not None, "Hydra calls setup first"
        study = read_study(Path(str(self.config.hydra.sweep.dir)))
        pending = study.pending()
        if len(pending) < len(study.cells):
            log.info("%d of %d cells are done already", len(study.cells) - len(pending), len(study.cells))
        if not pending:
            return []
        jobs = [job_overrides(study, cell, arguments) for cell in pending]
        results = self.launcher.launch(jobs, initial_job_idx=0)
        for result in results:
            _ = result.return_value  # raises what the job has raised, after all of them have run
        return results


ConfigStore.instance().store(
    group="hydra/sweeper",
    name="ablation",
    node={"_target_": f"{__name__}.AblationSweeper"},
    provider="empg",
)
