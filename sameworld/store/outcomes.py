"""Which outcome belongs to which impression, and when the log knew it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import polars as pl

from sameworld.records import Refused
from sameworld.store.log import Log

KEY = ("request_id", "item_id")
NO_VALUE = "(null)"
_NUMBER, _PLACE, _OF_EVENT = "sameworld: number", "sameworld: place", " of the event"


def segment_expression(columns: Sequence[str]) -> pl.Expr:
    """Return the segment of an impression: the values of its segment columns, joined; "all" without columns."""
    if not columns:
        return pl.lit("all")
    parts = [pl.col(name).cast(pl.String).fill_null(NO_VALUE) for name in columns]
    return pl.concat_str(parts, separator=" | ")


def impressions_shown(log: Log, *, since: datetime, before: datetime) -> pl.LazyFrame:
    """Return the standing impressions shown in ``[since, before)``, in the log's order.

    Steps that place columns of the same impressions side by side rely on this order being the same in each.
    """
    days = (since.date(), before.date())  # nothing arrives before it was shown
    frame = log.table("impressions", arrival_days=days)
    shown = pl.col("shown_at")
    return frame.filter(shown >= since, shown < before, pl.col("arrived_at") < before)


def with_segments(frame: pl.LazyFrame, columns: Sequence[str]) -> pl.LazyFrame:
    """Add the column ``segment``; a segment column that the log lacks is refused."""
    missing = sorted(set(columns) - set(frame.collect_schema().names()))
    if missing:
        raise Refused(
            what="a segment is no column of the impressions", got=", ".join(missing), wanted="a served x_* column"
        )
    return frame.with_columns(segment=segment_expression(columns))


def outcomes_in_window(
    log: Log,
    *,
    shown: pl.LazyFrame,
    window: timedelta,
    skew: timedelta,
    cutoff: datetime,
    among: pl.Expr | None = None,
) -> pl.LazyFrame:
    """Return every outcome event known at the cutoff that happened within its impression's window.

    shown : frame with request_id, item_id, shown_at (and what else should be carried along)
    among : which outcome rows can matter, where that is known beforehand

    One row an event: the columns of ``shown``, kind, happened_at, arrived_at (first known), retracted_at (null: never),
    in the order of shown_at, then of the event's key.
    An event up to ``skew`` before its impression counts: the two clocks differ by that much.
    """
    events = log.table("outcomes").filter(pl.col("arrived_at") < cutoff)
    events = events if among is None else events.filter(among)
    if "retracted" in events.collect_schema().names():
        taken_back = pl.col("retracted").fill_null(False)
    else:
        taken_back = pl.lit(False)
    wanted = events.select(*KEY, "kind", "happened_at", "arrived_at", taken_back=taken_back)
    delay = pl.col("happened_at") - pl.col("shown_at")
    counted = _joined(shown, wanted).filter(delay >= -skew, delay < window)
    carried = [name for name in shown.collect_schema().names() if name not in KEY]
    event_key = [*KEY, "kind", "happened_at"]
    known = counted.group_by(event_key).agg(
        *(pl.col(name).first() for name in carried),
        arrived_at=pl.col("arrived_at").filter(~pl.col("taken_back")).min(),
        retracted_at=pl.col("arrived_at").filter("taken_back").min(),
    )
    columns = [*KEY, *carried, "kind", "happened_at", "arrived_at", "retracted_at"]
    return known.filter(pl.col("arrived_at").is_not_null()).select(columns).sort("shown_at", *event_key)


def _joined(shown: pl.LazyFrame, events: pl.LazyFrame) -> pl.LazyFrame:
    """Return the events beside their impressions: found by one number, which is quicker than by ids, then compared.

    Few impressions have an outcome, so the join is of numbers and places only, and the rest is fetched for its pairs.
    """
    number = (pl.col("request_id").hash(seed=1) ^ pl.col("item_id").hash(seed=2)).alias(_NUMBER)
    rows, known = shown.collect(engine="streaming"), events.collect(engine="streaming")
    ours, theirs = (frame.select(number).with_row_index(name) for name, frame in ((_PLACE, rows), (_OF_EVENT, known)))
    pairs = theirs.join(ours, on=_NUMBER, how="inner")
    beside = known[pairs[_OF_EVENT]].rename(lambda name: f"{name}{_OF_EVENT}" if name in KEY else name)
    both = pl.concat([rows[pairs[_PLACE]], beside], how="horizontal").lazy()
    same = [pl.col(name) == pl.col(f"{name}{_OF_EVENT}") for name in KEY]
    return both.filter(same).drop(f"{name}{_OF_EVENT}" for name in KEY)
