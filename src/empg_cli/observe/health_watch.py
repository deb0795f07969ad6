"""The health checks of a running experiment: they speak on the console and in `health.jsonl`, and may end the run."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from empg_cli.algorithms.assemble import CreditParts
from empg_cli.algorithms.kl import kl_estimate
from empg_cli.config.trainer import Health
from empg_cli.observe.health import FILE, Finding, HealthMonitor, HealthStop, first_batch, preflight_faults
from empg_cli.runs.bad_batch import save_bad_batch
from empg_cli.runs.patience import Patience
from empg_cli.runs.row_file import RowFile
from empg_cli.runs.rows import Row, drop_rows_from
from empg_cli.runs.trajectories import trajectory_record
from empg_cli.types import Batch, Trajectory

log = logging.getLogger(__name__)

LONGEST_QUOTE = 120


class HealthWatch:
    def __init__(
        self, settings: Health, run_dir: Path, *, max_grad_norm: float, history: Mapping[int, Row], done: int
    ) -> None:
        """
        Args:
            history: the rows that a resumed run has logged before.
            done: updates it has behind it; warnings after them are dropped, they come again.
        """
        self._settings, self._path = settings, run_dir / FILE
        self._file: RowFile | None = None
        self._patience = Patience("health warnings", str(self._path))
        if done:
            drop_rows_from(self._path, done + 1)
        else:
            self._path.unlink(missing_ok=True)
        self.monitor = HealthMonitor(settings, max_grad_norm=max_grad_norm, history=history)
        self.stop_reason: str | None = None
        """Why the run should end at its next safe point."""

    def judge_first_batch(
        self, metrics: Mapping[str, float], trajectories: Sequence[Trajectory], *, played: int
    ) -> None:
        """Before the first update: is there anything to learn from?

        Args:
            trajectories: those that train.
            played: all episodes so far, what dynamic sampling dropped included: `metrics` describe these.

        Raises:
            HealthStop: a floor is missed and `preflight=stop`. Nothing was trained.
        """
        if self._settings.preflight == "off":
            return
        groups = len({trajectory.group for trajectory in trajectories})
        judged = played - int(metrics["rollout/masked_trajectories"])
        batch = first_batch(metrics, episodes=judged, groups=groups)
        log.info("%s", batch.text)
        faults = preflight_faults(self._settings, batch)
        if not faults:
            return
        text = "\n  ".join(["This run has little chance to learn, as its first batch shows:", batch.text, *faults])
        if self._settings.preflight == "stop":
            raise HealthStop(f"{text}\n  To train anyway: trainer.health.preflight=warn")
        log.warning("%s", text)

    def watch(
        self,
        update: int,
        metrics: Mapping[str, float],
        trajectories: Sequence[Trajectory],
        batch: Batch,
        parts: CreditParts,
    ) -> dict[str, float]:
        """Look at the update just made, warn, and return the counts to log with it."""
        findings = self.monitor.observe(update, metrics)
        for finding in findings:
            place = telling_step(finding.name, trajectories, batch)
            log.warning("%s%s", finding.text, _quote(trajectories, batch, place))
            self._record(finding, _trajectory(update, trajectories, batch, parts, place))
        if findings and self._settings.stop:
            self.stop_reason = self.stop_reason or findings[0].text
        if 0 < self._settings.max_bad_updates <= self.monitor.bad_in_a_row:
            self.stop_reason = self._give_up(update, metrics, trajectories, batch)
        return self.monitor.metrics()

    def _give_up(
        self, update: int, metrics: Mapping[str, float], trajectories: Sequence[Trajectory], batch: Batch
    ) -> str:
        """Why the run ends on NaN and infinity, with the batch kept for a report."""
        try:
            kept = f"its batch is in {save_bad_batch(self._path.parent, update, batch, metrics, trajectories)}"
        except OSError as error:
            kept = f"its batch could not be saved: {error.strerror or error}"
        return (
            f"{self.monitor.bad_in_a_row} updates in a row had NaN or infinity in loss, gradient, entropies or "
            f"log-probs (trainer.health.max_bad_updates={self._settings.max_bad_updates}): their optimiser steps were "
            f"left out, so the weights are those of the last good step; {kept}. Try a lower trainer.lr, an earlier "
            "checkpoint, or model.dtype=float32."
        )

    def _record(self, finding: Finding, trajectory: dict[str, Any] | None) -> None:
        content = {
            "update": finding.update,
            "name": finding.name,
            "metric": finding.trouble.metric,
            "value": finding.value,
            "limit": finding.limit,
            "text": finding.text,
            "trajectory": trajectory,
        }
        line = json.dumps(content) + "\n"
        self._patience.do(lambda: self._rows().append(line))

    def _rows(self) -> RowFile:
        """The file of warnings, which a run without one does not have."""
        self._file = self._file or RowFile(self._path)
        return self._file

    def sync(self) -> bool:
        """All warnings are on the disk; False where that refuses one."""
        return self._patience.settle() and (self._file is None or self._patience.attempt(self._file.sync))


def telling_step(name: str, trajectories: Sequence[Trajectory], batch: Batch) -> int | None:
    """The row of the step that shows a trouble best; None when the batch has no steps.

    KL: the step furthest from the reference before this update. Entropy: the surest step. Malformed: the first such
    step of the episode that has most of them. Success and signal: the last step of the episode with the lowest return.
    Gradients: the step with the largest credit for its length.
    """
    if batch.num_steps == 0:
        return None
    count_S = batch.mask_ST.sum(dim=1)
    match name:
        case "kl_spike" if batch.ref_logprob_ST is not None:
            kl_ST = kl_estimate(batch.old_logprob_ST, batch.ref_logprob_ST, "k3")
            return int((torch.where(batch.mask_ST, kl_ST, 0.0).sum(dim=1) / count_S).argmax())
        case "entropy_collapse":
            return int((torch.where(batch.mask_ST, batch.entropy_ST, 0.0).sum(dim=1) / count_S).argmin())
        case "malformed_rise":
            is_bad_S = torch.tensor([not step.well_formed for trajectory in trajectories for step in trajectory.steps])
            worst = int(torch.bincount(batch.trajectory_S, is_bad_S.double()).argmax())
            return int((is_bad_S & (batch.trajectory_S == worst)).double().argmax())
        case "success_collapse" | "no_signal":
            lowest_S = batch.reward_N[batch.trajectory_S].argmin()
            return int((batch.trajectory_S == batch.trajectory_S[lowest_S]).nonzero()[-1])
        case _:
            assert batch.credit_S is not None, "credit comes before the update"
            return int((batch.credit_S.abs() * count_S.sqrt()).argmax())


def _turn(batch: Batch, place: int) -> tuple[int, int]:
    """Trajectory of a step, and its number in there, from 1."""
    trajectory = int(batch.trajectory_S[place])
    return trajectory, place - int((batch.trajectory_S == trajectory).nonzero()[0]) + 1


def _quote(trajectories: Sequence[Trajectory], batch: Batch, place: int | None) -> str:
    if place is None:
        return ""
    number, turn = _turn(batch, place)
    shown = trajectories[number]
    action = " ".join(shown.steps[turn - 1].action.split())[:LONGEST_QUOTE]
    return f" See {shown.task.task_id}, group {shown.group}, episode {shown.index}, step {turn}: {action!r} ({FILE})."


def _trajectory(
    update: int, trajectories: Sequence[Trajectory], batch: Batch, parts: CreditParts, place: int | None
) -> dict[str, Any] | None:
    if place is None:
        return None
    number, turn = _turn(batch, place)
    record = trajectory_record(trajectories[number], "train", update, parts, place - turn + 1)
    return {**record, "step": turn}
