"""What delays are measured on: when impressions were shown, and which outcomes are known of them, from day parts.

A day's part holds runs: neighbouring rows that were shown and arrived at one time in one segment, as a list's rows do.
It depends on its day alone; rows that the log has taken out are subtracted when parts are read. Outcomes find their
impressions by the 64-bit hashes that ``resolve`` keeps: impressions whose ids share a hash would share their outcomes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sameworld.records import Refused
from sameworld.store.artifacts import Artifact, Store
from sameworld.store.log import DAY_SHIFT, ROW, Log
from sameworld.store.outcomes import with_segments
from sameworld.store.times import parse_day

Ints = NDArray[np.int64]
CODE, PLACE, _DAY = "sameworld: segment", "sameworld: place", "sameworld: day"
_US = timedelta(microseconds=1)
_NOT_ASKED = -1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def runs_of(impressions: pl.LazyFrame, segments: Sequence[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return a day's runs (CODE, shown_at, arrived_at, ROW, rows), and the segments' values by CODE.

    ROW is a run's first row. Segment columns that the day lacks are left out.
    """
    names = [name for name in segments if name in impressions.collect_schema().names()]
    told = list(dict.fromkeys([*names, "shown_at", "arrived_at"]))
    table = impressions.select(told).collect(engine="streaming")
    begins = pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift()) for name in told)
    runs = table.with_row_index(ROW).filter(begins)
    rows = pl.col(ROW).shift(-1, fill_value=len(table)) - pl.col(ROW)
    if not names:
        code = pl.lit(0, pl.UInt32).alias(CODE)
        return runs.select(code, "shown_at", "arrived_at", ROW, rows=rows), pl.DataFrame({CODE: [0]}, {CODE: pl.UInt32})
    values = runs.select(names).unique(maintain_order=True).with_row_index(CODE)
    coded = runs.join(values, on=names, how="left", nulls_equal=True, maintain_order="left")
    return coded.select(CODE, "shown_at", "arrived_at", ROW, rows=rows), values


@dataclass(frozen=True, eq=False)
class Shown:
    """The standing impressions of the log in runs, in the order of arrival; arrays of shape (runs,).

    place : of a run's first row, ascending; rows : how many of the run stand; times in microseconds since 1970
    asked : whether any of the run stands and was shown in the period that was asked for
    segment : of those, a place in ``segments``
    """

    segments: tuple[str, ...]
    place: Ints
    rows: Ints
    shown_us: Ints
    arrived_us: Ints
    segment: NDArray[np.int32]
    asked: NDArray[np.bool_]

    @classmethod
    def read(
        cls, log: Log, parts: Sequence[Artifact | None], segments: Sequence[str], *, since: datetime, before: datetime
    ) -> Shown:
        """Read the parts of the log's days (None: no impressions), and the segments of what was shown in a period.

        Raises Refused where no day of the period has a segment's column.
        """
        there = {number: part for number, part in enumerate(parts) if part is not None}
        names, codes = _codes({n: part for n, part in there.items() if _arrived(log, n, since)}, segments)
        days = [
            _placed(part.scan("runs"), number).with_columns(_coded(codes.get(number))) for number, part in there.items()
        ]
        runs = pl.concat(days).collect(engine="streaming")
        place, shown, segment = _ints(runs[PLACE]), _ints(runs["shown_at"]), runs["segment"].to_numpy()
        gone = np.searchsorted(place, _ints(gone_places(log, "impressions")), side="right") - 1
        rows = _ints(runs["rows"]) - np.bincount(gone, minlength=len(place))
        asked = (shown >= (since - _EPOCH) // _US) & (shown < (before - _EPOCH) // _US)
        asked &= (segment != _NOT_ASKED) & (rows > 0)
        return cls(names, place, rows, shown, _ints(runs["arrived_at"]), segment, asked)


def known_outcomes(
    log: Log, store: Store, shown: Shown, *, kinds: Sequence[str], window: timedelta, skew: timedelta, since: datetime
) -> pl.DataFrame:
    """Return the outcomes known of the impressions asked for that happened within their window and were not taken back.

    One row an event: ``run`` (of ``shown``), PLACE (of the impression), kind, happened_us, arrived_us (first known), in
    the order of the impressions. An event up to ``skew`` before its impression counts: two clocks differ by that much.
    """
    marks = {number: part for number, part in enumerate(_marks(log, store)) if _arrived(log, number, since)}
    keys = [_placed(part.scan("rows.impressions", row_index=ROW), n) for n, part in marks.items() if _has(part)]
    events = _standing_events(log, store, kinds).lazy()
    joined = pl.concat(keys).select(PLACE, "key").join(events, left_on="key", right_on="group")
    found = joined.collect(engine="streaming").filter(~pl.col(PLACE).is_in(gone_places(log, "impressions").implode()))
    run = np.searchsorted(shown.place, _ints(found[PLACE]), side="right") - 1
    delay = _ints(found["happened_us"]) - shown.shown_us[run]
    counted = shown.asked[run] & (delay >= -(skew // _US)) & (delay < window // _US)
    return found.with_columns(run=run).filter(counted).sort(PLACE, "kind", "happened_us")


def landing_times(log: Log, store: Store, table: str) -> tuple[Ints, Ints]:
    """Return when a table's standing rows happened and how long they took to land, in microseconds, shape (rows,)."""
    marks = {number: part for number, part in enumerate(_marks(log, store)) if _has(part, table)}
    rows = pl.concat([_placed(part.scan(f"rows.{table}", row_index=ROW), number) for number, part in marks.items()])
    gone = gone_places(log, table)
    standing = rows.filter(~pl.col(PLACE).is_in(gone.implode())).select("event", "lag").collect(engine="streaming")
    return _ints(standing["event"]), _ints(standing["lag"])


def gone_places(log: Log, table: str) -> pl.Series:
    """Return the places of a table's rows that no longer stand; outcomes that lost a conflict still count."""
    gone = log.gone.filter(pl.col("table") == table)
    if table == "outcomes":
        gone = gone.filter(pl.col("reason") != "conflict")
    numbers = pl.DataFrame({"day": [parse_day(day.record["day"]) for day in log.days]}).with_row_index(_DAY)
    placed = gone.join(numbers, on="day", how="inner", maintain_order="left")
    return placed.select(pl.col(_DAY).cast(pl.Int64) * DAY_SHIFT + pl.col("row").cast(pl.Int64)).to_series()


def _standing_events(log: Log, store: Store, kinds: Sequence[str]) -> pl.DataFrame:
    """Return each event of these kinds that is known and was not taken back, by its impression's hash."""
    marks = {number: part for number, part in enumerate(_marks(log, store)) if _has(part, "outcomes")}
    rows = pl.concat([_placed(part.scan("rows.outcomes", row_index=ROW), number) for number, part in marks.items()])
    rows = rows.filter(pl.col("kind").is_in(kinds), ~pl.col(PLACE).is_in(gone_places(log, "outcomes").implode()))
    happened, lag = pl.col("event").to_physical(), pl.col("lag").to_physical()
    told = rows.select("group", "kind", "retracted", happened_us=happened, arrived_us=happened + lag)
    events = told.group_by("group", "kind", "happened_us").agg(
        pl.col("arrived_us").min(), taken_back=pl.col("retracted").any()
    )
    return events.filter(~pl.col("taken_back")).drop("taken_back").collect(engine="streaming")


def _codes(parts: Mapping[int, Artifact], segments: Sequence[str]) -> tuple[tuple[str, ...], dict[int, list[int]]]:
    """Return the names of the segments in these days, and which of them each CODE of a day stands for."""
    if not parts:
        return (), {}
    days = [part.scan("segments").with_columns(pl.lit(number).alias(_DAY)) for number, part in parts.items()]
    named = with_segments(pl.concat(days, how="diagonal_relaxed"), segments).select(_DAY, CODE, "segment").collect()
    names = named["segment"].unique().sort()
    numbers = named.with_columns(pl.col("segment").replace_strict(names, range(len(names)), return_dtype=pl.Int32))
    by_day = numbers.sort(_DAY, CODE).group_by(_DAY, maintain_order=True).agg("segment")
    return tuple(names), dict(by_day.iter_rows())


def _coded(numbers: Sequence[int] | None) -> pl.Expr:
    """Return the segment's number of each CODE of a day; of a day that was not asked for there is none."""
    if not numbers:
        return pl.lit(_NOT_ASKED, pl.Int32).alias("segment")
    return pl.col(CODE).replace_strict(range(len(numbers)), numbers, return_dtype=pl.Int32).alias("segment")


def _marks(log: Log, store: Store) -> list[Artifact]:
    """Open what ``resolve`` kept of each day's rows."""
    found = []
    for day, fingerprint in zip(log.days, log.resolved.record["marks"], strict=True):
        artifact = store.find("resolve", fingerprint)
        if artifact is None:
            raise Refused(what="a day's marks are gone", got=day.record["day"], remedy="run the day again")
        found.append(artifact)
    return found


def _has(part: Artifact, table: str = "impressions") -> bool:
    return f"rows.{table}.parquet" in part.files


def _arrived(log: Log, number: int, since: datetime) -> bool:
    return parse_day(log.days[number].record["day"]) >= since.date()


def _placed(rows: pl.LazyFrame, number: int) -> pl.LazyFrame:
    return rows.with_columns((number * DAY_SHIFT + pl.col(ROW).cast(pl.Int64)).alias(PLACE)).drop(ROW)


def _ints(column: pl.Series) -> Ints:
    return column.to_physical().cast(pl.Int64).to_numpy()
