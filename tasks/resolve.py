"""Looks across the days as of a cutoff: which rows no longer stand, and the sums of the whole log.

The rule is the one within a day (``sameworld.sources.standing``), so a log delivered in one day or in ten resolves the
same. An outcome whose impression is not there waits as long as impressions take to land; then it is an orphan.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from sameworld.records import Cannot, Refused
from sameworld.sources.contract import Layout, layout_of
from sameworld.sources.day_table import OPEN_FATES, arrival
from sameworld.sources.standing import (
    CONFLICT,
    DUPLICATE,
    ORPHAN,
    PLACE,
    VERDICTS,
    key_hash,
    losers,
    taken,
)
from sameworld.store.artifacts import Artifact
from sameworld.store.step import Work, step
from sameworld.store.times import day_end, parse_day, time_text

LAG_QUANTILE = 0.99
GONE = {"day": pl.Date, "table": pl.String, "row": pl.UInt32, "reason": pl.String}
_DAY_SHIFT = 2**32  # a row's place in the log: its day's number, then its row in that day's file


@step()
def run(work: Work, *, days: list[Artifact]) -> None:
    """Write the rows that no longer stand at the cutoff, and the whole log's sums."""
    if not days:
        work.record = Cannot(f"the log has no day before {time_text(work.now)}").as_record()
        return
    _refuse_unfinished(days, work.now)
    tables = {name: _resolved(_LogTable(name, days)) for name in _tables(days)}
    lags = _take_out_orphans(tables, work.now)
    sums = {name: _sums(table, days) for name, table in tables.items()}
    work.write("gone", _gone(tables, days))
    work.rows = sum(one["rows_in"] for one in sums.values())
    work.record |= {
        "cutoff": time_text(work.now),
        "days": [{"day": day.record["day"], "fingerprint": day.fingerprint} for day in days],
        "first_day": days[0].record["day"],
        "last_day": days[-1].record["day"],
        "tables": sums,
        "lag_used_hours": {name: lag / timedelta(hours=1) for name, lag in lags.items()},
        "ignored": _ignored(days),
    }


class _LogTable:
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
class _Resolved:
    """A table's marks, split into the rows that stand and the verdicts on those that do not."""

    table: _LogTable
    rows: int
    standing: pl.DataFrame
    gone: pl.DataFrame

    def take_out(self, verdicts: pl.DataFrame) -> None:
        """Move rows from those that stand to those that do not."""
        if verdicts.height:
            self.standing = self.standing.join(verdicts, on=PLACE, how="anti", maintain_order="left")
            self.gone = pl.concat([self.gone, verdicts])


def _resolved(table: _LogTable) -> _Resolved:
    marks = table.marks()
    found = _Resolved(table, marks.height, marks, pl.DataFrame(schema=VERDICTS))
    found.take_out(losers(marks, table.layout, table.fetch))
    if "spot" in marks.columns:
        found.take_out(taken(found.standing.select(PLACE, key="spot"), table.fetch))
    return found


def _take_out_orphans(tables: Mapping[str, _Resolved], cutoff: datetime) -> dict[str, timedelta]:
    """Take out what waits longer for its parent than parents take to land; return the waits by parent table."""
    lags = {}
    for child, parent in (("impressions", "requests"), ("outcomes", "impressions")):
        if child in tables and parent in tables and tables[parent].standing.height:
            lags[parent] = _landing_lag(tables[parent].standing)
            alone = tables[child].standing.join(
                tables[parent].standing, left_on="parent", right_on="key", how="anti", maintain_order="left"
            )
            overdue = alone.filter(pl.col("event") + lags[parent] <= cutoff)
            tables[child].take_out(overdue.select(PLACE, reason=pl.lit(ORPHAN)))
    return lags


def _landing_lag(standing: pl.DataFrame) -> timedelta:
    lag = standing.select(pl.col("lag").dt.total_microseconds().quantile(LAG_QUANTILE, "higher")).item()
    return timedelta(microseconds=int(lag))


def _refuse_unfinished(days: list[Artifact], cutoff: datetime) -> None:
    dates = [parse_day(day.record["day"]) for day in days]
    if dates != sorted(set(dates)):
        raise Refused(
            what="a log's days are not in order", got=", ".join(map(str, dates)), wanted="each once, oldest first"
        )
    if day_end(dates[-1]) > cutoff:
        raise Refused(what="a day of the log ends after the cutoff", got=str(dates[-1]), wanted=f"days before {cutoff}")


def _tables(days: list[Artifact]) -> list[str]:
    return sorted({name for day in days for name in day.record["tables"]})


def _sums(found: _Resolved, days: list[Artifact]) -> dict[str, Any]:
    of_days = [day.record["tables"][found.table.name] for day in days if found.table.name in day.record["tables"]]
    across = Counter(found.gone["reason"].to_list())
    duplicates, conflicts = across.pop(DUPLICATE, 0), across.pop(CONFLICT, 0)
    quarantined = across + Counter(
        {
            reason: sum(one["quarantined"].get(reason, 0) for one in of_days)
            for reason in {reason for one in of_days for reason in one["quarantined"]} - set(OPEN_FATES)
        }
    )
    sums = {
        "rows_in": sum(one["rows_in"] for one in of_days),
        "kept": found.standing.height,
        "duplicates": duplicates + sum(one["duplicates"] for one in of_days),
        "conflicts": conflicts,
        "quarantined": dict(sorted(quarantined.items())),
    }
    _refuse_lost_rows(found.table.name, sums)
    return sums


def _refuse_lost_rows(table: str, sums: Mapping[str, Any]) -> None:
    told = sums["kept"] + sums["duplicates"] + sums["conflicts"] + sum(sums["quarantined"].values())
    if told != sums["rows_in"]:
        raise Refused(what=f"the rows of {table} do not add up", got=f"{told} of {sums['rows_in']} rows in",
                      wanted="rows in = kept + duplicates + conflicts + quarantined")  # fmt: skip


def _gone(tables: Mapping[str, _Resolved], days: list[Artifact]) -> pl.DataFrame:
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


def _ignored(days: list[Artifact]) -> dict[str, list[str]]:
    """Return the columns that no step reads, by table: the report has a line for them."""
    names: dict[str, set[str]] = {}
    for day in days:
        for table, columns in day.record["ignored"].items():
            names.setdefault(table, set()).update(columns)
    return {table: sorted(names[table]) for table in sorted(names)}
