"""Delay shift: whether the newest outcomes arrive as late as those of the weeks before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import kstwobign, poisson

from sameworld.maths.watched import Watched
from sameworld.records import Refused

Floats = NDArray[np.float64]

DAY, WEEK = 24.0, 168.0
# Two days after the old q99 has passed since a shift, the newest q99 + 2 days are all of the new world.
DAYS_AFTER_Q99 = 2
REFERENCE_WEEKS = 4  # more would steady the reference little (1/4 of the noise is left) and be slow to forget
STOPPED_BELOW = 0.25  # share of the expected outcomes; a rate may well halve, below a quarter arrivals have stopped
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True)
class ShiftAlarm:
    """Whether the newest outcomes arrive as before; ``p_value`` is NaN when there are too few to tell."""

    alarm: bool
    reason: str
    p_value: float
    events: int
    expected_events: float
    newest_days: int
    reference_events: int

    def as_record(self) -> dict[str, Any]:
        """Return the JSON form; a p-value that does not exist is a reason in words."""
        return {**vars(self), "p_value": {"cannot": self.reason} if np.isnan(self.p_value) else self.p_value}


@dataclass(frozen=True)
class _Days:
    """What one log shows of its newest days, each by its age in whole days: impressions, and arrivals known by then."""

    impressions: NDArray[np.int64]
    day: NDArray[np.int64]
    arrival: Floats

    def known(self) -> NDArray[np.int64]:
        return np.bincount(self.day, minlength=len(self.impressions))


def shift_alarm(
    age_hours: ArrayLike,
    arrival_age_hours: ArrayLike,
    *,
    horizon_hours: float,
    alpha: float = 0.001,
    minimum_events: int = 30,
) -> ShiftAlarm:
    """Test whether the newest outcomes arrive as the same log, whole weeks ago, showed them.

    age_hours : shape (n,), >= 0, how long each impression has been observed at the cutoff
    arrival_age_hours : shape (n,), age at which its first outcome became known, NaN: none is
    horizon_hours : the window plus the landing lag; later arrivals count as not come

    The newest days are those up to the q99 of the settled impressions' arrival ages, and two more. Each is compared
    with the same day of up to four earlier weeks, whose newest days are older than these: cut at the same age, and so
    at the same weekday and hour. A weekly rhythm, a rate, and traffic that grows are then the same on both sides, and
    an arrival's rank among the earlier ones is uniform unless delays have changed: Kolmogorov-Smirnov over all days'
    ranks, with the earlier outcomes' number in the sample size. Beside it, fewer than a quarter of the outcomes
    expected of the youngest days mean that arrivals have stopped (Poisson). ``p_value`` is Bonferroni's of both.
    Impressions are taken as independent. Raises Refused where the log shows no such earlier week.

    Kolmogorov-Smirnov for finite sizes: Stephens, "EDF statistics for goodness of fit", JASA 1974.
    """
    age, arrival = np.asarray(age_hours, np.float64), np.asarray(arrival_age_hours, np.float64)
    watched = Watched.of(age, np.where(arrival <= horizon_hours, arrival, np.nan))
    return alarm_of(watched, horizon_hours=horizon_hours, alpha=alpha, minimum_events=minimum_events)


def alarm_of(watched: Watched, *, horizon_hours: float, alpha: float = 0.001, minimum_events: int = 30) -> ShiftAlarm:
    """Test as :func:`shift_alarm` does, on impressions that are counted already."""
    days = _newest_days(watched, horizon_hours)
    first = -(-days // 7)
    newest = _seen(watched, 0.0, days, horizon_hours)
    weeks = range(first, first + REFERENCE_WEEKS)
    before = _together([_seen(watched, WEEK * week, days, horizon_hours) for week in weeks])
    if not len(before.arrival):
        raise Refused(
            what="no earlier week to compare the newest outcomes with",
            got=f"a log of {watched.ages.oldest / DAY:.1f} days" if len(watched.ages) else "no impressions",
            wanted=f"outcomes of the {days} newest days as the log showed them {7 * first} days ago",
            remedy="wait, or read more days",
        )
    return _judged(newest, before, alpha, minimum_events)


def _newest_days(watched: Watched, horizon_hours: float) -> int:
    arrival = watched.arrival_hours
    settled = arrival[(watched.age_hours >= horizon_hours) & (arrival <= horizon_hours)]
    if not settled.size:
        got, wanted = f"{watched.ages.from_on(horizon_hours)} settled impressions", "some with an outcome"
        raise Refused(what="no outcome has settled yet", got=got, wanted=wanted, remedy="wait, or pool segments")
    return int(np.quantile(settled, 0.99) // DAY) + DAYS_AFTER_Q99


def _seen(watched: Watched, ago_hours: float, days: int, horizon_hours: float) -> _Days:
    """Read the newest days of the log as it was some hours ago; what had not been shown by then is not there."""
    shown = -np.diff(watched.ages.from_on(ago_hours + DAY * np.arange(days + 1)))
    age, arrival = watched.age_hours - ago_hours, watched.arrival_hours
    known = (age >= 0) & (age < days * DAY) & (arrival <= age) & (arrival <= horizon_hours)
    return _Days(shown, (age[known] // DAY).astype(np.int64), arrival[known])


def _together(weeks: list[_Days]) -> _Days:
    impressions = np.asarray(np.sum([week.impressions for week in weeks], axis=0), np.int64)
    day, arrival = np.concatenate([week.day for week in weeks]), np.concatenate([week.arrival for week in weeks])
    return _Days(impressions, day, arrival)


def _judged(newest: _Days, before: _Days, alpha: float, minimum_events: int) -> ShiftAlarm:
    new, old = newest.known(), before.known()
    expected = newest.impressions * (old / np.maximum(before.impressions, 1))
    events, days = int(new[old > 0].sum()), len(new)
    facts = (events, float(expected.sum()), days, int(old.sum()))
    if max(events, expected.sum()) < minimum_events:
        reason = f"too few to tell: {events} outcomes known of the {days} newest days, need {minimum_events}"
        return ShiftAlarm(False, reason, float("nan"), *facts)
    distance, p_shape = _distance(newest, before) if events >= minimum_events else (0.0, 1.0)
    depth, p_stop = _stopped(new, expected, minimum_events)
    p_value = min(1.0, 2.0 * min(p_shape, p_stop))
    alarm = bool(p_value < alpha)
    if p_stop < p_shape and alarm:
        got = f"{new[:depth].sum()} outcomes known of the youngest {depth} days, {expected[:depth].sum():.0f} expected"
        return ShiftAlarm(alarm, f"arrivals have stopped: {got} (p = {p_value:.2g})", p_value, *facts)
    verb = "no longer follow" if alarm else "follow"
    found = f"largest distance {distance:.3f} over {events} outcomes of the {days} newest days"
    reason = f"arrivals {verb} those of the weeks before: {found} (p = {p_value:.2g}, alarm below {alpha:g})"
    return ShiftAlarm(alarm, reason, p_value, *facts)


def _stopped(new: NDArray[np.int64], expected: Floats, minimum_events: int) -> tuple[int, float]:
    """Count the youngest days that should show twice the minimum, and test that a quarter of it could give so few."""
    enough = np.flatnonzero(expected.cumsum() >= 2 * minimum_events)
    depth = int(enough[0]) + 1 if enough.size else len(expected)
    return depth, float(poisson.cdf(new[:depth].sum(), STOPPED_BELOW * expected[:depth].sum()))


def _distance(newest: _Days, before: _Days) -> tuple[float, float]:
    """Kolmogorov-Smirnov distance of the ranks from uniform, and its p-value.

    A day's n ranks among m earlier arrivals share those: together they vary as n / (1 + n/m) free ones.
    """
    ranks = np.sort(np.concatenate([_ranks(newest, before, day) for day in range(len(newest.impressions))]))
    new, old = newest.known(), before.known()
    usable = old > 0
    n = ranks.size
    free = n * n / float((new[usable] * (1.0 + new[usable] / old[usable])).sum())
    above, below = np.arange(1, n + 1) / n - ranks, ranks - np.arange(n) / n
    distance, root = float(max(above.max(), below.max())), float(np.sqrt(free))
    return distance, float(kstwobign.sf((root + 0.12 + 0.11 / root) * distance))


def _ranks(newest: _Days, before: _Days, day: int) -> Floats:
    """Place a day's arrivals among the earlier ones, in [0, 1]; ties are spread by a golden-ratio sequence."""
    arrival, earlier = np.sort(newest.arrival[newest.day == day]), np.sort(before.arrival[before.day == day])
    if not earlier.size:
        return np.empty(0)
    low = np.searchsorted(earlier, arrival, side="left")
    high = np.searchsorted(earlier, arrival, side="right") + 1
    place = np.mod((np.arange(arrival.size) + 0.5) * _GOLDEN, 1.0)
    return np.asarray((low + place * (high - low)) / (earlier.size + 1), np.float64)
