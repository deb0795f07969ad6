"""The interval of the sampled side of Proposition 1 covers the exact side as often as it says."""

from __future__ import annotations

import torch

from empg_cli.algorithms.logit_gradient import logit_gradient
from empg_cli.evaluation.theory import proposition1


def test_coverage_of_the_sampled_estimate() -> None:
    generator = torch.Generator().manual_seed(0)
    runs, tokens = 400, 150
    logits = 2 * torch.randn(runs * tokens, 12, generator=generator)
    drawn = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
    found = logit_gradient(logits, drawn)
    values = {name: getattr(found, name).reshape(runs, tokens, 1) for name in found.__slots__}
    mask = torch.ones(tokens, 1, dtype=torch.bool)
    covered = 0
    for run in range(runs):
        result = proposition1({name: table[run] for name, table in values.items()}, mask)
        covered += result.excess.low <= 0 <= result.excess.high
        assert sum(row.sampled.n for row in result.bins) == tokens
    # 95 % of 400 is 380, standard deviation 4.4; conditional variances make it slightly less exact than a t interval
    assert 363 <= covered <= 394
