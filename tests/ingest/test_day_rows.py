"""What becomes of a day's rows: each reason for quarantine, with its edges, and rows of one key within the day."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from ingest.tiny_drops import (
    Row,
    at,
    end_of,
    impression,
    outcome,
    request,
    spec_of,
    store_beside,
    sums,
    sums_of_day,
    table_of,
    take_in,
    write_day,
)

from tasks import ingest

DAY_START, DAY_END = at(1, 0), at(2, 0)
BEFORE_2000 = datetime(1970, 1, 21, 12, tzinfo=UTC)
REASONS: list[tuple[str, str, Row]] = [
    ("impressions", "null_key", impression(request_id=None)),
    ("impressions", "null_key", impression(item_id=None)),
    ("impressions", "null_key", impression(shown_at=None)),
    ("outcomes", "null_key", outcome(kind=None)),
    ("requests", "null_key", request(None)),  # type: ignore[arg-type]
    ("requests", "arrived_before_shown", request(shown_at=at(1, 11, microseconds=1))),
    ("impressions", "arrived_before_shown", impression(shown_at=at(1, 11, microseconds=1))),
    ("impressions", "arrived_before_shown", impression(shown_at=datetime(2262, 4, 11, tzinfo=UTC))),
    ("outcomes", "arrived_before_happened", outcome(happened_at=at(1, 12, microseconds=60_000_001))),
    ("outcomes", "arrived_outside_day", outcome(happened_at=at(1, -9), arrived_at=at(1, 0, microseconds=-1))),
    ("impressions", "arrived_outside_day", impression(arrived_at=DAY_END)),
    ("impressions", "out_of_range_time", impression(shown_at=BEFORE_2000)),
    ("outcomes", "out_of_range_time", outcome(happened_at=datetime(1999, 12, 31, 23, 59, 59, 999_999, UTC))),
    ("impressions", "bad_position", impression(position=0)),
    ("impressions", "bad_position", impression(position=-3)),
    ("outcomes", "not_finite", outcome(value=math.nan)),
    ("outcomes", "not_finite", outcome(value=-math.inf)),
    ("impressions", "not_finite", impression(x_price=math.inf)),
    ("requests", "not_finite", request(candidates=[{"item_id": "a", "score": math.nan}])),
    (
        "requests",
        "not_finite",
        request(candidates=[{"item_id": "a", "score": 1.0}, {"item_id": "b", "score": math.inf}]),
    ),
    *[("impressions", "bad_propensity", impression(propensity=p)) for p in (0.0, -0.5, 1.0000001, math.inf, -math.inf)],
    ("impressions", "bad_text", impression(item_id="a\0b")),
    ("impressions", "bad_text", impression(user_id="u" * 1025)),
    ("outcomes", "bad_text", outcome(kind="k" * 2**20)),
]
SOUND: list[tuple[str, Row]] = [
    ("impressions", impression(user_id=None, propensity=None, x_price=None)),
    ("impressions", impression(shown_at=at(1, 11))),
    ("impressions", impression(arrived_at=at(2, 0, microseconds=-1))),
    ("impressions", impression(shown_at=DAY_START, arrived_at=DAY_START)),
    ("impressions", impression(propensity=1.0)),
    ("impressions", impression(propensity=math.nan)),
    ("impressions", impression(item_id="ü" * 512)),
    ("impressions", impression(x_price=math.nan)),
    ("outcomes", outcome(happened_at=at(1, 12, microseconds=60_000_000))),
    ("outcomes", outcome(value=None, retracted=None)),
    ("requests", request(candidates=[])),
    ("requests", request(candidates=[{"item_id": "a", "score": None}])),
]


@pytest.mark.parametrize(
    ("table", "reason", "row"), REASONS, ids=[f"{t}-{r}-{n}" for n, (t, r, _) in enumerate(REASONS)]
)
def test_fault_07_08_14_16_18_a_bad_row_is_quarantined_with_its_reason(
    tmp_path: Path, table: str, reason: str, row: Row
) -> None:
    write_day(tmp_path / "drop", 1, **{table: [row]})
    assert sums_of_day(tmp_path / "drop", table) == sums(1, **{reason: 1})


@pytest.mark.parametrize(("table", "row"), SOUND)
def test_fault_16_17_a_row_on_the_edge_of_a_rule_is_kept(tmp_path: Path, table: str, row: Row) -> None:
    write_day(tmp_path / "drop", 1, **{table: [row]})
    assert sums_of_day(tmp_path / "drop", table) == sums(1)


def test_a_views_row_that_could_be_read_only_after_its_folders_day_is_from_the_future(tmp_path: Path) -> None:
    rows = [{"item_id": "a", "available_at": at(2, 0, microseconds=-1)}, {"item_id": "b", "available_at": DAY_END}]
    write_day(tmp_path / "drop", 1, features__stats=rows)
    assert sums_of_day(tmp_path / "drop", "features.stats") == sums(2, future_timestamp=1)


def test_quarantine_tells_the_file_the_row_and_what_it_held(tmp_path: Path) -> None:
    write_day(tmp_path / "drop", 1, impressions=[impression("a"), impression("b", 0, item_id="b\0")])
    write_day(tmp_path / "drop", 1, impressions=[impression("c", -7)])
    [day] = take_in(tmp_path / "drop", 1)
    rows = day.scan("quarantine").collect().sort("row").to_dicts()
    assert [(row["table"], row["row"], row["reason"]) for row in rows] == [
        ("impressions", 0, "bad_position"),
        ("impressions", 1, "bad_position"),
    ]
    assert json.loads(rows[1]["content"])["item_id"] == "b\0"
    assert len({row["file"] for row in rows}) == 2


def test_a_day_without_a_bad_row_has_an_empty_quarantine(tmp_path: Path) -> None:
    write_day(tmp_path / "drop", 1, impressions=[impression()])
    assert take_in(tmp_path / "drop", 1)[0].scan("quarantine").collect().is_empty()


def test_fault_03_a_table_of_no_rows_is_taken_in_with_its_columns(tmp_path: Path) -> None:
    write_day(tmp_path / "drop", 1, impressions=table_of([impression()]).slice(0, 0))
    [day] = take_in(tmp_path / "drop", 1)
    assert day.record["tables"]["impressions"] == sums(0)
    assert day.scan("impressions").collect_schema().names()[:2] == ["request_id", "item_id"]


def test_a_day_of_success_alone_is_a_day(tmp_path: Path) -> None:
    write_day(tmp_path / "drop", 1)
    [day] = take_in(tmp_path / "drop", 1)
    assert (day.record["tables"], day.files) == ({}, ("quarantine.parquet", "record.json"))


def test_fault_09_exact_duplicates_and_resent_rows_are_one_row_the_earliest(tmp_path: Path) -> None:
    rows = [impression(arrived_at=at(1, 12)), impression(), impression(), impression(arrived_at=at(1, 11.5))]
    write_day(tmp_path / "drop", 1, impressions=rows)
    [day] = take_in(tmp_path / "drop", 1)
    assert day.record["tables"]["impressions"] == sums(4, duplicates=3)
    assert day.scan("impressions").collect()["arrived_at"].to_list() == [at(1, 11)]


def test_fault_09_of_two_values_the_newest_wins(tmp_path: Path) -> None:
    rows = [impression(x_price=1.0), impression(x_price=2.0, arrived_at=at(1, 12))]
    write_day(tmp_path / "drop", 1, impressions=rows)
    assert sums_of_day(tmp_path / "drop", "impressions") == sums(2, conflicts=1)


def test_fault_09_a_value_sent_again_after_another_does_not_win(tmp_path: Path) -> None:
    prices = [(1.0, 11), (2.0, 12), (1.0, 13)]
    rows = [impression(x_price=price, arrived_at=at(1, hour)) for price, hour in prices]
    write_day(tmp_path / "drop", 1, impressions=rows)
    assert sums_of_day(tmp_path / "drop", "impressions") == sums(3, duplicates=1, conflicts=1)


def test_fault_09_two_newest_values_of_one_instant_are_both_quarantined(tmp_path: Path) -> None:
    rows = [request(user_id=name) for name in ("u1", "u2")]
    write_day(tmp_path / "drop", 1, requests=[*rows, request(user_id="u0", arrived_at=at(1, 10.5))])
    assert sums_of_day(tmp_path / "drop", "requests") == sums(3, conflicts=1, conflict_same_arrival=2)


NULLS: list[tuple[str, Any, Any]] = [("x_price", None, math.nan), ("propensity", None, math.nan)]


@pytest.mark.parametrize(("column", "one", "other"), NULLS)
def test_null_and_nan_are_one_value(tmp_path: Path, column: str, one: Any, other: Any) -> None:
    write_day(tmp_path / "drop", 1, impressions=[impression(**{column: one}), impression(**{column: other})])
    assert sums_of_day(tmp_path / "drop", "impressions") == sums(2, duplicates=1)


def test_rows_of_one_key_in_files_of_other_columns_and_kinds_are_compared_by_value(tmp_path: Path) -> None:
    write_day(tmp_path / "drop", 1, impressions=[impression(x_new=None)])
    large = table_of([impression()], {"item_id": pa.large_string(), "x_price": pa.float64()})
    write_day(tmp_path / "drop", 1, impressions=large)
    assert sums_of_day(tmp_path / "drop", "impressions") == sums(2, duplicates=1)


def test_a_bad_row_takes_no_part_in_what_the_others_are(tmp_path: Path) -> None:
    rows = [impression(), impression(propensity=2.0), impression("b", 1, propensity=2.0)]
    write_day(tmp_path / "drop", 1, impressions=rows)
    assert sums_of_day(tmp_path / "drop", "impressions") == sums(3, bad_propensity=2)


def test_two_items_at_one_position_are_both_quarantined(tmp_path: Path) -> None:
    rows = [impression("a", 1), impression("b", 1), impression("c", 2), impression("d", 1, request_id="r2")]
    write_day(tmp_path / "drop", 1, impressions=rows)
    assert sums_of_day(tmp_path / "drop", "impressions") == sums(4, position_taken=2)


def test_a_row_that_lost_a_conflict_takes_no_position(tmp_path: Path) -> None:
    rows = [impression("a", 1), impression("a", 2, arrived_at=at(1, 12)), impression("b", 1)]
    write_day(tmp_path / "drop", 1, impressions=rows)
    assert sums_of_day(tmp_path / "drop", "impressions") == sums(3, conflicts=1)


def test_rows_keep_the_drops_order(tmp_path: Path) -> None:
    names = [str(number * 7919 % 997) for number in range(997)]
    rows = [impression(name, number + 1, propensity=2.0 if number % 3 else 0.5) for number, name in enumerate(names)]
    write_day(tmp_path / "drop", 1, impressions=rows)
    assert take_in(tmp_path / "drop", 1)[0].scan("impressions").collect()["item_id"].to_list() == names[::3]


def test_an_outcomes_retraction_is_a_row_beside_it(tmp_path: Path) -> None:
    rows = [outcome(retracted=None), outcome(retracted=True), outcome(retracted=False)]
    write_day(tmp_path / "drop", 1, outcomes=rows)
    assert sums_of_day(tmp_path / "drop", "outcomes") == sums(3, duplicates=1)


def test_the_allowed_skew_is_the_specs(tmp_path: Path) -> None:

    write_day(tmp_path / "drop", 1, outcomes=[outcome(happened_at=at(1, 12.5))])
    store, spec = store_beside(tmp_path / "drop"), spec_of(tmp_path / "drop", max_skew_seconds=1800)
    [uri] = ingest.run(store=store, spec=spec, cutoff=end_of(1))
    assert store.open(uri).record["tables"]["outcomes"] == sums(1)
