"""`empg ablate --plan`: the cells of a study, their time, and the seeds that a difference needs, on stdout."""

from __future__ import annotations

import sys
from typing import TextIO

from empg_cli.observe.terminal import duration, printable, write_line
from empg_cli.reports.tables import NOTHING, Cell, Table, print_table
from empg_cli.runs.study import Study
from empg_cli.stats.paired import MAX_EXACT_PAIRS, pairs_for_p, sign_flip_floor
from empg_cli.studies.comparison import SURE
from empg_cli.studies.forecast import Forecast

DRAWS = 100_000
"""Of `stats.paired.sign_flip_test`."""


def print_plan(study: Study, forecast: Forecast, stream: TextIO | None = None) -> None:
    stream = stream or sys.stdout
    print_table(_cells(study), stream)
    for line in [_size(study, forecast), _time(study, forecast), ""]:
        write_line(stream, printable(line))
    print_table(_seeds(study, forecast), stream)


def _cells(study: Study) -> Table:
    done = {(cell.variant, cell.seed) for cell in study.done()}
    rows = []
    for variant in study.variants:
        cells = [cell for cell in study.cells if cell.variant == variant]
        rows.append((
            Cell(variant + (" (base)" if variant == study.base else "")),
            Cell(" ".join(str(cell.seed) for cell in cells)),
            Cell(f"{sum((variant, cell.seed) in done for cell in cells)} of {len(cells)}"),
            Cell(str(study.facts[variant]["updates"])),
            Cell(" ".join(cells[0].overrides)),
        ))  # fmt: skip
    header = ("variant", "seeds", "done", "updates", "overrides")
    return Table(f"plan of ablation {study.name} in {study.folder}", header, tuple(rows), ())


def _size(study: Study, forecast: Forecast) -> str:
    shape = f"{len(study.variants)} variants x {len(study.seeds)} seeds"
    return f"{forecast.pending} of {len(study.cells)} cells to run ({shape})"


def _time(study: Study, forecast: Forecast) -> str:
    if not forecast.pending:
        return "time: none, as all cells are done"
    if forecast.seconds is None or forecast.seconds_per_update is None:
        some = 0 < len(forecast.untimed) < len(study.variants)
        what = f"the settings of {forecast.untimed[0]}" if some else "these settings"
        return f"time: unknown, as no run with {what} is at hand; one seed of one variant tells"
    basis = f"measured: {forecast.seconds_per_update:.3g} s an update, the median of {forecast.timed_runs} runs"
    return f"time: about {duration(forecast.seconds)} with {forecast.jobs} at once ({basis})"


def _floor(pairs: int) -> float:
    """The smallest p that a table of so many pairs can show: beyond the exact test it is drawn."""
    return sign_flip_floor(pairs) if pairs <= MAX_EXACT_PAIRS else max(sign_flip_floor(pairs), 1 / (1 + DRAWS))


def _seeds(study: Study, forecast: Forecast) -> Table:
    rows = []
    for need in forecast.seeds_needed:
        if need.seeds is None:
            rows.append((Cell(f"{need.sd:.3g}"), Cell("more than 10000"), Cell(NOTHING), Cell(need.source)))
            continue
        floor = f"{_floor(need.seeds):.2g}"
        rows.append((Cell(f"{need.sd:.3g}"), Cell(str(need.seeds)), Cell(floor), Cell(need.source)))
    tests = max(1, len(study.variants) - 1)
    header = ("sd of the paired difference", "seeds needed", "smallest sign-flip p", "sd from")
    notes = (
        "so that a 95 % paired t interval leaves out 0 with probability 0.8; "
        f"p (Holm) over {tests} comparison{'s' if tests > 1 else ''} can reach {SURE}, and a table bold, from "
        f"{pairs_for_p(SURE, tests)} seeds on; planned here: {len(study.seeds)}",
        *(["an sd is uncertain too: from 3 seeds the truth may be 0.5 to 6.3 times it, from 10 seeds 0.7 to 1.8 times"]
          if any(need.source.startswith("measured") for need in forecast.seeds_needed) else []),
    )  # fmt: skip
    return Table(
        f"seeds needed to see a difference of {forecast.difference:g} in {study.metric}", header, tuple(rows), notes
    )
