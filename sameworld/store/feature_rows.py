"""Rows with their features: as served where serving logged them, else from the views as of the row's time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import polars as pl

from sameworld.records import Refused
from sameworld.store.log import Log
from sameworld.store.parquet_facts import holds_any
from sameworld.store.times import parse_day
from sameworld.store.views import feature_name, join_view

SERVED = "features_served"


@dataclass(frozen=True)
class FeatureColumns:
    """Which columns are features and where each comes from.

    served : names of served columns that are chosen
    views : view -> its chosen columns, by the view's own names
    never_served_on : feature -> arrival days whose files lack the column, so that a view's value may stand in
    """

    served: tuple[str, ...]
    views: Mapping[str, Sequence[str]]
    never_served_on: Mapping[str, tuple[date, ...]]

    @property
    def names(self) -> tuple[str, ...]:
        """Every feature's name, sorted."""
        joined = {feature_name(column) for columns in self.views.values() for column in columns}
        return tuple(sorted({*self.served, *joined}))


def feature_columns(
    log: Log, table: str, *, served: Sequence[str], views: Mapping[str, Sequence[str]]
) -> FeatureColumns:
    """Find out where each feature of a table's rows comes from.

    served : the chosen names; those that the table never carries count as absent
    Two views that give the same feature are refused: which of them counts would be left to their names.
    """
    given = sorted(feature_name(column) for names in views.values() for column in names)
    if twice := sorted({name for name in given if given.count(name) > 1}):
        raise Refused(what="a feature comes from two columns of the views", got=", ".join(twice), wanted="one of them",
                      remedy="choose one in features.views")  # fmt: skip
    schemas = {
        parse_day(day.record["day"]): set(day.manifest["files"][f"{table}.parquet"]["schema"])
        for day in log.days
        if f"{table}.parquet" in day.files
    }
    carried = set().union(*schemas.values()) if schemas else set()
    lacking = {
        name: tuple(sorted(day for day, names in schemas.items() if name not in names)) for name in sorted(carried)
    }
    chosen_served = tuple(name for name in served if name in carried)
    return FeatureColumns(chosen_served, views, lacking)


def days_that_serve(log: Log, table: str, served: Sequence[str]) -> tuple[date, ...]:
    """Return the days of arrival whose files hold any served value: a row of theirs with none is an outage.

    A day without, whose files lack the columns or have nothing in them, was filled in later or logged no features.
    """
    found = []
    for day in log.days:
        file = f"{table}.parquet"
        if file in day.files:
            carried = set(day.manifest["files"][file]["schema"])
            if holds_any(day.path(file), tuple(name for name in served if name in carried)):
                found.append(parse_day(day.record["day"]))
    return tuple(found)


def with_features(rows: pl.LazyFrame, log: Log, columns: FeatureColumns, *, cutoff: datetime) -> pl.LazyFrame:
    """Return ``rows`` with every feature column; view features join point in time.

    rows : frame with shown_at, arrival_day, the views' keys and the served columns. Its order is kept.
    A served value always wins, a served null included: null is what the model saw. Where a day's files lack the
    column, nothing was served, and the view's value stands in.
    """
    for view, names in columns.views.items():
        rows = join_view(rows, log, view, names, cutoff=cutoff)
        expressions = [_served_or_joined(name, rows, columns) for name in map(feature_name, names)]
        dropped = [f"{feature_name(name)}@view" for name in names]
        rows = rows.with_columns(expressions).drop([*dropped, f"{view}_available_at"])
    present = set(rows.collect_schema().names())
    return rows.with_columns(pl.lit(None).alias(name) for name in columns.names if name not in present)


def _served_or_joined(name: str, rows: pl.LazyFrame, columns: FeatureColumns) -> pl.Expr:
    joined = pl.col(f"{name}@view")
    if name not in rows.collect_schema().names():
        return joined.alias(name)
    not_served = pl.col("arrival_day").is_in(list(columns.never_served_on.get(name, ())))
    return pl.when(not_served).then(joined).otherwise(pl.col(name)).alias(name)
