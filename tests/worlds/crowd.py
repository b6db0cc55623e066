"""The random pieces that the worlds share: when people come, what they are offered and do, how late rows land."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from worlds.drop_files import DAY_US, HOUR_US, START_US, Bools, Floats, Ints

WEEKDAY_TRAFFIC = np.array([0.9, 1.0, 1.02, 1.0, 1.0, 1.05, 0.93])  # Sunday first, as the first day is one


def sigmoid(x: Floats) -> Floats:
    """Return 1 / (1 + exp(-x))."""
    return np.asarray(1 / (1 + np.exp(-x)))


def standard(x: Floats) -> Floats:
    """Return ``x`` with mean 0 and deviation 1."""
    return np.asarray((x - x.mean()) / x.std())


def request_times(rng: np.random.Generator, *, days: int, per_day: int) -> Ints:
    """Return sorted request times in epoch microseconds: busiest at 20:00, quietest at 08:00 UTC."""
    grid = np.linspace(0, 24, 241)
    traffic = np.cumsum(1 + 0.8 * np.cos((grid - 20) / 24 * 2 * np.pi))
    counts = np.round(per_day * WEEKDAY_TRAFFIC[np.arange(days) % 7]).astype(np.int64)
    hour = np.interp(rng.random(counts.sum()), (traffic - traffic[0]) / (traffic[-1] - traffic[0]), grid)
    day = np.repeat(np.arange(days), counts)
    return np.sort(START_US + day * DAY_US + np.minimum((hour * HOUR_US).astype(np.int64), DAY_US - 1))


def lag(rng: np.random.Generator, size: int, *, mean_hours: float, cap_hours: float) -> Ints:
    """Return landing lags in microseconds, exponential up to a cap.

    An uploader flushes at the cap at the latest. Where cap >= 3 means, about 5 % of rows lie on it, so that the lag's
    99 % quantile is its maximum: nothing of a clean drop lands later than a reader may expect.
    """
    hours = np.minimum(rng.exponential(mean_hours, size), cap_hours)
    return np.maximum((hours * HOUR_US).astype(np.int64), 1)


def zipf_weights(rng: np.random.Generator, size: int, exponent: float) -> Floats:
    """Return popularity weights that sum to 1, in random order."""
    weights = rng.permutation(np.arange(1.0, size + 1) ** -exponent)
    return np.asarray(weights / weights.sum())


def draw_distinct(
    rng: np.random.Generator, requests: int, weights: Callable[[Ints], Floats], count: int, *, chunk: int = 4096
) -> Ints:
    """Draw ``count`` distinct columns for each request, in proportion to ``weights``; shape (requests, count).

    An exponential race: the ``count`` smallest of Exp(1) / weight. A weight of 0 is never drawn.
    """
    drawn = []
    for start in range(0, requests, chunk):
        weight = weights(np.arange(start, min(start + chunk, requests)))
        with np.errstate(divide="ignore"):
            finish = rng.standard_exponential(weight.shape) / weight
        drawn.append(np.argpartition(finish, count, axis=1)[:, :count])
    return np.concatenate(drawn).astype(np.int64)


def cascade(rng: np.random.Generator, looked_at: Floats, *steps: Floats) -> list[Bools]:
    """Draw outcomes of which each needs the one before it: first examined, then each step's probability."""
    alive = rng.random(len(looked_at)) < looked_at
    happened = []
    for probability in steps:
        alive = alive & (rng.random(len(alive)) < probability)
        happened.append(alive)
    return happened


def waits(rng: np.random.Generator, mean_hours: Floats, *, least_seconds: float = 1.0) -> Ints:
    """Return exponential waits in microseconds, with these means."""
    return np.asarray((rng.exponential(mean_hours) * HOUR_US + least_seconds * 1e6).astype(np.int64))
