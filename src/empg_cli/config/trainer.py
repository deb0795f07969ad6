"""How a run is trained, watched, stopped and saved: the settings under `trainer`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from empg_cli.config.node import Node


class WarmStart(Node):
    """Imitation before RL: of the benchmark's expert, or of the demonstrations in a file (docs/warm-start.md)."""

    file: str | None
    """Demonstrations, a JSON object a line: conversations, or episodes that `empg train` or `empg eval` has kept.
    null = the benchmark's expert, anew for each step."""
    steps: NonNegativeInt
    """Optimiser steps; 0 = off, or with `file` what `epochs` passes take."""
    epochs: PositiveInt
    """Passes over `file`, read where `steps` is 0."""
    held_out: float = Field(ge=0, lt=1)
    """Share of the demonstrations in `file` that do not train: their loss is logged before and after."""
    batch_size: PositiveInt
    """Demonstrations in a step. Those of the expert are of a new task each; one that fails is replaced."""
    lr: PositiveFloat
    """The highest learning rate of the warm start."""
    mistakes: float = Field(ge=0, le=1)
    """Probability of a random admissible action in a demonstration of the expert, who recovers. It never trains."""
    prompt_weight: float = Field(ge=0, le=1)
    """Weight of the loss on tokens that are no answer: prompts and observations; 0 = answers only."""
    keep_failed: bool
    """Imitate episodes that failed, too: a demonstrator with a habit to unlearn (benchmark.expert_haste)."""

    @property
    def is_on(self) -> bool:
        return self.steps > 0 or self.file is not None

    @model_validator(mode="after")
    def one_length(self) -> WarmStart:
        if self.epochs > 1 and (self.file is None or self.steps):
            why = "file=null" if self.file is None else f"steps={self.steps}"
            raise ValueError(f"epochs ({self.epochs}) is not read when {why}; leave it 1")
        return self


class Health(Node):
    """What is watched while a run trains (docs/health.md). Nothing here changes a number that trains."""

    preflight: Literal["off", "warn", "stop"]
    """Judge the first rollout batch, before the first update: below a floor, warn or stop with advice."""
    preflight_episodes: PositiveInt
    """A first batch of fewer episodes is not judged."""
    min_success_rate: float = Field(ge=0, le=1)
    """Floor of solved / played; 0 = none."""
    min_valid_actions: float = Field(ge=0, le=1)
    """Floor of well-formed and accepted actions / steps; 0 = none."""
    min_signal_groups: float = Field(ge=0, le=1)
    """Floor of groups whose members got different rewards / groups; 0 = none."""
    warn: bool
    """Watch for spikes and collapse; every detector warns once a run."""
    stop: bool
    """End the run with a checkpoint and exit code 3 at the first such warning."""
    spike_factor: NonNegativeFloat
    """KL loss or gradient norm above this many times its reference is a spike; 0 = off."""
    kl_floor: NonNegativeFloat
    """Nats; a KL loss below it is no spike."""
    entropy_ratio: float = Field(ge=0, lt=1)
    """Policy entropy below this share of its start has collapsed; 0 = off."""
    success_ratio: float = Field(ge=0, lt=1)
    """Training success below this share of its best has collapsed; 0 = off."""
    malformed_rise: float = Field(ge=0, le=1)
    """Rise of the share of malformed responses above its lowest; 0 = off."""
    no_signal_updates: NonNegativeInt
    """Updates in a row without a single group with a signal; 0 = off."""
    max_failed_calls: float = Field(ge=0, le=1)
    """Share of the calls of a search engine or judge without an answer, in a rollout or an evaluation; above it the run
    stops before it trains on that, and nothing is recorded. 1 = never."""
    max_bad_updates: NonNegativeInt
    """Updates in a row with an optimiser step left out for NaN or infinity, before the run ends; 0 = never."""

    @model_validator(mode="after")
    def stop_needs_warnings(self) -> Health:
        if self.stop and not self.warn:
            raise ValueError("stop is not read when warn=false; set warn=true, or leave stop=false")
        return self


class Trainer(Node):
    updates: NonNegativeInt
    """Rollout batches that are played and learned from; 0 = only evaluate."""
    tasks_per_update: PositiveInt
    """Tasks in a rollout batch; each is played algo.group_size times."""
    lr: PositiveFloat
    """Learning rate of AdamW at its highest."""
    lr_warmup: NonNegativeInt
    """Updates over which the learning rate grows from 0; 0 = none."""
    lr_schedule: Literal["constant", "linear", "cosine"]
    """After the warm-up: constant, or decaying to a tenth at the last update."""
    weight_decay: NonNegativeFloat
    """AdamW's, decoupled; 0 = none."""
    optimizer: Literal["adamw", "adamw8bit"]
    """adamw8bit: both moments in 8 bits, in blocks of 256 with a scale each (arXiv 2110.02861): 2 bytes a parameter in
    place of 8, and steps that differ a little (extra: bitsandbytes). The warm start's too."""
    max_grad_norm: PositiveFloat
    """A longer gradient is scaled down to this norm."""
    epochs: PositiveInt
    """Passes over each rollout batch."""
    minibatches: PositiveInt
    """Optimiser steps in a pass."""
    tokens_per_microbatch: PositiveInt | Literal["auto"]
    """Tokens that one forward and backward computes at most, a longer row excepted: those of packed rows, shared
    beginnings once, or padded ones; changes memory and speed, never the gradient. auto = as many as fit by the estimate
    of `empg plan`, up to 4,096 on a CPU and 32,768 on a GPU, settled when a run begins, and kept when it goes on."""
    oom: Literal["stop", "halve"]
    """When memory runs out in scoring or update: stop, or go on with half the tokens_per_microbatch from there on; the
    gradient stays the same but for rounding."""
    old_logprobs: Literal["rollout", "recompute"]
    """Take old log-probs and entropies from the sampler, or from a scoring pass of the training model."""
    eval_every: NonNegativeInt
    """Updates between evaluations; 0 = only before and after. An evaluation always ends a run."""
    eval_before: bool
    """Evaluate the initial policy."""
    checkpoint_every: NonNegativeInt
    """Updates between checkpoints; 0 = only at the end."""
    keep_checkpoints: PositiveInt
    """The newest n stay, and the best one beside them."""
    device: str = Field(pattern=r"^(auto|cpu|cuda|cuda:\d+)$")
    """auto (cuda when there is one, else cpu), cpu, cuda, cuda:1 ..."""
    threads: Annotated[int, Field(ge=0, le=1024)]
    """Torch CPU threads; 0 = leave torch's own choice."""
    watchdog: Annotated[float, Field(ge=0, le=10_000_000)]
    """Seconds without a turn or a micro-batch before the stacks of all threads go into `hang.txt`; 0 = never."""
    warm_start: WarmStart
    health: Health

    @property
    def microbatch_tokens(self) -> int:
        """`tokens_per_microbatch` as a number: auto is settled before anything is learned (`planning.auto`)."""
        assert self.tokens_per_microbatch != "auto", "settled before anything is learned"
        return self.tokens_per_microbatch
