"""Label every impression: what it led to as far as was known, and whether that is settled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import polars as pl

from sameworld.records import Cannot
from sameworld.sources.day_rows import LONGEST_REQUEST, DayRows, shown_days
from sameworld.store.artifacts import Artifact
from sameworld.store.log import Log
from sameworld.store.outcomes import outcomes_in_window, with_segments
from sameworld.store.parts import usable_curves
from sameworld.store.step import Work, step
from sameworld.store.times import day_end, day_start, time_text

KEY = ["request_id", "item_id"]
OF_A_DAY = ("label.window_days", "label.gains", "label.target", "label.segments", "source.max_skew_seconds")
COLUMNS = ("request_id", "item_id", "user_id", "shown_at", "position", "propensity")


@step(reads=OF_A_DAY)
def label_day(work: Work, *, rows: DayRows) -> None:
    """Label the impressions of one shown day as known at the part's end.

    An impression closes at shown_at + window + lag; its label counts what had arrived by then (and by the part's end)
    and never changes. So the part of a day whose impressions have all closed is made once.
    """
    segments = work.spec.label.segments
    impressions = rows.impressions([*COLUMNS, *segments])
    absent = set(segments) - set(impressions.collect_schema().names())  # a column can come into the log later
    impressions = with_segments(impressions.with_columns(pl.lit(None).alias(name) for name in sorted(absent)), segments)
    segmented = impressions.drop(segments)
    shown = segmented.with_columns(closes_at=pl.col("shown_at") + rows.matures_after).collect(engine="streaming")
    events = _events(work, rows, shown)
    kinds = sorted(work.spec.label.gains)
    labels = _labelled(shown, events, kinds)
    labels = labels.with_columns(
        gain=pl.sum_horizontal(pl.col(f"is_{k}") * work.spec.label.gains[k] for k in kinds).cast(pl.Float64),
        target=pl.col(f"is_{work.spec.label.target}").cast(pl.Int8),
    )
    work.rows = len(labels)
    work.record = _counts(rows, labels, events, kinds)
    work.write("labels", labels)


@step(reads=(*OF_A_DAY, "train.days"))
def run(work: Work, *, log: Artifact, delay: Artifact) -> None:
    """List the parts of the training period, one a shown day, and count them.

    An impression is OPEN until shown_at + window + lag has passed, clicked or not. Parts of closed days are reused as
    they are; only days that are still open are made anew.
    """
    if "cannot" in delay.record["curves"]:
        work.record = delay.record["curves"]
        return
    view = Log.open(log, work.store)
    matures_after = timedelta(days=work.spec.label.window_days, hours=delay.record["lag_hours"])
    parts = []
    for day in shown_days(view, since=work.now - timedelta(days=work.spec.train.days), cutoff=work.now):
        rows = DayRows.of(view, day, matures_after=matures_after, cutoff=work.now)
        part = work.part(label_day, rows=rows, cutoff=time_text(rows.until))
        if part.record["rows"]:
            parts.append(part)
    if not parts:
        work.record = Cannot("no impression was shown in the training period").as_record()
        return
    work.record = {
        "cutoff": time_text(work.now),
        "parts": [{"day": part.record["day"], "fingerprint": part.fingerprint} for part in parts],
        "curves": usable_curves(delay.record["curves"][work.spec.label.target]),
        "matures_after_hours": matures_after / timedelta(hours=1),
        **_totals([part.record for part in parts], sorted(work.spec.label.gains)),
        "late_after_close": delay.record["late_after_close"]["all"],
    }
    for kind, counts in work.record["by_kind"].items():
        counts["late_after_close"] = delay.record["late_after_close"][kind]
    work.rows = work.record["rows"]


def _events(work: Work, rows: DayRows, shown: pl.DataFrame) -> pl.DataFrame:
    """Return the outcome events of the day's impressions within their window, known at the part's end."""
    window, skew = timedelta(days=work.spec.label.window_days), timedelta(seconds=work.spec.source.max_skew_seconds)
    if not rows.log.has("outcomes"):
        return shown.clear().with_columns(
            kind=pl.lit("", pl.String), **dict.fromkeys(("arrived_at", "retracted_at"), pl.col("shown_at"))
        )
    happened = pl.col("happened_at").is_between(
        day_start(rows.day) - skew, day_end(rows.day) + LONGEST_REQUEST + window, closed="left"
    )
    events = outcomes_in_window(
        rows.log, shown=shown.select(*KEY, "shown_at", "closes_at").lazy(), window=window, skew=skew,
        cutoff=rows.until, among=happened,
    )  # fmt: skip
    return events.collect(engine="streaming")


def _labelled(shown: pl.DataFrame, events: pl.DataFrame, kinds: Sequence[str]) -> pl.DataFrame:
    in_time = (pl.col("arrived_at") < pl.col("closes_at")) & (
        pl.col("retracted_at").is_null() | (pl.col("retracted_at") >= pl.col("closes_at"))
    )
    flags = [(pl.col("kind") == kind).any().alias(f"is_{kind}") for kind in kinds]
    known = events.filter(in_time).group_by(KEY).agg(flags)
    joined = shown.join(known, on=KEY, how="left", maintain_order="left")
    return joined.with_columns(pl.col(f"is_{kind}").fill_null(value=False) for kind in kinds)


def _counts(rows: DayRows, labels: pl.DataFrame, events: pl.DataFrame, kinds: Sequence[str]) -> dict[str, Any]:
    retracted = events.filter(pl.col("retracted_at").is_not_null())
    return {
        "day": rows.day.isoformat(),
        "until": time_text(rows.until),
        "rows": len(labels),
        "closed": int((labels["closes_at"] <= rows.until).sum()),
        "positives": int(labels["target"].sum()),
        "by_kind": {
            kind: {
                "outcomes": int((events["kind"] == kind).sum()),
                "positives": int(labels[f"is_{kind}"].sum()),
                "retracted": int((retracted["kind"] == kind).sum()),
            }
            for kind in kinds
        },
    }


def _totals(records: Sequence[Mapping[str, Any]], kinds: Sequence[str]) -> dict[str, Any]:
    rows, closed = sum(one["rows"] for one in records), sum(one["closed"] for one in records)
    names = ("outcomes", "positives", "retracted")
    return {
        "rows": rows,
        "closed": closed,
        "open": rows - closed,
        "closed_share": closed / rows,
        "positives": sum(one["positives"] for one in records),
        "by_kind": {
            kind: {name: sum(one["by_kind"][kind][name] for one in records) for name in names} for kind in kinds
        },
        "by_day": [
            {
                "day": one["day"],
                "closed": one["closed"],
                "open": one["rows"] - one["closed"],
                "positives": one["positives"],
            }
            for one in records
        ],
    }
