"""An Optuna study in a storage goes on where it was interrupted, when the same command is given again.

Hydra's sweeper would leave the trials at work as running for ever, and begin `n_trials` new ones.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empg_cli.errors import UserError

if TYPE_CHECKING:
    from empg_cli.config.command_line import OptunaSettings


def trials_to_go(settings: OptunaSettings, folder: Path) -> list[str]:
    """The words for Hydra that make the study one of `n_trials` in all; nothing for a study that begins.

    Trials that this folder's sweep has begun and not finished count as failed and are asked again, with the same
    parameters. Those of other folders in the same storage are left alone: other machines may work on them.

    Raises:
        UserError: the storage cannot be opened.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        known = optuna.get_all_study_summaries(settings.storage)
        if settings.study_name not in [study.study_name for study in known]:
            return []
        study = optuna.load_study(study_name=settings.study_name, storage=settings.storage)
    except Exception as error:  # whatever a database or its driver raises; the reason is all that a user can use
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"hydra.sweeper.storage={settings.storage} cannot be opened: {reason}") from error
    state = optuna.trial.TrialState
    ours = [trial for trial in study.trials if _folder_of(trial.user_attrs) == folder]
    done = [trial for trial in ours if trial.state is state.COMPLETE]
    waiting = [trial.system_attrs.get("fixed_params") for trial in study.trials if trial.state is state.WAITING]
    asked = [*waiting, *(trial.params for trial in done)]
    for trial in ours:
        if trial.state is state.RUNNING:
            study.tell(trial.number, state=state.FAIL)
        if trial.state in (state.RUNNING, state.FAIL) and trial.params and trial.params not in asked:
            asked.append(trial.params)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study.enqueue_trial(trial.params)
    return [f"hydra.sweeper.n_trials={max(settings.n_trials - len(done), 0)}"]


def _folder_of(fixed: dict[str, Any]) -> Path | None:
    """Of the sweep that a trial belongs to: Hydra's sweeper notes the words that all its jobs share."""
    return Path(str(fixed["run_dir"]).strip("\"'")).absolute() if "run_dir" in fixed else None
