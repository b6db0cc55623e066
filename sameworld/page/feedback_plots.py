"""The loop's figures: its measures by day, and what exploring would buy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.ticker import FuncFormatter, MaxNLocator

from sameworld.page import words
from sameworld.page.plots import _DASHES, _PERCENT, ACCENT, MUTED, SERIES, _figure, _name_days

LINES = ("support", "concentration", "explored_share", "own_choice_share")
WIDEST = 1.0  # an interval wider than the value itself says nothing, and would flatten the rest of the curve


def by_day(days: Sequence[Mapping[str, Any]]) -> str:
    """Draw each measure's daily values, a line each; a day without a value leaves a gap. Returns "" without any."""
    known = [name for name in LINES if any(words.is_number(day.get(name)) for day in days)]
    if not known:
        return ""
    label = f"{', '.join(words.humanise(name) for name in known)} by day, {len(days)} days"
    with _figure("loop by day", label, height=236) as (axes, out):
        for place, name in enumerate(known):
            values = [float(day[name]) if words.is_number(day.get(name)) else float("nan") for day in days]
            style = {"color": SERIES[place], "linestyle": _DASHES[place], "linewidth": 1.7, "marker": "o"}
            axes.plot(range(len(days)), values, markersize=2.5, label=words.humanise(name), **style)
        axes.set(ylim=(0, 1.02), xlim=(-0.4, len(days) - 0.6))
        axes.yaxis.set_major_formatter(_PERCENT)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)
        _name_days(axes, [str(day["day"]) for day in days], most=5)
    return out[0]


def budget(points: Sequence[Mapping[str, Any]], *, wanted: float | None) -> str:
    """Draw the half-width of the policy value's interval, and below it the cost, by the share of shuffled requests.

    points : explored_share, half_width_share and, where known, ``cost a request``; wanted : the half-width asked for
    """
    known = [one for one in points if words.is_number(one["half_width_share"]) and one["explored_share"] > 0]
    drawn = [one for one in known if one["half_width_share"] <= WIDEST] or known
    if not drawn:
        return ""
    costly = all("cost a request" in one for one in drawn)
    share, width = ([float(one[name]) for one in drawn] for name in ("explored_share", "half_width_share"))
    label = f"Half-width of the policy's value by share of shuffled requests, {len(drawn)} shares"
    with _figure("exploration", label, height=236, panels=(3, 2) if costly else (1,)) as (found, out):
        top, *below = found if costly else (found,)
        top.plot(share, width, color=ACCENT, linewidth=1.7)
        if wanted:
            top.axhline(wanted, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        top.set(xscale="log", ylim=(0, max(width) * 1.05), ylabel="± of the value")
        top.yaxis.set_major_formatter(_PERCENT)
        for axes in below:
            axes.plot(share, [float(one["cost a request"]) for one in drawn], color=MUTED, linewidth=1.7)
            axes.yaxis.set_major_locator(MaxNLocator(3))
            axes.set(ylabel="cost")
        last = [top, *below][-1]
        last.tick_params(which="minor", length=0)
        last.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:g} %"))
        last.set(xlabel="share of requests shuffled")
    return out[0]
