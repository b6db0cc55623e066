"""A table over all days of the log, and which of its rows stand when all of them are looked at together.

The rule is the one within a day (``sameworld.sources.standing``), so a log delivered in one day or in ten resolves the
same. An outcome whose impression is not there waits as long as impressions take to land; then it is an orphan.

Rows are told by their marks (``sameworld.sources.day_marks``). Only those of a group that several days share, or that
contends within a day, are looked at; their contents are read from the days' files, all other rows stay unread.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sameworld.sources.contract import Layout, layout_of
from sameworld.sources.day_marks import GROUPS, Unmarked
from sameworld.sources.day_table import arrival
from sameworld.sources.standing import ORPHAN, PLACE, losers, taken
from sameworld.store.artifacts import Artifact, fingerprint_of
from sameworld.store.log import DAY_SHIFT, ROW
from sameworld.store.times import parse_day

LAG_QUANTILE = 0.99
GONE = {"day": pl.Date, "table": pl.String, "row": pl.UInt32, "reason": pl.String}
Hashes = NDArray[np.uint64]
Marks = Mapping[str, pl.LazyFrame]


@dataclass(frozen=True)
class DayPlaces:
    """Some rows of one day's table, by their number in the day's file, with the named columns."""

    day: Artifact
    table: str
    rows: pl.Series
    columns: tuple[str, ...]

    @cached_property
    def fingerprint(self) -> str:
        """The hash over the day, the rows and the columns."""
        rows = hashlib.sha256(self.rows.to_numpy().astype("<u4").tobytes()).hexdigest()
        return fingerprint_of(
            {"day": self.day.fingerprint, "table": self.table, "rows": rows, "columns": list(self.columns)}
        )

    def read(self) -> pl.LazyFrame:
        """Return the rows, in the file's order, with the column ROW."""
        chosen = self.day.scan(self.table, row_index=ROW).filter(pl.col(ROW).is_in(self.rows.implode()))
        return chosen.select(ROW, *self.columns)


def _read_each(wanted: Sequence[DayPlaces]) -> list[pl.LazyFrame]:
    return [one.read() for one in wanted]


@dataclass(frozen=True)
class LogDays:
    """The days that are looked at, the marks of each, and how contents are read: a step keeps what it has read."""

    days: Sequence[Artifact]
    marks: Sequence[Marks]
    read: Callable[[Sequence[DayPlaces]], list[pl.LazyFrame]] = _read_each

    @classmethod
    def unkept(cls, days: Sequence[Artifact]) -> LogDays:
        """Mark the days' rows in memory."""
        layouts = layouts_of(days)
        marks = [Unmarked(day, layouts).marks() for day in days]
        return cls(days, [{name: frame.lazy() for name, frame in of_day.items()} for of_day in marks])


def layouts_of(days: Sequence[Artifact]) -> dict[str, Layout]:
    """Return the layout of each table that any of the days has."""
    columns: dict[str, set[str]] = {}
    for day in days:
        for name in day.record["tables"]:
            columns.setdefault(name, set()).update(day.manifest["files"][f"{name}.parquet"]["schema"])
    return {name: layout_of(name, columns[name]) for name in sorted(columns)}


class LogTable:
    """A table over all days; a row's place is its day's number and its row in that day's file."""

    def __init__(self, name: str, layout: Layout, log: LogDays) -> None:
        self.name, self.layout, self._log = name, layout, log
        self._numbers = [number for number, day in enumerate(log.days) if f"{name}.parquet" in day.files]

    @property
    def rows(self) -> int:
        """How many rows the days' files hold."""
        return sum(int(self._file(number)["rows"]) for number in self._numbers)

    @cached_property
    def groups(self) -> Hashes:
        """The groups of every day, ascending; one that several days have is there several times."""
        found = self._all("groups").select("group").collect(engine="streaming")["group"].to_numpy()
        return np.sort(found, kind="stable")  # a run a day, each sorted already

    def contested(self) -> pl.DataFrame:
        """Return the marks of all rows that can contend: of groups that several days have, or that do within one."""
        again = self.groups[1:] == self.groups[:-1]
        within = self._all("groups").filter("within").select("group").collect(engine="streaming")["group"]
        return self.of_groups(pl.concat([pl.Series("group", self.groups[1:][again]), within]))

    def of_groups(self, groups: pl.Series) -> pl.DataFrame:
        """Return the marks of the rows of these groups, with their places, in order."""
        group = "group" if self.layout.name in GROUPS else "key"
        chosen = self._placed_marks().filter(pl.col(group).is_in(groups.implode()))
        return chosen.collect(engine="streaming")

    def without(self, keys: Hashes) -> pl.Series:
        """Return those of the keys (ascending, each once) that no row has."""
        wanted = pl.Series("key", keys, dtype=pl.UInt64)
        if self.layout.name not in GROUPS:  # then a key is its group, and those are in memory
            place = np.searchsorted(self.groups, keys)
            return wanted.filter(np.append(self.groups, 0)[place] != keys)
        there = self._all("rows").select("key").join(wanted.to_frame().lazy(), on="key", how="semi")
        return wanted.to_frame().join(there.collect(engine="streaming"), on="key", how="anti")["key"]

    def lags(self) -> pl.DataFrame:
        """Return how long rows took to land, as ``lag`` and ``rows`` by day."""
        return self._all("lags").collect(engine="streaming")

    def fetch(self, places: pl.Series, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Return the rows at these places, with when they arrived and the named columns (all, if none are)."""
        numbers = places // DAY_SHIFT
        found = list(numbers.unique().sort())
        read = self._log.read([self._wanted(n, places.filter(numbers == n), columns) for n in found])
        parts = [
            rows.select(
                (pl.col(ROW).cast(pl.UInt64) + number * DAY_SHIFT).alias(PLACE),
                arrival(self.layout, parse_day(self._log.days[number].record["day"])),
                *(columns or self._file(number)["schema"]),
            )
            for number, rows in zip(found, read, strict=True)
        ]
        return pl.concat(parts, how="diagonal_relaxed").collect(engine="streaming")

    def _wanted(self, number: int, places: pl.Series, columns: Sequence[str] | None) -> DayPlaces:
        rows = (places % DAY_SHIFT).cast(pl.UInt32).sort()
        times = [] if self.layout.arrival is None else [self.layout.arrival]
        names = tuple(dict.fromkeys([*(columns or self._file(number)["schema"]), *times]))
        return DayPlaces(self._log.days[number], self.name, rows, names)

    def _file(self, number: int) -> Mapping[str, Any]:
        file: Mapping[str, Any] = self._log.days[number].manifest["files"][f"{self.name}.parquet"]
        return file

    def _all(self, kind: str) -> pl.LazyFrame:
        return pl.concat([self._log.marks[number][f"{kind}.{self.name}"] for number in self._numbers])

    def _placed_marks(self) -> pl.LazyFrame:
        place = pl.col(PLACE).cast(pl.UInt64)
        marks = ((number, self._log.marks[number][f"rows.{self.name}"]) for number in self._numbers)
        return pl.concat([one.with_row_index(PLACE).with_columns(place + n * DAY_SHIFT) for n, one in marks])


@dataclass
class Resolved:
    """A table, the marks of those of its rows that were looked at, and the verdicts on rows that do not stand."""

    table: LogTable
    seen: pl.DataFrame
    gone: pl.DataFrame

    @property
    def kept(self) -> int:
        """How many rows stand."""
        return self.table.rows - self.gone.height

    def look_at(self, marks: pl.DataFrame) -> pl.DataFrame:
        """Note the marks of whole groups of rows; return those of the rows that stand."""
        self.seen = pl.concat([self.seen, marks.join(self.seen, on=PLACE, how="anti", maintain_order="left")])
        return marks.join(self.gone, on=PLACE, how="anti", maintain_order="left")

    def take_out(self, verdicts: pl.DataFrame) -> None:
        """Note rows that do not stand; their groups have been looked at."""
        self.gone = pl.concat([self.gone, verdicts])

    def lost(self) -> pl.Series:
        """Return the keys of which no row stands any more."""
        standing = self.look_at(self.seen).select("key")
        return self._gone_marks().join(standing, on="key", how="anti")["key"]

    def alone(self, parent: Resolved) -> pl.DataFrame:
        """Return the marks of the standing rows that have no standing row in the parent table."""
        groups = self.table.groups
        distinct = np.append(groups[:-1][groups[1:] != groups[:-1]], groups[-1:])
        missing = parent.table.without(distinct)
        return self.look_at(self.table.of_groups(pl.concat([missing, parent.lost()])))

    def landing_lag(self) -> timedelta:
        """Return how long the standing rows took to land, but for the slowest hundredth."""
        lags = self.table.lags().sort("lag")
        came = lags["lag"].to_physical().to_numpy()
        gone = np.sort(self._gone_marks()["lag"].to_physical().to_numpy())
        standing = lags["rows"].cum_sum().to_numpy() - np.searchsorted(gone, came, side="right")
        rank = math.ceil(LAG_QUANTILE * (self.kept - 1))
        return timedelta(microseconds=int(came[np.argmax(standing > rank)]))

    def _gone_marks(self) -> pl.DataFrame:
        return self.seen.join(self.gone, on=PLACE, how="semi")


def resolved(table: LogTable) -> Resolved:
    """Judge a table's rows beside each other: duplicates, conflicts, and positions taken twice."""
    marks = table.contested()
    found = Resolved(table, marks, losers(marks, table.layout, table.fetch))
    if "spot" in marks.columns:
        found.take_out(taken(found.look_at(marks).select(PLACE, key="spot"), table.fetch))
    return found


def take_out_orphans(
    tables: Mapping[str, Resolved], cutoff: datetime, *, waits: Mapping[str, timedelta] | None = None
) -> dict[str, timedelta]:
    """Take out what waits longer for its parent than parents take to land; return the waits by parent table.

    waits : by parent table, where they are known already
    """
    lags = {}
    for child, parent in (("impressions", "requests"), ("outcomes", "impressions")):
        if child in tables and parent in tables and tables[parent].kept:
            lags[parent] = waits[parent] if waits and parent in waits else tables[parent].landing_lag()
            overdue = tables[child].alone(tables[parent]).filter(pl.col("event") + lags[parent] <= cutoff)
            tables[child].take_out(overdue.select(PLACE, reason=pl.lit(ORPHAN)))
    return lags


def gone_of(tables: Mapping[str, Resolved], days: Sequence[Artifact]) -> pl.DataFrame:
    """Return the rows that do not stand, as (day, table, row, reason), sorted."""
    dates = pl.Series([parse_day(day.record["day"]) for day in days], dtype=pl.Date)
    parts = [
        found.gone.select(
            day=pl.lit(dates).gather(pl.col(PLACE) // DAY_SHIFT),
            table=pl.lit(name),
            row=(pl.col(PLACE) % DAY_SHIFT).cast(pl.UInt32),
            reason="reason",
        )
        for name, found in tables.items()
        if found.gone.height
    ]
    return pl.concat([pl.DataFrame(schema=GONE), *parts]).sort("day", "table", "row")


def impressions_gone(
    days: Sequence[Artifact], *, waits: Mapping[str, timedelta], until: datetime, log: LogDays | None = None
) -> pl.DataFrame:
    """Return which impressions of these days did not stand at ``until``, as (day, table, row, reason).

    waits : how long impressions wait for their request before they are orphans, as the whole log measured it
    log : the same days with their marks, where these are kept
    """
    layouts, marked = layouts_of(days), log or LogDays.unkept(days)
    layouts = {name: layout for name, layout in layouts.items() if name in ("impressions", "requests")}
    tables = {name: resolved(LogTable(name, layout, marked)) for name, layout in layouts.items()}
    take_out_orphans(tables, until, waits=waits)
    return gone_of({"impressions": tables["impressions"]}, days)
