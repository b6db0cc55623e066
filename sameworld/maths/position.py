"""Position bias: how much less often a position is looked at than the first, from an exploring policy's own log.

Click = examined at the position (theta_k) and relevant. Relevance differs by position because the policy put the better
items on top; only an item that could have stood elsewhere tells the two apart. So both estimators need the marginal
probabilities of ``policy.position_marginals``, and refuse a deterministic log.

Why the overlap weights of :func:`examination_all_pairs` are right: let an item have relevance rho and marginals p, p'
at positions k, k'. It stands at k with probability p, is clicked there with theta_k · rho, and its row weighs
p'/(p + p'): expected weighted clicks h · theta_k · rho with h = p · p'/(p + p'). At k' its row weighs p/(p + p') and
gives h · theta_k' · rho. Without theta and rho both weights sum to the same h. So both positions see one population,
weighed by h; the ratio of their weighted click rates tends to theta_k / theta_k', and no weight exceeds 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sameworld.maths.bootstrap import MAX_UNITS, replicate_sums
from sameworld.records import Estimate, Refused

Floats = NDArray[np.float64]
Ids = NDArray[Any]

MIN_CLICKS = 10  # a rate from fewer clicks has a standard error above 30 %
_TABLE_NUMBERS = 4_000_000  # numbers in the table of sums by user: 32 MB


@dataclass(frozen=True)
class _Rows:
    """Shown items that could have been swapped: position and unit from 0, own marginal (n,), all marginals (n, K)."""

    position: NDArray[np.int64]
    clicked: Floats
    unit: NDArray[np.int64]
    own: Floats
    marginals: Floats


def examination_from_propensities(
    position: ArrayLike, clicked: ArrayLike, propensity: ArrayLike, *, user_codes: Ids, seed: int, replicates: int = 200
) -> list[Estimate]:
    """Examination of each position relative to the first, by inverse-propensity click rates.

    position : int, shape (n,), 1 is the top; the answer has one estimate for each of 1 … max(position)
    clicked : bool or 0/1, shape (n,)
    propensity : shape (n,), probability that the policy shows this item at this position; rows with NaN, or with 1
        (they could not stand elsewhere), are left out
    user_codes : int, shape (n,); intervals draw users with Poisson(1) weights

    theta_k = r_k / r_1, r_k = sum(clicked / propensity) / sum(1 / propensity) over the rows at k: theta_k times the
    mean relevance of all candidates, if each can reach every position. For lists of different lengths, or large
    weights, prefer :func:`examination_all_pairs`. Raises Refused for a deterministic log, and below 10 clicks anywhere.
    """
    share = np.asarray(propensity, dtype=np.float64)
    if share.ndim != 1:
        raise Refused(what="propensities are not one a row", got=f"shape {share.shape}", wanted="shape (n,)")
    features = 2 * int(np.max(position, initial=1))
    rows = _swappable(position, clicked, share[:, None], share, user_codes, features=features)
    depth = int(rows.position.max()) + 1
    _refuse_few_clicks(rows, depth)
    weight = 1.0 / rows.own
    table = _sums(rows, (rows.clicked * weight, weight), depth)
    drawn = replicate_sums(table.reshape(len(table), -1), seed=seed, replicates=replicates)
    return list(drawn.through(_relative_rates).estimates())


def examination_all_pairs(
    position: ArrayLike, clicked: ArrayLike, marginals: ArrayLike, *, user_codes: Ids, seed: int, replicates: int = 200
) -> list[Estimate]:
    """Examination of each position relative to the first, by overlap-weighted swaps between all pairs of positions.

    position, clicked, user_codes : as in :func:`examination_from_propensities`; rows below position K are left out
    marginals : shape (n, K), probability that the policy shows the row's item at each position; rows with NaN, or
        certain of their position, are left out

    For a pair (k, k') a row at k weighs p_k'/(p_k + p_k'), which makes the relevance at both the same in expectation
    (derived at the top of this module); the ratio of the weighted click rates is theta_k / theta_k'. Log ratios of all
    pairs with 10 clicks on each side are joined by least squares, weighted by the inverse of
    1/(effective clicks at k) + 1/(effective clicks at k'), with log theta_1 = 0.
    Raises Refused for a deterministic log, positions with fewer than 10 clicks, or without swaps towards the first.

    After Agarwal et al., "Estimating position bias without intrusive interventions", WSDM 2019, with exact marginals
    for their count of rankers, and overlap weights for their inverse propensities.
    """
    table = np.asarray(marginals, dtype=np.float64)
    own = _own_marginals(np.asarray(position, dtype=np.int64), table)
    depth = table.shape[1]
    rows = _swappable(position, clicked, table, own, user_codes, features=2 * depth**2)
    _refuse_few_clicks(rows, depth)
    precision = _pair_precision(rows, depth)
    sums = _sums(rows, chain(_overlaps(rows, times=rows.clicked), _overlaps(rows)), depth)
    drawn = replicate_sums(sums.reshape(len(sums), -1), seed=seed, replicates=replicates)
    return list(drawn.through(lambda flat: _joined(flat, precision)).estimates())


def _own_marginals(where: NDArray[np.int64], table: Floats) -> Floats:
    """Marginal of each row at its own position; NaN where the table has no such position."""
    if table.ndim != 2 or table.shape[1] < 2 or where.shape != table.shape[:1]:
        got = f"{table.shape} for {where.size} rows"
        raise Refused(what="the marginals do not fit", got=got, wanted="one column for each of 2 or more positions")
    inside = (where >= 1) & (where <= table.shape[1])
    return np.where(inside, table[np.arange(where.size), np.where(inside, where - 1, 0)], np.nan)


def _swappable(
    position: ArrayLike, clicked: ArrayLike, marginals: Floats, own: Floats, user_codes: Ids, *, features: int
) -> _Rows:
    """Keep the rows whose item might have stood elsewhere; ``own`` is the marginal at the row's own position."""
    where = np.asarray(position, dtype=np.int64)
    hits = np.asarray(clicked, dtype=np.float64)
    if not where.shape == hits.shape == own.shape == user_codes.shape:
        got = f"{where.shape}, {hits.shape}, {own.shape} and {user_codes.shape}"
        raise Refused(what="position, clicked, propensity and user differ in length", got=got, wanted="one each a row")
    bad = int(np.count_nonzero((own <= 0) | (own > 1 + 1e-9)) + np.count_nonzero(where < 1))
    if bad:
        got, wanted = f"{bad} rows", "positions from 1 and propensities in (0, 1] of the item where it was shown"
        remedy = "recompute the marginals from the request's candidates, tau and epsilon"
        raise Refused(what="rows were shown that could not be", got=got, wanted=wanted, remedy=remedy)
    known = np.isfinite(own) & np.isfinite(marginals).all(axis=1)
    usable = np.flatnonzero(known & (own < 1 - 1e-9))
    if usable.size == 0:
        got = f"propensity 1 on each of {int(known.sum())} rows" if known.any() else "no propensities"
        wanted, remedy = "items that could be swapped", "explore: serve with tau > 0 or epsilon > 0, and log them"
        raise Refused(what="examination cannot be told from relevance", got=got, wanted=wanted, remedy=remedy)
    units = _units(user_codes[usable], features)
    return _Rows(where[usable] - 1, hits[usable], units, own[usable], marginals[usable])


def _units(user_codes: Ids, features: int) -> NDArray[np.int64]:
    """Users from 0, folded into equal groups where the table of their sums would not fit."""
    users, code = np.unique(user_codes, return_inverse=True)
    units = min(MAX_UNITS, max(1000, _TABLE_NUMBERS // features))
    if len(users) <= units:
        return code.astype(np.int64)
    # Codes may follow sign-up time; a fixed permutation keeps such neighbours apart.
    return (np.random.default_rng(len(users)).permutation(len(users)) % units)[code].astype(np.int64)


def _refuse_few_clicks(rows: _Rows, depth: int) -> None:
    clicks = np.bincount(rows.position, weights=rows.clicked, minlength=depth).astype(np.int64)
    few = [f"position {k + 1} has {clicks[k]}" for k in np.flatnonzero(clicks < MIN_CLICKS)]
    if few:
        got = ", ".join(few[:5]) + (f" and {len(few) - 5} more" if len(few) > 5 else "")
        wanted, remedy = f"{MIN_CLICKS} at each position", "take more days, explore more, or leave deep positions out"
        raise Refused(what="too few clicks on rows that could be swapped", got=got, wanted=wanted, remedy=remedy)


def _sums(rows: _Rows, columns: Iterable[Floats], depth: int) -> Floats:
    """Sum each column by unit and position, shape (units, depth, columns)."""
    cell = rows.unit * depth + rows.position
    units = int(rows.unit.max()) + 1
    sums = [np.bincount(cell, weights=column, minlength=units * depth) for column in columns]
    return np.asarray(np.stack(sums, axis=-1).reshape(units, depth, -1), dtype=np.float64)


def _relative_rates(flat: Floats) -> Floats:
    cells = flat.reshape(*flat.shape[:-1], -1, 2)
    rate = cells[..., 0] / cells[..., 1]
    return np.asarray(rate / rate[..., :1], dtype=np.float64)


def _overlaps(rows: _Rows, *, times: ArrayLike = 1.0, power: int = 1) -> Iterator[Floats]:
    """Yield times · (p'/(p + p'))^power for each other position in turn, shape (n,); 0 with the row's own."""
    for column, other in enumerate(rows.marginals.T):
        yield np.where(rows.position == column, 0.0, times * (other / (other + rows.own)) ** power)


def _pair_precision(rows: _Rows, depth: int) -> Floats:
    """Inverse variance of each pair's log ratio, shape (K, K); 0 with too few clicks, or for k = k'."""
    clicks = _Rows(rows.position, rows.clicked, np.zeros_like(rows.unit), rows.own, rows.marginals)
    total, square = (_sums(clicks, _overlaps(rows, times=rows.clicked, power=power), depth)[0] for power in (1, 2))
    count = _sums(clicks, (np.where(column > 0, 1.0, 0.0) for column in _overlaps(rows, times=rows.clicked)), depth)[0]
    effective = np.divide(total**2, square, out=np.zeros_like(total), where=(square > 0) & (count >= MIN_CLICKS))
    both = effective * effective.T
    precision: Floats = np.divide(both, effective + effective.T, out=np.zeros_like(both), where=both > 0)
    _refuse_unconnected(precision)
    return precision


def _refuse_unconnected(precision: Floats) -> None:
    links = np.eye(len(precision), dtype=np.bool_) | (precision > 0)
    reached = np.eye(len(precision), dtype=np.bool_)[0]
    for _ in range(len(precision)):
        reached = (links & reached).any(axis=1)
    if not reached.all():
        got = "too few clicks on swaps with positions " + ", ".join(str(k + 1) for k in np.flatnonzero(~reached))
        wanted = f"{MIN_CLICKS} clicks on each side of a chain of pairs"
        remedy = "explore over these positions, too, or leave them out"
        raise Refused(what="positions not connected to the first", got=got, wanted=wanted, remedy=remedy)


def _joined(flat: Floats, precision: Floats) -> Floats:
    """Least squares of the pairs' log ratios, (..., K · 2K) sums to (..., K) thetas."""
    depth = len(precision)
    cells = flat.reshape(*flat.shape[:-1], depth, 2, depth)
    rate = cells[..., 0, :] / cells[..., 1, :]
    log_ratio = np.where(precision > 0, np.log(rate) - np.log(np.swapaxes(rate, -1, -2)), 0.0)
    pull = (precision * log_ratio).sum(axis=-1)
    laplacian = np.diag(precision.sum(axis=1)) - precision
    solved = np.linalg.solve(laplacian[1:, 1:], pull[..., 1:, None])[..., 0]
    thetas: Floats = np.exp(np.concatenate([np.zeros_like(solved[..., :1]), solved], axis=-1))
    return thetas
