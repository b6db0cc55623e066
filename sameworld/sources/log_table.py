"""A table over all days of the log, and which of its rows stand when all of them are looked at together.

The rule is the one within a day (``sameworld.sources.standing``), so a log delivered in one day or in ten resolves the
same. An outcome whose impression is not there waits as long as impressions take to land; then it is an orphan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from sameworld.sources.contract import Layout, layout_of
from sameworld.sources.day_table import arrival
from sameworld.sources.standing import ORPHAN, PLACE, VERDICTS, key_hash, losers, taken
from sameworld.store.artifacts import Artifact
from sameworld.store.times import parse_day

LAG_QUANTILE = 0.99
GONE = {"day": pl.Date, "table": pl.String, "row": pl.UInt32, "reason": pl.String}
_DAY_SHIFT = 2**32  # a row's place in the log: its day's number, then its row in that day's file


class LogTable:
    """A table over all days; a row's place is its day's number and its row in that day's file."""

    def __init__(self, name: str, days: list[Artifact]) -> None:
        self.name = name
        self.parts = {number: day.scan(name) for number, day in enumerate(days) if f"{name}.parquet" in day.files}
        self.days = {number: parse_day(days[number].record["day"]) for number in self.parts}
        self.layout: Layout = layout_of(
            name, {column for part in self.parts.values() for column in part.collect_schema()}
        )

    def marks(self) -> pl.DataFrame:
        """Return each row's place, its key's hash, and what orphans and positions are told by."""
        rows = pl.concat([self._placed(number).select(self._names(number)) for number in self.parts], how="diagonal")
        wanted = {"key": key_hash(self.layout.key)}
        if self.layout.event:
            wanted |= {"event": pl.col(self.layout.event), "lag": pl.col("arrived_at") - pl.col(self.layout.event)}
        if self.name == "impressions":
            wanted |= {"parent": key_hash(("request_id",)), "spot": key_hash(("request_id", "position"))}
        if self.name == "outcomes":
            wanted |= {"parent": key_hash(("request_id", "item_id"))}
        return rows.select(PLACE, **wanted).collect(engine="streaming")

    def fetch(self, places: pl.Series, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Return the rows at these places, with when they arrived and the named columns (all, if none are)."""
        numbers = places // _DAY_SHIFT
        parts = [
            self._placed(number)
            .filter(pl.col(PLACE).is_in(places.filter(numbers == number).implode()))
            .select(PLACE, arrival(self.layout, self.days[number]), *(columns or self._all(number)))
            for number in numbers.unique().sort()
        ]
        return pl.concat(parts, how="diagonal_relaxed").collect(engine="streaming")

    def _placed(self, number: int) -> pl.LazyFrame:
        return (
            self.parts[number].with_row_index(PLACE).with_columns(pl.col(PLACE).cast(pl.UInt64) + number * _DAY_SHIFT)
        )

    def _all(self, number: int) -> list[str]:
        return list(self.parts[number].collect_schema())

    def _names(self, number: int) -> list[str]:
        wanted = {*self.layout.key, self.layout.event, self.layout.arrival, "position"}
        return [PLACE, *(name for name in self.parts[number].collect_schema() if name in wanted)]


@dataclass
class Resolved:
    """A table's marks, split into the rows that stand and the verdicts on those that do not."""

    table: LogTable
    rows: int
    standing: pl.DataFrame
    gone: pl.DataFrame

    def take_out(self, verdicts: pl.DataFrame) -> None:
        """Move rows from those that stand to those that do not."""
        if verdicts.height:
            self.standing = self.standing.join(verdicts, on=PLACE, how="anti", maintain_order="left")
            self.gone = pl.concat([self.gone, verdicts])


def resolved(table: LogTable) -> Resolved:
    """Judge a table's rows beside each other: duplicates, conflicts, and positions taken twice."""
    marks = table.marks()
    found = Resolved(table, marks.height, marks, pl.DataFrame(schema=VERDICTS))
    found.take_out(losers(marks, table.layout, table.fetch))
    if "spot" in marks.columns:
        found.take_out(taken(found.standing.select(PLACE, key="spot"), table.fetch))
    return found


def take_out_orphans(
    tables: Mapping[str, Resolved], cutoff: datetime, *, waits: Mapping[str, timedelta] | None = None
) -> dict[str, timedelta]:
    """Take out what waits longer for its parent than parents take to land; return the waits by parent table.

    waits : by parent table, where they are known already
    """
    lags = {}
    for child, parent in (("impressions", "requests"), ("outcomes", "impressions")):
        if child in tables and parent in tables and tables[parent].standing.height:
            lags[parent] = waits[parent] if waits and parent in waits else _landing_lag(tables[parent].standing)
            alone = tables[child].standing.join(
                tables[parent].standing, left_on="parent", right_on="key", how="anti", maintain_order="left"
            )
            overdue = alone.filter(pl.col("event") + lags[parent] <= cutoff)
            tables[child].take_out(overdue.select(PLACE, reason=pl.lit(ORPHAN)))
    return lags


def _landing_lag(standing: pl.DataFrame) -> timedelta:
    lag = standing.select(pl.col("lag").dt.total_microseconds().quantile(LAG_QUANTILE, "higher")).item()
    return timedelta(microseconds=int(lag))


def gone_of(tables: Mapping[str, Resolved], days: Sequence[Artifact]) -> pl.DataFrame:
    """Return the rows that do not stand, as (day, table, row, reason), sorted."""
    dates = pl.Series([parse_day(day.record["day"]) for day in days], dtype=pl.Date)
    parts = [
        found.gone.select(
            day=pl.lit(dates).gather(pl.col(PLACE) // _DAY_SHIFT),
            table=pl.lit(name),
            row=(pl.col(PLACE) % _DAY_SHIFT).cast(pl.UInt32),
            reason="reason",
        )
        for name, found in tables.items()
        if found.gone.height
    ]
    return pl.concat([pl.DataFrame(schema=GONE), *parts]).sort("day", "table", "row")


def impressions_gone(days: Sequence[Artifact], *, waits: Mapping[str, timedelta], until: datetime) -> pl.DataFrame:
    """Return which impressions of these days did not stand at ``until``, as (day, table, row, reason).

    waits : how long impressions wait for their request before they are orphans, as the whole log measured it
    """
    names = [name for name in ("impressions", "requests") if any(f"{name}.parquet" in day.files for day in days)]
    tables = {name: resolved(LogTable(name, list(days))) for name in names}
    take_out_orphans(tables, until, waits=waits)
    return gone_of({"impressions": tables["impressions"]}, days)
