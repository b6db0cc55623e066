"""The early read: what is known so far of rows still open, beside what of it could be known yet."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sameworld.maths.bootstrap import Replicates, replicate_sums, sums_by_user
from sameworld.maths.ranking import request_starts
from sameworld.models.judging import Judged, estimate_record, metric_replicates
from sameworld.records import Cannot, Refused

Floats = NDArray[np.float64]
CALIBRATION = ("calibration_ratio", "observed_to_expected", "normalised_entropy")
FEWEST_KNOWN = 0.05  # a request of which less can be known would weigh its first outcome by more than 20


def calibration(judged: Judged, completeness: Floats, **draw: int) -> dict[str, Any]:
    """Return Σ pθF / Σ y, its reciprocal and the normalised entropy of pθF, each an estimate by user, or cannot.

    judged : rows with the target as known so far and the probability pθ of observing it within the window
    completeness : shape (n,), F: the share of the target's outcomes that can be known at the row's age

    What is known so far of a row has the probability pθF, so the first two are right at any age. The entropy is the
    log loss of pθF over that of bF, b = Σy / ΣF: 1 says no more than the base rate and the age. For closed rows (F = 1)
    it is the normalised entropy. Rows of which nothing can be known yet (F = 0) are left out of all three.
    """
    known = completeness > 0.0
    if judged.probability is None or not known.any():
        return dict.fromkeys(CALIBRATION, Cannot("nothing of the target can be known yet of any row").as_record())
    y, F = judged.target[known], completeness[known]
    expected, base = judged.probability[known] * F, np.minimum(y.sum() / F.sum(), 1.0) * F
    columns = np.stack([expected, y, _log_loss(y, expected), _log_loss(y, base)], axis=1)
    try:
        sums = replicate_sums(sums_by_user(columns, judged.user[known]), **draw)
    except Refused as refusal:
        return dict.fromkeys(CALIBRATION, Cannot(str(refusal)).as_record())
    unknown = Cannot("no outcome of the target is known yet").as_record()
    return {
        "calibration_ratio": estimate_record(_ratio(sums, 0, 1)) if y.any() else unknown,
        "observed_to_expected": estimate_record(_ratio(sums, 1, 0)),
        "normalised_entropy": estimate_record(_ratio(sums, 2, 3)) if y.any() else unknown,
    }


def _log_loss(y: Floats, p: Floats) -> Floats:
    inside = np.clip(p, 1e-15, 1.0 - 1e-15)
    return np.where(y > 0.0, -np.log(inside), -np.log1p(-inside))


def _ratio(sums: Replicates, top: int, bottom: int) -> Replicates:
    return sums.through(lambda table: table[..., top : top + 1] / table[..., bottom : bottom + 1])


def ranking(name: str, judged: Judged, corrected: Floats, known: Floats, **draw: int) -> dict[str, Any]:
    """Return a ranking metric of the rows with each gain weighed by one over its completeness, or cannot.

    name : ``ndcg@K``;  judged : rows with their gain as known so far
    corrected : shape (n,), the gain with each kind's part over that kind's completeness
    known : shape (n,), the least completeness of any kind; requests where it is below 0.05 are left out, whatever they
        gained: so young a request would count little, and weigh much once it did

    A request counts in the matured metric if it gains anything, and now if that is known: one over that chance weighs
    it back. Right where a request gains at one item; where several gain, those known first stand for all.
    """
    starts = request_starts(judged.request)
    whole = (np.minimum.reduceat(known, starts) >= FEWEST_KNOWN)[judged.request] if len(starts) else np.zeros(0, bool)
    if not whole.any():
        return Cannot(f"of no request {FEWEST_KNOWN:.0%} can be known yet").as_record()
    raised = np.divide(corrected, judged.gain, out=np.ones(len(corrected)), where=judged.gain > 0.0)
    weighed = replace(judged, unseen=judged.unseen * raised).where(whole)
    return estimate_record(metric_replicates(name, weighed, seed=draw["seed"], replicates=draw["replicates"]))
