"""From what was counted of each day to what the loop looks like: shares, trends, the alarm, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sameworld.maths.loop import TREND_DAYS, feeds_on_itself, trend
from sameworld.records import Cannot, Estimate
from sameworld.store.times import parse_day

Day = Mapping[str, Any]
# By measure: what is summed, what it is summed over, and why there may be nothing to sum.
SHARES = {
    "explored_share": ("explored", "explored_of", "neither branch nor epsilon of any request is logged"),
    "own_choice_share": ("own", "own_of", "neither branch nor epsilon of any request is logged"),
    "support": ("support", "support_of", "no request logs all it takes: candidates with scores, tau and epsilon"),
    "concentration": ("concentration", "impressions", "nothing was shown"),
}
TOO_FEW = 10  # a day with less than one in so many of the usual impressions is a piece of a day, no point of a trend


def summary(days: Sequence[Day]) -> dict[str, Any]:
    """Return each measure with its trend, the alarm, and the daily values.

    days : by day, oldest first, what was counted: day, impressions, and the sums named in ``SHARES``; concentration is
        the day's Gini times its impressions
    """
    found = {name: _measure(name, days) for name in SHARES}
    support, concentration = (found[name]["trend"] if "trend" in found[name] else found[name]
                              for name in ("support", "concentration"))  # fmt: skip
    return {**found, **_alarm(support, concentration), "by_day": [_daily(day) for day in days]}


def _measure(name: str, days: Sequence[Day]) -> dict[str, Any]:
    top, bottom, reason = SHARES[name]
    total = sum(day[bottom] for day in days)
    if not total:
        return Cannot(reason).as_record()
    return {"value": sum(day[top] for day in days) / total, "trend": _trend(name, days).as_record()}


def _trend(name: str, days: Sequence[Day]) -> Estimate | Cannot:
    """Return the slope over the last two weeks before the newest day, days with hardly a row left out."""
    top, bottom, _ = SHARES[name]
    numbers = [parse_day(day["day"]).toordinal() for day in days]
    usual = float(np.median([day["impressions"] for day in days]))
    whole = [
        (number, day[top] / day[bottom])
        for number, day in zip(numbers, days, strict=True)
        if number > numbers[-1] - TREND_DAYS and day[bottom] and TOO_FEW * day["impressions"] >= usual
    ]
    return trend([number for number, _ in whole], [value for _, value in whole])


def _daily(day: Day) -> dict[str, Any]:
    """Return the day's own values; one that it cannot have is left out."""
    known = {name: day[top] / day[bottom] for name, (top, bottom, _) in SHARES.items() if day[bottom]}
    return {"day": day["day"], "impressions": day["impressions"], **known}


def _alarm(support: Mapping[str, Any], concentration: Mapping[str, Any]) -> dict[str, Any]:
    for name, one in (("support", support), ("concentration", concentration)):
        if "cannot" in one:
            return {"alarm": Cannot(f"{name}: {one['cannot']}").as_record()}
    narrows, gathers = Estimate(**support), Estimate(**concentration)
    alarm = feeds_on_itself(narrows, gathers)
    told = "what may be shown first narrows, and exposure concentrates" if alarm else _calm(narrows, gathers)
    numbers = "; ".join(f"{name} {one.value:+.2g} a day [{one.low:+.2g}, {one.high:+.2g}]"
                        for name, one in (("support", narrows), ("concentration", gathers)))  # fmt: skip
    return {"alarm": alarm, "reason": f"{told}: {numbers}"}


def _calm(support: Estimate, concentration: Estimate) -> str:
    if support.high < 0.0:
        return "what may be shown first narrows, but exposure does not clearly concentrate"
    if concentration.low > 0.0:
        return "exposure concentrates, but what may be shown first does not clearly narrow"
    return "what may be shown first does not clearly narrow, nor does exposure clearly concentrate"
