"""Several ranks against one process: the same scores, gradients, weights and checkpoints. One launch of each number."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from empg_cli.config import load
from empg_cli.loop import train
from empg_cli.ranks import ALONE
from tests.support.rank_jobs import ALGORITHMS, ENDS, JOBS, resumed, run_words, together
from tests.support.same_rows import assert_same_rows

Found = dict[str, dict[str, Tensor]]
UPDATES = (*ALGORITHMS, "window", "whole", "checkpointing", "one_row")
RUNS = ("webshop", "deepsearch")
SPLIT = ("metric perf/padding", "metric perf/shared")
"""Metrics of how rows are put together, which is what ranks do otherwise."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def alone(folder: Path) -> Found:
    return {job: JOBS[job](ALONE, folder) for job in (*UPDATES, "bf16", "saved")}


@pytest.fixture(scope="module")
def two(folder: Path, alone: Found) -> Found:
    """Of two ranks, but for the job of four. `alone` comes first: its checkpoint is read."""
    of_two = (*UPDATES, "bf16", "saved", "resumed", "from_one", "ahead", *RUNS, *ENDS)
    return together(folder, {2: of_two, 4: ("two_by_two",)})


LIMITS = {"metric": 1e-5, "logprob": 1e-6, "entropy": 1e-6, "weight": 1e-6, "exp_avg ": 1e-7}
"""Largest difference; a first moment is a tenth of the gradient, which has been clipped to norm 1."""


def largest_gap(one: dict[str, Tensor], other: dict[str, Tensor], kind: str) -> float:
    assert one.keys() == other.keys()
    names = [name for name in one if name.startswith(kind) and name not in SPLIT]
    return max(float((one[name] - other[name]).abs().max()) for name in names)


@pytest.mark.parametrize("job", UPDATES)
def test_an_update_is_that_of_one_process(alone: Found, two: Found, job: str) -> None:
    assert float(alone[job]["metric actor/grad_norm"]) > 0.1, "there is something to learn"
    for kind, limit in LIMITS.items():
        assert largest_gap(alone[job], two[job], kind) < limit, kind


def test_half_precision_is_rounded_as_in_one_process(alone: Found, two: Found) -> None:
    """Both round the same parameters; how micro-batches are made moves sums of bfloat16 by their last bit, 2^-8."""
    for kind in ("logprob", "entropy"):
        assert largest_gap(alone["bf16"], two["bf16"], kind) < 0.05
    assert largest_gap(alone["bf16"], two["bf16"], "exp_avg ") < 0.01


def test_a_checkpoint_comes_back_bit_for_bit(two: Found) -> None:
    for name, value in two["resumed"].items():
        assert torch.equal(value, two["saved"][name]), name


@pytest.mark.parametrize(("size", "job"), [(2, "saved"), (4, "two_by_two")])
def test_one_process_goes_on_from_the_checkpoint_of_several(folder: Path, two: Found, size: int, job: str) -> None:
    found = resumed(ALONE, folder / str(size))
    assert found.keys() == two["resumed"].keys()
    for name, value in found.items():
        assert torch.equal(value, two[job][name]), name


def test_two_go_on_from_the_checkpoint_of_one_process(alone: Found, two: Found) -> None:
    for name, value in two["from_one"].items():
        assert torch.equal(value, alone["saved"][name]), name


@pytest.mark.parametrize("benchmark", RUNS)
def test_a_run_on_another_benchmark_is_that_of_one_process(folder: Path, two: Found, benchmark: str) -> None:
    """ALFWorld's is in tests/e2e/test_ranks.py."""
    alone = folder / f"{benchmark}-alone"
    train(load(run_words(benchmark)), alone)
    assert_same_rows(alone, folder / benchmark)


@pytest.mark.parametrize(("job", "code"), [("refused", 2), ("first_batch", 3), ("health_stop", 3)])
def test_what_the_first_ends_by_ends_all_with_its_exit_code(folder: Path, two: Found, job: str, code: int) -> None:
    """And is said once. A rank that raised alone would leave the other waiting."""
    assert two[job]["code"].tolist() == [code, code]
    assert two[job]["is_silent"].tolist() == [False, True]
    saved = [path.name for path in (folder / job).glob("checkpoints/*")]
    assert saved == (["step-000001"] if job == "health_stop" else [])


def test_four_ranks_in_two_copies(alone: Found, two: Found) -> None:
    for kind, limit in LIMITS.items():
        assert largest_gap(alone["empg"], two["two_by_two"], kind) < limit, kind


def test_two_ranks_agree_on_groups_that_go_on_over_updates(two: Found) -> None:
    """What happens is told in tests/support/ahead_ranks.py, where all that the ranks have is compared too."""
    found = {name: value.tolist() for name, value in two["ahead"].items()}
    assert found == {
        "trained 0": [0, 0, 1, 1],
        "trained 1": [4, 4, 5, 5],
        "trained 2": [6, 6, 7, 7],
        "stale 0": 0,
        "stale 1": 0,
        "stale 2": 1,
        "episodes": 14,
        "revived": [1, 1],
        "times group 2 was begun": [2, 0],
        "begun by 0": [0, 2, 4, 6],
        "begun by 1": [1, 3, 5, 7],
        "signals": [15, 15],
    }
