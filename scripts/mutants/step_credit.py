"""Faults in what gives each step credit of its own."""

from __future__ import annotations

from scripts.mutants.mutant import Mutant

_HGPO = ("golden/test_hgpo_golden.py", "parity/test_step_credit.py")

STEP_CREDIT = (
    Mutant(
        "history-forgets-the-order",
        "src/empg_cli/algorithms/hgpo.py",
        "levels[-1][previous_S.clamp_min(0)]",
        "anchor_S[previous_S.clamp_min(0)]",
        "of a longer history only the last two observations are compared",
        _HGPO,
    ),
    Mutant(
        "short-histories-compared",
        "src/empg_cli/algorithms/hgpo.py",
        "levels.append(torch.where(before_S >= 0, sequence_S, -1))",
        "levels.append(sequence_S)",
        "first steps count as having the same two observations",
        _HGPO,
    ),
    Mutant(
        "silent-comparisons-counted",
        "src/empg_cli/algorithms/hgpo.py",
        "says_something_S = advantage_S.abs() > ROUNDING",
        "says_something_S = advantage_S.abs() > -1",
        "comparisons without a difference draw the advantage to 0",
        _HGPO,
    ),
    Mutant(
        "closer-comparisons-weigh-less",
        "src/empg_cli/algorithms/hgpo.py",
        "(k + 1) ** alpha",
        "(k + 1) ** -alpha",
        "the comparison by the observation alone has the largest weight",
        _HGPO,
    ),
    Mutant(
        "penalty-twice",
        "src/empg_cli/algorithms/hgpo.py",
        "return_S = return_S - penalty_S",
        "return_S = return_S - 2 * penalty_S",
        "an invalid action costs HGPO twice what is set",
        _HGPO,
    ),
    Mutant(
        "the-step-after-comes-before",
        "src/empg_cli/algorithms/returns.py",
        "scatter_(0, next_S[has_next_S], rows_S[has_next_S])",
        "scatter_(0, rows_S[has_next_S], next_S[has_next_S])",
        "the previous step is the next one",
        _HGPO,
    ),
)
