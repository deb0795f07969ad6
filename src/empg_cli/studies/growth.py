"""A study grows: what a command asks for joins what the folder holds, and nothing there is lost or redefined."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from empg_cli.config import outside
from empg_cli.config.compose import INVALID
from empg_cli.config.problems import ConfigError, Problem
from empg_cli.runs.config_file import saved_values
from empg_cli.runs.facts import DATA, OUTSIDE, package_versions, source_commit, with_seed
from empg_cli.runs.format import lookup
from empg_cli.runs.mixture import refuse_cell
from empg_cli.runs.provenance import CODE, code_digest
from empg_cli.runs.study import PLACES, Cell, Study, differences, is_study, read_study, write_study, writing_into
from empg_cli.studies.preregistration import preregister, without_labels

OTHER = "The folder holds another study: give another run_dir"


def entered(asked: Study) -> Study:
    """`asked` joined with the study in its folder, written there with its plan; commands that do so at once take turns.

    Raises:
        ConfigError: as `joined`; then nothing was written.
        MixedStudy: a cell that is left to play would not be made as the others are.
    """
    asked.folder.mkdir(parents=True, exist_ok=True)
    with writing_into(asked.folder):
        whole = joined(asked)
        preregister(whole)
        write_study(whole)
    return whole


def joined(asked: Study) -> Study:
    """The variants and seeds of both: of `asked`, and of the study in its folder, if there is one.

    Raises:
        ConfigError: the folder holds another study: a variant with other settings, another name, other runs; or the
            base or the metric is another before all cells are done.
        MixedStudy: a cell that is left to play would not be made as the others are.
    """
    here = read_study(asked.folder) if is_study(asked.folder) else None
    whole = _union(here, asked) if here else asked
    if problems := [*(_redefined(here, asked) if here else ())] or [*_strangers(whole)]:
        raise ConfigError(OTHER, problems)
    if whole.pending():
        if here:
            _refuse_another_question(here, asked)
        _refuse_another_metric(asked)
    _refuse_unlike(whole, whole.part(asked.variants, asked.seeds))
    return whole


def _union(here: Study, asked: Study) -> Study:
    """Definitions are those of `asked` where both have one: they are the same but for where data lies."""
    variants = tuple(dict.fromkeys([*here.variants, *asked.variants]))
    seeds = tuple(dict.fromkeys([*here.seeds, *asked.seeds]))
    defined = {cell.variant: cell for study in (here, asked) for cell in study.cells}
    cells = tuple(
        replace(cell, seed=seed, cell_hash=with_seed(cell.config_hash, seed))
        for seed in seeds
        for cell in (defined[variant] for variant in variants)
    )
    return replace(
        asked,
        seeds=seeds,
        cells=cells,
        facts={**here.facts, **asked.facts},
        costs={**here.costs, **asked.costs},
        settings={**here.settings, **asked.settings},
        arms={**here.arms, **asked.arms},
        confirms=here.confirms,
    )


def _redefined(here: Study, asked: Study) -> Iterator[Problem]:
    if here.name != asked.name:
        yield Problem("ablation.name", f"is {here.name} there", asked.name)
    if _source(here) != _source(asked):
        hint = "the winners of one study are compared, and nothing else"
        yield Problem("ablation.confirms", f"is {_called(here)} there", f"{_called(asked)}{_unlike(here, asked)}", hint)
    for variant, settings in asked.settings.items():
        for key, before, now in differences(here.settings.get(variant, settings), settings):
            yield Problem(f"{variant}: {key}", f"is {before} there", str(now))


def _source(study: Study) -> Mapping[str, Any] | None:
    """Where its settings come from."""
    return study.confirms and without_labels(study.confirms)


def _called(study: Study) -> str:
    return "null" if study.confirms is None else str(study.confirms["study"])


def _unlike(here: Study, asked: Study) -> str:
    before, now = _source(here) or {}, _source(asked) or {}
    keys = ", ".join(key for key in before if key in now and before[key] != now[key])
    return f" with other {keys}" if keys else ""


def _strangers(whole: Study) -> Iterator[Problem]:
    for cell, keys in whole.strangers():
        what = "holds a run of another configuration"
        yield Problem(str(whole.cell_dir(cell)), f"{what}: {', '.join(keys)}" if keys else what)


def _refuse_another_question(here: Study, asked: Study) -> None:
    problems = [
        Problem(f"ablation.{key}", f"is {before} in this study", now, hint="it may change when all cells are done")
        for key, before, now in (("base", here.base, asked.base), ("metric", here.metric, asked.metric))
        if before != now
    ]
    if problems:
        raise ConfigError(INVALID, problems)


def _refuse_another_metric(asked: Study) -> None:
    """Of a confirmation: what has chosen the winners is what they are compared by. Later there may be other tables."""
    if asked.confirms and (chosen_by := asked.confirms["metric"]) != asked.metric:
        what = f"has chosen by {chosen_by}, and {asked.metric} is compared"
        hint = "the tables of another metric can be made when all cells are done"
        raise ConfigError(INVALID, [Problem("ablation.confirms", what, _called(asked), hint)])


def _refuse_unlike(whole: Study, wanted: Sequence[Cell]) -> None:
    """Before anything is played, what can be told without a model: the code at hand, and data at another place."""
    code = {CODE: code_digest(), "commit": source_commit(), "versions": package_versions()}
    data: dict[str, Mapping[str, Any]] = {}
    for cell in wanted:
        settings = whole.settings[cell.variant]
        if not whole.is_done(cell):
            refuse_cell(whole, cell, code | {OUTSIDE: outside.facts(settings)})
        if _has_moved(whole, cell):
            place = str(settings["benchmark"])
            data.setdefault(place, _data_at(settings))
            refuse_cell(whole, cell, {DATA: data[place]})


def _has_moved(study: Study, cell: Cell) -> bool:
    """The run of this cell has found its data at another place."""
    if study.cell_facts(cell).get("config_hash", cell.config_hash) == cell.config_hash:
        return False
    before, now = saved_values(study.cell_dir(cell)), study.settings[cell.variant]
    return any(lookup(before, key) != lookup(now, key) for key in PLACES)


def _data_at(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fingerprint of the data that the settings name. Opens it: a second or more."""
    from empg_cli.benchmarks import data_facts, make_benchmark

    return data_facts(make_benchmark(**settings["benchmark"]))
