"""Health of a run: the first batch is judged before anything trains, then every update's metrics are watched.

Everything is a function of logged metrics, so a resumed run, given its past rows, warns and counts as a straight one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from empg_cli.config.trainer import Health
from empg_cli.errors import UserError
from empg_cli.observe.detectors import (
    Alarm,
    fell_below_best,
    fell_below_start,
    rose_above_lowest,
    spike,
    stayed_at,
)
from empg_cli.runs.rows import Row

FILE = "health.jsonl"
KL, GRAD_NORM, ENTROPY = "actor/kl_loss", "actor/grad_norm", "actor/entropy"
SUCCESS, MALFORMED, NO_SIGNAL = "episode/success_rate", "episode/malformed_frac", "group/zero_std_frac"
SKIPPED = "actor/skipped_steps"
INVALID = "episode/invalid_action_frac"
WATCHED = (KL, GRAD_NORM, ENTROPY, SUCCESS, MALFORMED, NO_SIGNAL, SKIPPED)


class HealthStop(UserError):  # noqa: N818 (no error: the user asked for it)
    """A health check ended the run: before the first update, or with a checkpoint."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class Trouble:
    """What a detector says when it fires."""

    name: str
    metric: str
    says: str
    means: str
    advice: str


TROUBLES = (
    Trouble(
        "kl_spike",
        KL,
        "is above {limit:.4g}",
        "One update threw the policy far from the reference; success often falls soon after.",
        "a lower trainer.lr, a higher algo.loss.kl_coef, or more trainer.tasks_per_update",
    ),
    Trouble(
        "grad_spike",
        GRAD_NORM,
        "is above {limit:.4g}",
        "A few steps dominate this gradient, and only clipping holds it.",
        "a lower trainer.max_grad_norm, and look at the step named here",
    ),
    Trouble(
        "nonfinite_gradient",
        SKIPPED,
        "is above 0",
        "Loss, gradient, entropies or log-probs were NaN or infinite, and the optimiser step was left out.",
        "model.dtype=float32, a lower trainer.lr, or a lower algo.loss.kl_clamp",
    ),
    Trouble(
        "entropy_collapse",
        ENTROPY,
        "averages less than {limit:.4g} over 3 updates",
        "The policy repeats itself; without variety the members of a group get equal rewards. Harmless near success 1.",
        "algo.loss.entropy_coef=0.001, a lower trainer.lr, or a higher algo.loss.clip_high",
    ),
    Trouble(
        "success_collapse",
        SUCCESS,
        "averages less than {limit:.4g} over 5 updates",
        "Training success has fallen far below its best.",
        "going on from an earlier checkpoint with a lower trainer.lr, or a higher algo.loss.kl_coef",
    ),
    Trouble(
        "malformed_rise",
        MALFORMED,
        "averages more than {limit:.4g} over 5 updates",
        "Responses lose the form that the prompt asks for.",
        "benchmark.invalid_action_penalty, a lower trainer.lr, or, if responses are cut, more rollout.max_new_tokens",
    ),
    Trouble(
        "no_signal",
        NO_SIGNAL,
        "was 1 in each of the last updates",
        "All members of every group got the same reward, so every advantage was 0.",
        "a higher algo.group_size or rollout.temperature, other tasks, or algo=dapo, which replaces such groups",
    ),
)


@dataclass(frozen=True, slots=True)
class Finding:
    trouble: Trouble
    update: int
    value: float
    limit: float

    @property
    def name(self) -> str:
        return self.trouble.name

    @property
    def text(self) -> str:
        trouble = self.trouble
        says = trouble.says.format(limit=self.limit)
        return (
            f"{self.name} at update {self.update}: {trouble.metric} {self.value:.4g} {says}. "
            f"{trouble.means} Try {trouble.advice}."
        )


class HealthMonitor:
    """Watches the rows of a run. Every detector speaks once; KL spikes are counted on."""

    def __init__(self, settings: Health, *, max_grad_norm: float, history: Mapping[int, Row]) -> None:
        """
        Args:
            max_grad_norm: a gradient norm below it is no spike, since it is not even clipped.
            history: what a resumed run has logged before.
        """
        self._settings, self._max_grad_norm = settings, max_grad_norm
        self._series: dict[str, list[float]] = {name: [] for name in WATCHED}
        self._kl_is_high = False
        self.kl_spikes: list[int] = []
        """Updates at which the KL loss spiked; neighbouring ones count once, as their first."""
        self.warned: dict[str, int] = {}
        """Detector -> the update at which it spoke, in that order."""
        self.bad_updates = self.bad_in_a_row = 0
        """Updates with an optimiser step that was left out, and how many of them the last ones were."""
        for update, row in history.items():
            self.observe(update, row)

    def observe(self, update: int, row: Mapping[str, float | None]) -> list[Finding]:
        """What is newly wrong after this update's metrics."""
        # NaN is stored as null and read back as None: left out both times, so that a resumed run sees the same.
        fresh = {name: value for name in WATCHED if (value := row.get(name)) is not None and math.isfinite(value)}
        for name, value in fresh.items():
            self._series[name].append(value)
        is_bad = fresh.get(SKIPPED, 0.0) > 0
        self.bad_updates += is_bad
        self.bad_in_a_row = self.bad_in_a_row + 1 if is_bad else 0
        if KL in fresh:
            was_high, self._kl_is_high = self._kl_is_high, self._alarm("kl_spike") is not None
            if self._kl_is_high and not was_high:
                self.kl_spikes.append(update)
        if not self._settings.warn:
            return []
        findings = []
        for trouble in TROUBLES:
            if trouble.metric in fresh and trouble.name not in self.warned and (alarm := self._alarm(trouble.name)):
                self.warned[trouble.name] = update
                findings.append(Finding(trouble, update, *alarm))
        return findings

    def metrics(self) -> dict[str, float]:
        """Counts since the run began, under the names of docs/metrics.md."""
        counts = {"health/warnings": float(len(self.warned))} if self._settings.warn else {}
        if self.bad_updates:
            counts["health/bad_updates"] = float(self.bad_updates)
        return counts | ({"health/kl_spikes": float(len(self.kl_spikes))} if self._series[KL] else {})

    def _alarm(self, name: str) -> Alarm | None:
        settings, series = self._settings, self._series
        match name:
            case "kl_spike":
                return spike(series[KL], factor=settings.spike_factor, floor=settings.kl_floor)
            case "grad_spike":
                return spike(series[GRAD_NORM], factor=settings.spike_factor, floor=self._max_grad_norm)
            case "nonfinite_gradient":
                return Alarm(series[SKIPPED][-1], 0.0) if series[SKIPPED][-1] > 0 else None
            case "entropy_collapse":
                return fell_below_start(series[ENTROPY], ratio=settings.entropy_ratio)
            case "success_collapse":
                return fell_below_best(series[SUCCESS], ratio=settings.success_ratio)
            case "malformed_rise":
                return rose_above_lowest(series[MALFORMED], rise=settings.malformed_rise)
            case "no_signal":
                return stayed_at(series[NO_SIGNAL], level=1.0, updates=settings.no_signal_updates)
            case _:
                raise ValueError(f"no detector is called {name!r}")


@dataclass(frozen=True, slots=True)
class FirstBatch:
    """What the first rollout batch says about the chance to learn anything."""

    episodes: int
    success_rate: float
    valid_actions: float
    signal_groups: float

    @property
    def text(self) -> str:
        return (
            f"the first batch ({self.episodes} episodes): success {self.success_rate:.1%}, "
            f"valid actions {self.valid_actions:.1%}, groups with a signal {self.signal_groups:.1%}"
        )


def first_batch(metrics: Mapping[str, float], *, episodes: int, groups: int) -> FirstBatch:
    """From the first update's metrics; groups that dynamic sampling threw away count as groups without a signal."""
    informative = groups * (1 - metrics[NO_SIGNAL])
    thrown_away = metrics.get("dapo/filtered_groups", 0.0) if informative else 0.0
    signal = informative / max(groups + thrown_away, 1)
    return FirstBatch(episodes, metrics[SUCCESS], 1 - metrics[INVALID], signal)


def preflight_faults(settings: Health, batch: FirstBatch) -> list[str]:
    """Which floors the first batch is below, and what to do about each; none for a batch too small to judge."""
    if settings.preflight == "off" or batch.episodes < settings.preflight_episodes:
        return []
    checks = (
        (
            "valid actions",
            batch.valid_actions,
            "min_valid_actions",
            "hardly any action is understood. Look at some with `empg eval` and `empg show`: does the model fit "
            "model.prompt, are responses cut at rollout.max_new_tokens, is a warm start missing (trainer.warm_start)?",
        ),
        (
            "groups with a signal",
            batch.signal_groups,
            "min_signal_groups",
            "members of a group get equal rewards, so there is nothing to learn from. Take a stronger model, a warm "
            "start, easier tasks, or a higher algo.group_size or rollout.temperature",
        ),
        (
            "success",
            batch.success_rate,
            "min_success_rate",
            "tasks are solved too rarely. Take a stronger model, a warm start or easier tasks",
        ),
    )
    return [
        f"{what} {value:.1%}, below trainer.health.{name}={floor:g}: {advice}"
        for what, value, name, advice in checks
        if value < (floor := getattr(settings, name))
    ]
