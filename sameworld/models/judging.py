"""Judge scored requests: every metric with its bootstrap replicates, so that models can be compared pair by pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlogy

from sameworld.maths.bootstrap import Replicates, replicate_sums, statistic_replicates, sums_by_user
from sameworld.maths.calibration import ece_equal_mass
from sameworld.maths.ranking import coverage, gini, mrr_by_request, ndcg_by_request, order_positions, request_starts
from sameworld.records import Cannot, Refused

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
# Coverage and exposure are of the items that stand in a request's first places; lists are rarely much longer.
NOTICED = 5
# Sorting metrics cost a pass over the rows for each replicate.
MAX_SORTED_REPLICATES = 100
LOWER_IS_BETTER = ("normalised_entropy", "ece", "exposure_gini")
PROBABILITY_METRICS = ("normalised_entropy", "calibration_ratio", "ece")


@dataclass(frozen=True)
class Judged:
    """Rows shown in requests whose labels have closed, with one model's score and probability.

    request (n,) codes 0..R−1, contiguous; user (n,) codes 0..U−1; item (n,) codes; gain, target (n,); score (n,)
    orders; probability (n,) that the target was *observed*: examination included; None for a mere order;
    unseen (n,) >= 1 is one over the examination where the row was shown, by which ranking metrics weigh a gain:
    clicks fall where people look, and an order must not win by repeating where they were made to look
    """

    request: Ints
    user: Ints
    item: Ints
    gain: Floats
    target: Floats
    score: Floats
    probability: Floats | None
    unseen: Floats

    def with_scores(self, score: Floats, probability: Floats | None = None) -> Judged:
        """Return the same rows under another model."""
        return replace(self, score=score, probability=probability)

    def where(self, chosen: NDArray[np.bool_]) -> Judged:
        """Return the chosen rows, requests and users numbered anew."""
        request = np.unique(self.request[chosen], return_inverse=True)[1]
        user = np.unique(self.user[chosen], return_inverse=True)[1]
        probability = self.probability[chosen] if self.probability is not None else None
        columns = (self.item[chosen], self.gain[chosen], self.target[chosen], self.score[chosen], probability)
        return Judged(request.astype(np.int64), user.astype(np.int64), *columns, self.unseen[chosen])

    @property
    def lists(self) -> bool:
        """Whether any request shows more than one item."""
        return len(self.request) > 0 and int(self.request[-1]) + 1 < len(self.request)


def metric_names(at: list[int]) -> list[str]:
    """Return every metric's name, in the order of the report."""
    names = [f"ndcg@{k}" for k in sorted(set(at))]
    return [*names, "mrr", "normalised_entropy", "calibration_ratio", "ece", "auc", "coverage", "exposure_gini"]


def lengths_asked(at: Sequence[int], deciding: str) -> list[int]:
    """Return the list lengths to measure at: those of the spec, and the one of the metric that decides, last.

    >>> lengths_asked([5], "ndcg@10"), lengths_asked([5], "mrr")
    ([5, 10], [5])
    """
    family, _, k = deciding.partition("@")
    return [*at, *([int(k)] if family == "ndcg" and k.isdigit() else [])]


def metric_replicates(name: str, judged: Judged, *, seed: int, replicates: int) -> Replicates | Cannot:
    """Return one metric with its replicates by user, or why there is none."""
    family, _, k = name.partition("@")
    if not len(judged.request):
        return Cannot("no rows to judge")
    if family in PROBABILITY_METRICS and judged.probability is None:
        return Cannot("a mere order has no probabilities")
    if family in ("ndcg", "mrr", "coverage", "exposure_gini") and not judged.lists:
        return Cannot("the log has no lists: each request shows one item")
    draw = {"seed": seed, "replicates": replicates}
    try:
        return _METRICS[family](judged, int(k or NOTICED), draw)
    except Refused as refusal:
        return Cannot(str(refusal))


def estimate_record(found: Replicates | Cannot) -> dict[str, Any]:
    """Return the report's form of a metric."""
    if isinstance(found, Cannot):
        return found.as_record()
    try:
        return found.estimates()[0].as_record()
    except Refused as refusal:
        return Cannot(str(refusal)).as_record()


def _by_request(judged: Judged, values: Floats, counted: NDArray[np.bool_], draw: dict[str, int]) -> Replicates:
    """Return the mean of the counted requests' values, each weighed by how unlikely its gains were to be seen.

    The weight is the request's gain with each part over its examination, by its plain gain: self-normalised inverse
    propensity weighting (Joachims et al., "Unbiased learning-to-rank with biased feedback", WSDM 2017); without a
    position effect it is 1 and this is the plain mean.
    """
    if not counted.any():
        raise Refused(what="no request has an outcome", got=f"{len(counted)} requests", wanted="at least one")
    starts = request_starts(judged.request)
    plain = np.add.reduceat(judged.gain, starts)
    seen = np.add.reduceat(judged.gain * judged.unseen, starts)
    weight = np.where(counted, seen / np.where(plain > 0, plain, 1.0), 0.0)
    columns = np.stack([weight * np.where(counted, values, 0.0), weight], axis=1)
    sums = replicate_sums(sums_by_user(columns, judged.user[starts]), **draw)
    return sums.through(lambda table: table[..., :1] / table[..., 1:])


def _ndcg(judged: Judged, k: int, draw: dict[str, int]) -> Replicates:
    gain = judged.gain * judged.unseen
    return _by_request(judged, *ndcg_by_request(judged.request, judged.score, gain, k), draw)


def _mrr(judged: Judged, _: int, draw: dict[str, int]) -> Replicates:
    return _by_request(judged, *mrr_by_request(judged.request, judged.score, judged.gain), draw)


def _normalised_entropy(judged: Judged, _: int, draw: dict[str, int]) -> Replicates:
    p = np.clip(_probability(judged), 1e-15, 1.0 - 1e-15)
    loss = -np.where(judged.target > 0, np.log(p), np.log1p(-p))
    columns = np.stack([loss, judged.target, np.ones(len(p))], axis=1)
    sums = replicate_sums(sums_by_user(columns, judged.user), **draw)

    def entropy_ratio(table: Floats) -> Floats:
        rate = np.clip(table[..., 1:2] / table[..., 2:3], 0.0, 1.0)
        return np.asarray(table[..., :1] / table[..., 2:3] / -(xlogy(rate, rate) + xlogy(1 - rate, 1 - rate)))

    return sums.through(entropy_ratio)


def _calibration_ratio(judged: Judged, _: int, draw: dict[str, int]) -> Replicates:
    columns = np.stack([_probability(judged), judged.target], axis=1)
    return replicate_sums(sums_by_user(columns, judged.user), **draw).through(lambda t: t[..., :1] / t[..., 1:])


def _sorted_statistic(statistic: Callable[[Floats], float], users: int, draw: dict[str, int]) -> Replicates:
    draw = {**draw, "replicates": min(draw["replicates"], MAX_SORTED_REPLICATES)}
    return statistic_replicates(statistic, users, **draw)


def _auc(judged: Judged, _: int, draw: dict[str, int]) -> Replicates:
    """Return the AUC over all rows; ties count half."""
    if not 0 < judged.target.sum() < len(judged.target):
        raise Refused(what="AUC needs both classes", got=f"{judged.target.sum():g} positives of {len(judged.target)}")
    score = judged.score if judged.probability is None else judged.probability
    level = np.unique(score, return_inverse=True)[1]
    order = np.argsort(level, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(level[order]) > 0])
    positive, user = judged.target[order], judged.user[order]

    def weighted(weights: Floats) -> float:
        row = weights[user]
        ups, downs = np.add.reduceat(row * positive, starts), np.add.reduceat(row * (1.0 - positive), starts)
        below = np.cumsum(downs) - downs
        pairs = ups.sum() * downs.sum()
        return float(np.sum(ups * (below + downs / 2.0)) / pairs) if pairs > 0 else float("nan")

    return _sorted_statistic(weighted, int(judged.user.max()) + 1, draw)


def _ece(judged: Judged, _: int, draw: dict[str, int]) -> Replicates:
    p = _probability(judged)

    def resampled(weights: Floats) -> float:
        if (weights == 1.0).all():
            return ece_equal_mass(p, judged.target)
        times = weights[judged.user].astype(np.int64)
        return ece_equal_mass(np.repeat(p, times), np.repeat(judged.target, times))

    return _sorted_statistic(resampled, int(judged.user.max()) + 1, draw)


def _top(judged: Judged, k: int) -> NDArray[np.bool_]:
    return order_positions(judged.request, judged.score) <= k


def _coverage(judged: Judged, k: int, draw: dict[str, int]) -> Replicates:
    items, top = int(judged.item.max()) + 1, _top(judged, k)

    def share(weights: Floats) -> float:
        return coverage(judged.item[top & (weights[judged.user] > 0)], items)

    return _sorted_statistic(share, int(judged.user.max()) + 1, draw)


def _exposure_gini(judged: Judged, k: int, draw: dict[str, int]) -> Replicates:
    items, top = int(judged.item.max()) + 1, _top(judged, k)

    def concentration(weights: Floats) -> float:
        return gini(np.bincount(judged.item[top], weights=weights[judged.user[top]], minlength=items))

    return _sorted_statistic(concentration, int(judged.user.max()) + 1, draw)


def _probability(judged: Judged) -> Floats:
    if judged.probability is None:
        raise Refused(what="a mere order has no probabilities")
    return judged.probability


_METRICS: dict[str, Callable[[Judged, int, dict[str, int]], Replicates]] = {
    "ndcg": _ndcg,
    "mrr": _mrr,
    "normalised_entropy": _normalised_entropy,
    "calibration_ratio": _calibration_ratio,
    "ece": _ece,
    "auc": _auc,
    "coverage": _coverage,
    "exposure_gini": _exposure_gini,
}
