"""Each health detector on a series made by hand: fires where it must, and not one update before."""

from __future__ import annotations

import math

import pytest

from empg_cli.config import load
from empg_cli.observe.detectors import fell_below_best, fell_below_start, rose_above_lowest, spike, stayed_at
from empg_cli.observe.health import HealthMonitor, first_batch, preflight_faults

HEALTH = load([]).trainer.health
# A real start of a run (ALFWorld, tiny agent): KL grows by a factor of 2 to 7 an update, which is no spike.
GROWING = [0.0003, 0.0018, 0.0072, 0.0183, 0.0368, 0.0712, 0.1033, 0.1533, 0.1921, 0.2394, 0.3154, 0.3246]
# Another one, whose fifth update had a gradient norm of 1.04 where 0.2 was usual.
SPIKED = [0.0003, 0.0033, 0.0068, 0.0213, 0.1876, 0.0684, 0.0823, 0.1633]


def first_alarm(detect, values):
    """(number of values seen, alarm) of the first prefix that raises one."""
    for end in range(1, len(values) + 1):
        alarm = detect(values[:end])
        if alarm is not None:
            return end, alarm
    return None


def test_growth_from_zero_is_no_spike_but_a_jump_is():
    def detect(values):
        return spike(values, factor=3.0, floor=0.1)

    assert first_alarm(detect, GROWING) is None
    # 3 x max(0.0003, 0.0033, 0.0068, 0.0213) = 0.0639 < floor 0.1 < 0.1876
    assert first_alarm(detect, SPIKED) == (5, (0.1876, 0.1))
    assert first_alarm(lambda values: spike(values, factor=0.0, floor=0.1), SPIKED) is None  # off


def test_a_spike_after_twenty_updates_is_measured_against_their_median():
    # The paper's Figure 2: 0.12 for long, then up to 0.72. Median of the 20 before is 0.12, so the limit is 0.36.
    values = [0.12] * 25 + [0.2, 0.3, 0.35, 0.37, 0.72]
    seen, alarm = first_alarm(lambda values: spike(values, factor=3.0, floor=0.1), values)
    assert seen == 29
    assert alarm == (0.37, pytest.approx(0.36))
    # one outlier among the 20 hardly moves a median: still 0.12
    assert spike([0.12] * 19 + [5.0, 0.37], factor=3.0).limit == pytest.approx(0.36)


def test_entropy_collapse():
    # median of the first five (0.8, 1.0, 1.2, 1.0, 1.0) is 1.0, a fifth of it 0.2; means of three: .4333 .3 .1833
    values = [0.8, 1.0, 1.2, 1.0, 1.0, 0.9, 0.8, 0.7, 0.4, 0.2, 0.3, 0.05]
    assert first_alarm(lambda v: fell_below_start(v, ratio=0.2), values) == (12, (pytest.approx(0.55 / 3), 0.2))
    assert first_alarm(lambda v: fell_below_start(v, ratio=0.0), [1.0] * 9 + [0.0] * 9) is None  # off


def test_success_collapse_needs_a_ratio_and_a_size():
    # best mean of five: 0.6; half of it 0.3. Means at the end: .6 .5 .4 .3 (not below) .22
    values = [0.6] * 5 + [0.1, 0.1, 0.1, 0.2]
    assert first_alarm(lambda v: fell_below_best(v, ratio=0.5), values) == (
        9,
        (pytest.approx(0.22), pytest.approx(0.3)),
    )
    # from 0.05 to 0: less than 0.1, so noise
    assert first_alarm(lambda v: fell_below_best(v, ratio=0.5), [0.05] * 5 + [0.0] * 9) is None


def test_malformed_rise():
    # lowest mean of five .02, limit .22; then means .116 .212 .308
    values = [0.02] * 5 + [0.5, 0.5, 0.5]
    seen, alarm = first_alarm(lambda v: rose_above_lowest(v, rise=0.2), values)
    assert (seen, alarm) == (8, (pytest.approx(0.308), pytest.approx(0.22)))


def test_no_signal_must_last():
    assert first_alarm(lambda v: stayed_at(v, level=1.0, updates=3), [1.0, 1.0, 0.9, 1.0, 1.0, 1.0]) == (6, (1.0, 1.0))
    assert first_alarm(lambda v: stayed_at(v, level=1.0, updates=0), [1.0] * 9) is None  # off


def rows(name, values):
    return {update: {name: value} for update, value in enumerate(values, start=1)}


def monitor(history, **changes):
    return HealthMonitor(HEALTH.model_copy(update=changes), max_grad_norm=1.0, history=history)


def test_a_detector_speaks_once_with_value_meaning_and_advice():
    watching = monitor({})
    found = [
        finding for update, row in rows("actor/kl_loss", SPIKED).items() for finding in watching.observe(update, row)
    ]
    assert [finding.text for finding in found] == [
        "kl_spike at update 5: actor/kl_loss 0.1876 is above 0.1. One update threw the policy far from the reference; "
        "success often falls soon after. Try a lower trainer.lr, a higher algo.loss.kl_coef, or more "
        "trainer.tasks_per_update."
    ]
    assert watching.metrics() == {"health/warnings": 1.0, "health/kl_spikes": 1.0}


def test_neighbouring_spikes_are_one_and_later_ones_count_on():
    values = [0.12] * 22 + [0.5, 0.6, 0.12, 0.7] + [0.12] * 3
    watching = monitor(rows("actor/kl_loss", values))
    assert watching.kl_spikes == [23, 26]
    assert watching.warned == {"kl_spike": 23}


def test_a_resumed_monitor_goes_on_as_the_straight_one():
    values = [0.12] * 21 + [0.5, 0.6, 0.12, 0.7, 0.12]
    straight = monitor(rows("actor/kl_loss", values))
    for cut in (3, 22, 23, 25):
        resumed = monitor(dict(list(rows("actor/kl_loss", values).items())[:cut]))
        for update in range(cut + 1, len(values) + 1):
            resumed.observe(update, {"actor/kl_loss": values[update - 1]})
        assert (resumed.kl_spikes, resumed.warned) == (straight.kl_spikes, straight.warned)


def test_what_is_not_finite_counts_like_what_is_stored_as_null():
    for missing in (math.nan, math.inf, None):
        watching = monitor(rows("actor/kl_loss", [0.01, 0.01, missing, 0.01, 0.01]))
        assert watching.kl_spikes == []
        watching.observe(6, {"actor/kl_loss": 0.2})
        assert watching.kl_spikes == [6]


@pytest.mark.parametrize(
    ("name", "metric", "values", "update"),
    [
        ("grad_spike", "actor/grad_norm", [0.2, 0.25, 0.3, 0.9, 1.04, 9.0], 6),  # 0.9 and 1.04 are not above 1 and 2.7
        ("nonfinite_gradient", "actor/skipped_steps", [0.5], 1),
        ("entropy_collapse", "actor/entropy", [1.0] * 9 + [0.1] * 3, 12),
        ("success_collapse", "episode/success_rate", [0.6] * 5 + [0.0] * 3, 8),
        ("malformed_rise", "episode/malformed_frac", [0.0] * 5 + [0.9] * 2, 7),
        ("no_signal", "group/zero_std_frac", [1.0] * 3, 3),
    ],
)
def test_each_detector_is_wired_to_its_metric_and_can_be_silenced(name, metric, values, update):
    assert monitor(rows(metric, values)).warned == {name: update}
    assert monitor(rows(metric, values), warn=False).warned == {}


def batch_metrics(success, invalid, uniform, **more):
    return {
        "episode/success_rate": success,
        "episode/invalid_action_frac": invalid,
        "group/zero_std_frac": uniform,
    } | more


def test_the_first_batch_is_judged_by_three_floors():
    good = first_batch(batch_metrics(0.0, 0.7, 0.5), episodes=128, groups=16)
    assert preflight_faults(HEALTH, good) == []  # success 0 alone may still learn to act
    bad = first_batch(batch_metrics(0.0, 0.99, 1.0), episodes=128, groups=16)
    faults = preflight_faults(HEALTH.model_copy(update={"min_success_rate": 0.05}), bad)
    assert [fault.partition(":")[0] for fault in faults] == [
        "valid actions 1.0%, below trainer.health.min_valid_actions=0.02",
        "groups with a signal 0.0%, below trainer.health.min_signal_groups=0.01",
        "success 0.0%, below trainer.health.min_success_rate=0.05",
    ]
    few = first_batch(batch_metrics(0.0, 0.99, 1.0), episodes=63, groups=8)
    assert preflight_faults(HEALTH, few) == []
    assert preflight_faults(HEALTH.model_copy(update={"preflight": "off"}), bad) == []


def test_groups_thrown_away_by_dynamic_sampling_had_no_signal():
    # 4 groups kept of 4 + 12 played; nothing kept at all: the last batch stands in, without a signal
    full = batch_metrics(0.1, 0.5, 0.0, **{"dapo/filtered_groups": 12.0})
    assert first_batch(full, episodes=32, groups=4).signal_groups == 0.25
    none = batch_metrics(0.0, 0.5, 1.0, **{"dapo/filtered_groups": 16.0})
    assert first_batch(none, episodes=32, groups=4).signal_groups == 0.0
