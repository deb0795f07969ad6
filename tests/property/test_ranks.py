"""Work for several ranks: nothing twice, nothing left out, no rank much longer than it has to be."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from empg_cli.learner.buckets import even_length_groups, even_packed_groups
from empg_cli.learner.split import dealt, microbatches, tokens_computed
from empg_cli.model.batch import make_batch
from empg_cli.model.packing import tree_order
from empg_cli.ranks import ALONE, Ranks
from empg_cli.types import Batch, Step, Task, Trajectory


def batch_of(lengths: list[int]) -> Batch:
    """Trajectories of one step each, with prompts of these lengths that share nothing."""
    trajectories = [
        Trajectory(
            Task("t", "t", "train"),
            group,
            0,
            [Step([100 * group + place for place in range(length)], [1, 2], [0.0] * 2, [0.0] * 2)],
        )
        for group, length in enumerate(lengths)
    ]
    return make_batch(trajectories, append_only=True)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=8), st.integers(1, 4), st.integers(1, 60), st.booleans())
def test_ranks_read_a_batch_once_with_as_many_passes_each(
    lengths: list[int], size: int, tokens: int, packs: bool
) -> None:
    batch = batch_of(lengths)
    everything_S = torch.arange(batch.num_steps)
    deals = [dealt(batch, everything_S, tokens, packs=packs, ranks=Ranks(rank, size)) for rank in range(size)]
    counted = [steps for deal in deals for _, steps in deal.own[: deal.counted]]
    assert sorted(torch.cat(counted).tolist()) == everything_S.tolist()
    assert len({len(deal.own) for deal in deals}) == 1, "or one would wait for a pass that never comes"
    assert all(deal.own for deal in deals)
    for deal in deals:
        assert [rows for rows, _ in deal.all] == [rows for rows, _ in deals[0].all]
        for part in deal.own:
            assert tokens_computed(batch, [part], packs=packs) <= tokens or len(part[0]) == 1


def test_a_batch_that_fits_one_pass_is_split_for_two_ranks() -> None:
    """Four rows of 10 + 2 tokens, of which the last sampled one is not read: 44 tokens. Two ranks read 22 each."""
    batch, steps_S = batch_of([10] * 4), torch.arange(4)
    assert len(dealt(batch, steps_S, 1000, packs=False, ranks=ALONE).own) == 1
    for rank in range(2):
        deal = dealt(batch, steps_S, 1000, packs=False, ranks=Ranks(rank, 2))
        assert [tokens_computed(batch, [part], packs=False) for part in deal.own] == [22]
        assert deal.counted == 1


def test_one_rank_reads_the_micro_batches_as_they_come() -> None:
    batch, steps_S = batch_of([3, 9, 4, 7, 5]), torch.arange(5)
    deal = dealt(batch, steps_S, 20, packs=True, ranks=ALONE)
    assert [rows for rows, _ in deal.own] == [rows for rows, _ in microbatches(batch, steps_S, 20, packs=True)]
    assert deal.counted == len(deal.own)


rows = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=4), min_size=1, max_size=7)


def runs(count: int, places: int) -> list[list[range]]:
    """All ways to cut so many places into at most `count` runs."""
    return [
        [range(start, stop) for start, stop in zip([0, *cuts], [*cuts, places], strict=True)]
        for parts in range(1, min(count, places) + 1)
        for cuts in combinations(range(1, places), parts - 1)
    ]


@given(rows, st.integers(1, 4), st.integers(1, 20))
def test_no_other_runs_of_rows_have_a_smaller_largest_group(ids: list[list[int]], ranks: int, budget: int) -> None:
    """Packed: shared beginnings once; padded: rows times the longest. The rows' order is given."""

    def packed(group: list[int]) -> int:
        chosen = [np.array(ids[row]) for row in group]
        return sum(map(len, chosen)) - sum(tree_order(chosen)[1])

    def padded(group: list[int]) -> int:
        return len(group) * max(len(ids[row]) for row in group)

    for groups, cost in (
        (even_packed_groups([np.array(row) for row in ids], budget, ranks), packed),
        (even_length_groups(list(map(len, ids)), budget, ranks), padded),
    ):
        order = [row for group in groups for row in group]
        assert sorted(order) == list(range(len(ids)))
        assert all(cost(group) <= budget or len(group) == 1 for group in groups)
        cuts = runs(len(ids), len(ids))
        costs = [[cost([order[place] for place in run]) for run in cut] for cut in cuts]
        fitting = [
            len(cut)
            for cut, each in zip(cuts, costs, strict=True)
            if all(one <= budget or len(run) == 1 for one, run in zip(each, cut, strict=True))
        ]
        rounds = -(-min(fitting) // ranks)
        assert len(groups) <= rounds * ranks
        assert max(map(cost, groups)) == min(max(each) for each in costs if len(each) <= rounds * ranks)


def test_each_round_of_passes_is_of_one_size() -> None:
    """Eight rows of 8 tokens that are read, at most 16 in a pass: two passes for each of two ranks, of 16 tokens."""
    batch, steps_S = batch_of([7] * 8), torch.arange(8)
    for rank in range(2):
        deal = dealt(batch, steps_S, 16, packs=True, ranks=Ranks(rank, 2))
        assert [tokens_computed(batch, [part], packs=True) for part in deal.own] == [16, 16]
        assert deal.counted == 2


def test_a_rank_without_a_row_reads_the_shortest_step() -> None:
    batch, steps_S = batch_of([9]), torch.arange(1)
    first, second = (dealt(batch, steps_S, 100, packs=True, ranks=Ranks(rank, 2)) for rank in range(2))
    assert (first.counted, second.counted) == (1, 0)
    assert [rows for rows, _ in second.own] == [[0]]
