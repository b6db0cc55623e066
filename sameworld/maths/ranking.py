"""How good an order is: positions, NDCG, reciprocal rank, AUC, and who gets the exposure."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sameworld.records import Refused

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


def require_same_length(**arrays: NDArray[Any]) -> int:
    """Return the common number of rows of the named arrays; refuse lengths that differ.

    >>> require_same_length(score=np.zeros(3), gain=np.ones(3))
    3
    """
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise Refused(
            what="arrays of different length",
            got=", ".join(f"{name} {length}" for name, length in lengths.items()),
            wanted="one entry a row in each",
            remedy="take all of them from the same table",
        )
    return next(iter(lengths.values()))


def require_both_classes(y: FloatArray, weight: FloatArray) -> None:
    """Refuse labels other than 0 and 1, negative weights, and a class that has no weight."""
    positive, negative = float(np.sum(weight * y)), float(np.sum(weight * (1.0 - y)))
    if not np.all((y == 0.0) | (y == 1.0)) or not np.all(weight >= 0.0) or positive <= 0.0 or negative <= 0.0:
        raise Refused(
            what="only one class of label",
            got=f"positives weigh {positive:g}, negatives {negative:g}",
            wanted="labels 0 and 1, some of both, with weights >= 0",
            remedy="take more days, or check the target outcome",
        )


def request_starts(request: NDArray[Any]) -> IntArray:
    """First row of each request, shape (R,).

    request : int array, shape (n,): codes 0..R-1, the rows of a request contiguous and the codes ascending.
    Raises Refused for any other order. No rows give no requests.

    >>> request_starts(np.array([0, 0, 1, 2, 2]))
    array([0, 2, 3])
    """
    if len(request) == 0:
        return np.empty(0, dtype=np.int64)
    step = np.diff(request)
    if request[0] != 0 or bool(np.any((step != 0) & (step != 1))):
        raise Refused(
            what="request codes out of order",
            got=f"codes from {request[0]} to {request[-1]}, not ascending by steps of 0 or 1",
            wanted="codes 0..R-1, the rows of a request together",
            remedy="sort the rows by request and number the requests from 0",
        )
    return np.flatnonzero(np.concatenate(([True], step == 1))).astype(np.int64)


def mean_within_request(request: NDArray[Any], value: ArrayLike) -> FloatArray:
    """Mean of the row's request, one entry a row, shape (n,); `request` as in `request_starts`.

    >>> mean_within_request(np.array([0, 0, 1]), [1.0, 3.0, 5.0])
    array([2., 2., 5.])
    """
    values = np.asarray(value, dtype=np.float64)
    require_same_length(request=request, value=values)
    requests = len(request_starts(request))
    total = np.bincount(request, weights=values, minlength=requests)
    return np.asarray((total / np.bincount(request, minlength=requests))[request], dtype=np.float64)


def order_positions(request: NDArray[Any], score: ArrayLike) -> IntArray:
    """Position of each row in its request when ordered by falling score, 1 at the top, shape (n,).

    request : int array, shape (n,), as in `request_starts`
    score : float array, shape (n,); +inf and -inf are allowed, NaN is refused
    Ties keep the order of the rows.

    >>> order_positions(np.array([0, 0, 0, 1, 1]), [0.1, 0.7, 0.7, 2.0, 3.0])
    array([3, 1, 2, 2, 1])
    """
    scores = np.asarray(score, dtype=np.float64)
    n = require_same_length(request=request, score=scores)
    if bool(np.isnan(scores).any()):
        raise Refused(
            what="a score is not a number",
            got=f"{int(np.isnan(scores).sum())} NaN of {n}",
            wanted="a number for every row",
            remedy="leave those requests out, or score them again",
        )
    starts = request_starts(request)
    order = np.lexsort((-scores, request))  # stable, so ties keep the order of the rows
    positions = np.empty(n, dtype=np.int64)
    positions[order] = np.arange(n) - starts[request[order]] + 1
    return positions


def _gains(gain: ArrayLike) -> FloatArray:
    gains = np.asarray(gain, dtype=np.float64)
    if not bool(np.all(gains >= 0.0)) or bool(np.isinf(gains).any()):
        raise Refused(
            what="a gain that cannot be ranked by",
            got=f"{gains.min()} to {gains.max()}",
            wanted="finite gains >= 0",
            remedy="set the gains of the outcome kinds to 0 or more",
        )
    return gains


def _discounted(request: NDArray[Any], position: IntArray, gain: FloatArray, k: int, requests: int) -> FloatArray:
    worth = np.where(position <= k, gain / np.log2(position + 1.0), 0.0)
    return np.bincount(request, weights=worth, minlength=requests).astype(np.float64, copy=False)


def ndcg_by_request(request: NDArray[Any], score: ArrayLike, gain: ArrayLike, k: int) -> tuple[FloatArray, BoolArray]:
    """NDCG@k of each request under the order by score, and which requests have any gain: both of shape (R,).

    request, score : as in `order_positions`; ties keep the order of the rows
    gain : float array, shape (n,), >= 0; taken linearly, so 5 is worth five times 1
    k : positions that count, >= 1; a shorter request counts all its positions
    A request without gain has no NDCG: its mask is False, its value a 0.0 that is to be left out.

    Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", TOIS 2002, discount log2(position + 1).

    >>> value, has_gain = ndcg_by_request(np.array([0, 0, 1, 1]), [2.0, 1.0, 2.0, 1.0], [0.0, 1.0, 0.0, 0.0], k=5)
    >>> value.round(4), has_gain
    (array([0.6309, 0.    ]), array([ True, False]))
    """
    if k < 1:
        raise Refused(what="no positions to count", got=f"k = {k}", wanted="k >= 1", remedy="name the metric ndcg@10")
    gains = _gains(gain)
    require_same_length(request=request, gain=gains)
    requests = len(request_starts(request))
    reached = _discounted(request, order_positions(request, score), gains, k, requests)
    ideal = _discounted(request, order_positions(request, gains), gains, k, requests)
    has_gain = ideal > 0.0
    return np.divide(reached, ideal, out=np.zeros(requests), where=has_gain), has_gain


def mrr_by_request(request: NDArray[Any], score: ArrayLike, gain: ArrayLike) -> tuple[FloatArray, BoolArray]:
    """Reciprocal position of each request's first row with gain, and which requests have one: both of shape (R,).

    Arguments, ties and requests without gain as in `ndcg_by_request`.

    >>> mrr_by_request(np.array([0, 0, 1]), [2.0, 1.0, 2.0], [0.0, 1.0, 0.0])
    (array([0.5, 0. ]), array([ True, False]))
    """
    gains = _gains(gain)
    require_same_length(request=request, gain=gains)
    starts = request_starts(request)
    if len(starts) == 0:
        return np.empty(0), np.empty(0, dtype=np.bool_)
    reciprocal = np.where(gains > 0.0, 1.0 / order_positions(request, score), 0.0)
    best = np.maximum.reduceat(reciprocal, starts)
    return best, best > 0.0


def auc(y: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Chance that a positive scores above a negative, ties counting half; rows weigh ``weight`` (default 1).

    y : 0/1 array, shape (n,);  score : float array, shape (n,);  weight : float array, shape (n,), >= 0
    Raises Refused when a class has no weight. Weight 2 equals the row twice.

    >>> auc([0, 0, 1, 1], [0.1, 0.4, 0.4, 0.8])
    0.875
    """
    labels, scores = np.asarray(y, dtype=np.float64), np.asarray(score, dtype=np.float64)
    weights = np.ones(len(labels)) if weight is None else np.asarray(weight, dtype=np.float64)
    require_same_length(y=labels, score=scores, weight=weights)
    require_both_classes(labels, weights)
    levels, level = np.unique(scores, return_inverse=True)
    positive = np.bincount(level, weights=weights * labels, minlength=len(levels))
    negative = np.bincount(level, weights=weights * (1.0 - labels), minlength=len(levels))
    below = np.cumsum(negative) - negative
    return float(np.sum(positive * (below + 0.5 * negative)) / (positive.sum() * negative.sum()))


def gini(counts: ArrayLike) -> float:
    """Gini coefficient of the exposure: 0 when all items get the same, near 1 when one gets everything.

    counts : float array, shape (n_items,), >= 0, items that were never shown included; refused when nothing was shown.

    >>> gini([1, 1, 1, 1]), gini([0, 0, 0, 4])
    (0.0, 0.75)
    """
    exposure = np.sort(np.asarray(counts, dtype=np.float64))
    if len(exposure) == 0 or not bool(exposure[0] >= 0.0) or not 0.0 < float(exposure.sum()) < np.inf:
        raise Refused(
            what="no exposure to compare",
            got=f"{len(exposure)} items, {exposure.sum():g} impressions in all",
            wanted="counts >= 0 with a finite sum above 0",
            remedy="count the impressions of every item of the catalogue",
        )
    n = len(exposure)
    ascending_rank = np.arange(1, n + 1)
    return float(2.0 * np.sum(ascending_rank * exposure) / (n * exposure.sum()) - (n + 1) / n)


def coverage(items_shown_top_k: NDArray[Any], n_items: int) -> float:
    """Share of the catalogue's items that reach the top k of any request.

    items_shown_top_k : int array of item codes 0..n_items-1, repeats allowed; empty gives 0.0

    >>> coverage(np.array([0, 3, 3, 1]), n_items=6)
    0.5
    """
    shown = np.unique(items_shown_top_k)
    if n_items < 1 or (len(shown) > 0 and not 0 <= shown[0] <= shown[-1] < n_items):
        raise Refused(
            what="an item outside the catalogue",
            got=f"codes {shown[0]} to {shown[-1]}" if len(shown) else "no codes",
            wanted=f"codes 0..{n_items - 1}" if n_items > 0 else "a catalogue of at least one item",
            remedy="number the items from 0 over the whole catalogue",
        )
    return len(shown) / n_items
