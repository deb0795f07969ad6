"""`empg eval --compare A B`: paired statistics of two evaluations on the same tasks. Plays nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from empg_cli.evaluation.head_to_head import compare_evaluations
from empg_cli.reports.evaluation_tables import paired_table
from empg_cli.reports.tables import print_table


def run(path_a: Path, path_b: Path, *, as_json: bool) -> None:
    comparison = compare_evaluations(path_a, path_b)
    if as_json:
        print(json.dumps(comparison.as_dict()))
        return
    print_table(paired_table(comparison), sys.stdout)
