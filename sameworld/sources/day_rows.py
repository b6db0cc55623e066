"""The impressions of one shown day, as known at the end of some later day: what one part of a table is made from.

A part must not change when later days arrive. So it reads the days up to its own end only, and where a later look at
the whole log took impressions out, it asks again which of them stood by then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property

import polars as pl

from sameworld.sources.log_table import impressions_gone
from sameworld.sources.standing import DUPLICATE, SAME_ARRIVAL
from sameworld.store.artifacts import fingerprint_of
from sameworld.store.log import VIEW_PREFIX, Log
from sameworld.store.times import day_end, day_start, parse_day, time_text

# A request whose impressions straddle midnight belongs to the day on which it began; one that goes on longer is two.
LONGEST_REQUEST = timedelta(hours=1)
# What these verdicts say was known when the row arrived; the others depend on what came later.
KNOWN_AT_ONCE = (DUPLICATE, SAME_ARRIVAL)
_BEGAN, _PLACE = "sameworld: began", "sameworld: request"


@dataclass(frozen=True)
class DayRows:
    """The impressions of requests that began on ``day``, as known at ``until``, the end of a day of arrival.

    matures_after : window + landing lag, after which an impression's label is closed
    log : the days of arrival from the eve of ``day`` up to ``until``, with the rows that stood by then
    The fingerprint covers all of it, so equal knowledge gives equal parts.
    """

    day: date
    until: datetime
    matures_after: timedelta
    log: Log

    @classmethod
    def of(cls, log: Log, day: date, *, matures_after: timedelta, cutoff: datetime) -> DayRows:
        """Read a day at its maturity, or at the cutoff where that comes first.

        The maturity of a day is the end of the day in which its last impression closes.
        """
        closes = day_end(day) + LONGEST_REQUEST + matures_after
        matured = closes if closes == day_start(closes.date()) else day_end(closes.date())
        until = min(matured, cutoff)
        return cls(day, until, matures_after, known_until(log, day - timedelta(days=1), until))

    @cached_property
    def fingerprint(self) -> str:
        """The hash over what is read and how far it reaches."""
        return fingerprint_of(
            {
                "day": self.day.isoformat(),
                "until": time_text(self.until),
                "matures_after_seconds": self.matures_after.total_seconds(),
                "days": [one.fingerprint for one in self.log.days],
                "gone": self.log.gone.with_columns(pl.col("day").cast(pl.String)).sort("day", "table", "row").rows(),
            }
        )

    def impressions(self, columns: Sequence[str] | None = None) -> pl.LazyFrame:
        """Return the day's impressions, a request's rows together, in the order of time; columns None: all."""
        begin, end = day_start(self.day), day_end(self.day)
        shown = pl.col("shown_at")
        rows = self.log.table("impressions").filter(
            shown >= begin - LONGEST_REQUEST, shown < end + LONGEST_REQUEST, pl.col("arrived_at") < self.until
        )
        names = rows.collect_schema().names()
        wanted = [name for name in (names if columns is None else columns) if name in names]
        needed = dict.fromkeys([*wanted, "request_id", "item_id", "shown_at", "position"])
        rows = rows.select(*needed, pl.col("shown_at").min().over("request_id").alias(_BEGAN))
        rows = rows.filter(pl.col(_BEGAN) >= begin, pl.col(_BEGAN) < end)
        # Numbers sort many times faster than ids; requests whose hashes are equal still stand apart by their ids.
        order = [_BEGAN, _PLACE, "position"]
        rows = rows.with_columns(pl.col("request_id").hash(seed=1).alias(_PLACE)).sort(order, maintain_order=True)
        return rows.select(wanted)


def known_until(log: Log, first: date, until: datetime) -> Log:
    """Return the log's days of arrival from ``first`` up to ``until``, with the rows that stood by then."""
    days = tuple(
        day
        for day in log.days
        if first <= parse_day(day.record["day"]) and day_end(parse_day(day.record["day"])) <= until
    )
    dates = [parse_day(day.record["day"]) for day in days]
    gone = log.gone.filter(pl.col("day").is_in(dates))
    at_once = gone.filter(pl.col("reason").is_in(KNOWN_AT_ONCE))
    later = gone.filter(~pl.col("reason").is_in(KNOWN_AT_ONCE), pl.col("table") == "impressions")
    if len(later):
        impressions = impressions_gone(days, waits=log.waits, until=until)
        at_once = pl.concat([at_once.filter(pl.col("table") != "impressions"), impressions])
    return Log(log.resolved, days, at_once)


def shown_days(log: Log, *, since: datetime, cutoff: datetime) -> list[date]:
    """Return the days on which impressions known at the cutoff can have been shown, oldest first."""
    arrived = [parse_day(day.record["day"]) for day in log.days if "impressions.parquet" in day.files]
    if not arrived:
        return []
    first = max(since.date(), min(arrived) - timedelta(days=1))
    last = (cutoff - timedelta(microseconds=1)).date()
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


@dataclass(frozen=True)
class ViewRows:
    """The feature views that a part may join: those of ``columns`` in the days up to the part's end.

    Their newest arrival wins by itself, so only rows that contradict each other at one instant are left out.
    """

    log: Log
    columns: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, log: Log, wanted: Mapping[str, Sequence[str]], until: datetime) -> ViewRows:
        """Read the views that have arrived by ``until``; one that has not yet is left out."""
        tables = [f"{VIEW_PREFIX}{view}" for view in sorted(wanted)]
        days = tuple(
            day
            for day in log.days
            if day_end(parse_day(day.record["day"])) <= until and any(f"{name}.parquet" in day.files for name in tables)
        )
        dates = [parse_day(day.record["day"]) for day in days]
        tied = pl.col("table").is_in(tables) & (pl.col("reason") == SAME_ARRIVAL) & pl.col("day").is_in(dates)
        known = Log(log.resolved, days, log.gone.filter(tied))
        return cls(known, {view: wanted[view] for view in sorted(wanted) if known.has(f"{VIEW_PREFIX}{view}")})

    @cached_property
    def fingerprint(self) -> str:
        """The hash over the days that brought the views and the rows left out."""
        gone = self.log.gone.with_columns(pl.col("day").cast(pl.String)).sort("day", "table", "row")
        return fingerprint_of({"days": [one.fingerprint for one in self.log.days], "gone": gone.rows()})
