"""Assemble the training set: features as served beside the labels, in the order of time, split by time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from sameworld.models.features import Kind, chosen, kind_of
from sameworld.records import Blocked, Cannot
from sameworld.sources.day_rows import DayRows, ViewRows, places_of
from sameworld.sources.view_days import with_days_to_join
from sameworld.store.artifacts import Artifact
from sameworld.store.feature_rows import SERVED, days_that_serve, feature_columns, with_features
from sameworld.store.log import Log
from sameworld.store.parquet_facts import null_counts
from sameworld.store.parts import Part, parts_of
from sameworld.store.step import Work, step
from sameworld.store.times import parse_time, time_text
from sameworld.store.views import KEYS, views_named


@step(reads=("features",))
def assemble_day(work: Work, *, rows: DayRows, views: ViewRows, labels: Artifact) -> None:
    """Write the features of one shown day, row by row beside its labels.

    Served values always win, served nulls included; a view's value is the newest that could be read when the
    impression was shown. Columns that the day's files lack are absent from its part. SERVED marks the rows that arrived
    on a day that logged what was served.
    """
    if labels.manifest["inputs"]["rows"] != rows.fingerprint:
        told = "labels and features are out of step"  # rows would get each other's labels
        raise Blocked(what=told, findings=(f"BLOCK {told}",))
    places = places_of(labels.scan("places").collect())
    impressions = rows.impressions(places=places)
    names = impressions.collect_schema().names()
    features = work.spec.features
    served = chosen(
        [name for name in names if name.startswith("x_")], include=features.include, exclude=features.exclude
    )
    columns = feature_columns(rows.log, "impressions", served=served, views=views.columns)
    keys = [name for name in (*KEYS, "shown_at") if name in names]
    shown = labels.scan("labels").select(keys).collect(engine="streaming") if views.columns else pl.DataFrame()
    known = with_days_to_join(views.log, views.columns, shown)
    featured = with_features(impressions, known, columns, cutoff=rows.until)
    logged = days_that_serve(rows.log, "impressions", columns.served)
    work.write("features", featured.select(*columns.names, pl.col("arrival_day").is_in(list(logged)).alias(SERVED)))
    work.rows = len(places)
    work.record = {
        **{name: labels.record[name] for name in ("day", "rows", "requests", "longest_list", "first", "last")},
        "served_features": list(columns.served),
        **_counts(work.folder / "features.parquet"),
    }


@step(reads=("features", "train.days", "train.holdout_days", "label.window_days"))
def run(work: Work, *, log: Artifact, labels: Artifact, delay: Artifact) -> None:
    """List the training set's parts, one a shown day, and cut it by time.

    The splits by shown_at: ``fit`` up to ``stop``, ``stop`` (early stopping) up to ``calibrate``, ``calibrate`` up to
    the last closed moment; what is younger is fitted only in the model that ships.
    """
    view = Log.open(log, work.store)
    views = views_named(view, work.spec.features.views)
    matures_after = timedelta(hours=labels.record["matures_after_hours"])

    def made(part: Part) -> Artifact:
        rows = DayRows.of(view, part.day, matures_after=matures_after, cutoff=work.now)
        read = ViewRows.of(view, views, rows.until)
        return work.part(assemble_day, rows=rows, views=read, labels=part.artifact, cutoff=time_text(rows.until))

    parts = work.each(made, parts_of(labels, work.store))
    kinds = _kinds([part.record["kinds"] for part in parts], work.spec.features.categories)
    if not kinds:
        work.record = Cannot("the log has no features: no x_* column and no view is chosen").as_record()
        return
    totals = _totals([part.record for part in parts], sorted(kinds))
    work.rows = totals["rows"]
    work.record = {
        **totals,
        "cutoff": time_text(work.now),
        "parts": [{"day": part.record["day"], "fingerprint": part.fingerprint} for part in parts],
        "label_parts": labels.record["parts"],
        "curves": labels.record["curves"],
        "curves_by_kind": labels.record["curves_by_kind"],
        "features": kinds,
        "splits": _splits(work, parse_time(totals["from"]), delay),
    }


def _counts(path: Path) -> dict[str, Any]:
    """Return what was written: nulls by feature, rows of days that logged what was served, the features' kinds."""
    table = pl.scan_parquet(path)
    nulls, _ = null_counts(path)
    served = int(table.select(pl.col(SERVED).sum()).collect(engine="streaming").item())
    kinds = {name: kind_of(dtype) for name, dtype in table.collect_schema().items() if dtype != pl.Null}
    del nulls[SERVED], kinds[SERVED]
    return {"served": served, "nulls": nulls, "kinds": kinds}


def _kinds(records: Sequence[Mapping[str, Kind]], categories: Sequence[str]) -> dict[str, Kind]:
    """Return how each feature is read; what the spec names as a category is one, whatever its type."""
    found: dict[str, Kind] = {}
    for record in records:
        found |= record
    named = set(chosen(sorted(found), include=categories, exclude=[]))
    return {name: "category" if name in named else kind for name, kind in sorted(found.items())}


def _totals(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    rows = sum(one["rows"] for one in records)
    nulls = {name: sum(one["nulls"].get(name, one["rows"]) for one in records) for name in names}
    return {
        "rows": rows,
        "requests": sum(one["requests"] for one in records),
        "from": min(one["first"] for one in records),
        "to": time_text(parse_time(max(one["last"] for one in records)) + timedelta(microseconds=1)),
        "served_share": sum(one["served"] for one in records) / rows,
        "served_features": sorted({name for one in records for name in one["served_features"]}),
        "longest_list": max(one["longest_list"] for one in records),
        "null_share": {name: count / rows for name, count in nulls.items()},
        "null_rates": {
            "features": list(names),
            "days": [one["day"] for one in records],
            "rates": [[one["nulls"].get(name, one["rows"]) / one["rows"] for one in records] for name in names],
        },
    }


def _splits(work: Work, begins: datetime, delay: Artifact) -> dict[str, Any]:
    """Cut the closed days: the last ``holdout_days``, at most a third of them, half to stop on, half to calibrate."""
    closed_before = work.now - timedelta(days=work.spec.label.window_days, hours=delay.record["lag_hours"])
    begins = max(begins, work.now - timedelta(days=work.spec.train.days))
    span = max(closed_before - begins, timedelta(0))
    held_out = min(timedelta(days=work.spec.train.holdout_days), span / 3)
    return {
        "fit": time_text(begins),
        "stop": time_text(closed_before - held_out),
        "calibrate": time_text(closed_before - held_out / 2),
        "closed": time_text(closed_before),
        "cutoff": time_text(work.now),
    }
