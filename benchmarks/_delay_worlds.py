"""Worlds that consist of delays only: when impressions are shown, what comes of them, and when the log knows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, Floats, float], Floats]

DAY, WEEK, WORKING = 24.0, 168.0, 120.0
HOURLY = 1.0 - 0.7 * np.cos(2.0 * np.pi * (np.arange(24) - 3.0) / 24.0)  # quiet at 3, busy at 15
HOURLY /= HOURLY.sum()
Q99_OVER_MEAN = 2.5113  # of gamma(4)


@dataclass(frozen=True)
class Delays:
    """How late outcomes are: ``wait`` from shown (hours since a Monday's start) to happened, gamma(4) landing lags of
    mean ``landing_hours`` after that; an outcome counts within ``window_days``. ``stretch`` makes waiting longer."""

    name: str
    wait: Draw
    landing_hours: float
    window_days: float
    stretch: float = 1.0
    later_hours: float = 0.0

    @property
    def horizon_hours(self) -> float:
        """Return the window and the landing lag's q99, rounded up to 6 hours as the product does."""
        return self.window_days * DAY + 6.0 * math.ceil(Q99_OVER_MEAN * self.landing_hours / 6.0)


def exponential(mean_hours: float) -> Draw:
    """Wait an exponential time."""
    return lambda rng, shown, stretch: rng.exponential(stretch * mean_hours, shown.size)


def two_humped(rng: np.random.Generator, shown: Floats, stretch: float) -> Floats:
    """Wait hours, or else about three days."""
    late = np.abs(rng.normal(72.0, 10.0, shown.size))
    return stretch * np.where(rng.random(shown.size) < 0.6, rng.exponential(4.0, shown.size), late)


def weekly(rng: np.random.Generator, shown: Floats, stretch: float) -> Floats:
    """Wait an exponential time of mean 30 hours on a clock that stands still from Saturday to Monday."""
    week, into = np.divmod(shown, WEEK)
    clock = week * WORKING + np.minimum(into, WORKING) + rng.exponential(stretch * 30.0, shown.size)
    week, into = np.divmod(clock, WORKING)
    return np.asarray(week * WEEK + into - shown)


WORLDS = (
    Delays("hours", exponential(3.0), 0.5, 2.0),
    Delays("days", exponential(36.0), 12.0, 7.0),
    Delays("a week", exponential(WEEK), 12.0, 14.0),
    Delays("two-humped", two_humped, 3.0, 7.0),
    Delays("weekly rhythm", weekly, 6.0, 7.0),
)


def shown_times(rng: np.random.Generator, impressions: int, days: int) -> Floats:
    """Draw when impressions are shown over a log of whole days, by the hour's traffic, in hours."""
    hour = rng.choice(24, size=impressions, p=HOURLY) + rng.random(impressions)
    return np.asarray(rng.integers(days, size=impressions) * DAY + hour)


def known_ages(rng: np.random.Generator, shown: Floats, delays: Delays) -> Floats:
    """Draw the age at which each impression's outcome would be known, NaN where it happens after the window."""
    wait = delays.wait(rng, shown, delays.stretch)
    known = wait + rng.gamma(4.0, delays.landing_hours / 4.0, shown.size) + delays.later_hours
    return np.where(wait < delays.window_days * DAY, known, np.nan)


def censored(shown: Floats, known: Floats, cutoff: float) -> tuple[Floats, Floats]:
    """Return age and arrival age of what was shown before a cutoff; what is not known yet is NaN."""
    there = shown < cutoff
    age, arrival = cutoff - shown[there], known[there]
    return age, np.where(arrival < age, arrival, np.nan)


def true_arrivals(delays: Delays, draws: int) -> Floats:
    """Draw the ages at which a horizon's outcomes are known, ascending, over all weekdays and hours of showing.

    Four million draws give each share to 0.0003.
    """
    rng = np.random.default_rng(0)
    known = known_ages(rng, shown_times(rng, draws, 7), delays)
    return np.sort(known[known <= delays.horizon_hours])
