"""The log is artifacts too: one for each day of arrival, and records of which delivery of a day counts from when.

``log/day=YYYY-MM-DD/000001.json`` names the first delivery of that day. A knowing redelivery adds ``000002.json`` with
the cutoff from which it is seen; older cutoffs go on seeing the older delivery, so what they gave stays exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl

from sameworld.records import Refused
from sameworld.store.artifacts import Artifact, Store, canonical, read_record
from sameworld.store.times import parse_day, parse_time, time_text

TABLES = ("requests", "impressions", "outcomes", "candidates")
VIEW_PREFIX = "features."
ROW = "sameworld: row"  # a row's number in its day's file
DAY_SHIFT = 2**32  # a row's place in a log: its day's number times this, and ROW


@dataclass(frozen=True)
class Delivery:
    """One delivery of a day: the hashes of its files by table, its artifact, and since which cutoff it is seen."""

    day: date
    number: int
    content: Mapping[str, list[str]]
    fingerprint: str
    seen_from: datetime | None

    def as_record(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "day": self.day.isoformat(),
            "number": self.number,
            "content": {table: list(hashes) for table, hashes in self.content.items()},
            "fingerprint": self.fingerprint,
            "seen_from": time_text(self.seen_from) if self.seen_from else None,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Delivery:
        """Read the JSON form."""
        seen_from = record["seen_from"]
        return cls(
            day=parse_day(record["day"]),
            number=int(record["number"]),
            content=record["content"],
            fingerprint=str(record["fingerprint"]),
            seen_from=parse_time(seen_from) if seen_from else None,
        )


def deliveries(store: Store) -> dict[date, list[Delivery]]:
    """Return every delivery by day, oldest first."""
    found: dict[date, list[Delivery]] = {}
    for key in store.blobs.keys("log"):
        delivery = read_record(store, key, Delivery.from_record)
        if delivery is not None:
            found.setdefault(delivery.day, []).append(delivery)
    return {day: sorted(found[day], key=lambda one: one.number) for day in sorted(found)}


def delivery_seen(of_day: list[Delivery], cutoff: datetime) -> Delivery:
    """Return the newest delivery of a day that a cutoff sees; the first is seen by all."""
    return [one for one in of_day if one.seen_from is None or one.seen_from <= cutoff][-1]


def record_delivery(store: Store, delivery: Delivery) -> Delivery:
    """Write a delivery's record; where another run wrote the same number first, theirs stands if it says the same."""
    key = f"log/day={delivery.day.isoformat()}/{delivery.number:06d}.json"
    if store.blobs.put_if_absent(key, canonical(delivery.as_record())):
        return delivery
    standing = read_record(store, key, Delivery.from_record)
    if standing is None or standing.as_record()["content"] != delivery.as_record()["content"]:
        raise Refused(what=f"another run took in {delivery.day} with other files", remedy="run again")
    return standing


@dataclass(frozen=True)
class Log:
    """The log as of a cutoff: day artifacts, and which of their rows no longer stand.

    ``resolved`` is the artifact of the ``resolve`` step: its record lists the days' fingerprints in order, its table
    ``gone`` (day, table, row, reason) the rows that a later look at the whole log took out.
    """

    resolved: Artifact
    days: tuple[Artifact, ...]
    gone: pl.DataFrame

    @classmethod
    def open(cls, resolved: Artifact, store: Store) -> Log:
        """Open the log that a resolve step describes."""
        found = []
        for entry in resolved.record["days"]:
            artifact = store.find("ingest", entry["fingerprint"])
            if artifact is None:
                raise Refused(what=f"the log's day {entry['day']} is gone", remedy="run the day again")
            found.append(artifact)
        return cls(resolved, tuple(found), resolved.scan("gone").collect())

    @property
    def waits(self) -> dict[str, timedelta]:
        """How long a row waits for its parent table's row before it is an orphan, by parent table."""
        return {name: timedelta(hours=hours) for name, hours in self.resolved.record["lag_used_hours"].items()}

    def has(self, table: str) -> bool:
        """Say whether any day delivered rows of this table."""
        return any(f"{table}.parquet" in day.files for day in self.days)

    def views(self) -> tuple[str, ...]:
        """Return the names of the feature views that any day delivered."""
        names = {file[len(VIEW_PREFIX) : -len(".parquet")] for day in self.days for file in day.files}
        return tuple(sorted(name for name in names if self.has(f"{VIEW_PREFIX}{name}")))

    def table(self, name: str, *, arrival_days: tuple[date, date] | None = None, placed: bool = False) -> pl.LazyFrame:
        """Return a table's standing rows, in the order of arrival days, with a column ``arrival_day``.

        name : a table of the contract, or ``features.<view>``
        arrival_days : the first and last day of arrival to read; default all
        placed : with the column ROW too, each row's number in its day's file

        Columns that a day lacks are null there; a feature of whole numbers on one day and of fractions on another has
        fractions. Conflict losers among outcomes stay in: which of them counts depends on when the label closed. An
        outcome's ``value`` is 1 where the drop had null.
        """
        gone = self._gone(name)
        parts = []
        for artifact in self.days:
            day = parse_day(artifact.record["day"])
            if f"{name}.parquet" in artifact.files and (not arrival_days or arrival_days[0] <= day <= arrival_days[1]):
                parts.append(_standing(artifact.scan(name, row_index=ROW), gone.get(day), day))
        if not parts:
            raise Refused(what=f"the log has no table {name!r}", wanted="at least one day with it")
        rows = pl.concat(parts, how="diagonal_relaxed")
        rows = rows if placed else rows.drop(ROW)
        return rows.with_columns(pl.col("value").fill_null(1.0)) if name == "outcomes" else rows

    def _gone(self, table: str) -> dict[date, pl.Series]:
        frame = self.gone.filter(pl.col("table") == table)
        if table == "outcomes":
            frame = frame.filter(pl.col("reason") != "conflict")
        by_day = frame.select("day", "row").partition_by("day", as_dict=True)
        return {key[0]: part["row"] for key, part in by_day.items()}


def _standing(frame: pl.LazyFrame, gone: pl.Series | None, day: date) -> pl.LazyFrame:
    if gone is not None and len(gone):
        frame = frame.filter(~pl.col(ROW).is_in(gone.implode()))
    return frame.with_columns(arrival_day=pl.lit(day))
