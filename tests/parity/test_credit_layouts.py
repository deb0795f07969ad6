"""The same episodes give the same credit in both contexts and on one or two ranks."""

import random
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import yaml

from empg_cli.algorithms.assemble import compute_credit
from empg_cli.algorithms.table import merge_tables, step_table
from empg_cli.config.algo import Algo
from empg_cli.model.batch import make_batch
from empg_cli.types import Step, Task, Trajectory

CONF = Path(__file__).parents[2] / "conf" / "algo"
NAMES = ["empg", "gigpo_empg", "hgpo_empg", "graphgpo_empg", "g2po_empg", "turn_credit_empg", "reinforce_pp"]


def algo(name):
    return Algo(**yaml.safe_load((CONF / f"{name}.yaml").read_text()))


def episodes(groups=4, size=3, seed=0):
    rng = random.Random(seed)
    played = []
    for group in range(groups):
        for index in range(size):
            steps = []
            for turn in range(rng.randint(1, 5)):
                response = [rng.randrange(50) for _ in range(rng.randint(1, 4))]
                steps.append(
                    Step(
                        prompt_ids=[rng.randrange(50) for _ in range(3)],
                        response_ids=response,
                        logprobs=[-rng.random() for _ in response],
                        entropies=[2 * rng.random() for _ in response],
                        observation=rng.choice(["hall", "kitchen"]) if turn else "start",
                        reward=rng.choice([0.0, 0.0, 1.0, -0.1]),
                        score=rng.random(),
                    )
                )
            won = rng.random() < 0.5
            played.append(Trajectory(Task(f"t{group}", "any", "train"), group, index, steps, success=won))
    return played


@pytest.mark.parametrize("name", NAMES)
def test_window_and_transcript_give_the_same_credit(name):
    played = episodes()
    window = make_batch(played, append_only=False)
    transcript = make_batch(played, append_only=True)
    assert len(window.row_ids) == window.num_steps > len(transcript.row_ids) == transcript.num_trajectories
    credit, metrics = compute_credit(algo(name), window)
    other, other_metrics = compute_credit(algo(name), transcript)
    assert torch.equal(credit, other)
    assert metrics == other_metrics


def credit_of_rank(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    played = episodes()
    # groups 0 and 1 live on rank 0, 2 and 3 on rank 1
    own = step_table(make_batch(played[:6] if rank == 0 else played[6:], append_only=False))
    tables = [None, None]
    dist.all_gather_object(tables, own)
    first = 0 if rank == 0 else len(tables[0].next_S)
    result = {}
    for name in NAMES:
        credit, metrics = compute_credit(algo(name), merge_tables(tables))
        result[name] = (credit[first : first + len(own.next_S)], metrics)
    torch.save(result, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_give_the_credit_of_one(tmp_path):
    mp.spawn(credit_of_rank, args=(str(tmp_path),), nprocs=2)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2)]
    whole = make_batch(episodes(), append_only=False)
    for name in NAMES:
        credit, metrics = compute_credit(algo(name), whole)
        torch.testing.assert_close(torch.cat([part[name][0] for part in ranks]), credit, atol=1e-7, rtol=0)
        assert ranks[0][name][1] == ranks[1][name][1] == pytest.approx(metrics)
