"""Delay curves against textbook values, scipy's Kaplan-Meier, and worlds whose delays are known."""

import json
import re

import numpy as np
import pytest
from scipy.stats import CensoredData, binom, binomtest, ecdf

from sameworld.maths.delay import (
    DelayCurve,
    fit_delay_curve,
    landing_lag_quantiles,
    pool_small_segments,
    shift_alarm,
    why_pooled,
)
from sameworld.records import Refused

HORIZON = 14 * 24.0
MEAN = 72.0


def truth(age):
    """Known share when delays are exponential and cut at the horizon."""
    return (1 - np.exp(-np.asarray(age) / MEAN)) / (1 - np.exp(-HORIZON / MEAN))


def world(seed, *, n=4000, rate=0.2, mean=MEAN, oldest=2 * HORIZON, batch_hours=0.0):
    """Ages and arrival ages as a cutoff sees them: what has not arrived is NaN."""
    rng = np.random.default_rng(seed)
    age = rng.uniform(0, oldest, n)
    delay = rng.exponential(mean, n)
    if batch_hours:
        delay = np.ceil(delay / batch_hours) * batch_hours
    arrival = np.where((rng.random(n) < rate) & (delay <= age), delay, np.nan)
    return age, arrival


def scipy_known(age, arrival, horizon):
    """Known share by scipy 1.17's Kaplan-Meier: ``ecdf(CensoredData.right_censored(times, censored)).sf``."""
    event = arrival <= horizon
    times = np.where(event, arrival, np.minimum(age, horizon))
    survival = ecdf(CensoredData.right_censored(times, ~event)).sf
    return lambda t: (1 - survival.evaluate(t)) / (1 - survival.evaluate(horizon))


def test_the_leukaemia_remissions_of_freireich_give_the_textbook_survival():
    """Kalbfleisch and Prentice, The Statistical Analysis of Failure Time Data, the 6-MP group."""
    events = [6, 6, 6, 7, 10, 13, 16, 22, 23]
    censored = [6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35.0]
    age = np.array([40.0] * 9 + censored)
    arrival = np.array([*events, *[np.nan] * 12], dtype=float)
    curve = fit_delay_curve(age, arrival, horizon_hours=35.0)
    survival = 1 - curve.known * curve.rate
    np.testing.assert_array_equal(curve.ages_hours, [6, 7, 10, 13, 16, 22, 23])
    np.testing.assert_allclose(survival, [0.857, 0.807, 0.753, 0.690, 0.627, 0.538, 0.448], atol=5e-4)
    assert (curve.impressions, curve.events) == (21, 9)


def test_the_curve_equals_scipys_kaplan_meier_with_ties_of_events_and_censoring():
    rng = np.random.default_rng(5)
    age = rng.integers(0, 60, 3000).astype(float)
    arrival = np.where(rng.random(3000) < 0.4, rng.integers(0, 60, 3000), np.nan)
    arrival[arrival > age] = np.nan
    at = np.linspace(0, 40, 161)
    curve = fit_delay_curve(age, arrival, horizon_hours=40.0)
    np.testing.assert_allclose(curve.at(at), scipy_known(age, arrival, 40.0)(at), atol=1e-12)


def test_thinning_keeps_a_large_curve_within_a_thousandth_of_the_full_one():
    age, arrival = world(1, n=60_000)
    curve = fit_delay_curve(age, arrival, horizon_hours=HORIZON)
    at = np.sort(np.concatenate([arrival[arrival <= HORIZON], arrival[arrival <= HORIZON] - 1e-9]))
    assert curve.events > 5000
    assert curve.ages_hours.size <= 501
    assert np.abs(curve.at(at) - scipy_known(age, arrival, HORIZON)(at)).max() <= 1e-3 + 1e-12
    assert curve.known[-1] == 1.0
    assert (np.diff(curve.known) >= 0).all()


def test_kaplan_meier_recovers_the_truth_where_arrived_positives_alone_do_not():
    age, arrival = world(2, n=300_000, oldest=1.2 * HORIZON)
    curve = fit_delay_curve(age, arrival, horizon_hours=HORIZON)
    days = np.array([24.0, 72.0, 168.0])
    arrived = np.sort(arrival[arrival <= HORIZON])
    naive = np.searchsorted(arrived, days) / arrived.size
    np.testing.assert_allclose(curve.at(days), truth(days), atol=0.01)
    assert (naive - truth(days) > 0.02).all()
    assert curve.rate == pytest.approx(0.2 * (1 - np.exp(-HORIZON / MEAN)), abs=0.003)


def test_the_intervals_of_shares_and_rate_cover_the_truth_as_often_as_they_say():
    ages = np.array([12.0, 72.0, 200.0])
    wanted = np.append(truth(ages), 0.2 * (1 - np.exp(-HORIZON / MEAN)))
    hits = np.zeros(4, dtype=int)
    for seed in range(200):
        curve = fit_delay_curve(*world(seed, n=2000, oldest=1.5 * HORIZON), horizon_hours=HORIZON)
        found = [curve.estimate_at(age) for age in ages]
        low = np.array([*(e.low for e in found), curve.rate_low])
        high = np.array([*(e.high for e in found), curve.rate_high])
        hits += (low <= wanted) & (wanted <= high)
    assert min(binomtest(int(hit), 200, 0.95).pvalue for hit in hits) > 0.002


def test_few_outcomes_do_not_make_the_last_days_certain():
    """The last of about 20 outcomes comes well before the horizon; the truth there is below 1."""
    hits = 0
    for seed in range(200):
        curve = fit_delay_curve(*world(seed, n=2000, rate=0.02, oldest=1.5 * HORIZON), horizon_hours=HORIZON)
        found = curve.estimate_at(250.0)
        hits += found.low <= truth(250.0) <= found.high
    assert binomtest(hits, 200, 0.95, alternative="less").pvalue > 0.002


def test_after_the_last_outcome_the_low_end_is_the_bound_for_none_seen():
    """Everything is observed in full, so the exact binomial bound for 0 of 100 outcomes is the oracle."""
    arrival = np.concatenate([np.linspace(1, 50, 100), np.full(900, np.nan)])
    curve = fit_delay_curve(np.full(1000, 100.0), arrival, horizon_hours=80.0)
    found = curve.estimate_at(60.0)
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(0.025 ** (1 / 100), abs=0.005)


def test_the_interval_closes_at_the_horizon_and_starts_with_a_binomial_bound():
    curve = fit_delay_curve(*world(3), horizon_hours=HORIZON)
    last, first = curve.estimate_at(HORIZON), curve.estimate_at(-1.0)
    assert (last.value, last.low, last.high) == (1.0, 1.0, 1.0)
    assert (first.value, first.low) == (0.0, 0.0)
    assert 0 < first.high <= curve.high[0]
    assert ((curve.low <= curve.known) & (curve.known <= curve.high)).all()


def test_outcomes_beyond_the_horizon_count_as_not_come():
    age = np.full(10, 500.0)
    arrival = np.array([1.0, 2.0, 400.0, *[np.nan] * 7])
    curve = fit_delay_curve(age, arrival, horizon_hours=100.0)
    assert curve.events == 2
    assert curve.rate == pytest.approx(0.2)


def test_a_record_survives_json_and_the_order_of_rows_changes_nothing():
    age, arrival = world(4, n=20_000)
    curve = fit_delay_curve(age, arrival, horizon_hours=HORIZON)
    back = DelayCurve.from_record(json.loads(json.dumps(curve.as_record())))
    mixed = np.random.default_rng(0).permutation(age.size)
    shuffled = fit_delay_curve(age[mixed], arrival[mixed], horizon_hours=HORIZON)
    assert back.as_record() == curve.as_record() == shuffled.as_record()


def test_an_age_that_is_nan_stays_nan():
    curve = fit_delay_curve(*world(3), horizon_hours=HORIZON)
    assert np.isnan(curve.at([np.nan, 1.0])).tolist() == [True, False]


@pytest.mark.parametrize(
    ("age", "arrival", "words"),
    [
        ([5.0, 9.9], [1.0, np.nan], "completeness is identified only up to the oldest age: got the oldest"),
        ([], [], "got no impressions"),
        ([20.0], [np.nan], "no delay can be measured without outcomes"),
        ([20.0], [21.0], "outcomes are known from after the cutoff"),
        ([20.0, -1.0], [np.nan, np.nan], "1 negative or not finite"),
        ([20.0, 1.0], [np.nan], "do not match"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_words(age, arrival, words):
    with pytest.raises(Refused, match=re.escape(words)):
        fit_delay_curve(age, arrival, horizon_hours=10.0)


def test_landing_lags_are_read_off_events_old_enough_to_show_them():
    rng = np.random.default_rng(6)
    age, lag = rng.uniform(0, 100, 200_000), rng.uniform(0, 40, 200_000)
    arrived = lag < age
    found = landing_lag_quantiles(lag[arrived], age[arrived], qs=(0.5, 0.9))
    np.testing.assert_allclose(found, [20, 36], rtol=0.01)
    assert np.quantile(lag[arrived], 0.5) < 18.5


def test_one_lag_as_long_as_the_log_leaves_the_older_half_to_count():
    assert landing_lag_quantiles([1.0, 2.0, 80.0, 0.1], [90.0, 45.0, 90.0, 44.9], qs=[0.5]).tolist() == [2.0]


@pytest.mark.parametrize(("lags", "ages"), [([], []), ([1.0, np.nan], [2.0, 2.0]), ([1.0], [2.0, 3.0])])
def test_landing_lags_without_a_full_event_are_refused(lags, ages):
    with pytest.raises(Refused, match=re.escape("no landing lag can be measured")):
        landing_lag_quantiles(lags, ages)


def test_a_segment_at_the_minimum_keeps_its_curve_and_one_below_says_why_not():
    events = {"b": 49, "a": 50}
    assert pool_small_segments(events) == {"a": "a", "b": "all"}
    assert list(why_pooled(events)) == ["b"]
    assert "49 outcomes, fewer than 50" in why_pooled(events)["b"]


@pytest.mark.parametrize("batch_hours", [0.0, 12.0])
def test_an_unchanged_world_raises_no_more_alarms_than_it_should(batch_hours):
    """Curve and newest rows are both samples; ``batch_hours`` makes the curve one of a few tall steps."""
    alarms = 0
    for seed in range(200):
        curve = fit_delay_curve(*world(seed, batch_hours=batch_hours), horizon_hours=HORIZON)
        newest = world(1000 + seed, n=6000, oldest=100.0, batch_hours=batch_hours)
        alarms += shift_alarm(*newest, curve, alpha=0.05).alarm
    assert alarms <= binom.ppf(0.999, 200, 0.05)


@pytest.mark.parametrize("mean", [MEAN / 3, MEAN * 3])
def test_faster_and_slower_outcomes_raise_the_alarm_with_numbers(mean):
    curve = fit_delay_curve(*world(7, n=20_000), horizon_hours=HORIZON)
    found = shift_alarm(*world(8, n=20_000, mean=mean, oldest=200.0), curve)
    assert found.alarm
    assert found.p_value < 0.001
    assert re.search(r"no longer follow the curve in use: largest distance 0\.\d+ over \d+ outcomes", found.reason)


def test_another_rate_at_the_same_delay_raises_no_alarm():
    curve = fit_delay_curve(*world(7, n=20_000), horizon_hours=HORIZON)
    found = shift_alarm(*world(9, n=20_000, rate=0.35, oldest=200.0), curve)
    assert not found.alarm
    assert found.events > 1.5 * found.expected_events


def test_arrivals_that_stop_raise_the_alarm_although_none_is_left_to_test():
    curve = fit_delay_curve(*world(7), horizon_hours=HORIZON)
    found = shift_alarm(np.full(2000, 48.0), np.full(2000, np.nan), curve)
    assert found.alarm
    assert found.events == 0
    assert "only 0 outcomes are known, " in found.reason


def test_too_few_newest_outcomes_say_so_instead_of_a_p_value():
    curve = fit_delay_curve(*world(7), horizon_hours=HORIZON)
    found = shift_alarm(*world(8, n=50, oldest=100.0), curve)
    assert not found.alarm
    assert found.as_record()["p_value"] == {"cannot": found.reason}
    assert found.reason.startswith("too few to tell: ")
