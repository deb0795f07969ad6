"""EMPG inside TRL's own trainer: the credit of its conversations is ours to 1e-6, and a tiny agent learns by it.

`make parity` runs this file, in an environment with TRL 1.16.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from empg_cli import config
from empg_cli.algorithms.advantages import group_relative
from empg_cli.algorithms.assemble import compute_credit
from empg_cli.algorithms.empg import modulate, step_entropy
from empg_cli.learner.logprobs import score_batch
from empg_cli.model.batch import make_batch
from empg_cli.model.loading import load_folder
from tests.support.tool_calls import Rooms, save_tool_model

pytest.importorskip("trl", reason="TRL is not installed: make parity")
os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"  # of `environment_factory`
from trl import GRPOTrainer

from empg_cli.integrations.trl import EMPGTrainer
from tests.support.trl_runs import Seen, Watched, trainer, trajectories

ROOT = Path(__file__).parents[2]
TEMPERATURE = 0.7
KNOBS = {"k": 1.3, "k_future": 0.7, "zeta": 0.1, "center": True}
CREDIT = ["algo=empg", "trainer.device=cpu", *(f"algo.credit.{name}={value}" for name, value in KNOBS.items())]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.set_num_threads(1)
    return save_tool_model(tmp_path_factory.mktemp("trl") / "model")


def our_credit(seen: Seen, cfg, *, group_size: int, advantages=None):
    """Our credit of these conversations, token by token."""
    batch = make_batch(trajectories(seen, group_size=group_size), append_only=True)
    if advantages is None:
        credit_S, _ = compute_credit(cfg.algo, batch)
    else:
        advantage_S = advantages(batch.reward_N, batch.group_N)[batch.trajectory_S]
        credit_S = modulate(advantage_S, step_entropy(batch.entropy_ST, batch.mask_ST), batch.next_S, **KNOBS)
    credit = iter(credit_S.tolist())
    tokens = []
    for sampled, reward in zip(seen.sampled, seen.rewards, strict=True):
        row, current = torch.zeros(len(sampled)), 0.0
        for column, own in enumerate(sampled):
            if own and reward is not None:
                if column == 0 or not sampled[column - 1]:
                    current = next(credit)
                row[column] = current
        tokens.append(row)
    assert next(credit, None) is None, "every step of ours is a turn of TRL's"
    return tokens


def same(found, expected):
    difference = max((one - other).abs().max().item() for one, other in zip(found, expected, strict=True))
    size = max(row.abs().max().item() for row in expected)
    print(f"max difference {difference:.1e} of {size:.2f}")
    assert difference <= 1e-6 and size > 0.1


@pytest.fixture(scope="module")
def played(model, tmp_path_factory):
    """One update, in two micro-batches, over Dr. GRPO's advantages."""
    made = trainer(
        Watched, model, tmp_path_factory.mktemp("trl"), more=KNOBS, max_steps=1, temperature=TEMPERATURE,
        scale_rewards="none", per_device_train_batch_size=16, gradient_accumulation_steps=2,
    )  # fmt: skip
    made.train()
    return made


def test_the_credit_is_ours(played):
    """From rewards and token entropies on."""
    cfg = config.load([*CREDIT, "algo.advantage.scale_by_std=false"])
    same(played.seen.credit, our_credit(played.seen, cfg, group_size=16))


def test_the_entropies_are_our_policys(played, model):
    """From the same weights, at the sampling temperature, to what two ways of adding up in single precision leave."""
    batch = make_batch(trajectories(played.seen, group_size=16), append_only=True)
    policy = load_folder(str(model), dtype="float32", device=torch.device("cpu"))
    cfg = config.load(["trainer.device=cpu", f"rollout.temperature={TEMPERATURE}"])
    _, entropy_ST = score_batch(policy, batch, cfg)
    difference = (entropy_ST - batch.entropy_ST)[batch.mask_ST].abs().max().item()
    print(f"max difference {difference:.1e} of {entropy_ST.max():.2f} nats")
    assert difference <= 1e-5 and entropy_ST.max() > 0.5


def test_the_loss_is_that_of_the_credit(played):
    """It had the same rows, shuffled and dealt over the micro-batches. Ratios are 1, so it is minus their mean."""
    seen = played.seen
    assert sorted(played.learned) == sorted(zip(seen.completions, (row.tolist() for row in seen.credit), strict=True))
    mean = sum(row.sum().item() for row in seen.credit) / sum(map(sum, seen.sampled))
    assert played.state.log_history[0]["loss"] == pytest.approx(-mean, abs=1e-6)


def test_the_credit_is_ours_on_advantages_of_trl(model, tmp_path, monkeypatch):
    """GRPO's, over TRL's std; where an environment fails, its conversation counts nowhere."""
    step = Rooms.step
    monkeypatch.setattr(Rooms, "step", lambda self, action: step(self, "break" if action == "blue" else action))
    made = trainer(Watched, model, tmp_path, more=KNOBS, max_steps=1, seed=1)
    made.train()
    failed = [row for row, reward in enumerate(made.seen.rewards) if reward is None]
    assert 0 < len(failed) < 32
    expected = our_credit(
        made.seen,
        config.load(CREDIT),
        group_size=16,
        advantages=lambda reward_N, group_N: group_relative(reward_N, group_N, unbiased=True, eps=1e-4),
    )
    same(made.seen.credit, expected)
    assert all(made.seen.credit[row].count_nonzero() == 0 for row in failed)


@pytest.mark.slow
def test_two_processes_share_the_statistics(model, tmp_path):
    """Each has half of the conversations, and min, max, mean and centre are those of all."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(ROOT / "tests/support/trl_runs.py"), str(model), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    seen = Seen(**{name: [row for part in parts for row in part[name]] for name in parts[0]})
    assert len(seen.rewards) == 32
    cfg = config.load(["algo=empg", "algo.advantage.scale_by_std=false"])  # the paper's k, k_future and zeta, as there
    same(seen.credit, our_credit(seen, cfg, group_size=8))
    # Half of the batch alone would have other credit.
    half = Seen(**parts[0])
    alone = our_credit(half, cfg, group_size=8)
    assert max((one - other).abs().max() for one, other in zip(half.credit, alone, strict=True)) > 1e-3


def test_neutral_knobs_are_grpo(model, tmp_path):
    """k = 0, zeta = 0 and no centre: the losses of GRPOTrainer itself, step for step."""
    losses = []
    for kind, more in ((GRPOTrainer, {}), (EMPGTrainer, {"k": 0.0, "zeta": 0.0, "center": False})):
        made = trainer(kind, model, tmp_path / kind.__name__, more=more, max_steps=3)
        made.train()
        losses.append([(entry["loss"], entry["grad_norm"]) for entry in made.state.log_history if "loss" in entry])
    assert len(losses[0]) == 3 and any(norm > 0 for _, norm in losses[0])
    torch.testing.assert_close(torch.tensor(losses[1]), torch.tensor(losses[0]), atol=1e-6, rtol=1e-5)


def test_a_knob_out_of_range_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match=re.escape("zeta")):
        trainer(EMPGTrainer, model, tmp_path, more={"zeta": -0.1}, max_steps=1)


@pytest.mark.slow
def test_a_tiny_agent_learns(model, tmp_path):
    """From the form of a call to the doors that lead out: seed 0, 40 updates of 32 conversations."""
    made = trainer(EMPGTrainer, model, tmp_path, max_steps=40, seed=0)
    made.train()
    rewards = [entry["reward"] for entry in made.state.log_history if "reward" in entry]
    before, after = sum(rewards[:5]) / 5, sum(rewards[-5:]) / 5
    print(f"reward {before:.2f} -> {after:.2f}: {rewards}")
    assert after > before + 0.2
    weights = [entry["empg/weight/max"] for entry in made.state.log_history if "reward" in entry]
    assert all(weight > 1 for weight in weights)  # turns were told apart, update after update


def test_the_snippet_of_the_page_runs(model, tmp_path, monkeypatch):
    """docs/integrations.md, with one update of short conversations on a CPU."""
    page = (ROOT / "docs/integrations.md").read_text(encoding="utf-8")
    (snippet,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "integrations.trl" in block)
    here = "max_steps=1, logging_steps=1, use_cpu=True, bf16=False, report_to=[], save_strategy='no', disable_tqdm=True"
    snippet = snippet.replace("GRPOConfig(", f"GRPOConfig({here}, ").replace("length=8192", "length=256")
    monkeypatch.chdir(tmp_path)
    names = {"MODEL": str(model)}
    exec(compile(snippet, "docs/integrations.md", "exec"), names)
    (logged, *_) = names["trainer"].state.log_history
    assert {"reward", "rewards/success/mean", "empg/weight/max"} <= logged.keys()
