"""Serving policies whose propensities are exact: Plackett-Luce mixed with a uniform shuffle.

pi = (1 - epsilon) · PL(scores / tau) + epsilon · uniform over all orders. A request is a row of ``scores``, shape
(n, m), NaN where a slot holds no candidate. ``tau`` and ``epsilon`` are numbers or one value a request; tau is in the
scores' own unit: the taus named here are meant for scores with a standard deviation of 1 in the list.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sameworld.records import Refused

Floats = NDArray[np.float64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_LONGEST_GAP = 40.0  # two logits further apart than this are in a fixed order up to e^-40
_BLOCK_STATE, _BLOCK_RATES = 1 << 15, 1 << 21  # numbers held at a time: the first fits a core's cache, the second 16 MB


@dataclass(frozen=True)
class _Mixture:
    logits: Floats  # (n, m), each row's maximum is 0, -inf where absent
    epsilon: Floats
    count: NDArray[np.int64]


def _mixture(scores: ArrayLike, tau: ArrayLike | None, epsilon: ArrayLike | None) -> _Mixture:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 2:
        raise Refused(what="scores are no table", got=f"shape {values.shape}", wanted="(requests, candidates)")
    share = _parameter(epsilon, len(values))
    _refuse_where(~((share >= 0) & (share <= 1)), "the logging policy is not known", "epsilon null or outside [0, 1]")
    mixed = share < 1
    heat = np.where(mixed, _parameter(tau, len(values)), 1.0)
    _refuse_where(np.isnan(heat), "the logging policy is not known", "tau null")
    _refuse_where(heat == 0, "the logging policy was deterministic", "tau 0")
    _refuse_where(heat < 0, "the logging policy is not known", "tau below 0")
    with np.errstate(over="ignore"):
        logits = values / heat[:, None]
    _refuse_where(np.asarray(np.isinf(logits).any(axis=1)), "scores / tau are not finite", "an infinite value")
    absent = np.isnan(logits)
    logits[absent] = -np.inf
    count = np.asarray((~absent).sum(axis=1), dtype=np.int64)
    top = logits.max(axis=1, initial=-np.inf)
    return _Mixture(logits - np.where(count > 0, top, 0.0)[:, None], share, count)


def _parameter(value: ArrayLike | None, rows: int) -> Floats:
    """One value a request; null becomes NaN."""
    return np.broadcast_to(np.asarray(np.nan if value is None else value, dtype=np.float64), (rows,))


def _refuse_where(bad: NDArray[np.bool_], what: str, got: str) -> None:
    if bad.any():
        wanted = "finite scores, epsilon in [0, 1] and tau > 0 (any tau where epsilon is 1)"
        remedy = "log tau and epsilon with each request, or leave these requests out"
        raise Refused(what=what, got=f"{got} in {bad.sum()} of {bad.size} requests", wanted=wanted, remedy=remedy)


def sample_orders(
    scores: ArrayLike, *, tau: ArrayLike | None, epsilon: ArrayLike | None, seed: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Draw an order of each request's candidates, and whether it came from the shuffle.

    seed : an int64, or one a request; with one a request a draw depends on its own row alone
    returns orders (n, m): candidate slots from the top down, -1 once the list is used up; shuffled (n,)

    Sorting logits + Gumbel noise draws from Plackett-Luce (Kool et al., ICML 2019). Raises Refused for null or
    impossible tau and epsilon, and for infinite scores.

    >>> orders, shuffled = sample_orders([[9.0, np.nan, 1.0, 5.0]], tau=0.01, epsilon=0.0, seed=7)
    >>> orders, shuffled
    (array([[ 0,  3,  2, -1]]), array([False]))
    """
    policy = _mixture(scores, tau, epsilon)
    rows, slots = policy.logits.shape
    uniform = _uniforms(_request_seeds(seed, rows), slots + 1)
    shuffled = uniform[:, 0] < policy.epsilon
    level = np.where(shuffled[:, None] & np.isfinite(policy.logits), 0.0, policy.logits)
    keys = level - np.log(-np.log(uniform[:, 1:]))
    orders = np.argsort(-keys, axis=1, kind="stable").astype(np.int64)
    orders[np.arange(slots) >= policy.count[:, None]] = -1
    return orders, shuffled


def _request_seeds(seed: ArrayLike, rows: int) -> NDArray[np.uint64]:
    given = np.asarray(seed, dtype=np.int64).view(np.uint64)
    if given.ndim:
        return np.broadcast_to(given, (rows,)).astype(np.uint64)
    return np.asarray(_mix(np.atleast_1d(given)) + np.arange(rows, dtype=np.uint64), dtype=np.uint64)


def _uniforms(seeds: NDArray[np.uint64], draws: int) -> Floats:
    """Numbers strictly between 0 and 1, shape (n, draws), each row from its own seed.

    SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): a counter, so rows need no generator each.
    """
    counter = _mix(seeds)[:, None] + np.arange(1, draws + 1, dtype=np.uint64) * _GOLDEN
    bits = _mix(counter) >> np.uint64(11)
    return (bits.astype(np.float64) + 0.5) * 2.0**-53


def _mix(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def prefix_log_propensity(
    scores: ArrayLike, orders: ArrayLike, k: int, *, tau: ArrayLike | None, epsilon: ArrayLike | None
) -> Floats:
    """Log-probability, shape (n,), that the policy shows each order's first k; see :func:`prefix_log_propensities`."""
    return np.ascontiguousarray(prefix_log_propensities(scores, orders, k, tau=tau, epsilon=epsilon)[:, -1])


def prefix_log_propensities(
    scores: ArrayLike, orders: ArrayLike, k: int, *, tau: ArrayLike | None, epsilon: ArrayLike | None
) -> Floats:
    """Log-probability that the policy shows each order's first 1, 2, … k candidates, shape (n, k).

    orders : (n, at least k) candidate slots from the top down, -1 once the list ends; longer prefixes are that list

    O(candidates). Denominators are summed from the end, never subtracted, so scores / tau may be large. Raises Refused
    as :func:`sample_orders`, for k outside [1, width], and for orders that repeat or invent a slot or go on after -1.

    >>> np.exp(prefix_log_propensities([[0.0, 0.0, 0.0]], [[2, 0, 1]], 3, tau=1.0, epsilon=0.5)).round(4)
    array([[0.3333, 0.1667, 0.1667]])
    """
    policy = _mixture(scores, tau, epsilon)
    picks = np.asarray(orders, dtype=np.int64)
    if picks.ndim != 2 or not 1 <= k <= picks.shape[1]:
        got = f"k = {k} for orders of shape {picks.shape}"
        raise Refused(what="there is no such prefix", got=got, wanted="k from 1 to the orders' width")
    picks = picks[:, :k]
    shown, valid = _shown(policy, picks), picks >= 0
    chosen = np.where(valid, np.take_along_axis(policy.logits, np.maximum(picks, 0), axis=1), -np.inf)
    left = _log_left(np.where(shown, -np.inf, policy.logits), chosen)
    ranked = np.cumsum(np.subtract(chosen, left, out=np.zeros(picks.shape), where=valid), axis=1)
    remaining = np.maximum(policy.count[:, None] - np.arange(k), 1)
    shuffled = -np.cumsum(np.where(valid, np.log(remaining), 0.0), axis=1)
    with np.errstate(divide="ignore"):
        model, shuffle = np.log(1.0 - policy.epsilon), np.log(policy.epsilon)
    mixed: Floats = np.logaddexp(model[:, None] + ranked, shuffle[:, None] + shuffled)
    return np.minimum(mixed, 0.0)


def _log_left(rest: Floats, chosen: Floats) -> Floats:
    """Log of the weight that is left before each pick, shape (n, k), summed from the last pick to the first."""
    with np.errstate(divide="ignore"):
        left = np.exp(chosen)[:, ::-1].cumsum(axis=1)[:, ::-1] + np.exp(rest).sum(axis=1)[:, None]
        result: Floats = np.log(left)
    # Rows where a weight nears the smallest float take the slower road through logarithms.
    far = np.flatnonzero(((left < 1e-280) & np.isfinite(chosen)).any(axis=1))
    backwards = np.column_stack([np.logaddexp.reduce(rest[far], axis=1), chosen[far, ::-1]])
    result[far] = np.logaddexp.accumulate(backwards, axis=1)[:, :0:-1]
    return result


def _shown(policy: _Mixture, picks: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which slots the picks name, shape (n, m)."""
    valid = picks >= 0
    rows, columns = np.nonzero(valid)
    slots = picks[rows, columns]
    shown = np.zeros(policy.logits.shape, dtype=np.bool_)
    inside = slots < policy.logits.shape[1]
    shown[rows[inside], slots[inside]] = True
    repeated = shown.sum(axis=1) != valid.sum(axis=1)
    broken = repeated | (shown & np.isinf(policy.logits)).any(axis=1) | (valid[:, 1:] & ~valid[:, :-1]).any(axis=1)
    if broken.any():
        what, got = "a shown order is no order of its candidates", f"{int(broken.sum())} such requests"
        raise Refused(what=what, got=got, wanted="each slot once, present, then -1", remedy="leave these requests out")
    return shown


def position_marginals(
    scores: ArrayLike, *, tau: ArrayLike | None, epsilon: ArrayLike | None, positions: int, nodes: int | None = None
) -> Floats:
    """Probability that the policy shows each candidate at each position, shape (n, m, positions).

    positions : how many from the top; beyond the end of a list, and for absent candidates, the probability is 0
    nodes : quadrature nodes; None takes what each request's spread of scores / tau asks for, with an error below 1e-8:
        about 70 at tau 0.3 and 110 at 0.1 for standardised scores, 24 candidates and 8 positions

    Plackett-Luce is a race of exponential clocks with rates exp(score / tau): candidate i comes at rank r with
    probability ∫ rate_i e^(-rate_i t) P(r-1 of the others rang by t) dt, by the trapezoid rule in log t. Rank 1 is the
    softmax. Memory is the result plus a few tens of MB. Raises Refused as :func:`sample_orders` does.

    >>> position_marginals([[0.0, 0.0]], tau=1.0, epsilon=0.1, positions=1)[0, :, 0]
    array([0.5, 0.5])
    """
    policy = _mixture(scores, tau, epsilon)
    if positions < 1 or (nodes is not None and nodes < 2):
        got = f"positions = {positions}, nodes = {nodes}"
        raise Refused(what="marginals need a position", got=got, wanted="positions >= 1, nodes >= 2")
    marginals = np.zeros((*policy.logits.shape, positions))
    depth = min(positions, policy.logits.shape[1])
    racing = np.flatnonzero((policy.epsilon < 1) & (policy.count > 0)) if depth else np.array([], dtype=np.intp)
    for rows, width in _blocks(policy, racing, depth, nodes):
        marginals[rows, :, :depth] = _race(_closed_gaps(policy.logits[rows]), policy.count[rows], depth, width)
    for start in range(0, len(marginals), 4096):
        part = slice(start, start + 4096)
        _mix_in_shuffle(marginals[part], policy.logits[part], policy.epsilon[part], policy.count[part])
    return marginals


def _mix_in_shuffle(marginals: Floats, logits: Floats, epsilon: Floats, count: NDArray[np.int64]) -> None:
    reached = np.arange(marginals.shape[2]) < count[:, None]
    flat = reached * (epsilon / np.maximum(count, 1))[:, None]
    marginals *= (1.0 - epsilon)[:, None, None]
    marginals += np.isfinite(logits)[:, :, None] * flat[:, None, :]
    np.minimum(marginals, 1.0, out=marginals)


def _blocks(
    policy: _Mixture, rows: NDArray[np.intp], depth: int, nodes: int | None
) -> Iterator[tuple[NDArray[np.intp], int]]:
    """Yield (rows, nodes): requests that need alike many nodes, as many at a time as fit."""
    widths = np.full(rows.size, nodes or 0)
    if nodes is None:
        for start in range(0, rows.size, 4096):
            some = rows[start : start + 4096]
            first, last = _log_times(_closed_gaps(policy.logits[some]), policy.count[some], depth)
            # A rank-r integrand is about 1/sqrt(r) wide in log t; steps of .85 of that, and .4 at most, leave < 1e-9.
            step = min(0.4, 0.85 / np.sqrt(depth))
            widths[start : start + 4096] = 16 * np.ceil((last - first) / (16 * step))
    for width in np.unique(widths).tolist():
        alike = rows[widths == width]
        size = max(1, min(_BLOCK_STATE // (depth * width), _BLOCK_RATES // (policy.logits.shape[1] * width)))
        for start in range(0, alike.size, size):
            yield alike[start : start + size], width


def _closed_gaps(logits: Floats) -> Floats:
    """Shorten gaps between neighbouring logits to 40, so that an outlier costs no nodes."""
    order = np.argsort(-logits, axis=1, kind="stable")
    falling = np.take_along_axis(logits, order, axis=1)
    present = np.isfinite(falling)
    gaps = -np.diff(np.where(present, falling, 0.0), axis=1, prepend=falling[:, :1])
    closed = -np.cumsum(np.clip(gaps, 0.0, _LONGEST_GAP), axis=1)
    result = np.empty_like(logits)
    np.put_along_axis(result, order, np.where(present, closed, -np.inf), axis=1)
    return result


def _log_times(logits: Floats, count: NDArray[np.int64], depth: int) -> tuple[Floats, Floats]:
    """First and last log time worth a node: before, fewer than two have rung; after, ``depth`` or more have."""
    falling = -np.sort(-logits, axis=1)
    sums = np.logaddexp.accumulate(falling[:, ::-1], axis=1)[:, ::-1]
    slowest = np.minimum(depth, count) - 1
    tail = np.take_along_axis(sums, slowest[:, None], axis=1)[:, 0]
    # Ranks from 2 on start as (total · t)²: 1e-5 leaves 1e-10. Chernoff: P(Poisson(25 + 3 K) < K) < 1e-10.
    return np.log(1e-5) - sums[:, 0], np.log(25.0 + 3.0 * depth) - tail


def _race(logits: Floats, count: NDArray[np.int64], depth: int, nodes: int) -> Floats:
    """Plackett-Luce item-at-rank probabilities, shape (n, m, depth)."""
    rows, slots = logits.shape
    first, last = _log_times(logits, count, depth)
    step = (last - first) / (nodes - 1)
    log_time = first + np.arange(nodes)[:, None] * step
    rung = np.exp(np.minimum(logits.T[:, None, :] + log_time, 4.0)).reshape(slots, nodes * rows)
    waiting = np.exp(-rung)
    density = (rung * waiting).reshape(slots, nodes, rows) * step
    arrived = -np.expm1(-rung)
    result = np.empty((rows, slots, depth))
    for slot, others in _all_but_one(arrived, waiting, depth):
        result[:, slot, :] = np.einsum("tn,ktn->nk", density[slot], others.reshape(depth, nodes, rows))
    weights = np.exp(logits)
    result[:, :, 0] = weights / weights.sum(axis=1, keepdims=True)
    return result


def _all_but_one(arrived: Floats, waiting: Floats, depth: int) -> Iterator[tuple[int, Floats]]:
    """Yield (slot, P(0 … depth-1 of the other slots have arrived)), shape (depth, size).

    Divide and conquer: a half inherits the count of all that lies outside it and adds the other half. Only sums of
    positive numbers, where taking one slot back out of the count of all loses every digit as its share nears 1.
    """
    state = np.zeros((depth, arrived.shape[1]))
    state[0] = 1.0
    todo = [(0, len(arrived), state)]
    moved = np.empty_like(state[1:])
    while todo:
        first, last, state = todo.pop()
        if last - first == 1:
            yield first, state
            continue
        middle = (first + last) // 2
        head = state.copy()
        for part, slots in ((head, range(middle, last)), (state, range(first, middle))):
            for slot in slots:
                np.multiply(part[:-1], arrived[slot], out=moved)
                np.multiply(part, waiting[slot], out=part)
                np.add(part[1:], moved, out=part[1:])
        todo += [(middle, last, state), (first, middle, head)]
