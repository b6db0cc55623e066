"""Counting impressions by age: against counting them one by one, and runs of impressions against each on its own."""

import re

import numpy as np
import pytest

from sameworld.maths.delay import curve_of, fit_delay_curve, landing_lag_quantiles
from sameworld.maths.delay_shift import alarm_of, shift_alarm
from sameworld.maths.watched import Ages, Watched
from sameworld.records import Refused

HORIZON = 200.0


def world(seed, *, n=800, oldest=900.0):
    """Quarters of hours, so that ages, arrivals and edges of spans meet."""
    rng = np.random.default_rng(seed)
    age = rng.integers(0, 4 * oldest, n) / 4
    arrival = np.where(rng.random(n) < 0.5, rng.integers(0, 1000, n) / 4, np.nan)
    return age, np.where(arrival <= age, arrival, np.nan)


def in_runs(age, arrival):
    """The same impressions, one run an age."""
    ages, rows = np.unique(age, return_counts=True)
    mixed = np.random.default_rng(0).permutation(ages.size)
    came = ~np.isnan(arrival)
    return Watched.among(Ages.of(ages[mixed], rows[mixed]), age[came], arrival[came])


@pytest.mark.parametrize("seed", range(5))
def test_those_at_risk_are_those_that_a_loop_over_impressions_finds(seed):
    age, arrival = world(seed)
    at = np.arange(0.0, HORIZON + 1, 7.0)
    spans = np.where(at < 60, 168.0 * 3, np.where(at < 120, 168.0, np.inf))
    observed = np.fmin(np.minimum(age, HORIZON), arrival)
    want = [((observed >= t) & (age - span <= t)).sum() for t, span in zip(at, spans, strict=True)]
    got = Watched.of(age, arrival).at_risk(at, horizon_hours=HORIZON, spans=spans)
    assert got.tolist() == want


@pytest.mark.parametrize("seed", range(3))
def test_impressions_in_runs_give_the_curve_and_the_alarm_of_impressions_one_by_one(seed):
    age, arrival = world(seed, n=4000)
    watched, horizon = in_runs(age, arrival), {"horizon_hours": HORIZON}
    assert len(watched.ages) == 4000
    one_by_one = fit_delay_curve(age, arrival, rhythm_hours=168.0, **horizon)
    assert curve_of(watched, rhythm_hours=168.0, **horizon).as_record() == one_by_one.as_record()
    assert alarm_of(watched, **horizon) == shift_alarm(age, arrival, **horizon)


def test_the_span_of_the_ages_counts_from_beyond_its_edge():
    ages = Ages.of([10.0, 10.0, 12.0, 20.0])
    assert ages.from_on([9.0, 10.0, 10.5, 20.0, 21.0]).tolist() == [4, 4, 2, 1, 0]
    assert ages.beyond([0.0, 2.0, 10.0], 10.0).tolist() == [2, 1, 0]
    assert (ages.oldest, Ages.of([]).oldest, len(Ages.of([]))) == (20.0, -np.inf, 0)


@pytest.mark.parametrize("qs", [(0.0, 0.5, 0.99, 1.0), (0.123,)])
def test_lags_that_stand_for_several_events_give_the_quantiles_of_all_events(qs):
    rng = np.random.default_rng(1)
    lag, age, rows = rng.integers(0, 30, 200) / 7, rng.uniform(0, 90, 200), rng.integers(1, 9, 200)
    want = landing_lag_quantiles(np.repeat(lag, rows), np.repeat(age, rows), qs)
    np.testing.assert_allclose(landing_lag_quantiles(lag, age, qs, rows=rows), want, rtol=1e-12)


def test_an_age_that_is_none_is_refused_with_the_number_of_impressions_it_stands_for():
    with pytest.raises(Refused, match=re.escape("8 negative or not finite")):
        Ages.of([1.0, -1.0, np.inf], rows=[9, 3, 5])


def test_an_outcome_from_after_the_cutoff_is_refused():
    with pytest.raises(Refused, match=re.escape("outcomes are known from after the cutoff")):
        Watched.among(Ages.of([1.0]), np.array([1.0]), np.array([1.5]))
