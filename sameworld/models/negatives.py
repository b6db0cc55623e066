"""Negatives sampled at a rate, and how much the rows that are left count."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_ROUNDS = 30  # of filling up to the rate; each fixes the rows that are certain to stay


def sampled_negatives(
    target: Floats, chosen: NDArray[np.bool_], *, worth: Floats, rate: float, seed: int
) -> tuple[NDArray[np.bool_], Floats]:
    """Return which of the chosen rows are kept, and a factor for the weight of each row, both of shape (n,).

    target : 0 or 1, shape (n,); worth : weight × exposure, above 0, shape (n,)
    rate : share of the negatives that is kept, in (0, 1]

    A negative says as much as it is worth, so it is kept with a probability in proportion to that and counts one over
    it: every probability stays what it is in the whole log. All factors are then shrunk by how much less the sample
    tells. With a positives a log-odds has the variance 1/a, to which sampling adds v = sum(w² (1/share − 1)) / sum(w)²
    over the negatives; without the factor (1/a) / (1/a + v) leaves and trees would be held back as if nothing had been
    left out, and fit the luck of few negatives. A row's draw depends on the seed and its place.

    >>> target, every = np.array([1.0, 0, 0, 0]), np.ones(4, bool)
    >>> kept, factor = sampled_negatives(target, every, worth=np.ones(4), rate=0.5, seed=3)
    >>> kept, factor.round(3)
    (array([ True,  True, False, False]), array([0.75, 1.5 , 1.5 , 1.5 ]))
    """
    if rate == 1.0:
        return chosen, np.ones(len(target))
    negative = target == 0
    share = np.ones(len(target))
    drawn = chosen & negative
    share[drawn] = _shares(worth[drawn], rate)
    kept = chosen & (np.random.default_rng(seed).random(len(target)) < share)
    positives, w = int((chosen & ~negative).sum()), worth[drawn]
    added = float(np.sum(w**2 * (1.0 / share[drawn] - 1.0))) / max(float(w.sum()), 1e-12) ** 2
    tells = 1.0 / (1.0 + positives * added)
    return kept, tells / share


def _shares(worth: Floats, rate: float) -> Floats:
    """Return probabilities in proportion to worth, none above 1, whose mean is the rate."""
    scale = rate * len(worth) / max(float(worth.sum()), 1e-12)
    for _ in range(_ROUNDS):
        share = np.minimum(scale * worth, 1.0)
        certain = share == 1.0
        left, room = float(worth[~certain].sum()), rate * len(worth) - int(certain.sum())
        if not certain.any() or left == 0.0:
            break
        scale = max(scale, room / left)
    return np.asarray(np.minimum(scale * worth, 1.0), np.float64)
