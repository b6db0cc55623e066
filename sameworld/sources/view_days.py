"""Which days of a view a join has to open: of a long log few, as the newest value before a row's time is rarely old."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import polars as pl

from sameworld.store.artifacts import Artifact
from sameworld.store.log import VIEW_PREFIX, Log
from sameworld.store.parquet_facts import span_of
from sameworld.store.times import parse_day
from sameworld.store.views import view_keys

ALWAYS = (datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC))
_AT = "available_at"


def with_days_to_join(log: Log, views: Iterable[str], shown: pl.DataFrame) -> Log:
    """Return the log with only those days that a point-in-time join of these rows can take a value from.

    shown : shown_at and the views' keys of the rows to join; a null key matches nothing
    """
    numbers: set[int] = set()
    if len(shown):
        for view in views:
            numbers |= _Reading.of(log, view, shown).days()
    return replace(log, days=tuple(day for number, day in enumerate(log.days) if number in numbers))


@dataclass
class _Reading:
    """A view's days, and what is known so far of the newest value before the first row, by key.

    spans : by the day's number, from when to when its values became available, as the files' footers say
    """

    log: Log
    view: str
    wanted: pl.DataFrame
    first: datetime
    last: datetime
    spans: dict[int, tuple[datetime, datetime]]
    newest: pl.DataFrame

    @classmethod
    def of(cls, log: Log, view: str, shown: pl.DataFrame) -> _Reading:
        keys = view_keys(log, view)
        first, last = shown.select(first=pl.col("shown_at").min(), last=pl.col("shown_at").max()).row(0)
        # Of one key, a column is made unique quicker than a frame of it.
        wanted = shown[keys[0]].unique().to_frame() if len(keys) == 1 else shown.select(keys).unique()
        wanted = wanted.drop_nulls()
        spans = {number: _span(day, view) for number, day in enumerate(log.days) if _file(view) in day.files}
        none = wanted.clear().with_columns(pl.lit(None, pl.Datetime("us", "UTC")).alias(_AT))
        return cls(log, view, wanted, first, last, spans, none)

    def days(self) -> set[int]:
        """Return the numbers of the days to open."""
        within = {number for number, (low, high) in self.spans.items() if low <= self.last and high > self.first}
        older = sorted((high, number) for number, (_, high) in self.spans.items() if high <= self.first)
        for number in sorted(within):
            self._read(number)
        while older and not self._settled(older[-1][0]):
            _, number = older.pop()
            self._read(number)
            within.add(number)
        return within | self._naming_columns(within)

    def _naming_columns(self, chosen: set[int]) -> set[int]:
        """Return the days to open for a column that none of the chosen has: there it is null, not unknown."""
        names = {
            number: set(self.log.days[number].manifest["files"][_file(self.view)]["schema"]) for number in self.spans
        }
        seen, found = set[str]().union(*(names[number] for number in chosen)), set()
        for number in sorted(names, reverse=True):
            if names[number] - seen:
                found.add(number)
                seen |= names[number]
        return found

    def _settled(self, newest_left: datetime) -> bool:
        """Say whether every wanted key has a value newer than any in the days that are left."""
        return len(self.newest) == len(self.wanted) and (
            not len(self.newest) or self.newest.select(pl.col(_AT).min()).item() > newest_left
        )

    def _read(self, number: int) -> None:
        day = parse_day(self.log.days[number].record["day"])
        table = self.log.table(f"{VIEW_PREFIX}{self.view}", arrival_days=(day, day)).filter(pl.col(_AT) <= self.first)
        keys = self.wanted.columns
        if not set(keys) <= set(table.collect_schema().names()):
            return
        found = table.select(*keys, _AT).collect(engine="streaming").join(self.wanted, on=keys, how="semi")
        self.newest = pl.concat([self.newest, found]).group_by(keys).agg(pl.col(_AT).max())


def _file(view: str) -> str:
    return f"{VIEW_PREFIX}{view}.parquet"


def _span(day: Artifact, view: str) -> tuple[datetime, datetime]:
    return span_of(day.path(_file(view)), _AT) or ALWAYS
