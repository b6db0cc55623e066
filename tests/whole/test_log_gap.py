"""A log in which nothing was shown for longer than labels take to close: its other days are what they were."""

from __future__ import annotations

import shutil

import polars as pl
from whole.small_days import copied, days_of, fresh, loop_drop, loop_tree, made_by, run

from sameworld.store.artifacts import Store
from sameworld.store.parts import labels_of


def test_days_on_which_nothing_arrived_leave_no_part_and_the_days_before_and_after_keep_theirs() -> None:
    drop = copied(loop_drop(seed=4, days=12, requests_per_day=50))
    days = days_of(drop)
    for day in days[5:10]:
        for table in ("impressions", "requests", "candidates", "outcomes", "features"):
            shutil.rmtree(drop / f"day={day}" / table, ignore_errors=True)
    root, tree = fresh("gap"), loop_tree(drop, target="click", window_days=1)
    written = run(root, tree, days[-1], only="measure_skew")
    store, labels = Store(str(root)), made_by(root, written, "label")
    found = (
        labels_of(labels, store).select(pl.col("shown_at").dt.date()).collect().to_series().unique().sort().to_list()
    )
    assert [day for day in found if days[6] <= day < days[9]] == []
    assert {days[1], days[3], days[-1]} <= set(found)
    assert [one["view"] for one in written.report["staleness"]] == ["item_stats", "user_profile"]
