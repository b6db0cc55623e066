"""A model that feeds on its own choices: how wide its choice is, where that goes, what exploring more would buy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import theilslopes

from sameworld.maths.ranking import require_same_length
from sameworld.records import Cannot, Estimate, Refused

Floats = NDArray[np.float64]

TREND_DAYS = 14  # two whole weeks, so that a weekly rhythm is no trend
FEWEST_DAYS = 7
_Z95 = 1.959963984540054


def effective_share(scores: ArrayLike, *, tau: ArrayLike, epsilon: ArrayLike) -> Floats:
    """Share of a request's candidates that could as well have been shown first: exp(entropy) / candidates, shape (n,).

    scores : float array, shape (n, m), NaN where a slot holds no candidate; higher is preferred
    tau, epsilon : one number or one a request, of (1 - epsilon) · softmax(scores / tau) + epsilon · uniform. At tau 0
        the highest score stands first, the first of equal ones; where epsilon is 1, tau does not matter
    1 for an even choice, 1/m where it was certain; NaN for a request without candidates.

    >>> effective_share([[2.0, 1.0], [1.0, 0.0]], tau=0.0, epsilon=[1.0, 0.0])
    array([1. , 0.5])
    """
    first = shown_first(scores, tau=tau, epsilon=epsilon)
    entropy = -np.sum(first * np.log(np.where(first > 0.0, first, 1.0)), axis=1)
    count = np.isfinite(np.asarray(scores, dtype=np.float64)).sum(axis=1)
    return np.where(count > 0, np.exp(entropy) / np.maximum(count, 1), np.nan)


def shown_first(scores: ArrayLike, *, tau: ArrayLike, epsilon: ArrayLike) -> Floats:
    """Probability that each candidate is shown first, shape (n, m), 0 for absent ones; as in `effective_share`."""
    values = np.asarray(scores, dtype=np.float64)
    present = np.isfinite(values)
    heat, share = (np.broadcast_to(np.asarray(one, np.float64), values.shape[:1])[:, None] for one in (tau, epsilon))
    count = present.sum(axis=1, keepdims=True)
    best = np.where(present, values, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)
    below = np.where(present, values - np.where(count > 0, best, 0.0), -np.inf)
    weights = np.exp(below / np.where(heat > 0.0, heat, 1.0))
    top = np.arange(values.shape[1]) == np.argmax(below, axis=1)[:, None]
    weights = np.where(heat > 0.0, weights, (top & present).astype(np.float64))
    ranked = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-300)
    return np.asarray((1.0 - share) * ranked + share * present / np.maximum(count, 1), np.float64)


def trend(day: ArrayLike, value: ArrayLike) -> Estimate | Cannot:
    """Theil–Sen slope a day of daily values, with Sen's 95 % interval.

    day : shape (n,), numbers of distinct days;  value : shape (n,), finite
    The median of all pairs' slopes: a day gone wrong moves it little. The interval takes days as independent.
    Fewer than 7 days have no trend, and the reason comes back.

    Sen, "Estimates of the regression coefficient based on Kendall's tau", JASA 1968.

    >>> trend(range(8), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 70.0])
    Estimate(value=1.0, low=1.0, high=11.5)
    """
    days, values = np.asarray(day, dtype=np.float64), np.asarray(value, dtype=np.float64)
    n = require_same_length(day=days, value=values)
    if n < FEWEST_DAYS:
        return Cannot(f"a trend needs {FEWEST_DAYS} of the last {TREND_DAYS} days with a value, there are {n}")
    found = theilslopes(values, days, alpha=0.95)
    slope, low, high = float(found[0]), float(found[2]), float(found[3])
    return Estimate(slope, min(low, slope), max(high, slope))


def feeds_on_itself(support: Estimate, concentration: Estimate) -> bool:
    """Say whether the choice narrows while exposure concentrates: both trends' intervals clear of 0.

    >>> feeds_on_itself(Estimate(-0.1, -0.2, -0.05), Estimate(0.1, 0.0, 0.2))
    False
    """
    return support.high < 0.0 < concentration.low


@dataclass(frozen=True)
class TargetRows:
    """What a target policy would show, one row a request and position, and how the logging policy might show it.

    request : int array, shape (n,), codes from 0;  user : int array, shape (n,), any codes
    expected : float array, expected gain there;  variance : float array, the gain's variance about that
    drawn : float array in [0, 1], probability that the logging model's own draw shows this item at this position
    candidates : int array, how many the request could choose from: a shuffle shows each with one over that
    """

    request: NDArray[np.int64]
    user: NDArray[np.int64]
    expected: Floats
    variance: Floats
    drawn: Floats
    candidates: NDArray[np.int64]

    def __post_init__(self) -> None:
        if require_same_length(**vars(self)) == 0:
            raise Refused(
                what="nothing to predict an interval from", got="no rows", wanted="one target choice at least"
            )


def half_widths(rows: TargetRows, epsilon: ArrayLike, *, requests: int) -> Floats:
    """Predicted half-width of the 95 % interval of the target's value a request, at each share of shuffled requests.

    epsilon : shape (m,), in [0, 1];  requests : how many the interval would be taken over
    The value is estimated as Σ_k q_k + w_k (g_k − q_k) with w = 1 / p where logging shows the target's item, else 0,
    and p = (1 − epsilon) · drawn + epsilon / candidates. With q right, the second moment of w (g − q) is variance / p,
    rows are uncorrelated, and Σ q varies between users. Infinite where a choice has p = 0. Not monotone: where the
    logging model's own draw favours the target's choices, shuffling makes them rarer.
    """
    share = np.asarray(epsilon, dtype=np.float64)[:, None]
    total = int(rows.request.max()) + 1
    with np.errstate(divide="ignore", invalid="ignore"):
        weighted = rows.variance / ((1.0 - share) * rows.drawn + share / rows.candidates)
    noise = np.where(rows.variance > 0.0, weighted, 0.0).sum(axis=1) / total
    return np.asarray(_Z95 * np.sqrt((noise + _between_users(rows, total)) / requests), np.float64)


def _between_users(rows: TargetRows, total: int) -> float:
    """Variance a request of the mean expected gain, users drawn as wholes."""
    worth = np.bincount(rows.request, weights=rows.expected, minlength=total)
    owner = np.zeros(total, np.int64)
    owner[rows.request] = np.unique(rows.user, return_inverse=True)[1]
    by_user = np.bincount(owner, weights=worth - worth.mean())
    return float(np.sum(by_user**2) / total * len(by_user) / max(len(by_user) - 1, 1))


def smallest_enough(epsilon: ArrayLike, half_width: ArrayLike, wanted: float) -> float | None:
    """The smallest share whose half-width is at most ``wanted``; None if none is.

    >>> smallest_enough([0.0, 0.01, 0.1], [0.9, 0.05, 0.02], wanted=0.05)
    0.01
    """
    enough = np.flatnonzero(np.asarray(half_width) <= wanted)
    return float(np.asarray(epsilon)[enough[0]]) if len(enough) else None
