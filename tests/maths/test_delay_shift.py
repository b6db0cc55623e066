"""The shift alarm: silent where nothing changed, loud where delays did, and never fooled by rates, traffic or weeks."""

import re

import numpy as np
import pytest
from scipy.stats import binom

from sameworld.maths.delay_shift import shift_alarm
from sameworld.records import Refused

HORIZON, MEAN, DAYS = 6 * 24.0, 20.0, 42  # q99 about 3.8 days: the 5 newest days are judged


def waits(mean):
    return lambda rng, shown: rng.exponential(mean, shown.size)


def working_days(mean):
    """Nothing happens from Saturday to Monday; time there does not pass."""

    def wait(rng, shown):
        clock = shown // 168 * 120 + np.minimum(shown % 168, 120) + rng.exponential(mean, shown.size)
        return clock // 120 * 168 + clock % 120 - shown

    return wait


def log(seed, *, n=12_000, rate=0.2, wait=None, days=DAYS, batch_hours=0.0, newest=None, new_rate=None, growth=0.0):
    """Age and arrival age at a cutoff; ``newest`` = (days, wait): what was shown since waits otherwise."""
    rng = np.random.default_rng(seed)
    shown = days * 24 * rng.random(n) ** (1 / (1 + growth))
    late = (wait or waits(MEAN))(rng, shown)
    young = shown >= (days - (newest[0] if newest else 0)) * 24
    if newest:
        late = np.where(young, newest[1](rng, shown), late)
    if batch_hours:
        late = np.ceil((shown + late) / batch_hours) * batch_hours - shown
    comes = rng.random(n) < np.where(young, rate if new_rate is None else new_rate, rate)
    age = days * 24 - shown
    return age, np.where(comes & (late <= age), late, np.nan)


def alarm(seed, *, alpha=0.001, **changes):
    return shift_alarm(*log(seed, **changes), horizon_hours=HORIZON, alpha=alpha)


@pytest.mark.parametrize(
    "changes",
    [{}, {"batch_hours": 12.0}, {"growth": 2.0}, {"n": 2500}, {"wait": working_days(12.0), "days": 45}],
    ids=["plain", "landed twice a day", "growing traffic", "few", "weekly rhythm"],
)
def test_an_unchanged_world_raises_no_more_alarms_than_it_should(changes):
    alarms = sum(alarm(seed, alpha=0.05, **changes).alarm for seed in range(150))
    assert alarms <= binom.ppf(0.999, 150, 0.05)


@pytest.mark.parametrize("last_day", range(42, 49))
def test_the_weekly_rhythm_is_no_alarm_on_any_weekday(last_day):
    found = [alarm(seed, n=40_000, wait=working_days(12.0), days=last_day) for seed in range(3)]
    assert min(one.p_value for one in found) > 0.001


@pytest.mark.parametrize("mean", [MEAN / 2, MEAN * 2])
def test_faster_and_slower_outcomes_raise_the_alarm_with_numbers(mean):
    found = alarm(8, newest=(5, waits(mean)))
    assert found.alarm
    assert found.p_value < 0.001
    assert re.search(r"no longer follow those of the weeks before: largest distance 0\.\d+ over \d+ ", found.reason)


def test_a_shift_within_the_weekly_rhythm_is_seen():
    found = alarm(8, n=40_000, wait=working_days(12.0), days=45, newest=(6, working_days(24.0)))
    assert found.alarm


def test_the_newest_days_are_those_up_to_the_old_q99_and_two_more():
    age, arrival = log(3)
    q99 = np.nanquantile(arrival[(age >= HORIZON) & (arrival <= HORIZON)], 0.99)
    assert shift_alarm(age, arrival, horizon_hours=HORIZON).newest_days == q99 // 24 + 2


def test_the_counts_are_those_of_the_newest_days_and_of_the_four_weeks_before_cut_at_the_same_age():
    age, arrival = log(4)
    found = shift_alarm(age, arrival, horizon_hours=HORIZON)
    newest = age < found.newest_days * 24
    assert found.events == np.count_nonzero(newest & ~np.isnan(arrival))
    earlier = [(age - 168 * k >= 0) & (age - 168 * k < found.newest_days * 24) for k in (1, 2, 3, 4)]
    known = [np.count_nonzero(there & (arrival <= age - 168 * k)) for k, there in enumerate(earlier, start=1)]
    assert found.reference_events == sum(known)


@pytest.mark.parametrize("rate", [0.1, 0.4])
def test_another_rate_at_the_same_delay_raises_no_alarm(rate):
    found = alarm(9, n=60_000, new_rate=rate, newest=(5, waits(MEAN)))
    assert not found.alarm
    assert found.events / found.expected_events == pytest.approx(rate / 0.2, rel=0.1)


def test_arrivals_that_stop_raise_the_alarm_although_older_outcomes_are_there():
    age, arrival = log(10, n=60_000)
    arrival[arrival > age - 24] = np.nan  # nothing has arrived for a day
    found = shift_alarm(age, arrival, horizon_hours=HORIZON)
    assert found.alarm
    assert found.reason.startswith("arrivals have stopped: 0 outcomes known of the youngest 1 days, ")


def test_arrivals_that_stop_raise_the_alarm_although_none_is_left_to_test():
    age, arrival = log(10)
    arrival[age < 5 * 24] = np.nan
    found = shift_alarm(age, arrival, horizon_hours=HORIZON)
    assert (found.alarm, found.events) == (True, 0)


def test_too_few_newest_outcomes_say_so_instead_of_a_p_value():
    found = alarm(8, n=700)
    assert not found.alarm
    assert found.as_record()["p_value"] == {"cannot": found.reason}
    assert found.reason.startswith("too few to tell: ")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"days": 7}, "no earlier week to compare the newest outcomes with: got a log of 7.0 days"),
        ({"days": 5}, "no outcome has settled yet: got 0 settled impressions"),
        ({"rate": 0.0}, "no outcome has settled yet"),
        ({"n": 0}, "no outcome has settled yet"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_words(changes, words):
    with pytest.raises(Refused, match=re.escape(words)):
        alarm(1, **changes)
