"""The part of the catalogue about what was sampled: what of it trains, and by which policy it was."""

from __future__ import annotations

from empg_cli.observe.metric import Metric

ROLLOUT = (
    Metric(
        "rollout/masked_trajectories",
        "trajectories",
        "Episodes of this update that do not train: those that ended in an environment error, and the last one of a "
        "group that has no other left. Resampled batches included.",
    ),
    Metric(
        "rollout/stale_groups",
        "groups",
        "Groups thrown away since the last update because a step of theirs was sampled more than "
        "`rollout.max_staleness` updates ago; only where that is above 0, as the two below.",
    ),
    Metric(
        "rollout/staleness/mean",
        "updates",
        "Updates between the policy that sampled a step and the one that learns from it, mean over the steps that "
        "train.",
    ),
    Metric("rollout/staleness/max", "updates", "Most of these."),
    Metric(
        "rollout/logprob_gap/max",
        "nats",
        "Largest absolute difference between the sampler's and the training model's log-prob of a token; same weights, "
        "where rollout/staleness/max is 0.",
    ),
    Metric("rollout/logprob_gap/mean", "nats", "Mean of the same over sampled tokens."),
    Metric(
        "rollout/logprob_gap/kl",
        "nats",
        "Estimate of KL from the sampler to the training model over sampled tokens: mean of r - 1 - log r, r = "
        "training / sampling probability.",
    ),
    Metric(
        "rollout/logprob_gap/ess",
        "share",
        "Effective sample size of importance sampling with these r: (sum r)^2 / (n sum r^2); 1 when both agree.",
    ),
    Metric(
        "rollout/probe_gap",
        "nats",
        "After the update's weights went to the servers of vLLM: mean absolute difference of log-probs of a few "
        "tokens, of the server where it is largest (`rollout.vllm.max_gap`).",
    ),
    Metric(
        "rollout/importance/mean",
        "1",
        "Token mean of min(training / sampling probability, `algo.loss.importance_cap`); 1 when both agree.",
    ),
    Metric("rollout/importance/truncated_frac", "share", "Tokens at that cap / tokens."),
)
