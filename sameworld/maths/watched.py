"""Impressions by how long they have been watched: all that a delay curve and a shift alarm need to know of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sameworld.records import Refused

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

_MICROSECOND_HOURS = 1 / 3.6e9


@dataclass(frozen=True, eq=False)
class Ages:
    """The ages of impressions, sorted once so that any number of curves can count them.

    hours : ascending, shape (n,), >= 0; how long impressions have been observed at the cutoff
    before : shape (n + 1,), how many impressions stand before each of them, and all; an age may stand for several
    """

    hours: Floats
    before: Counts

    @classmethod
    def of(cls, hours: ArrayLike, rows: ArrayLike | None = None) -> Ages:
        """Sort ages; ``rows``, shape (n,), says how many impressions have each (default: one).

        Raises Refused for an age that is negative or not finite.
        """
        ages = np.asarray(hours, dtype=np.float64)
        counts = np.ones(ages.shape, np.int64) if rows is None else np.asarray(rows, np.int64)
        bad = ~(np.isfinite(ages) & (ages >= 0))
        if bad.any():
            got = f"{counts[bad].sum()} negative or not finite"
            remedy = "leave out what was shown at or after the cutoff"
            raise Refused(what="an impression's age is no age", got=got, wanted="hours >= 0", remedy=remedy)
        if not (ages[1:] >= ages[:-1]).all():
            order = np.argsort(ages, kind="stable")
            ages, counts = ages[order], counts[order]
        return cls(ages, np.concatenate([[0], np.cumsum(counts)]))

    def __len__(self) -> int:
        """How many impressions there are."""
        return int(self.before[-1])

    @property
    def oldest(self) -> float:
        """The highest age; -inf where there is no impression."""
        return float(self.hours[-1]) if self.hours.size else -np.inf

    def from_on(self, at: ArrayLike) -> Counts:
        """Count, for each of these ages (quickest if ascending), the impressions at least as old.

        >>> Ages.of([5.0, 1.0, 3.0], rows=[1, 10, 100]).from_on([0.0, 3.0, 5.1])
        array([111, 101,   0])
        """
        return np.asarray(len(self) - self.before[np.searchsorted(self.hours, at, side="left")], np.int64)

    def beyond(self, at: ArrayLike, span: float) -> Counts:
        """Count, for each of these ages, the impressions older than it by more than ``span`` hours."""
        return np.asarray(len(self) - self.before[np.searchsorted(self.hours - span, at, side="right")], np.int64)


@dataclass(frozen=True, eq=False)
class Watched:
    """Impressions, and those of them of which an outcome is known.

    ages : of all impressions, with and without an outcome
    age_hours : shape (m,), the ages of those with one
    arrival_hours : shape (m,), the age at which their first outcome became known, >= 0; no outcome is ever known of the
        others, so they need not be listed
    """

    ages: Ages
    age_hours: Floats
    arrival_hours: Floats

    @classmethod
    def of(cls, age_hours: ArrayLike, arrival_age_hours: ArrayLike) -> Watched:
        """Read impressions one by one (``fit_delay_curve`` says how); raises Refused for what contradicts itself."""
        age, arrival = np.asarray(age_hours, np.float64), np.asarray(arrival_age_hours, np.float64)
        if age.ndim != 1 or age.shape != arrival.shape:
            got, wanted = f"shapes {age.shape} and {arrival.shape}", "one of each for every impression"
            raise Refused(what="ages and arrival ages do not match", got=got, wanted=wanted)
        came = ~np.isnan(arrival)
        return cls.among(Ages.of(age), age[came], arrival[came])

    @classmethod
    def among(cls, ages: Ages, age_hours: Floats, arrival_hours: Floats) -> Watched:
        """Name those with an outcome among impressions of these ages; an arrival age below 0 counts as 0.

        Raises Refused for an outcome that is known from after the cutoff.
        """
        early = int(np.count_nonzero(arrival_hours > age_hours + _MICROSECOND_HOURS))
        if early:
            got, wanted = f"{early} arrival ages above the age itself", "NaN for what had not arrived"
            remedy = "read the outcomes as of the cutoff"
            raise Refused(what="outcomes are known from after the cutoff", got=got, wanted=wanted, remedy=remedy)
        return cls(ages, age_hours, np.maximum(arrival_hours, 0.0))

    def at_risk(self, at: Floats, *, horizon_hours: float, spans: Floats) -> Counts:
        """Count, at each age, the impressions observed up to it whose showing lies within the age's span.

        at : ascending, <= horizon_hours; spans : shape of ``at``, hours of showing beyond the age that count, inf: all
        An impression is observed up to its first outcome, else up to its age, and no longer than the horizon.
        """
        observed = np.minimum(np.minimum(self.age_hours, horizon_hours), self.arrival_hours)
        waiting, aged = np.sort(observed), np.sort(self.age_hours)
        known = np.searchsorted(waiting, at, side="left") - np.searchsorted(aged, at, side="left")
        counts = self.ages.from_on(at) - known
        for span in np.unique(spans[np.isfinite(spans)]):
            here = spans == span
            counts[here] -= self._beyond(at[here], observed, aged, float(span))
        return counts

    def _beyond(self, at: Floats, observed: Floats, aged: Floats, span: float) -> Counts:
        """Count those observed up to each age that were shown before the span: all that old, but for known outcomes."""
        leaves = np.minimum(self.age_hours - span, np.nextafter(observed, np.inf))
        leaves = np.sort(leaves[leaves > at[0]])
        old = aged[np.searchsorted(aged, at[0] + span - 1.0) :] - span  # an hour earlier: sums are rounded
        waiting = leaves.size - np.searchsorted(leaves, at, side="right")
        return self.ages.beyond(at, span) - (old.size - np.searchsorted(old, at, side="right")) + waiting
