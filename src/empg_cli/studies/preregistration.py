"""`plan.json`: what a study asks, written before its first run, and every later change of it.

The plan is never rewritten. What a command adds to a study is an amendment behind it, with the number of runs that had
begun by then, so a reader can tell what was decided before results were seen.
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
from empg_cli.runs.study import Study

PLAN_FILE = "plan.json"
RULE = (
    "The last evaluation of each run counts, never its best. Differences to the base are paired by seed. There is one "
    "where p of the sign-flip test after Holm is below 0.05 and the 95 % t interval leaves out 0."
)


@dataclass(frozen=True, slots=True)
class Plan:
    digest: str
    """sha256 of the plan as it was first written, without amendments."""
    written: str
    runs_begun: int
    """When it was written: 0, unless runs are older than it."""
    amendments: tuple[int, ...]
    """Runs that had begun at each."""

    def __str__(self) -> str:
        when = "before the first run" if not self.runs_begun else f"when {self.runs_begun} runs had begun"
        text = f"sha256 {self.digest[:12]}, written {self.written} {when}"
        if self.amendments:
            begun = ", ".join(map(str, self.amendments))
            text += f", amended {len(self.amendments)} times (runs begun: {begun})"
        return text


def preregister(study: Study) -> Plan:
    """Write the plan of a study that has none, or what this command adds to it. Whoever calls it owns the folder.

    Raises:
        DataError: `plan.json` is there and is none, or was changed by hand.
    """
    path = study.folder / PLAN_FILE
    now = _asked(study)
    if not path.exists():
        return _plan(_write(path, _dated(study, now) | {"rule": RULE}))
    content = _read(path)
    known = _merged(content)
    added = {
        "variants": {name: words for name, words in now["variants"].items() if name not in known["variants"]},
        "seeds": [seed for seed in now["seeds"] if seed not in known["seeds"]],
    }
    changed = {key: now[key] for key in ("metric", "base", "confirms") if now[key] != known[key]}
    added = {key: value for key, value in added.items() if value} | changed
    if not added:
        return _plan(content)
    return _plan(_write(path, content | {"amendments": [*content.get("amendments", []), _dated(study, added)]}))


def read_plan(folder: Path) -> Plan | None:
    """The plan of a study; None where there is none (older studies).

    Raises:
        DataError: the file is not one that `preregister` has written.
    """
    path = folder / PLAN_FILE
    return _plan(_read(path)) if path.exists() else None


def _plan(content: Mapping[str, Any]) -> Plan:
    amendments = tuple(int(amendment["runs_begun"]) for amendment in content.get("amendments", []))
    return Plan(content["sha256"], content["written"], int(content["runs_begun"]), amendments)


def _asked(study: Study) -> dict[str, Any]:
    cells = {cell.variant: cell for cell in study.cells}
    return {
        "study": study.name,
        "metric": study.metric,
        "base": study.base,
        "seeds": list(study.seeds),
        "variants": {
            name: {"overrides": list(cell.overrides), "settings": cell.config_hash} for name, cell in cells.items()
        },
        "arms": dict(study.arms),
        "confirms": study.confirms,
    }


def _dated(study: Study, what: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "runs_begun": sum(study.cell_dir(cell).exists() for cell in study.cells),
        "code": code_digest(),
        "commit": source_commit(),
        "versions": package_versions(),
        **what,
    }


def _merged(content: Mapping[str, Any]) -> dict[str, Any]:
    """The plan with its amendments applied."""
    known = {key: content[key] for key in ("metric", "base", "confirms")}
    known |= {"variants": dict(content["variants"]), "seeds": list(content["seeds"])}
    for amendment in content.get("amendments", []):
        known["variants"] |= amendment.get("variants", {})
        known["seeds"] += amendment.get("seeds", [])
        known |= {key: amendment[key] for key in ("metric", "base", "confirms") if key in amendment}
    return known


def _digest(content: Mapping[str, Any]) -> str:
    plan = {key: value for key, value in content.items() if key not in ("sha256", "amendments")}
    return hashlib.sha256(json.dumps(plan, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _write(path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    sealed = {**content, "sha256": _digest(content)}
    write_atomically(path, json.dumps(sealed, indent=1, ensure_ascii=False) + "\n")
    return sealed


def _read(path: Path) -> dict[str, Any]:
    hint = "put the file back as it was written, or give another run_dir"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        digest = content["sha256"]
        _merged(content)
        _plan(content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} is no plan that `empg ablate` has written ({error!r}); {hint}") from None
    if digest != _digest(content):
        raise DataError(f"{path} was changed after it was written: its sha256 is another; {hint}")
    return dict(content)
