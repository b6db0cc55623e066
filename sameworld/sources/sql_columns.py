"""Whether what a user's SQL gives is a table of the contract; nothing is cast, and nothing is left out in silence."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence

import polars as pl
import pyarrow as pa

from sameworld.records import Refused
from sameworld.sources.contract import VIEW_KEYS, WANTED, Column, Layout, feature_kind, fits, layout_of
from sameworld.store.log import VIEW_PREFIX

_CASTS = {"text": "VARCHAR", "time": "TIMESTAMPTZ", "double": "DOUBLE", "int32": "INTEGER", "int64": "BIGINT",
          "bool": "BOOLEAN", "reasons": "MAP(VARCHAR, VARCHAR)",
          "candidates": "STRUCT(item_id VARCHAR, score DOUBLE)[]"}  # fmt: skip


def refuse_columns(table: str, sql: str, schema: pa.Schema, types: Sequence[str]) -> None:
    """Raise Refused, with the column's name, unless a query's columns are those of the contract's table.

    sql : what to call the query; types : the engine's own names of the columns' types
    """
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise Refused(what=f"{sql} gives a column twice", got=twice[0], wanted="each column once")
    kinds = {field.name: _kind(field, shown) for field, shown in zip(schema, types, strict=True)}
    if table.startswith(VIEW_PREFIX) and not set(VIEW_KEYS) & set(kinds):
        raise Refused(what=f"{sql} gives no key of a view", got=", ".join(kinds), wanted=" or ".join(VIEW_KEYS))
    layout = layout_of(table, kinds)
    _refuse_missing(sql, layout, kinds)
    for name, shown in zip(kinds, types, strict=True):
        column = next((column for column in layout.columns if column.name == name), None)
        if column:
            _refuse_kind(sql, column, kinds[name], shown)
        else:
            _refuse_other(sql, layout, name, kinds[name], shown)


def _kind(field: pa.Field, shown: str) -> pl.DataType:
    """Return the kind that a column has once it is Parquet; one that no column of the contract can have is binary."""
    if shown == "JSON":  # text by its bytes, but quoted and escaped: never what was meant
        return pl.Binary()
    try:
        return pl.DataFrame(pa.table([pa.array([], field.type)], names=[field.name])).dtypes[0]
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, pa.ArrowException, ValueError):
        return pl.Binary()


def _refuse_missing(sql: str, layout: Layout, names: Collection[str]) -> None:
    for column in layout.columns:
        if not column.nullable and column.name not in names:
            others = [name for name in names if not layout.has(name)]
            near = difflib.get_close_matches(column.name, others, n=1, cutoff=0.5)
            remedy = f"name it: {near[0]} AS {column.name}" if near else f"select ... AS {column.name}"
            raise Refused(what=f"{sql} lacks column {column.name!r}", got=", ".join(names),
                          wanted=f"{column.name} ({WANTED[column.kind]})", remedy=remedy)  # fmt: skip


def _refuse_kind(sql: str, column: Column, kind: pl.DataType, shown: str) -> None:
    name = column.name
    if column.kind == "time" and isinstance(kind, pl.Datetime) and kind.time_zone is None:
        raise Refused(what=f"{sql} gives column {name!r} without a zone", got=shown, wanted=WANTED["time"],
                      remedy=f"say which zone the log was written in: {name} AT TIME ZONE 'UTC' AS {name}"
                      )  # fmt: skip
    if not fits(column.kind, kind):
        raise Refused(what=f"{sql} gives column {name!r} as another kind", got=shown, wanted=WANTED[column.kind],
                      remedy=_cast(name, shown, _CASTS[column.kind]))  # fmt: skip


def _refuse_other(sql: str, layout: Layout, name: str, kind: pl.DataType, shown: str) -> None:
    if not layout.is_feature(name):
        known = [column.name for column in layout.columns]
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        raise Refused(what=f"{sql} gives column {name!r}, which {layout.name} does not have", got=name,
                      wanted=near[0] if near else f"x_* or one of: {', '.join(known)}",
                      remedy=f"a feature's name begins with x_, as in {name} AS x_{name}")  # fmt: skip
    if feature_kind(kind) is None and not isinstance(kind, pl.Null):
        raise Refused(what=f"{sql} gives feature {name!r} as another kind", got=shown,
                      wanted="a float, an integer, a bool or a string",
                      remedy=_cast(name, shown, "DOUBLE"))  # fmt: skip


def _cast(name: str, shown: str, kind: str) -> str:
    if shown == "JSON":
        return f"take its value as text with ->>, then cast that: (... ->> '$.{name}')::{kind} AS {name}"
    return f"cast it: {name}::{kind} AS {name}"
