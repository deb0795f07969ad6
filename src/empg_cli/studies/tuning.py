"""Fair baselines: the same random search for every variant, then its winners against each other on seeds that chose
nothing. A comparison of a tuned method with an untuned one measures the tuning."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from empg_cli.config.ablation import StudySettings, Tuning
from empg_cli.config.compose import INVALID
from empg_cli.config.problems import ConfigError, Problem
from empg_cli.runs.study import Study, StudyError, differences, read_study
from empg_cli.studies.comparison import compare

MAY_DIFFER = (
    "benchmark.split",
    "benchmark.eval_tasks",
    "trainer.eval_every",
    "trainer.eval_before",
    "trainer.checkpoint_every",
    "trainer.keep_checkpoints",
)
"""Settings that a confirmation may have others of (and other data): tasks that tuned nothing are what it is for."""


@dataclass(frozen=True, slots=True)
class Winner:
    variant: str
    """Of the study that tuned, such as grpo-07."""
    overrides: tuple[str, ...]
    mean: float
    """Over the seeds that tuned. The best of many draws looks better than it is: only the confirmation counts."""
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Confirmed:
    """What a study that plays winners takes over."""

    study: Study
    winners: Mapping[str, Winner]
    """Arm -> its winner."""

    def told(self) -> dict[str, Any]:
        """For study.json and plan.json."""
        counts = Counter(self.study.arms[variant] for variant in self.study.variants)
        return {
            "study": self.study.folder.name,
            "metric": self.study.metric,
            "seeds": list(self.study.seeds),
            "draws": dict(counts),
            "winners": {
                arm: {"variant": winner.variant, "overrides": list(winner.overrides), "mean": winner.mean}
                for arm, winner in self.winners.items()
            },
        }


def drawn(tuning: Tuning) -> list[tuple[str, ...]]:
    """Overrides of each draw, no two alike, in an order that more draws do not change."""
    keys = list(tuning.space)
    everything = list(itertools.product(*(tuning.space[key] for key in keys)))
    random.Random(tuning.seed).shuffle(everything)
    return [
        tuple(f"{key}={_word(value)}" for key, value in zip(keys, values, strict=True))
        for values in everything[: tuning.draws]
    ]


def with_draws(settings: StudySettings) -> tuple[StudySettings, dict[str, str]]:
    """The variants with their draws in their place, NAME-00 being the variant as it is, and the arm of each."""
    ablation = settings.ablation
    if ablation.tuning is None:
        return settings, {}
    draws = [(), *drawn(ablation.tuning)]
    digits = max(2, len(str(len(draws) - 1)))
    arms, variants = {}, {}
    for number, words in enumerate(draws):  # draw by draw: a study that is stopped early has tuned all arms alike
        for arm, overrides in ablation.variants.items():
            name = f"{arm}-{number:0{digits}}"
            arms[name], variants[name] = arm, [*overrides, *words]
    changed = ablation.model_copy(update={"variants": variants, "base": f"{ablation.base}-{0:0{digits}}"})
    return settings.model_copy(update={"ablation": changed}), arms


def winners(folder: Path) -> tuple[Study, dict[str, Winner]]:
    """The setting of each arm with the highest mean of the metric over all seeds, the first drawn among equals.

    Raises:
        ConfigError: there is no such study, nothing is tuned in it, or a cell is not done: budgets would not be equal.
    """
    try:
        study = read_study(folder)
    except StudyError as error:
        raise _refused(str(folder), str(error)) from None
    if not study.arms:
        raise _refused(str(folder), "tunes nothing", "give the folder of a study with ablation.tuning (ablation=fair)")
    if pending := study.pending():
        what = f"is not finished: {len(pending)} of {len(study.cells)} cells are left, {pending[0].folder} the first"
        raise _refused(str(folder), what, "winners are chosen when all arms have had the same budget")
    comparison = compare(study)
    rows = {row.variant: row for row in comparison.rows} if comparison else {}
    if lacking := [name for name in study.variants if name not in rows or len(rows[name].runs) < len(study.seeds)]:
        raise _refused(str(folder), f"has runs without {study.metric}: {', '.join(lacking)}")
    if comparison and comparison.mixtures and study.mixed == "refuse":
        raise _refused(str(folder), f"has cells that are unlike: {comparison.mixtures[0]}")
    best: dict[str, Winner] = {}
    for variant in study.variants:
        arm, row = study.arms[variant], rows[variant]
        if arm not in best or row.mean > best[arm].mean:
            best[arm] = Winner(variant, row.overrides, row.mean, study.settings[variant])
    return study, best


def with_winners(settings: StudySettings) -> tuple[StudySettings, Confirmed | None]:
    """The variants with the settings that did best, on seeds that tuned nothing, and where they come from.

    Raises:
        ConfigError: as `winners`; or a variant was not tuned there.
    """
    ablation = settings.ablation
    if ablation.confirms is None:
        return settings, None
    study, best = winners(Path(ablation.confirms))
    if strangers := [arm for arm in ablation.variants if arm not in best]:
        raise _refused(ablation.confirms, f"did not tune {', '.join(strangers)}", f"it has {', '.join(best)}")
    chosen = {arm: best[arm] for arm in ablation.variants}
    seeds = settings.seeds
    if isinstance(seeds, int):
        seeds = list(itertools.islice((seed for seed in itertools.count() if seed not in study.seeds), seeds))
    variants = {arm: list(winner.overrides) for arm, winner in chosen.items()}
    changed = ablation.model_copy(update={"name": f"{ablation.name}-confirmed", "variants": variants})
    return settings.model_copy(update={"ablation": changed, "seeds": seeds}), Confirmed(study, chosen)


def refuse_other_settings(confirmed: Confirmed, settings: Mapping[str, Mapping[str, Any]]) -> None:
    """A winner is confirmed as it was tuned, but for tasks and how often it is evaluated.

    Args:
        settings: of each variant, as `Study.settings`.

    Raises:
        ConfigError: with every other difference.
    """
    problems = [
        Problem(f"{arm}: {key}", f"was {before} where it was tuned", str(now))
        for arm, winner in confirmed.winners.items()
        for key, before, now in differences(winner.settings, settings[arm])
        if key not in MAY_DIFFER
    ]
    if problems:
        raise ConfigError("A confirmation plays what was tuned: give the settings of that study", problems)


def _word(value: float | int | bool | str | None) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _refused(folder: str, what: str, hint: str | None = None) -> ConfigError:
    return ConfigError(INVALID, [Problem("ablation.confirms", what, folder, hint)])
