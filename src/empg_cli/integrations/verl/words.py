"""A training configuration of ours in verl's words (0.9.1), and what of it verl cannot do."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from empg_cli.config.algo import CispoLoss, ClipLoss, SequenceLoss
from empg_cli.config.dist import ClusterDist, NodeDist
from empg_cli.config.problems import Problem
from empg_cli.config.schema import TrainConfig
from empg_cli.integrations.verl import NAME
from empg_cli.model.loading import packaged_agent

Words = dict[str, object]

KL = {"k1": "kl", "k2": "mse", "k3": "low_var_kl"}
OFF = 1e9
"""As clip_ratio_c: verl's dual clip cannot be left out, and no ratio reaches this."""
ROLLOUT, ACTOR = "actor_rollout_ref.rollout", "actor_rollout_ref.actor"


def refused(cfg: TrainConfig) -> Iterator[Problem]:
    """What would be silently different in verl."""
    loss, is_window = cfg.algo.loss, cfg.rollout.context == "window"
    if cfg.model.init == "scratch":
        yield Problem("model.init", "(scratch) is not a folder that verl could read", hint="model=local model.path=DIR")
    if not cfg.model.lora.alpha.is_integer():
        yield Problem("model.lora.alpha", f"({cfg.model.lora.alpha:g}) must be a whole number for verl")
    if cfg.trainer.warm_start.is_on:
        hint = "do it with `empg train`, and give what `empg export` writes as model.path"
        yield Problem("trainer.warm_start", "is not done by verl", hint=hint)
    if cfg.trainer.lr_schedule == "linear":
        yield Problem("trainer.lr_schedule", "(linear) is none of verl's", hint="constant or cosine")
    if cfg.trainer.optimizer != "adamw":
        yield Problem("trainer.optimizer", f"({cfg.trainer.optimizer}) is not written for verl", hint="adamw")
    if isinstance(cfg.dist, ClusterDist):
        hint = "dist=node dist.processes=8, and trainer.nnodes=2 behind the script"
        yield Problem("dist", "(cluster) does not say how many nodes and GPUs verl is to take", hint=hint)
    if isinstance(cfg.dist, NodeDist) and cfg.dist.processes is None:
        yield Problem("dist.processes", "must be given: verl is told how many GPUs to take", hint="dist.processes=8")
    if cfg.rollout.max_staleness:
        yield Problem("rollout.max_staleness", "must be 0: this is verl's synchronous trainer")
    if is_window and loss.weighting != "token":
        hint = "token, or rollout=transcript"
        yield Problem("algo.loss.weighting", f"({loss.weighting}) means rows to verl, padded ones too", hint=hint)
    if not is_window and loss.weighting == "step":
        hint = "token or trajectory, or rollout=window"
        yield Problem("algo.loss.weighting", "(step) is not known to verl, whose rows are episodes here", hint=hint)
    if isinstance(loss, SequenceLoss):
        if not loss.length_normalised:
            yield Problem("algo.loss.length_normalised", "must be true: verl's GSPO knows no other")
        if (loss.sequence == "step") is not is_window:
            row = "step" if is_window else "trajectory"
            yield Problem("algo.loss.sequence", f"must be {row}: verl has one ratio for a row")


def notes(cfg: TrainConfig) -> list[str]:
    """What verl does a little otherwise, or by itself."""
    said = []
    if cfg.algo.loss.kl_coef and cfg.algo.loss.kl_estimator == "k3" and cfg.algo.loss.kl_clamp != 10:
        said.append("verl bounds a token's k3 estimate at 10 (algo.loss.kl_clamp)")
    if cfg.algo.loss.kl_clamp and cfg.algo.loss.kl_estimator != "k3":
        said.append("verl bounds no estimate but k3 (algo.loss.kl_clamp)")
    if cfg.algo.sampling.drop_uniform_groups:
        said.append("verl replaces uniform groups until the batch is full (algo.sampling.max_resamples)")
    if cfg.rollout.context == "window" and cfg.trainer.minibatches > 1:
        said.append("optimiser steps of an update are as many as its rows fill, at most trainer.minibatches")
    if cfg.trainer.lr_warmup > 0:
        said.append("verl's warm-up begins at 0, so its first update changes nothing (trainer.lr_warmup)")
    if cfg.trainer.old_logprobs == "rollout":
        said.append("old log-probs and entropies are of the training model's pass (trainer.old_logprobs=recompute)")
    return [*said, "checkpoints, metrics, health and resuming are verl's own"]


def words(cfg: TrainConfig) -> Words:
    """Keys of verl's `ppo_trainer` with their values; files are named by whoever writes them."""
    return {**_data(cfg), **_loss(cfg), **_actor(cfg), **_rollout(cfg), **_trainer(cfg)}


def _data(cfg: TrainConfig) -> Words:
    """A row's response: an answer, or in a transcript all that follows the first prompt."""
    context, new = cfg.rollout.max_context_tokens, cfg.rollout.max_new_tokens
    return {
        "data.train_batch_size": cfg.trainer.tasks_per_update,
        "data.max_prompt_length": context - new,
        "data.max_response_length": new if cfg.rollout.context == "window" else context,
        "data.shuffle": True,
        "data.seed": cfg.seed,
    }


def _loss(cfg: TrainConfig) -> Words:
    loss = cfg.algo.loss
    kinds: Mapping[type, str] = {ClipLoss: "vanilla", SequenceLoss: "gspo", CispoLoss: "cispo"}
    modes = {"token": "token-mean", "trajectory": "seq-mean-token-mean", "constant": "seq-mean-token-sum-norm"}
    found: Words = {
        "algorithm.adv_estimator": NAME,
        "algorithm.filter_groups.enable": cfg.algo.sampling.drop_uniform_groups,
        "algorithm.filter_groups.metric": "task_reward",
        f"{ACTOR}.policy_loss.loss_mode": kinds[type(loss)],
        f"{ACTOR}.clip_ratio_low": loss.clip_low,
        f"{ACTOR}.clip_ratio_high": loss.clip_high,
        f"{ACTOR}.clip_ratio_c": (loss.dual_clip if isinstance(loss, ClipLoss) else None) or OFF,
        f"{ACTOR}.loss_agg_mode": modes[loss.weighting],
        f"{ACTOR}.entropy_coeff": loss.entropy_coef,
        f"{ACTOR}.use_kl_loss": loss.kl_coef > 0,
        f"{ACTOR}.kl_loss_coef": loss.kl_coef,
        f"{ACTOR}.kl_loss_type": KL[loss.kl_estimator],
    }
    if loss.constant_tokens is not None:
        found[f"{ACTOR}.loss_scale_factor"] = loss.constant_tokens
    if loss.importance_cap is not None:
        found["algorithm.rollout_correction.rollout_is"] = "token"
        found["algorithm.rollout_correction.rollout_is_threshold"] = loss.importance_cap
    return found


def _actor(cfg: TrainConfig) -> Words:
    trainer, model = cfg.trainer, cfg.model
    rows = trainer.tasks_per_update * (cfg.benchmark.max_steps if cfg.rollout.context == "window" else 1)
    tokens = trainer.tokens_per_microbatch
    most = max(cfg.rollout.max_context_tokens, 0 if tokens == "auto" else tokens)
    return {
        "actor_rollout_ref.model.path": _weights(cfg),
        "actor_rollout_ref.model.enable_gradient_checkpointing": model.gradient_checkpointing,
        "actor_rollout_ref.model.lora_rank": model.lora.rank,
        "actor_rollout_ref.model.lora_alpha": int(model.lora.alpha),
        "actor_rollout_ref.model.target_modules": model.lora.targets or "all-linear",
        f"{ACTOR}.fsdp_config.dtype": model.dtype,
        f"{ACTOR}.fsdp_config.model_dtype": {"float32": "fp32", "bfloat16": "bf16"}[model.param_dtype],
        f"{ACTOR}.optim.lr": trainer.lr,
        f"{ACTOR}.optim.lr_warmup_steps": trainer.lr_warmup,
        f"{ACTOR}.optim.lr_scheduler_type": trainer.lr_schedule,
        f"{ACTOR}.optim.min_lr_ratio": 0.1 if trainer.lr_schedule == "cosine" else 0.0,
        f"{ACTOR}.optim.weight_decay": trainer.weight_decay,
        f"{ACTOR}.optim.clip_grad": trainer.max_grad_norm,
        f"{ACTOR}.grad_clip": trainer.max_grad_norm,
        f"{ACTOR}.ppo_epochs": trainer.epochs,
        # verl makes an optimiser step of this many rows times the group size, and pads the batch to a multiple of it
        f"{ACTOR}.ppo_mini_batch_size": math.ceil(rows / trainer.minibatches),
        f"{ACTOR}.use_dynamic_bsz": True,
        f"{ACTOR}.ppo_max_token_len_per_gpu": most,
        f"{ACTOR}.data_loader_seed": cfg.seed,
    }


def _weights(cfg: TrainConfig) -> str:
    """A folder by its whole name, since the script may be called from anywhere; else an id of the hub."""
    if cfg.model.path is None:
        return str(packaged_agent(cfg.benchmark.name))
    folder = Path(cfg.model.path).expanduser()
    return str(folder.resolve()) if folder.is_dir() else cfg.model.path


def _rollout(cfg: TrainConfig) -> Words:
    rollout = cfg.rollout
    return {
        f"{ROLLOUT}.name": "vllm",
        f"{ROLLOUT}.n": cfg.algo.group_size,
        f"{ROLLOUT}.temperature": rollout.temperature,
        f"{ROLLOUT}.top_p": 1.0,
        f"{ROLLOUT}.top_k": -1,
        f"{ROLLOUT}.dtype": cfg.model.dtype,
        f"{ROLLOUT}.seed": cfg.seed,
        f"{ROLLOUT}.max_model_len": rollout.max_context_tokens,
        f"{ROLLOUT}.tensor_model_parallel_size": rollout.vllm.gpus_per_server,
        f"{ROLLOUT}.gpu_memory_utilization": rollout.vllm.gpu_memory,
        f"{ROLLOUT}.calculate_log_probs": True,
        f"{ROLLOUT}.agent.default_agent_loop": NAME,
        f"{ROLLOUT}.val_kwargs.temperature": rollout.eval_temperature,
        f"{ROLLOUT}.val_kwargs.top_p": rollout.eval_top_p,
        f"{ROLLOUT}.val_kwargs.do_sample": rollout.eval_temperature > 0,
    }


def _trainer(cfg: TrainConfig) -> Words:
    trainer, dist = cfg.trainer, cfg.dist
    return {
        "trainer.use_v1": True,
        "trainer.v1.trainer_mode": NAME,
        "trainer.project_name": "empg",
        "trainer.experiment_name": f"{cfg.benchmark.name}-{cfg.model.name}-{cfg.algo.name}-s{cfg.seed}",
        "trainer.logger": ["console"],
        "trainer.nnodes": 1,
        "trainer.n_gpus_per_node": (dist.processes if isinstance(dist, NodeDist) else None) or 1,
        "trainer.total_training_steps": trainer.updates,
        "trainer.total_epochs": 1_000_000,  # the steps end it
        "trainer.val_before_train": trainer.eval_before,
        "trainer.test_freq": trainer.eval_every or -1,
        "trainer.save_freq": trainer.checkpoint_every or -1,
        "trainer.max_actor_ckpt_to_keep": trainer.keep_checkpoints,
    }
