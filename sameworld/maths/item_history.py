"""What a log knew of its items each morning: outcomes an exposed impression, debiased, fading, and shrunk.

A click rate is biased by where an item was shown, and young impressions have not had their time. So an impression
counts as its exposure, examination times the share of its outcomes that are known by now; then the rate is that of the
item at position 1, whoever chose to show it and where. Only earlier days are read, and of them only what was known by
then: a row's own outcome is never in its own statistic, and a training row sees what a served one will see.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
PRIOR_EVENTS = (0.5, 30.0)  # bounds of the prior's strength, in outcomes: a few items cannot tell how items differ


@dataclass(frozen=True)
class Shown:
    """Impressions, arrays (n,): item and segment as numbers from 0, the day shown from 0, and examination in (0, 1]."""

    item: Ints
    day: Ints
    segment: Ints
    examination: Floats


@dataclass(frozen=True)
class Came:
    """Outcomes of one kind, arrays (m,): the item, the day it was shown, and the day on which the log first had it.

    weight : (m,), what an outcome counts, as its impression's examination does; None: each 1
    """

    item: Ints
    day_shown: Ints
    day_known: Ints
    weight: Floats | None = None


@dataclass(frozen=True)
class History:
    """Log of rate over mean rate: ``rows`` (n,) as of the start of each impression's day, ``latest`` (items,)."""

    rows: Floats
    latest: Floats


def item_history(
    shown: Shown, came: Came, *, completeness: Floats, half_life_days: float, items: int, today: int
) -> History:
    """Return every impression's item statistic as it was known when its day began, and each item's as of ``today``.

    completeness : shape (segments, ages), the share of outcomes known at the start of the day ``age`` days after the
        one shown, ages from 1; later ages are complete
    half_life_days : after which an impression and its outcomes count half
    today : the day at whose start ``latest`` is known, after all days shown

    An item without history has 0, as has everything before the first outcome is known. The prior is the mean rate,
    with the strength that the items' spread has by moments of a gamma-Poisson model (see :func:`shrunk_log_ratio`).

    >>> shown = Shown(np.array([0, 0, 1]), np.array([0, 1, 1]), np.zeros(3, np.int64), np.ones(3))
    >>> came = Came(np.array([0]), np.array([0]), np.array([0]))
    >>> history = item_history(shown, came, completeness=np.ones((1, 1)), half_life_days=7.0, items=2, today=2)
    >>> history.rows.tolist(), history.latest.round(2).tolist()
    ([0.0, 0.0, 0.0], [0.01, -0.01])
    """
    state = _Morning.first(completeness, 0.5 ** (1.0 / half_life_days), items)
    by_day, by_known = (np.argsort(days, kind="stable") for days in (shown.day, came.day_known))
    starts = np.searchsorted(shown.day[by_day], np.arange(today + 1))
    known = np.searchsorted(came.day_known[by_known], np.arange(today + 1))
    rows = np.zeros(len(shown.item))
    for day in range(today):
        here = by_day[starts[day] : starts[day + 1]]
        rows[here] = state.statistic()[shown.item[here]]
        cell = shown.segment[here] * items + shown.item[here]
        seen = np.bincount(cell, weights=shown.examination[here], minlength=completeness.shape[0] * items)
        arrived = by_known[known[day] : known[day + 1]]
        faded = state.keep ** (day - came.day_shown[arrived]).astype(np.float64)
        faded = faded if came.weight is None else faded * came.weight[arrived]
        state.night(seen, np.bincount(came.item[arrived], weights=faded, minlength=items))
    return History(rows, state.statistic())


def shrunk_log_ratio(outcomes: Floats, exposure: Floats) -> Floats:
    """Return log(rate / mean rate) by item, the rate shrunk to the mean; 0 where nothing has come of anything yet.

    outcomes, exposure : shape (items,), >= 0

    Outcomes are Poisson(exposure · rate) and rates Gamma with mean r: the variance v of the rates is found by moments,
    sum((outcomes − r · exposure)² − r · exposure) / sum(exposure²), and the prior is worth r / v of exposure.

    >>> shrunk_log_ratio(np.array([9.0, 1.0]), np.array([10.0, 10.0])).round(2).tolist()
    [0.44, -0.8]
    """
    mean = float(outcomes.sum()) / max(float(exposure.sum()), 1e-12)
    if mean <= 0.0:
        return np.zeros(len(outcomes))
    excess = float(np.sum((outcomes - mean * exposure) ** 2 - mean * exposure))
    variance = excess / max(float(np.sum(exposure**2)), 1e-12)
    events = np.clip(mean * mean / max(variance, 1e-12), *PRIOR_EVENTS)
    return np.asarray(np.log((outcomes + events) / (mean * exposure + events)), np.float64)


@dataclass
class _Morning:
    """The sums at the start of a day; ``recent`` are the last days' exposures by segment, the newest first."""

    completeness: Floats
    keep: float
    outcomes: Floats
    settled: Floats
    recent: deque[Floats]

    @classmethod
    def first(cls, completeness: Floats, keep: float, items: int) -> _Morning:
        return cls(completeness, keep, np.zeros(items), np.zeros(items), deque())

    def statistic(self) -> Floats:
        exposure = self.settled.copy()
        for age, seen in enumerate(self.recent):
            exposure += self.keep**age * (self.completeness[:, age] @ seen)
        return shrunk_log_ratio(self.outcomes, exposure)

    def night(self, seen: NDArray[Any], arrived: NDArray[Any]) -> None:
        """Let the day end: everything fades, what was shown joins, and what arrived counts."""
        segments, ages = self.completeness.shape
        self.outcomes = self.keep * self.outcomes + arrived
        self.settled = self.keep * self.settled
        self.recent.appendleft(np.asarray(seen.reshape(segments, -1), np.float64))
        if len(self.recent) > ages:
            self.settled += self.keep**ages * self.recent.pop().sum(axis=0)
