"""Which of several rows with one key stand: the same rule within a day and across the whole log.

Rows that differ in ``arrived_at`` only are one row: the earliest stands, the others are duplicates. Of what is left
with one key the newest arrival wins, the older ones are conflicts; if several are newest at one instant they contradict
each other, and none stands.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import polars as pl

from sameworld.sources.contract import Layout

# Of a row that does not stand beside others; DUPLICATE and CONFLICT are counted, the rest is quarantined.
DUPLICATE, CONFLICT, SAME_ARRIVAL, TAKEN, ORPHAN = (
    "duplicate",
    "conflict",
    "conflict_same_arrival",
    "position_taken",
    "orphan",
)
PLACE, ARRIVED = "sameworld: place", "sameworld: arrived"
AT_ONCE = 1_000_000
VERDICTS = {PLACE: pl.UInt64, "reason": pl.String}


def contested(hashes: pl.Series) -> pl.Series:
    """Return the values that occur more than once.

    >>> contested(pl.Series([3, 1, 3, 2, 3], dtype=pl.UInt64)).to_list()
    [3]
    """
    counts = hashes.rename("hash").to_frame().lazy().group_by("hash").agg(n=pl.len())
    return counts.filter(pl.col("n") > 1).select("hash").sort("hash").collect(engine="streaming")["hash"]


def key_hash(columns: tuple[str | pl.Expr, ...]) -> pl.Expr:
    """Return a 64-bit hash of columns; equal keys have equal hashes, so what occurs once needs no second look."""
    return pl.struct(columns).hash(seed=1)


class Fetch(Protocol):
    """Gives the rows at these places with PLACE, ARRIVED and all columns, or those named."""

    def __call__(self, places: pl.Series, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Return the rows."""


def losers(marks: pl.DataFrame, layout: Layout, fetch: Fetch) -> pl.DataFrame:
    """Return the rows that do not stand beside another with their key, as (place, reason), sorted by place.

    marks : PLACE and ``key`` (hash) of the rows to judge
    """
    shared = marks.filter(pl.col("key").is_in(contested(marks["key"]).implode()))
    found = [_judged(fetch(places), layout) for places in _bites(shared)]
    return pl.concat([pl.DataFrame(schema=VERDICTS), *found]).sort(PLACE)


def taken(marks: pl.DataFrame, fetch: Fetch) -> pl.DataFrame:
    """Return the impressions that share their position with another of their request, as (place, reason).

    marks : PLACE and ``key`` (hash of request and position) of the rows that stand, unique by request and item
    """
    shared = marks.filter(pl.col("key").is_in(contested(marks["key"]).implode()))
    found = [_sharing(fetch(places, ("request_id", "position"))) for places in _bites(shared)]
    return pl.concat([pl.DataFrame(schema=VERDICTS), *found]).sort(PLACE)


def _sharing(rows: pl.DataFrame) -> pl.DataFrame:
    both = rows.filter(pl.len().over("request_id", "position") > 1)
    return both.select(PLACE, reason=pl.lit(TAKEN))


def _bites(shared: pl.DataFrame) -> Iterator[pl.Series]:
    """Yield places in bites of bounded size, each key whole in one of them."""
    bites = max(1, -(-shared.height // AT_ONCE))
    for bite in range(bites):
        places = shared.filter(pl.col("key") % bites == bite)[PLACE]
        if len(places):
            yield places


def _judged(rows: pl.DataFrame, layout: Layout) -> pl.DataFrame:
    content = [name for name in rows.columns if name not in (PLACE, ARRIVED, layout.arrival)]
    firsts = (
        rows.sort(ARRIVED, PLACE)
        .group_by(content, maintain_order=True)
        .agg(pl.col(PLACE, ARRIVED).first(), later=pl.col(PLACE).slice(1))
    )
    again = firsts.select(pl.col("later").explode(empty_as_null=False, keep_nulls=False).alias(PLACE))
    return pl.concat(
        [again.select(PLACE, reason=pl.lit(DUPLICATE)), _conflicts(firsts.select(PLACE, ARRIVED, *layout.key), layout)]
    )


def _conflicts(rows: pl.DataFrame, layout: Layout) -> pl.DataFrame:
    newest = pl.col(ARRIVED) == pl.col(ARRIVED).max().over(*layout.key)
    rows = rows.with_columns(newest=newest).with_columns(rivals=pl.col("newest").sum().over(*layout.key))
    reason = pl.when(~pl.col("newest")).then(pl.lit(CONFLICT)).when(pl.col("rivals") > 1).then(pl.lit(SAME_ARRIVAL))
    return rows.select(PLACE, reason=reason).drop_nulls()
