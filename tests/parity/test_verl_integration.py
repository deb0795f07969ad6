"""EMPG inside verl, up to where GPUs begin: verl's own queue, rows, padding, registries and configuration.

`make parity` runs this file, in an environment with verl 0.9.1. The queue is verl's TransferQueue on a local Ray. Not
run: the passes of the model, verl's servers and its update; the old log-probs' entropies are put where verl puts them.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import date
from importlib.metadata import entry_points
from itertools import chain
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from empg_cli.algorithms.assemble import compute_credit
from empg_cli.benchmarks import make_benchmark
from empg_cli.config.schema import TrainConfig
from empg_cli.errors import UserError
from empg_cli.integrations.verl import STEPS, handover
from empg_cli.integrations.verl.words import refused, words
from empg_cli.model.batch import make_batch
from empg_cli.model.loading import packaged_agent
from empg_cli.types import Trajectory
from tests.support.tiny import tiny_agents, tiny_config, tiny_policy, tiny_rollout

pytest.importorskip("verl.trainer.ppo.v1", reason="verl is not installed: make parity", exc_type=ImportError)

import ray
import transfer_queue as tq
import verl
from tensordict import TensorDict
from verl.experimental.agent_loop.agent_loop import DictConfigWrap, _agent_loop_registry
from verl.trainer.ppo.core_algos import get_adv_estimator_fn
from verl.trainer.ppo.padding_utils import upsample_batch_to_divisible_size
from verl.trainer.ppo.v1 import AgentLoopWorkerTQ, PPOTrainerSync, get_trainer_cls
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.utils.config import omega_conf_to_dataclass, validate_config
from verl.utils.dataset.rl_dataset import RLHFDataset
from verl.workers.rollout.replica import TokenOutput

from empg_cli.integrations.verl.agent_loop import EmpgAgentLoop, EpisodeFailed, outputs
from empg_cli.integrations.verl.trainer import EmpgTrainer, empg_advantage

CONFIGS = Path(verl.__file__).parent / "trainer" / "config"
GAMES = (
    "benchmark.train_games=4",
    "trainer.tasks_per_update=4",
    "benchmark.eval_tasks=2",
    "trainer.lr_schedule=constant",
)
TODAY = date(2026, 3, 1)


def composed(overrides: Sequence[str]) -> DictConfig:
    with hydra.initialize_config_dir(str(CONFIGS), version_base=None):
        return hydra.compose("ppo_trainer", list(overrides))


def handed_over(cfg: TrainConfig, folder: Path) -> DictConfig:
    handover.write(cfg, folder)
    return composed(handover.overrides(words(cfg), TODAY, str(folder)))


# --- registries ----------------------------------------------------------------------------------


def test_verl_finds_all_three_by_name_through_the_entry_point() -> None:
    (point,) = (point for point in entry_points(group="verl.plugins") if point.name == "empg")
    assert point.value == "empg_cli.integrations.verl.plugin"
    alone = (
        "import verl; from verl.trainer.ppo.v1 import get_trainer_cls as t; "
        "from verl.trainer.ppo.core_algos import get_adv_estimator_fn as e; "
        "from verl.experimental.agent_loop.agent_loop import _agent_loop_registry as a; "
        "print(t('empg').__name__, e('empg').__name__, a['empg']['_target_'])"
    )
    shown = subprocess.run([sys.executable, "-c", alone], capture_output=True, text=True, check=True).stdout
    name = "empg_cli.integrations.verl.agent_loop.EmpgAgentLoop"
    assert shown.split()[-3:] == ["EmpgTrainer", "empg_advantage", name]
    assert get_trainer_cls("empg") is EmpgTrainer and get_adv_estimator_fn("empg") is empg_advantage


# --- the trainer's hook --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def queue() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False)
        tq.init()
        yield
        tq.close()
        ray.shutdown()


def worker() -> Any:
    """verl's own, as far as it stores what an agent loop returns."""
    made = object.__new__(AgentLoopWorkerTQ.__ray_metadata__.modified_class)
    made.reward_loop_worker_handles, made.processor, made.distillation_enabled = None, None, False
    return made


def stored(
    played: Sequence[Trajectory], *, append_only: bool, partition: str, multiple: int, seed: int, noted: bool = True
) -> Any:
    """A batch as verl's trainer has it after the pass for the old log-probs: shuffled, padded to a multiple."""
    for one in played:
        rows = list(outputs(one, append_only=append_only, seconds=0.0))
        if not noted:
            for row in rows:
                del row.extra_fields[STEPS]
        fields = {"uid": f"uid{one.group}", "session_id": one.index, "global_steps": 1, "raw_prompt": [], "index": 0}
        asyncio.run(worker()._agent_loop_postprocess(rows, partition == "val", **fields))
    tags = tq.kv_list("train")["train"]
    keys = sorted(tags)
    random.Random(seed).shuffle(keys)
    batch = tq.KVBatchMeta(partition_id="train", keys=keys, tags=[tags[key] for key in keys])
    batch = upsample_batch_to_divisible_size(batch, multiple, eos_token_id=0)
    entropies = {
        f"uid{one.group}_{one.index}_{0 if append_only else number}": one.steps if append_only else [step]
        for one in played
        for number, step in enumerate(one.steps)
    }
    masks = tq.kv_batch_get(keys=batch.keys, partition_id="train", select_fields=["response_mask"])["response_mask"]
    nested = []
    for key, mask in zip(batch.keys, masks.unbind(), strict=True):
        entropy = torch.full(mask.shape, 7.0)  # of tokens that nobody sampled: must not be read
        if key in entropies:
            entropy[mask.bool()] = torch.tensor([of for step in entropies[key] for of in step.entropies])
        nested.append(entropy)
    entropy = torch.nested.as_nested_tensor(nested, layout=torch.jagged)
    fields = TensorDict({"entropy": entropy, "old_log_probs": -entropy}, batch_size=len(batch))
    tq.kv_batch_put(keys=batch.keys, partition_id="train", fields=fields)
    return batch


@pytest.fixture
def partition(queue: None) -> Iterator[str]:
    yield "train"
    if left := tq.kv_list("train").get("train"):
        tq.kv_clear(keys=list(left), partition_id="train")


@pytest.mark.parametrize("context", ["window", "transcript"])
@pytest.mark.parametrize("algo", ["empg", "dapo_empg", "gigpo_empg"])
def test_the_hook_gives_every_token_our_credit(context: str, algo: str, partition: str, tmp_path: Path) -> None:
    extra = ("algo.loss.weighting=token",) if algo == "gigpo_empg" else ()
    cfg = tiny_config(*GAMES, f"rollout={context}", f"algo={algo}", *extra, "benchmark.invalid_action_penalty=0.1")
    played = tiny_rollout(cfg, tiny_policy(cfg), tasks=3, group_size=3)
    for number, one in enumerate(played):  # random players seldom win
        one.steps = one.steps[: 1 + number % 4]
        one.steps[-1].reward += 10.0 * (number % 3 == 0)
    append_only = context == "transcript"
    batch = stored(played, append_only=append_only, partition=partition, multiple=8, seed=len(algo))
    trainer = EmpgTrainer(handed_over(cfg, tmp_path / "folder"))
    metrics: dict[str, Any] = {}
    trainer._compute_advantage(batch, metrics)

    credit_S, ours = compute_credit(cfg.algo, make_batch(played, append_only=append_only))
    credit = iter(credit_S.tolist())
    expected = {}
    for one in played:
        row: list[float] = []
        for number, step in enumerate(one.steps):
            row = [] if not append_only else row + [0.0] * (len(step.prompt_ids) if number else 0)
            row += [next(credit)] * len(step.response_ids)
            expected[f"uid{one.group}_{one.index}_{0 if append_only else number}"] = row
    found = tq.kv_batch_get(keys=batch.keys, partition_id="train", select_fields=["advantages", "returns"])
    assert len(batch) % 8 == 0 and len(batch) > len(expected)
    apart = 0.0
    for key, advantage, returned in zip(
        batch.keys, found["advantages"].unbind(), found["returns"].unbind(), strict=True
    ):
        row = torch.tensor(expected.get(key, [0.0]))  # padding: one token that nobody sampled
        assert advantage.shape == row.shape and torch.equal(advantage, returned)
        apart = max(apart, float((advantage - row).abs().max()))
    print(f"largest difference {apart:.1e}")
    assert apart <= 1e-6 and credit_S.abs().max() > 0.1
    assert metrics["empg/step_entropy/mean"] == pytest.approx(ours["empg/step_entropy/mean"], abs=1e-6)


def test_an_agent_loop_of_others_gets_the_same_where_only_the_end_is_rewarded(partition: str, tmp_path: Path) -> None:
    cfg = tiny_config(*GAMES, "rollout=transcript")
    played = tiny_rollout(cfg, tiny_policy(cfg), tasks=2, group_size=3)
    for number, one in enumerate(played):
        for step in one.steps:
            step.reward = step.penalty = 0.0
        one.steps[-1].reward = float(number % 2)
    batch = stored(played, append_only=True, partition=partition, multiple=4, seed=0, noted=False)
    EmpgTrainer(handed_over(cfg, tmp_path / "folder"))._compute_advantage(batch, {})
    credit_S, _ = compute_credit(cfg.algo, make_batch(played, append_only=True))
    found = tq.kv_batch_get(keys=batch.keys, partition_id="train", select_fields=["advantages"])["advantages"]
    last = dict(zip(batch.keys, (float(row[-1]) for row in found.unbind()), strict=True))
    ends = torch.tensor([len(one.steps) for one in played]).cumsum(0) - 1
    assert [last[f"uid{one.group}_{one.index}_0"] for one in played] == pytest.approx(credit_S[ends].tolist(), abs=1e-6)


def test_verl_trains_in_its_synchronous_way_under_our_name(tmp_path: Path) -> None:
    """Its base class asks for the name "sync" in six places; under another it would be asynchronous in parts."""
    trainer = EmpgTrainer(handed_over(tiny_config(*GAMES), tmp_path / "folder"))
    assert isinstance(trainer, PPOTrainerSync)
    assert trainer.trainer_mode == "sync" and type(trainer.replay_buffer) is ReplayBuffer


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("algorithm.adv_estimator=grpo", "algorithm.adv_estimator must be empg"),
        ("algorithm.use_kl_in_reward=true", "use_kl_in_reward must be false"),
        ("algorithm.rollout_correction.bypass_mode=true", "bypass_mode must be false"),
        ("reward.reward_model.enable=true", "the environment rewards"),
        ("trainer.v1.empg.config=nowhere.yaml", "nowhere.yaml"),
        ("~trainer.v1.empg", "run.sh of `empg verl"),
    ],
)
def test_what_credit_cannot_be_computed_with_is_refused(word: str, says: str, tmp_path: Path) -> None:
    cfg = tiny_config(*GAMES)
    handover.write(cfg, tmp_path / "folder")
    given = handover.overrides(words(cfg), TODAY, str(tmp_path / "folder"))
    if word.startswith("~"):
        given = [one for one in given if not one.startswith("+")]
    with pytest.raises(UserError, match=says):
        EmpgTrainer(composed([*given, *([] if word.startswith("~") else [word])]))


def test_the_estimator_alone_says_that_it_is_given_too_little() -> None:
    with pytest.raises(UserError, match=r"needs trainer\.v1\.trainer_mode=empg"):
        empg_advantage(torch.zeros(2, 3), torch.ones(2, 3), index=["a", "a"], config=None)


def test_rewards_that_verl_has_changed_are_refused(partition: str, tmp_path: Path) -> None:
    cfg = tiny_config(*GAMES, "rollout=transcript")
    played = tiny_rollout(cfg, tiny_policy(cfg), tasks=1, group_size=2)
    batch = stored(played, append_only=True, partition=partition, multiple=1, seed=0)
    scores = tq.kv_batch_get(keys=batch.keys, partition_id="train", select_fields=["rm_scores"])["rm_scores"]
    changed = torch.nested.as_nested_tensor([row + 1 for row in scores.unbind()], layout=torch.jagged)
    tq.kv_batch_put(keys=batch.keys, partition_id="train", fields=TensorDict({"rm_scores": changed}, len(batch)))
    with pytest.raises(UserError, match="rewards as the environment gives them"):
        EmpgTrainer(handed_over(cfg, tmp_path / "folder"))._compute_advantage(batch, {})


# --- the agent loop ------------------------------------------------------------------------------


class GreedyServers:
    """What verl's servers answer, by the plainest loop there is: the most likely token, until a stop or the limit."""

    def __init__(self, model: Any) -> None:
        self.model, self.asked = model, []

    async def generate(self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any]) -> TokenOutput:
        self.asked.append((request_id, sampling_params))
        ids, logprobs = list(prompt_ids), []
        while len(logprobs) < sampling_params["max_tokens"]:
            with torch.no_grad():
                scores = self.model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
            ids.append(int(scores.argmax()))
            logprobs.append(float(scores.max()))
            if ids[-1] in sampling_params["stop_token_ids"]:
                break
        told = {"global_steps": 3, "min_global_steps": 3, "max_global_steps": 3}
        return TokenOutput(token_ids=ids[len(prompt_ids) :], log_probs=logprobs, extra_fields=told)


def looped(config: DictConfig, servers: Any, tokenizer: Any, info: dict[str, Any]) -> list[Any]:
    """As verl's worker makes an agent loop and runs it."""
    loop = hydra.utils.instantiate(
        _agent_loop_registry["empg"],
        trainer_config=DictConfigWrap(config),
        server_manager=servers,
        tokenizer=tokenizer,
        processor=None,
        dataset_cls=RLHFDataset,
        data_config=DictConfigWrap(config.data),
        hf_model_type="qwen2",
        tools=None,
    )
    assert type(loop) is EmpgAgentLoop
    params = {"temperature": 0.0, "top_p": 1.0, "top_k": -1, "repetition_penalty": 1.0, "logprobs": True}
    return asyncio.run(loop.run(params, extra_info=info, session_id=0, uid="u", raw_prompt=[]))


@pytest.mark.parametrize("context", ["window", "transcript"])
def test_the_loop_plays_what_our_own_rollout_plays(context: str, tmp_path: Path) -> None:
    cfg = tiny_config(*GAMES, f"rollout={context}", "benchmark.max_steps=30", model=["model=tiny"])
    policy = tiny_policy(cfg)
    config = handed_over(cfg, tmp_path / "folder")
    dataset = RLHFDataset([str(tmp_path / "folder" / "train.parquet")], policy.tokenizer, config.data)
    ours = tiny_rollout(cfg, policy, tasks=4, group_size=1, temperature=0.0)
    assert len(dataset) == 4 and dataset[0]["agent_name"] == "empg"
    for number, expected in enumerate(ours):
        servers = GreedyServers(policy.model)
        rows = looped(config, servers, policy.tokenizer, dataset[number]["extra_info"])
        steps = [noted for row in rows for noted in row.extra_fields[STEPS]]
        assert [noted["observation"] for noted in steps] == [step.observation for step in expected.steps]
        assert [noted["reward"] for noted in steps] == pytest.approx([step.reward for step in expected.steps])
        assert {row.reward_score for row in rows} == {expected.reward}
        whole = [(row.prompt_ids + row.response_ids) for row in rows]
        read = [step.prompt_ids + step.response_ids for step in expected.steps]
        assert whole == (read if context == "window" else [list(chain.from_iterable(read))])
        for row in rows:
            sampled = [
                of for of, is_sampled in zip(row.response_logprobs, row.response_mask, strict=True) if is_sampled
            ]
            steps_of = expected.steps if context == "transcript" else [expected.steps[rows.index(row)]]
            assert sampled == pytest.approx([of for step in steps_of for of in step.logprobs], abs=1e-4)
        told = rows[-1].extra_fields
        assert told["reward_extra_info"]["acc"] == float(expected.success)
        assert (told["min_global_steps"], told["max_global_steps"]) == (3, 3)
        stops = tuple(tiny_agents(cfg, policy)().codec.stop_ids)
        assert len({name for name, _ in servers.asked}) == 1
        assert {tuple(params["stop_token_ids"]) for _, params in servers.asked} == {stops}
        assert {params["max_tokens"] for _, params in servers.asked} == {cfg.rollout.max_new_tokens}
    assert len(ours[0].steps) > 1 and (context == "window" or any(one.success for one in ours))


def test_an_episode_without_a_score_is_a_failed_session_of_verl(tmp_path: Path) -> None:
    class Silent:
        async def generate(self, **_: Any) -> TokenOutput:
            return TokenOutput(token_ids=[], stop_reason="aborted")

    cfg = tiny_config(*GAMES)
    config, policy = handed_over(cfg, tmp_path / "folder"), tiny_policy(cfg)
    task = make_benchmark(**cfg.benchmark.model_dump()).tasks("train")[0]
    info = {"index": 0, "split": "train", "task_id": task.task_id}
    with pytest.raises(EpisodeFailed, match="aborted"):
        looped(config, Silent(), policy.tokenizer, info)
    with pytest.raises(UserError, match="not what the dataset was written from"):
        looped(config, Silent(), policy.tokenizer, info | {"task_id": "another"})


# --- handing over --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        ["algo=empg"],
        ["algo=dapo_empg", "rollout=transcript"],
        ["algo=cispo", "model.lora.rank=8", "model.dtype=bfloat16", "trainer.lr_schedule=cosine"],
        ["algo=gspo", "rollout=transcript", "algo.loss.sequence=trajectory", "algo.loss.weighting=trajectory"],
        ["algo=dr_grpo", "rollout=transcript", "trainer.eval_every=0"],
        ["algo=empg", "algo.loss.importance_cap=2", "trainer.old_logprobs=recompute"],
        ["experiment=paper_7b", "algo=dapo_empg"],
    ],
    ids=" ".join,
)
def test_verl_accepts_every_word(given: list[str], tmp_path: Path) -> None:
    cfg = tiny_config(*GAMES, *given, model=["model=tiny"])
    assert not list(refused(cfg))
    config = composed(handover.overrides(words(cfg), TODAY, str(tmp_path)))
    for node in (config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout, config.algorithm):
        omega_conf_to_dataclass(node)
    if not cfg.model.lora.rank:  # of which it asks vLLM
        validate_config(config, use_reference_policy=cfg.algo.loss.kl_coef > 0, use_critic=False)
    assert config.trainer.v1.empg.config == f"{tmp_path}/empg.yaml"
    assert config.actor_rollout_ref.rollout.response_length == config.data.max_response_length


def test_a_key_that_verl_does_not_have_ends_the_command() -> None:
    with pytest.raises(hydra.errors.ConfigCompositionException):
        composed(["actor_rollout_ref.actor.zeta=1"])


def test_the_script_gives_verl_its_words_from_any_folder(tmp_path: Path) -> None:
    folder, bin_ = tmp_path / "it's here, a=b", tmp_path / "bin"
    handover.write(tiny_config(*GAMES, model=["model=tiny"]), folder)
    bin_.mkdir()
    fake = bin_ / "python3"
    fake.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$VERL_USE_EXTERNAL_MODULES" "$@"\n')
    fake.chmod(0o755)
    env = os.environ | {"PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}"}
    shown = subprocess.run(
        [folder / "run.sh", "trainer.nnodes=2"], capture_output=True, text=True, env=env, check=True, cwd="/"
    )
    plugin, flag, module, *given = shown.stdout.splitlines()
    assert (plugin, flag, module) == ("empg_cli.integrations.verl.plugin", "-m", "verl.trainer.main_ppo")
    config = composed(given)
    assert config.data.train_files == f"{folder}/train.parquet" and config.trainer.nnodes == 2
    assert config.actor_rollout_ref.model.path == str(packaged_agent("alfworld"))
    assert OmegaConf.load(config.trainer.v1.empg.config).benchmark.name == "alfworld"
