"""Assemble the training set: labels beside features as served, in the order of time, split by time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from sameworld.models.features import Kind, chosen, kind_of
from sameworld.records import Cannot
from sameworld.store.artifacts import Artifact
from sameworld.store.feature_rows import FeatureColumns, feature_columns, with_features
from sameworld.store.log import Log
from sameworld.store.outcomes import impressions_shown
from sameworld.store.step import Work, step
from sameworld.store.times import time_text


@step(reads=("features", "train.days", "train.holdout_days", "label.window_days"))
def run(work: Work, *, log: Artifact, labels: Artifact, delay: Artifact) -> None:
    """Write one row an impression: its label and its features, a request's rows together, in the order of time.

    The splits by shown_at: ``fit`` up to ``stop``, ``stop`` (early stopping) up to ``calibrate``, ``calibrate`` up to
    the last closed moment; what is younger is fitted only in the model that ships.
    """
    view = Log.open(log, work.store)
    since = work.now - timedelta(days=work.spec.train.days)
    rows = impressions_shown(view, since=since, before=work.now)
    served = [name for name in rows.collect_schema().names() if name.startswith("x_")]
    features = work.spec.features
    names = chosen(served, include=features.include, exclude=features.exclude)
    columns = feature_columns(view, "impressions", served=names, views=features.views)
    examples = _side_by_side(labels, rows, view, columns, work.now)
    kinds = _kinds(examples, columns, features.categories)
    if not kinds:
        work.record = Cannot("the log has no features: no x_* column and no view is chosen").as_record()
        return
    work.write("examples", examples)
    work.rows = int(labels.record["rows"])
    work.record = {**_counts(work, columns.served), "features": kinds, "splits": _splits(work, since, delay)}


def _side_by_side(
    labels: Artifact, rows: pl.LazyFrame, view: Log, columns: FeatureColumns, cutoff: datetime
) -> pl.LazyFrame:
    """Join labels and features by their place: both steps read the same impressions in the same order."""
    keys = [name for name in ("user_id",) if name in rows.collect_schema().names()]
    wanted = ["request_id", "item_id", *keys, "shown_at", "arrival_day", *columns.served]
    featured = with_features(rows.select(wanted), view, columns, cutoff=cutoff).select(
        pl.col("request_id").alias("_request_id"), pl.col("item_id").alias("_item_id"), *columns.names
    )
    beside = pl.concat([labels.scan("labels"), featured], how="horizontal")
    same = (pl.col("request_id") == pl.col("_request_id")) & (pl.col("item_id") == pl.col("_item_id"))
    mismatched = beside.select((~same).sum()).collect(engine="streaming").item()
    if mismatched:
        raise AssertionError(f"labels and impressions are out of step in {mismatched} rows")
    request_time = pl.col("shown_at").min().over("request_id")
    ordered = beside.drop("_request_id", "_item_id").with_columns(_request_time=request_time)
    ordered = ordered.sort("_request_time", "request_id", "position", "item_id").drop("_request_time")
    return ordered.with_columns(request=pl.col("request_id").rle_id())


def _kinds(examples: pl.LazyFrame, columns: FeatureColumns, categories: Sequence[str]) -> dict[str, Kind]:
    """Return how each feature is read; what the spec names as a category is one, whatever its type."""
    schema = examples.collect_schema()
    named = set(chosen(columns.names, include=categories, exclude=[]))
    present = (name for name in columns.names if schema[name] != pl.Null)
    return {name: "category" if name in named else kind_of(schema[name]) for name in present}


def _counts(work: Work, served_names: Sequence[str]) -> dict[str, Any]:
    table = pl.scan_parquet(work.folder / "examples.parquet")
    names = [name for name in table.collect_schema().names() if name.startswith("x_")]
    served = pl.any_horizontal(pl.col(name).is_not_null() for name in served_names) if served_names else pl.lit(False)
    found = table.select(
        rows=pl.len(),
        requests=pl.col("request").n_unique(),
        first=pl.col("shown_at").min(),
        last=pl.col("shown_at").max(),
        served_share=served.mean(),
        longest=pl.col("request").rle().struct.field("len").max(),
    ).collect(engine="streaming")
    row = found.row(0, named=True)
    nulls = table.select(pl.col(name).is_null().mean() for name in names).collect(engine="streaming").row(0, named=True)
    return {
        "rows": row["rows"],
        "requests": row["requests"],
        "from": time_text(row["first"]),
        "to": time_text(row["last"] + timedelta(microseconds=1)),
        "served_share": row["served_share"],
        "replayed_share": 0.0,
        "longest_list": row["longest"],
        "null_share": nulls,
    }


def _splits(work: Work, since: datetime, delay: Artifact) -> dict[str, Any]:
    """Cut the closed days: the last ``holdout_days``, at most a third of them, half to stop on, half to calibrate."""
    closed_before = work.now - timedelta(days=work.spec.label.window_days, hours=delay.record["lag_hours"])
    begins = max(since, _first_shown(work))
    span = max(closed_before - begins, timedelta(0))
    held_out = min(timedelta(days=work.spec.train.holdout_days), span / 3)
    return {
        "fit": time_text(begins),
        "stop": time_text(closed_before - held_out),
        "calibrate": time_text(closed_before - held_out / 2),
        "closed": time_text(closed_before),
        "cutoff": time_text(work.now),
    }


def _first_shown(work: Work) -> datetime:
    first: datetime = (
        pl.scan_parquet(work.folder / "examples.parquet").select(pl.col("shown_at").min()).collect().item()
    )
    return first
