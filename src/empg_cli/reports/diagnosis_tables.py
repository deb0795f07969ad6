"""What `empg diagnose` found, as tables: Proposition 1, gradient norms, Figure 3."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from empg_cli.evaluation.diagnosis import Diagnosis, EntropyChange, GradientNorms, Proposition1
from empg_cli.reports.tables import Cell, Table
from empg_cli.stats.intervals import Estimate

GRADIENT_ROWS = 5
"""Of the printed table; the files hold every step."""


def diagnosis_tables(found: Diagnosis) -> list[Table]:
    played = (
        f"{found.policy} on {found.benchmark} ({found.data} data), {found.split}: {found.episodes} episodes, "
        f"{found.steps} steps, {found.tokens} tokens at temperature {found.temperature:g}"
    )
    parts = [_proposition1(found.proposition1, played)]
    if found.gradients:
        parts.append(_gradients(found.gradients))
    if found.change:
        parts.append(_change(found.change))
    return parts


def _proposition1(found: Proposition1, played: str) -> Table:
    rows = [
        (f"{b.entropy:.4g}", f"{b.renyi2:.4g}", f"{b.predicted:.4f}", f"{b.exact:.4f}", *_estimate(b.sampled, ".4f"))
        for b in found.bins
    ]
    verdict = "inside" if found.excess.low <= 0 <= found.excess.high else "outside"
    return _table(
        f"Proposition 1: E ||grad_z log pi||^2 = 1 - exp(-H2), by token entropy. {played}",
        ("entropy", "H2", "1 - exp(-H2)", "exact", "sampled", "95% interval", "tokens"),
        rows,
        "exact: sum_a p_a ||e_a - p||^2 over the vocabulary; sampled: ||e_a - p||^2 of the tokens drawn; nats.",
        f"largest difference of exact and 1 - exp(-H2) on a single token: {found.largest_error:.2g}",
        f"sampled - exact, all tokens: {found.excess.value:+.5f} [{found.excess.low:+.5f}, {found.excess.high:+.5f}], "
        f"0 lies {verdict}",
        f"rank correlation of Shannon entropy and 1 - exp(-H2): {found.shannon_rank:.3f} (1 = monotone)",
    )


def _gradients(found: GradientNorms) -> Table:
    by_entropy = sorted(found.steps, key=lambda step: step.entropy)
    rows = []
    for part in np.array_split(np.arange(len(by_entropy)), min(GRADIENT_ROWS, len(by_entropy))):
        steps = [by_entropy[number] for number in part]
        columns = ([s.entropy for s in steps], [s.logit_norm2 for s in steps], [s.gradient_norm for s in steps])
        means = [sum(column) / len(column) for column in columns]
        rows.append((*(f"{mean:.4g}" for mean in means), str(len(steps))))
    rank = found.rank
    told = "too few steps or episodes for a rank correlation"
    if rank:
        told = (
            f"rank correlation of entropy and gradient norm: {rank.value:+.3f} [{rank.low:+.3f}, {rank.high:+.3f}] "
            f"over {rank.n} steps; interval by resampling episodes"
        )
    return _table(
        "Gradient of a step's mean token log-prob in all parameters, by step entropy",
        ("entropy", "1 - exp(-H2)", "gradient norm", "steps"),
        rows,
        told,
    )


def _change(found: EntropyChange) -> Table:
    rows = [
        (
            f"{b.percentile[0]:.0f}-{b.percentile[1]:.0f}%",
            f"{b.before:.4g}",
            f"{b.after:.4g}",
            *_estimate(b.change, "+.4f"),
            f"{b.absolute:.4f}",
        )
        for b in found.bins
    ]
    return _table(
        f"Change of step entropy from {found.before} to {found.after}, by initial entropy (Figure 3 of the paper)",
        ("percentile", "before", "after", "change", "95% interval", "steps", "|change|"),
        rows,
        f"the same steps, played by {found.before} and scored by both; interval robust to steps of one episode being "
        "alike. Bins are chosen by the earlier entropy, so even an unrelated later policy gives a falling line.",
    )


def _estimate(estimate: Estimate, form: str) -> tuple[str, str, str]:
    return (
        f"{estimate.value:{form}}",
        f"[{estimate.low:{form}}, {estimate.high:{form}}]",
        str(estimate.n),
    )


def _table(title: str, header: tuple[str, ...], rows: Sequence[tuple[str, ...]], *notes: str) -> Table:
    return Table(title, header, tuple(tuple(map(Cell, row)) for row in rows), notes)
