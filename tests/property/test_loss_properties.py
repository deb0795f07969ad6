"""What must hold for every loss: the split, masks, signs, and groups without signal."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from empg_cli.algorithms.advantages import group_relative, leave_one_out
from empg_cli.algorithms.assemble import compute_loss, loss_weights
from empg_cli.algorithms.empg import modulate
from empg_cli.config.algo import CispoLoss, ClipLoss, SequenceLoss

SHARED = {
    "weighting": "token",
    "constant_tokens": None,
    "kl_coef": 0.01,
    "kl_estimator": "k3",
    "kl_clamp": None,
    "entropy_coef": 0.001,
    "importance_cap": None,
}
CLIP = ClipLoss(kind="clip", clip_low=0.2, clip_high=0.28, dual_clip=3.0, **SHARED)
LOSSES = [
    CLIP,
    SequenceLoss(kind="gspo", clip_low=0.1, clip_high=0.2, sequence="step", length_normalised=True, **SHARED),
    SequenceLoss(kind="gspo", clip_low=0.1, clip_high=0.2, sequence="step", length_normalised=False, **SHARED),
    CispoLoss(kind="cispo", clip_low=1.0, clip_high=4.0, **SHARED),
]
WEIGHTINGS = ["token", "step", "trajectory", "constant"]


def with_weighting(loss, weighting):
    return loss.model_copy(update={"weighting": weighting, "constant_tokens": 16 if weighting == "constant" else None})


def with_knobs(loss, **knobs):
    return loss.model_copy(update=knobs)


class Micro:
    """Twelve steps of five trajectories: log-probs that depend on parameters, ragged masks, rubbish under the mask."""

    def __init__(self, seed):
        generator = torch.Generator().manual_seed(seed)
        steps, tokens = 12, 5
        self.parameters = torch.randn(steps, tokens, 4, generator=generator, dtype=torch.float64, requires_grad=True)
        length_S = torch.randint(1, tokens + 1, (steps,), generator=generator)
        self.mask_ST = torch.arange(tokens) < length_S[:, None]
        self.trajectory_S = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 4, 4])
        log_pi, _ = self.policy()
        noise_ST = torch.randn(steps, tokens, generator=generator, dtype=torch.float64)
        rubbish = torch.tensor(float("nan"), dtype=torch.float64)
        self.old_ST = torch.where(self.mask_ST, log_pi.detach() + 0.3 * noise_ST, rubbish)
        self.ref_ST = torch.where(self.mask_ST, log_pi.detach() - 0.2 * noise_ST, rubbish)
        self.credit_S = torch.randn(steps, generator=generator, dtype=torch.float64)

    def policy(self):
        log_pi = torch.log_softmax(self.parameters, dim=-1)
        return log_pi[..., 0], -(log_pi.exp() * log_pi).sum(dim=-1)

    def gradient(self, settings, parts, credit_S=None):
        """Gradient and summed metrics over these parts of the steps."""
        weight_ST = loss_weights(settings, self.mask_ST, self.trajectory_S).double()
        logprob_ST, entropy_ST = self.policy()
        credit_S = self.credit_S if credit_S is None else credit_S
        total, metrics = 0.0, {}
        for rows in parts:
            terms = compute_loss(
                settings,
                logprob_ST=logprob_ST[rows],
                entropy_ST=entropy_ST[rows],
                old_logprob_ST=self.old_ST[rows],
                ref_logprob_ST=self.ref_ST[rows],
                credit_S=credit_S[rows],
                mask_ST=self.mask_ST[rows],
                weight_ST=weight_ST[rows],
                trajectory_S=self.trajectory_S[rows],
            )
            total = total + terms.loss
            for name, value in terms.metrics.items():
                metrics[name] = metrics.get(name, 0.0) + float(value)
        return torch.autograd.grad(total, self.parameters)[0], metrics


WHOLE = [slice(None)]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.kind)
@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("parts", [2, 3, 6, 12])
def test_gradient_and_metrics_do_not_depend_on_the_split(loss, weighting, parts):
    batch, loss = Micro(parts), with_weighting(loss, weighting)
    expected, expected_metrics = batch.gradient(loss, WHOLE)
    gradient, metrics = batch.gradient(loss, [slice(i, None, parts) for i in range(parts)])
    torch.testing.assert_close(gradient, expected, atol=1e-12, rtol=0)
    assert metrics == pytest.approx(expected_metrics, abs=1e-12)


def test_a_trajectory_ratio_is_split_between_trajectories():
    loss = with_knobs(LOSSES[1], sequence="trajectory", weighting="trajectory")
    batch = Micro(0)
    expected, _ = batch.gradient(loss, WHOLE)
    gradient, _ = batch.gradient(loss, [slice(0, 5), slice(5, 10), slice(10, 12)])
    torch.testing.assert_close(gradient, expected, atol=1e-12, rtol=0)


def test_a_trajectory_ratio_without_trajectories_is_refused():
    loss, batch = with_knobs(LOSSES[1], sequence="trajectory"), Micro(0)
    logprob_ST, entropy_ST = batch.policy()
    with pytest.raises(ValueError, match="trajectory_S"):
        compute_loss(
            loss,
            logprob_ST=logprob_ST,
            entropy_ST=entropy_ST,
            old_logprob_ST=batch.old_ST,
            ref_logprob_ST=batch.ref_ST,
            credit_S=batch.credit_S,
            mask_ST=batch.mask_ST,
            weight_ST=batch.mask_ST.double(),
        )


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.kind)
def test_masked_tokens_get_exactly_zero_gradient_whatever_stands_there(loss):
    batch = Micro(1)
    gradient, _ = batch.gradient(loss, WHOLE)
    assert torch.isfinite(gradient).all()
    assert torch.equal(gradient[~batch.mask_ST], torch.zeros_like(gradient[~batch.mask_ST]))
    assert (gradient[batch.mask_ST].abs().sum(dim=-1) > 0).any()


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.kind)
def test_zero_advantage_gives_zero_gradient(loss):
    batch = Micro(2)
    plain = with_knobs(loss, kl_coef=0.0, entropy_coef=0.0)
    gradient, _ = batch.gradient(plain, WHOLE, torch.zeros_like(batch.credit_S))
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("loss", [LOSSES[0], LOSSES[3]], ids=lambda loss: loss.kind)
def test_on_policy_every_loss_is_the_policy_gradient(loss):
    """With old = new the gradient is -sum w A grad log pi, whatever the clip."""
    batch = Micro(3)
    batch.old_ST = torch.where(batch.mask_ST, batch.policy()[0].detach(), batch.old_ST)
    gradient, metrics = batch.gradient(with_knobs(loss, kl_coef=0.0, entropy_coef=0.0), WHOLE)
    weight_ST = loss_weights(loss, batch.mask_ST, batch.trajectory_S).double()
    logprob_ST, _ = batch.policy()
    (expected,) = torch.autograd.grad(-(weight_ST * batch.credit_S[:, None] * logprob_ST).sum(), batch.parameters)
    torch.testing.assert_close(gradient, expected, atol=1e-12, rtol=0)
    assert metrics["actor/pg_clipfrac"] == metrics["actor/ppo_kl"] == 0.0


def test_terms_of_the_loss_add_up():
    batch = Micro(4)
    _, metrics = batch.gradient(CLIP, WHOLE)
    weight_ST = loss_weights(CLIP, batch.mask_ST, batch.trajectory_S).double()
    logprob_ST, entropy_ST = batch.policy()
    terms = compute_loss(
        CLIP,
        logprob_ST=logprob_ST,
        entropy_ST=entropy_ST,
        old_logprob_ST=batch.old_ST,
        ref_logprob_ST=batch.ref_ST,
        credit_S=batch.credit_S,
        mask_ST=batch.mask_ST,
        weight_ST=weight_ST,
    )
    expected = metrics["actor/pg_loss"] + 0.01 * metrics["actor/kl_loss"] - 0.001 * metrics["actor/entropy"]
    assert terms.loss.item() == pytest.approx(expected, abs=1e-12)
    assert not any(value.requires_grad for value in terms.metrics.values())


def test_kl_without_reference_is_refused():
    batch = Micro(5)
    logprob_ST, entropy_ST = batch.policy()
    with pytest.raises(ValueError, match=r"kl_coef is 0\.01"):
        compute_loss(
            CLIP,
            logprob_ST=logprob_ST,
            entropy_ST=entropy_ST,
            old_logprob_ST=batch.old_ST,
            ref_logprob_ST=None,
            credit_S=batch.credit_S,
            mask_ST=batch.mask_ST,
            weight_ST=batch.mask_ST.double(),
        )


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.kind)
def test_importance_weights_scale_the_policy_term_alone(loss):
    batch = Micro(6)
    logprob_ST, entropy_ST = batch.policy()
    arguments = {
        "logprob_ST": logprob_ST,
        "entropy_ST": entropy_ST,
        "old_logprob_ST": batch.old_ST,
        "ref_logprob_ST": batch.ref_ST,
        "credit_S": batch.credit_S,
        "mask_ST": batch.mask_ST,
        "weight_ST": loss_weights(loss, batch.mask_ST, batch.trajectory_S).double(),
    }
    plain = compute_loss(loss, **arguments).metrics
    capped = with_knobs(loss, importance_cap=1.5)
    same = compute_loss(capped, rollout_logprob_ST=batch.old_ST, **arguments).metrics
    assert same["actor/pg_loss"] == plain["actor/pg_loss"]
    assert same["rollout/importance/mean"].item() == pytest.approx(1.0)
    # the engine found every token half as likely: 2, capped at 1.5
    mismatch = compute_loss(capped, rollout_logprob_ST=batch.old_ST - 0.693147, **arguments).metrics
    assert mismatch["actor/pg_loss"].item() == pytest.approx(1.5 * plain["actor/pg_loss"].item())
    assert mismatch["actor/kl_loss"] == plain["actor/kl_loss"]
    assert mismatch["rollout/importance/truncated_frac"].item() == pytest.approx(1.0)


rewards = st.lists(st.sampled_from([0.0, 1.0, 0.1, -0.1, 10.0]), min_size=2, max_size=12)


@settings(max_examples=200, deadline=None)
@given(rewards, st.data())
def test_advantages_do_not_know_scale_shift_ids_or_order(values, data):
    reward_N = torch.tensor(values, dtype=torch.float64)
    group_N = torch.tensor(data.draw(st.lists(st.integers(-2, 2), min_size=len(values), max_size=len(values))))
    for estimator in (group_relative, leave_one_out):
        advantage_N = estimator(reward_N, group_N)
        renamed = estimator(reward_N, group_N * 1_000_003 - 7)
        assert torch.equal(advantage_N, renamed)
        # eps = 1e-6 beside a std of at least 0.03 leaves 3e-5
        torch.testing.assert_close(estimator(4 * reward_N + 3, group_N), advantage_N, atol=1e-4, rtol=0)
        torch.testing.assert_close(estimator(-reward_N, group_N), -advantage_N, atol=1e-9, rtol=0)
        order = torch.tensor(data.draw(st.permutations(range(len(values)))))
        torch.testing.assert_close(estimator(reward_N[order], group_N[order]), advantage_N[order], atol=1e-9, rtol=0)
        for group in group_N.unique():
            assert advantage_N[group_N == group].sum().item() == pytest.approx(0.0, abs=1e-9)


def test_a_group_without_signal_gets_exactly_what_the_bonus_gives():
    """Two groups, the second all failed: without EMPG nothing, with EMPG zeta f minus the batch mean."""
    advantage_N = group_relative(torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.tensor([0, 0, 1, 1]))
    assert torch.equal(advantage_N[2:], torch.zeros(2))
    trajectory_S = torch.tensor([0, 0, 1, 2, 2, 3])
    next_S = torch.tensor([1, -1, -1, 4, -1, -1])
    entropy_S = torch.tensor([0.0, 0.5, 1.0, 0.25, 0.75, 0.5])  # min 0, max 1: normalised as they are
    advantage_S = advantage_N[trajectory_S]
    scaling_S = modulate(advantage_S, entropy_S, next_S, zeta=0.0, center=False)
    assert torch.equal(scaling_S[3:], torch.zeros(3))
    credit_S = modulate(advantage_S, entropy_S, next_S, zeta=0.05)
    # before centring, step 3 gets .05 exp(-.75), steps 4 and 5 are the last of their trajectories: nothing
    mean = (scaling_S.sum() + 0.05 * (torch.exp(torch.tensor(-0.5)) + torch.exp(torch.tensor(-0.75)))) / 6
    expected = torch.tensor([0.05 * 0.472367, 0.0, 0.0]) - mean
    torch.testing.assert_close(credit_S[3:], expected, atol=1e-6, rtol=0)
