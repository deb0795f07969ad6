"""Faults in what gives each step credit of its own."""

from __future__ import annotations

from scripts.mutants.mutant import Mutant

_GRAPH = ("golden/test_graphgpo_golden.py", "parity/test_step_credit.py")
_G2PO = ("golden/test_g2po_golden.py", "parity/test_step_credit.py")
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
    Mutant(
        "every-end-is-success",
        "src/empg_cli/algorithms/graphgpo.py",
        "torch.where(is_won_S, 0.0, torch.inf)",
        "torch.where(is_won_S, 0.0, 0.0)",
        "the ends of failed episodes are success",
        _GRAPH,
    ),
    Mutant(
        "one-step-graph",
        "src/empg_cli/algorithms/graphgpo.py",
        "for _ in range(len(left_V) + 1):",
        "for _ in range(2):",
        "ways of more than one step are not found",
        _GRAPH,
    ),
    Mutant(
        "unknown-is-the-longest-way",
        "src/empg_cli/algorithms/graphgpo.py",
        "longest_G[index_S] + 1",
        "longest_G[index_S]",
        "a place from which nobody succeeded is as good as the furthest from which one did",
        _GRAPH,
    ),
    Mutant(
        "longest-of-all-tasks",
        "src/empg_cli/algorithms/graphgpo.py",
        "group_index(group_S)",
        "group_index(torch.zeros_like(group_S))",
        "the longest way is that of another task",
        _GRAPH,
    ),
    Mutant(
        "graph-penalty-given",
        "src/empg_cli/algorithms/graphgpo.py",
        "goal * decay**distance_S - penalty_S",
        "goal * decay**distance_S + penalty_S",
        "an invalid action is rewarded",
        _GRAPH,
    ),
    Mutant(
        "success-of-the-wrong-episode",
        "src/empg_cli/algorithms/advantage_of.py",
        "is_won_N[table.trajectory_S]",
        "is_won_N.roll(1)[table.trajectory_S]",
        "GraphGPO takes another episode's success",
        ("unit/test_assemble.py",),
    ),
    Mutant(
        "values-without-discount",
        "src/empg_cli/algorithms/g2po.py",
        "gamma**left_S * return_S",
        "return_S",
        "an observation near the start is worth as much as one near the end",
        _G2PO,
    ),
    Mutant(
        "value-of-one-visit",
        "src/empg_cli/algorithms/g2po.py",
        "group_mean(gamma**left_S * return_S, index_S, num_anchors)[index_S]",
        "gamma**left_S * return_S",
        "the value of an observation is that of its own episode",
        _G2PO,
    ),
    Mutant(
        "ends-are-worth-nothing",
        "src/empg_cli/algorithms/g2po.py",
        "value_S[next_S.clamp_min(0)], return_S.double())",
        "value_S[next_S.clamp_min(0)], 0.0 * return_S.double())",
        "the step that succeeds leads to a place of value 0",
        _G2PO,
    ),
    Mutant(
        "gain-is-the-value-reached",
        "src/empg_cli/algorithms/g2po.py",
        "group_relative(after_S - value_S, group_S",
        "group_relative(after_S, group_S",
        "a step that stays at a good place gains as much as one that comes there",
        _G2PO,
    ),
    Mutant(
        "gains-compared-here",
        "src/empg_cli/algorithms/g2po.py",
        "group_relative(after_S - value_S, group_S",
        "group_relative(after_S - value_S, anchor_S",
        "gains are compared among the steps of one observation",
        _G2PO,
    ),
)
