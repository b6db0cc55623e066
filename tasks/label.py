"""Label every impression: what it led to as far as was known, and whether that is settled."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl

from sameworld.maths.delay import DelayCurve
from sameworld.records import Cannot
from sameworld.store.artifacts import Artifact
from sameworld.store.log import Log
from sameworld.store.outcomes import impressions_shown, outcomes_in_window, with_segments
from sameworld.store.step import Work, step

ALL = "all"


@step(
    reads=(
        "label.window_days",
        "label.gains",
        "label.target",
        "label.segments",
        "source.max_skew_seconds",
        "train.days",
    )
)
def run(work: Work, *, log: Artifact, delay: Artifact) -> None:
    """Write one row an impression: gain, target, CLOSED or OPEN, age and completeness.

    An impression is OPEN until shown_at + window + lag has passed, clicked or not. A closed label counts what had
    arrived when it closed, and never changes; what arrives later is counted as late. Rows are in the log's order.
    """
    if "cannot" in delay.record["curves"]:
        work.record = delay.record["curves"]
        return
    window, lag = timedelta(days=work.spec.label.window_days), timedelta(hours=delay.record["lag_hours"])
    view = Log.open(log, work.store)
    since = work.now - timedelta(days=work.spec.train.days)
    impressions = with_segments(impressions_shown(view, since=since, before=work.now), work.spec.label.segments)
    shown = _shown(work, impressions, window + lag)
    skew = timedelta(seconds=work.spec.source.max_skew_seconds)
    events = outcomes_in_window(view, shown=shown, window=window, skew=skew, cutoff=work.now).collect(
        engine="streaming"
    )
    kinds = sorted(work.spec.label.gains)
    labels = _labels(shown, events, kinds).collect(engine="streaming")
    labels = labels.with_columns(
        gain=pl.sum_horizontal(pl.col(f"is_{k}") * work.spec.label.gains[k] for k in kinds).cast(pl.Float64),
        target=pl.col(f"is_{work.spec.label.target}").cast(pl.Int8),
        completeness=pl.Series(_completeness(labels, delay.record["curves"][work.spec.label.target])),
    )
    work.rows = len(labels)
    work.record = _counts(labels, events, kinds)
    work.write("labels", labels.drop("closes_at"))


def _shown(work: Work, impressions: pl.LazyFrame, matures_after: timedelta) -> pl.LazyFrame:
    names = impressions.collect_schema().names()
    optional = [name for name in ("user_id", "propensity") if name in names]
    closes_at = pl.col("shown_at") + matures_after
    return impressions.select(
        "request_id",
        "item_id",
        *optional,
        "shown_at",
        "position",
        "segment",
        closes_at=closes_at,
        closed=closes_at <= work.now,
        age_hours=(pl.lit(work.now) - pl.col("shown_at")).dt.total_microseconds() / 3.6e9,
    )


def _labels(shown: pl.LazyFrame, events: pl.DataFrame, kinds: list[str]) -> pl.LazyFrame:
    in_time = (pl.col("arrived_at") < pl.col("closes_at")) & (
        pl.col("retracted_at").is_null() | (pl.col("retracted_at") >= pl.col("closes_at"))
    )
    flags = [(pl.col("kind") == kind).any().alias(f"is_{kind}") for kind in kinds]
    known = events.lazy().filter(in_time).group_by("request_id", "item_id").agg(flags)
    joined = shown.join(known, on=["request_id", "item_id"], how="left", maintain_order="left")
    return joined.with_columns(pl.col(f"is_{kind}").fill_null(value=False) for kind in kinds)


def _completeness(labels: pl.DataFrame, curves: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return F(age | segment) for open rows and 1 for closed ones."""
    age, segment = labels["age_hours"].to_numpy(), labels["segment"]
    result = np.ones(len(labels))
    for name in segment.unique().sort():
        record = curves.get(name, curves[ALL])
        record = curves[ALL] if "cannot" in record else record
        if "cannot" not in record:
            rows = ((segment == name) & ~labels["closed"]).to_numpy()
            result[rows] = DelayCurve.from_record(record).at(age[rows])
    return result


def _counts(labels: pl.DataFrame, events: pl.DataFrame, kinds: list[str]) -> dict[str, Any]:
    if not len(labels):
        return Cannot("no impression was shown in the training period").as_record()
    closed = int(labels["closed"].sum())
    late = events.filter(pl.col("closed") & (pl.col("arrived_at") >= pl.col("closes_at")))
    retracted = events.filter(pl.col("retracted_at").is_not_null())
    by_day = labels.group_by(day=pl.col("shown_at").dt.date().cast(pl.String)).agg(
        closed=pl.col("closed").sum(), open=(~pl.col("closed")).sum(), positives=pl.col("target").sum()
    )
    return {
        "rows": len(labels),
        "closed": closed,
        "open": len(labels) - closed,
        "closed_share": closed / len(labels),
        "positives": int(labels["target"].sum()),
        "late_after_close": len(late),
        "by_kind": {
            kind: {
                "outcomes": int((events["kind"] == kind).sum()),
                "positives": int(labels[f"is_{kind}"].sum()),
                "late_after_close": int((late["kind"] == kind).sum()),
                "retracted": int((retracted["kind"] == kind).sum()),
            }
            for kind in kinds
        },
        "by_day": by_day.sort("day").to_dicts(),
    }
