"""Features that go missing at serving: which are null together, whose nulls to train under, and skew value by value."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from sameworld.maths.ranking import request_starts, require_same_length
from sameworld.records import Cannot, Refused

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

TOGETHER = 0.8  # features of one service agree on nearly all of their nulls; two services with one upstream on half


def request_null_masks(mask: BoolArray, request: NDArray[Any]) -> BoolArray:
    """Whole-request null masks, shape (R, f): a feature is null in a request where it is in more than half of its rows.

    mask : bool array, shape (n, f), True where the served value was null;  request : as in `ranking.request_starts`

    >>> request_null_masks(np.array([[True, False], [True, True], [False, False]]), np.array([0, 0, 1]))
    array([[ True, False],
           [False, False]])
    """
    require_same_length(mask=mask, request=request)
    starts = request_starts(request)
    if len(starts) == 0:
        return np.zeros((0, mask.shape[1]), dtype=np.bool_)
    nulls = np.add.reduceat(mask, starts, axis=0, dtype=np.int64)
    rows = np.diff(np.append(starts, len(request)))
    return np.asarray(2 * nulls > rows[:, None], dtype=np.bool_)


@dataclass(frozen=True)
class NullPatterns:
    """Distinct whole-request null masks, shape (P, f), and how many requests had each, shape (P,), commonest first."""

    masks: BoolArray
    requests: IntArray


def null_mask_patterns(mask: BoolArray, request: NDArray[Any]) -> NullPatterns:
    """Count the distinct whole-request null masks; equal counts in order of the mask read as bits, False first.

    Arguments as in `request_null_masks`.

    >>> patterns = null_mask_patterns(np.array([[True, True], [False, False], [False, False]]), np.arange(3))
    >>> patterns.masks.tolist(), patterns.requests.tolist()
    ([[False, False], [True, True]], [2, 1])
    """
    by_request = request_null_masks(mask, request)
    packed = np.packbits(by_request, axis=1)  # eight features a byte: the distinct rows are found much sooner
    distinct, count = np.unique(packed, axis=0, return_counts=True)
    commonest_first = np.argsort(-count, kind="stable")
    masks = np.unpackbits(distinct, axis=1, count=by_request.shape[1]).astype(np.bool_)
    return NullPatterns(masks[commonest_first], count[commonest_first].astype(np.int64))


def donor_masks(request: NDArray[Any], mask: BoolArray, *, seed: int) -> BoolArray:
    """Null mask for each receiving row, shape (n, f): one random logged request gives its whole mask to a request.

    request : int array, shape (n,), of the rows that receive, as in `ranking.request_starts`
    mask : bool array, shape (D, f): masks of the logged requests to draw from, as from `request_null_masks`
    Donors are drawn with equal chance and put back, so nulls come together as often as they did in the log.
    Raises Refused when there is no donor.

    >>> donor_masks(np.array([0, 0, 1]), np.array([[True, False]]), seed=1).tolist()
    [[True, False], [True, False], [True, False]]
    """
    if len(mask) == 0:
        raise Refused(
            what="no logged request to take null masks from",
            got="0 requests with served features",
            wanted="at least 1",
            remedy="log the served features of some requests, or train without donor copies",
        )
    requests = len(request_starts(request))
    donor = np.random.Generator(np.random.PCG64(seed)).integers(0, len(mask), size=requests)
    return np.asarray(mask[donor[request]], dtype=np.bool_)


@dataclass(frozen=True)
class OutageGroup:
    """Columns of features that go null together, ascending, and the share of requests in which all of them were."""

    features: tuple[int, ...]
    request_share: float


def outage_groups(masks: BoolArray) -> tuple[OutageGroup, ...]:
    """Groups of features that are null together, the most frequent outage first: what to drill.

    masks : bool array, shape (R, f), as from `request_null_masks`
    Two features belong together when the requests that lack both are at least 80 % of those that lack either, and so
    do those linked through a third. A feature that is never null is in no group. Equal shares: lowest column first.

    >>> outage_groups(np.array([[True, True, False], [False, False, False]]))
    (OutageGroup(features=(0, 1), request_share=0.5),)
    """
    ever = np.flatnonzero(masks.any(axis=0))
    if len(ever) == 0:
        return ()
    nulls = masks[:, ever].astype(np.float64)
    both = nulls.T @ nulls  # counts below 2^53: exact whatever the order of summation
    own = np.diag(both)
    together = both >= TOGETHER * (own[:, None] + own[None, :] - both)
    n_groups, group = connected_components(csr_array(together), directed=False)
    members = [ever[group == g] for g in range(n_groups)]
    found = [OutageGroup(tuple(m.tolist()), float(masks[:, m].all(axis=1).mean())) for m in members]
    return tuple(sorted(found, key=lambda outage: (-outage.request_share, outage.features)))


@dataclass(frozen=True)
class Skew:
    """Rows in which a feature's served value was compared with its recomputed one, and those in which they differ.

    mismatch : both have a value, and not the same;  missing : serving had null, the view a value
    extra : serving had a value, the view null;  stale : those of the mismatches that served an earlier value
    """

    compared: int = 0
    mismatch: int = 0
    missing: int = 0
    extra: int = 0
    stale: int = 0

    def __add__(self, other: Skew) -> Skew:
        """Return the counts over the rows of both."""
        return Skew(**{name: count + vars(other)[name] for name, count in vars(self).items()})

    @property
    def differing_share(self) -> float:
        """The share of mismatches, missing and extra values together; -1 where no row was compared."""
        return (self.mismatch + self.missing + self.extra) / self.compared if self.compared else -1.0

    def shares(self, reason: str = "") -> dict[str, Any]:
        """Return ``compared`` and each share of it; of no rows there is none, so each says cannot, with the reason.

        >>> Skew(compared=4, mismatch=2, missing=1, stale=1).shares()["mismatch_share"]
        0.5
        """
        names = ("mismatch", "missing", "extra", "stale")
        none = Cannot(reason or "no row was compared").as_record()
        found = {f"{name}_share": vars(self)[name] / self.compared if self.compared else none for name in names}
        return {"compared": self.compared, **found}


def _is_null(values: NDArray[Any]) -> BoolArray:
    if values.dtype.kind in "biu":
        return np.zeros(len(values), dtype=np.bool_)
    # NaN, which alone differs from itself, or None
    return _differ(values, values) | ~_differ(values, np.full(len(values), None, dtype=object))


def _differ(first: NDArray[Any], second: NDArray[Any]) -> BoolArray:
    if first.dtype.kind not in "biuf" or second.dtype.kind not in "biuf":
        first, second = first.astype(object), second.astype(object)  # "1" and 1 differ, and no dtype is refused
    return np.asarray(np.not_equal(first, second), dtype=np.bool_)


def skew_of(served: ArrayLike, recomputed: ArrayLike, earlier: Sequence[Collection[Any]]) -> Skew:
    """Compare one feature's served values with its recomputed ones, row by row and exactly.

    served, recomputed : arrays of numbers, strings or bools, shape (n,), joined on (key, time); NaN and None are null,
        and two nulls agree
    earlier : for each row the values that its key had before the recomputed one
    This is what ``measure_skew`` counts, said for arrays. Raises Refused for no rows.

    >>> skew_of([1.0, 2.0, float("nan"), 4.0], [1.0, 2.5, 3.0, float("nan")], [(), (0.5, 2.0), (3.0,), (4.0,)])
    Skew(compared=4, mismatch=1, missing=1, extra=1, stale=1)
    """
    ours, theirs = np.asarray(served), np.asarray(recomputed)
    n = require_same_length(served=ours, recomputed=theirs, earlier=np.empty(len(earlier)))
    if n == 0:
        raise Refused(what="nothing to compare", got="0 rows", wanted="at least 1", remedy="log the served features")
    missing, absent = _is_null(ours), _is_null(theirs)
    mismatch = ~missing & ~absent & _differ(ours, theirs)
    was_before = np.array([value in before for value, before in zip(ours.tolist(), earlier, strict=True)])
    verdicts = (mismatch, missing & ~absent, ~missing & absent, mismatch & was_before)
    return Skew(n, *(int(verdict.sum()) for verdict in verdicts))


def _counts(values: FloatArray, edges: FloatArray) -> FloatArray:
    known = values[~np.isnan(values)]
    in_bins = np.bincount(np.searchsorted(edges, known, side="right"), minlength=len(edges) + 1)
    return np.append(in_bins, len(values) - len(known)).astype(np.float64)


def psi(expected: ArrayLike, actual: ArrayLike, bins: int = 10) -> float:
    """Population stability index of two samples of a feature: 0 for equal shares, over 0.25 by custom a shift.

    expected, actual : float arrays; NaN is a bin of its own. The other bins are quantiles of expected (equal values
    share one); those empty in both are left out, and half a row is added to each other, so that none costs infinity.
    It is a second look: stale values and a shuffled join, which leave the distribution alone, show in `skew_of` only.

    >>> psi([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0])
    0.0
    """
    before, after = np.asarray(expected, dtype=np.float64), np.asarray(actual, dtype=np.float64)
    if len(before) == 0 or len(after) == 0:
        raise Refused(what="nothing to compare", got="0 rows", wanted="at least 1 in each", remedy="take more days")
    known = before[~np.isnan(before)]
    edges = np.unique(np.quantile(known, np.arange(1, bins) / bins)) if len(known) else np.empty(0)
    counts = np.stack([_counts(before, edges), _counts(after, edges)])
    counts = counts[:, counts.sum(axis=0) > 0.0] + 0.5
    share = counts / counts.sum(axis=1, keepdims=True)
    return float(np.sum((share[1] - share[0]) * np.log(share[1] / share[0])))
