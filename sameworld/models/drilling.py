"""Drills: which features have gone missing together or could, and what a model is worth without them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sameworld.maths.bootstrap import Replicates
from sameworld.maths.missingness import null_mask_patterns, outage_groups, request_null_masks
from sameworld.models.judging import Judged, estimate_record, metric_replicates
from sameworld.records import Cannot

Bools = NDArray[np.bool_]
MAX_PATTERNS = 8
RARE_PATTERN = 0.005  # of the requests: a rarer pattern is drilled as part of its group only
NOT_STATED = "not stated"
NEVER_SEEN = "no judged request lacked these features"


@dataclass(frozen=True)
class Outage:
    """Features that go missing together: a ``pattern``, all that some requests lacked, or a service's ``group``."""

    features: tuple[str, ...]
    kind: str


def null_masks(rows: pl.DataFrame, names: Sequence[str], request: NDArray[np.int64]) -> Bools:
    """Return which features each request lacked as a whole, (requests, names); a column that is not there is null.

    request (n,): codes 0..R-1, a request's rows together; lacking is being null in more than half of its rows
    """
    mask = np.empty((len(rows), len(names)), np.bool_)
    for place, name in enumerate(names):
        mask[:, place] = _is_null(rows[name]) if name in rows.columns else True
    return request_null_masks(mask, request)


def _is_null(column: pl.Series) -> Bools:
    null = column.is_null()
    return ((null | column.is_nan().fill_null(value=True)) if column.dtype.is_float() else null).to_numpy()


def outages_to_drill(masks: Bools, names: Sequence[str], views: Mapping[str, Sequence[str]]) -> list[Outage]:
    """Return what to drill: the commonest patterns of nulls, then each group that fails together, then each view's.

    masks (requests, names): of the requests that were served, as from ``null_masks``
    views: view -> features that the model reads and the view gives. The same features are drilled once.

    >>> outages_to_drill(np.array([[True, True], [False, True]]), ["x_a", "x_b"], {"stats": ["x_a"]})
    [Outage(features=('x_b',), kind='pattern'), Outage(features=('x_a', 'x_b'), kind='pattern'), \
Outage(features=('x_a',), kind='group')]
    """
    found: dict[tuple[str, ...], Outage] = {}
    given = (("group", list(features)) for features in views.values())
    for kind, features in (*_patterns(masks, names), *_groups(masks, names), *given):
        key = tuple(sorted(features))
        if key:
            found.setdefault(key, Outage(key, kind))
    return list(found.values())


def _patterns(masks: Bools, names: Sequence[str]) -> list[tuple[str, list[str]]]:
    if not len(masks):
        return []
    patterns = null_mask_patterns(masks, np.arange(len(masks)))
    common = [mask for mask, count in zip(patterns.masks, patterns.requests, strict=True)
              if mask.any() and count >= RARE_PATTERN * len(masks)]  # fmt: skip
    return [("pattern", [names[place] for place in np.flatnonzero(mask).tolist()]) for mask in common[:MAX_PATTERNS]]


def _groups(masks: Bools, names: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    for group in outage_groups(masks)[:MAX_PATTERNS] if len(masks) else ():
        yield "group", [names[place] for place in group.features]


@dataclass(frozen=True)
class Drilled:
    """What is compared: the rows as they were served, and how to draw users; both see the same drawn users."""

    served: Judged
    names: Sequence[str]
    seed: int
    replicates: int
    _known: dict[str, Replicates | Cannot] = field(default_factory=dict)

    def metrics(self, without: Judged) -> dict[str, Any]:
        """Return each metric ``with`` the outage in every row, ``without`` it (as served), and the paired ``delta``."""
        return {name: self._compared(name, without) for name in self.names}

    def hit(self, requests: Bools) -> dict[str, Any]:
        """Return the calibration ratio on the requests that the outage really hit, as they were served."""
        if not requests.any():
            return {"calibration_ratio": Cannot(NEVER_SEEN).as_record()}
        part = self.served.where(requests[self.served.request])
        return {"calibration_ratio": estimate_record(self._replicates("calibration_ratio", part))}

    def _compared(self, name: str, without: Judged) -> dict[str, Any]:
        served = self._known.setdefault(name, self._replicates(name, self.served))
        lacking = self._replicates(name, without)
        cannot = next((one for one in (lacking, served) if isinstance(one, Cannot)), None)
        if isinstance(lacking, Cannot) or isinstance(served, Cannot):
            delta: Replicates | Cannot = cannot or Cannot("no difference")
        else:
            delta = lacking.minus(served)
        return {"with": estimate_record(lacking), "without": estimate_record(served), "delta": estimate_record(delta)}

    def _replicates(self, name: str, judged: Judged) -> Replicates | Cannot:
        return metric_replicates(name, judged, seed=self.seed, replicates=self.replicates)


def reason_shares(stated: pl.DataFrame, features: Sequence[str], *, nulls: int) -> dict[str, float]:
    """Return each reason's share of the nulls of some features, the commonest first; the rest is not stated.

    stated : feature, reason and rows, of the requests that lacked the features;  nulls : how many values were null

    >>> stated = pl.DataFrame({"feature": ["x_a", "x_a", "x_b"], "reason": ["timeout", "absent", "timeout"],
    ...                        "rows": [5, 2, 1]})
    >>> reason_shares(stated, ["x_a"], nulls=10)
    {'timeout': 0.5, 'not stated': 0.3, 'absent': 0.2}
    """
    of_these = stated.filter(pl.col("feature").is_in(list(features))).group_by("reason").agg(pl.col("rows").sum())
    counts = {str(reason): int(rows) for reason, rows in of_these.iter_rows()}
    rest = nulls - sum(counts.values())
    counts |= {NOT_STATED: rest} if rest > 0 else {}
    return {reason: counts[reason] / max(nulls, 1) for reason in sorted(counts, key=lambda one: (-counts[one], one))}
