"""The trajectories of a page, packed so that two hundred of them stay below two megabytes."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

from empg_cli.observe.terminal import printable
from empg_cli.reports.configurations import configurations
from empg_cli.runs.reading import RunFolder

MOST_TRAJECTORIES = 200
LEAST_SHARE = 48
"""Of a run, so that whole groups can be compared; of a study with many runs the first of each configuration show."""
TEXT_LIMITS = (20_000, 4_000, 1_000, 250)
"""Characters of a text; the first limit that fits the page is taken."""
STEP_NUMBERS = ("reward", "tokens", "entropy", "g", "f", "advantage", "credit")


@dataclass(frozen=True, slots=True)
class Kept:
    """What the page's script draws."""

    data: dict[str, Any]
    packed: str
    """`data` as JSON, deflated (RFC 1950), in base64."""
    shown: int
    total: int
    runs: int
    """From how many runs the shown ones are."""
    text_limit: int


def kept_trajectories(runs: Sequence[RunFolder], *, most_bytes: int) -> Kept:
    """As many as fit, at most `MOST_TRAJECTORIES`, evaluation and training by turns.

    Runs have equal shares of at least `LEAST_SHARE`, given to the first run of each configuration, then to the second
    of each, while there is room. Texts are shortened before trajectories are left out.
    """
    records = {number: in_turn(runs[number].trajectories()) for number in _in_order_of_turns(runs)}
    total = sum(map(len, records.values()))
    most = MOST_TRAJECTORIES
    while True:
        share = max(LEAST_SHARE, most // max(1, sum(map(bool, records.values()))))
        chosen = [(number, record) for number, own in records.items() for record in own[:share]][:most]
        for limit in TEXT_LIMITS:
            data = _data(runs, chosen, limit)
            packed = pack(data)
            if len(packed) <= most_bytes or most == 0:
                return Kept(data, packed, len(chosen), total, len({number for number, _ in chosen}), limit)
        most //= 2


def _in_order_of_turns(runs: Sequence[RunFolder]) -> list[int]:
    """Places of the runs: the first of every configuration, then the second of every one, and so on."""
    turns = [configuration.all_runs for configuration in configurations(runs)]
    ordered = [run for turn in zip_longest(*turns) for run in turn if run is not None]
    places = {run.folder: number for number, run in enumerate(runs)}
    return [places[run.folder] for run in ordered]


def pack(data: Mapping[str, Any]) -> str:
    content = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(zlib.compress(content.encode(), level=9)).decode()


def in_turn(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Evaluation and training by turns, so that the first few hold both."""
    phases: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        phases.setdefault(record["phase"], []).append(record)
    return [record for record in chain(*zip_longest(*phases.values())) if record is not None]


def _data(runs: Sequence[RunFolder], chosen: Sequence[tuple[int, dict[str, Any]]], limit: int) -> dict[str, Any]:
    """Texts stand once in a list and are meant by their place in it: observations repeat a lot."""
    texts: dict[str, int] = {}

    def place(text: str) -> int:
        return texts.setdefault(_cut(printable(text), limit), len(texts))

    folders = [printable(run.folder.name) for run in runs]
    places = [name if folders.count(name) == 1 else f"{name}~{n}" for n, name in enumerate(folders, start=1)]
    trajectories = [
        {
            "id": f"{places[number]}/{record['phase']}-{record['update']}/{record['group']}.{record['index']}",
            "run": number,
            **{key: record[key] for key in ("phase", "update", "group", "index", "status", "success", "score")},
            "reward": _short(record["reward"]),
            "task": place(record["task_id"]),
            "kind": place(record["kind"]),
            "error": place(record.get("error") or ""),
            "steps": [_step(step, place) for step in record["steps"]],
        }
        for number, record in sorted(chosen, key=lambda pair: (pair[0], pair[1]["phase"]))
    ]
    names = [f"{run.label}, seed {run.seed}" for run in runs]
    return {"runs": names, "texts": list(texts), "trajectories": trajectories}


def _step(step: Mapping[str, Any], place: Callable[[str], int]) -> list[Any]:
    """[observation, action, flags, reward, tokens, entropy, g, f, advantage, credit, prompt, response]; flags: 1
    malformed, 2 refused. Older run folders have no prompts and responses: null."""
    flags = (0 if step["well_formed"] else 1) + (0 if step["admissible"] else 2)
    numbers = [_short(step.get(name)) for name in STEP_NUMBERS]
    said = [place(step[name]) if step.get(name) is not None else None for name in ("prompt", "response")]
    return [place(step["observation"]), place(step["action"]), flags, *numbers, *said]


def _cut(text: str, limit: int) -> str:
    """Beginning and end: a prompt's newest part and what a response came to stand at its end."""
    half = limit // 2
    return text if len(text) <= limit else f"{text[:half]} [...] {text[-half:]}"


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
