"""All targets by name."""

from __future__ import annotations

from scripts.fuzz import file_targets, run_targets, text_targets
from scripts.fuzz.target import MakeTarget

TARGETS: dict[str, MakeTarget] = {
    "pddl": file_targets.pddl,
    "alfworld": file_targets.alfworld,
    "webshop": file_targets.webshop,
    "catalogue": file_targets.catalogue,
    "rows": file_targets.rows,
    "parquet": file_targets.parquet,
    "index": file_targets.index,
    "model": run_targets.model,
    "run_folder": run_targets.run_folder,
    "overrides": run_targets.overrides,
    "replies": run_targets.replies,
    "retry_after": run_targets.retry_after,
    "tags": text_targets.tags,
    "tool_calls": text_targets.tool_calls,
    "queries": text_targets.queries,
    "actions": text_targets.actions,
}
