"""One self-contained HTML page of a report: opens from disk, needs no network, and treats every text as untrusted.

Its content security policy allows the page's own style sheet and script, by their hashes, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from empg_cli.extras import install_command
from empg_cli.files import write_atomically
from empg_cli.observe.terminal import printable
from empg_cli.reports.configurations import COLOURS, DASHES
from empg_cli.reports.curves import band_note, left_out_notes, panels_of
from empg_cli.reports.figures import MissingExtra
from empg_cli.reports.health_history import health_warnings, spike_note
from empg_cli.reports.page.charts import charts_of
from empg_cli.reports.page.entropy_charts import entropy_charts
from empg_cli.reports.page.kept_trajectories import kept_trajectories
from empg_cli.reports.page.tiles import tiles_of
from empg_cli.reports.settings import made_with, settings_of
from empg_cli.reports.tables import NOTHING, Cell, Table
from empg_cli.reports.task_types import type_panels, type_table
from empg_cli.runs.reading import RunFolder

MOST_BYTES = 1_900_000
"""Of the page, so that it stays below 2 MB."""
MOST_TYPES = 24
"""Task types with a chart of their own; of more there is the table alone."""
SCRIPTS = ("page_charts.js", "page_trajectories.js", "page_settings.js")


def write_page(runs: Sequence[RunFolder], path: Path, *, tables: Sequence[Table] = ()) -> None:
    """Tiles, curves, the tables of a study, task types, searchable trajectories, settings and versions."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise MissingExtra(f"the HTML page needs jinja2: install it with `{install_command('report')}`") from None
    environment = Environment(
        loader=PackageLoader("empg_cli.reports.page", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    style, script = _asset("page.css"), "".join(map(_asset, SCRIPTS))
    panels, types = panels_of(runs), type_panels(runs)
    charts = charts_of(runs, [*panels, *(types if len(types) <= MOST_TYPES else ())])
    legend = {curve.number: curve for curve in reversed(charts.curves)}
    content: dict[str, Any] = {
        "style": style,
        "script": script,
        "policy": _policy(style, script),
        "title": runs[0].title if len(runs) == 1 else _title(runs),
        "facts": facts_of(runs),
        "tiles": tiles_of(runs),
        "charts": charts.shown[: len(panels)],
        "type_charts": charts.shown[len(panels) :],
        "type_table": type_table(runs),
        "axes": charts.axes,
        "chart_data": charts.data,
        "legend": [legend[number] for number in sorted(legend)],
        "colours": COLOURS,
        "dashes": DASHES,
        "diagnostics": entropy_charts(runs),
        "warnings": health_warnings(runs[0]) if len(runs) == 1 else (),
        "spikes": spike_note(runs),
        "band_note": band_note(charts.curves),
        "left_out": left_out_notes(runs),
        "tables": tables,
        "runs_table": _runs_table(runs),
        "settings": settings_of(runs),
        "made_with": made_with(runs),
    }
    template = environment.get_template("page.html.j2")
    empty = template.render(**content, kept=kept_trajectories([], most_bytes=0))
    kept = kept_trajectories(runs, most_bytes=MOST_BYTES - len(empty.encode()))
    write_atomically(path, template.render(**content, kept=kept))


def _asset(name: str) -> str:
    return files("empg_cli.reports.page").joinpath(name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    def digest(text: str) -> str:
        return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"

    return (
        f"default-src 'none'; style-src {digest(style)}; script-src {digest(script)}; img-src data:; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )


def _title(runs: Sequence[RunFolder]) -> str:
    folders = {run.folder.parent for run in runs}
    where = f"{printable(folders.pop().name)}: " if len(folders) == 1 else ""
    return f"{where}{len(runs)} runs on {_all(runs, 'benchmark', 'name')}"


def facts_of(runs: Sequence[RunFolder]) -> list[tuple[str, str]]:
    """What a reader must know to trust the numbers."""
    sources = sorted({run.data_source for run in runs})
    data = " and ".join(sources) + ("" if sources == ["official"] else " (not the official benchmark)")
    statistics = sorted({str(run.facts.get("advantage", {}).get("statistics", "unknown")) for run in runs})
    return [
        ("algorithm", _all(runs, "algo", "name")),
        ("model", _all(runs, "model", "name")),
        ("data", data),
        ("loss weighting", ", ".join(sorted({str(run.facts.get("loss_weighting", "unknown")) for run in runs}))),
        ("group statistics", "per " + ", per ".join(statistics)),
        ("commit", ", ".join(sorted({str(run.facts.get("commit") or "unknown") for run in runs}))),
    ]


def _all(runs: Sequence[RunFolder], group: str, key: str) -> str:
    return ", ".join(dict.fromkeys(str(run.config[group][key]) for run in runs))


def _runs_table(runs: Sequence[RunFolder]) -> Table:
    rows = []
    for run in runs:
        success = run.last("eval/success_rate")
        kl = run.last("actor/kl_loss")
        cells = (
            printable(run.folder.name), run.label, str(run.seed), f"{run.updates} of {run.planned_updates}",
            f"{success[1]:.1%} after {success[0]}" if success else NOTHING, f"{kl[1]:.3g}" if kl else NOTHING,
            str(run.facts.get("config_hash") or NOTHING),
        )  # fmt: skip
        rows.append(tuple(map(Cell, cells)))
    header = ("folder", "configuration", "seed", "updates", "last success rate", "last KL loss", "config hash")
    return Table("Runs", header, tuple(rows), ())
