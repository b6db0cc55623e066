"""Writes a drop day by day, and keeps the record of what a generated drop holds."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
START_US = int(np.datetime64("2026-03-01", "us").astype(np.int64))  # a Sunday
INSTANT = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class Style:
    """How an exporter writes: files a table a day, codec, and whether pages carry checksums."""

    files: int = 1
    compression: str = "snappy"
    checksums: bool = False


@dataclass(frozen=True)
class Truth:
    """What nobody outside the world knows, one entry per impression shown, whether or not it arrived before the end.

    shown_at, arrived_at : epoch microseconds
    relevance : by kind, the probability of the outcome for an item that is looked at (position 1, no window)
    delay_hours : by kind, from ``shown_at`` to the first such outcome; inf where it never comes
    propensity : marginal probability of this item at this position; NaN where there is no closed form
    examination : by position, shape (slots,), the first 1.0
    """

    request_id: NDArray[np.str_]
    item_id: NDArray[np.str_]
    position: Ints
    shown_at: Ints
    arrived_at: Ints
    relevance: Mapping[str, Floats]
    delay_hours: Mapping[str, Floats]
    propensity: Floats
    examination: Floats


@dataclass(frozen=True)
class Facts:
    """What a spec for this shop would say; ``kinds`` come in the order of the funnel, ``views`` with their keys."""

    kinds: tuple[str, ...]
    target: str
    window_days: int
    features: Mapping[str, pa.DataType]
    segments: tuple[str, ...] = ()
    views: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Shop(Facts):
    """A generated drop: where it is, what it holds (rows written, by table and day), and its truth."""

    drop: Path
    days: tuple[str, ...]
    rows_by_day: Mapping[str, tuple[int, ...]]
    truth: Truth

    @property
    def rows(self) -> dict[str, int]:
        """Rows written, by table."""
        return {table: sum(counts) for table, counts in self.rows_by_day.items()}

    @property
    def slots(self) -> int:
        """Positions shown a request."""
        return len(self.truth.examination)

    @property
    def landed(self) -> Bools:
        """Whether each impression of the truth is in the drop: it arrived before the last day's end."""
        return np.asarray(self.truth.arrived_at < START_US + len(self.days) * DAY_US)


@dataclass(frozen=True)
class Events:
    """Outcomes of one kind: ``row`` is the impression's index; a NaN value is written as null."""

    kind: str
    row: Ints
    happened_at: Ints
    arrived_at: Ints
    value: Floats
    retracted: bool = False


def day_name(index: int) -> str:
    """Return the UTC day ``index`` days after the first.

    >>> day_name(31)
    '2026-04-01'
    """
    return str(np.datetime64("2026-03-01") + np.timedelta64(index, "D"))


def instants(microseconds: Ints) -> pa.Array:
    """Return epoch microseconds as UTC timestamps."""
    return pa.array(microseconds, pa.int64()).cast(INSTANT)


def names(prefix: str, numbers: Ints, kind: pa.DataType | None = None) -> pa.Array:
    """Return ``prefix`` + number as strings, of Arrow type ``kind``."""
    digits = pa.array(numbers, pa.int64()).cast(pa.string())
    return pc.binary_join_element_wise(prefix, digits, "").cast(kind or pa.string())


def with_nulls(values: pa.Array, gone: Bools) -> pa.Array:
    """Return ``values`` with null wherever ``gone``."""
    return pc.if_else(pa.array(gone), pa.scalar(None, values.type), values)


def outcome_table(events: Sequence[Events], ids: tuple[pa.Array, pa.Array], kind_type: pa.DataType) -> pa.Table:
    """Return the outcomes table of all ``events``; ``ids`` are the request_id and item_id of each impression."""
    sizes = [len(event.row) for event in events]
    row = np.concatenate([event.row for event in events])
    kinds = pa.array(np.repeat([event.kind for event in events], sizes)).cast(pa.string())
    retracted = np.repeat([event.retracted for event in events], sizes)
    return pa.table(
        {
            "request_id": ids[0].take(row),
            "item_id": ids[1].take(row),
            "kind": kinds.dictionary_encode().cast(kind_type) if pa.types.is_dictionary(kind_type) else kinds,
            "value": pa.array(np.concatenate([event.value for event in events]), from_pandas=True),
            "happened_at": instants(np.concatenate([event.happened_at for event in events])),
            "arrived_at": instants(np.concatenate([event.arrived_at for event in events])),
            # exporters differ: this one leaves null where every second row could have said false
            "retracted": with_nulls(pa.array(retracted), ~retracted & (row % 2 == 0)),
        }
    )


def write_table(out: Path, table: str, rows: pa.Table, *, days: int, style: Style) -> tuple[int, ...]:
    """Write rows into the folder of the day they arrived (or became available); return the rows written, by day.

    What arrives after the last day is not written: it has not arrived yet. A day without rows gets no folder.
    """
    clock = rows["arrived_at" if "arrived_at" in rows.column_names else "available_at"]
    at = np.asarray(clock.cast(pa.int64()).to_numpy())
    order = np.argsort(at, kind="stable")
    edges = np.searchsorted(at[order], START_US + DAY_US * np.arange(days + 1))
    rows = rows.take(order)
    for day in range(days):
        if edges[day + 1] > edges[day]:
            _write_day(
                out / f"day={day_name(day)}" / table, rows.slice(edges[day], edges[day + 1] - edges[day]), style=style
            )
    return tuple(int(count) for count in np.diff(edges))


def _write_day(folder: Path, rows: pa.Table, *, style: Style) -> None:
    folder.mkdir(parents=True)
    cuts = np.linspace(0, len(rows), min(style.files, len(rows)) + 1).astype(int)
    for part, (low, high) in enumerate(itertools.pairwise(cuts)):
        pq.write_table(
            rows.slice(low, high - low),
            folder / f"part-{part:03d}.parquet",
            compression=style.compression,
            write_page_checksum=style.checksums,
        )


def write_shop(
    out: Path, tables: Mapping[str, pa.Table], truth: Truth, facts: Facts, *, days: int, style: Style
) -> Shop:
    """Write all tables, then every day's ``_SUCCESS``."""
    counts = {name: write_table(out, name, rows, days=days, style=style) for name, rows in tables.items()}
    for day in range(days):
        (out / f"day={day_name(day)}").mkdir(parents=True, exist_ok=True)
        (out / f"day={day_name(day)}" / "_SUCCESS").touch()
    return Shop(**vars(facts), drop=out, days=tuple(map(day_name, range(days))), rows_by_day=counts, truth=truth)
