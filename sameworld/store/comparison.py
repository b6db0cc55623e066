"""Features as served beside the same features recomputed from a view, as of each impression: how many rows differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import cached_property
from typing import Any

import polars as pl

from sameworld.maths.missingness import Skew
from sameworld.records import Cannot
from sameworld.store.feature_rows import feature_columns
from sameworld.store.log import VIEW_PREFIX, Log
from sameworld.store.views import delivered, first_available, join_view, view_columns, view_keys

IMPRESSIONS = "impressions"
MINUTE_US = 60_000_000


@dataclass(frozen=True)
class Comparison:
    """One view beside what was served.

    found : by feature, what was counted, or why the two cannot be compared
    ages : (age_minutes, rows) of the rows that found a value: shown_at − available_at, rounded up to a minute
    keyed : how many rows have the view's keys
    """

    found: Mapping[str, Skew | Cannot]
    ages: pl.DataFrame
    keyed: int


@dataclass(frozen=True)
class ServedAndView:
    """The served features of ``log`` that a view of ``views`` gives as well; nothing at or after ``until`` is read."""

    log: Log
    views: Log
    view: str
    until: datetime

    @cached_property
    def keys(self) -> list[str]:
        """The view's keys."""
        return view_keys(self.views, self.view)

    @cached_property
    def columns(self) -> dict[str, str]:
        """``{feature: the view's column}``, by feature."""
        given = view_columns(self.views, self.view)
        return {name: given[name] for name in sorted(given) if name in self._not_served_on}

    def compare(self, shown: pl.DataFrame) -> Comparison:
        """Compare served values with the view's newest that could be read, value by value and exactly.

        shown : impressions with the view's keys, shown_at, arrival_day, and such of the features as these rows have
        Rows of an arrival day whose files lack the feature are not compared: nothing was served. NaN is null. Floats
        are compared in the narrower type, whole numbers beside floats as floats, bools beside numbers as 1 and 0. A row
        with a null key has no recomputed value. Without a feature the view's values are dated all the same.
        """
        columns = {name: column for name, column in self.columns.items() if name in shown.columns}
        rows = shown.lazy().select(*self.keys, "shown_at", "arrival_day", *columns)
        joined = join_view(rows, self.views, self.view, list(columns.values()), cutoff=self.until)
        beside = joined.rename({f"{self.view}_available_at": "known_at"}).collect(engine="streaming")
        pairs = {name: self._pair(name, column, beside.schema) for name, column in columns.items()}
        counted = self._counted(beside, [one for one in pairs.values() if isinstance(one, _Pair)])
        reasons = {name: one for name, one in pairs.items() if isinstance(one, Cannot)}
        keyed = beside.select(pl.all_horizontal(pl.col(self.keys).is_not_null()).sum()).item()
        return Comparison(counted | reasons, _ages(beside), int(keyed))

    @cached_property
    def _not_served_on(self) -> Mapping[str, Sequence[date]]:
        if not self.log.has(IMPRESSIONS):
            return {}
        return feature_columns(self.log, IMPRESSIONS, served=(), views={}).never_served_on

    def _pair(self, feature: str, column: str, schema: Mapping[str, pl.DataType]) -> _Pair | Cannot:
        sides = schema[feature], schema[f"{feature}@view"]
        # Read together, days of 32 and of 64 bits all look like 64.
        kinds = delivered(self.log, IMPRESSIONS)[feature], delivered(self.views, f"{VIEW_PREFIX}{self.view}")[column]
        dtype = _common(sides, narrow=any("Float32" in kind for kind in kinds))
        if dtype is None:
            return Cannot(f"served as {_in_words(sides[0])}, but {column} of {self.view} is {_in_words(sides[1])}")
        return _Pair(feature, column, dtype, self._not_served_on[feature])

    def _counted(self, beside: pl.DataFrame, pairs: Sequence[_Pair]) -> dict[str, Skew | Cannot]:
        alike = beside.with_columns(value for pair in pairs for value in pair.alike())
        sums = [
            pl.struct(verdict.sum().alias(name) for name, verdict in pair.verdicts().items()).alias(pair.feature)
            for pair in pairs
        ]
        counts: dict[str, Any] = alike.select(sums).row(0, named=True) if sums else {}
        found = {feature: Skew(**count) for feature, count in counts.items()}
        wrong = [pair for pair in pairs if found[pair.feature].mismatch]
        stale = pl.collect_all([self._stale(alike.lazy(), pair) for pair in wrong], engine="streaming")
        rows = {pair.feature: int(count.item()) for pair, count in zip(wrong, stale, strict=True)}
        return {feature: replace(skew, stale=rows.get(feature, 0)) for feature, skew in found.items()}

    def _stale(self, alike: pl.LazyFrame, pair: _Pair) -> pl.LazyFrame:
        """Count the mismatches whose served value the key had before the recomputed one, however long before."""
        wrong = alike.filter(pair.verdicts()["mismatch"]).select(*self.keys, "known_at", value=pair.feature)
        first = first_available(wrong, self.views, self.view, pair.column, cutoff=self.until)
        dated = wrong.join(first, on=[*self.keys, "value"], how="inner")
        return dated.select((pl.col("first_available_at") < pl.col("known_at")).sum())


@dataclass(frozen=True)
class _Pair:
    """A served feature and the view's column, with the type in which both are compared."""

    feature: str
    column: str
    dtype: pl.DataType
    not_served_on: Sequence[date]

    @property
    def sides(self) -> tuple[str, str]:
        return self.feature, f"{self.feature}@view"

    def alike(self) -> list[pl.Expr]:
        values = [pl.col(name).cast(self.dtype) for name in self.sides]
        return [value.fill_nan(None) for value in values] if self.dtype.is_float() else values

    def verdicts(self) -> dict[str, pl.Expr]:
        """Return by name whether a row counts; null counts as no."""
        served, recomputed = (pl.col(name) for name in self.sides)
        compared = ~pl.col("arrival_day").is_in(list(self.not_served_on))
        return {
            "compared": compared,
            "mismatch": compared & (served != recomputed),
            "missing": compared & served.is_null() & recomputed.is_not_null(),
            "extra": compared & served.is_not_null() & recomputed.is_null(),
        }


def _common(sides: Sequence[pl.DataType], *, narrow: bool) -> pl.DataType | None:
    """Return the type to compare in, None for text beside numbers; ``narrow``: some day has 32-bit floats.

    >>> _common([pl.Int64(), pl.Float64()], narrow=True), _common([pl.Null(), pl.String()], narrow=False)
    (Float32, String)
    """
    types = [one for one in sides if one != pl.Null]
    if all(one == pl.String for one in types):
        return pl.String()
    if not all(one.is_numeric() or one == pl.Boolean for one in types):
        return None
    if any(one.is_float() for one in types):
        return pl.Float32() if narrow else pl.Float64()
    return pl.Boolean() if all(one == pl.Boolean for one in types) else pl.Int128()


def _in_words(dtype: pl.DataType) -> str:
    return "text" if dtype == pl.String else "a bool" if dtype == pl.Boolean else "a number"


def _ages(beside: pl.DataFrame) -> pl.DataFrame:
    age_us = (pl.col("shown_at") - pl.col("known_at")).dt.total_microseconds()
    minutes = beside.lazy().select(age_minutes=(age_us + MINUTE_US - 1) // MINUTE_US).drop_nulls()
    counted = minutes.group_by("age_minutes").agg(rows=pl.len().cast(pl.Int64)).sort("age_minutes")
    return counted.collect(engine="streaming")
