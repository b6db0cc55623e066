"""A robot that asks for a third of everything and never clicks: what one user decides is told with a wide interval."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from whole.report_contract import faults
from whole.small_days import copied, days_of, fresh, loop_drop, loop_tree, run

SHARE = 0.3
ROBOT = pl.col("request_id").hash(seed=3) % 1000 < 1000 * SHARE


def drop(*, one_user: bool) -> Path:
    """A closed loop in which nothing comes of three requests in ten, all by one user or by as many as before."""
    out = copied(loop_drop(seed=3, days=6, requests_per_day=100))
    for file in sorted(out.glob("day=*/outcomes/*.parquet")):
        pl.read_parquet(file).filter(~ROBOT).write_parquet(file)
    if one_user:
        user = pl.when(ROBOT).then(pl.lit("robot")).otherwise("user_id")
        for file in [*out.glob("day=*/requests/*.parquet"), *out.glob("day=*/impressions/*.parquet")]:
            pl.read_parquet(file).with_columns(user_id=user).write_parquet(file)
    return out


@functools.cache
def report(*, one_user: bool) -> dict[str, Any]:
    made = drop(one_user=one_user)
    tree = {**loop_tree(made, target="click", window_days=1), "backtest": {"days": 1}}
    return run(fresh("root"), tree, days_of(made)[-1]).report


def width(told: dict[str, Any], name: str) -> float:
    return float(told["metrics"][name]["high"] - told["metrics"][name]["low"])


def test_fault_59_a_user_with_a_third_of_the_rows_widens_the_intervals_and_moves_no_value() -> None:
    heavy, spread = report(one_user=True), report(one_user=False)
    for name, wider in (("calibration_ratio", 1.5), ("normalised_entropy", 1.0)):
        assert np.isclose(heavy["metrics"][name]["value"], spread["metrics"][name]["value"])
        assert width(heavy, name) > wider * width(spread, name), name


def test_fault_59_no_interval_is_infinite_or_missing_and_nothing_ships_for_one_users_sake() -> None:
    heavy = report(one_user=True)
    assert faults(heavy) == []
    assert [name for name, one in heavy["metrics"].items() if "cannot" in one] == []
    assert heavy["decision"]["outcome"] == "HOLD"
