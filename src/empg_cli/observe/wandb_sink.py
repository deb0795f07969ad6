"""Weights & Biases as a view of the run; `metrics.jsonl` stays the truth.

Facts this module is built on (wandb 0.31, measured): `wandb.init` without a key prompts for ever on a terminal and
raises without one; without a network it raises after `init_timeout`; `finish` without a network blocks for ever unless
`finish_timeout` is set; an offline run that is resumed under the same id makes a second folder whose sync replaces the
first. Hence: ask for the login state instead of logging in, bound every wait, and give a resumed run its past again.
"""

from __future__ import annotations

import logging
import os
import shlex
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empg_cli.config.secrets import without_secrets
from empg_cli.invocation import script
from empg_cli.observe.identity import WANDB_ID
from empg_cli.observe.tracked import Tracked, finite
from empg_cli.observe.wandb_artifacts import keep_policies, staged_in, table_of
from empg_cli.runs.histograms import Histogram
from empg_cli.runs.rows import Row
from empg_cli.runs.run_file import read_run_file, update_run_file

if TYPE_CHECKING:
    import wandb

    from empg_cli.config.logger import Wandb

log = logging.getLogger(__name__)

INIT_TIMEOUT_S = 30.0
FINISH_TIMEOUT_S = 120.0
ENDED = (0, 3)
"""Exit codes of runs that came to an end of their own: finished, stopped by a health check."""

MODES_WITHOUT_LOGIN = ("offline", "disabled")


class WandbSink:
    name = "wandb"

    def __init__(
        self,
        cfg: Wandb,
        run: Tracked,
        *,
        init_timeout_s: float = INIT_TIMEOUT_S,
        finish_timeout_s: float = FINISH_TIMEOUT_S,
    ) -> None:
        import wandb

        self._cfg, self._folder, identity = cfg, run.folder, run.identity
        self._patience_s = finish_timeout_s
        self._facts = dict(run.config.get("facts") or {})
        notes = cfg.notes or os.environ.get("WANDB_NOTES")
        run_id = stable_run_id(run.folder, is_resumed=run.is_resumed)
        settings = wandb.Settings(
            silent=True,
            console="off",  # the live dashboard must not reach output.log
            init_timeout=init_timeout_s,
            finish_timeout=finish_timeout_s,
            finish_timeout_raises=True,
            reinit="create_new",  # a run that a notebook has open is not ours to write to
        )

        def init(mode: str) -> wandb.Run:
            return wandb.init(
                mode=mode,  # type: ignore[arg-type]
                dir=run.folder,
                settings=settings,
                config=dict(run.config),
                project=cfg.project,
                entity=cfg.entity,
                group=identity.group,
                name=identity.name,
                notes=without_secrets(notes) if notes else None,
                tags=list(dict.fromkeys([*identity.tags, *map(without_secrets, cfg.tags)])),
                job_type=identity.job_type,
                id=run_id,
                resume="allow" if mode == "online" else None,  # offline, wandb cannot know what the server holds
            )

        mode = login_free_mode(cfg.mode)
        try:
            self._run = init(mode)
        except Exception as error:
            if mode in MODES_WITHOUT_LOGIN:
                raise
            reason = str(error).partition("\n")[0]
            log.warning("W&B cannot be reached (%s: %s); logging offline", type(error).__name__, reason)
            if wandb.run is None:
                wandb.teardown()  # the failed run would keep our id in use; a notebook's own open run is left alone
            mode = "offline"
            self._run = init(mode)
        self._is_online = mode not in MODES_WITHOUT_LOGIN
        _define_axes(self._run)
        # The server already has the rows before `run.step`; an offline run starts at 0 and gets them all.
        for update, row in run.history.items():
            if update >= self._run.step:
                self.log(update, row)

    @property
    def pointer(self) -> str:
        if self._is_online and self._run.url:
            return self._run.url
        return self._sync

    @property
    def _sync(self) -> str:
        """The command that sends what the folder holds."""
        return f"{script('wandb')} sync {shlex.quote(str(Path(self._run.dir).parent))}"

    def log(self, step: int, row: Row) -> None:
        self._run.log({"train/update": step} | finite(row), step=step)

    def histograms(self, step: int, values: Mapping[str, Histogram]) -> None:
        """W&B's own histograms. A resumed offline run holds those of its own updates only."""
        import numpy as np
        import wandb

        drawn = {
            name: wandb.Histogram(np_histogram=(np.array(h.counts), np.array(h.edges))) for name, h in values.items()
        }
        self._run.log(drawn, step=step)

    def facts(self, values: Mapping[str, Any]) -> None:
        self._facts |= values
        config: Any = self._run.config
        config.update({"facts": self._facts}, allow_val_change=True)

    def table(self, step: int, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """A resumed offline run holds those of its own updates only."""
        if name in self._cfg.artifacts and rows:
            with staged_in(self._folder):
                self._run.log({f"eval/{name}": table_of(rows)}, step=step)

    def summary(self, values: Mapping[str, Any]) -> None:
        self._run.summary.update(dict(values))

    def close(self, exit_code: int) -> None:
        if exit_code in ENDED:  # one that a signal has stopped must not wait for an upload
            try:
                keep_policies(self._run, self._folder, self._cfg.artifacts, is_online=self._is_online)
            except Exception as error:  # the same border as in Fan, and the run is still to be finished
                said = without_secrets(str(error))
                log.warning(
                    "W&B has not got the policy (%s: %s); to send it: %s", type(error).__name__, said, self._sync
                )
        sync = self._sync
        try:
            self._run.finish(exit_code=exit_code)
        except TimeoutError:
            log.warning("W&B has not got all of the run within %g s; to send the rest: %s", self._patience_s, sync)


def login_free_mode(asked: str) -> str:
    """The mode to start in, such that nothing prompts: online only with a key at hand.

    `auto` obeys WANDB_MODE, else is online when logged in and offline when not.
    """
    mode = (os.environ.get("WANDB_MODE") or "auto") if asked == "auto" else asked
    if mode == "dryrun":  # W&B's older word
        mode = "offline"
    if mode in MODES_WITHOUT_LOGIN or _is_logged_in():
        return "online" if mode == "auto" else mode
    if mode != "auto":
        log.warning("W&B mode is %s, but nobody is logged in (set WANDB_API_KEY, or run `%s login`); "
                    "logging offline", mode, script("wandb"))  # fmt: skip
    return "offline"


def _is_logged_in() -> bool:
    import wandb

    wandb.setup(settings=wandb.Settings(silent=True))  # or the login state is announced on stderr
    try:
        return wandb.login(prompt=False, verify=False)
    except Exception as error:  # a malformed key raises; what we need to know is only that it is of no use
        log.warning("the W&B login is not usable: %s", error)
        return False


def stable_run_id(run_dir: Path, *, is_resumed: bool) -> str:
    """Made once for a run and kept in run.json, so that a resumed run goes on in the same W&B run.

    WANDB_RUN_ID, which the agent of a sweep sets too, goes before both.
    """
    known = read_run_file(run_dir).get(WANDB_ID) if is_resumed else None
    made = os.environ.get("WANDB_RUN_ID") or known or uuid.uuid4().hex[:12]
    if made == known:
        return str(known)
    update_run_file(run_dir, **{WANDB_ID: made})
    return made


def _define_axes(run: wandb.Run) -> None:
    for axis in ("train/update", "env/steps", "env/tokens"):
        run.define_metric(axis)
    run.define_metric("*", step_metric="train/update")
    run.define_metric("eval/*", step_metric="env/steps")
    run.define_metric("eval/success_rate", step_metric="env/steps", summary="max")
