"""Which goals are trained on and which are evaluated."""

from __future__ import annotations

import zlib
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from empg_cli.benchmarks.base import DataError

SplitScheme = Literal["paper", "verl", "by_product"]
GoalIndices = range | NDArray[np.int64]

_BUCKETS = 10
_SMALLEST = 10
"""Goals. Fewer cannot be divided into tenths."""


def bucket(asin: str) -> int:
    """0 to 9, the same for a product in every catalogue: by_product tests on bucket 0 and evaluates on bucket 1."""
    return zlib.crc32(asin.encode("utf-8", "surrogatepass")) % _BUCKETS


def split_goals(
    scheme: SplitScheme, product_of_goal: NDArray[Any], bucket_of_product: NDArray[Any]
) -> dict[str, GoalIndices]:
    """Goal indices of each split, in the fixed order of goals.

    paper: the baselines' of the WebShop paper: test 0-500, eval 500-1500, train from 1500.
    verl: verl-agent's: test 0-500, train from 500.
    by_product: no product in two splits (with the others, 96 % of the small set's test goals share theirs with train).
    Catalogues with fewer goals than `paper` or `verl` need are cut after one tenth (and two tenths).
    """
    count = len(product_of_goal)
    if count < _SMALLEST:
        raise DataError(f"WebShop needs at least {_SMALLEST} goals to split, this catalogue has {count}")
    match scheme:
        case "paper":
            test, evaluation = (500, 1500) if count > 1500 else (count // 10, count // 5)
            return {"train": range(evaluation, count), "eval": range(test, evaluation), "test": range(test)}
        case "verl":
            test = 500 if count > 500 else count // 10
            return {"train": range(test, count), "test": range(test)}
        case "by_product":
            buckets = bucket_of_product[product_of_goal]
            parts = {"train": buckets > 1, "eval": buckets == 1, "test": buckets == 0}
            split: dict[str, GoalIndices] = {name: np.flatnonzero(part) for name, part in parts.items()}
            if empty := [name for name, goals in split.items() if not len(goals)]:
                raise DataError(
                    f"benchmark.split_scheme=by_product leaves {' and '.join(empty)} without goals: only "
                    f"{len(np.unique(product_of_goal))} products have any; choose paper or verl"
                )
            return split
