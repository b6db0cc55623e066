"""Damage to whole files, tables and days of a drop. ``day`` is a day's folder (``<drop>/day=2026-03-01``)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq


def truncate_file(file: Path, keep: float = 0.5) -> None:
    """Cut a file off after this share of its bytes."""
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * keep)])


def flip_byte(file: Path, offset: int = -5) -> None:
    """Invert one byte. The default is the footer length's highest, which no reader can miss.

    A byte of a data page may go unnoticed where pages carry no checksums (only ``news_feed`` writes them).
    """
    content = bytearray(file.read_bytes())
    content[offset] ^= 0xFF
    file.write_bytes(bytes(content))


def drop_column(day: Path, table: str, column: str) -> None:
    """Leave a column out of a day's table."""
    _rewrite(day, table, lambda rows: rows.drop_columns([column]))


def rename_column(day: Path, table: str, old: str, new: str) -> None:
    """Give a column another name."""
    _rewrite(day, table, lambda rows: rows.rename_columns({old: new}))


def change_type(day: Path, table: str, column: str, kind: pa.DataType) -> None:
    """Write a column as another type, as an exporter does that was changed overnight."""
    _recast(day, table, column, lambda values: pc.cast(values, kind, safe=False))


def naive_timestamps(day: Path, table: str, column: str) -> None:
    """Write a timestamp without its time zone."""
    change_type(day, table, column, pa.timestamp("us"))


def invalid_utf8(day: Path, table: str, column: str) -> None:
    """Put the byte 0xFF, which no UTF-8 text has, at the head of one string: the first row of the first file
    (a plain or large string column, not a dictionary)."""
    file = sorted((day / table).glob("*.parquet"))[0]
    rows = pq.ParquetFile(file).read()
    kind = rows.schema.field(column).type
    raw = rows[column].combine_chunks().cast(pa.large_binary()).to_pylist()
    broken = pa.array([b"\xff" + raw[0], *raw[1:]], pa.large_binary() if kind == pa.large_string() else pa.binary())
    values = pa.Array.from_buffers(kind, len(broken), broken.buffers())
    pq.write_table(rows.set_column(rows.column_names.index(column), column, values), file)


def remove_success(day: Path) -> None:
    """Take the day's ``_SUCCESS`` away: it is not there yet."""
    (day / "_SUCCESS").unlink()


def empty_table(day: Path, table: str) -> None:
    """Leave a day's table with its files and columns, but no rows."""
    _rewrite(day, table, lambda rows: rows.slice(0, 0))


def scale_day(day: Path, factor: float, seed: int = 0) -> None:
    """Multiply a day's requests, with all that arrived of them that day; views stay.

    Below 1 whole requests are left out (their outcomes of later days stay, as orphans). Above 1 requests are copied
    under new ids, with the impressions and outcomes that arrived the same day; a remainder is drawn.
    """
    ids = np.unique(
        np.concatenate([_ids(day, table) for table in ("requests", "impressions") if (day / table).exists()])
    )
    rng = np.random.default_rng([seed, 53])
    copies = np.full(len(ids), int(factor)) + (rng.permutation(len(ids)) < round((factor % 1) * len(ids)))
    for table in ("requests", "impressions", "outcomes", "candidates"):
        if (day / table).exists():
            _rewrite(day, table, lambda rows: _copied(rows, ids, copies))


def _ids(day: Path, table: str) -> np.ndarray[tuple[int], np.dtype[np.str_]]:
    files = sorted((day / table).glob("*.parquet"))
    return np.concatenate([np.asarray(pq.ParquetFile(file).read(["request_id"])[0].to_pylist(), str) for file in files])


def _copied(
    rows: pa.Table, ids: np.ndarray[tuple[int], np.dtype[np.str_]], copies: np.ndarray[tuple[int], np.dtype[np.int64]]
) -> pa.Table:
    """Return each row as often as its request is wanted; rows of other days' requests once."""
    own = np.asarray(rows["request_id"].to_pylist(), str)
    place = np.minimum(np.searchsorted(ids, own), len(ids) - 1)
    times = np.where(ids[place] == own, copies[place], 1)
    row = np.repeat(np.arange(len(rows)), times)
    number = np.arange(len(row)) - np.repeat(np.cumsum(times) - times, times)
    names = np.where(number > 0, np.char.add(np.char.add(own[row], "~"), number.astype(str)), own[row])
    column = rows.column_names.index("request_id")
    return rows.take(row).set_column(column, "request_id", pa.array(names.tolist(), rows.schema.field(column).type))


def _rewrite(day: Path, table: str, change: Callable[[pa.Table], pa.Table]) -> None:
    for file in sorted((day / table).glob("*.parquet")):
        pq.write_table(change(pq.ParquetFile(file).read()), file)


def _recast(day: Path, table: str, column: str, change: Callable[[pa.ChunkedArray], pa.ChunkedArray]) -> None:
    def changed(rows: pa.Table) -> pa.Table:
        return rows.set_column(rows.column_names.index(column), column, change(rows[column]))

    _rewrite(day, table, changed)
