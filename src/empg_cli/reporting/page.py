"""One self-contained HTML page of a report: opens from disk, needs no network, and treats every text as untrusted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from empg_cli.extras import install_command
from empg_cli.reporting.curves import PANELS, band_note, curves_of
from empg_cli.reporting.figures import COLOURS, MissingExtra
from empg_cli.reporting.runs import RunFolder
from empg_cli.reporting.svg import line_chart
from empg_cli.reporting.tables import Table
from empg_cli.tracking.rows import write_atomically
from empg_cli.tracking.terminal import printable

MAX_TRAJECTORIES = 200
MAX_DATA_BYTES = 1_800_000
"""Of the trajectories on the page, so that it stays below 2 MB."""
LONGEST_TEXT = 4_000
TEMPLATE = "page.html.j2"


def write_page(runs: Sequence[RunFolder], path: Path, *, tables: Sequence[Table] = ()) -> None:
    """Tiles, curves, the tables of a study, and searchable trajectories."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise MissingExtra(f"the HTML page needs jinja2: install it with `{install_command('report')}`") from None
    environment = Environment(
        loader=PackageLoader("empg_cli.reporting", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    charts = []
    for panel in PANELS:
        curves = curves_of(runs, panel.metric)
        if curves:
            legend = [(c.label, c.seeds, COLOURS[n % len(COLOURS)]) for n, c in enumerate(curves)]
            charts.append({"title": panel.title, "svg": line_chart(curves, panel.title), "legend": legend})
    data, shown, total = trajectory_data(runs)
    text = environment.get_template(TEMPLATE).render(
        title=runs[0].title if len(runs) == 1 else f"{len(runs)} runs",
        subtitle=_subtitle(runs),
        tiles=_tiles(runs),
        charts=charts,
        band_note=band_note(curves_of(runs, PANELS[0].metric)),
        tables=tables,
        data=data,
        shown=shown,
        total=total,
    )
    write_atomically(path, text)


def trajectory_data(runs: Sequence[RunFolder]) -> tuple[dict[str, Any], int, int]:
    """What the page's script draws, how many trajectories that is, and how many there are.

    Texts stand once in a list and are meant by their place in it: observations repeat a lot.
    """
    texts: dict[str, int] = {}
    size = total = 0
    kept: list[dict[str, Any]] = []

    def place(text: str) -> int:
        nonlocal size
        text = printable(text)
        if len(text) > LONGEST_TEXT:
            text = text[:LONGEST_TEXT] + " [...]"
        if text not in texts:
            texts[text] = len(texts)
            size += len(json.dumps(text)) + 1
        return texts[text]

    for number, run in enumerate(runs):
        records = run.trajectories()
        total += len(records)
        share = MAX_TRAJECTORIES // len(runs) or 1
        for record in records[:share]:
            if size > MAX_DATA_BYTES or len(kept) == MAX_TRAJECTORIES:
                break
            trajectory = {
                "run": number,
                **{key: record[key] for key in ("phase", "update", "status", "success", "score", "reward")},
                "task": place(record["task_id"]),
                "kind": place(record["kind"]),
                "steps": [_step(step, place) for step in record["steps"]],
            }
            size += len(json.dumps(trajectory))
            kept.append(trajectory)
    labels = [f"{run.label}, seed {run.seed}" for run in runs]
    return {"runs": labels, "texts": list(texts), "trajectories": kept}, len(kept), total


NUMBERS = ("entropy", "g", "f", "advantage", "credit")


def _step(step: Mapping[str, Any], place: Any) -> list[Any]:
    """[observation, action, flags, entropy, g, f, advantage, credit]; flags: 1 malformed, 2 refused."""
    flags = (0 if step["well_formed"] else 1) + (0 if step["admissible"] else 2)
    numbers = [None if step.get(name) is None else float(f"{step[name]:.4g}") for name in NUMBERS]
    return [place(step["observation"]), place(step["action"]), flags, *numbers]


def _subtitle(runs: Sequence[RunFolder]) -> str:
    sources = sorted({run.data_source for run in runs})
    commits = sorted({str(run.facts.get("commit")) for run in runs})
    data = " and ".join(sources) + ("" if sources == ["official"] else " data (not the official benchmark)")
    weighting = sorted({str(run.facts.get("loss_weighting")) for run in runs})
    return f"{data} · loss weighting {', '.join(weighting)} · commit {', '.join(commits)}"


def _tiles(runs: Sequence[RunFolder]) -> list[tuple[str, str, str]]:
    """(name, value, note)"""
    if len(runs) > 1:
        tiles = []
        for curve in curves_of(runs, "eval/success_rate"):
            note = f"update {curve.updates[-1]}, n={curve.seeds} seeds"
            if curve.low is not None and curve.high is not None:
                note = f"[{curve.low[-1]:.1%}, {curve.high[-1]:.1%}] · {note}"
            tiles.append((curve.label, f"{curve.mean[-1]:.1%}", note))
        return tiles
    (run,) = runs
    tiles = []
    if success := run.last("eval/success_rate"):
        row = run.rows[success[0]]
        interval = f"[{row.get('eval/success_rate_lo') or 0:.1%}, {row.get('eval/success_rate_hi') or 0:.1%}]"
        tiles.append(("last success rate", f"{success[1]:.1%}", f"{interval} n={row.get('eval/n') or 0:.0f}"))
    for name, metric in (("KL loss", "actor/kl_loss"), ("entropy", "actor/entropy"), ("reward", "episode/reward/mean")):
        if measured := run.last(metric):
            tiles.append((name, f"{measured[1]:.4g}", f"update {measured[0]}"))
    tiles.append(("updates", str(max(run.rows)), f"of {run.config['trainer']['updates']}"))
    return tiles
