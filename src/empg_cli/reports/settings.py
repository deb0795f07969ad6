"""What runs were asked to do and what they were made with: the resolved settings, versions and hardware, as tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from empg_cli.observe.terminal import printable
from empg_cli.reports.configurations import NO_DIFFERENCE, configurations, flat
from empg_cli.reports.tables import NOTHING, Cell, Table
from empg_cli.runs.facts import HARDWARE
from empg_cli.runs.reading import RunFolder

LONGEST = 300
"""Characters of a value."""
MOST_VALUES = 4
"""Of one entry; of more, the number."""


@dataclass(frozen=True, slots=True)
class Settings:
    differing: Table | None
    """Of several configurations: what tells them apart."""
    shared: Table


def settings_of(runs: Sequence[RunFolder]) -> Settings:
    """Every key of `config.yaml`, with the numbers that `auto` came to stand for."""
    groups = [configuration.all_runs for configuration in configurations(runs)]
    labels = [configuration.label for configuration in configurations(runs)]
    values = {run.folder: _values(run) for run in runs}
    keys = list(dict.fromkeys(key for own in values.values() for key in own))
    shared, differing = [], []
    for key in keys:
        by_group = [_several(values[run.folder].get(key, NOTHING) for run in group) for group in groups]
        if len(set(by_group)) == 1 or (key.startswith(NO_DIFFERENCE) and len(runs) > 1):
            shared.append((Cell(key), Cell(_several(value.get(key, NOTHING) for value in values.values()))))
        else:
            differing.append((Cell(key), *map(Cell, by_group)))
    apart = Table("Settings that differ", ("setting", *labels), tuple(differing), ()) if differing else None
    return Settings(apart, Table("Settings", ("setting", "value"), tuple(shared), ()))


def made_with(runs: Sequence[RunFolder]) -> Table:
    """Versions, machine and digests, from `run.json`. Several values stand where runs differ."""
    entries = [_record(run) for run in runs]
    names = list(dict.fromkeys(name for entry in entries for name in entry))
    rows = tuple((Cell(name), Cell(_several(entry.get(name, NOTHING) for entry in entries))) for name in names)
    return Table("Versions and machine", ("from run.json", "value"), rows, ())


def _record(run: RunFolder) -> dict[str, str]:
    facts = run.facts
    model = _part(facts, "model")
    record = {
        "platform": facts.get("platform"),
        "hardware": ", ".join(facts.get(HARDWARE, [])) or None,
        "device (trainer.device)": run.config["trainer"].get("device"),
        "precision (model.dtype)": run.config["model"].get("dtype"),
        "peak memory (perf/mem_gb)": _memory(run),
        **_part(facts, "versions"),
        "commit": facts.get("commit"),
        "code digest": facts.get("code"),
        "model": model.get("class"),
        "parameters": f"{model['parameters']:,}" if "parameters" in model else None,
        "weights digest": model.get("digest"),
        "data digest": _part(facts, "data").get("digest"),
        "code from outside": _part(facts, "outside") or None,
        "run folder format": facts.get("format"),
    }
    return {name: _text(value) for name, value in record.items() if value is not None}


def _part(facts: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = facts.get(name)
    return part if isinstance(part, Mapping) else {}


def _memory(run: RunFolder) -> str | None:
    last = run.last("perf/mem_gb")
    return f"{last[1]:.3g} GB" if last else None


def _values(run: RunFolder) -> dict[str, str]:
    settled = _part(run.facts, "settled")
    return {
        key: _text(value) + (f" (settled: {_text(settled[key])})" if key in settled else "")
        for key, value in flat(run.config).items()
    }


def _several(values: Iterable[str]) -> str:
    distinct = list(dict.fromkeys(values))
    return "; ".join(distinct) if len(distinct) <= MOST_VALUES else f"{len(distinct)} values: {distinct[0]}; ..."


def _text(value: Any) -> str:
    """As in YAML, on one line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return _cut("[" + ", ".join(map(_text, value)) + "]")
    return _cut(printable(str(value)).replace("\n", " "))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + " [...]"
