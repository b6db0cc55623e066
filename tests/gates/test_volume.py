"""How often the volume rule is wrong: clean days blocked, and faults let through, in logs of any size."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from gates.logs import FIRST

from sameworld.store.log_profile import Asked, Sums, day_row

WEEK = np.array([0.9, 1.0, 1.02, 1.0, 1.0, 1.05, 0.6])


def days_as_one_profile(per_day: float, *, seed: int, days: int, fault: float = 1.0) -> pl.DataFrame:
    """Return a row for each of ``days`` judged days of a log with weekdays, drift and Poisson noise."""
    rng = np.random.default_rng(seed)
    calendar = [FIRST + timedelta(days=i) for i in range(days + 28)]
    mean = per_day * WEEK[np.arange(len(calendar)) % 7] * np.exp(rng.normal(0, 0.08, len(calendar)))
    requests = rng.poisson(mean)
    rows = []
    for i in range(28, len(calendar)):
        counts = [*requests[i - 28 : i].tolist(), int(rng.poisson(mean[i] * fault))]
        row = {"table": "impressions", "segment": f"day {i}", **_judged_day(calendar[i - 28 : i + 1], counts)}
        rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None)


def _judged_day(calendar: list[date], requests: list[int]) -> dict[str, Any]:
    daily = pl.DataFrame({"arrival_day": calendar, "rows": [10 * n for n in requests], "groups": requests})
    sums = {day: Sums(10 * n, 0, {}) for day, n in zip(calendar, requests, strict=True)}
    asked = Asked(calendar[-1], 4, ("click",), "click", timedelta(days=7))
    return day_row("impressions", daily.filter(pl.col("rows") > 0), sums, asked, old=True)


def blocked_days(profile: pl.DataFrame) -> int:
    from expectations.judge import findings
    from expectations.log import volume

    found = findings(profile.to_pandas(), name="volume", expectations=volume(0.5, 2.0)[1:])
    return len({one["segment"] for one in found if one["level"] == "BLOCK"})


@pytest.mark.parametrize(("per_day", "allowed"), [(3.0, 2), (20.0, 0), (400.0, 0)])
def test_of_two_hundred_clean_days_at_most_one_in_a_hundred_is_blocked(per_day: float, allowed: int) -> None:
    assert blocked_days(days_as_one_profile(per_day, seed=7, days=200)) <= allowed


@pytest.mark.parametrize("fault", [0.0, 0.3, 3.0])
def test_every_fault_of_volume_is_caught_where_days_have_a_few_hundred_requests(fault: float) -> None:
    assert blocked_days(days_as_one_profile(400.0, seed=5, days=200, fault=fault)) >= 198
