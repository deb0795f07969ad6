"""What every metric means: one name, one definition. The source of docs/metrics.md and of `empg show --metrics`."""

from __future__ import annotations

from collections.abc import Iterable

from empg_cli.observe.catalogue_rollout import ROLLOUT
from empg_cli.observe.metric import Metric

FAMILIES = {
    "train": "Progress of the run; the x-axis of most curves.",
    "env": "What the environments and the policy have produced since the run began, training only: all that was "
    "played, what dynamic sampling dropped and what was too old included.",
    "episode": "All training episodes played for this update, those that dynamic sampling dropped included, sampled at "
    "`rollout.temperature`. Those that ended in an environment error are in `episode/env_error_frac` only.",
    "batch": "The episodes that this update trains on: of those played, without masked ones and dropped groups.",
    "num_turns": "Length of the training episodes played for this update, in turns (= steps).",
    "response_length": "Length of the responses sampled for this update, in tokens, one value per step.",
    "rollout": "What was sampled but does not train, and agreement between the sampler and the training model.",
    "deepsearch": "What Deep Search reports at the end of an episode: means over the training episodes of this "
    "update. In an evaluation the same names stand behind `eval/`.",
    "webshop": "What WebShop reports about a purchase: means over the training episodes of this update that bought "
    "something. In an evaluation the same names stand behind `eval/`.",
    "group": "The attempts at one task.",
    "critic": "What the loss is given. There is no value network; the family has verl's name.",
    "empg": "Entropy-modulated credit (arXiv 2509.09265), over all steps of the rollout batch.",
    "gigpo": "Steps that answered the same observation of a task, which GiGPO (arXiv 2505.10978) and others compare.",
    "turn_credit": "Progress of the benchmark's score within episodes.",
    "dapo": "Dynamic sampling and overlong shaping (arXiv 2503.14476).",
    "actor": "The policy's optimisation. Token means and shares are weighted as `algo.loss.weighting` says (every "
    "token alike under `constant`), and averaged over the optimiser steps of the update.",
    "hist": "One value per step in 20 equal bins between the lowest and the highest, in `histograms.jsonl` and as W&B "
    "histograms; not in `metrics.jsonl`.",
    "health": "What the health checks have seen (docs/health.md).",
    "eval": "The evaluation split, each task played exactly once, at `rollout.eval_temperature`.",
    "best": "The best evaluation of the run; in the summary only.",
    "last": "The last evaluation of the run; in the summary only.",
    "timing_s": "Wall-clock seconds of the phases of one update.",
    "perf": "Speed and memory. Like `timing_s`, these differ between two runs with the same seed; nothing else may.",
}

_REWARD = (
    "return of a trajectory as the advantage sees it: environment reward, minus invalid-action and overlong penalties"
)

_REPORTED = {
    "deepsearch/em": ("share", "Answers that match a gold answer exactly after normalisation; no answer counts as 0."),
    "deepsearch/f1": ("0..1", "Token F1 of the answer; no answer counts as 0, as in the two below."),
    "deepsearch/sub_em": ("share", "Answers that contain a gold answer."),
    "deepsearch/cover_em": ("share", "Answers that contain all tokens of a gold answer."),
    "deepsearch/well_formed": (
        "share",
        "Episodes whose transcript has the form of `benchmark.action_form`.",
    ),
    "deepsearch/step_limit": ("share", "Episodes that reached `benchmark.max_steps` without an answer."),
    "deepsearch/searches": ("searches", "Searches in an episode, failed ones included."),
    "deepsearch/opened_pages": ("pages", "Pages opened in an episode."),
    "deepsearch/failed_searches": ("searches", "Searches and pages of an episode that the engine did not answer."),
    "deepsearch/malformed_actions": ("steps", "Steps of an episode without a complete action."),
    "deepsearch/refused_actions": ("steps", "Steps of an episode whose action the environment refused."),
    "deepsearch/cut_queries": ("searches", "Queries of an episode that were too long and were cut."),
    "deepsearch/cut_observations": ("steps", "Observations of an episode cut at `benchmark.max_observation_chars`."),
    "webshop/total": ("0..1", "Score of the purchase."),
    "webshop/r_type": ("0..1", "Whether it was the right kind of product."),
    "webshop/r_attributes": ("share", "Wanted attributes that the product has."),
    "webshop/r_options": ("share", "Wanted options that were chosen."),
    "webshop/r_price": ("share", "Purchases within the price ceiling."),
}
"""Numbers in `StepResult.info` of the shipped benchmarks."""

METRICS = (
    # --- axes ---
    Metric("train/update", "updates", "Updates done; 0 is the initial policy."),
    Metric(
        "train/nonfinite",
        "count",
        "Values of this row that were NaN or infinite and are stored as null; absent when 0.",
    ),
    Metric("env/steps", "steps", "Model calls answered by an environment, training only, since the run began."),
    Metric("env/episodes", "episodes", "Training episodes played since the run began."),
    Metric("env/tokens", "tokens", "Sampled tokens of these episodes."),
    # --- what happened in training episodes ---
    Metric("episode/success_rate", "share", "Episodes that the benchmark calls solved / episodes played."),
    Metric("episode/score", "benchmark's own, 0..1", "Mean score of an episode."),
    Metric(
        "episode/reward/mean", "reward", "Mean undiscounted return of an episode, invalid-action penalties included."
    ),
    Metric("episode/length/mean", "steps", "Mean steps in an episode."),
    Metric(
        "episode/invalid_action_frac",
        "share",
        "Steps whose action is invalid (malformed or refused, each step once) / steps.",
    ),
    Metric("episode/malformed_frac", "share", "Steps whose response lacks the form that the prompt asks for / steps."),
    Metric("episode/refused_frac", "share", "Steps whose action the environment refused / steps."),
    Metric(
        "episode/context_overflow_frac", "share", "Episodes that ended because the next prompt did not fit / episodes."
    ),
    Metric(
        "episode/env_error_frac",
        "share",
        "Episodes that the environment could not finish or judge / episodes, those included; they are never scored.",
    ),
    *(Metric(name, unit, definition) for name, (unit, definition) in _REPORTED.items()),
    Metric("batch/episodes", "episodes", "Episodes that train in this update."),
    Metric("batch/groups", "groups", "Groups that train in this update."),
    Metric("batch/success_rate", "share", "Solved episodes / episodes, of those that train."),
    Metric("batch/reward/mean", "reward", "Mean undiscounted return of these, invalid-action penalties included."),
    Metric("num_turns/mean", "turns", "Mean turns in an episode; equals episode/length/mean."),
    Metric("num_turns/min", "turns", "Fewest turns in an episode."),
    Metric("num_turns/max", "turns", "Most turns in an episode."),
    Metric("response_length/mean", "tokens", "Mean sampled tokens of a response, end-of-turn token included."),
    Metric("response_length/max", "tokens", "Longest response."),
    Metric("response_length/clip_ratio", "share", "Responses cut at `rollout.max_new_tokens` / responses."),
    *ROLLOUT,
    # --- credit ---
    Metric(
        "group/zero_std_frac", "share", "Groups whose members all got the same reward / groups: they teach nothing."
    ),
    Metric("critic/rewards/mean", "reward", f"Mean {_REWARD}."),
    Metric("critic/rewards/min", "reward", "Lowest of these returns."),
    Metric("critic/rewards/max", "reward", "Highest of these returns."),
    Metric("critic/advantages/mean", "advantage", "Mean credit of a step, as the loss uses it (after EMPG, if on)."),
    Metric("critic/advantages/min", "advantage", "Lowest credit of a step."),
    Metric("critic/advantages/max", "advantage", "Highest credit of a step."),
    Metric(
        "empg/step_entropy/mean",
        "nats per token",
        "Mean over steps of H_t, a step's mean token entropy (Eq. 3); logged by every algorithm.",
    ),
    Metric("empg/step_entropy/p10", "nats per token", "10th percentile of H_t over steps."),
    Metric("empg/step_entropy/p90", "nats per token", "90th percentile of H_t over steps."),
    Metric(
        "empg/step_entropy/won",
        "nats per token",
        "Mean of H_t over the steps of solved episodes; logged by every algorithm, left out when there are none.",
    ),
    Metric("empg/step_entropy/lost", "nats per token", "The same for the steps of episodes that were not solved."),
    Metric("empg/weight/mean", "1", "Mean over steps of g(H_t), what the advantage is multiplied with (Eq. 5, 6): 1."),
    Metric("empg/weight/min", "1", "g of the least certain step."),
    Metric("empg/weight/max", "1", "g of the most certain step."),
    Metric("empg/weight/p10", "1", "10th percentile of g over steps."),
    Metric("empg/weight/p90", "1", "90th percentile of g over steps."),
    Metric(
        "empg/future_clarity/mean", "1", "Mean of f(H_{t+1}) (Eq. 7) over the steps that have a next one, before zeta."
    ),
    Metric("empg/future_clarity/p10", "1", "10th percentile of f over these steps."),
    Metric("empg/future_clarity/p90", "1", "90th percentile of f over these steps."),
    Metric(
        "empg/advantage_shift",
        "advantage",
        "Mean over steps of the absolute difference that EMPG makes to the advantage.",
    ),
    Metric(
        "empg/advantage_shift_relative",
        "1",
        "The same / mean absolute advantage: 0 = as without EMPG, 1 = it moves as much credit as there was; "
        "left out when every advantage is 0.",
    ),
    Metric(
        "empg/center_offset",
        "advantage",
        "What Eq. 9 subtracts from every step: the mean of the uncentred credit, A g + zeta f or what "
        "algo.credit.order puts in its place.",
    ),
    Metric(
        "empg/center_flip_frac",
        "share",
        "Steps whose sign Eq. 9 turns: the uncentred credit and the credit have opposite signs / steps.",
    ),
    Metric(
        "empg/sign_flip_frac",
        "share",
        "Steps that EMPG as a whole turns: advantage and credit have opposite signs / steps.",
    ),
    Metric("gigpo/anchor_size/mean", "steps", "Mean, over steps, of the number of steps that share its anchor state."),
    Metric("gigpo/repeated_frac", "share", "Steps whose anchor state another step of the group shares / steps."),
    Metric(
        "turn_credit/progress_frac",
        "share",
        "Steps that changed the score / steps. Where it is one step in an episode at most, only ends are scored.",
    ),
    Metric(
        "dapo/filtered_groups", "groups", "Groups thrown away in this update because all members got the same reward."
    ),
    Metric("dapo/resampled_batches", "batches", "Rollout batches sampled beyond the first to fill this update."),
    Metric("dapo/overlong_frac", "share", "Trajectories that the soft overlong penalty touched / trajectories."),
    # --- optimisation ---
    Metric("actor/pg_loss", "loss", "Clipped surrogate loss, without the KL and entropy terms."),
    Metric(
        "actor/kl_loss",
        "nats",
        "Token mean of the `algo.loss.kl_estimator` estimate of KL(policy, reference), before kl_coef.",
    ),
    Metric(
        "actor/ppo_kl",
        "nats",
        "Token mean of log pi_old - log pi, the k1 estimate of KL(old policy, policy): how far this update has moved.",
    ),
    Metric(
        "actor/entropy",
        "nats",
        "Token mean of the entropy of the policy over the full vocabulary at the sampling temperature.",
    ),
    Metric("actor/pg_clipfrac", "share", "Tokens held by the clip / tokens: clip_ratio/low + clip_ratio/high."),
    Metric(
        "actor/pg_clipfrac_lower", "share", "Tokens held by the dual clip (negative advantage) / tokens; 0 without one."
    ),
    Metric("actor/clip_ratio/low", "share", "Tokens held at 1 - clip_low (PPO clip: negative advantage) / tokens."),
    Metric("actor/clip_ratio/high", "share", "Tokens held at 1 + clip_high (PPO clip: positive advantage) / tokens."),
    Metric("actor/grad_norm", "L2 norm", "Norm of the whole gradient before clipping to `trainer.max_grad_norm`."),
    Metric("actor/lr", "1", "Learning rate of this update."),
    Metric(
        "actor/skipped_steps",
        "share",
        "Optimiser steps left out because of NaN or infinity in loss, gradient, entropies or log-probs / optimiser "
        "steps; absent when 0.",
    ),
    # --- histograms ---
    Metric("hist/step_entropy_won", "nats per token", "H_t of the steps of solved episodes."),
    Metric("hist/step_entropy_lost", "nats per token", "H_t of the steps of episodes that were not solved."),
    Metric("hist/weight", "1", "g(H_t) of every step."),
    Metric("hist/future_clarity", "1", "f(H_{t+1}) of the steps that have a next one."),
    Metric("hist/credit_shift", "advantage", "Credit - advantage of every step: how far and where EMPG moves it."),
    # --- health ---
    Metric(
        "health/kl_spikes",
        "count",
        "KL spikes since the run began: updates whose actor/kl_loss is above `trainer.health.spike_factor` times its "
        "reference and above `trainer.health.kl_floor`, neighbouring ones counted once. The reference is the median of "
        "the 20 updates before; while there are fewer, at least 3, their maximum, because KL grows from 0 at first.",
    ),
    Metric(
        "health/bad_updates",
        "count",
        "Updates with an optimiser step left out (actor/skipped_steps) since the run began; absent when 0.",
    ),
    Metric("health/warnings", "count", "Health warnings since the run began; health.jsonl holds them."),
    # --- evaluation ---
    Metric("eval/success_rate", "share", "Solved tasks / tasks judged."),
    Metric("eval/success_rate_lo", "share", "Lower end of its 95 % Wilson interval."),
    Metric("eval/success_rate_hi", "share", "Upper end of its 95 % Wilson interval."),
    Metric("eval/score", "benchmark's own, 0..1", "Mean score of a task."),
    Metric("eval/n", "tasks", "Tasks judged; the rates and means of an evaluation are over these."),
    Metric(
        "eval/not_judged", "tasks", "Tasks whose episode ended in an environment error; they count in no rate or mean."
    ),
    Metric("eval/valid_action_frac", "share", "Steps whose action was well-formed and accepted / steps."),
    Metric("eval/length/mean", "steps", "Mean steps in an evaluation episode."),
    Metric("eval/id/success_rate", "share", "Deep Search: mean of the in-distribution sources, each counting once."),
    Metric("eval/ood/success_rate", "share", "The same for the out-of-distribution sources."),
    Metric("eval/overall/success_rate", "share", "The same for all sources: the last column of the paper's Table 2."),
    Metric("eval/<kind>/success_rate", "share", "Solved / judged among the tasks of one type."),
    *(Metric(f"eval/{name}", unit, f"`{name}` over the judged tasks.") for name, (unit, _) in _REPORTED.items()),
    Metric("best/success_rate", "share", "Highest eval/success_rate of the run; the first one if several are equal."),
    Metric("best/update", "updates", "The update it was measured after."),
    Metric("last/success_rate", "share", "eval/success_rate of the last evaluation."),
    Metric("last/lo", "share", "Lower end of its 95 % Wilson interval."),
    Metric("last/hi", "share", "Upper end of its 95 % Wilson interval."),
    Metric("last/n", "tasks", "Tasks it judged."),
    # --- wall clock ---
    Metric(
        "timing_s/<phase>",
        "s",
        "Seconds spent in a phase: rollout, logprob, update, publish (weights to servers), eval; save is that before.",
    ),
    Metric(
        "perf/throughput",
        "tokens/s",
        "Sampled tokens of this update / perf/time_per_step.",
    ),
    Metric(
        "perf/time_per_step",
        "s",
        "Seconds since the previous row, all phases included (verl's name; its step is an update here).",
    ),
    Metric(
        "perf/padding",
        "share",
        "Padding / tokens that the update's forward passes compute, mean over optimiser steps; 0 for packed rows.",
    ),
    Metric(
        "perf/shared",
        "share",
        "Tokens of rows that the update does not compute, since another row of the micro-batch begins with the same, / "
        "tokens of rows, mean over optimiser steps; 0 where rows are padded.",
    ),
    Metric(
        "perf/tokens_per_microbatch",
        "tokens",
        "What trainer.oom=halve has made of trainer.tokens_per_microbatch; absent while memory suffices.",
    ),
    Metric(
        "perf/mem_gb", "GB (1e9 bytes)", "Peak memory since the run began: of the GPU if there is one, else resident."
    ),
)


def definition_of(key: str) -> Metric | None:
    """The definition of a logged key: the metric of that very name, else a family that it fits."""
    exact = next((metric for metric in METRICS if metric.name == key), None)
    return exact or next((metric for metric in METRICS if metric.matches(key)), None)


def undefined(keys: Iterable[str]) -> list[str]:
    """Keys that have no definition, sorted."""
    return sorted({key for key in keys if definition_of(key) is None})
