import random
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from core.core_builders import FIRST, UTC_US, a_frame, a_log, at

from sameworld.records import Refused
from sameworld.store.feature_rows import feature_columns, with_features
from sameworld.store.log import Log
from sameworld.store.views import join_view, view_columns, views_named

CUTOFF = at(days=10)
VIEW = {"item_id": pl.String, "available_at": UTC_US, "price": pl.Float64}
BOTH = {"user_id": pl.String, "item_id": pl.String, "available_at": UTC_US, "price": pl.Float64}
ROWS = {"user_id": pl.String, "item_id": pl.String, "shown_at": UTC_US}


def a_view(root: Path, *days: list[tuple[Any, ...]], schema: dict[str, Any] = VIEW) -> Log:
    return a_log(root, *({"features.stats": a_frame(schema, *rows)} for rows in days))


def prices(log: Log, *rows: tuple[Any, ...], cutoff: datetime = CUTOFF) -> list[float | None]:
    frame = a_frame(ROWS, *rows).lazy()
    return join_view(frame, log, "stats", ["price"], cutoff=cutoff).collect()["x_price@view"].to_list()


def test_a_value_counts_from_the_microsecond_at_which_it_could_be_read(tmp_path: Path) -> None:
    log = a_view(tmp_path, [("i", at(10), 1.0)])
    shown = [at(10, microseconds=-1), at(10), at(10, microseconds=1), at(days=9)]
    assert prices(log, *(("u", "i", moment) for moment in shown)) == [None, 1.0, 1.0, 1.0]


def test_the_newest_value_that_could_be_read_wins(tmp_path: Path) -> None:
    log = a_view(tmp_path, [("i", at(30), 3.0), ("i", at(10), 1.0), ("i", at(20), 2.0)])
    assert prices(log, *(("u", "i", at(second)) for second in (9, 10, 19, 20, 29, 30))) == [None, 1, 1, 2, 2, 3]


@pytest.mark.parametrize(("late", "seen"), [(-1, 2.0), (0, 1.0), (1, 1.0)])
def test_what_could_be_read_at_the_cutoff_or_after_is_never_read(tmp_path: Path, late: int, seen: float) -> None:
    log = a_view(tmp_path, [("i", at(10), 1.0), ("i", at(50, microseconds=late), 2.0)])
    assert prices(log, ("u", "i", at(60)), cutoff=at(50)) == [seen]


def test_of_two_values_of_one_time_the_later_arrival_wins(tmp_path: Path) -> None:
    log = a_view(tmp_path, [("i", at(10), 1.0)], [("i", at(10), 2.0), ("i", at(5), 9.0)])
    assert prices(log, ("u", "i", at(10)), ("u", "i", at(7))) == [2.0, 9.0]


def test_a_null_that_arrived_later_is_a_value(tmp_path: Path) -> None:
    log = a_view(tmp_path, [("i", at(10), 1.0)], [("i", at(10), None)])
    assert prices(log, ("u", "i", at(10))) == [None]


def test_a_null_key_matches_nothing_not_even_a_null_key(tmp_path: Path) -> None:
    one = a_view(tmp_path / "one", [("i", at(1), 1.0), (None, at(1), 2.0)])
    assert prices(one, ("u", None, at(10)), ("u", "i", at(10))) == [None, 1.0]
    both = a_view(
        tmp_path / "two", [(None, "i", at(1), 1.0), ("u", None, at(1), 2.0), (None, None, at(1), 3.0)], schema=BOTH
    )
    assert prices(both, (None, "i", at(10)), ("u", None, at(10)), (None, None, at(10))) == [None] * 3


def test_a_view_with_two_keys_needs_both_to_match(tmp_path: Path) -> None:
    log = a_view(tmp_path, [("u", "i", at(1), 1.0), ("u", "j", at(1), 2.0), ("v", "i", at(1), 3.0)], schema=BOTH)
    rows = [("v", "i", at(5)), ("u", "j", at(5)), ("v", "j", at(5)), ("u", "i", at(0))]
    assert prices(log, *rows) == [3.0, 2.0, None, None]


def test_the_rows_keep_their_order_and_say_since_when_the_value_could_be_read(tmp_path: Path) -> None:
    log = a_view(tmp_path, [("i", at(10), 1.0)])
    rows = a_frame(ROWS, ("u", "i", at(30)), ("u", "x", at(5)), ("u", "i", at(20)))
    joined = join_view(rows.lazy(), log, "stats", ["price"], cutoff=CUTOFF).collect()
    assert joined.select(rows.columns).equals(rows)
    assert joined["stats_available_at"].to_list() == [at(10), None, at(10)]


def oracle(versions: list[tuple[Any, ...]], row: tuple[Any, ...], cutoff: datetime) -> float | None:
    """Look at every version, in the order of arrival, for the newest that the row may see."""
    best: tuple[datetime, float | None] | None = None
    for user, item, available_at, price in versions:
        same = user is not None and item is not None and (user, item) == row[:2]
        if same and available_at <= row[2] and available_at < cutoff and (best is None or available_at >= best[0]):
            best = (available_at, price)
    return best[1] if best else None


@pytest.mark.parametrize("seed", range(15))
def test_a_random_view_joins_as_looking_at_every_version_does(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    keys, times = ["a", "b", "c", None], [at(0, microseconds=n) for n in range(12)]

    def drawn(count: int, *more: Any) -> list[tuple[Any, ...]]:
        return [(*(draw.choice(one) for one in (keys, keys, times, *more)),) for _ in range(count)]

    days, rows, cutoff = [drawn(40, [None, 1.0, 2.5, -3.0]) for _ in range(3)], drawn(200), draw.choice(times)
    got = prices(a_view(tmp_path, *days, schema=BOTH), *rows, cutoff=cutoff)
    assert got == [oracle([one for day in days for one in day], row, cutoff) for row in rows]


def test_a_column_that_a_view_does_not_have_is_refused_with_those_it_has(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=re.escape("view 'stats' has no such column: got prize; wanted one of: price")):
        join_view(a_frame(ROWS).lazy(), a_view(tmp_path, [("i", at(1), 1.0)]), "stats", ["prize"], cutoff=CUTOFF)


def test_rows_without_the_views_key_are_refused_in_words(tmp_path: Path) -> None:
    log = a_view(tmp_path, [("u", "i", at(1), 1.0)], schema=BOTH)
    with pytest.raises(Refused, match=re.escape("view 'stats' has no key in the rows: got no user_id")):
        join_view(a_frame(ROWS).drop("user_id").lazy(), log, "stats", ["price"], cutoff=CUTOFF)


def test_a_view_that_the_log_does_not_have_is_refused_with_those_it_has(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=re.escape("no such feature view in the log: got stat; wanted stats")):
        views_named(a_view(tmp_path, [("i", at(1), 1.0)]), {"stat": ["price"]})


def test_a_views_values_are_what_is_neither_key_nor_time(tmp_path: Path) -> None:
    log = a_log(tmp_path, {"features.stats": a_frame({**VIEW, "x_age": pl.Int64}, ("i", at(1), 1.0, 2))})
    assert view_columns(log, "stats") == {"x_price": "price", "x_age": "x_age"}


# --- served first, joined where nothing was served


SHOWN = {"user_id": pl.String, "item_id": pl.String, "shown_at": UTC_US}


def served_log(root: Path) -> Log:
    first = a_frame({**SHOWN, "x_price": pl.Float64}, ("u", "i", at(20), 7.0), ("u", "i", at(21), None))
    second = a_frame(SHOWN, ("u", "i", at(22)), ("u", "j", at(23)))
    view = a_frame(VIEW, ("i", at(10), 1.0))
    return a_log(root, {"impressions": first, "features.stats": view}, {"impressions": second})


def test_a_served_value_wins_a_served_null_too_and_the_view_stands_in_where_nothing_was_served(tmp_path: Path) -> None:
    log = served_log(tmp_path)
    columns = feature_columns(log, "impressions", served=["x_price", "x_absent"], views={"stats": ["price"]})
    rows = with_features(log.table("impressions"), log, columns, cutoff=CUTOFF).collect()
    assert columns.names == ("x_price",)
    assert columns.never_served_on == {"item_id": (), "shown_at": (), "user_id": (), "x_price": (FIRST + timedelta(1),)}
    assert rows["x_price"].to_list() == [7.0, None, 1.0, None]
    assert [name for name in rows.columns if "@" in name or "available" in name] == []


def test_a_feature_that_only_a_view_has_is_joined_for_every_row(tmp_path: Path) -> None:
    log = served_log(tmp_path)
    columns = feature_columns(log, "impressions", served=[], views={"stats": ["price"]})
    rows = with_features(log.table("impressions").drop("x_price"), log, columns, cutoff=CUTOFF).collect()
    assert rows["x_price"].to_list() == [1.0, 1.0, 1.0, None]


def test_rows_that_lack_a_served_feature_have_it_as_null(tmp_path: Path) -> None:
    log = served_log(tmp_path)
    columns = feature_columns(log, "impressions", served=["x_price"], views={})
    rows = with_features(log.table("impressions").drop("x_price"), log, columns, cutoff=CUTOFF).collect()
    assert rows["x_price"].to_list() == [None] * 4


def test_a_feature_from_two_views_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=re.escape("a feature comes from two columns of the views: got x_price")):
        feature_columns(
            served_log(tmp_path), "impressions", served=[], views={"stats": ["price"], "other": ["x_price"]}
        )
