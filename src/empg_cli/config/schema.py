"""Every setting of a run: type, range, unit, and what 0 or null means. Defaults live in conf/, nowhere else.

Frozen and closed: an unknown key is an error, and so is a knob that the chosen algorithm does not read. Settings of
algorithms: config/algo.py; of benchmarks: config/benchmarks.py, config/deepsearch.py; of playing: config/rollout.py; of
training: config/trainer.py; of several processes: config/dist.py; of where numbers go: config/logger.py.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from empg_cli.config.algo import Algo, SequenceLoss
from empg_cli.config.benchmarks import Benchmark
from empg_cli.config.deepsearch import Deepsearch, WebRetrieval
from empg_cli.config.dist import Dist
from empg_cli.config.endpoint import Endpoint
from empg_cli.config.logger import Logger
from empg_cli.config.node import Node
from empg_cli.config.rollout import Rollout, Temperature
from empg_cli.config.trainer import Trainer

# --- model ---------------------------------------------------------------------------------------


class Architecture(Node):
    """Shape of a from-scratch Qwen2 model; read by `model.init=scratch`."""

    hidden_size: PositiveInt
    """A multiple of num_heads."""
    num_layers: PositiveInt
    """Blocks of attention and MLP."""
    num_heads: PositiveInt
    """Attention heads; a multiple of num_kv_heads."""
    num_kv_heads: PositiveInt
    """Heads of keys and values."""
    mlp_size: PositiveInt
    """Inner width of the MLP."""

    @model_validator(mode="after")
    def heads_fit(self) -> Architecture:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size ({self.hidden_size}) must be a multiple of num_heads ({self.num_heads})")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_heads ({self.num_heads}) must be a multiple of num_kv_heads ({self.num_kv_heads})")
        return self


class Lora(Node):
    """A low-rank adapter on frozen weights (LoRA, arXiv 2106.09685); without dropout, which would make the gradient
    depend on how a batch is split."""

    rank: NonNegativeInt
    """0 = none: all weights are trained. Otherwise `model.dtype` is what the frozen ones are kept in, and
    `model.param_dtype` what the adapter is."""
    alpha: PositiveFloat
    """The adapter's product is multiplied by alpha / rank. Not read when rank=0."""
    targets: Annotated[list[str], Field(min_length=1)] | None
    """Names of the linear layers that get one, such as q_proj; null = all of attention and MLP."""

    @model_validator(mode="after")
    def targets_are_read(self) -> Lora:
        if self.rank == 0 and self.targets is not None:
            raise ValueError("targets is not read when rank=0; leave it null, or set model.lora.rank")
        return self


class Model(Node):
    name: str
    """Names runs; decides nothing."""
    init: Literal["packaged", "pretrained", "scratch"]
    """packaged: the weights shipped with empg for this benchmark; pretrained: `path`; scratch: random weights."""
    path: str | None
    """Folder or hub id of a Hugging Face model; read by init=pretrained."""
    prompt: Literal["compact", "chat"]
    """compact: a closed-vocabulary form for tiny models; chat: the model's chat template, think and action tags."""
    dtype: Literal["float32", "bfloat16"]
    """What forward and backward passes compute in, rollouts included."""
    param_dtype: Literal["float32", "bfloat16"]
    """What parameters and the optimiser's state are kept in. bfloat16 saves 10 bytes a parameter, and small learning
    rates are then lost in rounding."""
    gradient_checkpointing: bool
    """Recompute activations in backward: less memory, about a third more time."""
    arch: Architecture | None
    """Shape of the model, read by init=scratch; null = the shape of the agent that ships for this benchmark."""
    lora: Lora

    @model_validator(mode="after")
    def parameters_are_as_long_as_passes(self) -> Model:
        if self.dtype == "float32" and self.param_dtype == "bfloat16":
            raise ValueError("param_dtype must be float32 when dtype=float32: passes cannot make up for lost bits")
        return self

    @model_validator(mode="after")
    def adapters_have_weights_below(self) -> Model:
        if self.lora.rank and self.init == "scratch":
            raise ValueError("lora.rank must be 0 when init=scratch: random weights would stay as they are")
        return self

    @model_validator(mode="after")
    def init_has_what_it_reads(self) -> Model:
        if self.init == "pretrained" and not self.path:
            raise ValueError("path must name a model folder or hub id when init=pretrained: model=local model.path=DIR")
        if self.init != "scratch" and self.arch is not None:
            raise ValueError(f"arch is not read when init={self.init}; leave it null, or choose model=tiny-scratch")
        if self.init != "pretrained" and self.path is not None:
            raise ValueError(f"path is not read when init={self.init}; leave it null, or choose model=local")
        if self.init != "pretrained" and self.prompt == "chat":
            raise ValueError(
                f"prompt must be compact when init={self.init}: only pretrained models have a chat template"
            )
        return self


# --- commands --------------------------------------------------------------------------


Seed = Annotated[int, Field(ge=0, lt=10**18)]
"""Of 18 digits at most, well inside the 64 bits that torch's generators take."""


def _refuse_blind_wordings(model: Model, benchmark: Benchmark, rollout: Rollout) -> None:
    """The tiny agents of WebShop and Deep Search keep in mind what their own actions have done."""
    is_stateful = model.prompt == "compact" and benchmark.name in ("webshop", "deepsearch")
    if is_stateful and rollout.context == "window" and not rollout.history:
        raise ValueError(
            f"rollout.history (0) must be at least 1 when model.prompt=compact and benchmark={benchmark.name}: the "
            "prompt follows from the last action too"
        )


class TrainConfig(Node):
    seed: Seed
    """Of everything random: weights, tasks, sampling. The same seed gives the same numbers on a CPU."""
    run_dir: str
    """The run's folder (docs/run-folder.md). One that is named by the time is a new one for every command."""
    resume: str | None
    """auto: go on from the newest good checkpoint in run_dir if there is one; a path: from there; restart: begin anew
    in run_dir and set aside what is there; null: a new run."""
    model: Model
    benchmark: Benchmark
    algo: Algo
    rollout: Rollout
    trainer: Trainer
    logger: Logger
    dist: Annotated[Dist, Field(discriminator="launch")]

    @model_validator(mode="after")
    def wordings_see_the_last_action(self) -> TrainConfig:
        _refuse_blind_wordings(self.model, self.benchmark, self.rollout)
        return self

    @model_validator(mode="after")
    def sequence_ratio_sees_whole_trajectories(self) -> TrainConfig:
        loss = self.algo.loss
        if isinstance(loss, SequenceLoss) and loss.sequence == "trajectory" and self.rollout.context != "transcript":
            raise ValueError(
                "algo.loss.sequence=trajectory needs rollout.context=transcript: in a window context the steps of a "
                "trajectory are rows of their own, maybe in different micro-batches; choose algo.loss.sequence=step"
            )
        return self

    @model_validator(mode="after")
    def importance_cap_has_a_second_opinion(self) -> TrainConfig:
        if self.algo.loss.importance_cap is not None and self.trainer.old_logprobs == "rollout":
            raise ValueError(
                "algo.loss.importance_cap is not read when trainer.old_logprobs=rollout: the sampler's log-probs are "
                "the old ones, so every importance weight is 1; set trainer.old_logprobs=recompute, or leave it null"
            )
        return self

    @model_validator(mode="after")
    def entropies_are_seen(self) -> TrainConfig:
        if self.rollout.engine == "vllm" and self.trainer.old_logprobs == "rollout":
            raise ValueError(
                "trainer.old_logprobs (rollout) must be recompute when rollout.engine=vllm: servers see no entropies; "
                "set trainer.old_logprobs=recompute"
            )
        return self

    @model_validator(mode="after")
    def minibatches_have_trajectories(self) -> TrainConfig:
        trajectories = self.trainer.tasks_per_update * self.algo.group_size
        if self.trainer.minibatches > trajectories:
            raise ValueError(
                f"trainer.minibatches ({self.trainer.minibatches}) must not exceed the trajectories of an update "
                f"({trajectories} = {self.trainer.tasks_per_update} tasks x group of {self.algo.group_size})"
            )
        return self

    @model_validator(mode="after")
    def several_processes_can_do_it(self) -> TrainConfig:
        if self.dist.launch == "none" or (self.dist.launch == "node" and self.dist.processes == 1):
            return self
        trainer, several = self.trainer, f"must be {{}} with several processes (dist.launch={self.dist.launch}): {{}}"
        if trainer.oom != "stop":
            why = "halving the micro-batches of one rank would leave the others waiting"
            raise ValueError(f"trainer.oom ({trainer.oom}) {several.format('stop', why)}")
        if trainer.device not in ("auto", "cpu", "cuda"):
            why = "each takes a GPU of its own; CUDA_VISIBLE_DEVICES says which there are"
            raise ValueError(f"trainer.device ({trainer.device}) {several.format('auto, cpu or cuda', why)}")
        if trainer.optimizer != "adamw":
            raise ValueError(
                f"trainer.optimizer ({trainer.optimizer}) {several.format('adamw', 'no other is sharded')}"
            )
        if self.model.lora.rank:
            raise ValueError(
                f"model.lora.rank ({self.model.lora.rank}) {several.format('0', 'adapters are not sharded')}"
            )
        if self.rollout.engine == "vllm" and self.dist.launch == "cluster" and self.rollout.vllm.urls is None:
            why = "no process knows the GPUs of all machines"
            raise ValueError(f"rollout.vllm.urls (null) {several.format('the servers that run', why)}")
        retrieval = self.benchmark.retrieval if isinstance(self.benchmark, Deepsearch) else None
        if isinstance(retrieval, WebRetrieval) and retrieval.max_calls is not None:
            why = "each would spend that many"
            raise ValueError(f"benchmark.retrieval.max_calls ({retrieval.max_calls}) {several.format('null', why)}")
        if isinstance(retrieval, WebRetrieval) and retrieval.mode == "record" and self.dist.launch == "cluster":
            why = "several hosts would break its database; record with dist=none, then replay"
            raise ValueError(f"benchmark.retrieval.mode (record) {several.format('live or replay', why)}")
        return self


class EvalConfig(Node):
    """`empg eval run=DIR`: what is played comes from the run's own config unless it is given here."""

    run: str | None
    """A run folder or a checkpoint folder; null evaluates `policy` on the composed benchmark."""
    checkpoint: Literal["best", "last"] | NonNegativeInt | None
    """Of the run: best by its own evaluations, last (the newest good one; null too), or the number of its updates."""
    policy: Literal["model", "expert", "endpoint"]
    """endpoint: a model behind an OpenAI-compatible server, chosen by endpoint=openai."""
    endpoint: Endpoint | None
    """Read by policy=endpoint; null otherwise."""
    seed: Seed
    """Of sampling; null in `seeds` stands for this one alone."""
    seeds: PositiveInt | Annotated[list[NonNegativeInt], Field(min_length=1)] | None
    """Passes over the tasks with other random numbers; a number n stands for seed to seed + n - 1, null for seed."""
    temperatures: Annotated[list[Temperature], Field(min_length=1)] | None
    """The passes are made at each of them; 0 = greedy, one pass; null = rollout.eval_temperature."""
    samples: PositiveInt
    """Attempts at each task with each seed; from 2 on, pass@k is reported."""
    run_dir: str
    """Folder of the evaluation, never that of a run."""
    model: Model
    benchmark: Benchmark
    rollout: Rollout
    trainer: Trainer
    logger: Logger

    @model_validator(mode="after")
    def wordings_see_the_last_action(self) -> EvalConfig:
        if self.policy == "model":
            _refuse_blind_wordings(self.model, self.benchmark, self.rollout)
        return self

    @model_validator(mode="after")
    def evaluations_open_no_sinks(self) -> EvalConfig:
        if self.logger.sinks:
            raise ValueError("logger.sinks must be empty: evaluations log no rows, so none is opened; leave it out")
        return self

    @property
    def seed_list(self) -> list[int]:
        match self.seeds:
            case None:
                return [self.seed]
            case int(n):
                return list(range(self.seed, self.seed + n))
            case named:
                return list(named)

    @property
    def temperature_list(self) -> list[float]:
        return [self.rollout.eval_temperature] if self.temperatures is None else list(self.temperatures)

    @model_validator(mode="after")
    def policy_has_what_it_reads(self) -> EvalConfig:
        if self.policy == "endpoint" and self.endpoint is None:
            raise ValueError("endpoint must be given when policy=endpoint: endpoint=openai endpoint.model=NAME")
        if self.policy != "endpoint" and self.endpoint is not None:
            raise ValueError(f"endpoint is not read when policy={self.policy}; leave it out, or set policy=endpoint")
        if self.policy == "endpoint" and self.run is not None:
            raise ValueError("run must be null when policy=endpoint: evaluate one or the other")
        if self.policy == "expert" and self.temperatures is not None:
            raise ValueError("temperatures is not read when policy=expert; leave it null")
        if self.policy == "expert" and self.samples > 1:
            raise ValueError(f"samples ({self.samples}) must be 1 when policy=expert; seeds=N varies its choices")
        return self

    @model_validator(mode="after")
    def a_checkpoint_is_of_a_run(self) -> EvalConfig:
        if self.checkpoint is not None and self.run is None:
            raise ValueError("checkpoint is not read when run=null; leave it null, or give run=DIR")
        return self

    @model_validator(mode="after")
    def passes_differ(self) -> EvalConfig:
        for name, values in (("seeds", self.seed_list), ("temperatures", self.temperature_list)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name} must be distinct: a value that stands twice is the same pass")
        return self
