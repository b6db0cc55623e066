"""The features a model reads: their names, kinds and category levels, and the matrix that LightGBM sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import repeat
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sameworld.records import Refused

Kind = Literal["number", "bool", "category"]
# A category with more levels than this keeps the most frequent; the rest reads as missing.
MAX_LEVELS = 10_000
FEW_ROWS = 2_000  # a request's candidates, say: the table engine takes longer to begin than such a frame to be read


@dataclass(frozen=True)
class Feature:
    """One column of the matrix. ``levels`` are a category's known values; a value's code is its place among them."""

    name: str
    kind: Kind
    levels: tuple[str, ...] = ()

    @cached_property
    def codes(self) -> dict[str, float]:
        """The code of each level."""
        return {level: float(code) for code, level in enumerate(self.levels)}

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
    columns = dict(zip(frame.columns, frame.get_columns(), strict=True))
    present = [(place, one, columns[one.name]) for place, one in enumerate(features) if one.name in columns]
    read = [(place, one, column) for place, one, column in present if _can_read(column, one)]
    matrix = np.full((len(frame), len(features)), np.nan, np.float32)
    numbers = [(place, column) for place, one, column in read if one.kind != "category"]
    if numbers:
        matrix[:, _stretch([place for place, _ in numbers])] = _numbers([column for _, column in numbers])
        matrix[np.isinf(matrix)] = np.nan
    for place, one, column in read:
        if one.kind == "category":
            matrix[:, place] = _codes(_text(column), one)
    return matrix


def _can_read(column: pl.Series, feature: Feature) -> bool:
    """Whether a column has anything to read; if it has, and is of another kind than in training, it is refused."""
    dtype = column.dtype
    if dtype.is_numeric() or dtype == pl.Boolean or (feature.kind == "category" and _is_text(dtype)):
        return True
    if column.null_count() == len(column):  # of whatever type an exporter gave to nothing but nulls
        return False
    raise Refused(
        what=f"feature {feature.name!r} cannot be read",
        got=str(dtype),
        wanted=f"a {feature.kind}, as the model was trained on",
        remedy="deliver the column with the type that the training log had",
    )


def _numbers(columns: Sequence[pl.Series]) -> NDArray[np.float32]:
    if len(columns[0]) > FEW_ROWS:
        return pl.DataFrame(columns).select(pl.all().cast(pl.Float32)).to_numpy()
    single = [column if column.dtype == pl.Float32 else column.cast(pl.Float32) for column in columns]
    return np.array([column.to_numpy() for column in single], np.float32).T


def _stretch(places: Sequence[int]) -> slice | list[int]:
    """Return ascending places as a slice where they have no gap: much faster to write to."""
    return slice(places[0], places[-1] + 1) if places[-1] - places[0] + 1 == len(places) else list(places)


def _text(column: pl.Series) -> pl.Series:
    if column.dtype == pl.String:
        return column
    return column.to_frame().select(_as_text(column.name, column.dtype)).to_series()


def _codes(text: pl.Series, feature: Feature) -> NDArray[np.float32]:
    """Return each value's code, NaN where it is null or unknown."""
    if len(text) <= FEW_ROWS:
        return np.fromiter(map(feature.codes.get, text.to_list(), repeat(np.nan)), np.float32, len(text))
    levels, codes = pl.Series(feature.levels, dtype=pl.String), pl.Series(range(len(feature.levels)), dtype=pl.Float32)
    return text.replace_strict(levels, codes, default=None, return_dtype=pl.Float32).to_numpy()
