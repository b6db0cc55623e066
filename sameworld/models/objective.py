"""The probability model's likelihood: a click needs examination, and time to arrive.

Observed y is 1 with probability E·p, where p is the relevance that we want and E = examination × completeness is
known. This is the delayed-feedback likelihood (Chapelle, "Modeling delayed feedback in display advertising", KDD 2014,
section 3) with a non-parametric delay, and the position-based model in the same place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, xlogy

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
SMALLEST_HESSIAN = 1e-6
FURTHEST_LOGIT = 80.0  # e^80 is still a 32-bit float; a probability of 1e-35 is none
BLOCK_ROWS = 65_536  # what a block's arithmetic needs stays in a core's cache


@dataclass(frozen=True)
class ExposedLikelihood:
    """What −log likelihood needs of each row and no round changes, arrays (n,) of one float type.

    positive: weight·y; negative: weight·(1 − y)·E; unexposed: 1 − E; least: the smallest curvature allowed
    """

    positive: NDArray[Any]
    negative: NDArray[Any]
    unexposed: NDArray[Any]
    least: NDArray[Any]

    @classmethod
    def of(cls, y: Floats, exposure: Floats, weight: Floats, dtype: type[np.floating[Any]] = np.float32) -> Self:
        """Prepare rows; LightGBM reads gradients as 32-bit floats, so they are made as such."""
        found = (weight * y, weight * (1.0 - y) * exposure, 1.0 - exposure, weight * SMALLEST_HESSIAN)
        return cls(*(one.astype(dtype) for one in found))

    def gradients(self, raw: Floats, out: NDArray[Any] | None = None) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return gradient and a positive curvature, each of shape (n,), worked out block by block.

        out (2, n): where to put them; LightGBM has read a round's before it asks for the next
        """
        found = np.empty((2, len(raw)), self.positive.dtype) if out is None else out
        room = np.empty((2, min(BLOCK_ROWS, len(raw))), found.dtype)
        for first in range(0, len(raw), BLOCK_ROWS):
            here = slice(first, min(first + BLOCK_ROWS, len(raw)))
            self._derive(raw[here], here, out=found[:, here], room=room[:, : here.stop - first])
        return found[0], found[1]

    def _derive(self, raw: Floats, here: slice, *, out: NDArray[Any], room: NDArray[Any]) -> None:
        """With e = exp(−raw), p = 1 / (1 + e) and m = 1 − p = e / (1 + e), nothing is lost by subtracting:

        gradient = m · (negative / (1 − E + e) − positive) = weight · (p − q);
        curvature = p · m · (positive + negative) = weight · p · (1 − p) · (y + (1 − y)·E).
        """
        positive, negative, (gradient, curvature), (odds, miss) = self.positive[here], self.negative[here], out, room
        np.negative(raw, out=odds, casting="same_kind")
        np.clip(odds, -FURTHEST_LOGIT, FURTHEST_LOGIT, out=odds)
        np.exp(odds, out=odds)
        np.add(odds, 1.0, out=curvature)
        np.divide(1.0, curvature, out=curvature)
        np.multiply(odds, curvature, out=miss)
        np.add(odds, self.unexposed[here], out=odds)
        np.divide(negative, odds, out=gradient)
        np.subtract(gradient, positive, out=gradient)
        np.multiply(gradient, miss, out=gradient)
        np.multiply(curvature, miss, out=curvature)
        np.add(positive, negative, out=odds)
        np.multiply(curvature, odds, out=curvature)
        np.maximum(curvature, self.least[here], out=curvature)


def exposed_gradients(raw: Floats, y: Floats, exposure: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """Return gradient and a positive curvature of −log likelihood, each of shape (n,).

    The gradient is exact: p − q, with q the posterior probability of relevance given y.

    >>> g, h = exposed_gradients(np.zeros(2), np.array([1.0, 0.0]), np.ones(2), np.ones(2))
    >>> g.tolist(), h.tolist()
    ([-0.5, 0.5], [0.25, 0.25])
    """
    return ExposedLikelihood.of(y, exposure, weight, np.float64).gradients(raw)


def exposed_log_loss(raw: Floats, y: Floats, exposure: Floats, weight: Floats) -> float:
    """Return the mean −log likelihood of y under exposure·sigmoid(raw)."""
    p = np.clip(exposure * expit(raw), 1e-12, 1.0 - 1e-12)
    loss = -(xlogy(y, p) + xlogy(1.0 - y, 1.0 - p))
    return float(np.sum(weight * loss) / np.sum(weight))


def starting_logit(y: Floats, exposure: Floats, weight: Floats) -> float:
    """Return logit(sum y / sum E), where boosting starts."""
    rate = float(np.clip(np.sum(weight * y) / np.sum(weight * exposure), 1e-6, 1.0 - 1e-6))
    return float(np.log(rate / (1.0 - rate)))


def lightgbm_objective(
    y: Floats, exposure: Floats, weight: Floats
) -> Callable[[Floats, lgb.Dataset], tuple[Singles, Singles]]:
    """Return the objective in the form that ``lightgbm.train`` takes."""
    likelihood = ExposedLikelihood.of(y, exposure, weight)
    room = np.empty((2, len(y)), np.float32)
    return lambda raw, _: likelihood.gradients(raw, room)


def lightgbm_metric(
    y: Floats, exposure: Floats, weight: Floats
) -> Callable[[Floats, lgb.Dataset], tuple[str, float, bool]]:
    """Return the held-out loss in the form that ``lightgbm.train`` takes; lower is better."""
    return lambda raw, _: ("exposed_log_loss", exposed_log_loss(raw, y, exposure, weight), False)
