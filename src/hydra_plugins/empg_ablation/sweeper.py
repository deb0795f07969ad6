"""The sweeper behind `empg ablate`: the cells that a command asks for, through any launcher. Cells that are done are
left out, and those that another command plays are left to it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from omegaconf import OmegaConf

if TYPE_CHECKING:
    from hydra.plugins.launcher import Launcher
    from hydra.types import HydraContext, TaskFunction
    from omegaconf import DictConfig

log = logging.getLogger(__name__)


class AblationSweeper(Sweeper):
    """Runs cells of the study whose `study.json` lies in `hydra.sweep.dir`, and returns Hydra's job results.

    The command has written that file after validating every variant; the digests in it say which cells are done. The
    study may hold more variants and seeds than this command asks for: others have asked for those.
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
        from empg_cli.config.ablation import Tuning
        from empg_cli.runs.study import ELSEWHERE, job_overrides, player_of, read_study
        from empg_cli.studies.tuning import names_of_draws

        assert self.config is not None and self.launcher is not None, "Hydra calls setup first"
        study = read_study(Path(str(self.config.hydra.sweep.dir)))
        seeds = self.config.seeds
        variants = list(self.config.ablation.variants)
        if self.config.ablation.tuning is not None:
            tuning = Tuning.model_validate(OmegaConf.to_container(self.config.ablation.tuning))
            variants = names_of_draws(variants, tuning)
        asked = study.part(variants, range(seeds) if isinstance(seeds, int) else list(seeds))
        waiting = [cell for cell in asked if not study.is_done(cell)]
        if len(waiting) < len(asked):
            log.info("%d of %d cells are done already", len(asked) - len(waiting), len(asked))
        results: list[Any] = []
        while waiting:
            jobs = [job_overrides(study, cell, arguments) for cell in waiting]
            launched = self.launcher.launch(jobs, initial_job_idx=len(results))
            results += launched
            values = [result.return_value for result in launched]  # raises what a job has raised, after all have run
            left = [cell for cell, value in zip(waiting, values, strict=True) if value == ELSEWHERE]
            # Whoever played them may have ended by now: done, or stopped or killed on the way.
            waiting = [cell for cell in left if not study.is_done(cell) and player_of(study.cell_dir(cell)) is None]
        return results


ConfigStore.instance().store(
    group="hydra/sweeper",
    name="ablation",
    node={"_target_": f"{__name__}.AblationSweeper"},
    provider="empg",
)
