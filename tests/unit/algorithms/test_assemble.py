"""The dispatch: every preset composes, chooses the formula its name says, and refuses knobs it does not read."""

import itertools
import math
import re
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from pydantic import ValidationError

from empg_cli.algorithms.assemble import compute_credit, compute_loss, loss_weights
from empg_cli.algorithms.normalise import normalise_between_quantiles, normalise_within_anchors
from empg_cli.algorithms.table import StepTable, merge_tables, step_table
from empg_cli.config.algo import Algo
from empg_cli.types import Batch

CONF = Path(__file__).parents[3] / "conf" / "algo"
PRESETS = sorted(path.stem for path in CONF.glob("*.yaml"))


def settings(name, **changes):
    """The preset as validated settings; changes as `advantage__statistics="step"`."""
    values = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    for key, value in changes.items():
        *groups, last = key.split("__")
        node = values
        for group in groups:
            node = node[group]
        node[last] = value
    return Algo(**values)


def make_batch():
    """Two tasks, four trajectories of 3, 1, 2 and 2 steps, rows of the second and third interleaved."""
    generator = torch.Generator().manual_seed(0)
    trajectory_S = torch.tensor([0, 0, 0, 1, 2, 3, 2, 3])
    next_S = torch.tensor([1, 2, -1, -1, 6, 7, -1, -1])
    mask_ST = torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 1], [1, 1, 0]])
    reward_S = torch.tensor([0.0, -0.1, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0])
    return Batch(
        row_ids=[],
        step_row_S=torch.arange(8),
        step_start_S=torch.ones(8, dtype=torch.long),
        mask_ST=mask_ST.bool(),
        token_ST=torch.zeros(8, 3, dtype=torch.long),
        old_logprob_ST=-torch.rand(8, 3, generator=generator),
        entropy_ST=torch.rand(8, 3, generator=generator),
        trajectory_S=trajectory_S,
        next_S=next_S,
        group_N=torch.tensor([5, 5, 2, 2]),
        reward_N=torch.zeros(4).index_add_(0, trajectory_S, reward_S),
        reward_S=reward_S,
        anchor_S=["start", "kitchen", "start", "start", "start", "start", "hall", "hall"],
        score_S=torch.tensor([0.25, 0.5, 1.0, 0.0, 0.0, 0.0, 1.0, 0.5]),
        is_won_N=torch.tensor([True, False, True, False]),
    )


BATCH = make_batch()
# The same batch as plain numbers, and what each preset makes of it, worked out without any of the package's functions.
EPISODES = [[0, 1, 2], [3], [4, 6], [5, 7]]  # rows of each trajectory, in order; the first two are attempts at one task
TOKENS = [3, 1, 2, 3, 2, 1, 3, 2]
ENTROPIES = [statistics.fmean(row[:size]) for row, size in zip(BATCH.entropy_ST.double().tolist(), TOKENS, strict=True)]


def over_std(values):
    """Each value less the mean, over the population's standard deviation and GRPO's epsilon."""
    return [(value - statistics.fmean(values)) / (statistics.pstdev(values) + 1e-6) for value in values]


def whitened(values):
    """Less the mean over tokens, over the sample deviation over tokens."""
    by_token = [value for value, size in zip(values, TOKENS, strict=True) for _ in range(size)]
    mean, variance = statistics.fmean(by_token), statistics.variance(by_token)
    return [(value - mean) / math.sqrt(variance + 1e-8) for value in values]


def modulated(advantages, zeta=0.05, center=True):
    """EMPG's Eq. 4 to 9 with k = k_future = 1, episode by episode."""
    low, high = min(ENTROPIES), max(ENTROPIES)
    confidence = [math.exp(-(entropy - low) / (high - low)) for entropy in ENTROPIES]
    credit = [a * g / statistics.fmean(confidence) for a, g in zip(advantages, confidence, strict=True)]
    for rows in EPISODES:
        for row, following in itertools.pairwise(rows):
            credit[row] += zeta * confidence[following]
    offset = statistics.fmean(credit) if center else 0.0
    return [value - offset for value in credit]


# returns .9 and 0, 1 and 0; in a pair the std is half of the difference
WON, LOST = 0.45 / (0.45 + 1e-6), 0.5 / (0.5 + 1e-6)
GRPO = [WON, WON, WON, -WON, LOST, -LOST, LOST, -LOST]
# discounted by .95: the first episode 1, then -.1 + .95 = .85, then .8075; the third 1, then .95. "start" was answered
# three times in the first task (rows 0, 2, 3) and twice in the second, "hall" twice, "kitchen" once
START = over_std([0.8075, 1.0, 0.0])
AMONG_ANCHORS = [
    START[0], 0.0, START[1], START[2], *over_std([0.95, 0.0]), *over_std([1.0, 0.0])
]  # fmt: skip
GIGPO = [episode + step for episode, step in zip(GRPO, AMONG_ANCHORS, strict=True)]
# HGPO: steps that saw the same before are the same ones (start and hall) or alone, so it says what the observations say
# GraphGPO: in the first task the start is one step from success and the kitchen two, so its steps lead to 2, 1, 0 and
# (lost) 3 steps before success; in the second both reach the hall, and from there success or 3. Worth 10 / 10^d
NEAR = over_std([0.1, 10.0, 0.01])
HALL = over_std([10.0, 0.01])
GRAPH = [a + b for a, b in zip(GRPO, [NEAR[0], 0.0, NEAR[1], NEAR[2], 0.0, 0.0, *HALL], strict=True)]
# G2PO: .9 or 0 and 1 or 0, discounted by .95 for every step that was left
START1, KITCHEN, START2, HALL_WORTH = (0.95**3 * 0.9 + 0.95 * 0.9 + 0) / 3, 0.95**2 * 0.9, 0.95**2 / 2, 0.95 / 2
LED = [KITCHEN, START1, 0.9, 0.0, HALL_WORTH, HALL_WORTH, 1.0, 0.0]
LEFT = [START1, KITCHEN, START1, START1, START2, START2, HALL_WORTH, HALL_WORTH]
AWAY, HOME = over_std([LED[0], LED[2], LED[3]]), over_std([1.0, 0.0])
GAIN = [led - left for led, left in zip(LED, LEFT, strict=True)]
EDGES = zip([AWAY[0], 0, AWAY[1], AWAY[2], 0, 0, *HOME], over_std(GAIN[:4]) + over_std(GAIN[4:]), strict=True)
G2PO = [episode + here + gain for episode, (here, gain) in zip(GRPO, EDGES, strict=True)]
# Turn credit, gamma .9. First episode: .25 of the second step over 1, .9 and .5 of the third over 1, .9, .81; the mean
# over 3, 1 and 2 tokens taken off. Third: 1 over two steps of 2 and 3 tokens; fourth: .5 over two of 1 and 2
EARLY = [0.9 * 0.25 / 1.9 + 0.81 * 0.5 / 2.71, 0.25 / 1.9 + 0.9 * 0.5 / 2.71, 0.5 / 2.71]
MEAN = (3 * EARLY[0] + EARLY[1] + 2 * EARLY[2]) / 6
THIRD, FOURTH = 1 / 1.9 - 0.9 / 1.9, 0.5 / 1.9 - 0.45 / 1.9
TURNS = [*(value - MEAN for value in EARLY), 0, -0.6 * THIRD, -FOURTH * 2 / 3, 0.4 * THIRD, FOURTH / 3]
TURN_CREDIT = [episode + shift for episode, shift in zip(GRPO, TURNS, strict=True)]
HALF = [0.45, 0.45, 0.45, -0.45, 0.5, -0.5, 0.5, -0.5]
EXPECTED = {
    "grpo": GRPO,
    "dapo": GRPO,
    "dapo_kl": GRPO,
    "gspo": GRPO,
    "cispo": GRPO,
    "dr_grpo": HALF,
    "rloo": [2 * value for value in HALF],  # against the other one
    "reinforce_pp": whitened([0.9, 0.9, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0]),  # what is still to come
    "reinforce_pp_baseline": whitened(HALF),
    "gigpo": GIGPO,
    "sampo": GIGPO,
    "hgpo": AMONG_ANCHORS,
    "graphgpo": GRAPH,
    "g2po": G2PO,
    "turn_credit": TURN_CREDIT,
    "empg": modulated(GRPO),
    "dapo_empg": modulated(GRPO),
    "gigpo_empg": modulated(GIGPO),
    "sampo_empg": modulated(GIGPO),
    "hgpo_empg": modulated(AMONG_ANCHORS),
    "graphgpo_empg": modulated(GRAPH),
    "g2po_empg": modulated(G2PO),
    "turn_credit_empg": modulated(TURN_CREDIT),
    "aem": modulated(GRPO, zeta=0.0, center=False),
}


@pytest.mark.parametrize("name", PRESETS)
def test_credit_of_every_preset(name):
    credit_S, metrics = compute_credit(settings(name), BATCH)
    assert credit_S.tolist() == pytest.approx(EXPECTED[name], abs=2e-6)
    assert metrics["critic/advantages/mean"] == pytest.approx(statistics.fmean(EXPECTED[name]), abs=1e-6)
    assert metrics["critic/advantages/max"] == pytest.approx(max(EXPECTED[name]), abs=2e-6)
    assert metrics["critic/rewards/max"] == 1.0
    assert metrics["group/zero_std_frac"] == 0.0
    assert metrics["empg/step_entropy/mean"] == pytest.approx(statistics.fmean(ENTROPIES), abs=1e-6)


@pytest.mark.parametrize("name", PRESETS)
def test_loss_of_every_preset_has_a_gradient(name):
    algo = settings(name)
    credit_S, _ = compute_credit(algo, BATCH)
    logprob_ST = (BATCH.old_logprob_ST + 0.05).requires_grad_()
    terms = compute_loss(
        algo.loss,
        logprob_ST=logprob_ST,
        entropy_ST=BATCH.entropy_ST,
        old_logprob_ST=BATCH.old_logprob_ST,
        ref_logprob_ST=BATCH.old_logprob_ST if algo.loss.kl_coef else None,
        credit_S=credit_S,
        mask_ST=BATCH.mask_ST,
        weight_ST=loss_weights(algo.loss, BATCH.mask_ST, BATCH.trajectory_S),
    )
    terms.loss.backward()
    assert logprob_ST.grad.abs().sum() > 0
    assert ("actor/kl_loss" in terms.metrics) == bool(algo.loss.kl_coef)


ARMS = {"empg": "grpo", "dapo_empg": "dapo_kl", "aem": "grpo"} | {
    name: name.removesuffix("_empg") for name in PRESETS if name.endswith("_empg") and name != "dapo_empg"
}


@pytest.mark.parametrize(("arm", "baseline"), ARMS.items())
def test_an_arm_differs_from_its_baseline_in_credit_alone(arm, baseline):
    with_empg, without = settings(arm).model_dump(), settings(baseline).model_dump()
    assert with_empg.pop("credit")["kind"] == "empg"
    assert without.pop("credit")["kind"] == "none"
    del with_empg["name"], without["name"]
    assert with_empg == without


def test_presets_hold_the_papers_values():
    empg = settings("empg")  # arXiv 2509.09265, Table 3
    assert (empg.credit.k, empg.credit.k_future, empg.credit.zeta, empg.group_size) == (1.0, 1.0, 0.05, 8)
    assert (empg.loss.clip_low, empg.loss.clip_high, empg.loss.kl_coef, empg.loss.entropy_coef) == (
        0.2,
        0.2,
        0.01,
        1e-3,
    )
    dapo = settings("dapo")  # arXiv 2503.14476, sec. 4.1
    assert (dapo.loss.clip_high, dapo.loss.kl_coef, dapo.overlong.limit, dapo.overlong.buffer) == (0.28, 0, 20480, 4096)
    assert (settings("gspo").loss.clip_low, settings("gspo").loss.clip_high) == (3e-4, 4e-4)  # 2507.18071, sec. 5.1
    assert (settings("gigpo").advantage.gamma, settings("gigpo").advantage.omega) == (0.95, 1.0)  # 2505.10978
    hgpo = settings("hgpo").advantage  # 2602.22817
    assert (hgpo.history, hgpo.alpha, hgpo.gamma) == (2, 1.0, 0.95)
    graph = settings("graphgpo").advantage  # 2605.26684, as its authors train on ALFWorld
    assert (graph.decay, graph.goal, graph.omega, graph.scale_by_std) == (0.1, 10.0, 1.0, True)
    g2po = settings("g2po").advantage  # 2606.22995, as its authors train on ALFWorld
    assert (g2po.gamma, g2po.omega, g2po.scale_by_std) == (0.95, 1.0, True)


def test_sampo_is_gigpos_advantage_gspos_ratio_and_dapos_filter():
    sampo, gspo = settings("sampo"), settings("gspo")  # ARLArena, arXiv 2602.21534
    assert sampo.advantage == settings("gigpo").advantage
    assert sampo.sampling == settings("dapo").sampling
    clip = {"clip_low": 3e-3, "clip_high": 4e-3}
    assert sampo.loss == gspo.loss.model_copy(update={**clip, "kl_coef": 0.01})
    # One token of a response is four times as likely, its credit 1: the ratio of its three is the cube root of 4, cut
    # at 1.004, and none of them has a gradient. The other response, as likely as it was, keeps its own.
    mask_ST = torch.ones(2, 3, dtype=torch.bool)
    logprob_ST = torch.tensor([[math.log(4.0) - 2, -2.0, -2.0], [-2.0, -2.0, -2.0]], requires_grad=True)
    terms = compute_loss(
        sampo.loss.model_copy(update={"kl_coef": 0.0}),
        logprob_ST=logprob_ST,
        entropy_ST=torch.zeros(2, 3),
        old_logprob_ST=torch.full((2, 3), -2.0),
        ref_logprob_ST=None,
        credit_S=torch.ones(2),
        mask_ST=mask_ST,
        weight_ST=loss_weights(sampo.loss, mask_ST, torch.tensor([0, 1])),
    )
    terms.loss.backward()
    assert terms.loss.item() == pytest.approx(-(1.004 + 1) / 2)
    assert logprob_ST.grad.tolist() == [[0.0] * 3, pytest.approx([-1 / 6] * 3)]


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("rloo", {"advantage__statistics": "step"}, "advantage.leave_one_out.statistics"),
        ("grpo", {"credit__zeta": 0.1}, "credit.none.zeta"),
        ("cispo", {"loss__dual_clip": 3.0}, "loss.cispo.dual_clip"),
        ("grpo", {"loss__sequence": "step"}, "loss.clip.sequence"),
        ("empg", {"credit__tail": 0.05}, "tail is not read when normalise=minmax"),
        ("empg", {"credit__normalise": "quantile"}, "tail must be given"),
        ("grpo", {"loss__constant_tokens": 100}, "constant_tokens is not read when weighting=token"),
        ("grpo", {"loss__weighting": "constant"}, "constant_tokens must be given"),
        ("dr_grpo", {"advantage__unbiased_std": True}, "unbiased_std is not read when scale_by_std=false"),
        ("grpo", {"sampling__max_resamples": 3}, "max_resamples is not read"),
        ("dapo", {"sampling__max_resamples": None}, "max_resamples must be at least 1"),
        ("dapo", {"overlong__buffer": 30000}, r"buffer \(30000\) must not exceed limit"),
        ("grpo", {"loss__dual_clip": 1.0}, "greater than 1"),
    ],
)
def test_a_knob_that_is_not_read_is_refused(name, changes, message):
    with pytest.raises(ValidationError) as error:
        settings(name, **changes)
    located = [".".join(map(str, e["loc"])) + " " + e["msg"] for e in error.value.errors()]
    assert any(re.search(message, text) for text in located), located


def test_statistics_over_steps_are_an_option():
    credit_S, _ = compute_credit(settings("grpo", advantage__statistics="step"), BATCH)
    # first task: .9 three times and 0 once, mean .675, std .9 sqrt(3)/4; second task: 1 and 0, twice each
    expected = [0.577350, 0.577350, 0.577350, -1.732051, 1.0, -1.0, 1.0, -1.0]
    assert credit_S.tolist() == pytest.approx(expected, abs=1e-5)


def test_overlong_penalty_changes_credit_but_not_the_batch():
    # trajectories have 6, 3, 5 and 3 tokens; limit 5, buffer 2: -1, 0, -1, 0
    changes = {"overlong": {"kind": "soft", "limit": 5, "buffer": 2, "penalty": 1.0}}
    before_N = BATCH.reward_N.clone()
    for name in ("grpo", "reinforce_pp", "gigpo", "hgpo", "graphgpo", "g2po"):
        _, metrics = compute_credit(settings(name, **changes), BATCH)
        assert metrics["dapo/overlong_frac"] == 0.5
        assert metrics["critic/rewards/mean"] == pytest.approx(before_N.mean().item() - 0.5)
    assert torch.equal(BATCH.reward_N, before_N)
    credit_S, _ = compute_credit(settings("dr_grpo", **changes), BATCH)
    # group 5: .9 - 1 = -.1 against 0
    torch.testing.assert_close(credit_S[0], torch.tensor(-0.05))


def test_normalisation_is_an_option_of_the_credit():
    quantile_S, _ = compute_credit(settings("empg", credit__normalise="quantile", credit__tail=0.2), BATCH)
    anchor_S, _ = compute_credit(settings("empg", credit__normalise="anchor"), BATCH)
    minmax_S, _ = compute_credit(settings("empg"), BATCH)
    no_tail_S, _ = compute_credit(settings("empg", credit__normalise="quantile", credit__tail=0.0), BATCH)
    torch.testing.assert_close(no_tail_S, minmax_S)
    assert not torch.allclose(quantile_S, minmax_S, atol=1e-3)
    assert not torch.allclose(anchor_S, minmax_S, atol=1e-3)


def test_one_outlier_flattens_min_max_but_not_quantiles():
    # 40 steps between 0.1 and 0.5, and one of 10 nats
    entropy_S = torch.cat([torch.linspace(0.1, 0.5, 40), torch.tensor([10.0])])
    credit = {}
    for name, normalised_S in (
        ("minmax", normalise_between_quantiles(entropy_S, tail=0.0)),
        ("quantile", normalise_between_quantiles(entropy_S, tail=0.05)),
    ):
        weight_S = torch.exp(-normalised_S[:40])
        credit[name] = (weight_S.max() / weight_S.min()).item()
    # of the factor e that separates extremes, the ordinary steps keep exp(0.4 / 9.9) under min-max
    assert credit["minmax"] == pytest.approx(1.0412, abs=1e-3)
    assert credit["quantile"] > 2.5
    with pytest.raises(ValueError, match="tail"):
        normalise_between_quantiles(entropy_S, tail=0.5)


def test_a_complex_state_is_not_taken_for_an_unsure_agent():
    # state 0 is always hard (1.0, 1.2), state 1 always easy (0.1, 0.3): within each, the same spread
    normalised_S = normalise_within_anchors(torch.tensor([1.0, 1.2, 0.1, 0.3]), torch.tensor([0, 0, 1, 1]))
    torch.testing.assert_close(normalised_S, torch.tensor([0.0, 1.0, 0.0, 1.0]), atol=1e-5, rtol=0)


def test_an_empty_batch_gives_empty_credit_and_no_nan():
    nothing, no_ids = torch.empty(0), torch.empty(0, dtype=torch.long)
    no_signs = no_ids.bool()
    table = StepTable(
        nothing, nothing, no_ids, no_ids, no_ids, nothing, no_ids, nothing, (), nothing, nothing, no_signs, nothing,
        no_signs,
    )  # fmt: skip
    for name in PRESETS:
        credit_S, metrics = compute_credit(settings(name), table)
        assert credit_S.shape == (0,)
        assert all(value == value for value in metrics.values())  # no NaN


def test_a_batch_that_lacks_what_an_estimator_reads_is_refused():
    without = step_table(replace(BATCH, is_won_N=None, score_S=None))
    for table in (without, merge_tables([step_table(BATCH), without])):
        with pytest.raises(ValueError, match=r"estimator=graphgpo reads is_won_N, and the batch has none"):
            compute_credit(settings("graphgpo"), table)
        with pytest.raises(ValueError, match=r"estimator=turn_credit reads score_S, and the batch has none"):
            compute_credit(settings("turn_credit"), table)
        compute_credit(settings("grpo"), table)


def test_the_share_of_steps_that_changed_the_score_is_logged():
    _, metrics = compute_credit(settings("turn_credit"), BATCH)
    assert metrics["turn_credit/progress_frac"] == 4 / 8  # .25 to .5 to 1, 0 to 1, 0 to .5


@pytest.mark.parametrize("name", ["gigpo", "graphgpo", "g2po", "turn_credit"])
def test_without_its_step_part_it_is_grpo(name):
    credit_S, _ = compute_credit(settings(name, advantage__omega=0.0), BATCH)
    assert credit_S.equal(compute_credit(settings("grpo"), BATCH)[0])


def test_merged_tables_point_at_their_own_rows():
    table = step_table(BATCH)
    merged = merge_tables([table, table])
    assert merged.next_S.tolist() == [*BATCH.next_S.tolist(), 9, 10, -1, -1, 14, 15, -1, -1]
    assert merged.trajectory_S.tolist() == [*BATCH.trajectory_S.tolist(), 4, 4, 4, 5, 6, 7, 6, 7]
    assert merged.tokens_of_trajectory.tolist() == [6, 3, 5, 3, 6, 3, 5, 3]
