"""Served against recomputed features through the whole flow: what a world's outages took away is what is missing."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from whole.report_contract import faults
from whole.small_days import days_of, fresh, loop_drop, loop_tree, run

from tasks.report import Written

SERVICES = {"user_profile": ("x_user_0", "x_user_1", "x_user_2"),
            "item_stats": ("x_item_ctr", "x_item_buy_rate", "x_item_clicks")}  # fmt: skip


@functools.cache
def loop_run() -> tuple[Path, Written]:
    drop = loop_drop()
    return drop, run(fresh("root"), loop_tree(drop), days_of(drop)[-1], only="measure_skew", page=True)


def skew_rows(written: Written) -> dict[str, dict[str, Any]]:
    return {row["feature"]: row for row in written.report["skew"]}


def test_every_feature_that_a_view_of_the_world_gives_is_compared_though_none_is_joined() -> None:
    rows = skew_rows(loop_run()[1])
    assert {name: row["view"] for name, row in rows.items()} == {
        name: view for view, names in SERVICES.items() for name in names
    }


@pytest.mark.parametrize("name", [name for names in SERVICES.values() for name in names])
def test_what_the_worlds_outages_served_as_null_is_missing_and_all_else_agrees_exactly(name: str) -> None:
    drop, written = loop_run()
    row = skew_rows(written)[name]
    served = pl.scan_parquet(drop / "day=*" / "impressions" / "*.parquet").select(name).collect()[name]
    assert row["compared"] == len(served)
    assert row["missing_share"] == served.fill_nan(None).null_count() / len(served) > 0.1
    assert row["mismatch_share"] == row["extra_share"] == row["stale_share"] == 0.0


def test_the_ages_of_a_daily_batch_lie_within_a_day() -> None:
    [daily] = [one for one in loop_run()[1].report["staleness"] if one["view"] == "item_stats"]
    assert 0 < daily["q50_hours"] < daily["q90_hours"] < daily["q99_hours"] <= 24
    assert daily["joined_share"] == 1.0


def test_the_page_has_both_tables() -> None:
    page = Path(loop_run()[1].html).read_text(encoding="utf-8")
    for said in ("Served against recomputed features", "How old joined values were", "x_item_buy_rate", "user_profile"):
        assert said in page


def test_a_report_with_skew_and_staleness_keeps_the_contract() -> None:
    report = loop_run()[1].report
    assert isinstance(report["skew"], list)
    assert isinstance(report["staleness"], list)
    assert faults(report) == []
