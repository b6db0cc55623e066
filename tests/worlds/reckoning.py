"""Counts a drop's rows as the contract says, row by row in plain Python: slow, obvious, and an oracle for small drops.

It shares nothing with the planting of faults, so the two check each other; and it counts as of any day's end.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from worlds.dirt import REASONS, Sums

Row = dict[str, Any]
_KEYS = {
    "requests": ("request_id",),
    "impressions": ("request_id", "item_id"),
    "candidates": ("request_id", "item_id"),
    "outcomes": ("request_id", "item_id", "kind", "happened_at"),
}
_RANGE = (datetime(2000, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC))
_ORDER = ("_day", "_fault", "_verdict")


def reckon(drop: Path, day: str) -> dict[str, Sums]:
    """Return the sums by table as of the end of ``day`` (``2026-03-09``)."""
    tables = _read(drop, day)
    cutoff = datetime.fromisoformat(day).replace(tzinfo=UTC) + timedelta(days=1)
    for table, rows in tables.items():
        for row in rows:
            row["_verdict"] = next(_row_faults(table, row), "kept")
        _resolve(table, rows)
    _find_orphans(tables, "impressions", ("request_id",), "requests", cutoff)
    _find_orphans(tables, "outcomes", ("request_id", "item_id"), "impressions", cutoff)
    return {table: _sums(rows) for table, rows in tables.items()}


def _read(drop: Path, last: str) -> dict[str, list[Row]]:
    tables: dict[str, list[Row]] = defaultdict(list)
    for day in sorted(drop.glob("day=*")):
        for file in sorted(day.rglob("*.parquet")) if day.name <= f"day={last}" else ():
            start = datetime.fromisoformat(day.name.removeprefix("day=")).replace(tzinfo=UTC)
            rows = pq.ParquetFile(file).read().to_pylist()
            tables[file.parent.relative_to(day).as_posix()] += [row | {"_day": start} for row in rows]
    return tables


def _key(table: str, row: Row) -> tuple[Any, ...]:
    names = _KEYS.get(table) or (*(name for name in ("user_id", "item_id") if name in row), "available_at")
    return tuple(row[name] for name in names)


def _row_faults(table: str, row: Row) -> Iterator[str]:
    """Yield the faults that a row has by itself, in the order of REASONS as far as they are in it."""
    arrived, shown, happened = row.get("arrived_at"), row.get("shown_at"), row.get("happened_at")
    if any(part is None for part in _key(table, row)):
        yield "null_key"
    if shown and arrived < shown:
        yield "arrived_before_shown"
    if happened and arrived < happened - timedelta(seconds=60):
        yield "arrived_before_happened"
    if arrived and not row["_day"] <= arrived < row["_day"] + timedelta(days=1):
        yield "arrived_outside_day"
    if table == "impressions" and row["position"] < 1:
        yield "bad_position"
    scores = [candidate["score"] for candidate in row.get("candidates") or ()]
    if any(number is not None and not math.isfinite(number) for number in [row.get("value"), *scores]):
        yield "not_finite"
    propensity = row.get("propensity")
    if propensity is not None and not math.isnan(propensity) and not 0 < propensity <= 1:
        yield "bad_propensity"
    if any(isinstance(part, str) and ("\0" in part or len(part) > 2**20) for part in _key(table, row)):
        yield "bad_text"
    if any(at is not None and not _RANGE[0] <= at < _RANGE[1] for at in (arrived, shown, happened)):
        yield "out_of_range_time"


def _resolve(table: str, rows: list[Row]) -> None:
    """Settle rows of one key, then items at one position."""
    for group in _grouped(rows, lambda row: (*_key(table, row), bool(row.get("retracted")))):
        by_value: dict[str, list[Row]] = defaultdict(list)
        for row in sorted(group, key=_arrival):
            by_value[repr({name: row[name] for name in row if name not in {"arrived_at", *_ORDER}})].append(row)
        for copies in by_value.values():
            _mark(copies[1:], "duplicate")
        firsts = sorted((copies[0] for copies in by_value.values()), key=_arrival)
        newest = [row for row in firsts if row.get("arrived_at") == firsts[-1].get("arrived_at")]
        _mark(newest if len(newest) > 1 else (), "conflict_same_arrival")
        _mark([row for row in firsts if row not in newest], "conflict")
    if table == "impressions":
        for group in _grouped(rows, lambda row: (row["request_id"], row["position"])):
            _mark(group if len(group) > 1 else (), "position_taken")


def _arrival(row: Row) -> Any:
    return row.get("arrived_at", row["_day"])  # a view's rows have their folder only


def _grouped(rows: list[Row], key: Any) -> list[list[Row]]:
    groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        if row["_verdict"] == "kept":
            groups[key(row)].append(row)
    return list(groups.values())


def _mark(rows: Iterable[Row], verdict: str) -> None:
    for row in rows:
        row["_verdict"] = verdict


def _find_orphans(
    tables: Mapping[str, list[Row]], table: str, key: tuple[str, ...], parent: str, cutoff: datetime
) -> None:
    """Quarantine kept rows whose parent is unknown and could have arrived: its landing lag's q99 has passed."""
    parents = [row for row in tables.get(parent, ()) if row["_verdict"] == "kept"]
    lags = sorted(row["arrived_at"] - row["shown_at"] for row in parents)
    known = {tuple(row[name] for name in key) for row in parents}
    for row in tables.get(table, ()) if parents else ():
        event = row["happened_at"] if table == "outcomes" else row["shown_at"]
        late = event + lags[math.ceil(0.99 * len(lags)) - 1] <= cutoff if row["_verdict"] == "kept" else False
        if late and tuple(row[name] for name in key) not in known:
            row["_verdict"] = "orphan"


def _sums(rows: list[Row]) -> Sums:
    verdicts = Counter(row["_verdict"] for row in rows)
    quarantined = {reason: verdicts[reason] for reason in REASONS if verdicts[reason]}
    return Sums(len(rows), verdicts["duplicate"], verdicts["conflict"], quarantined)
