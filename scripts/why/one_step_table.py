"""What one step does: `python -m scripts.why.tables one-step-1250 one-step-1250-explained`.

What `scripts/why/one_step.py` wrote lies in the records as `one-step-NAME.csv.xz` and `one-step-NAME-explained.csv.xz`.
"""

from __future__ import annotations

import csv
import io
import lzma
import statistics
from collections.abc import Sequence
from pathlib import Path

from empg_cli.stats.intervals import Estimate, t_interval
from scripts.why.records import Row, markdown

BESIDE_GRPO = (
    "center",
    "grpo-step-statistics",
    "grpo-entropy-0.03",
    "scaling-uncentred",
    "empg-uncentred",
    "bonus-uncentred",
)
BESIDE_STEP_STATISTICS = ("scaling-step-statistics", "step-statistics-shift-down")


def base_of(variant: str) -> str | None:
    """The arm beside it that lacks what it is there for; a mean of 0, with step statistics, needs no centring."""
    if variant == "grpo":
        return None
    return (
        "grpo" if variant in BESIDE_GRPO else "grpo-step-statistics" if variant in BESIDE_STEP_STATISTICS else "center"
    )


CLASSES = {
    ("all", "all"): "all steps",
    ("won", "valid"): "valid, won",
    ("lost", "valid"): "valid, lost",
    ("lost", "refused"): "refused, lost",
    ("lost", "repeated"): "repeated, lost",
}
"""Episode and action -> what the table calls the steps."""
FOR_ENTROPY = (("all", "all"), ("lost", "repeated"))
FOR_LOGPROB = tuple(CLASSES)[1:]
PARTS = ("entropy", "validity", "length")


def rows_of_csv(path: Path) -> list[Row]:
    return list(csv.DictReader(io.StringIO(lzma.decompress(path.read_bytes()).decode())))


def differences(rows: Sequence[Row], variant: str, base: str, steps: tuple[str, str], key: str) -> Estimate:
    """Of two arms, paired by batch, in 0.001 nats: the mean and its 95 % t interval."""

    def of(name: str) -> dict[str, float]:
        chosen = (row for row in rows if (row["variant"], row["episode"], row["action"]) == (name, *steps))
        return {row["batch"]: 1000 * float(row[key]) for row in chosen}

    mine, others = of(variant), of(base)
    return t_interval([mine[batch] - others[batch] for batch in mine if batch in others])


def one_step_table(rows: Sequence[Row]) -> str:
    """Changes of entropy (a token) and log-prob (a response) beyond those of each arm's base, in 0.001 nats."""
    columns = [(steps, "d_entropy", "entropy") for steps in FOR_ENTROPY]
    columns += [(steps, "d_logprob", "log-prob") for steps in FOR_LOGPROB]
    lines = [["arm", "beyond", *(f"{said}: {CLASSES[steps]}" for steps, _, said in columns)]]
    lines.append(["---", "---", *["---:"] * len(columns)])
    for variant in dict.fromkeys(row["variant"] for row in rows):
        if base := base_of(variant):
            found = [differences(rows, variant, base, steps, key) for steps, key, _ in columns]
            lines.append([f"`{variant}`", f"`{base}`", *map(_said, found)])
    return markdown(lines)


def explained_table(rows: Sequence[Row]) -> str:
    """Of the variance over steps of what an arm changes on GRPO: the share of each explanation, and of all, in %."""
    lines = [["arm", *(f"{of}: {part}" for of in ("credit", "log-prob") for part in (*PARTS, "all"))]]
    lines.append(["---", *["---:"] * (len(lines[0]) - 1)])
    for variant in dict.fromkeys(row["variant"] for row in rows):
        line = [f"`{variant}`"]
        for of in ("credit", "logprob"):
            own = [row for row in rows if (row["variant"], row["of"]) == (variant, of)]
            shares = [statistics.fmean(float(row["share"]) for row in own if row["by"] == part) for part in PARTS]
            line += [f"{100 * share:.0f}" for share in (*shares, statistics.fmean(float(row["joint"]) for row in own))]
        lines.append(line)
    return markdown(lines)


def _said(found: Estimate) -> str:
    text = f"{found.value:+z.2f} ± {(found.high - found.low) / 2:.2f}".replace("-", "−")
    return f"**{text}**" if found.low > 0 or found.high < 0 else text
