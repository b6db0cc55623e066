"""The features a model reads: their names, kinds and category levels, and the matrix that LightGBM sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sameworld.records import Refused

Kind = Literal["number", "bool", "category"]
# A category with more levels than this keeps the most frequent; the rest reads as missing.
MAX_LEVELS = 10_000


@dataclass(frozen=True)
class Feature:
    """One column of the matrix. ``levels`` are a category's known values; a value's code is its place among them."""

    name: str
    kind: Kind
    levels: tuple[str, ...] = ()

    def as_record(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"name": self.name, "kind": self.kind, "levels": list(self.levels)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Feature:
        """Read the JSON form."""
        return cls(str(record["name"]), record["kind"], tuple(record["levels"]))


def chosen(names: Sequence[str], *, include: Sequence[str], exclude: Sequence[str]) -> list[str]:
    """Return the names that an include pattern matches and no exclude pattern does, sorted.

    >>> chosen(["x_b", "x_a", "y"], include=["x_*"], exclude=["x_b"])
    ['x_a']
    """
    wanted = (name for name in names if any(fnmatchcase(name, pattern) for pattern in include))
    return sorted(name for name in wanted if not any(fnmatchcase(name, pattern) for pattern in exclude))


def kind_of(dtype: pl.DataType) -> Kind:
    """Return how a column of this type is read: text is a category, the rest numbers."""
    if dtype == pl.Boolean:
        return "bool"
    if _is_text(dtype):
        return "category"
    if dtype.is_numeric():
        return "number"
    raise Refused(what="a feature of this type cannot be read", got=str(dtype), wanted="a number, a bool or a string")


def _is_text(dtype: pl.DataType) -> bool:
    return dtype in (pl.String, pl.Categorical, pl.Enum)


def _as_text(name: str, dtype: pl.DataType) -> pl.Expr:
    """Return a category's values as text; a code is the same whether it comes as 3 or, beside nulls, as 3.0."""
    column = pl.col(name)
    if dtype.is_float():
        whole = pl.when(column.is_finite() & (column == column.floor())).then(column.cast(pl.Int64, strict=False))
        return pl.coalesce(whole.cast(pl.String), column.cast(pl.String)).alias(name)
    return column.cast(pl.String)


def learn_features(frame: pl.LazyFrame, kinds: Mapping[str, Kind]) -> tuple[Feature, ...]:
    """Learn the category levels of a training frame; features come back sorted by name."""
    features = []
    for name, kind in sorted(kinds.items()):
        levels: tuple[str, ...] = ()
        if kind == "category":
            counts = frame.select(_as_text(name, frame.collect_schema()[name])).drop_nulls().group_by(name).len()
            top = counts.sort(["len", name], descending=[True, False]).head(MAX_LEVELS).collect(engine="streaming")
            levels = tuple(sorted(top[name].to_list()))
        features.append(Feature(name, kind, levels))
    return tuple(features)


def feature_matrix(frame: pl.DataFrame, features: Sequence[Feature]) -> NDArray[np.float32]:
    """Return the matrix, shape (rows, features): codes for categories, NaN for what is missing or unknown.

    NaN, infinities and what exceeds a 32-bit float count as missing. A feature that the frame lacks altogether is
    missing in every row. Text where a number was promised, or a time or a list where a category was, is refused.
    """
    if not features:
        raise Refused(what="the model has no features", wanted="at least one x_* column that features.include matches")
    present = set(frame.columns)
    schema = frame.schema  # asked once: each time it is made anew, column by column
    columns = [
        _column(frame, feature, schema[feature.name]) if feature.name in present else _missing(feature)
        for feature in features
    ]
    matrix = frame.select(columns).to_numpy(order="c") if len(frame) else np.empty((0, len(features)), np.float32)
    return np.ascontiguousarray(matrix, dtype=np.float32)


def _missing(feature: Feature) -> pl.Expr:
    return pl.repeat(None, pl.len(), dtype=pl.Float32).alias(feature.name)


def _column(frame: pl.DataFrame, feature: Feature, dtype: pl.DataType) -> pl.Expr:
    column = pl.col(feature.name)
    if frame[feature.name].null_count() == len(frame):  # of whatever type an exporter gave to nothing but nulls
        return _missing(feature)
    readable = dtype.is_numeric() or dtype == pl.Boolean or (feature.kind == "category" and _is_text(dtype))
    if not readable:
        raise Refused(
            what=f"feature {feature.name!r} cannot be read",
            got=str(dtype),
            wanted=f"a {feature.kind}, as the model was trained on",
            remedy="deliver the column with the type that the training log had",
        )
    if feature.kind == "category":
        levels = pl.Series(feature.levels, dtype=pl.String)
        codes = pl.Series(range(len(levels)), dtype=pl.Float32)
        text = _as_text(feature.name, dtype)
        return text.replace_strict(levels, codes, default=None, return_dtype=pl.Float32)
    number = column.cast(pl.Float32)
    return pl.when(number.is_finite()).then(number)
