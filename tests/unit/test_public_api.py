"""The Python names that notebooks and other trainers may rely on (docs/examples.md); they stay."""

from __future__ import annotations

import inspect

import pytest
import torch

from empg_cli import config
from empg_cli.algorithms.advantages import group_relative, leave_one_out
from empg_cli.algorithms.empg import future_clarity, gradient_scale, modulate, normalise_entropy, step_entropy
from empg_cli.algorithms.kl import kl_estimate
from empg_cli.algorithms.losses import clipped_surrogate
from empg_cli.benchmarks import make_benchmark
from empg_cli.loop import RunSummary, train
from empg_cli.model.scoring import logprob_and_entropy
from empg_cli.runs.reading import RunFolder, open_runs
from empg_cli.stats.intervals import t_interval, wilson_interval
from empg_cli.stats.paired import PairedDifference, holm, paired_difference, pairs_for_p


def test_empg_by_its_public_names() -> None:
    # The vector of arXiv 2509.09265 as worked out in tests/golden/test_empg_golden.py, from token entropies on.
    entropy_ST = torch.tensor([[0.1, 0.3], [0.6, 0.0], [1.0, 0.0], [0.4, 0.4], [0.4, 0.0]])
    mask_ST = torch.tensor([[True, True], [True, False], [True, False], [True, True], [True, False]])
    entropy_S = step_entropy(entropy_ST, mask_ST)
    torch.testing.assert_close(entropy_S, torch.tensor([0.2, 0.6, 1.0, 0.4, 0.4]))
    next_S = torch.tensor([1, 2, -1, 4, -1])
    credit_S = modulate(torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0]), entropy_S, next_S)
    expected = torch.tensor([1.310409, 0.741472, 0.385238, -1.199090, -1.238030])
    torch.testing.assert_close(credit_S, expected, atol=1e-5, rtol=0)
    entropy01_S = normalise_entropy(entropy_S)
    assert gradient_scale(entropy01_S, 1.0).mean().item() == pytest.approx(1.0)
    assert future_clarity(entropy01_S, next_S, 1.0)[[2, 4]].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (modulate, ["advantage_S", "entropy_S", "next_S", "k", "k_future", "zeta", "center"]),
        (group_relative, ["reward_N", "group_N", "scale_by_std", "eps"]),
        (leave_one_out, ["reward_N", "group_N", "scale_by_std", "eps"]),
        (
            clipped_surrogate,
            ["logprob_ST", "old_logprob_ST", "advantage_S", "mask_ST", "clip_low", "clip_high", "num_tokens"],
        ),
        (kl_estimate, ["logprob", "ref_logprob", "kind"]),
        (logprob_and_entropy, ["hidden_TD", "weight_VD", "target_T", "temperature", "chunk"]),
        (config.load, ["overrides", "config_name"]),
        (train, ["cfg", "run_dir"]),
        (open_runs, ["paths"]),
        (wilson_interval, ["successes", "n", "confidence"]),
        (t_interval, ["values", "confidence"]),
        (paired_difference, ["treatment", "baseline", "confidence"]),
        (holm, ["p_values"]),
        (pairs_for_p, ["below", "tests"]),
    ],
)
def test_parameters_keep_their_names(function: object, names: list[str]) -> None:
    parameters = list(inspect.signature(function).parameters)  # type: ignore[arg-type]
    assert [name for name in parameters if name in names] == names


def test_what_comes_back_keeps_its_names() -> None:
    assert {"run_dir", "updates", "success_rate"} <= set(RunSummary.__dataclass_fields__)
    assert {"folder", "config", "facts", "rows"} <= set(RunFolder.__dataclass_fields__)
    assert all(hasattr(RunFolder, name) for name in ("seed", "title", "trajectories"))
    assert {"mean", "low", "high", "n", "test"} <= set(PairedDifference._fields)


def test_what_code_from_outside_is_made_with_stays_where_it_is() -> None:
    """docs/adding-a-benchmark.md; other people's files import these."""
    from empg_cli.agents.wording import Exchange, Form, Parsed, Wording
    from empg_cli.benchmarks.base import DataError, Observation, StepResult, UnscoredError
    from empg_cli.config.node import BenchmarkSettings, Node
    from empg_cli.observe.sinks import RunIdentity, Sink, SinkRun
    from empg_cli.types import Task

    fields = {"name", "data_dir", "split", "eval_tasks", "max_steps", "success_reward"}
    assert fields <= set(BenchmarkSettings.model_fields)
    assert issubclass(BenchmarkSettings, Node)
    assert {"folder", "identity", "config", "history"} == set(SinkRun.__dataclass_fields__)
    assert all((Exchange, Form, Parsed, Wording, DataError, Observation, StepResult, UnscoredError))
    assert all((RunIdentity, Sink, Task))


def test_a_benchmark_from_its_config() -> None:
    benchmark = make_benchmark(**config.load().benchmark.model_dump())
    assert set(benchmark.splits) == {"train", "valid_seen", "valid_unseen"}
    task = benchmark.tasks("valid_unseen")[0]
    assert task.split == "valid_unseen"
    env = benchmark.make_env(task)
    observation = env.reset()
    assert "Your task is to: " in observation.text
    for action in benchmark.expert(env):
        result = env.step(action)
    assert result.done and result.success and result.score == 1.0 and result.reward > 0
    assert benchmark.fingerprint()["source"] == "generated"
