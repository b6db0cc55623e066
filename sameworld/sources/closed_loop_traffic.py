"""Who asks for what, when, and which services answer: a day's requests, equal for every policy."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from sameworld.sources.closed_loop_parameters import WorldParameters
from sameworld.sources.closed_loop_population import REQUEST_STREAM, SURFACES, Floats, Ints, Items, Users, stream

SECOND = 1_000_000  # times are microseconds since 1970, UTC
MINUTE, HOUR, DAY = 60 * SECOND, 3600 * SECOND, 86_400 * SECOND
UP, TIMEOUT, EXPIRED = range(3)  # how a feature service answered; TIMEOUT is the shared upstream's fault
STATUS_WORDS = ("", "timeout", "expired")


@dataclass(frozen=True)
class Traffic:
    """A day's requests, ordered by time.

    shown_at, request_arrived, impression_arrived (n,) microseconds; user, surface, batch (n,) numbers;
    item (n, candidates) item numbers; user_service, item_service (n,) UP, TIMEOUT or EXPIRED;
    log_candidates, log_propensity (n,) whether the request is in the sample that logs them
    """

    shown_at: Ints
    request_arrived: Ints
    impression_arrived: Ints
    user: Ints
    surface: Ints
    batch: Ints
    item: Ints
    user_service: Ints
    item_service: Ints
    log_candidates: NDArray[np.bool_]
    log_propensity: NDArray[np.bool_]


def midnight(parameters: WorldParameters, day: int) -> int:
    """Return the start of the day of this number, microseconds since 1970.

    >>> midnight(WorldParameters(first_day=date(1970, 1, 2)), 0) == DAY
    True
    """
    return ((parameters.first_day - date(1970, 1, 1)).days + day) * DAY


def delivered_at(parameters: WorldParameters, batch: int) -> int:
    """Return when the batch could first be read: the first at its day's start, the others after their delay."""
    late = int(parameters.batch_delay_hours * HOUR) if batch > 0 else 0
    return midnight(parameters, batch) + late


def landing_lag(rng: np.random.Generator, mean: float, shape: tuple[int, ...]) -> Ints:
    """Draw gamma(4) landing lags of this mean, in whole microseconds, at least 1."""
    return np.maximum(np.rint(rng.gamma(4.0, mean / 4.0, size=shape)).astype(np.int64), 1)


def draw_traffic(parameters: WorldParameters, users: Users, items: Items, day: int) -> Traffic:
    """Draw the requests of a day."""
    p, rng, n = parameters, stream(parameters.seed, day, REQUEST_STREAM), parameters.requests_per_day
    shown_at = midnight(p, day) + _times_of_day(rng, n)
    batch = np.where((day > 0) & (shown_at < delivered_at(p, day)), day - 1, day)
    user = rng.choice(p.users, size=n, p=users.activity)
    surface = rng.integers(len(SURFACES), size=n)
    item = _retrieve(rng, items.alive[batch], p.candidates)
    shared = rng.random(n) < p.outage_shared
    sample, exact = rng.random((2, n))
    return Traffic(
        shown_at=shown_at,
        request_arrived=shown_at + landing_lag(rng, p.request_lag_minutes * MINUTE, (n,)),
        impression_arrived=shown_at + landing_lag(rng, p.impression_lag_minutes * MINUTE, (n,)),
        user=user,
        surface=surface,
        batch=batch,
        item=item,
        user_service=_status(rng, shared, p.outage_user),
        item_service=_status(rng, shared, p.outage_item),
        log_candidates=sample < p.candidates_share,
        log_propensity=exact < p.propensity_share,
    )


def _times_of_day(rng: np.random.Generator, n: int) -> Ints:
    intensity: Floats = 1.0 - 0.7 * np.cos(2.0 * np.pi * (np.arange(24) - 3.0) / 24.0)  # quiet at 3, busy at 15
    hour = rng.choice(24, size=n, p=intensity / intensity.sum())
    return np.asarray(np.sort(hour * HOUR + rng.integers(HOUR, size=n)))


def _retrieve(rng: np.random.Generator, pool: Ints, candidates: int) -> Ints:
    """Choose candidates without replacement, uniformly, from each request's pool (n, items)."""
    keys = rng.random(pool.shape, dtype=np.float32)
    return np.asarray(np.take_along_axis(pool, np.argpartition(keys, candidates - 1, axis=1)[:, :candidates], axis=1))


def _status(rng: np.random.Generator, shared: NDArray[np.bool_], own: float) -> Ints:
    out = rng.random(len(shared)) < own
    return np.where(shared, TIMEOUT, np.where(out, EXPIRED, UP)).astype(np.int64)
