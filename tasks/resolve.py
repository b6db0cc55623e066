"""Looks across the days as of a cutoff: which rows no longer stand, and the sums of the whole log.

The rule is the one within a day (``sameworld.sources.standing``), so a log delivered in one day or in ten resolves the
same. An outcome whose impression is not there waits as long as impressions take to land; then it is an orphan.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import polars as pl

from sameworld.records import Cannot, Refused
from sameworld.sources.day_marks import Unmarked
from sameworld.sources.day_table import OPEN_FATES
from sameworld.sources.log_table import (
    DayPlaces,
    LogDays,
    LogTable,
    Resolved,
    gone_of,
    layouts_of,
    resolved,
    take_out_orphans,
)
from sameworld.sources.standing import CONFLICT, DUPLICATE
from sameworld.store.artifacts import Artifact
from sameworld.store.step import Work, step
from sameworld.store.times import day_end, parse_day, time_text


@step()
def mark_day(work: Work, *, rows: Unmarked) -> None:
    """Mark a day's rows by the hashes and times that a look at the whole log needs of them."""
    marks = rows.marks()
    work.rows = sum(len(frame) for name, frame in marks.items() if name.startswith("rows."))
    work.record = {"day": rows.day.record["day"]}
    for name, frame in marks.items():
        work.write(name, frame)


@step()
def copy_rows(work: Work, *, rows: DayPlaces) -> None:
    """Copy a day's contested rows, so that later days' looks need not read the day's files for them again."""
    work.rows = len(rows.rows)
    work.write("rows", rows.read())


@step()
def run(work: Work, *, days: list[Artifact]) -> None:
    """Write the rows that no longer stand at the cutoff, and the whole log's sums."""
    if not days:
        work.record = Cannot(f"the log has no day before {time_text(work.now)}").as_record()
        return
    _refuse_unfinished(days, work.now)
    layouts = layouts_of(days)
    parts = work.each(lambda day: work.part(mark_day, rows=Unmarked(day, layouts), cutoff=_end(day)), days)
    log = LogDays(days, [_marks(part) for part in parts], lambda wanted: work.each(partial(_copied, work), wanted))
    tables = {name: resolved(LogTable(name, layout, log)) for name, layout in layouts.items()}
    lags = take_out_orphans(tables, work.now)
    sums = {name: _sums(table, days) for name, table in tables.items()}
    work.write("gone", gone_of(tables, days))
    work.rows = sum(one["rows_in"] for one in sums.values())
    work.record |= {
        "cutoff": time_text(work.now),
        "days": [{"day": day.record["day"], "fingerprint": day.fingerprint} for day in days],
        "marks": [part.fingerprint for part in parts],
        "first_day": days[0].record["day"],
        "last_day": days[-1].record["day"],
        "tables": sums,
        "lag_used_hours": {name: lag / timedelta(hours=1) for name, lag in lags.items()},
        "ignored": _ignored(days),
    }


def _refuse_unfinished(days: list[Artifact], cutoff: datetime) -> None:
    dates = [parse_day(day.record["day"]) for day in days]
    if dates != sorted(set(dates)):
        raise Refused(
            what="a log's days are not in order", got=", ".join(map(str, dates)), wanted="each once, oldest first"
        )
    if day_end(dates[-1]) > cutoff:
        raise Refused(what="a day of the log ends after the cutoff", got=str(dates[-1]), wanted=f"days before {cutoff}")


def _end(day: Artifact) -> str:
    return time_text(day_end(parse_day(day.record["day"])))


def _marks(part: Artifact) -> dict[str, pl.LazyFrame]:
    names = [name.removesuffix(".parquet") for name in part.files if name.endswith(".parquet")]
    return {name: part.scan(name) for name in names}


def _copied(work: Work, rows: DayPlaces) -> pl.LazyFrame:
    return work.part(copy_rows, rows=rows, cutoff=_end(rows.day)).scan("rows")


def _sums(found: Resolved, days: list[Artifact]) -> dict[str, Any]:
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
        "kept": found.kept,
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


def _ignored(days: list[Artifact]) -> dict[str, list[str]]:
    """Return the columns that no step reads, by table: the report has a line for them."""
    names: dict[str, set[str]] = {}
    for day in days:
        for table, columns in day.record["ignored"].items():
            names.setdefault(table, set()).update(columns)
    return {table: sorted(names[table]) for table in sorted(names)}
