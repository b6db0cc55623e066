"""What a Parquet file says of itself in its footer, without reading a row."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def null_counts(path: Path) -> tuple[dict[str, int], int]:
    """Return the nulls of each column, and the rows; a column whose footer does not say is counted.

    path : a Parquet file of flat columns
    """
    footer = pq.ParquetFile(path).metadata
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    found: dict[str, int] = {}
    for place, name in enumerate(footer.schema.names):
        known = [group.column(place).statistics for group in groups]
        if all(one is not None and one.has_null_count for one in known):
            found[name] = sum(one.null_count for one in known)
        else:
            found[name] = int(pl.scan_parquet(path).select(pl.col(name).null_count()).collect().item())
    return found, footer.num_rows


@cache
def holds_any(path: Path, names: Collection[str]) -> bool:
    """Say whether any of these flat columns has a value; one whose footer does not say is looked at.

    path : a file that is never written again; names : of columns that it has, hashable
    """
    footer = pq.ParquetFile(path).metadata
    leaves = {footer.schema.column(place).path: place for place in range(len(footer.schema))}
    for name in names:
        groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
        known = [group.column(leaves[name]).statistics for group in groups]
        if all(one is not None and one.has_null_count for one in known):
            nulls = sum(one.null_count for one in known)
        else:
            nulls = int(pl.scan_parquet(path).select(pl.col(name).null_count()).collect().item())
        if nulls < footer.num_rows:
            return True
    return False


@cache
def span_of(path: Path, column: str) -> tuple[datetime, datetime] | None:
    """Return the least and the greatest time of a column as the footer says; None where it does not say, or no row is.

    path : a file that is never written again
    column : of timestamps with a time zone
    """
    footer = pq.ParquetFile(path).metadata
    place = list(footer.schema.names).index(column)
    known = [footer.row_group(number).column(place).statistics for number in range(footer.num_row_groups)]
    if not known or not all(one is not None and one.has_min_max for one in known):
        return None
    if '"timeUnit": "microseconds"' not in footer.schema.column(place).logical_type.to_json():
        return min(one.min for one in known), max(one.max for one in known)
    # As numbers: to make times of them, pyarrow would import pandas, which takes longer than reading all footers.
    low, high = min(one.min_raw for one in known), max(one.max_raw for one in known)
    return _EPOCH + timedelta(microseconds=low), _EPOCH + timedelta(microseconds=high)
