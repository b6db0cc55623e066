"""Delay as measured on a log against the world's own law."""

from __future__ import annotations

import functools
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from whole.small_days import days_of, fresh

from sameworld.maths.delay import DelayCurve
from sameworld.sources.closed_loop_drop import write_drop
from sameworld.sources.closed_loop_parameters import WorldParameters
from sameworld.spec import Spec
from sameworld.store.artifacts import Store
from sameworld.store.times import day_end, time_text
from tasks import ingest, measure_delay, resolve

WINDOW, FAST, SLOW, LANDING_HOURS = 3.0, 0.5, 2.0, 4.0
AGES = (0.25, 0.5, 1.0, 2.0, 3.0)


def world() -> WorldParameters:
    return WorldParameters(
        seed=4, days=9, requests_per_day=1300, users=800, items=80, candidates=8, slots=4, candidates_share=0.0,
        propensity_share=0.0, window_days=WINDOW, fast_delay_days=FAST, slow_delay_days=SLOW, slow_share=0.5,
        purchase_intercept=1.0, purchase_lag_hours=LANDING_HOURS, click_intercept=-0.3,
    )  # fmt: skip


@functools.cache
def measured() -> dict[str, Any]:
    drop = fresh("delay") / "drop"
    write_drop(drop, world())
    store, cutoff = Store(str(fresh("root"))), time_text(day_end(days_of(drop)[-1]))
    label = {"gains": {"purchase": 1.0}, "target": "purchase", "window_days": WINDOW, "segments": ["x_segment"]}
    spec = Spec.parse({"source": {"kind": "drop", "uri": str(drop)}, "label": label})
    days = ingest.run(store=store, spec=spec, cutoff=cutoff)
    log = resolve.run(store=store, spec=spec, days=days, cutoff=cutoff)
    return store.open(measure_delay.run(store=store, spec=spec, log=log, cutoff=cutoff)).record


def true_known(age_days: float, mean_days: float) -> float:
    """P(delay + landing <= age | delay < window), by two million draws of the world's law."""
    rng = np.random.default_rng(1)
    delay = rng.exponential(mean_days, 2_000_000)
    known = delay + rng.gamma(4, LANDING_HOURS / 4, delay.size) / 24
    return float((known[delay < WINDOW] <= age_days).mean())


def test_there_are_enough_outcomes_to_be_strict() -> None:
    assert measured()["curves"]["purchase"]["all"]["events"] >= 5000


@pytest.mark.parametrize(("segment", "mean_days"), [("fast", FAST), ("slow", SLOW)])
def test_the_known_share_by_age_is_the_truth_in_each_segment(segment: str, mean_days: float) -> None:
    curve = DelayCurve.from_record(measured()["curves"]["purchase"][segment])
    found = curve.at(24 * np.array(AGES))
    truth = np.array([true_known(age, mean_days) for age in AGES])
    assert np.abs(found - truth).max() < 0.03, (found, truth)


def test_the_interval_of_the_known_share_holds_the_truth_at_most_ages() -> None:
    curve = DelayCurve.from_record(measured()["curves"]["purchase"]["slow"])
    found = [curve.estimate_at(24 * age) for age in AGES]
    truth = [true_known(age, SLOW) for age in AGES]
    inside = [one.low - 0.005 <= it <= one.high + 0.005 for one, it in zip(found, truth, strict=True)]
    assert sum(inside) >= 4, found


def test_the_landing_lag_is_the_truth_at_its_99_percent() -> None:
    truth = float(np.quantile(np.random.default_rng(2).gamma(4, LANDING_HOURS / 4, 2_000_000), 0.99))
    assert measured()["landing_lag_hours"]["outcomes"]["q99"] == pytest.approx(truth, rel=0.1)
    assert measured()["lag_hours"] == pytest.approx(6 * np.ceil(truth / 6))


def test_the_curves_horizon_is_the_window_and_the_lag() -> None:
    record = measured()
    horizon = timedelta(days=WINDOW) / timedelta(hours=1) + record["lag_hours"]
    assert {curve["horizon_hours"] for curve in record["curves"]["purchase"].values()} == {horizon}
    assert record["shift"]["alarm"] is False
