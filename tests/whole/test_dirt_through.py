"""Dirt of every kind goes through the whole flow: each row is counted once, and the day still gets its answer."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from whole.report_contract import faults, row_sum_faults
from whole.small_days import fresh, run, tree_of
from worlds.dirt import Expected, plant
from worlds.drop_files import Shop
from worlds.hotels import HotelSearch, write_search
from worlds.market import Marketplace, write_marketplace
from worlds.news import NewsFeed, write_news_feed

from sameworld.store.artifacts import Store
from sameworld.store.log import Log
from sameworld.store.parts import labels_of
from tasks.report import Written

SHOPS = ("news_feed", "marketplace", "search")


def small(name: str) -> Shop:
    out = fresh(name) / "drop"
    if name == "marketplace":
        return write_marketplace(out, Marketplace(seed=2, days=8, requests_per_day=70, users=60, items=300))
    if name == "search":
        return write_search(out, HotelSearch(seed=2, days=8, requests_per_day=70))
    return write_news_feed(out, NewsFeed(seed=2, days=8, requests_per_day=70))


@functools.cache
def dirty_run(name: str) -> tuple[Path, Expected, Written]:
    made, root = small(name), fresh("root")
    expected = plant(made.drop, seed=3)
    return root, expected, run(root, tree_of(made), made.days[-1])


@pytest.mark.parametrize("name", SHOPS)
def test_fault_07_08_09_every_planted_row_is_counted_in_the_report(name: str) -> None:
    _, expected, written = dirty_run(name)
    found = {
        table.replace(".", "/"): (one["rows_in"], one["duplicates"], one["conflicts"], one["quarantined"])
        for table, one in written.report["log"].items()
    }
    wanted = {table: (s.rows_in, s.duplicates, s.conflicts, s.quarantined) for table, s in expected.tables.items()}
    assert found == wanted
    assert row_sum_faults(written.report) == []


@pytest.mark.parametrize("name", SHOPS)
def test_the_flow_finishes_on_dirt_and_its_report_keeps_the_contract(name: str) -> None:
    _, _, written = dirty_run(name)
    assert not written.blocked, written.report["decision"]
    assert faults(written.report) == []


@pytest.mark.parametrize("name", SHOPS)
def test_no_row_that_was_quarantined_reaches_the_labels(name: str) -> None:
    root, expected, written = dirty_run(name)
    steps = {one["name"]: one["uri"] for one in written.report["steps"]}
    labels = labels_of(Store(str(root)).open(steps["label"]), Store(str(root))).collect()
    shown = set(labels.select("request_id", "item_id").iter_rows())
    planted = [one for one in expected.plantings if one.table == "impressions"]
    gone = [one for one in planted if one.verdict not in {"kept", "duplicate", "conflict"}]
    bad = {one.key for one in gone if one.fault != "verbatim_in_later_day"}  # whose first copy stands
    assert len(bad) > 10
    assert not bad & shown
    assert {one.key for one in planted if one.verdict == "kept"} <= shown


@pytest.mark.parametrize("name", SHOPS)
def test_fault_09_the_newest_of_contradicting_rows_is_the_one_that_later_steps_read(name: str) -> None:
    root, expected, written = dirty_run(name)
    store, steps = Store(str(root)), {one["name"]: one["uri"] for one in written.report["steps"]}
    rows = Log.open(store.open(steps["resolve"]), store).table("impressions").collect()
    kept = {row["request_id"] + "/" + row["item_id"]: row for row in rows.iter_rows(named=True)}
    winners = [one for one in expected.plantings if one.table == "impressions" and one.winner]
    assert winners
    for one in winners:
        column, value = one.winner  # type: ignore[misc]
        assert kept["/".join(one.key)][column] == value


def test_the_report_has_a_line_for_a_column_that_nobody_reads() -> None:
    findings = [one for gate in dirty_run("marketplace")[2].report["gates"] for one in gate["findings"]]
    assert any("page_build" in one["sentence"] and one["level"] == "WARN" for one in findings)
