"""The probability model's likelihood: a click needs examination, and time to arrive.

Observed y is 1 with probability E·p, where p is the relevance that we want and E = examination × completeness is
known. This is the delayed-feedback likelihood (Chapelle, "Modeling delayed feedback in display advertising", KDD 2014,
section 3) with a non-parametric delay, and the position-based model in the same place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, xlogy

Floats = NDArray[np.float64]
SMALLEST_HESSIAN = 1e-6


def exposed_gradients(raw: Floats, y: Floats, exposure: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """Return gradient and a positive curvature of −log likelihood, each of shape (n,).

    The gradient is exact: p − q, with q the posterior probability of relevance given y.

    >>> g, h = exposed_gradients(np.zeros(2), np.array([1.0, 0.0]), np.ones(2), np.ones(2))
    >>> g.tolist(), h.tolist()
    ([-0.5, 0.5], [0.25, 0.25])
    """
    p = expit(raw)
    unseen = y + (1.0 - y) * p * (1.0 - exposure) / np.maximum(1.0 - p * exposure, 1e-12)
    curvature = np.maximum(p * (1.0 - p) * (y + (1.0 - y) * exposure), SMALLEST_HESSIAN)
    return weight * (p - unseen), weight * curvature


def exposed_log_loss(raw: Floats, y: Floats, exposure: Floats, weight: Floats) -> float:
    """Return the mean −log likelihood of y under exposure·sigmoid(raw)."""
    p = np.clip(exposure * expit(raw), 1e-12, 1.0 - 1e-12)
    loss = -(xlogy(y, p) + xlogy(1.0 - y, 1.0 - p))
    return float(np.sum(weight * loss) / np.sum(weight))


def starting_logit(y: Floats, exposure: Floats, weight: Floats) -> float:
    """Return logit(sum y / sum E), where boosting starts."""
    rate = float(np.clip(np.sum(weight * y) / np.sum(weight * exposure), 1e-6, 1.0 - 1e-6))
    return float(np.log(rate / (1.0 - rate)))


def lightgbm_objective(exposure: Floats, weight: Floats) -> Callable[[Floats, lgb.Dataset], tuple[Floats, Floats]]:
    """Return the objective in the form that ``lightgbm.train`` takes."""

    def objective(raw: Floats, dataset: lgb.Dataset) -> tuple[Floats, Floats]:
        return exposed_gradients(raw, np.asarray(dataset.get_label(), np.float64), exposure, weight)

    return objective


def lightgbm_metric(exposure: Floats, weight: Floats) -> Callable[[Floats, lgb.Dataset], tuple[str, float, bool]]:
    """Return the held-out loss in the form that ``lightgbm.train`` takes; lower is better."""

    def metric(raw: Floats, dataset: lgb.Dataset) -> tuple[str, float, bool]:
        y: Any = np.asarray(dataset.get_label(), np.float64)
        return "exposed_log_loss", exposed_log_loss(raw, y, exposure, weight), False

    return metric
