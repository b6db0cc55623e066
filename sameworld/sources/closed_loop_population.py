"""The users and items of a closed-loop world, and what is true of any pair of them.

Nothing here depends on a policy: two policies in worlds of equal parameters meet the same people and the same goods.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sameworld.sources.closed_loop_parameters import WorldParameters

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

TASTES = 3
LATENTS = 2 * TASTES + 3  # taste, its estimate's noise, conversion, quality at birth, content's noise
SURFACES = ("article", "home", "topic")
TASTE_WEIGHT = np.array([0.7, 1.0, 1.3])  # how much a user's taste counts on each surface
USER_STREAM, ITEM_STREAM, REQUEST_STREAM, SERVING_STREAM, OUTCOME_STREAM = range(5)


def stream(seed: int, day: int, purpose: int) -> np.random.Generator:
    """Return the random numbers of one purpose on one day: equal for every policy."""
    return np.random.default_rng(np.random.SeedSequence([seed, day, purpose]))


def sigmoid(x: Floats) -> Floats:
    """Return 1 / (1 + exp(-x)) elementwise.

    >>> sigmoid(np.array([0.0]))
    array([0.5])
    """
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))


@dataclass(frozen=True)
class Users:
    """Users by number: taste (n, 3), slow (n,) whether purchases take long, activity (n,) their shares of requests,
    estimate (batches, n, 3) what the profile says of their taste, refreshed (batches, n) whether it is new."""

    taste: Floats
    slow: NDArray[np.bool_]
    activity: Floats
    estimate: Floats
    refreshed: NDArray[np.bool_]


@dataclass(frozen=True)
class Items:
    """Items by number: taste and taste_estimate (n, 3), conversion, content and born (n,), quality (batches, n),
    alive (batches, items alive) their numbers. Batch b holds from its delivery on day b until the next."""

    taste: Floats
    taste_estimate: Floats
    conversion: Floats
    content: Floats
    born: Ints
    quality: Floats
    alive: Ints


def make_users(parameters: WorldParameters) -> Users:
    """Draw the users, and their profiles batch by batch."""
    p, rng = parameters, stream(parameters.seed, 0, USER_STREAM)
    taste = rng.normal(size=(p.users, TASTES))
    slow = rng.random(p.users) < p.slow_share
    activity = rng.gamma(2.0, size=p.users)
    refreshed = np.ones((p.days, p.users), dtype=bool)
    estimate = np.empty((p.days, p.users, TASTES))
    for batch in range(p.days):
        rng = stream(p.seed, batch + 1, USER_STREAM)
        refreshed[batch] = (rng.random(p.users) < p.profile_refresh) | (batch == 0)
        fresh = taste + 0.5 * rng.normal(size=taste.shape)
        estimate[batch] = np.where(refreshed[batch][:, None], fresh, estimate[max(batch - 1, 0)])
    return Users(taste, slow, activity / activity.sum(), estimate, refreshed)


def make_items(parameters: WorldParameters) -> Items:
    """Draw the items of all batches: the first pool, then each day's newborns in the place of as many others.

    Every batch has random numbers of its own, so that a longer world begins with the days of a shorter one.
    """
    p = parameters
    births = round(p.churn * p.items)
    born = np.concatenate([np.zeros(p.items, dtype=np.int64), np.repeat(np.arange(1, p.days), births)])
    alive = np.empty((p.days, p.items), dtype=np.int64)
    steps, latent = np.zeros((p.days, len(born))), np.empty((len(born), LATENTS))
    for batch in range(p.days):
        rng = stream(p.seed, batch, ITEM_STREAM)
        newborn = np.flatnonzero(born == batch)
        latent[newborn] = rng.normal(size=(len(newborn), LATENTS))
        if batch == 0:
            alive[0] = newborn
            continue
        alive[batch] = alive[batch - 1]
        steps[batch, alive[batch]] = p.quality_step * rng.normal(size=p.items)
        alive[batch, rng.choice(p.items, size=births, replace=False)] = newborn
    return _items(p, latent=latent, steps=steps, born=born, alive=alive)


def _items(p: WorldParameters, *, latent: Floats, steps: Floats, born: Ints, alive: Ints) -> Items:
    taste, noise = latent[:, :TASTES], latent[:, TASTES : 2 * TASTES]
    conversion, start, content_noise = latent[:, 2 * TASTES :].T
    trend = p.quality_trend * born
    level = trend[alive].mean(axis=1)  # held at zero: newborns are better than the others, not the world than before
    return Items(
        taste=taste,
        taste_estimate=taste + 0.3 * noise,
        conversion=conversion,
        content=p.content_proxy * start + np.sqrt(1.0 - p.content_proxy**2) * content_noise,
        born=born,
        quality=start + trend + steps.cumsum(axis=0) - level[:, None],
        alive=alive,
    )


@dataclass(frozen=True)
class Relevance:
    """What is true of (request, item) pairs at position 1, arrays of one shape.

    click : probability of a click; target : probability of a purchase within the window; gain : expected gain;
    purchase : probability of a purchase at any time, given the click
    """

    click: Floats
    target: Floats
    gain: Floats
    purchase: Floats


def relevance(
    p: WorldParameters, users: Users, items: Items, *, user: Ints, item: Ints, batch: Ints, surface: Ints
) -> Relevance:
    """Return what is true of each pair; the four arrays of numbers broadcast together."""
    affinity = np.einsum("...k,...k->...", users.taste[user], items.taste[item])
    quality = items.quality[batch, item]
    click = sigmoid(0.6 * TASTE_WEIGHT[surface] * affinity + 1.1 * quality + p.click_intercept)
    purchase = sigmoid(0.9 * items.conversion[item] + 0.3 * affinity + p.purchase_intercept)
    mean_days = np.where(users.slow[user], p.slow_delay_days, p.fast_delay_days)
    target = click * purchase * -np.expm1(-p.window_days / mean_days)
    return Relevance(click, target, p.click_gain * click + p.purchase_gain * target, purchase)
