"""The policy that a run began with, warm start included: the KL term's reference, also where the run goes on."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from empg_cli.errors import UserError
from empg_cli.runs.facts import MODEL
from empg_cli.runs.run_file import read_run_file, update_run_file
from empg_cli.runs.warm_start import WARM_START

log = logging.getLogger(__name__)


def note_policy(
    run_dir: Path, fingerprint: Mapping[str, Any], warm_start: str | None, *, goes_on: bool, is_computed: bool
) -> bool:
    """Into run.json. Returns False, and says why, where the run goes on with another one.

    Args:
        fingerprint: of its weights.
        warm_start: its key in the cache; None = there was none.
        is_computed: it was drawn or imitated, and not only read from files.

    Raises:
        UserError: the run began with another one, which was read from files.
    """
    facts = read_run_file(run_dir)
    began = facts.get(MODEL)
    if goes_on and began and began["digest"] != fingerprint["digest"]:
        now = fingerprint["digest"]
        said = f"the initial policy is not the one that the run began with: digest {began['digest']}, now {now}"
        if not is_computed:
            raise UserError(f"{said}; give the weights that it began with, or start a new run")
        why = "made anew, it was rounded differently, and the KL reference with it"
        if warm_start is not None and WARM_START not in facts:
            why = "made anew, it was rounded differently, or by other code or packages, which the run has not recorded"
        elif facts.get(WARM_START) != warm_start:
            why = "its warm start was made anew by other code, packages or settings: the KL reference is another policy"
        log.warning("%s: %s", said, why)
        return False
    update_run_file(run_dir, **{MODEL: dict(fingerprint)}, **({WARM_START: warm_start} if warm_start else {}))
    return True
