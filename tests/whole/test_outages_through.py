"""Outages through the whole flow: what was replayed is told, and a model that never learned to miss any rejects."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import polars as pl
from whole.report_contract import faults
from whole.small_days import Tree, copied, days_of, fresh, loop_tree, made_by, run

from sameworld.sources.closed_loop_drop import write_drop
from sameworld.sources.closed_loop_parameters import WorldParameters
from tasks.report import Written

DAYS = 11
VIEWS = {"item_stats": ["item_ctr", "item_buy_rate", "item_clicks"], "user_profile": ["user_0", "user_1", "user_2"]}
ITEMS = ["x_item_buy_rate", "x_item_clicks", "x_item_ctr"]


@functools.cache
def world() -> Path:
    """A shuffled world in which item statistics tell much and are often out; what was clicked lands at once."""
    out = fresh("outages") / "drop"
    sizes: Tree = {"requests_per_day": 250, "users": 200, "items": 60, "candidates": 6, "slots": 6}
    law: Tree = {"examination_exponent": 0.0, "epsilon": 1.0, "propensity_share": 0.0, "candidates_share": 0.0}
    outages: Tree = {"outage_shared": 0.0, "outage_user": 0.05, "outage_item": 0.3, "click_lag_hours": 0.2}
    write_drop(out, WorldParameters(seed=3, days=DAYS, window_days=1.0, churn=0.05, **sizes, **law, **outages))
    return out


@functools.cache
def served_since(day: int) -> Path:
    """The same drop, but impressions that arrived before a day lack what was served."""
    out = copied(world())
    for early in days_of(out)[:day]:
        for path in (out / f"day={early}" / "impressions").glob("*.parquet"):
            rows = pl.read_parquet(path)
            rows.select(name for name in rows.columns if name != "null_reason" and name[:2] != "x_").write_parquet(path)
    return out


def tree(drop: Path) -> Tree:
    spec = loop_tree(drop, target="click", gains={"click": 1.0}, window_days=0.5, segments=[])
    train = {"max_rounds": 60, "learning_rate": 0.1, "position": "none", "item_history": False}
    exclude = ["x_content", "x_segment", "x_surface", "x_hour"]
    return {**spec, "train": train, "features": {"views": VIEWS, "exclude": exclude}, "backtest": {"days": 2}}


@functools.cache
def ran(served: int) -> tuple[Path, Written]:
    drop, root = served_since(served), fresh("root")
    return root, run(root, tree(drop), days_of(drop)[-1])


def drill(report: dict[str, Any], features: list[str]) -> dict[str, Any]:
    return next(one for one in report["drills"] if one["outage"] == features)


def test_a_model_that_never_learned_to_miss_item_statistics_rejects() -> None:
    root, written = ran(8)
    assert made_by(root, written, "backtest.train").record["replay"].endswith("there are no nulls to copy")
    found = drill(written.report, ITEMS)
    assert found["hit"]["calibration_ratio"]["high"] < 0.8
    assert written.report["decision"]["outcome"] == "REJECT"
    reasons = [one for one in written.report["decision"]["reasons"] if "x_item_ctr" in one]
    assert reasons
    assert all(one.endswith("broken") for one in reasons)


def test_one_that_replayed_its_rows_under_the_nulls_of_served_requests_does_not() -> None:
    root, written = ran(6)
    backtest = made_by(root, written, "backtest.train").record
    assert 0.5 < backtest["replayed_share"] < 1.0
    found = drill(written.report, ITEMS)
    assert found["hit"]["calibration_ratio"]["high"] > 0.9
    assert not [one for one in written.report["decision"]["reasons"] if one.startswith("without")]


def test_the_report_has_its_drills_and_says_what_was_replayed() -> None:
    report = ran(6)[1].report
    assert faults(report) == []
    assert report["training_set"]["replayed_share"] == 1.0 - report["training_set"]["served_share"]
    assert "each counts half under the nulls of one of" in report["training_set"]["replay"]
    found = drill(report, ITEMS)
    assert 0.2 < found["request_share"] < 0.4
    assert found["reasons"].get("expired", 0.0) > 0.99


def test_rows_without_what_was_served_are_counted_by_their_day_of_arrival() -> None:
    days = [world() / f"day={day}" / "impressions" / "*.parquet" for day in days_of(world())]
    rows = [pl.scan_parquet(day).select(pl.len()).collect().item() for day in days]
    assert ran(6)[1].report["training_set"]["served_share"] == sum(rows[6:]) / sum(rows)


def test_where_all_was_served_nothing_is_copied() -> None:
    drop, root = served_since(0), fresh("root")
    written = run(root, tree(drop), days_of(drop)[5], only="train")
    record = made_by(root, written, "train").record
    assert (record["replayed_share"], record["replay"]) == (0.0, "every row has the features that were served")
    assert written.report["training_set"]["served_share"] == 1.0
