"""The drills on the page: each outage with its share of requests, and a metric with and without it, on one scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sameworld.page import bars, view, words

NAMED = 4  # features that a row names; the rest is counted
CALIBRATION = "calibration_ratio"


def metric(drills: object, primary: str) -> str:
    """Return the metric to draw: the deciding one, or normalised entropy where that has no number."""
    known = [view.mapping(view.mapping(one).get("metrics")).get(primary) for one in view.listed(drills)]
    told = any(words.is_estimate(view.mapping(one).get("with")) for one in known)
    return primary if told else "normalised_entropy"


def rows(drills: object, name: str) -> list[dict[str, Any]]:
    """Return one record an outage: its words, the metric with it and its change, calibration, and the picture.

    Each picture has the metric with the outage above the same as served, and all share one scale.
    """
    found = view.listed(drills)
    compared = [view.mapping(view.mapping(one.get("metrics")).get(name)) for one in found]
    span = bars.span_of([one.get(which) for one in compared for which in ("with", "without")])
    return [_row(one, both, name, span) for one, both in zip(found, compared, strict=True)]


def _row(drill: Mapping[str, Any], both: Mapping[str, Any], name: str, span: tuple[float, float]) -> dict[str, Any]:
    features = drill.get("outage")
    named = [str(one) for one in features] if isinstance(features, Sequence) and not isinstance(features, str) else []
    lanes = [("accent", view.mapping(both.get("with"))), ("muted", view.mapping(both.get("without")))]
    label = f"{words.humanise(name)} without {', '.join(named[:NAMED])}, above the same as served"
    calibrated = view.mapping(view.mapping(drill.get("metrics")).get(CALIBRATION))
    return {
        "name": ", ".join(named[:NAMED]) or str(features),
        "more": len(named) - NAMED if len(named) > NAMED else 0,
        "kind": drill.get("kind"),
        "share": drill.get("request_share"),
        "requests": drill.get("requests"),
        "reasons": drill.get("reasons"),
        "with": both.get("with"),
        "delta": both.get("delta"),
        "calibration": calibrated.get("with"),
        "hit": view.mapping(drill.get("hit")).get(CALIBRATION),
        "bar": bars.interval_bar(lanes, span=span, label=label),
    }


def records(drills: object) -> list[dict[str, Any]]:
    """Return one flat record an outage and metric: with, without and the paired difference."""
    return [
        {"outage": ", ".join(map(str, one.get("outage") or ())), "metric": words.humanise(name), **view.mapping(both)}
        for one in view.listed(drills)
        for name, both in view.mapping(one.get("metrics")).items()
    ]
