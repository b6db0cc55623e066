"""Batch feature views, joined as of the moment at which an impression was shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import polars as pl

from sameworld.records import Refused
from sameworld.store.log import VIEW_PREFIX, Log

KEYS = ("user_id", "item_id")
_NOT_VALUES = {*KEYS, "available_at", "arrival_day", "arrived_at", "null_reason", "superseded"}


def feature_name(column: str) -> str:
    """Return the name that a view's column has among the features: the served name, which begins with ``x_``.

    >>> feature_name("price"), feature_name("x_price")
    ('x_price', 'x_price')
    """
    return column if column.startswith("x_") else f"x_{column}"


def view_columns(log: Log, view: str) -> dict[str, str]:
    """Return ``{feature name: column}`` of a view's values."""
    names = log.table(f"{VIEW_PREFIX}{view}").collect_schema().names()
    return {feature_name(name): name for name in names if name not in _NOT_VALUES}


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
    keys = _keys(rows, table, view, columns)
    values = (
        table.filter(pl.col("available_at") < cutoff)
        .unique([*keys, "available_at"], keep="last", maintain_order=True)
        .select(
            *keys,
            pl.col("available_at").alias(f"{view}_available_at"),
            *(pl.col(name).alias(f"{feature_name(name)}@view") for name in columns),
        )
        .sort(f"{view}_available_at")
    )
    known_at = f"{view}_available_at"
    numbered = rows.with_row_index("_row").sort(at)
    joined = numbered.join_asof(
        values, left_on=at, right_on=known_at, by=keys, strategy="backward", check_sortedness=False, coalesce=False
    )
    return joined.sort("_row").drop("_row")


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


def views_named(log: Log, wanted: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return the spec's views that the log has; a view that it lacks is refused with those it has."""
    known = log.views()
    missing = sorted(set(wanted) - set(known))
    if missing:
        raise Refused(what="no such feature view in the log", got=", ".join(missing), wanted=", ".join(known) or "none")
    return {view: list(columns) for view, columns in sorted(wanted.items())}
