"""Small inline SVG pictures of intervals, to stand beside the numbers that they draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from sameworld.page import words

WIDTH, LANE, MARGIN = 180.0, 16.0, 6.0
_OPEN = Markup(
    '<svg class="bar" role="img" aria-label="{label}" viewBox="0 0 {width:.0f} {height:.0f}"'
    ' width="{width:.0f}" height="{height:.0f}"><title>{label}</title>'
)
_REFERENCE = Markup('<line class="zero" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height:.0f}"/>')
_LANE = Markup(
    '<g class="{tone}"><line class="lane" x1="0" x2="{width:.0f}" y1="{y:.0f}" y2="{y:.0f}"/>'
    '<line class="span" x1="{low:.1f}" x2="{high:.1f}" y1="{y:.0f}" y2="{y:.0f}"/>'
    '<circle cx="{value:.1f}" cy="{y:.0f}" r="4"/></g>'
)


def span_of(estimates: Sequence[Any], *, reference: float | None = None) -> tuple[float, float]:
    """Return the lowest and highest value that the estimates (and the reference) reach; (0, 1) when there are none.

    Values that are no estimate are passed over; a single point gets half a unit (or half of itself) of room.

    >>> span_of([{"value": 2, "low": 1, "high": 4}], reference=0.0)
    (0.0, 4.0)
    """
    known = [float(e[part]) for e in estimates if words.is_estimate(e) for part in ("low", "value", "high")]
    known += [] if reference is None or not known else [reference]
    if not known:
        return 0.0, 1.0
    low, high = min(known), max(known)
    room = 0.0 if high > low else abs(high) / 2 or 0.5
    return low - room, high + room


def interval_bar(
    lanes: Sequence[tuple[str, Mapping[str, Any]]],
    *,
    span: tuple[float, float],
    label: str,
    reference: float | None = None,
) -> Markup:
    """Draw estimates as dots on their intervals, one lane each, all on one scale.

    lanes : (tone, estimate) pairs; the tone is a CSS class. Values that are no estimate draw no lane.
    span : the scale's two ends; what lies outside is cut at them. label : what a screen reader says.
    """
    drawn = [(tone, estimate) for tone, estimate in lanes if words.is_estimate(estimate)]
    if not drawn:
        return Markup("")
    height = LANE * len(drawn)
    parts = [_OPEN.format(label=label, width=WIDTH, height=height)]
    if reference is not None:
        parts.append(_REFERENCE.format(x=_place(reference, span), height=height))
    for index, (tone, estimate) in enumerate(drawn):
        low, value, high = (_place(float(estimate[part]), span) for part in ("low", "value", "high"))
        y = LANE * (index + 0.5)
        parts.append(_LANE.format(tone=tone, low=low, value=value, high=high, y=y, width=WIDTH))
    return Markup("").join([*parts, Markup("</svg>")])


def _place(value: float, span: tuple[float, float]) -> float:
    low, high = span
    inside = min(max((value - low) / (high - low), 0.0), 1.0)
    return MARGIN + inside * (WIDTH - 2 * MARGIN)
