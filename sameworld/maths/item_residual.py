"""What a model leaves of an item: an intercept by id on top of its prediction, shrunk as far as items are alike.

A mixed model's random intercept with everything else as offset: outcome share y has mean E·sigmoid(f + b_item), E the
known exposure, b normal with mean 0 and a variance that the log itself tells (empirical Bayes).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
FIRST_VARIANCE, LEAST_VARIANCE = 0.3, 1e-4
# Rounds of EM after each look at the rows: with 25 looks for as many rounds, intercepts differ by some .001.
ROUNDS = (1, 2, 4, 6, 6, 6)
LONGEST_STEP = 1.0
FURTHEST_LOGIT = 80.0
BLOCK_ROWS = 65_536  # what a block's arithmetic needs stays in a core's cache


def item_residuals(
    item: NDArray[np.int32], logit: Floats, y: Floats, *, exposure: Floats, weight: Floats, items: int
) -> Floats:
    """Return each item's intercept, shape (items,): the posterior mode; 0 for an item without rows.

    item : (n,) numbers from 0; logit : (n,) the model's; y : (n,) in [0, 1]; exposure : (n,) in (0, 1]
    weight : (n,) > 0, what a row counts

    Newton's steps with the expected curvature, and between them the variance as the mean of b² plus its posterior
    variance: the EM of Laird and Ware, "Random-effects models for longitudinal data", Biometrics 1982, section 4. Once
    steps are short, several rounds share one look at the rows, with the slope taken as straight between two looks.

    >>> found = item_residuals(np.zeros(4, np.int32), np.zeros(4), np.ones(4), exposure=np.ones(4), weight=np.ones(4),
    ...                        items=2)
    >>> bool(found[0] > 0), float(found[1])
    (True, 0.0)
    """
    residual, variance = np.zeros(items), FIRST_VARIANCE
    seen = np.bincount(item, minlength=items) > 0
    for rounds in ROUNDS if seen.any() else ():
        looked, by_row = residual, _derivatives(item, logit, y, exposure, residual)
        pull, curvature = (np.bincount(item, weights=weight * each, minlength=items) for each in by_row)
        for _ in range(rounds):
            precision = curvature + 1.0 / variance
            residual = looked + np.clip((pull - looked / variance) / precision, -LONGEST_STEP, LONGEST_STEP)
            spread = residual**2 + 1.0 / precision
            variance = max(float(spread[seen].mean()), LEAST_VARIANCE)
    return residual


def _derivatives(item: NDArray[np.int32], logit: Floats, y: Floats, exposure: Floats, residual: Floats) -> Floats:
    """Return by row the log likelihood's slope in the logit, and its expected curvature, which is positive, (2, n).

    With p = 1 / (1 + odds), q the posterior probability of relevance given y: q − p, and E·p·(1 − p)² / (1 − p·E).
    """
    found = np.empty((2, len(item)))
    for first in range(0, len(item), BLOCK_ROWS):
        here = slice(first, first + BLOCK_ROWS)
        shifted = logit[here] + residual[item[here]]
        odds = np.exp(-np.clip(shifted, -FURTHEST_LOGIT, FURTHEST_LOGIT))
        p = 1.0 / (1.0 + odds)
        miss, seen = odds * p, exposure[here] / (1.0 - exposure[here] + odds)
        found[0, here] = miss * (y[here] - (1.0 - y[here]) * seen)
        found[1, here] = miss * miss * seen
    return found
