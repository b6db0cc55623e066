"""The proof's figures: what was said offline of an arm, and what was true of it, day by day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.ticker import MaxNLocator

from sameworld.page.plots import _DASHES, ACCENT, SERIES, _figure

Points = Sequence[Mapping[str, Any]]


def said_and_true(days: Mapping[str, Points], *, label: str, span: tuple[float, float], last_day: int) -> str:
    """Draw an arm's offline metric and its truth by day, means over seeds; "" where neither is known.

    days : offline and truth, each points of day and mean; span : the ends of the vertical axis
    """
    if not any(days.values()):
        return ""
    with _figure(label, label, height=230) as (axes, out):
        for place, (what, color) in enumerate((("offline", SERIES[1]), ("truth", ACCENT))):
            points = days.get(what) or ()
            at, means = [point["day"] for point in points], [point["mean"] for point in points]
            style = {"color": color, "linestyle": _DASHES[place], "linewidth": 1.7, "marker": "o", "markersize": 3.5}
            axes.plot(at, means, label=what, **style)
        axes.set(xlim=(0, last_day), ylim=span, xlabel="day")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
    return out[0]
