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
from empg_cli.reports.configurations import COLOURS
from empg_cli.reports.curves import Curve, Panel, band_note, curves_of, left_out_notes, line_chart, panels_of
from empg_cli.reports.figures import MissingExtra
from empg_cli.reports.health_history import health_warnings, spike_note
from empg_cli.reports.page.entropy_charts import entropy_charts
from empg_cli.reports.page.kept_trajectories import kept_trajectories
from empg_cli.reports.page.svg import drawn_lines
from empg_cli.reports.page.tiles import tiles_of
from empg_cli.reports.tables import NOTHING, Cell, Table
from empg_cli.runs.reading import RunFolder

MOST_BYTES = 1_900_000
"""Of the page, so that it stays below 2 MB."""
MOST_POINTS = 400
"""Of a curve on the page; longer ones are thinned (the figures have every point)."""


def write_page(runs: Sequence[RunFolder], path: Path, *, tables: Sequence[Table] = ()) -> None:
    """Tiles, curves, the tables of a study, and searchable trajectories."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise MissingExtra(f"the HTML page needs jinja2: install it with `{install_command('report')}`") from None
    environment = Environment(
        loader=PackageLoader("empg_cli.reports.page", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    style, script = _asset("page.css"), _asset("page_charts.js") + _asset("page_trajectories.js")
    charts = [_chart(curves_of(runs, panel.metric), panel) for panel in panels_of(runs)]
    curves = [curve for panel in panels_of(runs) for curve in curves_of(runs, panel.metric)]
    legend = {curve.number: curve for curve in reversed(curves)}
    content: dict[str, Any] = {
        "style": style,
        "script": script,
        "policy": _policy(style, script),
        "title": runs[0].title if len(runs) == 1 else _title(runs),
        "facts": facts_of(runs),
        "tiles": tiles_of(runs),
        "charts": charts,
        "legend": [legend[number] for number in sorted(legend)],
        "colours": COLOURS,
        "diagnostics": entropy_charts(runs),
        "warnings": health_warnings(runs[0]) if len(runs) == 1 else (),
        "spikes": spike_note(runs),
        "band_note": band_note(curves),
        "left_out": left_out_notes(runs),
        "tables": tables,
        "runs_table": _runs_table(runs),
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


def _chart(curves: Sequence[Curve], panel: Panel) -> dict[str, Any]:
    chart = line_chart([_thinned(curve) for curve in curves], panel)
    return {
        "title": panel.title,
        "note": "thin: single runs" if chart.thin else "",
        "svg": drawn_lines(chart),
        "data": {
            "share": panel.is_share,
            "frame": [chart.x.low, chart.x.high, chart.y.low, chart.y.high],
            "curves": [_curve_data(curve) for curve in chart.curves],
        },
    }


def _thinned(curve: Curve) -> Curve:
    count = len(curve.updates)
    if count <= MOST_POINTS:
        return curve
    kept = sorted({round(n * (count - 1) / (MOST_POINTS - 1)) for n in range(MOST_POINTS)})

    def pick(values: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(values[n] for n in kept)

    return Curve(
        curve.label, curve.number, pick(curve.updates), pick(curve.mean), curve.low and pick(curve.low),
        curve.high and pick(curve.high), tuple(pick(run) for run in curve.runs),
    )  # fmt: skip


def _curve_data(curve: Curve) -> dict[str, Any]:
    def short(values: Sequence[float] | None) -> list[float] | None:
        return None if values is None else [float(f"{value:.4g}") for value in values]

    return {
        "label": curve.label,
        "number": curve.number,
        "updates": curve.updates,
        "mean": short(curve.mean),
        "low": short(curve.low),
        "high": short(curve.high),
    }


def _title(runs: Sequence[RunFolder]) -> str:
    folders = {run.folder.parent for run in runs}
    where = f"{folders.pop().name}: " if len(folders) == 1 else ""
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
            run.folder.name, run.label, str(run.seed), f"{run.updates} of {run.planned_updates}",
            f"{success[1]:.1%} after {success[0]}" if success else NOTHING, f"{kl[1]:.3g}" if kl else NOTHING,
            str(run.facts.get("config_hash") or NOTHING),
        )  # fmt: skip
        rows.append(tuple(map(Cell, cells)))
    header = ("folder", "configuration", "seed", "updates", "last success rate", "last KL loss", "config hash")
    return Table("Runs", header, tuple(rows), ())
