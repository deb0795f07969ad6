"""`plan.json`: what a study asks, written before its first run, and every later change of it.

The plan is never rewritten. What a command adds to a study, redefines or leaves out is an amendment behind it, with the
number of runs that had begun by then, so a reader can tell what was decided before results were seen. A digest without
a key guards against accidents: who wants to be believed publishes the sha256 before the first run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from empg_cli.errors import DataError
from empg_cli.files import write_atomically
from empg_cli.runs.facts import package_versions, source_commit
from empg_cli.runs.provenance import code_digest
from empg_cli.runs.study import Study, without_places

PLAN_FILE = "plan.json"
RULE = (
    "The last evaluation of each run counts, never its best. Differences to the base are paired by seed. There is one "
    "where p of the sign-flip test after Holm is below 0.05 and the 95 % t interval leaves out 0 (or all are equal)."
)
QUESTION = ("study", "metric", "base", "mixed", "confirms")
"""What a study has one of."""


@dataclass(frozen=True, slots=True)
class Plan:
    digest: str
    """sha256 of the plan as it was first written, without amendments."""
    written: str
    runs_begun: int
    """When it was written: 0, unless runs are older than it."""
    amendments: tuple[str, ...]
    """What each says, in a few words."""

    def __str__(self) -> str:
        when = "before the first run" if not self.runs_begun else f"when {self.runs_begun} runs had begun"
        text = f"sha256 {self.digest[:12]}, written {self.written} {when}"
        return text + "".join(f"; then {amendment}" for amendment in self.amendments)


def preregister(study: Study) -> Plan:
    """Write the plan of a study that has none, or what this command changes in it. Whoever calls it owns the folder.

    Raises:
        DataError: `plan.json` is there and is none, or was changed by hand.
    """
    path, now = study.folder / PLAN_FILE, _asked(study)
    if not path.exists():
        return _plan(_write(path, _dated(study, now) | {"rule": RULE, "amendments": []}))
    content = _read(path)
    changes = _changes(_merged(content), now)
    if not changes:
        return _plan(content)
    return _plan(_write(path, content | {"amendments": [*content["amendments"], _dated(study, changes)]}))


def read_plan(folder: Path) -> Plan | None:
    """The plan of a study; None where there is none (older studies).

    Raises:
        DataError: the file is not one that `preregister` has written.
    """
    path = folder / PLAN_FILE
    return _plan(_read(path)) if path.exists() else None


def _plan(content: Mapping[str, Any]) -> Plan:
    told = [
        f"{', '.join(f'{key} {_shown(change[key])}' for key in change if key in (*QUESTION, *_KINDS))} "
        f"({change['runs_begun']} runs begun)"
        for change in content["amendments"]
    ]
    return Plan(content["sha256"], content["written"], int(content["runs_begun"]), tuple(told))


_KINDS = ("new variants", "redefined variants", "dropped variants", "new seeds", "dropped seeds")


def _shown(change: Any) -> str:
    return " ".join(map(str, change)) if isinstance(change, list | dict) else str(change)


def _asked(study: Study) -> dict[str, Any]:
    cells = {cell.variant: cell for cell in study.cells}
    confirms = study.confirms and {key: value for key, value in study.confirms.items() if key != "study"}
    return {
        "study": study.name,
        "metric": study.metric,
        "base": study.base,
        "mixed": study.mixed,
        "confirms": confirms,
        "arms": dict(study.arms),
        "seeds": list(study.seeds),
        "variants": {
            name: {"overrides": list(cell.overrides), "settings": _settings_digest(study, name) or cell.config_hash}
            for name, cell in cells.items()
        },
    }


def _settings_digest(study: Study, variant: str) -> str | None:
    """Of what shapes results, wherever data lies; None in a study of an older empg."""
    if variant not in study.settings:
        return None
    return _sha256(without_places(study.settings[variant]))[:12]


def _changes(known: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """What is another than planned; variants and seeds under the names of `_KINDS`."""
    before, after = known["variants"], now["variants"]
    kinds = {
        "new variants": {name: after[name] for name in after if name not in before},
        "redefined variants": {name: after[name] for name in after if name in before and after[name] != before[name]},
        "dropped variants": [name for name in before if name not in after],
        "new seeds": [seed for seed in now["seeds"] if seed not in known["seeds"]],
        "dropped seeds": [seed for seed in known["seeds"] if seed not in now["seeds"]],
    }
    changed = {key: now[key] for key in QUESTION if _settled(now[key]) != _settled(known[key])}
    return changed | {kind: change for kind, change in kinds.items() if change}


def _settled(value: Any) -> Any:
    return without_labels(value) if isinstance(value, Mapping) else value


def without_labels(confirms: Mapping[str, Any]) -> dict[str, Any]:
    """Where the settings of a confirmation come from, whatever that folder is called today and its plan says since:
    tables of another metric there are an amendment, and change no winner."""
    return {key: value for key, value in confirms.items() if key not in ("study", "plan")}


def _merged(content: Mapping[str, Any]) -> dict[str, Any]:
    """The plan with its amendments applied."""
    known = {key: content[key] for key in QUESTION}
    known |= {"variants": dict(content["variants"]), "seeds": list(content["seeds"])}
    for change in content["amendments"]:
        known |= {key: change[key] for key in QUESTION if key in change}
        known["variants"] |= change.get("new variants", {}) | change.get("redefined variants", {})
        known["variants"] = {n: v for n, v in known["variants"].items() if n not in change.get("dropped variants", [])}
        known["seeds"] += change.get("new seeds", [])
        known["seeds"] = [seed for seed in known["seeds"] if seed not in change.get("dropped seeds", [])]
    return known


def _dated(study: Study, what: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "runs_begun": sum(path.is_dir() for path in study.folder.glob("*-s*")),
        "code": code_digest(),
        "commit": source_commit(),
        "versions": package_versions(),
        **what,
    }


def _sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """With the digest of the plan, and of the plan with its amendments."""
    bare = {key: value for key, value in content.items() if key not in ("sha256", "seal")}
    plan = {key: value for key, value in bare.items() if key != "amendments"}
    return {**bare, "sha256": _sha256(plan), "seal": _sha256(bare)}


def _write(path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    sealed = _sealed(content)
    write_atomically(path, json.dumps(sealed, indent=1, ensure_ascii=False) + "\n")
    return sealed


def _read(path: Path) -> dict[str, Any]:
    hint = "put the file back as it was written, or give another run_dir"
    try:
        content = dict(json.loads(path.read_text(encoding="utf-8")))
        is_whole = content == _sealed(content)
        _merged(content)
        _plan(content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} is no plan that `empg ablate` has written ({error!r}); {hint}") from None
    if not is_whole:
        raise DataError(f"{path} was changed after it was written: its sha256 is another; {hint}")
    return content
