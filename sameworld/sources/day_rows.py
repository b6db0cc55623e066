"""The impressions of one shown day, as known at the end of some later day: what one part of a table is made from.

A part must not change when later days arrive. So it reads the days up to its own end only, and where a later look at
the whole log took impressions out, it asks again which of them stood by then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sameworld.sources.log_table import impressions_gone
from sameworld.sources.standing import DUPLICATE, SAME_ARRIVAL
from sameworld.store.artifacts import fingerprint_of
from sameworld.store.log import DAY_SHIFT, ROW, VIEW_PREFIX, Log
from sameworld.store.parquet_facts import span_of
from sameworld.store.times import day_end, day_start, parse_day, time_text

# A request whose impressions straddle midnight belongs to the day on which it began; one that goes on longer is two.
LONGEST_REQUEST = timedelta(hours=1)
# What these verdicts say was known when the row arrived; the others depend on what came later.
KNOWN_AT_ONCE = (DUPLICATE, SAME_ARRIVAL)
PLACE = "sameworld: place"
INSTANT = pl.Datetime("us", "UTC")
_CHOSEN = "sameworld: chosen"
_EPOCH = date(1970, 1, 1)


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

    def narrow(self, columns: Sequence[str]) -> pl.DataFrame:
        """Return a few columns of the day's impressions, with request_id, shown_at and PLACE, in the part's order.

        PLACE is a row's place in the log: its arrival day's number, then its row in that day's file. The order is the
        log's own, but rows of requests that do not stand together follow after all others. A column that the log lacks
        is not there.
        """
        begin, end = day_start(self.day), day_end(self.day)
        if not self.log.has("impressions"):
            return pl.DataFrame(
                schema={"request_id": pl.String, "item_id": pl.String, "shown_at": INSTANT, PLACE: pl.Int64}
            )
        least, most = begin - LONGEST_REQUEST, end + LONGEST_REQUEST
        near = pl.col("shown_at").is_between(least, most, closed="left")
        seen = _with_days_showing(self.log, columns, least, most).table("impressions", placed=True).filter(near)
        names = seen.collect_schema().names()
        wanted = dict.fromkeys(["request_id", "shown_at", *(name for name in columns if name in names)])
        place = pl.col("arrival_day").to_physical().cast(pl.Int64) * DAY_SHIFT + pl.col(ROW).cast(pl.Int64)
        rows = seen.select(*wanted, place.alias(PLACE)).collect(engine="streaming")
        return began_between(rows, begin, end)

    def impressions(
        self, columns: Sequence[str] | None = None, *, places: NDArray[np.int64] | None = None
    ) -> pl.LazyFrame:
        """Return the day's impressions, in the part's order; columns None: all.

        places : where they are known already, as the labels' part keeps them; else ``narrow`` finds them
        A column that no file with rows of this day has is not there.
        """
        places = self.narrow(())[PLACE].to_numpy() if places is None else places
        falls = np.flatnonzero(np.diff(places) <= 0)
        rising = int(falls[0]) + 1 if len(falls) else len(places)
        parts = self._read(places[:rising], columns)
        if rising < len(places):
            rest = places[rising:]
            rows = pl.concat(self._read(np.sort(rest), columns), how="diagonal_relaxed").collect(engine="streaming")
            parts.append(rows[np.argsort(np.argsort(rest))].lazy())
        if not parts:
            empty = self.log.table("impressions").clear()
            return empty.select(columns or pl.all())
        return pl.concat(parts, how="diagonal_relaxed")

    def _read(self, places: NDArray[np.int64], columns: Sequence[str] | None) -> list[pl.LazyFrame]:
        """Return the rows at places in ascending order, file by file; of a file only the stretch that they span."""
        found = []
        for day in self.log.days:
            arrived = parse_day(day.record["day"])
            number = (arrived - _EPOCH).days * DAY_SHIFT
            first, last = np.searchsorted(places, (number, number + DAY_SHIFT))
            if last > first:
                frame = day.scan("impressions").with_columns(arrival_day=pl.lit(arrived))
                names = frame.collect_schema().names()
                chosen = frame.select(names if columns is None else [name for name in columns if name in names])
                found.append(_stretch(chosen, places[first:last] - number))
        return found


def _with_days_showing(log: Log, columns: Sequence[str], least: datetime, most: datetime) -> Log:
    """Return the log with the days of arrival whose impressions were shown in ``[least, most)``, by the files' footers.

    Where those lack one of the columns that the log has, all days are read: the column is null then, not unknown.
    """
    file = "impressions.parquet"
    arrived = [day for day in log.days if file in day.files]
    spans = [span_of(day.path(file), "shown_at") or (least, least) for day in arrived]
    days = tuple(day for day, (low, high) in zip(arrived, spans, strict=True) if low < most and high >= least)
    known = [set(day.manifest["files"][file]["schema"]) for day in days]
    elsewhere = set().union(*(day.manifest["files"][file]["schema"] for day in arrived)) - set().union(*known)
    return log if not days or elsewhere & set(columns) else replace(log, days=days)


def runs_of(places: NDArray[np.int64]) -> pl.DataFrame:
    """Return places as runs of following numbers: the first of each, and its length.

    >>> runs_of(np.array([4, 5, 6, 9])).rows()
    [(4, 3), (9, 1)]
    """
    first = np.flatnonzero(np.diff(places, prepend=places[:1] - 2) != 1)
    return pl.DataFrame({"first": places[first], "length": np.diff(np.append(first, len(places)))})


def places_of(runs: pl.DataFrame) -> NDArray[np.int64]:
    """Return the places that ``runs_of`` was given.

    >>> places_of(runs_of(np.array([4, 5, 6, 9]))).tolist()
    [4, 5, 6, 9]
    """
    first, length = runs["first"].to_numpy(), runs["length"].to_numpy()
    return np.repeat(first - (np.cumsum(length) - length), length) + np.arange(length.sum())


def _stretch(frame: pl.LazyFrame, rows: NDArray[np.int64]) -> pl.LazyFrame:
    """Return the rows of these ascending numbers."""
    first, span = int(rows[0]), int(rows[-1] - rows[0]) + 1
    frame = frame.slice(first, span)
    if span == len(rows):
        return frame
    chosen = np.zeros(span, np.bool_)
    chosen[rows - first] = True
    mask = pl.LazyFrame({_CHOSEN: chosen})
    return pl.concat([frame, mask], how="horizontal").filter(_CHOSEN).drop(_CHOSEN)


def began_between(rows: pl.DataFrame, begin: datetime, end: datetime) -> pl.DataFrame:
    """Return the rows of requests whose earliest row was shown in ``[begin, end)``, a request's rows together.

    rows : with request_id and shown_at
    The rows keep their order, but those of requests that do not stand together follow after all others.

    >>> rows = pl.DataFrame({"request_id": ["a", "b", "a", "c"], "shown_at": [datetime(2026, 3, 1, 12)] * 4})
    >>> began_between(rows, datetime(2026, 3, 1), datetime(2026, 3, 2))["request_id"].to_list()
    ['b', 'c', 'a', 'a']
    """
    if not len(rows):
        return rows
    request = rows["request_id"]
    first = (request != request.shift()).fill_null(value=True).arg_true().to_numpy()  # of each unbroken run of rows
    length = np.diff(np.append(first, len(rows)))
    earliest = np.minimum.reduceat(rows["shown_at"].to_physical().to_numpy(), first)
    runs = pl.DataFrame({"request_id": request.gather(first), "first": first, "length": length, "began": earliest})
    runs = runs.with_columns(torn=pl.col("request_id").is_duplicated())
    if runs["torn"].any():
        over = runs.group_by("request_id").agg(pl.col("began").min(), beginning=pl.col("first").min())
        runs = runs.drop("began").join(over, on="request_id", how="left", maintain_order="left")
        runs = runs.sort("torn", pl.when("torn").then("beginning").otherwise("first"), "first")
    bounds = pl.Series([begin, end]).cast(rows.schema["shown_at"]).to_physical()
    runs = runs.filter(pl.col("began").is_between(bounds[0], bounds[1], closed="left"))
    starts, lengths = runs["first"].to_numpy().astype(np.int64), runs["length"].to_numpy()
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    chosen = np.repeat(starts, lengths) + within
    if runs["torn"].any():
        return rows.select(pl.all().gather(chosen))
    mask = np.zeros(len(rows), np.bool_)
    mask[chosen] = True
    return rows.filter(mask)


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
