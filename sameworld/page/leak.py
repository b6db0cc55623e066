"""The leak on the page: what each source would have moved if it had been let in, with pictures around zero."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sameworld.page import bars, view, words


def rows(leak: object) -> list[dict[str, Any]]:
    """Return one record a source, all of them first, then each view as of today; all pictures share one scale.

    A record has the source's name, the metric's value with it let in, the inflation, and its picture.
    """
    section = view.mapping(leak)
    found = [("all of it", section), *view.mapping(section.get("by_source")).items()]
    found += [(f"{name}, as of today", one) for name, one in view.mapping(section.get("snapshot")).items()]
    moved = [view.mapping(one).get("inflation") for _, one in found]
    reach = max(abs(edge) for edge in bars.span_of(moved, reference=0.0)) * 1.05
    return [
        {"name": name, "value": _value(one), "inflation": inflation, "bar": _bar(name, inflation, reach)}
        for (name, one), inflation in zip(found, moved, strict=True)
    ]


def _value(one: object) -> object:
    """Return a metric's value, or why there is none; a source that is an estimate itself has none beside it."""
    reason = words.cannot(one)
    return {"cannot": reason} if reason is not None else view.mapping(one).get("value")


def _bar(name: str, inflation: object, reach: float) -> Any:
    estimate: Mapping[str, Any] = view.mapping(inflation)
    return bars.interval_bar(
        [("accent", estimate)], span=(-reach, reach), label=f"{name}: inflation with its interval", reference=0.0
    )


def metrics(leak: object) -> list[dict[str, Any]]:
    """Return one record a metric: as known, with all let in, and the difference."""
    return [
        {"metric": words.humanise(name), **(view.mapping(one) or {"inflation": one})}
        for name, one in view.mapping(view.mapping(leak).get("metrics")).items()
    ]
