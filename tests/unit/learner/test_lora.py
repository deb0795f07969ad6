"""Adapters on frozen weights: what they compute, what trains, what is saved, and what the KL term compares with."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from empg_cli.benchmarks import make_benchmark
from empg_cli.config.problems import ConfigError
from empg_cli.config.schema import TrainConfig
from empg_cli.errors import DataError, UserError
from empg_cli.experiment import open_experiment
from empg_cli.learner.checkpoint import checkpoint_bytes
from empg_cli.learner.optim import make_optimizer
from empg_cli.learner.update import accumulate_gradient
from empg_cli.learner.warm_start import warm_start_key, warm_started
from empg_cli.model import decoder, lora
from empg_cli.model.batch import make_batch
from empg_cli.model.loading import ModelError, load_policy, load_to_play, model_fingerprint, packaged_agent, reloaded
from empg_cli.model.policy import Policy
from empg_cli.rollout.parity import check_parity
from empg_cli.types import Batch
from tests.support.chat import save_chat_model
from tests.support.made import made_trajectories
from tests.support.tiny import tiny_config

peft = pytest.importorskip("peft", reason="peft is not installed (pip install empg-cli[lora])")

CPU = torch.device("cpu")
TINY = ("model=tiny",)
LORA = ("model.lora.rank=4", "model.lora.alpha=8")
LAYERS, TARGETS = 3, ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def config(*overrides: str) -> TrainConfig:
    return tiny_config("algo.loss.kl_coef=0", *overrides, model=TINY)


def policy_of(*overrides: str, seed: int = 0) -> Policy:
    return load_policy(config(*overrides).model, "alfworld", seed=seed, device=CPU)


def filled(*overrides: str) -> Policy:
    """With an adapter that says something."""
    policy = policy_of(*LORA, *overrides)
    lora.fill(policy.trained)
    if policy.masters is not None:
        policy.masters.refresh()
    return policy


def made_batch() -> Batch:
    batch = make_batch(made_trajectories([2, 3, 1, 2]), append_only=True)
    batch.credit_S = torch.linspace(-1, 1, batch.num_steps)
    return batch


@torch.no_grad()
def scores(policy: Policy) -> Tensor:
    batch = made_batch()
    logprob_ST, entropy_ST = policy.score(
        batch, range(len(batch.row_ids)), torch.arange(batch.num_steps), temperature=1.0
    )
    return torch.cat([logprob_ST, entropy_ST])


def learn(policy: Policy, cfg: TrainConfig) -> None:
    optimizer = make_optimizer(policy, cfg.trainer)
    batch = made_batch()
    accumulate_gradient(policy, batch, torch.arange(batch.num_steps), cfg)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


# --- what it computes ---


def test_a_new_adapter_and_one_that_is_off_are_the_base_bit_for_bit() -> None:
    base = scores(policy_of())
    assert torch.equal(scores(policy_of(*LORA)), base)
    policy = filled()
    assert (scores(policy) - base).abs().max() > 0.01
    lora.switch_off(policy.model)
    assert torch.equal(scores(policy), base)


def test_it_is_the_product_that_the_paper_writes() -> None:
    """h = W x + alpha / r B A x (arXiv 2106.09685, equation 3), by hand on the weights themselves."""
    policy, plain = filled(), policy_of()
    own = dict(policy.model.named_parameters())
    for name, weight in plain.model.named_parameters():
        layer = name.removesuffix(".weight")
        if layer.rsplit(".", 1)[-1] in TARGETS and name.endswith(".weight"):
            product = own[f"{layer}.lora_B.default.weight"] @ own[f"{layer}.lora_A.default.weight"]
            weight.data += 8 / 4 * product
    torch.testing.assert_close(scores(policy), scores(plain), atol=1e-5, rtol=0)


def test_all_linear_layers_of_attention_and_mlp_get_one_unless_some_are_named() -> None:
    def adapted(policy: Policy) -> set[str]:
        names = {name.split(".lora_")[0] for name, _ in policy.model.named_parameters() if ".lora_" in name}
        return {name.removeprefix("model.layers.") for name in names}

    assert {name.rsplit(".", 1)[-1] for name in adapted(policy_of(*LORA))} == set(TARGETS)
    assert len(adapted(policy_of(*LORA))) == LAYERS * len(TARGETS)
    some = adapted(policy_of(*LORA, "model.lora.targets=[q_proj,v_proj]"))
    assert some == {f"{n}.self_attn.{name}" for n in range(LAYERS) for name in ("q_proj", "v_proj")}


@pytest.mark.parametrize(
    ("targets", "said"),
    [("[qproj]", r"model.lora.targets=\['qproj'\] cannot be used: Target modules .* not found"),
     ("[q_proj,k_prj]", "no layer of this model is called k_prj"),
     ("[q_proj,lm_head]", "lm_head lies outside of the layers"),
     ("[embed_tokens]", "model.embed_tokens lies outside of the layers")],
)  # fmt: skip
def test_targets_that_are_not_computed_are_refused(targets: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        policy_of(*LORA, f"model.lora.targets={targets}")


@pytest.mark.parametrize(
    ("words", "said"),
    [(["model.lora.targets=[q_proj]"], "model.lora.targets: is not read when rank=0"),
     (["model=tiny-scratch", "model.lora.rank=4"], "model.lora.rank: must be 0 when init=scratch"),
     (["model.lora.rank=4", "model.lora.alpha=0"], "alpha"),
     (["model.lora.rank=4", "model.lora.targets=[]"], "targets")],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        tiny_config(*words, model=TINY)


# --- what trains ---


def test_gradients_reach_all_of_the_adapter_and_nothing_else() -> None:
    policy = filled()
    assert len(policy.parameters()) == 2 * LAYERS * len(TARGETS)
    accumulate_gradient(policy, made_batch(), torch.arange(8), config())
    for name, parameter in policy.model.named_parameters():
        if ".lora_" in name:
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
        else:
            assert parameter.grad is None and not parameter.requires_grad, name


def test_a_step_changes_the_adapter_alone() -> None:
    policy = policy_of(*LORA)
    before = {name: weight.clone() for name, weight in policy.model.state_dict().items()}
    learn(policy, config("trainer.lr=1e-2"))
    after = policy.model.state_dict()
    moved = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert moved == {name for name in after if ".lora_B." in name}  # with B = 0 the gradient of A is 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_adapter_is_kept_in_float32_and_the_base_once_in_the_compute_type(dtype: str) -> None:
    policy = policy_of(*LORA, f"model.dtype={dtype}")
    assert {parameter.dtype for parameter in policy.parameters()} == {torch.float32} == {policy.param_dtype}
    assert {parameter.dtype for parameter in policy.model.parameters()} == {getattr(torch, dtype)} == {policy.dtype}
    trained, computing = dict(policy.trained.named_parameters()), dict(policy.model.named_parameters())
    assert all(trained[name] is computing[name] for name in trained if ".lora_" not in name)
    before = scores(policy)
    for _ in range(2):
        learn(policy, config("trainer.lr=1e-2"))
    assert not torch.equal(scores(policy), before)


def test_checkpointed_layers_have_the_same_gradient() -> None:
    gradients = []
    for asked in (False, True):
        policy = filled(f"model.gradient_checkpointing={str(asked).lower()}")
        calls: list[int] = []
        for number, layer in enumerate(policy.model.model.layers):
            layer.input_layernorm.register_forward_pre_hook(lambda *_, n=number, c=calls: c.append(n))
        policy.model.train()
        accumulate_gradient(policy, made_batch(), torch.arange(8), config("trainer.tokens_per_microbatch=100000"))
        assert sorted(calls) == sorted([*range(LAYERS)] * (2 if asked else 1))
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in policy.parameters()]))
    assert gradients[0].abs().max() > 1e-4
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-7, rtol=1e-5)


# --- what the KL term compares with ---


def test_the_reference_is_the_base_with_the_adapter_off_and_takes_no_memory() -> None:
    policy, base = policy_of(*LORA), scores(policy_of())
    reference = policy.frozen_copy()
    assert not any(layer.disable_adapters for _, layer in lora._layers(policy.model))
    own = dict(policy.model.named_parameters())
    for name, parameter in reference.model.named_parameters():
        assert (parameter is own[name]) == (".lora_" not in name)
        assert not parameter.requires_grad
    for _ in range(2):
        learn(policy, config("trainer.lr=1e-2"))
    assert torch.equal(scores(reference), base)
    assert not torch.equal(scores(policy), base)


def test_after_a_warm_start_the_reference_is_the_adapter_that_it_made() -> None:
    policy = filled()
    warm = scores(policy)
    reference = policy.frozen_copy()
    learn(policy, config("trainer.lr=1e-2"))
    assert torch.equal(scores(reference), warm)
    assert not torch.equal(scores(policy), warm)


# --- what is saved ---


def test_a_checkpoint_is_the_adapter_alone_and_peft_reads_it(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    policy = filled()
    policy.save(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {
        "adapter_model.safetensors", "adapter_config.json", "base.json", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    numbers = sum(parameter.numel() for parameter in policy.parameters())
    assert (tmp_path / "adapter_model.safetensors").stat().st_size < 4 * numbers + 10_000
    assert checkpoint_bytes(policy, make_optimizer(policy, config().trainer)) == 12 * numbers
    short = make_optimizer(policy, config("trainer.optimizer=adamw8bit").trainer)
    assert checkpoint_bytes(policy, short) == pytest.approx((4 + 2 + 1 / 32) * numbers, abs=1)
    theirs = peft.PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(packaged_agent("alfworld")), tmp_path
    ).eval()
    ids = torch.arange(4, 40)[None]
    with torch.no_grad():
        torch.testing.assert_close(policy.model(ids).logits, theirs(input_ids=ids).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_saved_adapter_is_read_back_bit_for_bit(tmp_path: Path, dtype: str) -> None:
    words = (*LORA, f"model.dtype={dtype}")
    policy = filled(f"model.dtype={dtype}")
    policy.save(tmp_path / "one")
    again = reloaded(policy_of(*words, seed=5), tmp_path / "one", config(*words).model)
    assert model_fingerprint(again) == model_fingerprint(policy)
    again.save(tmp_path / "two")
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name
    played = load_to_play(tmp_path / "one", config(*words).model, "alfworld", CPU)
    assert torch.equal(scores(again), scores(policy))
    assert torch.equal(scores(played), scores(policy))


def test_an_adapter_of_bfloat16_weights_is_played_on_those_in_any_type(tmp_path: Path) -> None:
    """In float32 on weights that were rounded to bfloat16, as they were when it was trained."""
    policy = filled("model.dtype=bfloat16")
    policy.save(tmp_path)
    played = load_to_play(tmp_path, config(*LORA).model, "alfworld", CPU)
    assert played.dtype == played.param_dtype == torch.float32
    rounded = policy_of("model.dtype=bfloat16", "model.param_dtype=bfloat16").model.state_dict()
    for name, weight in played.model.state_dict().items():
        if ".lora_" not in name:
            assert torch.equal(weight, rounded[name.replace(".base_layer", "")].float()), name
    trained = dict(policy.trained.named_parameters())
    assert all(torch.equal(p, trained[name]) for name, p in played.model.named_parameters() if ".lora_" in name)


def test_an_adapter_on_other_weights_is_refused(tmp_path: Path) -> None:
    chat = save_chat_model(tmp_path / "chat")
    filled().save(tmp_path / "adapter")
    other = tiny_config(f"model.path={chat}", "model.dtype=float32", *LORA, model=())
    with pytest.raises(DataError, match=r"was trained on the weights of .*tiny-alfworld .* give the folder"):
        load_to_play(tmp_path / "adapter", other.model, "alfworld", CPU)
    narrow = policy_of("model.lora.rank=2", "model.lora.alpha=8")
    with pytest.raises(DataError, match="its matrices are not those"):
        reloaded(narrow, tmp_path / "adapter", config(*LORA).model)


def test_fingerprints_tell_adapters_apart_and_know_their_base() -> None:
    base = model_fingerprint(policy_of())["digest"]
    prints = [
        model_fingerprint(policy)
        for policy in (policy_of(*LORA), policy_of(*LORA, seed=1), policy_of("model.lora.rank=4"), filled())
    ]
    assert {found["base"] for found in prints} == {base}
    assert len({found["digest"] for found in [*prints, {"digest": base}]}) == 5


def test_the_adapter_is_drawn_by_the_seed_alone() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    one = policy_of(*LORA)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(8)
    assert model_fingerprint(policy_of(*LORA)) == model_fingerprint(one)


# --- the check at start, the warm start ---


def test_the_check_at_start_sees_an_adapter_that_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a new one, which adds nothing; and it leaves the policy as it was."""
    policy = policy_of(*LORA)
    before = model_fingerprint(policy)
    check_parity(policy)
    assert model_fingerprint(policy) == before
    plain = decoder._attended

    def without(module: Any, *arguments: Any) -> Tensor:
        kept, module.q_proj = module.q_proj, getattr(module.q_proj, "base_layer", module.q_proj)
        try:
            return plain(module, *arguments)
        finally:
            module.q_proj = kept

    monkeypatch.setattr(decoder, "_attended", without)
    with pytest.raises(ModelError, match="differ from the model's own"):
        check_parity(policy)
    check_parity(policy_of())


def test_a_warm_start_trains_the_adapter_and_is_kept_under_a_name_of_its_own(tmp_path: Path) -> None:
    words = ("trainer.warm_start.steps=2", "trainer.warm_start.batch_size=2", "benchmark.train_games=4",
             "benchmark.max_steps=40", "trainer.warm_start.lr=1e-2")  # fmt: skip
    cfg, full = config(*LORA, *words), config(*words)
    benchmark = make_benchmark(**cfg.benchmark.model_dump())
    keys = [warm_start_key(policy_of(*asked), benchmark, cfg) for asked in ((), LORA, ("model.lora.rank=4",))]
    assert len(set(keys)) == 3
    base = model_fingerprint(policy_of())["digest"]
    made = warm_started(policy_of(*LORA), benchmark, cfg, tmp_path)
    steps: list[int] = []
    cached = warm_started(policy_of(*LORA), benchmark, cfg, tmp_path, progress=lambda step, _: steps.append(step))
    assert steps == []
    assert model_fingerprint(cached) == model_fingerprint(made)
    assert model_fingerprint(made)["base"] == base
    assert not lora.is_silent(made.model)
    assert full.model.lora.rank == 0


def test_without_peft_one_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with (
        pytest.raises(UserError, match=r"model.lora.rank needs the package peft: .*install.*\[lora\]"),
        open_experiment(config(*LORA, "logger.wandb.mode=disabled"), tmp_path / "run"),
    ):
        pass
    policy_of()  # and nothing else needs it
