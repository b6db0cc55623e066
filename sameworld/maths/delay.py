"""Delay: how much of what will come is known by a given age, measured on the log itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from sameworld.maths.watched import Watched
from sameworld.records import Estimate, Refused

Floats = NDArray[np.float64]
Shares = NDArray[np.floating[Any]]  # what numpy's stubs make of a cumulative sum

_Z95 = 1.959963984540054
_NONE_SEEN = 3.6889  # 97.5 % upper bound of a Poisson mean of which nothing was seen
_LEVELS = 500  # a thinned curve's steps are at most 1/500 high and stand at their middle: off by at most 0.001


@dataclass(frozen=True, eq=False)
class DelayCurve:
    """Share of a horizon's outcomes that the log knows by an impression's age.

    ages_hours : increasing, shape (m,); the ages at which the curve steps up
    known : shape (m,), in [0, 1], nondecreasing, the last one 1; right-continuous: known[i] holds from ages_hours[i] on
    low, high : shape (m,), 95 % interval of known (impressions taken as independent)
    rate, rate_low, rate_high : share of impressions with an outcome within the horizon
    """

    ages_hours: Floats
    known: Floats
    low: Floats
    high: Floats
    rate: float
    rate_low: float
    rate_high: float
    impressions: int
    events: int
    horizon_hours: float

    def at(self, age_hours: ArrayLike) -> Floats:
        """Known share at each age, in the shape of the ages; 0 before the first step, NaN for a NaN age.

        >>> curve = fit_delay_curve([9.0, 9.0, 9.0], [1.0, 4.0, np.nan], horizon_hours=8.0)
        >>> curve.at([0.5, 1.0, 3.9, 4.0, 99.0])
        array([0. , 0.5, 0.5, 1. , 1. ])
        """
        ages = np.asarray(age_hours, dtype=np.float64)
        steps = np.concatenate([[0.0], self.known])
        return np.where(np.isnan(ages), np.nan, steps[np.searchsorted(self.ages_hours, ages, side="right")])

    def estimate_at(self, age_hours: float) -> Estimate:
        """Known share at one age with its 95 % interval: exactly 1 from the horizon on.

        Where no event has been seen yet, or none any more, the interval is that of a count of 0.
        """
        if age_hours >= self.horizon_hours:
            return Estimate(1.0, 1.0, 1.0)
        step = int(np.searchsorted(self.ages_hours, age_hours, side="right")) - 1
        if step < 0:
            bound = 1.0 - 0.025 ** (1.0 / self.events)
            return Estimate(0.0, 0.0, min(bound, float(self.high[0])))
        return Estimate(float(self.known[step]), float(self.low[step]), float(self.high[step]))

    def as_record(self) -> dict[str, Any]:
        """Return a JSON-ready mapping that :meth:`from_record` reads back exactly."""
        fields = vars(self)
        return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in fields.items()}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> DelayCurve:
        """Read what :meth:`as_record` wrote; unknown or missing names raise TypeError or KeyError."""
        fields: dict[str, Any] = dict(record)
        for name in ("ages_hours", "known", "low", "high"):
            fields[name] = np.asarray(fields[name], dtype=np.float64)
        return cls(**fields)


def fit_delay_curve(
    age_hours: ArrayLike, arrival_age_hours: ArrayLike, *, horizon_hours: float, rhythm_hours: float = 0.0
) -> DelayCurve:
    """Fit the known share by age with Kaplan-Meier on all impressions, with and without an outcome.

    age_hours : shape (n,), >= 0, how long each impression has been observed at the cutoff
    arrival_age_hours : shape (n,), age at which its first outcome became known; NaN: none is known. Below 0 counts as 0
    horizon_hours : the window plus the landing lag; what became known later counts as not come by the horizon
    rhythm_hours : 168 where outcomes follow the week, 0 for none. Each age is then measured on impressions shown over
        whole weeks (the oldest, partial one waits until younger ages fill it up), so that no weekday counts more than
        another; up to the last week of the log's age, where there is no whole one

    Known(t) = (1 - S(t)) / (1 - S(horizon)). An impression censored at t is still at risk at t. The interval is the
    delta method on the logit, from Greenwood's variance with the covariance of S(t) and S(horizon); too narrow where
    one user's impressions convert together. More than 501 steps are thinned with an error of at most 0.001.
    Raises Refused for empty or contradictory input, no outcome, and no impression as old as the horizon.

    Kaplan and Meier, "Nonparametric estimation from incomplete observations", JASA 1958.
    """
    return curve_of(Watched.of(age_hours, arrival_age_hours), horizon_hours=horizon_hours, rhythm_hours=rhythm_hours)


def curve_of(watched: Watched, *, horizon_hours: float, rhythm_hours: float = 0.0) -> DelayCurve:
    """Fit the known share by age as :func:`fit_delay_curve` does, on impressions that are counted already."""
    _refuse_unidentified(watched, horizon_hours)
    ages, events, at_risk, at_end = _risk_table(watched, horizon_hours, rhythm_hours)
    survival = np.cumprod(1.0 - events / at_risk)
    # Where all at risk convert at once the variance is infinite by the formula; one survivor stands in.
    variance = np.cumsum(events / (at_risk * np.maximum(at_risk - events, 1.0)))
    known = (1.0 - survival) / (1.0 - survival[-1])
    low, high = _known_interval(known, survival, variance)
    rate = float(1.0 - survival[-1])
    if ages[-1] < horizon_hours:
        low[-1] = 1.0 / (1.0 + _NONE_SEEN * survival[-1] / (at_end * rate))
    rate_low, rate_high = _logit_interval(np.array([rate]), np.array([survival[-1] * np.sqrt(variance[-1])]))
    first, last = _thinned(known)
    middle = [(curve[first] + curve[last]) / 2 for curve in (known, low, high)]
    total = (rate, float(rate_low[0]), float(rate_high[0]), len(watched.ages), int(events.sum()), float(horizon_hours))
    return DelayCurve(ages[first], middle[0], middle[1], middle[2], *total)


def _refuse_unidentified(watched: Watched, horizon_hours: float) -> None:
    ages = watched.ages
    if not 0 < horizon_hours < np.inf:
        raise Refused(what="the horizon is no duration", got=str(horizon_hours), wanted="hours > 0")
    if ages.oldest < horizon_hours:
        got = f"the oldest impression is {ages.oldest:.1f} h old" if len(ages) else "no impressions"
        wanted = f"impressions observed for the whole horizon of {horizon_hours:g} h"
        what, remedy = "completeness is identified only up to the oldest age", "wait, or shorten the window"
        raise Refused(what=what, got=got, wanted=wanted, remedy=remedy)
    if not np.any(watched.arrival_hours <= horizon_hours):
        got, wanted = f"0 outcomes on {len(ages)} impressions", "at least one known within the horizon"
        remedy = "check the outcome kind, or pool segments"
        raise Refused(what="no delay can be measured without outcomes", got=got, wanted=wanted, remedy=remedy)


def _risk_table(watched: Watched, horizon_hours: float, rhythm_hours: float) -> tuple[Floats, Floats, Floats, int]:
    """Distinct event ages, events at each, impressions at risk just before each, and at the horizon (at least 1)."""
    oldest = watched.ages.oldest
    within = watched.arrival_hours <= horizon_hours
    age, arrival = watched.age_hours[within], watched.arrival_hours[within]
    came = age - arrival <= _span(arrival, oldest, rhythm_hours)
    if not came.any():
        came, rhythm_hours = np.ones(came.shape, np.bool_), 0.0
    ages, events = np.unique(np.minimum(arrival, age)[came], return_counts=True)
    at = np.append(ages, horizon_hours)
    at_risk = watched.at_risk(at, horizon_hours=horizon_hours, spans=_span(at, oldest, rhythm_hours))
    return ages, events.astype(np.float64), at_risk[:-1].astype(np.float64), max(int(at_risk[-1]), 1)


def _span(at: Floats, oldest: float, rhythm_hours: float) -> Floats:
    """Hours of showing that count at each age: as many whole weeks as the log has beyond it, all if it has none."""
    if rhythm_hours <= 0:
        return np.full(at.shape, np.inf)
    weeks = np.floor((oldest - at) / rhythm_hours)
    return np.where(weeks >= 1, weeks * rhythm_hours, np.inf)


def _known_interval(known: Floats, survival: Shares, variance: Shares) -> tuple[Floats, Floats]:
    """Delta method in (log S(t), log S(horizon)), whose covariance is var log S(t): increments are independent."""
    rate, left = 1.0 - survival[-1], survival[-1]
    by_horizon = known * left / rate
    by_age = by_horizon - survival / rate
    later = np.maximum(variance[-1] - variance, 0.0)
    return _logit_interval(known, np.sqrt(by_age**2 * variance + by_horizon**2 * later))


def _logit_interval(share: Floats, error: Shares) -> tuple[Floats, Floats]:
    """95 % interval on the logit scale; a share of exactly 0 or 1 is its own interval."""
    low, high = share.copy(), share.copy()
    inner = (share > 0) & (share < 1)
    middle = logit(share[inner])
    reach = _Z95 * error[inner] / (share[inner] * (1 - share[inner]))
    low[inner], high[inner] = expit(middle - reach), expit(middle + reach)
    return low, high


def _thinned(known: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First and last step of each run that one step of the thinned curve stands for."""
    if known.size <= _LEVELS + 1:
        return np.arange(known.size), np.arange(known.size)
    first = np.flatnonzero(np.diff(np.floor(known * _LEVELS), prepend=-1.0) > 0)
    return first, np.append(first[1:], known.size) - 1


def landing_lag_quantiles(
    lag_hours: ArrayLike,
    event_age_hours: ArrayLike,
    qs: Sequence[float] = (0.5, 0.9, 0.99),
    *,
    rows: ArrayLike | None = None,
) -> Floats:
    """Quantiles of the landing lag (arrived - happened), over events old enough to show their lag.

    lag_hours : shape (n,), the arrived events' lags
    event_age_hours : shape (n,), cutoff - happened
    qs : shares in [0, 1]; values between two lags are interpolated linearly
    rows : shape (n,), how many events each stands for (default: one)

    A young event is in the log only if its lag was short (right truncation), so only events at least L old count,
    L being the largest lag seen, but at most half the oldest event's age: then some events always count, and lags
    beyond L are seen on the older ones only and come out somewhat too rare. Raises Refused for empty or NaN input.

    >>> landing_lag_quantiles([1.0, 3.0, 0.5], [50.0, 40.0, 1.0], qs=[0.5])
    array([2.])
    """
    lag, age = np.asarray(lag_hours, dtype=np.float64), np.asarray(event_age_hours, dtype=np.float64)
    if lag.size == 0 or lag.shape != age.shape or not np.isfinite(lag + age).all():
        got = f"{lag.size} lags and {age.size} ages, maybe with NaN"
        wanted, remedy = "a lag and an age for each arrived event, and at least one", "wait for outcomes to arrive"
        raise Refused(what="no landing lag can be measured", got=got, wanted=wanted, remedy=remedy)
    old_enough = age >= min(float(lag.max()), float(age.max()) / 2)
    if rows is None:
        return np.asarray(np.quantile(lag[old_enough], np.asarray(qs, dtype=np.float64)), dtype=np.float64)
    return _quantiles_of(lag[old_enough], np.asarray(rows, np.int64)[old_enough], qs)


def _quantiles_of(values: Floats, rows: NDArray[np.int64], qs: Sequence[float]) -> Floats:
    """Quantiles of values that stand for several rows each, as if each were there so often."""
    order = np.argsort(values)
    upto = np.cumsum(rows[order])
    rank = np.asarray(qs, np.float64) * (upto[-1] - 1)
    ordered = values[order]
    below, above = (ordered[np.searchsorted(upto, place(rank), side="right")] for place in (np.floor, np.ceil))
    return np.asarray(below + (above - below) * (rank - np.floor(rank)), np.float64)


def pool_small_segments(events_by_segment: Mapping[str, int], minimum: int = 50) -> dict[str, str]:
    """Name the curve that serves each segment: its own, or ``"all"`` (all segments together) below ``minimum`` events.

    >>> pool_small_segments({"home": 900, "search": 7})
    {'home': 'home', 'search': 'all'}
    """
    return {name: name if count >= minimum else "all" for name, count in sorted(events_by_segment.items())}


def why_pooled(events_by_segment: Mapping[str, int], minimum: int = 50) -> dict[str, str]:
    """Say in words why each pooled segment has no curve of its own; segments with one are left out.

    >>> why_pooled({"home": 900, "search": 7})
    {'search': "'search' has 7 outcomes, fewer than 50: the curve of all segments stands in"}
    """
    pooled = {name: count for name, count in sorted(events_by_segment.items()) if count < minimum}
    tail = f"outcomes, fewer than {minimum}: the curve of all segments stands in"
    return {name: f"'{name}' has {count} {tail}" for name, count in pooled.items()}
