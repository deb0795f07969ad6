"""The settings of how episodes are played: the engine that samples, contexts, bounds, and servers of vLLM."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from empg_cli.config.node import Node
from empg_cli.config.service import Address

OURS: Final = (
    "--model --tokenizer --served-model-name --host --port --dtype --max-model-len --tensor-parallel-size "
    "--gpu-memory-utilization --weight-transfer-config --enable-sleep-mode --tokens-only --enable-scale-out "
    "--enable-lora --max-lora-rank --enable-prompt-tokens-details --api-key"
)
"""Flags of vLLM that are made from other settings."""
CHANGING: Final = (
    "--generation-config --override-generation-config --logprobs-mode --max-logprobs --quantization --kv-cache-dtype "
    "--speculative-config --hf-overrides --rope-scaling --logits-processors"
)
"""Flags of vLLM with which it samples from another policy than the one that is trained."""
REFUSED: Final = {
    **dict.fromkeys(OURS.split(), "other settings decide that"),
    **dict.fromkeys(CHANGING.split(), "another policy would be sampled than is trained"),
    "--config": "its file could hold any of the flags that are refused here",
}

LEAST_TEMPERATURE: Final = 1e-5


def _not_tiny(temperature: float) -> float:
    """Refuses those by which logits cannot be divided."""
    # Their maximum is taken off after that: the other order would change the last bits of every run.
    if 0 < temperature < LEAST_TEMPERATURE:
        raise ValueError(
            f"must not be between 0 and {LEAST_TEMPERATURE:g}: logits that are divided by so little are infinite"
        )
    return temperature


Temperature = Annotated[NonNegativeFloat, AfterValidator(_not_tiny)]
"""0 = greedy."""


class Vllm(Node):
    """Servers of vLLM; read by rollout.engine=vllm (docs/scaling.md)."""

    urls: Annotated[list[Address], Field(min_length=1)] | None
    """Servers that run already; null = the run starts them on this machine, and ends them."""
    servers: PositiveInt | None
    """How many to start; null = one for each gpus_per_server GPUs, on a CPU one."""
    gpus_per_server: PositiveInt
    """Tensor parallelism of each."""
    colocate: bool
    """true: servers have the GPUs of the ranks, and sleep while those learn; false: the GPUs behind them. Not read
    without GPUs."""
    gpu_memory: Annotated[float, Field(gt=0, lt=1)]
    """Share of a GPU's memory that a server takes for weights and cache."""
    python: str | None
    """Interpreter of the environment that has vLLM; null = that of empg."""
    args: list[str]
    """Further flags of each server, such as --max-num-seqs=64; none that changes what is sampled."""
    max_gap: PositiveFloat | None
    """Nats between log-probs of a server and of the model that learns, in the mean over a few tokens, from which on
    the run stops; looked at after every transfer of weights. null = 1e-4 in float32, 0.5 in bfloat16."""
    timeout_s: PositiveFloat
    """Of one answer, and of one transfer of weights."""
    attempts: PositiveInt
    """Tries of one call in all; waits grow from 0.5 s."""
    start_timeout_s: PositiveFloat
    """Until a server that was started, or has gone, answers."""

    @model_validator(mode="after")
    def args_leave_the_policy(self) -> Vllm:
        for arg in self.args:
            if not arg.startswith("--"):
                raise ValueError(f"args must hold flags with their values, such as --max-num-seqs=64, not {arg!r}")
            name = arg.partition("=")[0].partition(".")[0].replace("_", "-")  # --flag.part=value sets a part of it
            flag = name.replace("--no-", "--", 1)
            for refused, why in REFUSED.items():
                if refused.startswith(flag):  # argparse takes a beginning for the whole
                    said = "" if name == refused else f" (as {name})"
                    raise ValueError(f"args must not hold {refused}{said}: {why}")
        return self

    @model_validator(mode="after")
    def started_or_there(self) -> Vllm:
        if self.urls is not None and len({url.rstrip("/") for url in self.urls}) < len(self.urls):
            raise ValueError("urls must name each server once")
        for name, value in (("servers", self.servers), ("python", self.python), ("args", self.args)):
            if self.urls is not None and value:
                raise ValueError(f"{name} is not read when urls are given: those servers run already; leave it out")
        return self


class Rollout(Node):
    engine: Literal["torch", "vllm"]
    """torch: the model that learns samples itself; vllm: servers do, over token ids."""
    context: Literal["window", "transcript"]
    """transcript: append-only, one row per trajectory; window: a new prompt each step with the last `history` pairs."""
    history: NonNegativeInt
    """Observation-action pairs that a window prompt repeats; 0 with transcript, which does not read it."""
    temperature: Annotated[PositiveFloat, AfterValidator(_not_tiny)]
    """Of training episodes; 1e-5 or more."""
    eval_temperature: Temperature
    """0 = greedy; else 1e-5 or more."""
    eval_top_p: float = Field(gt=0, le=1)
    """Evaluation samples from the most likely tokens that together have this probability; 1 = all. Training always
    samples from all: log-probs of a cut distribution could not be reproduced by the training pass."""
    max_concurrent: NonNegativeInt | Literal["auto"]
    """Episodes played at once: finished ones make room for waiting ones. Bounds memory; results do not depend on it
    but for rounding. 0 = all of an update at once; auto = as many as the memory left for their keys and values holds,
    settled when a run begins, and kept when it goes on."""
    max_new_tokens: PositiveInt
    """Longest response of one step; a longer one is cut and ends there."""
    max_context_tokens: PositiveInt
    """A trajectory whose next prompt would not fit ends with status context_overflow."""
    max_staleness: NonNegativeInt
    """Updates that the policy may have seen since it began a group that trains: episodes go on while it learns. 0 =
    each batch is played by the policy that learns from it."""
    vllm: Vllm

    @property
    def places(self) -> int:
        """`max_concurrent` as a number: auto is settled before anything is played (`planning.auto`)."""
        assert self.max_concurrent != "auto", "settled before anything is played"
        return self.max_concurrent

    @model_validator(mode="after")
    def is_consistent(self) -> Rollout:
        if self.context == "transcript" and self.history != 0:
            raise ValueError(
                f"history ({self.history}) is not read when context=transcript; leave it 0, or choose rollout=window"
            )
        if self.max_new_tokens >= self.max_context_tokens:
            raise ValueError(
                f"max_new_tokens ({self.max_new_tokens}) must be below max_context_tokens ({self.max_context_tokens})"
            )
        return self

    @model_validator(mode="after")
    def servers_are_read(self) -> Rollout:
        if self.engine == "vllm":
            return self
        given: dict[str, Any] = {"urls": self.vllm.urls, "servers": self.vllm.servers, "python": self.vllm.python}
        for name, value in (given | {"args": self.vllm.args}).items():
            if value:
                raise ValueError(f"vllm.{name} is not read when engine=torch; leave it out, or set rollout.engine=vllm")
        if self.max_staleness:
            raise ValueError(
                f"max_staleness ({self.max_staleness}) must be 0 when engine=torch: the model cannot sample while it "
                "learns; set rollout.engine=vllm"
            )
        return self
