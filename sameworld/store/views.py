"""Batch feature views, joined as of the moment at which an impression was shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import polars as pl

from sameworld.records import Refused
from sameworld.store.log import VIEW_PREFIX, Log

KEYS = ("user_id", "item_id")
_ROW = "sameworld: row"
_NOT_VALUES = {*KEYS, "available_at", "arrival_day", "arrived_at", "null_reason", "superseded"}


def feature_name(column: str) -> str:
    """Return the name that a view's column has among the features: the served name, which begins with ``x_``.

    >>> feature_name("price"), feature_name("x_price")
    ('x_price', 'x_price')
    """
    return column if column.startswith("x_") else f"x_{column}"


def view_columns(log: Log, view: str) -> dict[str, str]:
    """Return ``{feature name: column}`` of a view's values."""
    return {feature_name(name): name for name in delivered(log, f"{VIEW_PREFIX}{view}") if name not in _NOT_VALUES}


def delivered(log: Log, table: str) -> dict[str, list[str]]:
    """Return a table's columns with the types in which its days delivered each, without opening a file."""
    found: dict[str, list[str]] = {}
    for day in log.days:
        for name, kind in day.manifest["files"].get(f"{table}.parquet", {}).get("schema", {}).items():
            found.setdefault(name, []).append(kind)
    return found


def join_view(
    rows: pl.LazyFrame, log: Log, view: str, columns: Sequence[str], *, cutoff: datetime, at: str = "shown_at"
) -> pl.LazyFrame:
    """Add a view's columns as they could be read at each row's time, and ``<view>_available_at``.

    rows : frame with the view's keys and the time column ``at``
    columns : the view's own column names; they are added under their feature names with the suffix ``@view``
    Newest ``available_at`` ≤ the row's time wins; of equal ones the later arrival. Nothing with ``available_at`` at or
    after the cutoff is read. A null key matches nothing.
    """
    table = log.table(f"{VIEW_PREFIX}{view}")
    keys, known_at = _keys(rows, table, view, columns), f"{view}_available_at"
    wanted = rows.select(*keys, at).with_row_index(_ROW).collect(engine="streaming")
    values = _readable(table.filter(pl.col("available_at") < cutoff), keys, wanted[at]).select(
        *keys,
        pl.col("available_at").alias(known_at),
        *(pl.col(name).alias(f"{feature_name(name)}@view") for name in columns),
    )
    joined = wanted.lazy().sort(at).join_asof(
        values.sort(known_at), left_on=at, right_on=known_at, by=keys, strategy="backward", check_sortedness=False,
        coalesce=False,
    )  # fmt: skip
    beside = joined.sort(_ROW).drop(_ROW, at, *keys)
    return pl.concat([rows, beside], how="horizontal")


def _readable(table: pl.LazyFrame, keys: Sequence[str], times: pl.Series) -> pl.LazyFrame:
    """Return the values that rows of these times can need: the last before them all, and those that came among them."""
    first, last = times.min(), times.max()
    available = pl.col("available_at")
    table = table.filter(available <= last) if last is not None else table
    if first is None:
        return table
    before = table.filter(available <= first).sort("available_at", maintain_order=True)
    among = table.filter(available > first)
    newest = before.unique(keys, keep="last", maintain_order=True)
    return pl.concat([newest, among.unique([*keys, "available_at"], keep="last", maintain_order=True)])


def _keys(rows: pl.LazyFrame, table: pl.LazyFrame, view: str, columns: Sequence[str]) -> list[str]:
    """Return the view's keys, once the rows have them and the view has the columns."""
    names = table.collect_schema().names()
    keys = [key for key in KEYS if key in names]
    absent = sorted(set(keys) - set(rows.collect_schema().names()))
    if absent or not keys:
        raise Refused(what=f"view {view!r} has no key in the rows", got=f"no {', '.join(absent or KEYS)}",
                      wanted="rows with every key of the view", remedy="leave it out of features.views")  # fmt: skip
    missing = sorted(set(columns) - set(names))
    if missing:
        known = ", ".join(sorted(set(names) - _NOT_VALUES))
        raise Refused(what=f"view {view!r} has no such column", got=", ".join(missing), wanted=f"one of: {known}")
    return keys


def view_keys(log: Log, view: str) -> list[str]:
    """Return the keys of a view that the log has: user_id, item_id or both."""
    names = delivered(log, f"{VIEW_PREFIX}{view}")
    return [key for key in KEYS if key in names]


def first_available(values: pl.LazyFrame, log: Log, view: str, column: str, *, cutoff: datetime) -> pl.LazyFrame:
    """Return since when each key could first be read to have a value: the keys, ``value``, ``first_available_at``.

    values : frame with the view's keys and ``value``, in the type to compare in; a pair that the view never had is left
        out. Values that a later row corrected count, too. Nothing with ``available_at`` at or after the cutoff is read.
    """
    keys, dtype = view_keys(log, view), values.collect_schema()["value"]
    table = log.table(f"{VIEW_PREFIX}{view}").filter(pl.col("available_at") < cutoff)
    had = table.select(*keys, pl.col(column).cast(dtype).alias("value"), "available_at")
    wanted = had.join(values.select(*keys, "value").unique(), on=[*keys, "value"], how="semi")
    return wanted.group_by(*keys, "value").agg(first_available_at=pl.col("available_at").min())


def views_named(log: Log, wanted: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return the spec's views that the log has; a view that it lacks is refused with those it has."""
    known = log.views()
    missing = sorted(set(wanted) - set(known))
    if missing:
        raise Refused(what="no such feature view in the log", got=", ".join(missing), wanted=", ".join(known) or "none")
    return {view: list(columns) for view, columns in sorted(wanted.items())}
