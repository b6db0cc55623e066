"""The loop and the early read on the page: measures with their trends, days and exploration drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from sameworld.page import bars, feedback_plots, view, words

MEASURES = ("explored_share", "own_choice_share", "support", "concentration")
ABOUT_EARLY = ("rows", "requests", "positives", "from", "to", "completeness")
SHOWN_SHARES = 6


def measures(loop: object) -> list[dict[str, Any]]:
    """Return one record a measure: its value, its trend a day, and a picture of that around zero on its own scale."""
    section = view.mapping(loop)
    return [_measure(name, section[name]) for name in MEASURES if name in section]


def _measure(name: str, measure: object) -> dict[str, Any]:
    trend = view.mapping(measure).get("trend")
    reach = max(abs(edge) for edge in bars.span_of([trend], reference=0.0)) * 1.1
    label = f"{words.humanise(name)}: trend a day with its interval, around zero"
    bar = bars.interval_bar([("accent", view.mapping(trend))], span=(-reach, reach), label=label, reference=0.0)
    value = measure if words.cannot(measure) is not None else view.mapping(measure).get("value")
    return {"name": name, "value": value, "trend": trend, "bar": bar}


def curve(loop: object) -> list[dict[str, Any]]:
    """Return one record a share of shuffled requests: how wide the policy value's interval, and what it would cost.

    What exploring costs grows with the share of shuffled requests; where the cost is not known the record lacks it.
    """
    section = view.mapping(loop)
    cost = view.mapping(section.get("exploration_cost"))
    each = float(cost["value"]) * cost["requests"] / cost["shuffled"] if cost.get("shuffled") else None
    return [
        {"explored_share": point["epsilon"], "half_width_share": point["half_width"],
         **({"cost a request": point["epsilon"] * each} if each is not None else {})}
        for point in view.listed(view.mapping(section.get("budget")).get("curve"))
    ]  # fmt: skip


def some(points: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return a few of the records, the first and the last among them."""
    last = len(points) - 1
    places = sorted({round(number * last / (SHOWN_SHARES - 1)) for number in range(SHOWN_SHARES)}) if last >= 0 else []
    return [points[place] for place in places]


def figures(loop: object) -> list[dict[str, Any]]:
    """Return the figures that have data: the measures by day, and what exploring would buy."""
    section = view.mapping(loop)
    days, budget = view.listed(section.get("by_day")), view.mapping(section.get("budget"))
    wanted = budget.get("precision")
    drawn = [
        ("The loop by day", feedback_plots.by_day(days), f"Each day's own values; {view.rows_of(section)}."),
        (
            "What exploring would buy",
            feedback_plots.budget(curve(loop), wanted=wanted),
            f"Half-width of the policy's value, relative to it; dashed: asked for; {view.rows_of(budget)}.",
        ),
    ]
    # Drawn by plots, which escape every text.
    return [{"title": title, "svg": Markup(svg), "note": note} for title, svg, note in drawn if svg]  # noqa: S704


def early_rows(early: object) -> list[dict[str, Any]]:
    """Return one record a metric of the early read."""
    found = view.mapping(early)
    return [{"name": name, "estimate": value} for name, value in found.items() if name not in ABOUT_EARLY]
