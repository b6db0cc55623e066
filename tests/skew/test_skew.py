"""What was served beside what can be recomputed: counted as by hand, dated, and untouched by what comes later."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from ingest.tiny_drops import Row, at, impression, table_of, write_day
from skew.planted_logs import DAYS, GIVEN, a_log, ages_by_hand, counted_by_hand, measured

from sameworld.maths.missingness import Skew
from sameworld.store.artifacts import Artifact


def rows_of(found: Artifact) -> dict[tuple[str, str], dict[str, Any]]:
    return {(one.pop("feature"), one.pop("view")): one for one in map(dict, found.record["skew"])}


# --- random logs, counted by hand


@pytest.mark.parametrize("seed", range(4))
def test_planted_faults_are_counted_as_a_look_at_every_row_counts_them(tmp_path: Path, seed: int) -> None:
    log = a_log(seed)
    by_hand = counted_by_hand(log)
    found = rows_of(measured(log.write(tmp_path / "drop"), DAYS))
    assert found == {name: skew.shares() for name, skew in by_hand.items()}
    assert min(vars(sum(by_hand.values(), Skew())).values()) > 20  # each fault was there to be found


@pytest.mark.parametrize("seed", range(2))
def test_ages_are_those_of_a_look_at_every_row(tmp_path: Path, seed: int) -> None:
    log = a_log(seed)
    for one in measured(log.write(tmp_path / "drop"), DAYS).record["staleness"]:
        ages, rows = ages_by_hand(log, one["view"])
        at_least = {name: ages[math.ceil(q * len(ages)) - 1] for name, q in (("q50", 0.5), ("q90", 0.9), ("q99", 0.99))}
        assert one == {"view": one["view"], "joined_share": len(ages) / rows,
                       **{f"{name}_hours": age / 60 for name, age in at_least.items()}}  # fmt: skip


@pytest.mark.parametrize("seed", range(2))
def test_the_worst_feature_comes_first(tmp_path: Path, seed: int) -> None:
    rows = measured(a_log(seed).write(tmp_path / "drop"), DAYS).record["skew"]
    worst = [round(row["mismatch_share"] + row["missing_share"] + row["extra_share"], 12) for row in rows]
    assert worst == sorted(worst, reverse=True)
    assert len(rows) == sum(map(len, GIVEN.values()))


# --- logs of a few rows


STATS = {"price": pa.float64()}


def stats(day: int, price: float | None, item: str = "a", hours: float = 4.0, **more: Any) -> Row:
    return {"item_id": item, "available_at": at(day, hours), "price": price, **more}


def shown(day: int, number: int, price: Any, item: str = "a", hours: float = 12.0, **more: Any) -> Row:
    moments = {"shown_at": at(day, hours), "arrived_at": at(day, hours + 0.5)}
    return impression(item, request_id=f"r{day}-{number}", **moments, x_price=price, **more)


def a_drop(root: Path, *days: tuple[list[Row], list[Row]], types: dict[str, pa.DataType] | None = None) -> Path:
    """Write (impressions, rows of the view ``stats``) by day."""
    for day, (impressions, rows) in enumerate(days, start=1):
        tables = {"impressions": impressions, "features__stats": rows}
        write_day(
            root / "drop", day, **{name: table_of(some, STATS | (types or {})) for name, some in tables.items() if some}
        )
    return root / "drop"


def only(found: Artifact) -> dict[str, Any]:
    [row] = rows_of(found).values()
    return row


def shares(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[f"{name}_share"] for name in ("mismatch", "missing", "extra", "stale"))


def drifting(days: int, served: Any, per_day: int = 40) -> list[tuple[list[Row], list[Row]]]:
    """A view whose value is the day's number, and what ``served(day, number)`` gave."""
    return [
        ([shown(day, number, served(day, number)) for number in range(per_day)], [stats(day, float(day))])
        for day in range(1, days + 1)
    ]


def test_a_log_that_served_what_the_views_say_has_no_skew_at_all(tmp_path: Path) -> None:
    row = only(measured(a_drop(tmp_path, *drifting(5, lambda day, _: float(day))), 5))
    assert (row["compared"], shares(row)) == (200, (0.0, 0.0, 0.0, 0.0))


@pytest.mark.parametrize("behind", [1, 3])
def test_serving_that_is_days_behind_shows_as_stale_to_the_row(tmp_path: Path, behind: int) -> None:
    late = np.random.default_rng(5).random((10, 40)) < 0.3
    days = drifting(7, lambda day, number: float(day - behind * (late[day, number] and day > behind)))
    planted = late[behind + 1 : 8].sum() / 280
    assert shares(only(measured(a_drop(tmp_path, *days), 7))) == (planted, 0.0, 0.0, planted)


def test_a_wrong_value_that_the_key_never_had_or_had_only_later_is_not_stale(tmp_path: Path) -> None:
    of_another, of_tomorrow = shown(1, 0, 9.0), shown(1, 1, 2.0)
    days = [([of_another, of_tomorrow], [stats(1, 1.0), stats(1, 9.0, "b", hours=1)]), ([], [stats(2, 2.0)])]
    assert shares(only(measured(a_drop(tmp_path, *days), 2))) == (1.0, 0.0, 0.0, 0.0)


def test_what_an_outage_served_as_null_is_missing(tmp_path: Path) -> None:
    days = drifting(5, lambda day, number: None if day == 3 and number < 10 else float(day))
    found = measured(a_drop(tmp_path, *days), 5)
    assert shares(only(found)) == (0.0, 10 / 200, 0.0, 0.0)
    assert [day["skew"][0]["missing"] for day in found.record["by_day"]] == [0, 0, 10, 0, 0]


def test_a_value_counts_from_the_instant_at_which_it_could_be_read(tmp_path: Path) -> None:
    rows = [shown(1, number, price, hours=hours) for number, (price, hours) in enumerate([(1.0, 4.0), (1.0, 3.999)])]
    found = measured(a_drop(tmp_path, (rows, [stats(1, 1.0)])), 1)
    assert shares(only(found)) == (0.0, 0.0, 0.5, 0.0)
    [staleness] = found.record["staleness"]
    assert (staleness["joined_share"], staleness["q50_hours"], staleness["q99_hours"]) == (0.5, 0.0, 0.0)


def test_days_whose_files_lack_the_feature_served_nothing_and_are_not_compared(tmp_path: Path) -> None:
    bare = [{name: value for name, value in shown(2, 0, 0.0).items() if name != "x_price"}]
    days = [([shown(1, 0, 1.0)], [stats(1, 1.0)]), (bare, []), ([shown(3, 0, None)], [])]
    row = only(measured(a_drop(tmp_path, *days), 3))
    assert (row["compared"], shares(row)) == (2, (0.0, 0.5, 0.0, 0.0))


# --- types


@pytest.mark.parametrize("served", [pa.float32(), pa.float64()])
@pytest.mark.parametrize("given", [pa.float32(), pa.float64()])
def test_floats_are_compared_in_the_narrower_type(tmp_path: Path, served: pa.DataType, given: pa.DataType) -> None:
    days = [([shown(1, 0, 0.1), shown(1, 1, 0.1 + 1e-12)], [stats(1, 0.1)])]
    drop = a_drop(tmp_path, *days, types={"x_price": served, "price": given})
    both_wide = served == given == pa.float64()
    assert shares(only(measured(drop, 1)))[0] == (0.5 if both_wide else 0.0)


def test_days_of_both_widths_agree_with_one_view(tmp_path: Path) -> None:
    drop = a_drop(tmp_path, ([shown(1, 0, 0.1)], [stats(1, 0.1)]), types={"x_price": pa.float32()})
    late = shown(1, 1, 0.1, hours=23.75)  # arrives on the day after, whose files are of doubles
    write_day(drop, 2, impressions=table_of([late], {"x_price": pa.float64()}))
    row = only(measured(drop, 2))
    assert (row["compared"], shares(row)) == (2, (0.0, 0.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("served", "given", "values", "mismatch"),
    [
        (pa.int64(), pa.float64(), (3, 3.0), 0.0),
        (pa.int64(), pa.float64(), (3, 3.5), 1.0),
        (pa.int64(), pa.uint64(), (2**53, 2**53 + 1), 1.0),
        (pa.bool_(), pa.int8(), (True, 1), 0.0),
        (pa.string(), pa.string(), ("a", "A"), 1.0),
    ],
    ids=str,
)
def test_other_types_are_compared_by_what_they_say(
    tmp_path: Path, served: pa.DataType, given: pa.DataType, values: tuple[Any, Any], mismatch: float
) -> None:
    drop = a_drop(
        tmp_path, ([shown(1, 0, values[0])], [stats(1, values[1])]), types={"x_price": served, "price": given}
    )
    assert shares(only(measured(drop, 1))) == (mismatch, 0.0, 0.0, 0.0)


def test_nan_is_null_on_either_side(tmp_path: Path) -> None:
    days = [([shown(1, 0, float("nan")), shown(1, 1, None, "b")], [stats(1, None), stats(1, float("nan"), "b")])]
    assert shares(only(measured(a_drop(tmp_path, *days), 1))) == (0.0, 0.0, 0.0, 0.0)


def test_text_beside_numbers_says_cannot_in_its_own_row_alone(tmp_path: Path) -> None:
    both = {"x_size": "large"}
    days = [([shown(1, 0, 2.0, **both)], [stats(1, 1.0, size=3)])]
    found = measured(a_drop(tmp_path, *days, types={"size": pa.int64()}), 1).record["skew"]
    assert [one["feature"] for one in found] == ["x_price", "x_size"]
    assert shares(found[0])[0] == 1.0
    reason = {"cannot": "served as text, but size of stats is a number"}
    assert (found[1]["compared"], shares(found[1])) == (0, (reason,) * 4)


# --- views


def test_each_view_that_gives_a_feature_is_compared_whether_joined_or_not(tmp_path: Path) -> None:
    drop = a_drop(tmp_path, ([shown(1, 0, 1.0)], [stats(1, 1.0)]))
    other = table_of([{"user_id": "u1", "item_id": "a", "available_at": at(1, 2), "x_price": 2.0, "rank": "top"}])
    write_day(drop, 1, features__other=other)
    alone, joined = measured(drop, 1), measured(drop, 1, views={"stats": ["price"]})
    assert alone.record["skew"] == joined.record["skew"]
    assert {view: shares(row)[0] for (_, view), row in rows_of(alone).items()} == {"stats": 0.0, "other": 1.0}


def test_a_joined_view_that_gives_no_served_feature_is_dated_all_the_same(tmp_path: Path) -> None:
    unserved = [{name: value for name, value in shown(1, 0, 0.0).items() if name != "x_price"}]
    drop = a_drop(tmp_path, (unserved, [stats(1, 1.0)]))
    found = measured(drop, 1, views={"stats": ["price"]}).record
    assert found["skew"] == {"cannot": "no feature view of the log gives a served feature"}
    assert found["staleness"] == [
        {"view": "stats", "joined_share": 1.0, "q50_hours": 8.0, "q90_hours": 8.0, "q99_hours": 8.0}
    ]
    assert measured(drop, 1).cannot is not None


def test_a_view_whose_key_no_impression_has_says_so(tmp_path: Path) -> None:
    rows = [shown(1, 0, 1.0, user_id=None), shown(1, 1, 1.0, user_id=None)]
    drop = a_drop(tmp_path, (rows, []))
    write_day(drop, 1, features__users=table_of([{"user_id": "u1", "available_at": at(1, 2), "x_price": 1.0}]))
    row = only(measured(drop, 1))
    assert shares(row) == ({"cannot": "no impression has the view's key, user_id"},) * 4


def test_a_log_without_views_says_that_nothing_can_be_compared(tmp_path: Path) -> None:
    found = measured(a_drop(tmp_path, ([shown(1, 0, 1.0)], [])), 1)
    assert found.cannot is not None
    assert found.cannot.reason == "no feature view of the log gives a served feature, and none is joined"


# --- time and work


def test_days_after_the_cutoff_change_no_byte(tmp_path: Path) -> None:
    log, noisy = a_log(1), a_log(1)
    for rows in (noisy.shown, *noisy.views.values()):
        values = {"x_price", "x_affinity", "price", "affinity"}
        rows[:] = [(day, row | dict.fromkeys(values & set(row), -1.0) if day > 4 else row) for day, row in rows]
    first, second = (measured(one.write(tmp_path / name / "drop"), 4) for name, one in (("a", log), ("b", noisy)))
    assert counted_by_hand(log) != counted_by_hand(noisy)
    assert (first.fingerprint, first.content_hash) == (second.fingerprint, second.content_hash)
    assert rows_of(first) == {name: skew.shares() for name, skew in counted_by_hand(noisy, day=4).items()}


def test_a_part_of_closed_days_is_made_from_what_was_known_when_they_closed(tmp_path: Path) -> None:
    days = [([shown(1, 0, 1.0)], [stats(1, 1.0)]), ([], []), ([], []), ([], [stats(1, 2.0)])]
    drop = a_drop(tmp_path, *days)  # the correction lands on the day after the first has closed
    before, after = (measured(drop, day).record for day in (3, 4))
    assert before["parts"][0] == after["parts"][0]
    assert after["skew"] == before["skew"]


def test_the_next_day_makes_only_the_parts_of_open_days_anew(tmp_path: Path) -> None:
    drop = a_log(2).write(tmp_path / "drop")
    before, after = (
        {one["day"]: one["fingerprint"] for one in measured(drop, day).record["parts"]} for day in (DAYS - 1, DAYS)
    )
    kept = {day for day in before if before[day] == after[day]}
    assert kept == {f"2026-03-0{day}" for day in range(1, DAYS - 2)}
    assert set(after) - kept == {f"2026-03-0{day}" for day in range(DAYS - 2, DAYS + 1)}
