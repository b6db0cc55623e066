"""Which rows break the contract by themselves: one expression names the first reason, in the order of ``REASONS``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta

import polars as pl

from sameworld.sources.contract import FeatureKind, Layout
from sameworld.sources.tables import BAD_TEXT, Table
from sameworld.store.times import day_end, day_start

REASONS = (
    "null_key",
    "arrived_before_shown",
    "arrived_before_happened",
    "arrived_outside_day",
    "future_timestamp",
    "bad_position",
    "not_finite",
    "bad_propensity",
    "bad_text",
    "out_of_range_time",
)
MAX_TEXT_BYTES = 1024  # of an id or a category; one long text in a dictionary can stand in billions of rows
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
LATEST = datetime(2200, 1, 1, tzinfo=UTC)


def first_reason(table: Table, day: date, max_skew: timedelta) -> pl.Expr:
    """Return an expression for the place in ``REASONS`` of a row's first reason, null for a sound row.

    day : the day whose folder the rows lie in
    max_skew : by how much an outcome may arrive before it happened, clocks being what they are
    """
    checks = _checks(table.layout, day, max_skew) | _content_checks(table)
    found = [
        pl.when(checks[reason].fill_null(False)).then(pl.lit(place, dtype=pl.UInt8))
        for place, reason in enumerate(REASONS)
        if reason in checks
    ]
    return pl.coalesce(found)


def _checks(layout: Layout, day: date, max_skew: timedelta) -> dict[str, pl.Expr]:
    checks = {"null_key": pl.any_horizontal(pl.col(layout.required).is_null())}
    if layout.event == "shown_at":
        checks["arrived_before_shown"] = pl.col("arrived_at") < pl.col("shown_at")
    if layout.event == "happened_at":
        checks["arrived_before_happened"] = pl.col("happened_at") - pl.col("arrived_at") > max_skew
    if layout.arrival:
        arrived = pl.col(layout.arrival)
        checks["arrived_outside_day"] = (arrived < day_start(day)) | (arrived >= day_end(day))
    else:
        # a view's rows carry no arrived_at: they arrive within their folder's day
        checks["future_timestamp"] = pl.col("available_at") >= day_end(day)
    times = [column.name for column in layout.columns if column.kind == "time"]
    checks["out_of_range_time"] = pl.any_horizontal((pl.col(times) < EARLIEST) | (pl.col(times) >= LATEST))
    return checks


def _content_checks(table: Table) -> dict[str, pl.Expr]:
    layout = table.layout
    checks = {"bad_text": pl.any_horizontal(list(_bad_text(table)))}
    unfit = list(_not_finite(layout, table.features))
    if unfit:
        checks["not_finite"] = pl.any_horizontal(unfit)
    if layout.has("position"):
        checks["bad_position"] = pl.col("position") < 1
    if layout.has("propensity"):
        checks["bad_propensity"] = (pl.col("propensity") <= 0) | (pl.col("propensity") > 1)
    return checks


def _bad_text(table: Table) -> Iterator[pl.Expr]:
    layout, nested = table.layout, {"reasons": ("key", "value"), "candidates": ("item_id",)}
    for name in layout.ids:
        yield pl.col(name).str.contains("\0", literal=True)
    texts = [column.name for column in layout.columns if column.kind == "text"]
    for name in [*texts, *(name for name, kind in table.features.items() if kind == "string")]:
        yield pl.col(name).str.len_bytes() > MAX_TEXT_BYTES
    for column in layout.columns:
        for field in nested.get(column.kind, ()):
            long = pl.element().struct.field(field).str.len_bytes() > MAX_TEXT_BYTES
            yield pl.col(column.name).list.eval(long).list.any()
    if BAD_TEXT in table.frame.collect_schema():
        yield pl.col(BAD_TEXT)


def _not_finite(layout: Layout, features: Mapping[str, FeatureKind]) -> Iterator[pl.Expr]:
    numbers = [name for name, kind in features.items() if kind == "number"]
    if numbers:
        yield pl.any_horizontal(pl.col(numbers).is_infinite())
    if layout.has("value"):
        yield ~pl.col("value").is_finite()
    if layout.has("candidates"):
        score = pl.element().struct.field("score")
        yield ~pl.col("candidates").list.eval(score.is_finite()).list.all()
