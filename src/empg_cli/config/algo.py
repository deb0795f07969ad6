"""The settings of an algorithm: how advantages, credit and loss are made. A knob that is not read is an error."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from empg_cli.config.node import Brought, Node

Control = Literal["none", "permuted", "permuted_within", "trajectory_mean", "inverted", "first_token", "valid_only"]
Order = Literal["scale_then_center", "center_then_scale", "bias_only"]
Scaled = Literal["all", "positive", "negative"]


class _Penalised(Node):
    penalty: Literal["step", "episode"]
    """Where the cost of an invalid action counts. episode: in the return that every step of the episode carries; step:
    in the score of the step that earned it, and of no other (verl-agent)."""


class _GroupStd(_Penalised):
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


class ReinforcePlusPlus(_Penalised):
    estimator: Literal["reinforce_pp"]
    statistics: Literal["token", "step"]
    """What counts once in the batch's mean and std: every token (verl) or every step."""
    gamma: float = Field(gt=0, le=1)
    """Discount of later rewards, per step."""


class ReinforcePlusPlusBaseline(_Penalised):
    estimator: Literal["reinforce_pp_baseline"]
    statistics: Literal["token", "step"]
    """What counts once in the batch's mean and std: every token (verl) or every step."""


class EpisodeAndStep(_GroupStd):
    statistics: Literal["trajectory", "step"]
    """Episode part: group mean and std over trajectories, or over all their steps (verl-agent's default)."""
    omega: NonNegativeFloat
    """Weight of the step part; 0 = the episode part alone."""


class Gigpo(EpisodeAndStep):
    """Episode advantage plus omega times the advantage among steps that answered the same observation."""

    estimator: Literal["gigpo"]
    gamma: float = Field(gt=0, le=1)
    """Discount of later rewards, per step."""
    similarity: float = Field(gt=0, le=1)
    """Texts at least this alike (difflib ratio) are one anchor state; 1 = equal texts only, and much faster."""


class Hgpo(_GroupStd):
    """Advantages among steps with the same last observations, the weighted mean over how many of them agree."""

    estimator: Literal["hgpo"]
    history: NonNegativeInt
    """Earlier observations that may have to agree (K); the authors take as many as a prompt shows. 0 = none."""
    alpha: NonNegativeFloat
    """A comparison of steps that agree in k observations has the weight (k + 1)^alpha; 0 = all alike."""
    gamma: float = Field(gt=0, le=1)
    """Discount of later rewards, per step."""


class GraphGpo(EpisodeAndStep):
    """Episode advantage plus omega times that of how near to success a step led, in a task's graph of observations."""

    estimator: Literal["graphgpo"]
    decay: float = Field(gt=0, lt=1)
    """A step that leaves d steps to success is worth goal * decay^d (the paper's omega: 0.1; on WebShop 0.2)."""
    goal: PositiveFloat
    """Worth of reaching success, in rewards: what `benchmark.success_reward` gives. Matters beside penalties."""


class G2po(EpisodeAndStep):
    """Episode advantage plus omega times that of the way from observation to observation, by values over all visits."""

    estimator: Literal["g2po"]
    gamma: float = Field(gt=0, le=1)
    """Discount of the episode's return per step between a visit and the end."""


class TurnCredit(EpisodeAndStep):
    """Episode advantage plus omega times the progress of the score, spread over the steps that led to it."""

    estimator: Literal["turn_credit"]
    gamma: float = Field(ge=0, le=1)
    """Share of a step in a progress made d steps later, gamma^d; 0 = the step that made it alone, 1 = all alike."""


Advantage = (
    GroupRelative
    | LeaveOneOut
    | ReinforcePlusPlus
    | ReinforcePlusPlusBaseline
    | Gigpo
    | Hgpo
    | GraphGpo
    | G2po
    | TurnCredit
)


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
    control: Control
    """A test of EMPG, not to train with: what takes the place of a step's own entropy. none: nothing; another step's of
    the batch (permuted) or of its trajectory (permuted_within); the trajectory's mean; inverted: the same weights, the
    greatest for the least sure step; first_token: the entropy of the first token alone; valid_only: the mean of valid,
    of refused actions."""
    order: Order
    """What g scales before the mean of the credit is subtracted. scale_then_center: A, as in the paper;
    center_then_scale: A - mean A; bias_only: mean A. The rest of A stays as it is."""
    scaled: Scaled
    """Steps that g scales, with mean 1 over them: all, or those with a positive or a negative advantage."""
    shift: float
    """A test of EMPG, not to train with: added to every advantage before g scales it. Without a scaling it would be
    centred away; with one it is the mean's part alone, shift (g - 1). 0 = off."""

    @model_validator(mode="after")
    def order_tells_where_the_mean_goes(self) -> Self:
        if self.order != "scale_then_center" and not self.center:
            raise ValueError(f"order={self.order} says where the mean is subtracted, so center must be true")
        return self

    @model_validator(mode="after")
    def a_shift_is_centred_away_but_for_the_scaling(self) -> Self:
        if self.shift and (not self.center or self.order == "center_then_scale"):
            raise ValueError(
                "shift must be 0 unless the mean is subtracted after g has scaled it: center must be true, and order "
                "scale_then_center or bias_only"
            )
        return self

    @model_validator(mode="after")
    def tail_belongs_to_quantile(self) -> Self:
        if self.normalise == "quantile" and self.tail is None:
            raise ValueError("tail must be given when normalise=quantile, for instance 0.05")
        if self.normalise != "quantile" and self.tail is not None:
            raise ValueError(f"tail is not read when normalise={self.normalise}; leave it null")
        return self


class CustomCredit(Brought):
    """A function from outside the package, as `empg.modulate` is one: (advantage_S, entropy_S, next_S, *, settings)."""

    kind: Literal["custom"]


Credit = NoCredit | EmpgCredit | CustomCredit


class _Loss(Node):
    weighting: Literal["token", "step", "trajectory", "constant"]
    """What counts once in the mean: every token, step or trajectory; constant: token sums over `constant_tokens`."""
    constant_tokens: PositiveInt | None
    """Tokens by which the sum over a trajectory is divided, read by weighting=constant (Dr. GRPO); null otherwise."""
    kl_coef: NonNegativeFloat
    """Weight of the KL loss to the reference policy; 0 = off, no reference model is kept."""
    kl_estimator: Literal["k1", "k2", "k3"]
    """Of the KL divergence (Schulman): k1 the log-ratio, k2 half its square, k3 unbiased and never negative."""
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
    """The ratio is clipped at 1 - clip_low."""
    clip_high: float = Field(gt=0)
    """And at 1 + clip_high."""
    dual_clip: float | None = Field(gt=1)
    """Bounds the loss of negative advantages at this ratio (verl: 3); null = off."""


class SequenceLoss(_Loss):
    """GSPO: one ratio for a sequence, clipped as one."""

    kind: Literal["gspo"]
    clip_low: float = Field(gt=0, lt=1)
    """The ratio is clipped at 1 - clip_low."""
    clip_high: float = Field(gt=0)
    """And at 1 + clip_high."""
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
    """The weight is clipped at 1 + clip_high."""


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
    """Full penalty, subtracted from the reward."""

    @model_validator(mode="after")
    def buffer_is_inside_limit(self) -> SoftOverlong:
        if self.buffer > self.limit:
            raise ValueError(f"buffer ({self.buffer}) must not exceed limit ({self.limit})")
        return self


class Algo(Node):
    name: str
    """Names runs and W&B groups; decides nothing."""
    group_size: int = Field(ge=2)
    """Trajectories per task; their mean is the baseline."""
    advantage: Annotated[Advantage, Field(discriminator="estimator")]
    credit: Annotated[Credit, Field(discriminator="kind")]
    loss: Annotated[Loss, Field(discriminator="kind")]
    sampling: Sampling
    overlong: Annotated[NoOverlong | SoftOverlong, Field(discriminator="kind")]
