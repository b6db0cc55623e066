"""Views told otherwise: against looking at every row, on random views with every time at which a row can arrive."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from core.core_builders import FIRST, UTC_US, a_frame, a_log, at
from polars import Float64, String

from sameworld.store.log import Log
from sameworld.store.times import day_start
from sameworld.store.unfiltered_views import (
    arrived_before,
    newest_at_any_time,
    readable_once_stored,
    unfiltered_rows,
)
from sameworld.store.views import join_view

VIEW = {"user_id": String, "item_id": String, "available_at": UTC_US, "price": Float64}
ROWS = {"user_id": String, "item_id": String, "shown_at": UTC_US}
DAYS, CUTOFF, NOON = 5, at(days=5), 43_200
Version = tuple[Any, ...]
Allowed = Callable[[datetime, int, datetime], bool]


def a_view(root: Path, *days: list[Version]) -> Log:
    return a_log(root, *({"features.stats": a_frame(VIEW, *rows)} for rows in days))


def prices(log: Log, rows: list[Version]) -> list[float | None]:
    frame = a_frame(ROWS, *rows).lazy()
    return join_view(frame, log, "stats", ["price"], cutoff=CUTOFF).collect()["x_price@view"].to_list()


def looked_up(days: list[list[Version]], row: Version, allowed: Allowed) -> float | None:
    """Look at every version in the order of arrival for the newest that is allowed."""
    best, price = None, None
    for number, versions in enumerate(days):
        for user, item, available, value in versions:
            mine = (user, item) == row[:2] and None not in row
            newer = best is None or available >= best
            if mine and newer and available < CUTOFF and allowed(available, number, row[2]):
                best, price = available, value
    return price


READS: list[tuple[Callable[[Log], Log], Allowed]] = [
    (lambda log: arrived_before(log, at(days=3).date()), lambda when, day, shown: day < 3 and when <= shown),
    (
        lambda log: readable_once_stored(log, CUTOFF),
        lambda when, day, shown: when <= shown or at(days=day + 1) <= day_start(shown.date()),
    ),
    (lambda log: newest_at_any_time(log, CUTOFF), lambda when, day, shown: True),
]


@pytest.mark.parametrize(("retold", "allowed"), READS, ids=["arrived before", "once stored", "as of today"])
@pytest.mark.parametrize("seed", range(5))
def test_a_random_view_joins_as_looking_at_every_row_does(
    tmp_path: Path, seed: int, retold: Callable[[Log], Log], allowed: Allowed
) -> None:
    draw = random.Random(seed)
    times = [at(days=day, seconds=second) for day in range(DAYS + 1) for second in (0, NOON)]
    keys = ["a", "b", "c", None]

    def drawn(count: int, *more: Any) -> list[Version]:
        return [tuple(draw.choice(one) for one in (keys, keys, times, *more)) for _ in range(count)]

    days, rows = [drawn(40, [None, 1.0, 2.0, 3.0, 4.0]) for _ in range(DAYS)], drawn(150)
    got = prices(retold(a_view(tmp_path, *days)), rows)
    assert got == [looked_up(days, row, allowed) for row in rows]
    assert len(set(got)) > 2


@pytest.mark.parametrize(
    ("arrives", "available", "count"),
    [
        (2, at(days=2, seconds=NOON), 0),
        (0, at(days=1), 0),
        (0, at(days=1, microseconds=1), 1),
        (3, at(days=3, microseconds=-1), 1),
        (3, at(days=3), 0),
        (2, at(days=1), 0),
    ],
    ids=["at once", "when its day of arrival is over", "later than that", "late", "after all", "late, but in time"],
)
def test_only_rows_that_the_filter_keeps_out_are_counted(
    tmp_path: Path, arrives: int, available: datetime, count: int
) -> None:
    days = [[("u", "i", available, 1.0)] if day == arrives else [] for day in range(DAYS)]
    assert unfiltered_rows(a_view(tmp_path, *days), "stats", at(days=3)) == count


def test_tables_that_are_no_view_are_told_as_they_are(tmp_path: Path) -> None:
    frame = a_frame({"request_id": String, "available_at": UTC_US}, ("r", at(days=9)))
    log = a_log(tmp_path, {"requests": frame})
    for retold in (arrived_before(log, FIRST), readable_once_stored(log, CUTOFF), newest_at_any_time(log, CUTOFF)):
        assert retold.table("requests").drop("arrival_day").collect().equals(frame)
