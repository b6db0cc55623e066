"""The delay benchmarks' worlds are what they say, and their claims can fail; test_benchmarks.py runs them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks import backtest_is_production as backtest
from benchmarks import delay_curves, shift_alarm
from benchmarks._delay_worlds import WORLDS, Delays, censored, known_ages, shown_times, true_arrivals, weekly
from benchmarks._leak_claims import leak_claims
from sameworld.maths.delay_shift import ShiftAlarm
from sameworld.sources.closed_loop import WorldParameters, heuristic

HOURS = WORLDS[0]
TINY = delay_curves.Size(days=60, impressions=6_000, seeds=20, draws=100_000, error=0.1)


def test_nothing_happens_from_saturday_to_monday_in_the_weekly_rhythm() -> None:
    rng = np.random.default_rng(1)
    shown = shown_times(rng, 20_000, 14)
    happened = shown + weekly(rng, shown, 1.0)
    assert (happened >= shown - 1e-9).all()
    assert (happened % 168.0 <= 120.0 + 1e-9).all()


def test_the_truth_of_hours_is_the_exponential_with_its_landing() -> None:
    """Independent: numerical convolution of the two densities over a fine grid."""
    step = 0.01
    grid = np.arange(0.0, 60.0, step) + step / 2
    wait = np.exp(-grid / 3.0) * (grid < 48.0)
    landing = grid**3 * np.exp(-grid * 4.0 / 0.5)
    share = np.cumsum(np.convolve(wait, landing)[: grid.size])
    found = np.searchsorted(true_arrivals(HOURS, 400_000), [2.0, 4.0, 8.0]) / true_arrivals(HOURS, 400_000).size
    np.testing.assert_allclose(found, np.interp([2.0, 4.0, 8.0], grid, share / share[-1]), atol=0.005)


def test_a_cutoff_hides_what_had_not_arrived_and_what_was_not_shown() -> None:
    age, arrival = censored(np.array([0.0, 10.0, 30.0]), np.array([5.0, 15.0, 1.0]), 20.0)
    assert age.tolist() == [20.0, 10.0]
    np.testing.assert_array_equal(arrival, [5.0, np.nan])


def test_an_outcome_after_its_window_is_never_known() -> None:
    rng = np.random.default_rng(2)
    late = Delays("late", lambda rng, shown, stretch: np.full(shown.size, 49.0), 1.0, 2.0)
    assert np.isnan(known_ages(rng, np.zeros(10), late)).all()


@pytest.mark.parametrize("change", [{"stretch": 1.3}, {"later_hours": 6.0}], ids=["slower", "later"])
def test_a_curve_of_other_delays_would_fail_both_claims(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, float]
) -> None:
    other = replace(WORLDS[1], **change)  # type: ignore[arg-type]
    monkeypatch.setattr(delay_curves, "true_arrivals", lambda _, draws: true_arrivals(other, draws))
    size = replace(TINY, error=0.02)
    claims = delay_curves._claims("days", delay_curves.one_world(WORLDS[1], size), size)
    assert [claim.holds for claim in claims] == [False, False]


@pytest.mark.parametrize(("always", "wanted"), [(True, [False, True, True, True, True]), (False, [True] + [False] * 4)])
def test_an_alarm_that_always_or_never_rings_fails_its_claims(
    monkeypatch: pytest.MonkeyPatch, *, always: bool, wanted: list[bool]
) -> None:
    told = ShiftAlarm(always, "", 0.5, 1, 1.0, 1, 1)
    monkeypatch.setattr(shift_alarm, "shift_alarm", lambda *_, **__: told)
    size = shift_alarm.Size(impressions=50, steady=1, days=14, shifting=1)
    claims = shift_alarm._claims("hours", shift_alarm.one_world(HOURS, size), size)
    assert [claim.holds for claim in claims] == wanted


def shop(folder: Path, days: int) -> backtest.Shop:
    values = {**backtest.WORLD, "days": days, "requests_per_day": 40, "purchase_lag_hours": 48.0}
    made = backtest.Shop(folder / "drop", WorldParameters.parse(values))
    for _ in range(days):
        made.serve(heuristic, "by hand")
    return made


def test_rows_land_in_the_drop_on_the_day_they_arrive(tmp_path: Path) -> None:
    made = shop(tmp_path, 5)
    rows = pl.scan_parquet(
        made.drop / "**" / "outcomes" / "*.parquet", hive_partitioning=True, try_parse_hive_dates=True
    ).collect()
    assert rows.filter(pl.col("arrived_at").dt.date() != pl.col("day")).is_empty()
    came = pl.concat([day.outcomes for day in made.days])
    assert len(rows) == came.filter(pl.col("arrived_at") < datetime(2026, 3, 7, tzinfo=UTC)).height


def test_production_knows_every_purchase_and_the_naive_view_only_those_that_had_arrived(tmp_path: Path) -> None:
    made, since = shop(tmp_path, 4), datetime(2026, 3, 2, tzinfo=UTC)
    before = since + timedelta(days=4)
    matured, known = made.served(since, before), made.served(since, before, known_by=before)
    assert len(matured) == len(known) == 4 * 40 * backtest.WORLD["slots"]
    assert (known["target"] <= matured["target"]).all()
    assert 0 < known["target"].sum() < matured["target"].sum() / 2


def a_leak(moved: float, *, late: int, reach: float = 0.02) -> dict[str, object]:
    inflation = {"value": moved, "low": moved - reach, "high": moved + reach}
    return {"honest": 0.8, "inflation": inflation, "late_outcomes": late, "late_retractions": 0}


@pytest.mark.parametrize(
    ("moved", "late", "holds"),
    [
        (-0.1, 9, [True, True, False, False]),
        (-0.102, 9, [False, True, False, False]),
        (-0.15, 9, [False, False, False, False]),
    ],
    ids=["right", "a little off", "outside its interval"],
)
def test_a_leak_meter_that_is_off_fails_its_claims(moved: float, late: int, holds: list[bool]) -> None:
    worlds = [{"leak": a_leak(moved, late=late), "by_event": {"value": 0.7}} for _ in range(20)]
    assert [claim.holds for claim in leak_claims("lag 0 days", worlds, at_once=True)] == holds


@pytest.mark.parametrize(("reach", "holds"), [(0.0, True), (1e-9, False)])
def test_where_nothing_is_late_only_exactly_0_will_do(reach: float, holds: bool) -> None:
    worlds = [{"leak": a_leak(0.0, late=0, reach=reach), "by_event": {"value": 0.8}} for _ in range(20)]
    assert [claim.holds for claim in leak_claims("lag 0 days", worlds, at_once=True)] == [True, True, holds, True]


def test_a_promise_off_by_a_hundredth_in_every_world_is_no_production() -> None:
    def world(off: float, number: int) -> dict[str, object]:
        def told(value: float) -> dict[str, object]:
            return {"normalised_entropy": {"value": value, "low": value - 0.03, "high": value + 0.03}, "positives": 10,
                    "predicted": 10.0}  # fmt: skip

        truth = 0.8 + number / 1000
        rest = {"leak": a_leak(-0.1, late=9), "by_event": {"value": 0.7}}
        return {"backtest": told(truth + off), "naive": told(truth + 0.2), "production": told(truth), **rest}

    for off, holds in ((0.0, True), (0.01, False)):
        claims = backtest._claims("2 days", [world(off + n % 2 / 1000, n) for n in range(20)], small=False)
        assert claims[0].holds is holds
