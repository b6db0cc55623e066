"""What delays are measured on, against the log read row by row and joined by its ids."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from ingest.tiny_drops import at, end_of, impression, log_of, outcome, store_beside, table_of, write_day
from worlds import shops
from worlds.dirt import plant

from sameworld.records import Refused
from sameworld.spec import Spec
from sameworld.store.delay_rows import CODE, Shown, known_outcomes, landing_times, runs_of
from sameworld.store.log import ROW, Log
from sameworld.store.outcomes import impressions_shown, outcomes_in_window, with_segments
from sameworld.store.times import day_end, parse_day, parse_time
from tasks import measure_delay

WINDOW, SKEW = timedelta(days=2), timedelta(seconds=60)
WORLDS: list[tuple[Callable[..., shops.Shop], str]] = [
    (shops.news_feed, "x_topic"),
    (shops.marketplace, "x_surface"),
    (shops.search, "x_stars"),
]
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
Rows = list[tuple[Any, ...]]


def dirty(drop: Path, world: Callable[..., shops.Shop]) -> tuple[Log, datetime, datetime]:
    """A dirty log, a time within it, and its end."""
    days = world(drop, seed=1, days=6, requests_per_day=80).days
    plant(drop, 1)
    end = day_end(parse_day(days[-1]))
    return log_of(drop, len(days)), end - timedelta(days=4, hours=5), end


def shown_of(drop: Path, log: Log, segments: Sequence[str], *, since: datetime, before: datetime) -> Shown:
    label = {"gains": {"click": 1.0}, "target": "click", "segments": list(segments)}
    store, spec, parts = store_beside(drop), Spec.parse({"label": label}), []
    for day in log.days:
        there = "impressions.parquet" in day.files
        parts.append(store.open(measure_delay.day_runs(store=store, spec=spec, day=day.uri)) if there else None)
    return Shown.read(log, parts, segments, since=since, before=before)


def in_us(time: str) -> pl.Expr:
    return pl.col(time).to_physical()


def each(shown: Shown) -> Rows:
    """Segment and time of every impression that was asked for, sorted."""
    columns = (shown.segment[shown.asked], shown.shown_us[shown.asked], shown.rows[shown.asked])
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return sorted((shown.segments[code], time) for code, time, count in rows for _ in range(count))


@pytest.mark.parametrize(("world", "segment"), WORLDS)
def test_runs_hold_every_standing_impression_of_a_dirty_log_and_no_other(
    tmp_path: Path, world: Callable[..., shops.Shop], segment: str
) -> None:
    log, since, end = dirty(tmp_path / "drop", world)
    found = each(shown_of(tmp_path / "drop", log, [segment], since=since, before=end))
    rows = with_segments(impressions_shown(log, since=since, before=end), [segment])
    assert found == sorted(rows.select("segment", in_us("shown_at")).collect().rows())


@pytest.mark.parametrize(("world", "segment"), WORLDS)
def test_outcomes_of_a_dirty_log_are_those_that_a_join_by_ids_finds(
    tmp_path: Path, world: Callable[..., shops.Shop], segment: str
) -> None:
    log, since, end = dirty(tmp_path / "drop", world)
    kinds = log.table("outcomes").select(pl.col("kind").unique().sort()).collect()["kind"].to_list()[1:]
    shown = shown_of(tmp_path / "drop", log, [segment], since=since, before=end)
    got = known_outcomes(
        log, store_beside(tmp_path / "drop"), shown, kinds=kinds, window=WINDOW, skew=SKEW, since=since
    )
    found = got.with_columns(shown_us=shown.shown_us[got["run"].to_numpy()])
    rows = impressions_shown(log, since=since, before=end).select("request_id", "item_id", "shown_at")
    events = outcomes_in_window(log, shown=rows, window=WINDOW, skew=SKEW, cutoff=end)
    want = events.filter(pl.col("retracted_at").is_null(), pl.col("kind").is_in(kinds)).collect()
    times = [in_us(name) for name in ("shown_at", "happened_at", "arrived_at")]
    assert len(want) > 50
    assert sorted(found.select("kind", "shown_us", "happened_us", "arrived_us").rows()) == sorted(
        want.select("kind", *times).rows()
    )


def test_landing_times_are_those_of_the_standing_rows(tmp_path: Path) -> None:
    log, _, _ = dirty(tmp_path / "drop", shops.news_feed)
    happened, took = landing_times(log, store_beside(tmp_path / "drop"), "requests")
    want = log.table("requests").select(in_us("shown_at"), in_us("arrived_at")).collect()
    assert sorted(zip(happened.tolist(), (happened + took).tolist(), strict=True)) == sorted(want.rows())


def test_neighbours_of_one_time_and_segment_are_a_run_and_others_are_not() -> None:
    times = {"shown_at": [5, 5, 5, 6, 5], "arrived_at": [7, 7, 7, 7, 7]}
    runs, values = runs_of(pl.LazyFrame({"x_s": ["a", "a", None, None, None], **times}), ["x_s", "x_new"])
    assert runs.select(ROW, "rows", CODE).rows() == [(0, 2, 0), (2, 1, 1), (3, 1, 1), (4, 1, 1)]
    assert values.rows() == [(0, "a"), (1, None)]


def test_without_a_segment_there_is_one_and_without_a_row_no_run() -> None:
    runs, values = runs_of(pl.LazyFrame({"shown_at": [5, 5], "arrived_at": [7, 8]}), [])
    assert (runs.select(CODE, "rows").rows(), values.rows()) == ([(0, 1), (0, 1)], [(0,)])
    empty = pl.LazyFrame(schema={"x_s": pl.String, "shown_at": pl.Int64, "arrived_at": pl.Int64})
    assert [frame.height for frame in runs_of(empty, ["x_s"])] == [0, 0]


def test_a_segment_of_whole_numbers_one_day_and_fractions_the_next_is_named_alike(tmp_path: Path) -> None:
    whole = [impression(x_size=1), impression("b", 2, x_size=None)]
    write_day(tmp_path / "drop", 1, impressions=table_of(whole, {"x_size": pa.int64()}))
    part = [impression("c", 3, x_size=1.0, arrived_at=at(2, 1))]
    write_day(tmp_path / "drop", 2, impressions=table_of(part, {"x_size": pa.float64()}))
    log, end = log_of(tmp_path / "drop", 2), parse_time(end_of(2))
    shown = shown_of(tmp_path / "drop", log, ["x_size"], since=LONG_AGO, before=end)
    want = with_segments(impressions_shown(log, since=LONG_AGO, before=end), ["x_size"]).select("segment").collect()
    assert [name for name, _ in each(shown)] == sorted(want["segment"]) == ["(null)", "1.0", "1.0"]


def test_a_segment_that_no_day_has_is_refused(tmp_path: Path) -> None:
    write_day(tmp_path / "drop", 1, impressions=[impression()])
    log = log_of(tmp_path / "drop", 1)
    with pytest.raises(Refused, match=re.escape("a segment is no column of the impressions: got x_none")):
        shown_of(tmp_path / "drop", log, ["x_none"], since=LONG_AGO, before=parse_time(end_of(1)))


def test_an_outcome_goes_to_the_row_that_corrected_its_impression(tmp_path: Path) -> None:
    write_day(tmp_path / "drop", 1, impressions=[impression()], outcomes=[outcome()])
    moved = impression(shown_at=at(1, 10.25), arrived_at=at(2, 1))
    write_day(tmp_path / "drop", 2, impressions=[moved])
    log, end = log_of(tmp_path / "drop", 2), parse_time(end_of(2))
    shown = shown_of(tmp_path / "drop", log, [], since=LONG_AGO, before=end)
    store, asked = store_beside(tmp_path / "drop"), {"kinds": ["click"], "window": WINDOW, "skew": SKEW}
    [run] = known_outcomes(log, store, shown, **asked, since=LONG_AGO)["run"]
    assert (shown.rows.tolist(), shown.shown_us[run]) == ([0, 1], int(at(1, 10.25).timestamp() * 1e6))


def test_an_outcome_counts_once_though_its_impression_was_sent_again_beside_a_new_one(tmp_path: Path) -> None:
    write_day(tmp_path / "drop", 1, impressions=[impression()], outcomes=[outcome()])
    again = [impression(arrived_at=at(2, 1)), impression("b", 2, arrived_at=at(2, 1))]  # one run, of which one stands
    write_day(tmp_path / "drop", 2, impressions=again)
    log, end = log_of(tmp_path / "drop", 2), parse_time(end_of(2))
    shown = shown_of(tmp_path / "drop", log, [], since=LONG_AGO, before=end)
    store, asked = store_beside(tmp_path / "drop"), {"kinds": ["click"], "window": WINDOW, "skew": SKEW}
    assert shown.rows.tolist() == [1, 1]
    assert known_outcomes(log, store, shown, **asked, since=LONG_AGO)["run"].to_list() == [0]
