"""The curves as a figure for a paper: PNG, PDF and SVG through matplotlib (extra `report`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

from empg_cli.errors import UserError
from empg_cli.extras import install_command
from empg_cli.reporting.curves import PANELS, band_note, curves_of
from empg_cli.reporting.runs import RunFolder

FORMATS = ("png", "pdf", "svg")
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
"""Told apart by colour-blind readers too (Okabe and Ito)."""


WITHOUT_DATE: Mapping[str, dict[str, None]] = {".png": {}, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
"""Equal runs, equal files."""


class MissingExtra(UserError):  # noqa: N818 (a sentence for the user)
    """A report needs a package that is not installed."""


def draw_figures(runs: Sequence[RunFolder], folder: Path) -> list[Path]:
    """`curves.{png,pdf,svg}` in `folder`: success rate, reward, KL loss and entropy over updates, with seed bands."""
    try:
        import matplotlib
    except ImportError:
        raise MissingExtra(
            f"figures need matplotlib: install it with `{install_command('report')}`, or leave them out: --no-figures"
        ) from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    style = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "empg"}
    with matplotlib.rc_context(style):
        figure, axes = plt.subplots(2, 2, figsize=(7.2, 5.0), layout="constrained")
        for panel, axis in zip(PANELS, axes.flat, strict=True):
            axis.set_title(panel.title, fontsize=9)
            axis.set_xlabel("update")
            axis.xaxis.get_major_locator().set_params(integer=True)
            curves = curves_of(runs, panel.metric)
            for colour, curve in zip(cycle(COLOURS), curves, strict=False):
                label = f"{curve.label}, n={curve.seeds}"
                axis.plot(curve.updates, curve.mean, color=colour, label=label, linewidth=1.3)
                if curve.low is not None and curve.high is not None:
                    axis.fill_between(curve.updates, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0)
            if not curves:
                axis.text(0.5, 0.5, "not logged", ha="center", va="center", transform=axis.transAxes, color="0.5")
            axis.margins(x=0.02)
        handles, labels = axes.flat[0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(handles)), frameon=False)
        figure.suptitle(band_note(curves_of(runs, PANELS[0].metric)), fontsize=8, color="0.35")
        paths = [folder / f"curves.{suffix}" for suffix in FORMATS]
        folder.mkdir(parents=True, exist_ok=True)
        for path in paths:
            figure.savefig(path, dpi=200, metadata=WITHOUT_DATE[path.suffix])
        plt.close(figure)
    return paths
