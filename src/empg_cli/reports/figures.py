"""The curves as figures for a paper: PNG, PDF and SVG through matplotlib (extra `report`), and their numbers as CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empg_cli.errors import UserError
from empg_cli.extras import install_command
from empg_cli.files import replacing, write_atomically
from empg_cli.reports.axes import Axis
from empg_cli.reports.configurations import look
from empg_cli.reports.curves import PANELS, Panel, band_note, curves_of, line_chart, panel_curves, panels_of
from empg_cli.reports.entropy_change import Change, change_axes, changes
from empg_cli.reports.tables import csv_text
from empg_cli.reports.task_types import type_panels
from empg_cli.runs.reading import RunFolder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "pdf", "svg")
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
"""Told apart by colour-blind readers too (Okabe and Ito); the page's style sheet has the same order."""
DASHES = ("-", "--", ":")
STYLE: Any = {
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "pdf.fonttype": 42, "svg.hashsalt": "empg",
}  # fmt: skip
WITHOUT_DATE: Mapping[str, dict[str, None]] = {".png": {}, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
"""Equal runs, equal files."""


class MissingExtra(UserError):  # noqa: N818 (a sentence for the user)
    """A report needs a package that is not installed."""


def draw_figures(runs: Sequence[RunFolder], folder: Path) -> list[Path]:
    """`curves` with every panel, a figure per panel, and `curves.csv`.

    `kl_loss` is the paper's Figure 2; `entropy_change`, its Figure 3, comes from runs that `empg diagnose` has seen.
    """
    try:
        import matplotlib
    except ImportError:
        raise MissingExtra(
            f"figures need matplotlib: install it with `{install_command('report')}`, or leave them out: --no-figures"
        ) from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        figure, axes = plt.subplots(2, 2, figsize=(7.2, 5.0), layout="constrained")
        for panel, axis in zip(PANELS, axes.flat, strict=True):
            _draw(axis, runs, panel)
        _finish(figure, runs, PANELS)
        paths = _save(figure, folder / "curves")
        for panel in panels_of(runs):
            figure, axis = plt.subplots(figsize=(4.6, 3.3), layout="constrained")
            _draw(axis, runs, panel)
            _finish(figure, runs, [panel])
            paths += _save(figure, folder / panel.name)
        if found := changes(runs):
            figure, axis = plt.subplots(figsize=(4.6, 3.3), layout="constrained")
            _draw_changes(axis, found)
            _legend(figure)
            figure.suptitle(
                "; ".join(dict.fromkeys(change.note for change in found)), fontsize=7, color="0.35", wrap=True
            )
            paths += _save(figure, folder / "entropy_change")
    write_atomically(folder / "curves.csv", curves_csv(runs))
    return [*paths, folder / "curves.csv"]


def curves_csv(runs: Sequence[RunFolder]) -> str:
    """The numbers of every curve, task types included, in full precision: a line per configuration, metric and update.
    A metric is as it was logged, never 1 - it."""
    lines: list[tuple[object, ...]] = []
    for panel in (*panels_of(runs), *type_panels(runs)):
        for curve in curves_of(runs, panel.metric):
            for place, (update, mean) in enumerate(zip(curve.updates, curve.mean, strict=True)):
                low, high = curve.interval_at(place) or ("", "")
                lines.append((curve.label, panel.metric, update, curve.seeds, mean, low, high))
    return csv_text(("configuration", "metric", "update", "seeds", "mean", "low", "high"), lines)


def _draw(axes: Axes, runs: Sequence[RunFolder], panel: Panel) -> None:
    curves = panel_curves(runs, panel)
    axes.set_title(panel.title, fontsize=9)
    axes.margins(x=0.02)
    if not curves:
        axes.set_xlabel("update")
        axes.text(0.5, 0.5, "not logged", ha="center", va="center", transform=axes.transAxes, color="0.5")
        return
    chart = line_chart(curves, panel)
    for curve in chart.thin:
        for run in curve.runs:
            axes.plot(curve.updates, run, color=COLOURS[look(curve.number)[0]], alpha=0.4, linewidth=0.5)
    for curve in chart.curves:
        colour, dash = look(curve.number)
        marker = "o" if len(curve.updates) == 1 else ""
        axes.plot(curve.updates, curve.mean, DASHES[dash], marker=marker, color=COLOURS[colour], linewidth=1.4,
                  label=f"{curve.label}, n={curve.seeds}")  # fmt: skip
    for curve, low, high in chart.bands():
        axes.fill_between(curve.updates, low, high, color=COLOURS[look(curve.number)[0]], alpha=0.16, linewidth=0)
    axes.set_ylim(chart.y.low, chart.y.high)
    _mark(axes, chart.x, chart.y)


def _mark(axes: Axes, x: Axis, y: Axis) -> None:
    axes.set_xlabel(x.name)
    for set_ticks, marks in ((axes.set_xticks, x.marks), (axes.set_yticks, y.marks)):
        set_ticks([value for value, _ in marks], [text.replace("-", "\N{MINUS SIGN}") for _, text in marks])


def _draw_changes(axes: Axes, found: Sequence[Change]) -> None:
    """Bars of one configuration; of several the same values as lines with error bars."""
    axes.set_title("change of step entropy (nats per token)", fontsize=9)
    axes.axhline(0, color="0.3", linewidth=0.8)
    for change in found:
        centres = [sum(b.percentile) / 2 for b in change.bins]
        means = [b.change.value for b in change.bins]
        errors = [
            [b.change.value - b.change.low for b in change.bins],
            [b.change.high - b.change.value for b in change.bins],
        ]
        colour, name = COLOURS[look(change.configuration.number)[0]], change.configuration.label
        if len(found) == 1:
            widths = [0.85 * (b.percentile[1] - b.percentile[0]) for b in change.bins]
            axes.bar(centres, means, widths, color=colour, alpha=0.75, label=name)
            axes.errorbar(centres, means, errors, fmt="none", ecolor="0.2", elinewidth=0.8)
        else:
            axes.errorbar(centres, means, errors, fmt="o-", color=colour, markersize=2.5, linewidth=1, label=name)
    _mark(axes, *change_axes(found))


def _finish(figure: Figure, runs: Sequence[RunFolder], panels: Sequence[Panel]) -> None:
    """One legend, and what the bands are."""
    _legend(figure)
    note = band_note([curve for panel in panels for curve in panel_curves(runs, panel)])
    if any(panel.shows_runs for panel in panels) and "t interval" in note:
        note += "; thin in the KL panel: single runs" if len(panels) > 1 else "; thin: single runs"
    figure.suptitle(note, fontsize=7, color="0.35", wrap=True)


def _legend(figure: Figure) -> None:
    entries: dict[str, Any] = {}
    for axis in figure.axes:
        handles, labels = axis.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    if entries:
        columns = min(4, len(entries))
        figure.legend(
            list(entries.values()), list(entries), loc="outside lower center", ncols=columns, frameon=False, fontsize=8
        )


def _save(figure: Figure, stem: Path) -> list[Path]:
    import matplotlib.pyplot as plt

    paths = [stem.with_name(f"{stem.name}.{suffix}") for suffix in FORMATS]
    for path in paths:
        with replacing(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:], dpi=200, metadata=WITHOUT_DATE[path.suffix])
        figure.set_layout_engine("none")  # as it is: the other formats look the same, and take half the time
    plt.close(figure)
    return paths
