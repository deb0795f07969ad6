"""Before the first cell of a study: compose and validate every variant, and give each cell its digest."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from empg_cli.config.ablation import AblateConfig, StudySettings
from empg_cli.config.compose import INVALID, Session, compose_job, hydra_session, parse, validate
from empg_cli.config.explain import first_line, from_pydantic
from empg_cli.config.problems import ConfigError, Problem, did_you_mean
from empg_cli.config.schema import TrainConfig
from empg_cli.config.unsaid import with_outside_keys
from empg_cli.observe.catalogue import METRICS, definition_of
from empg_cli.runs.facts import cell_hash, config_hash, settings_hash, shaping
from empg_cli.runs.study import Cell, Study, is_study, without_places
from empg_cli.studies.forecast import cost_digest
from empg_cli.studies.growth import joined
from empg_cli.studies.tuning import refuse_other_settings, with_draws, with_winners

OF_THE_STUDY = {
    "seed": "give seeds=N or seeds=[...]: a study pairs its variants by seed",
    "resume": "leave it out: cells that are done are skipped, and the others go on by themselves",
    "hydra.sweep.dir": "give run_dir=FOLDER",
    "hydra.sweep.subdir": "give run_dir=FOLDER; a cell's folder is named by its variant and seed",
    "hydra.run.dir": "give run_dir=FOLDER",
}
"""Keys that the study itself sets -> what to do instead."""


def make_study(overrides: Sequence[str], *, config_name: str = "ablate", config_dir: str | None = None) -> Study:
    """The study that a command line describes, alone: what its folder holds already is looked at, not joined.

    Makes no folder. Every variant is composed and validated; cells of a variant differ in nothing but the seed.

    Raises:
        ConfigError: with every problem of every variant; or the folder holds another study.
        MixedStudy: a cell would not be made as those in the folder are.
    """
    with hydra_session(config_name, config_dir) as session:
        words, problems = parse(overrides, session.loader)
        problems += [problem for word in words for problem in _misplaced(word)]
        if problems:
            raise ConfigError(INVALID, problems)
        composed, _ = compose_job(words, AblateConfig, session)  # what it refuses, the variants report
        settings, arms = with_draws(_settings(composed))
        settings, confirmed = with_winners(settings)
        settings = _with_outside_keys(settings, overrides, config_name, config_dir)
        metric = settings.ablation.metric
        if definition_of(metric) is None and not _is_from_outside(metric, composed):
            hint = did_you_mean(metric, [known.name for known in METRICS]) or "every name is in docs/metrics.md"
            raise ConfigError(INVALID, [Problem("ablation.metric", "is not a metric", metric, hint)])
        configs = _variant_configs(settings, words, session)
    hashes = {name: config_hash(cfg) for name, cfg in configs.items()}
    cells = [
        Cell(
            variant=name,
            seed=seed,
            overrides=tuple(settings.ablation.variants[name]),
            config_hash=hashes[name],
            cell_hash=cell_hash(cfg.model_copy(update={"seed": seed})),
        )
        for seed in settings.seed_list  # seed by seed: a study that is stopped early has whole pairs
        for name, cfg in configs.items()
    ]
    study = Study(
        folder=_folder(composed, words, configs),
        name=settings.ablation.name,
        metric=settings.ablation.metric,
        base=settings.ablation.base,
        seeds=tuple(settings.seed_list),
        cells=tuple(cells),
        facts={name: _facts(cfg) for name, cfg in configs.items()},
        costs={name: cost_digest(cfg.model_dump()) for name, cfg in configs.items()},
        settings={name: shaping(cfg.model_dump(mode="json")) for name, cfg in configs.items()},
        mixed=settings.ablation.mixed,
        arms=arms,
        confirms=confirmed.told() if confirmed else None,
    )
    if confirmed:
        refuse_other_settings(confirmed, study.settings)
    joined(study)
    return study


def _misplaced(word: Override) -> list[Problem]:
    key = word.get_key_element().lstrip("+~")
    if key in OF_THE_STUDY:
        return [Problem(key, "is set by the study itself", hint=OF_THE_STUDY[key])]
    if word.is_sweep_override():
        hint = "an ablation varies its variants: choose another ablation=..., or write one (docs/ablations.md)"
        return [Problem(key, "has several values", word.get_value_string(), hint)]
    return []


def _settings(composed: DictConfig) -> StudySettings:
    try:
        values: Any = {
            key: OmegaConf.to_container(composed, resolve=True)[key]  # type: ignore[index, call-overload]
            for key in ("ablation", "seeds")
        }
    except OmegaConfBaseException as error:
        raise ConfigError(INVALID, [Problem("", first_line(error))]) from None
    try:
        return StudySettings.model_validate(values)
    except ValidationError as error:
        raise ConfigError(INVALID, from_pydantic(error, StudySettings, values)) from None


def _is_from_outside(metric: str, composed: DictConfig) -> bool:
    """A number that the environments of a benchmark from outside report; ours are defined in observe/catalogue.py."""
    return "target" in composed.benchmark and metric.removeprefix("eval/").startswith(f"{composed.benchmark.name}/")


def _with_outside_keys(
    settings: StudySettings, overrides: Sequence[str], config_name: str, config_dir: str | None
) -> StudySettings:
    """The plus that Hydra asks for before keys of code from outside, in the variants as on the command line."""
    variants = {
        name: with_outside_keys(words, config_name, config_dir, after=overrides)[0]
        for name, words in settings.ablation.variants.items()
    }
    return settings.model_copy(update={"ablation": settings.ablation.model_copy(update={"variants": variants})})


def _variant_configs(settings: StudySettings, words: Sequence[Override], session: Session) -> dict[str, TrainConfig]:
    given = {str(word.key_or_group) for word in words}
    failed_in: dict[Problem, list[str]] = {}
    configs = {}
    for name, texts in settings.ablation.variants.items():
        own, problems = parse(texts, session.loader)
        problems += [problem for word in own for problem in _misplaced(word)]
        for word in own:
            if str(word.key_or_group) in given:
                hint = f"leave it out, or change ablation.variants.{name}"
                problems.append(Problem(str(word.key_or_group), f"is set by the variant {name} too", hint=hint))
        if not problems:
            cfg, problems = compose_job([*words, *own], AblateConfig, session)
            try:
                configs[name] = validate(cfg, AblateConfig, problems).training()
                continue
            except ConfigError as error:
                problems = list(error.problems)
        for problem in problems:
            failed_in.setdefault(problem, []).append(name)
    if failed_in:
        in_some = [names for names in failed_in.values() if len(names) < len(settings.ablation.variants)]
        raise ConfigError(INVALID, list(failed_in), f"in the variant: {in_some[0][0]}" if in_some else None)
    return configs


def _folder(composed: DictConfig, words: Sequence[Override], configs: dict[str, TrainConfig]) -> Path:
    """The user's own `run_dir`, or a folder named by the settings, so that the same command finds its study again, also
    after its data was moved."""
    folder = Path(str(composed.run_dir))
    if any(word.key_or_group == "run_dir" for word in words):
        return folder
    values = {name: cfg.model_dump() for name, cfg in configs.items()}
    by_an_older_empg = _named(folder, values)
    found = _named(folder, {name: without_places(own) for name, own in values.items()})
    return by_an_older_empg if is_study(by_an_older_empg) else found


def _named(folder: Path, values: dict[str, dict[str, Any]]) -> Path:
    hashes = {name: settings_hash(own) for name, own in values.items()}
    digest = hashlib.sha256(repr(sorted(hashes.items())).encode()).hexdigest()[:6]
    return folder.with_name(f"{folder.name}-{digest}")


def _facts(cfg: TrainConfig) -> dict[str, Any]:
    return {
        "benchmark": cfg.benchmark.name,
        "model": cfg.model.name,
        "algorithm": cfg.algo.name,
        "loss weighting": cfg.algo.loss.weighting,
        "group statistics": getattr(cfg.algo.advantage, "statistics", "trajectory"),
        "updates": cfg.trainer.updates,
    }
