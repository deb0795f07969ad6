"""What memory and time of a run depend on, taken out of its configuration."""

from __future__ import annotations

from dataclasses import dataclass, replace

from empg_cli.config.dist import Dist, NodeDist, NoDist
from empg_cli.config.rollout import Rollout
from empg_cli.config.schema import EvalConfig, Lora, TrainConfig
from empg_cli.planning.shapes import Shape, shape_of

BYTES = {"float32": 4, "bfloat16": 2}
EVALUATED_AT_ONCE = 160
"""Tasks that an evaluation plays at once (`evaluation.evaluate.TASKS_AT_ONCE`)."""
MOST_TOKENS = {"cpu": 4096, "cuda": 32_768}
"""Of a micro-batch under `auto`. More are not read faster: matrix products have long reached their speed."""
FEWEST_TOKENS = 256
"""Of a micro-batch; fewer are read one row at a time anyway."""
EIGHT_BITS = 1 + 4 / 256
"""Bytes of a moment under adamw8bit: a byte, and a scale for each block of 256."""
MODULE = {"q_proj": "self_attn", "k_proj": "self_attn", "v_proj": "self_attn", "o_proj": "self_attn",
          "gate_proj": "mlp", "up_proj": "mlp", "down_proj": "mlp"}  # fmt: skip
"""Linear layer -> the part of a decoder layer that holds it."""
SAMPLED_SHARE = 0.25
"""Of the tokens that learning reads, those that were sampled, where the settings do not tell: a transcript holds as
many answers as it has turns."""


@dataclass(frozen=True, slots=True)
class Adapter:
    numbers: int
    """Trained: for each linear layer that has one, its inputs and its outputs times the rank."""
    layers: frozenset[str]
    """Linear layers of a decoder layer that have one in some of them."""


NO_ADAPTER = Adapter(0, frozenset())


@dataclass(frozen=True, slots=True)
class Spread:
    """Over how many processes a run is spread; the memory that is reckoned is that of one of them."""

    ranks: int = 1
    shard: int = 1
    """Ranks that hold one copy of what is trained together."""
    frees: bool = False
    """`dist.reshard`."""

    @property
    def is_one(self) -> bool:
        return self.ranks == 1


@dataclass(frozen=True, slots=True)
class Job:
    shape: Shape
    device: str
    """cpu or cuda."""
    dtype_bytes: int
    param_bytes: int
    is_chat: bool
    """`model.prompt=chat`."""
    has_checkpointing: bool
    """`model.gradient_checkpointing`."""
    adapter: Adapter
    """The LoRA adapter, which alone is trained, on weights in the compute type; NO_ADAPTER: all are trained."""
    moment_bytes: float
    """Of each of Adam's two moments of a trained number."""
    has_reference: bool
    context: int
    """`rollout.max_context_tokens`."""
    new_tokens: int
    is_append_only: bool
    train_episodes: int
    """Of an update; 0 = nothing is trained."""
    episodes: int
    """Most that are ever there to be played at once, in training or evaluation."""
    minibatches: int
    epochs: int
    max_steps: int
    recomputes: bool
    """`trainer.old_logprobs=recompute`."""
    keep_checkpoints: int
    concurrent: int | None
    """Episodes played at once; None = auto, still to be settled."""
    microbatch: int | None
    """Tokens; None = auto, still to be settled."""
    spread: Spread = Spread()
    plays: bool = True
    """The model itself; False: servers do (`rollout.engine=vllm`)."""
    served_share: float = 0.0
    """Of the same GPU that servers take, where they share it (`rollout.vllm.gpu_memory`, `colocate`)."""
    served_bytes: int = 0
    servers_sleep: bool = True
    """While the run learns; they do not where they play on meanwhile (`rollout.max_staleness`)."""

    @property
    def row_tokens(self) -> int:
        """Tokens of a pass that learns: no fewer than the longest row has, no more than there are."""
        assert self.microbatch is not None, "settled before it is asked for"
        return min(max(self.microbatch, self.context), self.learned_tokens)

    @property
    def learned_tokens(self) -> int:
        """Of one mini-batch, at most, and of one rank's share of it."""
        rows = -(-self.train_episodes // self.minibatches) * (1 if self.is_append_only else self.max_steps)
        return max(1, -(-rows // self.spread.ranks)) * self.context

    @property
    def sampled_share(self) -> float:
        return SAMPLED_SHARE if self.is_append_only else min(1.0, self.new_tokens / self.context)

    @property
    def is_mixed(self) -> bool:
        """Passes read copies of the parameters in a shorter type."""
        return self.dtype_bytes != self.param_bytes and not self.has_adapter

    @property
    def has_adapter(self) -> bool:
        return self.adapter.numbers > 0

    @property
    def trained(self) -> int:
        """Numbers that have a gradient and a state of the optimiser."""
        return self.adapter.numbers or self.shape.parameters

    @property
    def checkpoint_bytes(self) -> int:
        """The trained numbers as they are kept, and the moments of each."""
        return int(self.trained * (self.param_bytes + 2 * self.moment_bytes))

    @property
    def is_settled(self) -> bool:
        return self.concurrent is not None and self.microbatch is not None

    def settled(self, *, concurrent: int, microbatch: int) -> Job:
        """With numbers in the place of auto; what is given already stays."""
        return replace(
            self,
            concurrent=concurrent if self.concurrent is None else self.concurrent,
            microbatch=microbatch if self.microbatch is None else self.microbatch,
        )


def adapter_of(shape: Shape, lora: Lora) -> Adapter | None:
    """None where a target is none of the layers that are known here, which says nothing about the model: others have
    others."""
    if not lora.rank:
        return NO_ADAPTER
    sizes = shape.linear_layers
    names = [(f"model.layers.{number}.{MODULE[name]}.{name}", name) for number in range(shape.layers) for name in sizes]
    meant = [{name for name in names if is_meant(name[0], target)} for target in lora.targets or sizes]
    if not all(meant):
        return None
    adapted = set[tuple[str, str]]().union(*meant)
    return Adapter(sum(lora.rank * sum(sizes[name]) for _, name in adapted), frozenset(name for _, name in adapted))


def is_meant(name: str, target: str) -> bool:
    """Whether a word of `model.lora.targets` names a layer: by its whole name or the end of it, as peft takes it."""
    return name == target or name.endswith(f".{target}")


def spread_of(dist: Dist, gpus: int, ranks: int | None = None) -> Spread:
    """
    Args:
        gpus: of the machine, one a rank where the settings do not tell; 0 = none.
        ranks: as they are, where the run has begun.
    """
    if isinstance(dist, NoDist):
        return Spread()
    count = ranks or (dist.processes if isinstance(dist, NodeDist) else None) or gpus or 1
    return Spread(count, dist.shard or count, dist.reshard) if count > 1 else Spread()


def job_of(cfg: TrainConfig, device: str, spread: Spread = Spread()) -> Job | None:
    """None where the shape of the model, or of its adapter, is not known."""
    shape = shape_of(cfg.model, cfg.benchmark.name)
    if shape is None:
        return None
    trained = cfg.trainer.tasks_per_update * cfg.algo.group_size
    job = _job(cfg, shape, device, trained=trained, has_reference=bool(cfg.algo.loss.kl_coef))
    if job is None or spread.is_one:
        return job
    # Whole groups are dealt out, and single episodes of an evaluation.
    played = max(
        -(-cfg.trainer.tasks_per_update // spread.ranks) * cfg.algo.group_size, -(-job.episodes // spread.ranks)
    )
    concurrent = None if job.concurrent is None else min(job.concurrent, played)
    return replace(job, spread=spread, episodes=played, concurrent=concurrent)


def beside_servers(job: Job, rollout: Rollout, memory: int | None) -> Job:
    """With what servers of vLLM take of the GPU that they share with it."""
    settings = rollout.vllm
    shares = not job.plays and job.device == "cuda" and settings.colocate and settings.urls is None
    if not shares or memory is None:
        return job
    return replace(
        job,
        served_share=settings.gpu_memory,
        served_bytes=int(settings.gpu_memory * memory),
        servers_sleep=not rollout.max_staleness,
    )


def eval_job_of(cfg: EvalConfig, device: str) -> Job | None:
    """Of an evaluation, which keeps the weights in the compute type alone."""
    shape = shape_of(cfg.model, cfg.benchmark.name)
    if shape is None:
        return None
    job = _job(cfg, shape, device, trained=0, has_reference=False)
    return None if job is None else replace(job, param_bytes=job.dtype_bytes)


def _job(cfg: TrainConfig | EvalConfig, shape: Shape, device: str, *, trained: int, has_reference: bool) -> Job | None:
    rollout, trainer = cfg.rollout, cfg.trainer
    evaluated = min(cfg.benchmark.eval_tasks or EVALUATED_AT_ONCE, EVALUATED_AT_ONCE)
    episodes = max(trained, evaluated)
    concurrent = rollout.max_concurrent
    adapter = adapter_of(shape, cfg.model.lora)
    if adapter is None:
        return None
    return Job(
        shape=shape,
        device=device,
        dtype_bytes=BYTES[cfg.model.dtype],
        param_bytes=BYTES[cfg.model.param_dtype],
        is_chat=cfg.model.prompt == "chat",
        adapter=adapter,
        moment_bytes=EIGHT_BITS if trainer.optimizer == "adamw8bit" else BYTES[cfg.model.param_dtype],
        has_checkpointing=cfg.model.gradient_checkpointing,
        has_reference=has_reference,
        context=rollout.max_context_tokens,
        new_tokens=rollout.max_new_tokens,
        is_append_only=rollout.context == "transcript",
        train_episodes=trained,
        episodes=episodes,
        minibatches=trainer.minibatches,
        epochs=trainer.epochs,
        max_steps=cfg.benchmark.max_steps,
        recomputes=trainer.old_logprobs == "recompute",
        keep_checkpoints=trainer.keep_checkpoints,
        concurrent=None if concurrent == "auto" else min(concurrent or episodes, episodes),
        microbatch=None if trainer.tokens_per_microbatch == "auto" else trainer.tokens_per_microbatch,
        plays=rollout.engine == "torch",
    )
