"""How far a metric moves when more is let in: paired differences of one model on the same rows, and the words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sameworld.maths.bootstrap import Replicates
from sameworld.models.judging import LOWER_IS_BETTER, Judged, estimate_record, metric_replicates
from sameworld.records import Cannot


@dataclass(frozen=True)
class Inflation:
    """What is compared: the rows as they could be known, and how to draw users.

    Another read is of the same rows in the same order, so both see the same drawn users.
    """

    honest: Judged
    seed: int
    replicates: int
    _known: dict[str, Replicates | Cannot] = field(default_factory=dict)

    def of(self, name: str, let_in: Judged) -> dict[str, Any]:
        """Return a metric with more let in (``value``), as it was known (``honest``), and the difference's estimate.

        The same read gives exactly 0. What has no number says cannot; where neither read has one the metric says it.
        """
        known = self._known.setdefault(name, self._replicates(name, self.honest))
        told = known if let_in is self.honest else self._replicates(name, let_in)
        value, honest = _point(told), _point(known)
        if isinstance(value, dict) and isinstance(honest, dict):
            return honest
        if isinstance(told, Cannot) or isinstance(known, Cannot):
            moved = told if isinstance(told, Cannot) else known
            return {"value": value, "honest": honest, "inflation": estimate_record(moved)}
        return {"value": value, "honest": honest, "inflation": estimate_record(told.minus(known))}

    def _replicates(self, name: str, judged: Judged) -> Replicates | Cannot:
        return metric_replicates(name, judged, seed=self.seed, replicates=self.replicates)


def _point(found: Replicates | Cannot) -> Any:
    if isinstance(found, Replicates) and np.isfinite(found.value[0]):
        return float(found.value[0])
    return estimate_record(found)


def in_words(name: str, found: Mapping[str, Any], *, moment: str, anything: bool) -> str:
    """Say what letting in would have done to a metric.

    found : what ``Inflation.of`` gave; moment : what both reads are about happened before it; anything : whether
    anything was let in at all

    >>> moved = {"value": 0.7, "honest": 0.8, "inflation": {"value": -0.1, "low": -0.2, "high": -0.05}}
    >>> in_words("auc", moved, moment="2026-03-20T00:00:00Z", anything=False)
    'Nothing was late: all that happened before 2026-03-20T00:00:00Z had arrived by then, so no metric moves.'
    >>> words = in_words("normalised_entropy", moved, moment="2026-03-20T00:00:00Z", anything=True)
    >>> words.partition("arrived, ")[2].partition(". ")[0]
    'normalised entropy would have been 0.7000 instead of 0.8000, -0.1000 [-0.2000, -0.0500]'
    >>> words.partition("0.0500]. ")[2]
    'Lower looks better: the model would have looked better than was known.'
    """
    if not anything:
        return f"Nothing was late: all that happened before {moment} had arrived by then, so no metric moves."
    told = f"Had all been let in that happened before {moment}, whenever it arrived, {name.replace('_', ' ')} would"
    moved = found.get("inflation", found)
    if "cannot" in moved:
        return f"{told} have moved by what cannot be said: {moved['cannot']}."
    side = "Lower" if name in LOWER_IS_BETTER else "Higher"
    sums = f"{found['value']:.4f} instead of {found['honest']:.4f}"
    interval = f"{moved['value']:+.4f} [{moved['low']:+.4f}, {moved['high']:+.4f}]"
    return f"{told} have been {sums}, {interval}. {side} looks better: {_looked(name, moved)}."


def _looked(name: str, moved: Mapping[str, float]) -> str:
    if moved["low"] <= 0.0 <= moved["high"]:
        return "the model would not have looked clearly better or worse"
    better = (moved["low"] > 0.0) != (name in LOWER_IS_BETTER)
    return f"the model would have looked {'better' if better else 'worse'} than was known"
