"""Every setting of a run: type, range, unit, and what 0 or null means. Defaults live in conf/, nowhere else.

Frozen and closed: an unknown key is an error, and so is a knob that the chosen algorithm does not read.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)


class Node(BaseModel):
    """Strict: `true` is no number and `"8"` no integer; infinities and NaN are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


# --- model ---------------------------------------------------------------------------------------


class Architecture(Node):
    """Shape of a from-scratch Qwen2 model; read by `model.init=scratch`."""

    hidden_size: PositiveInt
    num_layers: PositiveInt
    num_heads: PositiveInt
    num_kv_heads: PositiveInt
    mlp_size: PositiveInt

    @model_validator(mode="after")
    def heads_fit(self) -> Architecture:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size ({self.hidden_size}) must be a multiple of num_heads ({self.num_heads})")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_heads ({self.num_heads}) must be a multiple of num_kv_heads ({self.num_kv_heads})")
        return self


class Model(Node):
    name: str
    init: Literal["packaged", "pretrained", "scratch"]
    """packaged: the weights shipped with empg for this benchmark; pretrained: `path`; scratch: random `arch`."""
    path: str | None
    """Folder or hub id of a Hugging Face model; read by init=pretrained."""
    prompt: Literal["compact", "chat"]
    """compact: a closed-vocabulary form for tiny models; chat: the model's chat template, think and action tags."""
    dtype: Literal["float32", "bfloat16"]
    gradient_checkpointing: bool
    """Recompute activations in backward: less memory, about a third more time."""
    arch: Architecture | None

    @model_validator(mode="after")
    def init_has_what_it_reads(self) -> Model:
        if self.init == "pretrained" and not self.path:
            raise ValueError("path must name a model folder or hub id when init=pretrained")
        if self.init == "scratch" and self.arch is None:
            raise ValueError("arch must be given when init=scratch: model=tiny-scratch has one")
        if self.init != "scratch" and self.arch is not None:
            raise ValueError(f"arch is not read when init={self.init}; leave it null, or choose model=tiny-scratch")
        if self.init != "pretrained" and self.path is not None:
            raise ValueError(f"path is not read when init={self.init}; leave it null, or set model.init=pretrained")
        if self.init != "pretrained" and self.prompt == "chat":
            raise ValueError(
                f"prompt must be compact when init={self.init}: only pretrained models have a chat template"
            )
        return self


# --- benchmark -----------------------------------------------------------------------------------


class BenchmarkNode(Node):
    data_dir: str | None
    """Official data; null plays generated data, and every report says so."""
    split: str
    """The split that evaluation plays. Training tasks always come from `train`."""
    eval_tasks: PositiveInt | None
    """The first n tasks of the split; null = all of them, each exactly once."""
    max_steps: int = Field(ge=1, le=200)
    """Model calls in an episode; refused actions count."""
    success_reward: PositiveFloat
    """Reward of a solved task (0 otherwise). verl-agent uses 10."""
    invalid_action_penalty: NonNegativeFloat
    """Subtracted from the reward for every step whose action is invalid; 0 = off."""
    invalid_action_scope: Literal["format", "admissible"]
    """format: only malformed responses are invalid (verl-agent); admissible: refused actions too."""


class Alfworld(BenchmarkNode):
    name: Literal["alfworld"]
    split: Literal["train", "valid_seen", "valid_unseen"]
    task_types: Annotated[
        list[
            Literal[
                "pick_and_place_simple",
                "look_at_obj_in_light",
                "pick_clean_then_place_in_recep",
                "pick_heat_then_place_in_recep",
                "pick_cool_then_place_in_recep",
                "pick_two_obj_and_place",
            ]
        ],
        Field(min_length=1),
    ]
    """Task types to play, in training and evaluation."""
    train_games: PositiveInt
    """Generated games in the train split; official data brings its own count."""
    game_seed: NonNegativeInt
    """Seed of the generated games."""


class Webshop(BenchmarkNode):
    name: Literal["webshop"]
    official_set: Literal["small", "full"]
    """Which files of data_dir to read: the 1,000 products that published RL results use, or all 1.18 million.
    Not read when data_dir is null or a compiled catalogue."""
    num_products: int = Field(ge=10)
    """Products of the generated shop; official data brings its own count."""
    shop_seed: NonNegativeInt
    """Seed of the generated products."""
    price_seed: NonNegativeInt
    """Seed of prices and price ceilings, which the official server draws anew at each start."""
    goals: Literal["synthetic", "human"]
    """Instructions from a template, one per combination of options, or written by people."""
    split_scheme: Literal["paper", "verl", "by_product"]
    """paper: test 0-500, eval 500-1500, train the rest; verl: test 0-500, train the rest; by_product: no product in two
    splits."""
    split: Literal["train", "eval", "test"]
    nouns: Literal["auto", "spacy", "words"]
    """Finds the nouns of titles for the reward; auto: spaCy for official data if it is installed, else word lists."""
    observation: Literal["text", "text_rich"]
    """text: WebShop's usual one-line form; text_rich: a line per element, buttons and chosen options marked."""
    show_attributes: bool
    """Give items a sub-page with the attributes that the reward compares; off in published results."""
    reward: Literal["success", "score"]
    """success: success_reward for a score of 1, else 0; score: the score, 0 to 1 (success_reward is not read)."""
    expert: Literal["shopper", "goal"]
    """Who demonstrates, hints and plays `empg eval policy=expert`: a shopper that decides by what an agent sees, or one
    that knows the product that is wanted (the ceiling of what can be reached)."""

    @model_validator(mode="after")
    def split_is_of_the_scheme(self) -> Webshop:
        if self.split == "eval" and self.split_scheme == "verl":
            raise ValueError("split must be train or test when split_scheme=verl")
        return self


Benchmark = Annotated[Alfworld | Webshop, Field(discriminator="name")]


# --- algorithm -----------------------------------------------------------------------------------


class _GroupStd(Node):
    scale_by_std: bool
    """Divide by the group's standard deviation."""
    unbiased_std: bool
    """Variance over n - 1, as verl, verl-agent and TRL take it, instead of n."""

    @model_validator(mode="after")
    def unbiased_belongs_to_std(self) -> Self:
        if self.unbiased_std and not self.scale_by_std:
            raise ValueError("unbiased_std is not read when scale_by_std=false; set it to false")
        return self


class GroupRelative(_GroupStd):
    """GRPO; scale_by_std=false gives the Dr. GRPO form."""

    estimator: Literal["group_relative"]
    statistics: Literal["trajectory", "step"]
    """Group mean and std over trajectories, or over all their steps (verl-agent's default)."""


class LeaveOneOut(_GroupStd):
    """RLOO; as published with scale_by_std=false."""

    estimator: Literal["leave_one_out"]


class ReinforcePlusPlus(Node):
    estimator: Literal["reinforce_pp"]
    statistics: Literal["token", "step"]
    """What counts once in the batch's mean and std: every token (verl) or every step."""
    gamma: float = Field(gt=0, le=1)
    """Discount of later rewards, per step."""


class ReinforcePlusPlusBaseline(Node):
    estimator: Literal["reinforce_pp_baseline"]
    statistics: Literal["token", "step"]
    """What counts once in the batch's mean and std: every token (verl) or every step."""


class Gigpo(_GroupStd):
    """Episode advantage plus omega times the advantage among steps that answered the same observation."""

    estimator: Literal["gigpo"]
    statistics: Literal["trajectory", "step"]
    """Episode part: group mean and std over trajectories, or over all their steps (verl-agent's default)."""
    gamma: float = Field(gt=0, le=1)
    """Discount of later rewards, per step."""
    omega: NonNegativeFloat
    """Weight of the step part; 0 = the episode part alone."""
    similarity: float = Field(gt=0, le=1)
    """Texts at least this alike (difflib ratio) are one anchor state; 1 = equal texts only, and much faster."""


Advantage = GroupRelative | LeaveOneOut | ReinforcePlusPlus | ReinforcePlusPlusBaseline | Gigpo


class NoCredit(Node):
    kind: Literal["none"]


class EmpgCredit(Node):
    """Entropy-modulated credit (arXiv 2509.09265); the paper's k = k_future = 1, zeta 0.05 (0.1 on Deep Search)."""

    kind: Literal["empg"]
    k: NonNegativeFloat
    """Sharpness of g(H); 0 turns gradient scaling off."""
    k_future: NonNegativeFloat
    """Sharpness of the future-clarity bonus f(H)."""
    zeta: NonNegativeFloat
    """Weight of the future-clarity bonus; 0 turns it off."""
    center: bool
    """Subtract the batch mean of the credit over steps (Eq. 9)."""
    normalise: Literal["minmax", "quantile", "anchor"]
    """minmax: the paper's Eq. 8; quantile: min-max between quantiles; anchor: against the usual entropy of a state."""
    tail: float | None = Field(ge=0, lt=0.5)
    """Share of steps cut at either end, read by normalise=quantile; null otherwise."""

    @model_validator(mode="after")
    def tail_belongs_to_quantile(self) -> Self:
        if self.normalise == "quantile" and self.tail is None:
            raise ValueError("tail must be given when normalise=quantile, for instance 0.05")
        if self.normalise != "quantile" and self.tail is not None:
            raise ValueError(f"tail is not read when normalise={self.normalise}; leave it null")
        return self


class _Loss(Node):
    weighting: Literal["token", "step", "trajectory", "constant"]
    """What counts once in the mean: every token, step or trajectory; constant: token sums over `constant_tokens`."""
    constant_tokens: PositiveInt | None
    """Tokens by which the sum over a trajectory is divided, read by weighting=constant (Dr. GRPO); null otherwise."""
    kl_coef: NonNegativeFloat
    """Weight of the KL loss to the reference policy; 0 = off, no reference model is kept."""
    kl_estimator: Literal["k1", "k2", "k3"]
    kl_clamp: PositiveFloat | None
    """Bound of a token's KL estimate (verl: 10); null = off."""
    entropy_coef: NonNegativeFloat
    """Weight of the entropy bonus; 0 = off."""
    importance_cap: PositiveFloat | None
    """Truncated importance sampling: bound of training over sampling probability of a token; null = off."""

    @model_validator(mode="after")
    def constant_tokens_belong_to_constant(self) -> Self:
        if self.weighting == "constant" and self.constant_tokens is None:
            raise ValueError("constant_tokens must be given when weighting=constant, for instance 1024")
        if self.weighting != "constant" and self.constant_tokens is not None:
            raise ValueError(f"constant_tokens is not read when weighting={self.weighting}; leave it null")
        return self


class ClipLoss(_Loss):
    """PPO's clip with separate bounds."""

    kind: Literal["clip"]
    clip_low: float = Field(gt=0, lt=1)
    clip_high: float = Field(gt=0)
    dual_clip: float | None = Field(gt=1)
    """Bounds the loss of negative advantages at this ratio (verl: 3); null = off."""


class SequenceLoss(_Loss):
    """GSPO: one ratio for a sequence, clipped as one."""

    kind: Literal["gspo"]
    clip_low: float = Field(gt=0, lt=1)
    clip_high: float = Field(gt=0)
    sequence: Literal["step", "trajectory"]
    """What shares a ratio. A trajectory must be one row: rollout.context=transcript."""
    length_normalised: bool
    """Mean of the log-ratios (GSPO); false: their sum, TRL's RLOO loss."""


class CispoLoss(_Loss):
    """CISPO: the clipped ratio is a weight, every token keeps its gradient."""

    kind: Literal["cispo"]
    clip_low: float = Field(gt=0, le=1)
    """1 = no lower bound."""
    clip_high: float = Field(gt=0)


Loss = ClipLoss | SequenceLoss | CispoLoss


class Sampling(Node):
    drop_uniform_groups: bool
    """DAPO's dynamic sampling: groups whose members all got the same reward are replaced."""
    max_resamples: PositiveInt | None
    """Further rollout batches tried to fill the update; null when groups are kept."""

    @model_validator(mode="after")
    def resamples_belong_to_dropping(self) -> Sampling:
        if self.drop_uniform_groups and self.max_resamples is None:
            raise ValueError("max_resamples must be at least 1 when drop_uniform_groups=true")
        if not self.drop_uniform_groups and self.max_resamples is not None:
            raise ValueError("max_resamples is not read when drop_uniform_groups=false; leave it null")
        return self


class NoOverlong(Node):
    kind: Literal["none"]


class SoftOverlong(Node):
    """DAPO's soft overlong punishment (arXiv 2503.14476, Eq. 13), in sampled tokens of a trajectory."""

    kind: Literal["soft"]
    limit: PositiveInt
    """Sampled tokens from which the penalty is full."""
    buffer: PositiveInt
    """Tokens below the limit over which the penalty grows from 0."""
    penalty: PositiveFloat

    @model_validator(mode="after")
    def buffer_is_inside_limit(self) -> SoftOverlong:
        if self.buffer > self.limit:
            raise ValueError(f"buffer ({self.buffer}) must not exceed limit ({self.limit})")
        return self


class Algo(Node):
    name: str
    group_size: int = Field(ge=2)
    """Trajectories per task; their mean is the baseline."""
    advantage: Annotated[Advantage, Field(discriminator="estimator")]
    credit: Annotated[NoCredit | EmpgCredit, Field(discriminator="kind")]
    loss: Annotated[Loss, Field(discriminator="kind")]
    sampling: Sampling
    overlong: Annotated[NoOverlong | SoftOverlong, Field(discriminator="kind")]


# --- rollout, trainer, logger --------------------------------------------------------------------


class Rollout(Node):
    engine: Literal["torch"]
    context: Literal["window", "transcript"]
    """transcript: append-only, one row per trajectory; window: a new prompt each step with the last `history` pairs."""
    history: NonNegativeInt
    """Observation-action pairs that a window prompt repeats; 0 with transcript, which does not read it."""
    temperature: PositiveFloat
    eval_temperature: NonNegativeFloat
    """0 = greedy."""
    max_new_tokens: PositiveInt
    """Longest response of one step; a longer one is cut and ends there."""
    max_context_tokens: PositiveInt
    """A trajectory whose next prompt would not fit ends with status context_overflow."""

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


class WarmStart(Node):
    """Imitation of the expert before RL."""

    steps: NonNegativeInt
    """Optimiser steps; 0 = off."""
    batch_size: PositiveInt
    """Demonstrations in a step, each a new game."""
    lr: PositiveFloat
    mistakes: float = Field(ge=0, le=1)
    """Probability of a random admissible action in a demonstration; the expert recovers. Mistakes never train."""
    prompt_weight: float = Field(ge=0, le=1)
    """Weight of the loss on observation tokens; 0 = actions only."""


class Trainer(Node):
    updates: NonNegativeInt
    tasks_per_update: PositiveInt
    lr: PositiveFloat
    lr_warmup: NonNegativeInt
    """Updates over which the learning rate grows from 0; 0 = none."""
    lr_schedule: Literal["constant", "linear", "cosine"]
    """After the warm-up: constant, or decaying to a tenth at the last update."""
    weight_decay: NonNegativeFloat
    max_grad_norm: PositiveFloat
    epochs: PositiveInt
    """Passes over each rollout batch."""
    minibatches: PositiveInt
    """Optimiser steps in a pass."""
    tokens_per_microbatch: PositiveInt
    """Padded tokens in one forward and backward; changes memory and speed, never the gradient."""
    old_logprobs: Literal["rollout", "recompute"]
    """Take old log-probs and entropies from the sampler, or from a scoring pass of the training model."""
    eval_every: NonNegativeInt
    """Updates between evaluations; 0 = only before and after. An evaluation always ends a run."""
    eval_before: bool
    """Evaluate the initial policy."""
    checkpoint_every: NonNegativeInt
    """Updates between checkpoints; 0 = only at the end."""
    keep_checkpoints: PositiveInt
    device: str = Field(pattern=r"^(auto|cpu|cuda|cuda:\d+)$")
    """auto (cuda when there is one, else cpu), cpu, cuda, cuda:1 ..."""
    threads: NonNegativeInt
    """Torch CPU threads; 0 = leave torch's own choice."""
    warm_start: WarmStart


class Wandb(Node):
    mode: Literal["auto", "online", "offline", "disabled"]
    """auto: online when logged in, else offline; never asks."""
    project: str
    entity: str | None
    group: str | None
    """null = experiment name without the seed."""
    tags: list[str]


class Logger(Node):
    console: Literal["auto", "rich", "plain", "quiet"]
    csv: bool
    wandb: Wandb


class TrainConfig(Node):
    seed: NonNegativeInt
    run_dir: str
    resume: str | None
    """auto: go on from the newest good checkpoint in run_dir if there is one; a path: from there; null: start anew."""
    model: Model
    benchmark: Benchmark
    algo: Algo
    rollout: Rollout
    trainer: Trainer
    logger: Logger

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
    def minibatches_have_trajectories(self) -> TrainConfig:
        trajectories = self.trainer.tasks_per_update * self.algo.group_size
        if self.trainer.minibatches > trajectories:
            raise ValueError(
                f"trainer.minibatches ({self.trainer.minibatches}) must not exceed the trajectories of an update "
                f"({trajectories} = {self.trainer.tasks_per_update} tasks x group of {self.algo.group_size})"
            )
        return self


class EvalConfig(Node):
    """`empg eval run=DIR`: what is played comes from the run's own config unless it is given here."""

    run: str | None
    """A run folder or a checkpoint folder; null evaluates `policy` on the composed benchmark."""
    policy: Literal["model", "expert"]
    seed: NonNegativeInt
    run_dir: str
    model: Model
    benchmark: Benchmark
    rollout: Rollout
    trainer: Trainer
    logger: Logger
