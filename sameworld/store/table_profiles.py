"""Labels and training set as numbers for a gate: one row a table and segment (``all``, a segment, a feature)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import polars as pl

KEYS = ("request_id", "item_id")
# Columns of the labels and of the training set, as their steps write them.
SHOWN_AT, CLOSED, TARGET, GAIN = "shown_at", "closed", "target", "gain"
COMPLETENESS, AGE, SEGMENT, SERVED = "completeness", "age_hours", "segment", "x_"
CHANCE = 0.01
WAS_SERVED = "sameworld: was served"
Row = dict[str, Any]


def bad_labels(horizon_hours: float) -> dict[str, pl.Expr]:
    """Return, by column of the profile, which label rows cannot be right; OPEN rows may have a completeness of 0."""
    gain, known, closed = pl.col(GAIN), pl.col(COMPLETENESS), pl.col(CLOSED)
    good_known = known.is_finite() & (known >= 0) & (known <= 1) & ~(closed & (known <= 0))
    return {
        "bad_gains": ~(gain.is_finite() & (gain >= 0)).fill_null(value=False),
        "bad_completeness": ~good_known.fill_null(value=False),
        "bad_closed": (closed & (pl.col(AGE) < horizon_hours - 1e-6)).fill_null(value=True),
    }


def labels_profile(labels: pl.LazyFrame, *, horizon_hours: float, target: str, enough_rows: int) -> pl.DataFrame:
    """Return the labels' profile.

    horizon_hours : window and lag; no row closes younger
    enough_rows : so many closed rows must hold both classes
    """
    closed, positive = pl.col(CLOSED), pl.col(TARGET).cast(pl.Boolean)
    counts = {"rows": pl.len(), "closed": closed.sum(), "positives": (closed & positive).sum()}
    opened = {"open_positives": (~closed & positive).sum()}
    bad = {name: rows.sum() for name, rows in bad_labels(horizon_hours).items()}
    by_segment = labels.group_by(SEGMENT).agg(**counts, **opened, **bad).sort(SEGMENT).collect(engine="streaming")
    whole = by_segment.drop(SEGMENT).sum().row(0, named=True)
    rows: list[Row] = [{"table": "labels", "segment": "all", "name": target, **whole, **_classes(whole, enough_rows)}]
    for part in by_segment.iter_rows(named=True):
        name = f"segment {part[SEGMENT]}"
        numbers = {f"segment_{column}": part[column] for column in (*counts, *opened)}
        rows.append({"table": "labels", "segment": name, "closed_share": part["closed"] / part["rows"], **numbers})
    return _framed(rows)


def training_profile(examples: pl.LazyFrame, *, features: Sequence[str], cutoff: datetime) -> pl.DataFrame:
    """Return the training set's profile: whole, then one row a feature."""
    schema = examples.collect_schema()
    was_served = pl.any_horizontal(pl.col(name).is_not_null() for name in schema if name.startswith(SERVED))
    # A column: written into each feature's expressions it would make them as many as features times features.
    examples, served = examples.with_columns(was_served.alias(WAS_SERVED)), pl.col(WAS_SERVED)
    shares = [part for name in features for part in _of_feature(name, schema[name], served).items()]
    exact = {
        "rows": pl.len(),
        "future_rows": (pl.col(SHOWN_AT) >= cutoff).fill_null(value=True).sum(),
        "served_rows": served.sum(),
    }
    seen = examples.select(**exact, **dict(shares)).collect(engine="streaming").row(0, named=True)
    torn = request_runs(examples).select(requests=pl.len(), torn_requests=(pl.col("runs") > 1).sum()).collect()
    whole = {name: seen[name] for name in exact}
    rows = [{"table": "examples", "segment": "all", **whole, **torn.row(0, named=True)}]
    return _framed([*rows, *(_feature_row(name, seen) for name in features)])


def request_runs(examples: pl.LazyFrame) -> pl.LazyFrame:
    """Return how many unbroken runs of rows each request has; a request whose rows stand together has one."""
    request = pl.struct("part", "request_id")
    starts = examples.select("part", "request_id", begins=(request != request.shift()).fill_null(value=True))
    return starts.filter("begins").group_by("part", "request_id").agg(runs=pl.len())


def _classes(counts: Row, enough_rows: int) -> Row:
    """Say which class is missing among the closed rows, and whether that can be chance.

    Where younger rows have positives at some rate, no positive among few closed rows says nothing yet.
    """
    closed, open_rows = counts["closed"], counts["rows"] - counts["closed"]
    missing = "positive" if not counts["positives"] else "negative" if counts["positives"] == closed else ""
    if not closed or not missing:
        return {}
    rate = counts["open_positives"] / open_rows if open_rows and missing == "positive" else 0.0
    chance = closed < enough_rows or (rate > 0 and math.exp(-closed * rate) > CHANCE)
    return {"missing_class": missing, "one_class_early" if chance else "one_class": 1}


def _of_feature(name: str, dtype: pl.DataType, served: pl.Expr) -> dict[str, pl.Expr]:
    column = pl.col(name)
    known = column.is_not_null() & ~column.is_nan().fill_null(value=False) if dtype.is_float() else column.is_not_null()
    values = column.cast(pl.String) if dtype in (pl.Categorical, pl.Enum) else column
    values = values.filter(known) if dtype.is_float() else values
    return {
        f"{name}|known": known.sum(),
        f"{name}|known_served": (known & served).sum(),
        f"{name}|constant": (values.min() == values.max()).fill_null(value=False),
        f"{name}|infinite": column.is_infinite().sum() if dtype.is_float() else pl.lit(0),
    }


def _feature_row(name: str, seen: Row) -> Row:
    known, known_served, served = seen[f"{name}|known"], seen[f"{name}|known_served"], seen["served_rows"]
    row: Row = {"table": "examples", "segment": f"feature {name}", "name": name}
    if not seen["rows"]:
        return row
    row |= {"all_null": known == 0, "constant": seen[f"{name}|constant"], "infinite": seen[f"{name}|infinite"]}
    row |= {"null_rate": 1 - known / seen["rows"], "null_when_served": known > 0 and served > 0 and known_served == 0}
    return row | ({"null_rate_served": 1 - known_served / served} if served else {})


def _framed(rows: Sequence[Row]) -> pl.DataFrame:
    text = ("table", "segment", "name", "missing_class")
    optional = (
        "name",
        "missing_class",
        "one_class",
        "one_class_early",
        "all_null",
        "constant",
        "infinite",
        "null_when_served",
    )
    names = sorted({*optional, *(name for row in rows for name in row)} - {"table", "segment"})
    schema = {name: pl.String if name in text else pl.Float64 for name in ("table", "segment", *names)}
    numbers = ({k: v if k in text else float(v) for k, v in row.items()} for row in rows)
    return pl.DataFrame(list(numbers), schema=schema).sort("table", "segment")
