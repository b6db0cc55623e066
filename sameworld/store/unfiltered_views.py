"""A log's views told otherwise, so that the one join that there is can show what each of its rules keeps out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime

import polars as pl

from sameworld.store.log import VIEW_PREFIX, Log
from sameworld.store.views import KEYS

EVER = datetime(1970, 1, 1, tzinfo=UTC)
# A view's rows carry no arrived_at; that they were all there is sure only once their day of arrival is over.
STORED = pl.col("arrival_day").cast(pl.Datetime("us")).dt.offset_by("1d").dt.replace_time_zone("UTC")


@dataclass(frozen=True)
class RetoldViews(Log):
    """A log of whose views a join sees what ``retell`` makes of their rows; its other tables are as they are."""

    retell: Callable[[pl.LazyFrame], pl.LazyFrame]

    @classmethod
    def of(cls, log: Log, retell: Callable[[pl.LazyFrame], pl.LazyFrame]) -> RetoldViews:
        """Tell a log's views otherwise."""
        return cls(log.resolved, log.days, log.gone, retell)

    def table(self, name: str, *, arrival_days: tuple[date, date] | None = None, placed: bool = False) -> pl.LazyFrame:
        """Return a table's standing rows (see ``Log.table``), a view's as they are retold."""
        rows = super().table(name, arrival_days=arrival_days, placed=placed)
        return self.retell(rows) if name.startswith(VIEW_PREFIX) else rows


def arrived_before(log: Log, day: date) -> Log:
    """Return the log with the view rows whose day of arrival was over when ``day`` began."""
    return RetoldViews.of(log, lambda rows: rows.filter(pl.col("arrival_day") < day))


def readable_once_stored(log: Log, cutoff: datetime) -> Log:
    """Return the log with each view value readable once our log has it, even where serving could read it only later.

    The newest ``available_at`` (before the cutoff) still wins among all that can be read; of equal ones the later
    arrival.
    """
    return RetoldViews.of(log, lambda rows: _once_stored(rows.filter(pl.col("available_at") < cutoff)))


def newest_at_any_time(log: Log, cutoff: datetime) -> Log:
    """Return the log with each key's newest value before the cutoff, readable at any time: a table as it is today."""

    def newest(rows: pl.LazyFrame) -> pl.LazyFrame:
        known = rows.filter(pl.col("available_at") < cutoff).sort("available_at", maintain_order=True)
        last = known.unique(_keys(rows), keep="last", maintain_order=True)
        return last.with_columns(available_at=pl.lit(EVER, pl.Datetime("us", "UTC")))

    return RetoldViews.of(log, newest)


def unfiltered_rows(log: Log, view: str, landed: datetime) -> int:
    """Count the view rows that a join without the filter would read: late ones, and early ones.

    Late are those that could be read before ``landed``, the start of a day, and arrived on that day or after; early
    those that our log had before the day began on which serving could read them.
    """
    available = pl.col("available_at")
    late = (pl.col("arrival_day") >= landed.date()) & (available < landed)
    rows = log.table(f"{VIEW_PREFIX}{view}").filter(late | (available > STORED))
    return int(rows.select(pl.len()).collect(engine="streaming").item())


def _once_stored(rows: pl.LazyFrame) -> pl.LazyFrame:
    readable = pl.min_horizontal("available_at", STORED)
    rows = rows.with_columns(readable=readable).sort("readable", "available_at", maintain_order=True)
    # What is older than a value that could be read before it never counts.
    newest = pl.col("available_at").cum_max().over(_keys(rows))
    return rows.filter(pl.col("available_at") == newest).with_columns(available_at="readable").drop("readable")


def _keys(rows: pl.LazyFrame) -> list[str]:
    names = rows.collect_schema().names()
    return [key for key in KEYS if key in names]
