"""Fair baselines: the same random search for every variant, then its winners against each other on seeds that chose
nothing. A comparison of a tuned method with an untuned one measures the tuning."""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from empg_cli.config.ablation import StudySettings, Tuning
from empg_cli.config.compose import INVALID
from empg_cli.config.problems import ConfigError, Problem
from empg_cli.runs.study import Study, StudyError, differences, read_study
from empg_cli.studies.comparison import compare
from empg_cli.studies.fairness import tasks_of
from empg_cli.studies.preregistration import read_plan

HIGHER_IS_BETTER = ("success_rate", "score")
"""How the names of metrics end that winners may be chosen by."""
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
        plan = read_plan(self.study.folder)
        return {
            "study": self.study.folder.name,
            "plan": None if plan is None else str(plan),
            "metric": self.study.metric,
            "seeds": list(self.study.seeds),
            "draws": len(self.study.variants) // len(set(self.study.arms.values())),
            "tasks": tasks_of(self.study),
            "winners": {
                arm: {"variant": winner.variant, "overrides": list(winner.overrides), "mean": winner.mean}
                for arm, winner in self.winners.items()
            },
        }


def drawn(tuning: Tuning) -> list[tuple[str, ...]]:
    """Overrides of each draw, no two alike, in an order that more draws do not change.

    Values of a key take turns: each is drawn once, in random order, before any of them is drawn again. Independent
    draws would leave it to chance whether one method's usual settings are searched as often as the other's.
    """
    rng = random.Random(tuning.seed)
    turns = [_in_turns(values, random.Random(rng.getrandbits(64))) for values in tuning.space.values()]
    seen: dict[tuple[str, ...], None] = {}
    while len(seen) < tuning.draws:
        seen.setdefault(tuple(f"{key}={_word(next(turn))}" for key, turn in zip(tuning.space, turns, strict=True)))
    return list(seen)


def _in_turns(values: list[Any], rng: random.Random) -> Iterator[Any]:
    while True:
        yield from rng.sample(values, len(values))


def draw_name(arm: str, number: int, tuning: Tuning) -> str:
    """`grpo-00` is the arm as it is."""
    return f"{arm}-{number:0{max(2, len(str(tuning.size)))}}"


def names_of_draws(arms: Sequence[str], tuning: Tuning) -> list[str]:
    """Draw by draw: a study that is stopped early has tuned all arms alike."""
    return [draw_name(arm, number, tuning) for number in range(tuning.draws + 1) for arm in arms]


def with_draws(settings: StudySettings) -> tuple[StudySettings, dict[str, str]]:
    """The variants with their draws in their place, and the arm of each."""
    ablation = settings.ablation
    if ablation.tuning is None:
        return settings, {}
    names = names_of_draws(list(ablation.variants), ablation.tuning)
    parts = itertools.product([(), *drawn(ablation.tuning)], ablation.variants.items())
    arms, variants = {}, {}
    for name, (words, (arm, overrides)) in zip(names, parts, strict=True):
        arms[name], variants[name] = arm, [*overrides, *words]
    changed = ablation.model_copy(update={"variants": variants, "base": draw_name(ablation.base, 0, ablation.tuning)})
    return settings.model_copy(update={"ablation": changed}), arms


def winners(folder: Path) -> tuple[Study, dict[str, Winner]]:
    """The setting of each arm with the highest mean of the metric over all seeds, the first drawn among equals.

    Raises:
        ConfigError: there is no such study, nothing is tuned in it, or arms have not had the same budget: a cell is not
            done, or one arm has other draws.
    """
    try:
        study = read_study(folder)
    except StudyError as error:
        raise _refused(str(folder), str(error)) from None
    if not study.arms:
        raise _refused(str(folder), "tunes nothing", "give the folder of a study with ablation.tuning (ablation=fair)")
    if not study.metric.endswith(HIGHER_IS_BETTER):
        what = f"has chosen by {study.metric}, whose highest value need not be the best"
        raise _refused(str(folder), what, f"its metric must end in {' or '.join(HIGHER_IS_BETTER)}")
    if pending := study.pending():
        what = f"is not finished: {len(pending)} of {len(study.cells)} cells are left, {pending[0].folder} the first"
        raise _refused(str(folder), what, "winners are chosen when all arms have had the same budget")
    _refuse_unequal_draws(study)
    comparison = compare(study)
    rows = {row.variant: row for row in comparison.rows} if comparison else {}
    if lacking := [name for name in study.variants if name not in rows or len(rows[name].runs) < len(study.seeds)]:
        raise _refused(str(folder), f"has runs without {study.metric}: {', '.join(lacking)}")
    if comparison and comparison.mixtures and study.mixed == "refuse":
        raise _refused(str(folder), f"has cells that are unlike: {comparison.mixtures[0]}")
    best: dict[str, Winner] = {}
    for variant in study.variants:
        arm, row = study.arms[variant], rows[variant]
        mean = round(math.fsum(run.value for run in row.runs) / len(row.runs), 12)  # equal in any order of the seeds
        if arm not in best or mean > best[arm].mean:
            best[arm] = Winner(variant, row.overrides, mean, study.settings[variant])
    return study, best


def _refuse_unequal_draws(study: Study) -> None:
    overrides = {cell.variant: cell.overrides for cell in study.cells}
    draws: dict[str, list[tuple[str, ...]]] = {}
    for variant in study.variants:
        arm = study.arms[variant]
        own = next(overrides[name] for name in study.variants if study.arms[name] == arm)  # the first is the arm alone
        draws.setdefault(arm, []).append(overrides[variant][len(own) :])
    (first, expected), *others = draws.items()
    for arm, found in others:
        if sorted(found) != sorted(expected):
            what = f"has tuned {first} with {len(expected)} settings and {arm} with {len(found)}, or with others"
            raise _refused(str(study.folder), what, "the same budget for each: ask for the same draws of every variant")


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
    """As Hydra's grammar takes it; a text that could be read as something else in quotes."""
    if not isinstance(value, str):
        return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    if re.fullmatch(r"[A-Za-z_][\w./-]*", value) and value.lower() not in ("null", "true", "false", "nan", "inf"):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _refused(folder: str, what: str, hint: str | None = None) -> ConfigError:
    return ConfigError(INVALID, [Problem("ablation.confirms", what, folder, hint)])
