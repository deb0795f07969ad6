"""The model of updates on many GPUs (scripts/scale): arithmetic by hand, what is conserved, what must not happen."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from empg_cli.planning.shapes import Shape
from scripts.scale.calibration import Link, check_table, fitted, predicted
from scripts.scale.case import PARTS, Case
from scripts.scale.cases import colocated, splits
from scripts.scale.costs import EngineCosts, Line, learning_of, sum_of_larger
from scripts.scale.hardware import H100, SOURCES, Machine, constants, gather_s
from scripts.scale.measured import of_bench
from scripts.scale.simulation import Simulation, simulate
from scripts.scale.workload import TRANSCRIPT, WINDOW, Context, Lengths, draw_group, longest_context, tail_factor

TINY = Shape(vocabulary=50, hidden=10, layers=1, heads=1, kv_heads=1, head_dim=10, mlp=20, is_tied=True)
"""1,020 parameters in its layer (4 x 100 + 3 x 200 + 2 x 10), 500 in its embedding, 10 in the last norm: 1,530."""

PLAIN = replace(
    H100,
    flops=1e6,
    scoring_share=1.0,
    learning_share=0.5,
    reading_share=1.0,
    bytes_per_s=1e6,
    memory=1e6,
    pass_s=1.0,
    sync_s=2.0,
    environment_s=0.5,
    overlap=0.0,
)
UNEVEN = Lengths(turns=6, answer=12, turn_spread=0.5, episode_spread=0.5, early=True, fewest=2)
SHORT = Context(append_only=True, opening=20, observation=5, window=0, cached=0)


def tiny(machine: Machine = PLAIN, **changes: object) -> Case:
    values: dict[str, object] = {"gpus": 1, "tasks": 1, "group_size": 2, "updates": 1} | changes
    lengths, context = values.pop("lengths", UNEVEN), values.pop("context", SHORT)
    return Case(TINY, machine, lengths, context, **values)  # type: ignore[arg-type]


def test_two_episodes_of_two_turns_by_hand() -> None:
    """Two episodes, 2 turns of 3 tokens each, opening 4, observation 2, one GPU of 1 MFLOP/s, memory of 1 MB/s.

    A token costs 2 x 1020 = 2040 FLOP and 4 x 10 = 40 for each column it sees; its logits 2 x 500 = 1000.
    Prefill 1: the opening, read once for both: 4 tokens that see 2 columns on average: 4 x (2040 + 80) = 8480 FLOP.
    Prefill 2: 2 observations of 2 tokens, seen columns 9 - 1 = 8: 4 x (2040 + 320) = 9440 FLOP.
    Decoding: 2 x (2040 + 1000) = 6080 FLOP a pass, and 40 x the columns of both; turn 1 begins with 8 columns, each
    pass adds 2: 8 + 10 + 12 = 30. Turn 2 begins with 2 x 9 = 18: 18 + 20 + 22 = 60. 6 passes: 36480 + 40 x 90 = 40080.
    The memory reads 2 x 1530 = 3060 bytes of weights and 40 a column, fewer than the products take: not counted.
    So playing takes 6 passes x 1 s + 0.5 s in the environment + (8480 + 9440 + 40080) / 1e6 = 6.558 s.
    Rows of 4 + 6 + 2 = 12 tokens, 6 of them sampled: 12 x (2040 + 40 x 6) + 6 x 1000 = 27360 + 6000 FLOP each.
    Scoring 2 x 33360 / 1e6 = 0.06672 s. Learning (recompute): 2 x (4 x 27360 + 4 x 6000) / 0.5e6 = 0.53376 s, and
    the optimiser moves 30 x 1530 bytes: 0.0459 s. Sync 2 s.
    """
    even = Lengths(turns=2, answer=3, turn_spread=0, episode_spread=0)
    context = Context(append_only=True, opening=4, observation=2, window=0, cached=0)
    result = simulate(tiny(lengths=even, context=context))
    assert result.playing_s == pytest.approx(6.558)
    assert result.parts["decode"] == pytest.approx(6.04008)
    assert result.parts["prefill"] == pytest.approx(0.01792)
    assert result.parts["score"] == pytest.approx(0.06672)
    assert result.parts["learn"] == pytest.approx(0.53376 + 0.0459)
    assert result.parts["idle"] == pytest.approx(0.5)
    assert result.update_s == pytest.approx(6.558 + 0.06672 + 0.57966 + 2)


def test_the_slower_of_products_and_memory_counts_pass_by_pass() -> None:
    """Products 10, 11, 12, 13; memory 8, 10.5, 13, 15.5: the larger ones are 10 + 11 + 13 + 15.5."""
    products, memory = Line(10, 1), Line(8, 2.5)
    assert sum_of_larger(products, memory, 4) == sum_of_larger(memory, products, 4) == 49.5
    assert sum_of_larger(products, memory, 1) == 10


def test_a_gather_by_hand() -> None:
    """8 GB over 16 GPUs: 15/16 of it at 0.7 x 450 GB/s, or half of it over 8 adapters at 0.7 x 50 GB/s."""
    inside, border = 8 * 15 / 16 / (0.7 * 450), 4 / (8 * 0.7 * 50)
    assert gather_s(H100, 8e9, 16) == pytest.approx(max(inside, border))
    assert gather_s(H100, 8e9, 1) == 0


def test_rows_are_never_split_over_ranks() -> None:
    """Two rows on four ranks: the busiest has one of them, twice the mean."""
    took = learning_of([(12, 6), (12, 6)], TINY, PLAIN, 4)
    assert took.imbalance == pytest.approx(took.scoring + 0.53376 / 4)


@pytest.mark.parametrize("placement", ["colocated", "split"])
@pytest.mark.parametrize("staleness", [0, 1, 2])
@pytest.mark.parametrize("context", [SHORT, Context(False, 0, 0, window=30, cached=10)])
def test_nothing_is_lost_or_counted_twice(placement: str, staleness: int, context: Context) -> None:
    engine_gpus = None if placement == "colocated" else 2
    case = tiny(context=context, gpus=4, engine_gpus=engine_gpus, staleness=staleness, tasks=4, group_size=3, updates=6)
    simulation = Simulation(case)
    result = simulation.run()
    totals, engines = result.totals, simulation.engines
    kept = [group for group in simulation.groups if not group.is_dropped]
    episodes = [episode for group in simulation.groups for episode in group.episodes]
    ended = sum(episode.decoded for episode in episodes)
    given_up = sum(engine.lost for engine in engines)
    under_way = sum(engine.under_way(dropped=False) + engine.under_way(dropped=True) for engine in engines)
    assert sum(engine.decoded for engine in engines) == ended + given_up + under_way
    assert all(episode.decoded == sum(episode.answers[: episode.turn]) for episode in episodes)
    assert totals.trained == case.updates * case.tasks
    assert totals.dropped == len(simulation.groups) - len(kept)
    over = [group for group in kept if group.open == 0]
    assert totals.trained + len(simulation.finished) + len(simulation._learning) == len(over)
    assert sum(result.parts.values()) == pytest.approx(result.update_s)
    assert min(result.parts.values()) > -1e-9
    assert result.staleness <= staleness
    if staleness == 0:
        assert totals.dropped == 0 and result.staleness == 0


def test_stale_groups_are_dropped_where_episodes_are_uneven() -> None:
    wild = replace(UNEVEN, episode_spread=1.5)
    result = simulate(tiny(lengths=wild, gpus=4, engine_gpus=2, staleness=1, tasks=4, group_size=3, updates=12))
    assert result.dropped > 0


def test_going_on_over_updates_takes_less_time_than_waiting() -> None:
    waits, goes_on = (simulate(tiny(gpus=4, engine_gpus=2, staleness=n, tasks=4, updates=8, warm_up=2)) for n in (0, 1))
    assert goes_on.update_s < waits.update_s


@pytest.mark.parametrize("faster", ["bytes_per_s", "flops", "node_bytes_per_s", "network_bytes_per_s"])
def test_faster_hardware_never_slows(faster: str) -> None:
    slow = replace(PLAIN, pass_s=0.001, bytes_per_s=1e5, node_bytes_per_s=1e4, network_bytes_per_s=1e4)
    times = [
        simulate(
            tiny(replace(slow, **{faster: factor * getattr(slow, faster)}), gpus=4, engine_gpus=2, tasks=4)
        ).update_s
        for factor in (1, 2, 8)
    ]
    assert times[0] >= times[1] >= times[2]
    assert times[0] > times[2]


def test_the_same_seed_gives_the_same_run() -> None:
    case = tiny(gpus=4, engine_gpus=2, staleness=2, tasks=4, updates=6)
    assert simulate(case) == simulate(case)
    assert simulate(case).update_s != simulate(replace(case, seed=1)).update_s


def test_an_engine_without_room_says_so() -> None:
    with pytest.raises(ValueError, match="no room"):
        simulate(tiny(replace(PLAIN, memory=20_000)))


def test_more_episodes_than_there_is_room_for_wait() -> None:
    kv = EngineCosts(TINY, PLAIN, 1).kv_bytes
    size = kv * longest_context(UNEVEN, SHORT)
    tight = replace(PLAIN, memory=(14 * TINY.parameters + 2.5 * size) / 0.9)
    few, many = (simulate(tiny(machine, tasks=2, group_size=4)) for machine in (tight, PLAIN))
    assert few.playing_s > many.playing_s


def test_lengths_have_the_spreads_that_they_are_said_to_have() -> None:
    """The longest of 128 answers over their mean, 2.2; the longest of 128 episodes, 1.35."""
    answers, episodes = [], []
    for seed in range(20):
        groups = [draw_group(Lengths(), 8, number=number, version=0, seed=seed) for number in range(16)]
        drawn = [episode.answers for group in groups for episode in group.episodes]
        episodes.append(tail_factor([sum(each) for each in drawn]))
        answers.append(tail_factor([each[0] / sum(each) for each in drawn]))
    assert sum(episodes) / 20 == pytest.approx(1.35, abs=0.05)
    assert sum(answers) / 20 == pytest.approx(2.2, abs=0.2)


@pytest.mark.parametrize(
    ("model", "gpus", "context", "minutes"),
    [
        ("1.5B", 1, WINDOW, 15.3),
        ("1.5B", 1, TRANSCRIPT, 5.9),
        ("1.5B", 8, WINDOW, 2.8),
        ("1.5B", 8, TRANSCRIPT, 1.6),
        ("7B", 8, WINDOW, 7.9),
        ("7B", 8, TRANSCRIPT, 3.4),
        ("32B", 16, WINDOW, 16.1),
        ("32B", 16, TRANSCRIPT, 5.9),
        ("32B", 32, WINDOW, 9.3),
        ("32B", 32, TRANSCRIPT, 4.2),
    ],
)
def test_it_agrees_with_the_model_on_paper(model: str, gpus: int, context: Context, minutes: float) -> None:
    """Sums with a straggler factor, made before this model and apart from it; a factor of two is what they promise.
    Both share their assumptions about the GPU, so this says nothing about a real one."""
    case = colocated(model, context, gpus)
    assert case is not None
    result = simulate(replace(case, updates=1))
    assert minutes / 1.3 < result.update_s / 60 < 1.3 * minutes


def test_what_does_not_fit_is_no_case() -> None:
    assert colocated("7B", WINDOW, 1) is None
    assert colocated("32B", WINDOW, 8) is None
    case = colocated("32B", WINDOW, 16)
    assert case is not None and [split.engine_gpus for split in splits(case)] == [4]


def test_every_constant_has_a_source() -> None:
    assert {row[0] for row in constants(H100)} == set(SOURCES)


def bench(one: tuple[str, str, str], two: tuple[str, str, str]) -> dict[str, object]:
    rows = [[name, *pair, "1.0"] for name, *pair in zip(("rollout", "logprob", "update"), one, two, strict=True)]
    title = "An update of 30 million parameters: 64 episodes of 6 turns, wall seconds"
    facts = {"command": "python scripts/bench/ranks.py --hidden 512"}
    return {"facts": facts, "tables": [{"title": title, "rows": rows}]}


def test_a_fitted_machine_gives_back_what_it_was_fitted_to() -> None:
    measured = of_bench(bench(("2.50", "1.10", "4.20"), ("1.60", "0.70", "2.40")))
    machine = fitted(measured[1], Link())
    assert predicted(measured[1], machine, 1, cores=2) == pytest.approx(measured[1].seconds, rel=1e-6)
    two, four = (predicted(measured[1], machine, ranks, cores=2) for ranks in (2, 4))
    assert all(measured[1].seconds[phase] / 2 <= two[phase] < measured[1].seconds[phase] for phase in two)
    assert sum(four.values()) > sum(two.values()), "no cores are left, and more is moved"
    table = check_table(measured, machine, Link())
    assert [row[0] for row in table.rows][:5] == ["1, rollout", "1, logprob", "1, update", "1, all three", "2, rollout"]
    error = float(table.rows[-1][3].rstrip("%"))
    assert error == pytest.approx(100 * (sum(two.values()) / 4.7 - 1), abs=0.6)


def test_the_command_checks_run_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from scripts.scale.measured import of_folders

    config = {
        "model": {
            "name": "tiny-scratch",
            "init": "scratch",
            "path": None,
            "prompt": "compact",
            "dtype": "float32",
            "param_dtype": "float32",
            "gradient_checkpointing": False,
            "arch": {"hidden_size": 64, "num_layers": 2, "num_heads": 2, "num_kv_heads": 2, "mlp_size": 128},
            "lora": {"rank": 0, "alpha": 32.0, "targets": None},
        },
        "benchmark": {"name": "alfworld"},
        "algo": {"group_size": 4},
        "rollout": {"context": "transcript"},
        "trainer": {"tasks_per_update": 2, "tokens_per_microbatch": 4096},
    }
    for ranks in (1, 2):
        folder = tmp_path / str(ranks)
        folder.mkdir()
        (folder / "config.yaml").write_text(json.dumps(config))
        row = {"episode/length/mean": 4.0, "response_length/mean": 3.4, "perf/shared": 0.5}
        row |= {f"timing_s/{phase}": 1.0 / ranks for phase in ("rollout", "logprob", "update")}
        rows = [row | {"update": update} for update in (1, 2, 3)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    measured = of_folders(tmp_path)
    assert list(measured) == [1, 2]
    assert measured[1].lengths.turns == 4 and measured[1].microbatch == 8192
    print(check_table(measured, fitted(measured[1], Link()), Link()).markdown())
    assert "| 2, all three |" in capsys.readouterr().out


def test_parts_are_named_once() -> None:
    assert set(simulate(tiny()).parts) == set(PARTS)
