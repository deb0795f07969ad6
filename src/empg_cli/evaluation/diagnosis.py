"""What `empg diagnose` finds about a policy, as plain data: written once, read by reports. Needs no torch.

Entropies are in nats at the sampling temperature; an `Estimate` is (value, low, high, n) with a 95 % interval.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from empg_cli.files import write_atomically
from empg_cli.runs.shapes import read_json
from empg_cli.stats.intervals import Estimate

FOLDER = "diagnostics"
FILE = "diagnosis.json"
TABLES = ("proposition1.csv", "gradients.csv", "entropy_change.csv")


@dataclass(frozen=True, slots=True)
class TokenBin:
    """Sampled tokens of similar entropy, and the squared norm of their log-prob's gradient in the logits."""

    entropy: float
    """Mean Shannon entropy of the distributions that the tokens were drawn from."""
    renyi2: float
    """Mean Renyi-2 entropy, H_2 = -log sum_a p_a^2."""
    predicted: float
    """Mean of 1 - exp(-H_2), what Proposition 1 says."""
    exact: float
    """Mean of sum_a p_a ||e_a - p||^2, the expectation over the whole vocabulary."""
    sampled: Estimate
    """Mean of ||e_a - p||^2 at the tokens that were really drawn; n is their number."""


@dataclass(frozen=True, slots=True)
class Proposition1:
    """E ||grad_z log pi||^2 = 1 - exp(-H_2), token by token, for the logits z (arXiv 2509.09265, Eq. 1)."""

    bins: Annotated[tuple[TokenBin, ...], Field(min_length=1)]
    """Equally many tokens each, from the lowest entropy to the highest."""
    largest_error: float
    """Largest absolute difference of `exact` and `predicted` over single tokens: rounding."""
    excess: Estimate
    """Mean of sampled minus exact over all tokens; its interval should hold 0."""
    shannon_rank: float
    """Spearman correlation of a token's Shannon entropy and 1 - exp(-H_2): 1 would be the paper's "monotone"."""


@dataclass(frozen=True, slots=True)
class GradientStep:
    """One step's entropy, and the gradient of its mean token log-prob in all parameters."""

    task_id: str
    step: int
    tokens: int
    entropy: float
    logit_norm2: float
    """Mean over its tokens of 1 - exp(-H_2)."""
    gradient_norm: float
    """L2 norm."""


@dataclass(frozen=True, slots=True)
class GradientNorms:
    """Whether the logits' story holds for the parameters: gradient norm of real steps against their entropy."""

    steps: tuple[GradientStep, ...]
    rank: Estimate | None
    """Spearman correlation of entropy and gradient norm; interval by resampling whole episodes, n = steps. None: too
    few steps, or episodes, for one."""


@dataclass(frozen=True, slots=True)
class ChangeBin:
    """Steps of similar initial entropy, seen again by a later policy."""

    percentile: tuple[float, float]
    """Of the initial entropy, 0 to 100."""
    before: float
    """Mean step entropy under the earlier policy."""
    after: float
    """Mean step entropy of the same steps under the later one."""
    change: Estimate
    """Mean of after - before; interval robust to steps of one episode being alike; n = steps."""
    absolute: float
    """Mean of |after - before|."""


@dataclass(frozen=True, slots=True)
class EntropyChange:
    """Figure 3 of arXiv 2509.09265: change of step entropy by initial entropy, in 20 bins of 5 % each."""

    before: str
    """The earlier policy: `initial`, or a checkpoint."""
    after: str
    bins: Annotated[tuple[ChangeBin, ...], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    policy: str
    """The checkpoint."""
    benchmark: str
    data: str
    """official or generated."""
    split: str
    temperature: float
    seed: int
    episodes: int
    steps: int
    tokens: int
    proposition1: Proposition1
    gradients: GradientNorms | None
    """None when no gradients were asked for."""
    change: EntropyChange | None
    """None when there is no earlier policy."""


def write_diagnosis(diagnosis: Diagnosis, folder: Path) -> list[Path]:
    """`diagnosis.json` with everything, and a CSV per table."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {FILE: json.dumps(asdict(diagnosis), indent=1, allow_nan=False) + "\n"}
    proposition1, gradients, change = TABLES
    texts[proposition1] = _csv(
        ["entropy", "renyi2", "predicted", "exact", "sampled", "sampled_low", "sampled_high", "tokens"],
        [[b.entropy, b.renyi2, b.predicted, b.exact, *b.sampled] for b in diagnosis.proposition1.bins],
    )
    if diagnosis.gradients:
        texts[gradients] = _csv(
            ["task_id", "step", "tokens", "entropy", "logit_norm2", "gradient_norm"],
            [list(asdict(step).values()) for step in diagnosis.gradients.steps],
        )
    if diagnosis.change:
        texts[change] = _csv(
            ["percentile_low", "percentile_high", "before", "after", "change", "low", "high", "steps", "absolute"],
            [[*b.percentile, b.before, b.after, *b.change, b.absolute] for b in diagnosis.change.bins],
        )
    for name, text in texts.items():
        write_atomically(folder / name, text)
    for name in TABLES:
        if name not in texts:  # of an earlier call, of another policy
            (folder / name).unlink(missing_ok=True)
    return [folder / name for name in texts]


def read_diagnosis(folder: Path) -> Diagnosis | None:
    """What `write_diagnosis` wrote there; None when there is nothing."""
    path = folder / FILE
    if not path.is_file():
        return None
    return read_json(path, Diagnosis, mend="make it anew with `empg diagnose`, or delete it")


def _csv(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()
