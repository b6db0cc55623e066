"""The log as of a cutoff: duplicates, conflicts, positions and orphans across days, checked against a slow oracle."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from ingest.tiny_drops import (
    Row,
    at,
    end_of,
    impression,
    log_of,
    outcome,
    request,
    resolved,
    spec_of,
    sums,
    sums_of_log,
    write_day,
)
from worlds import shops
from worlds.dirt import Expected, Sums, plant
from worlds.reckoning import reckon

from sameworld.store.artifacts import Store
from tasks import ingest, resolve


def as_record(expected: Sums) -> dict[str, Any]:
    return {"rows_in": expected.rows_in, "kept": expected.kept, "duplicates": expected.duplicates,
            "conflicts": expected.conflicts, "quarantined": dict(expected.quarantined)}  # fmt: skip


def as_records(tables: Any) -> dict[str, Any]:
    return {table.replace("/", "."): as_record(one) for table, one in tables.items()}


WORLDS: list[Callable[..., shops.Shop]] = [shops.news_feed, shops.marketplace, shops.search]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("world", WORLDS)
def test_every_planted_fault_is_counted_for_what_it_is(
    tmp_path: Path, world: Callable[..., shops.Shop], seed: int
) -> None:
    shop = world(tmp_path / "drop", seed=seed, days=7, requests_per_day=80)
    expected: Expected = plant(tmp_path / "drop", seed)
    log = resolved(tmp_path / "drop", len(shop.days))
    assert log.record["tables"] == as_records(expected.tables)


@pytest.mark.parametrize("world", WORLDS)
def test_a_clean_drop_loses_no_row(tmp_path: Path, world: Callable[..., shops.Shop]) -> None:
    shop = world(tmp_path / "drop", seed=3, days=4, requests_per_day=40)
    tables = resolved(tmp_path / "drop", 4).record["tables"]
    assert {table: one["kept"] for table, one in tables.items()} == {
        table.replace("/", "."): rows for table, rows in shop.rows.items()
    }


def a_muddle(drop: Path, seed: int) -> None:
    """Write three days in which nearly every key is contested."""
    rng = random.Random(seed)
    for day in (1, 2, 3):
        drawn: dict[str, list[Row]] = {"requests": [], "impressions": [], "outcomes": []}
        for _ in range(40):
            name, arrived = rng.choice("abcdef") + rng.choice("xy"), at(day, rng.choice([1, 2, 3, 5, 9]))
            key: Row = {"request_id": name, "item_id": rng.choice("pqrs"), "arrived_at": arrived}
            features: Row = {"propensity": rng.choice([None, 0.5]), "x_price": rng.choice([1.0, 1.0, 2.0, None])}
            drawn["impressions"].append(impression(position=rng.randint(0, 6), shown_at=at(1, 0)) | features | key)
            happened = at(1, rng.choice([1, 2, 50]))
            value = {"value": rng.choice([None, 1.0, 2.0]), "retracted": rng.choice([False, True])}
            drawn["outcomes"].append(outcome(happened_at=happened) | value | key)
            user = {"user_id": rng.choice("uv"), "shown_at": at(1, 0), "arrived_at": arrived}
            drawn["requests"].append(request(rng.choice("abcdeg") + rng.choice("xyz")) | user)
        for half in (slice(None, 13), slice(13, None)):
            write_day(drop, day, **{table: rows[half] for table, rows in drawn.items()})


@pytest.mark.parametrize("seed", range(6))
def test_a_muddle_resolves_as_row_by_row_reckoning_does_at_every_cutoff(tmp_path: Path, seed: int) -> None:
    a_muddle(tmp_path / "drop", seed)
    for day in (1, 2, 3):
        want = as_records(reckon(tmp_path / "drop", f"2026-03-{day:02d}"))
        assert resolved(tmp_path / "drop", day).record["tables"] == want


def test_a_muddle_resolves_alike_whatever_the_size_of_the_bites(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_muddle(tmp_path / "drop", 1)
    want = resolved(tmp_path / "drop", 3).scan("gone").collect()
    monkeypatch.setattr("sameworld.sources.standing.AT_ONCE", 7)
    store = Store(str(tmp_path / "another-root"))
    days = ingest.run(store=store, spec=spec_of(tmp_path / "drop"), cutoff=end_of(3))
    got = store.open(resolve.run(store=store, spec=spec_of(tmp_path / "drop"), cutoff=end_of(3), days=days))
    assert got.scan("gone").collect().equals(want)


def test_keys_whose_hashes_collide_are_still_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("sameworld.sources.day_table", "sameworld.sources.day_marks"):
        monkeypatch.setattr(f"{module}.key_hash", lambda columns: pl.lit(7, dtype=pl.UInt64))
    rows = [impression(name, number + 1) for number, name in enumerate("abc")]
    write_day(tmp_path / "drop", 1, impressions=[*rows, rows[0], impression("d", 2)])
    assert sums_of_log(tmp_path / "drop", "impressions", 1) == sums(5, duplicates=1, position_taken=2)


def test_fault_09_a_row_sent_again_days_later_is_one_row_the_earliest(tmp_path: Path) -> None:
    for day in (1, 2, 3):
        write_day(tmp_path / "drop", day, impressions=[impression(arrived_at=at(day, 11))])
    assert sums_of_log(tmp_path / "drop", "impressions", 3) == sums(3, duplicates=2)
    assert log_of(tmp_path / "drop", 3).table("impressions").collect()["arrived_at"].to_list() == [at(1, 11)]


def test_fault_09_a_correction_wins_from_the_cutoff_that_knows_it(tmp_path: Path) -> None:
    write_day(tmp_path / "drop", 1, impressions=[impression(x_price=1.0)])
    write_day(tmp_path / "drop", 2, impressions=[impression(x_price=2.0, arrived_at=at(2, 11))])
    prices = [log_of(tmp_path / "drop", day).table("impressions").collect()["x_price"].to_list() for day in (1, 2)]
    assert prices == [[1.0], [2.0]]
    assert sums_of_log(tmp_path / "drop", "impressions", 2) == sums(2, conflicts=1)


def test_a_later_correction_frees_a_position_that_two_items_held(tmp_path: Path) -> None:
    write_day(tmp_path / "drop", 1, impressions=[impression("a", 1), impression("b", 1)])
    write_day(tmp_path / "drop", 2, impressions=[impression("b", 2, arrived_at=at(2, 11))])
    assert sums_of_log(tmp_path / "drop", "impressions", 1) == sums(2, position_taken=2)
    assert sums_of_log(tmp_path / "drop", "impressions", 2) == sums(3, conflicts=1)


def test_a_later_item_at_a_taken_position_leaves_neither(tmp_path: Path) -> None:
    write_day(tmp_path / "drop", 1, impressions=[impression("a", 1)])
    write_day(tmp_path / "drop", 2, impressions=[impression("b", 1, arrived_at=at(2, 11))])
    assert sums_of_log(tmp_path / "drop", "impressions", 2) == sums(2, position_taken=2)


def test_outcomes_that_lost_a_conflict_stay_readable_because_older_labels_count_them(tmp_path: Path) -> None:
    write_day(tmp_path / "drop", 1, impressions=[impression()], outcomes=[outcome(value=1.0)])
    write_day(tmp_path / "drop", 2, outcomes=[outcome(value=5.0, arrived_at=at(2, 1))])
    assert sums_of_log(tmp_path / "drop", "outcomes", 2) == sums(2, conflicts=1)
    assert log_of(tmp_path / "drop", 2).table("outcomes").collect()["value"].to_list() == [1.0, 5.0]


def test_an_outcome_without_a_value_is_worth_one_when_the_log_is_read(tmp_path: Path) -> None:
    write_day(tmp_path / "drop", 1, impressions=[impression()], outcomes=[outcome(value=None)])
    assert log_of(tmp_path / "drop", 1).table("outcomes").collect()["value"].to_list() == [1.0]


@pytest.mark.parametrize("order", [(1, 2, 2), (2, 1, 1), (2, 1, 2), (1, 2, 1)])
def test_fault_15_retractions_before_after_or_twice_all_stand_beside_their_outcome(
    tmp_path: Path, order: tuple[int, int, int]
) -> None:
    first, retraction, again = order
    rows: dict[int, list[Row]] = {1: [], 2: []}
    rows[first].append(outcome(arrived_at=at(first, 12)))
    rows[retraction].append(outcome(arrived_at=at(retraction, 13), retracted=True))
    rows[again].append(outcome(arrived_at=at(again, 14), retracted=True))
    write_day(tmp_path / "drop", 1, impressions=[impression()])
    for day in (1, 2):
        write_day(tmp_path / "drop", day, **({"outcomes": rows[day]} if rows[day] else {}))
    assert sums_of_log(tmp_path / "drop", "outcomes", 2) == sums(3, duplicates=1)
    assert sorted(log_of(tmp_path / "drop", 2).table("outcomes").collect()["retracted"]) == [False, True]


def test_fault_11_an_outcome_waits_for_its_impression_then_is_an_orphan_until_it_comes(tmp_path: Path) -> None:
    lag = timedelta(hours=36)  # impressions take 36 hours to land, so an outcome waits as long
    landed = [impression("z", shown_at=at(2, 11) - lag, arrived_at=at(2, 11), request_id="r0")]
    write_day(tmp_path / "drop", 1, outcomes=[outcome(happened_at=at(1, 12), arrived_at=at(1, 13))])
    write_day(tmp_path / "drop", 2, impressions=landed)
    write_day(tmp_path / "drop", 3)
    write_day(tmp_path / "drop", 4, impressions=[impression(shown_at=at(4, 11) - lag, arrived_at=at(4, 11))])
    got = [sums_of_log(tmp_path / "drop", "outcomes", day) for day in (1, 2, 3, 4)]
    assert got == [sums(1), sums(1, orphan=1), sums(1, orphan=1), sums(1)]


def test_an_outcome_is_overdue_exactly_when_the_lag_has_passed(tmp_path: Path) -> None:
    edge = at(2, 0) - timedelta(hours=1)  # the only impression took an hour to land
    rows = [outcome("q", happened_at=edge), outcome("q", happened_at=edge + timedelta(microseconds=1))]
    write_day(
        tmp_path / "drop",
        1,
        impressions=[impression()],
        outcomes=[row | {"arrived_at": edge + timedelta(minutes=1)} for row in rows],
    )
    assert sums_of_log(tmp_path / "drop", "outcomes", 1) == sums(2, orphan=1)


def test_an_orphan_impressions_outcomes_are_orphans_too(tmp_path: Path) -> None:
    rows = [impression(request_id="r1"), impression(request_id="unheard-of")]
    outcomes = [outcome(request_id="r1"), outcome(request_id="unheard-of")]
    write_day(tmp_path / "drop", 1, requests=[request("r1")], impressions=rows, outcomes=outcomes)
    tables = resolved(tmp_path / "drop", 1).record["tables"]
    assert (tables["impressions"], tables["outcomes"]) == (sums(2, orphan=1), sums(2, orphan=1))


def test_without_a_requests_table_no_impression_is_an_orphan(tmp_path: Path) -> None:
    write_day(tmp_path / "drop", 1, impressions=[impression()])
    assert sums_of_log(tmp_path / "drop", "impressions", 1) == sums(1)


def test_without_an_impression_in_the_log_outcomes_wait(tmp_path: Path) -> None:
    write_day(tmp_path / "drop", 1, outcomes=[outcome()])
    write_day(tmp_path / "drop", 2)
    assert sums_of_log(tmp_path / "drop", "outcomes", 2) == sums(1)


def test_a_views_value_sent_again_is_one_row_and_a_corrected_one_wins(tmp_path: Path) -> None:
    rows = [{"item_id": name, "available_at": at(1, 6), "ctr": "low"} for name in "ab"]
    write_day(tmp_path / "drop", 1, features__stats=rows)
    write_day(tmp_path / "drop", 2, features__stats=[rows[0], rows[1] | {"ctr": "high"}])
    assert sums_of_log(tmp_path / "drop", "features.stats", 2) == sums(4, duplicates=1, conflicts=1)
    assert sorted(log_of(tmp_path / "drop", 2).table("features.stats").collect()["ctr"]) == ["high", "low"]


def test_gone_names_each_row_by_its_place_in_its_days_file(tmp_path: Path) -> None:
    write_day(
        tmp_path / "drop", 1, impressions=[impression("bad", 0), impression("a"), impression("b", 2, x_price=1.0)]
    )
    write_day(tmp_path / "drop", 2, impressions=[impression("b", 2, x_price=2.0, arrived_at=at(2, 11))])
    gone = resolved(tmp_path / "drop", 2).scan("gone").collect()
    assert gone.rows() == [(at(1).date(), "impressions", 1, "conflict")]
