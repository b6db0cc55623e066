"""What a model leaves of an item: an intercept by id on top of its prediction, shrunk as far as items are alike.

A mixed model's random intercept with everything else as offset: outcome share y has mean E·sigmoid(f + b_item), E the
known exposure, b normal with mean 0 and a variance that the log itself tells (empirical Bayes).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

Floats = NDArray[np.float64]
ROUNDS, FIRST_VARIANCE, LEAST_VARIANCE = 25, 0.3, 1e-4
LONGEST_STEP = 1.0


def item_residuals(
    item: NDArray[np.int32], logit: Floats, y: Floats, *, exposure: Floats, weight: Floats, items: int
) -> Floats:
    """Return each item's intercept, shape (items,): the posterior mode; 0 for an item without rows.

    item : (n,) numbers from 0; logit : (n,) the model's; y : (n,) in [0, 1]; exposure : (n,) in (0, 1]
    weight : (n,) > 0, what a row counts

    Newton's steps with the expected curvature, and between them the variance as the mean of b² plus its posterior
    variance: the EM of Laird and Ware, "Random-effects models for longitudinal data", Biometrics 1982, section 4.

    >>> found = item_residuals(np.zeros(4, np.int32), np.zeros(4), np.ones(4), exposure=np.ones(4), weight=np.ones(4),
    ...                        items=2)
    >>> bool(found[0] > 0), float(found[1])
    (True, 0.0)
    """
    residual, variance = np.zeros(items), FIRST_VARIANCE
    seen = np.bincount(item, minlength=items) > 0
    for _ in range(ROUNDS if seen.any() else 0):
        by_row = _derivatives(logit + residual[item], y, exposure)
        pull, curvature = (np.bincount(item, weights=weight * each, minlength=items) for each in by_row)
        step = (pull - residual / variance) / (curvature + 1.0 / variance)
        residual = residual + np.clip(step, -LONGEST_STEP, LONGEST_STEP)
        spread = residual**2 + 1.0 / (curvature + 1.0 / variance)
        variance = max(float(spread[seen].mean()), LEAST_VARIANCE)
    return residual


def _derivatives(logit: Floats, y: Floats, exposure: Floats) -> tuple[Floats, Floats]:
    """Return by row the log likelihood's slope in the logit, and its expected curvature, which is positive."""
    p = expit(logit)
    unshown = np.maximum(1.0 - p * exposure, 1e-12)
    relevant = y + (1.0 - y) * p * (1.0 - exposure) / unshown
    return np.asarray(relevant - p), np.asarray(exposure * p * (1.0 - p) ** 2 / unshown)
