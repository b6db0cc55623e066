"""Delay curves against textbook values, scipy's Kaplan-Meier, and worlds whose delays are known."""

import json
import re

import numpy as np
import pytest
from scipy.stats import CensoredData, binomtest, ecdf

from sameworld.maths.delay import (
    DelayCurve,
    fit_delay_curve,
    landing_lag_quantiles,
    pool_small_segments,
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


def weekly_world(seed, *, n, oldest):
    """Ages and arrival ages where outcomes are known at once on five days of a week, and else when it begins again."""
    rng = np.random.default_rng(seed)
    age = rng.uniform(0, oldest, n)
    happens = (oldest - age) + rng.exponential(30.0, n)  # since a week's start
    arrival = np.where(happens % 168 < 120, happens, happens - happens % 168 + 168) - (oldest - age)
    return age, np.where((rng.random(n) < 0.3) & (arrival <= age), arrival, np.nan)


def test_with_a_rhythm_each_age_is_measured_on_whole_weeks_of_showing():
    """Brute force: at each event age count who was shown within the whole weeks beyond it and is still waiting."""
    age, arrival = (np.round(values) for values in weekly_world(1, n=400, oldest=700.0))
    curve = fit_delay_curve(age, arrival, horizon_hours=HORIZON, rhythm_hours=168.0)
    survival, waiting = [1.0], np.where(np.isnan(arrival), np.minimum(age, HORIZON), np.minimum(arrival, HORIZON))
    for at in np.unique(arrival[arrival <= HORIZON]):
        shown = age <= at + 168 * ((age.max() - at) // 168)
        survival.append(survival[-1] * (1 - (shown & (arrival == at)).sum() / (shown & (waiting >= at)).sum()))
    ages = np.unique(arrival[arrival <= HORIZON])
    np.testing.assert_allclose(curve.at(ages), (1 - np.array(survival[1:])) / (1 - survival[-1]), atol=1e-12)


def test_a_week_shown_in_part_tilts_the_curve_unless_the_rhythm_is_named():
    """The log begins at a week's start and ends within one; the truth is the curve of a log of very many weeks."""
    truth = fit_delay_curve(*weekly_world(2, n=400_000, oldest=400 * 168.0), horizon_hours=HORIZON)
    ages, log = np.arange(6.0, HORIZON, 6.0), weekly_world(4, n=200_000, oldest=3.8 * 168)
    plain, even = (fit_delay_curve(*log, horizon_hours=HORIZON, rhythm_hours=hours) for hours in (0.0, 168.0))
    assert np.abs(plain.at(ages) - truth.at(ages)).max() > 0.015
    assert np.abs(even.at(ages) - truth.at(ages)).max() < 0.005


def test_a_log_of_less_than_a_week_beyond_the_horizon_takes_what_there_is():
    log = world(5, oldest=HORIZON + 24)
    named, plain = (fit_delay_curve(*log, horizon_hours=HORIZON, rhythm_hours=hours) for hours in (168.0, 0.0))
    assert named.rate == pytest.approx(plain.rate, rel=0.15)
    assert named.known[-1] == 1.0
