"""The figures of docs/studies/why-empg*.md, from the records of its studies.

python -m scripts.why.figures
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib

from empg_cli.reports.figures import COLOURS, STYLE
from scripts.why.one_step_table import FOR_ENTROPY, base_of, differences, rows_of_csv
from scripts.why.records import Row, rows_of
from scripts.why.tables import RECORDS

matplotlib.use("Agg")
import matplotlib.pyplot as plt

OUT = Path("docs/studies")


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--records", type=Path, default=RECORDS)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    records: Path = arguments.records
    with matplotlib.rc_context(STYLE):
        if (archive := records / "fair.tar.xz").is_file():
            save(draws(rows_of(archive)), arguments.out / "why-empg-tuning.png")
        if (archive := records / "controls.tar.xz").is_file():
            save(forest(rows_of(archive), "grpo"), arguments.out / "why-empg-controls.png")
        if (found := records / "one-step-1250.csv.xz").is_file():
            save(one_step(rows_of_csv(found)), arguments.out / "why-empg-one-step.png")


def draws(rows: list[Row]) -> Any:
    """Success of every tuned setting, the best first; a variant's first draw, its settings as they are, is filled."""
    figure, axes = plt.subplots(figsize=(6.4, 3.0), layout="constrained")
    arms: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        arms[row["variant"].rpartition("-")[0]].append(row)
    for number, (arm, own) in enumerate(arms.items()):
        for rank, row in enumerate(sorted(own, key=lambda row: -float(row["mean"]))):
            mean, low, high = (100 * float(row[key] or row["mean"]) for key in ("mean", "low", "high"))
            is_default = row["variant"].endswith("-00")
            axes.errorbar(
                rank + 1 + 0.3 * number, mean, [[mean - low], [high - mean]], fmt="os"[number], markersize=4,
                color=COLOURS[number], markerfacecolor=COLOURS[number] if is_default else "white",
                elinewidth=0.8, label=arm.upper() if not rank else None,
            )  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.set_xlabel("settings, the best first; filled: the shipped one")
    axes.set_ylabel("success, % (95 % t interval)")
    axes.legend(frameon=False)
    return figure


def forest(rows: list[Row], against: str) -> Any:
    """Means of the arms with their intervals; the dashed lines are the base's and `against`'s."""
    figure, axes = plt.subplots(figsize=(6.4, 0.24 * len(rows) + 0.8), layout="constrained")
    for place, row in enumerate(reversed(rows)):
        mean, low, high = (100 * float(row[key] or row["mean"]) for key in ("mean", "low", "high"))
        is_line = row["variant"] == against or not row["difference"]
        colour = COLOURS[1] if is_line else COLOURS[0]
        axes.errorbar(mean, place, xerr=[[mean - low], [high - mean]], fmt="o", markersize=4, color=colour)
        if is_line:
            axes.axvline(mean, color=colour, linewidth=0.8, linestyle="--")
    axes.set_yticks(range(len(rows)), [row["variant"] for row in reversed(rows)])
    axes.set_xlabel("success, % (95 % t interval over seeds)")
    return figure


def one_step(rows: list[Row]) -> Any:
    """Change of entropy by one step beyond that of each arm's base: the mean over batches and its 95 % t interval."""
    shown = dict(zip(FOR_ENTROPY, ("all steps", "repeats of refused actions, lost episodes"), strict=True))
    variants = {name: base for name in dict.fromkeys(row["variant"] for row in rows) if (base := base_of(name))}
    figure, axes = plt.subplots(figsize=(6.4, 0.3 * len(variants) + 1.0), layout="constrained")
    for number, (steps, label) in enumerate(shown.items()):
        for place, variant in enumerate(reversed(variants)):
            found = differences(rows, variant, variants[variant], steps, "d_entropy")
            axes.errorbar(
                found.value, place + 0.25 * number, xerr=[[found.value - found.low], [found.high - found.value]],
                fmt="os"[number], markersize=4, color=COLOURS[number], label=None if place else label,
            )  # fmt: skip
    axes.axvline(0, color="0.3", linewidth=0.8)
    axes.set_yticks(
        [place + 0.12 for place in range(len(variants))],
        [f"{name} − {base}" for name, base in reversed(variants.items())],
    )
    axes.set_xlabel("entropy beyond the base's, 0.001 nats a token")
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


def save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=160)
    plt.close(figure)
    print(path)


if __name__ == "__main__":
    main()
