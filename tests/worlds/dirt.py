"""Plants known faults in a clean drop, and says what a reader must count.

``plant`` spoils rows, the functions of ``worlds.damage`` (importable from here) spoil files. The verdicts follow the
contract's section 1 as read at the end of the drop's last day. A row has one fault, the first in REASONS that holds;
planted rows are disjoint, and none makes a clean row an orphan. What is not planted, because the contract leaves it
open or an earlier reason always covers it: ``future_timestamp``; nulls in times; contradictions within a view.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from worlds.damage import (
    change_type,
    drop_column,
    empty_table,
    flip_byte,
    invalid_utf8,
    naive_timestamps,
    remove_success,
    rename_column,
    scale_day,
    truncate_file,
)
from worlds.faults import BY_TABLE, NEEDS_CANDIDATES, NEEDS_REQUESTS, VIEW_FAULTS, Fault
from worlds.sites import CONFLICT, DUPLICATE, KEPT, KEYS, Planting, Site

__all__ = [
    "REASONS",
    "Expected",
    "Sums",
    "change_type",
    "drop_column",
    "empty_table",
    "flip_byte",
    "invalid_utf8",
    "naive_timestamps",
    "plant",
    "remove_success",
    "rename_column",
    "scale_day",
    "truncate_file",
]

REASONS = (
    "null_key",
    "arrived_before_shown",
    "arrived_before_happened",
    "arrived_outside_day",
    "future_timestamp",
    "bad_position",
    "position_taken",
    "not_finite",
    "bad_propensity",
    "conflict_same_arrival",
    "orphan",
    "bad_text",
    "out_of_range_time",
)
_MARGIN = timedelta(seconds=1)


@dataclass(frozen=True)
class Sums:
    """What a reader must count in one table at the end of the drop; ``conflicts`` are the rows that lost."""

    rows_in: int
    duplicates: int
    conflicts: int
    quarantined: Mapping[str, int]

    @property
    def kept(self) -> int:
        """Rows in less all others."""
        return self.rows_in - self.duplicates - self.conflicts - sum(self.quarantined.values())


@dataclass(frozen=True)
class Expected:
    """The sums by table, and every planted row with its verdict (``winner``: the column and value that must stand)."""

    tables: Mapping[str, Sums]
    plantings: tuple[Planting, ...]

    def of(self, fault: str) -> tuple[Planting, ...]:
        """Return what one fault planted and spoiled."""
        return tuple(planting for planting in self.plantings if planting.fault == fault)


def plant(drop_path: Path, seed: int, *, without: Collection[str] = ()) -> Expected:
    """Plant two to four rows of each fault (a function of ``worlds.faults``) that the drop's tables can have.

    without : names of faults to leave out
    Raises ValueError where the drop is too small: six days and some 60 requests a day are enough.
    """
    tables = _tables(drop_path)
    days = sorted(path.name.removeprefix("day=") for path in drop_path.glob("day=*"))
    if len(days) < 6:
        raise ValueError(f"{drop_path} has {len(days)} days; 6 are needed, so that faults can be old and young")
    first = datetime.fromisoformat(days[0]).replace(tzinfo=UTC)
    plantings: list[Planting] = []
    for number, (table, (rows, day)) in enumerate(tables.items()):
        rng = np.random.default_rng([seed, number])
        deck = _deck(table, rows, day, tables, rng, first, len(days))
        top = max(rows["position"].to_pylist()) if table == "impressions" else 0
        site = Site(table, first, len(days), deck, rng, top=top, keys=_keys(table, rows))
        for fault in _faults(table, tables, without):
            site.fault = fault.__name__
            fault(site)
        plantings += site.plantings
    _write(drop_path, days, plantings)
    return Expected(
        {table: _sums(table, len(rows), plantings) for table, (rows, _) in tables.items()}, tuple(plantings)
    )


def _faults(table: str, tables: Mapping[str, Any], without: Collection[str]) -> list[Fault]:
    missing = set(without) | (set() if "requests" in tables else NEEDS_REQUESTS)
    if "requests" in tables and "candidates" not in tables["requests"][0].column_names:
        missing |= NEEDS_CANDIDATES
    return [fault for fault in BY_TABLE.get(table, VIEW_FAULTS) if fault.__name__ not in missing]


def _keys(table: str, rows: pa.Table) -> tuple[str, ...]:
    if table in KEYS:
        return KEYS[table]
    return (*(key for key in ("user_id", "item_id") if key in rows.column_names), "available_at")


def _tables(drop_path: Path) -> dict[str, tuple[pa.Table, list[int]]]:
    """Return each table's rows and the index of the day in whose folder each lies."""
    found: dict[str, list[tuple[pa.Table, int]]] = defaultdict(list)
    for index, day in enumerate(sorted(drop_path.glob("day=*"))):
        for file in sorted(day.rglob("*.parquet")):
            found[file.parent.relative_to(day).as_posix()].append((pq.ParquetFile(file).read(), index))
    return {
        table: (pa.concat_tables([rows for rows, _ in parts]), [day for rows, day in parts for _ in range(len(rows))])
        for table, parts in sorted(found.items())
    }


def _deck(
    table: str,
    rows: pa.Table,
    day: list[int],
    tables: Mapping[str, tuple[pa.Table, list[int]]],
    rng: np.random.Generator,
    first: datetime,
    days: int,
) -> list[tuple[Any, int]]:
    """Return a shuffled sample of rows that may be spoiled, as ``Site`` wants them."""
    keys = KEYS["outcomes"] if table == "outcomes" else KEYS["impressions"]
    counts = Counter(_columns(tables["outcomes"][0], keys))
    busy = {key for key, count in counts.items() if count > (table == "outcomes")}  # has an outcome, or a retraction
    chosen: list[tuple[Any, int]] = []
    seen: set[str] = set()
    for index in rng.permutation(len(rows))[:4000].tolist():
        if not 1 <= day[index] <= days - 4 or len(chosen) == 200:
            continue
        row = rows.slice(index, 1).to_pylist()[0]
        group, key = row.get("request_id", str(index)), tuple(row.get(name) for name in keys)
        if group not in seen and key not in busy and _quiet(row, first + timedelta(days=day[index])):
            seen.add(group)
            chosen.append((row, day[index]))
    return chosen


def _columns(rows: pa.Table, names: tuple[str, ...]) -> list[tuple[Any, ...]]:
    return list(zip(*(rows[name].to_pylist() for name in names), strict=True))


def _quiet(row: Mapping[str, Any], start: datetime) -> bool:
    """Whether a row leaves room for another arrival before its day's end and, as an outcome, before its own."""
    if "arrived_at" not in row:
        return all(row[key] is not None for key in row if key.endswith("_id"))
    room = row["arrived_at"] < start + timedelta(days=1) - _MARGIN
    return room and (
        "happened_at" not in row
        or (not row["retracted"] and row["happened_at"] >= start and row["arrived_at"] > row["happened_at"] + _MARGIN)
    )


def _sums(table: str, clean: int, plantings: list[Planting]) -> Sums:
    mine = [planting for planting in plantings if planting.table == table]
    verdicts = Counter(planting.verdict for planting in mine)
    quarantined = {reason: verdicts[reason] for reason in REASONS if verdicts[reason]}
    assert set(verdicts) <= {KEPT, DUPLICATE, CONFLICT, *REASONS}, f"unknown verdict in {verdicts}"
    rows_in = clean + sum(planting.added for planting in mine)
    return Sums(rows_in, verdicts[DUPLICATE], verdicts[CONFLICT], quarantined)


def _write(drop_path: Path, days: list[str], plantings: list[Planting]) -> None:
    """Append planted rows to the day's first file on even days, and write a file of their own on odd ones."""
    groups: dict[tuple[str, int], list[Planting]] = defaultdict(list)
    for planting in plantings:
        if planting.added:
            groups[planting.table, planting.day].append(planting)
    for (table, day), group in groups.items():
        schema = pq.ParquetFile(next(drop_path.glob(f"day=*/{table}/*.parquet"))).schema_arrow
        rows = pa.Table.from_pylist([planting.row for planting in group], schema=schema)
        folder = drop_path / f"day={days[day]}" / table
        folder.mkdir(parents=True, exist_ok=True)
        old = sorted(folder.glob("*.parquet"))
        if old and day % 2 == 0:
            pq.write_table(pa.concat_tables([pq.ParquetFile(old[0]).read(), rows]), old[0])
        else:
            pq.write_table(rows, folder / "planted.parquet")
