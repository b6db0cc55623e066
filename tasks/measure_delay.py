"""Measure how late the log is: the landing lag of each table, and how long outcomes take to be known."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sameworld.maths.delay import (
    DelayCurve,
    fit_delay_curve,
    landing_lag_quantiles,
    pool_small_segments,
    shift_alarm,
)
from sameworld.records import Cannot, Refused
from sameworld.store.artifacts import Artifact
from sameworld.store.log import Log
from sameworld.store.outcomes import impressions_shown, outcomes_in_window, with_segments
from sameworld.store.step import Work, step

QUANTILES = (0.5, 0.9, 0.99)
ALL = "all"


@step(
    reads=(
        "label.window_days",
        "label.gains",
        "label.target",
        "label.segments",
        "label.lag_grid_hours",
        "label.min_segment_events",
        "source.max_skew_seconds",
        "train.days",
    )
)
def run(work: Work, *, log: Artifact) -> None:
    """Fit the landing lag and the delay curves that this run's labels will use.

    The frozen lag is the 99 % quantile of the outcomes' landing lag in the slowest segment, rounded up to
    ``label.lag_grid_hours``. A curve is fitted for each kind and segment on all impressions, clicked or not; segments
    with too few events take the curve of all. Where no impression is as old as window + lag, completeness is not
    identified and the curves say so.
    """
    view = Log.open(log, work.store)
    if not (view.has("outcomes") and view.has("impressions")):
        work.record = Cannot("the log has no outcomes yet, or no impressions").as_record()
        return
    window = timedelta(days=work.spec.label.window_days)
    shown, events = _read(work, view, window)
    work.rows = len(shown)
    lags = _landing_lags(work, view, events)
    if lags is None:
        work.record = Cannot("no outcome of the named kinds has arrived within its window yet").as_record()
        return
    lag_hours = math.ceil(lags["slowest_q99"] / work.spec.label.lag_grid_hours) * work.spec.label.lag_grid_hours
    horizon_hours = window / timedelta(hours=1) + lag_hours
    work.record = {
        "cutoff_day": work.now.date().isoformat(),
        "landing_lag_hours": lags["by_table"],
        "lag_by_segment_hours": lags["by_segment"],
        "lag_hours": lag_hours,
        "window_days": work.spec.label.window_days,
        "segments": work.spec.label.segments,
        **_curves(work, shown, events, horizon_hours),
    }


def _read(work: Work, view: Log, window: timedelta) -> tuple[pl.DataFrame, pl.DataFrame]:
    since = work.now - timedelta(days=work.spec.train.days)
    impressions = with_segments(impressions_shown(view, since=since, before=work.now), work.spec.label.segments)
    age = (pl.lit(work.now) - pl.col("shown_at")).dt.total_microseconds() / 3.6e9
    shown = impressions.select("request_id", "item_id", "shown_at", "segment", age_hours=age)
    skew = timedelta(seconds=work.spec.source.max_skew_seconds)
    events = (
        outcomes_in_window(view, shown=shown, window=window, skew=skew, cutoff=work.now)
        .filter(pl.col("retracted_at").is_null(), pl.col("kind").is_in(sorted(work.spec.label.gains)))
        .with_columns(
            known_age_hours=(pl.col("arrived_at") - pl.col("shown_at")).dt.total_microseconds().clip(0) / 3.6e9,
            lag_hours=(pl.col("arrived_at") - pl.col("happened_at")).dt.total_microseconds().clip(0) / 3.6e9,
            event_age_hours=(pl.lit(work.now) - pl.col("happened_at")).dt.total_microseconds() / 3.6e9,
        )
        .collect(engine="streaming")
    )
    return shown.select("request_id", "item_id", "segment", "age_hours").collect(engine="streaming"), events


def _landing_lags(work: Work, view: Log, events: pl.DataFrame) -> dict[str, Any] | None:
    if not len(events):
        return None
    by_table = {"outcomes": _quantiles(events["lag_hours"].to_numpy(), events["event_age_hours"].to_numpy())}
    for table in ("impressions", "requests"):
        if view.has(table):
            lag = (pl.col("arrived_at") - pl.col("shown_at")).dt.total_microseconds() / 3.6e9
            age = (pl.lit(work.now) - pl.col("shown_at")).dt.total_microseconds() / 3.6e9
            frame = view.table(table).select(lag=lag, age=age).collect(engine="streaming")
            by_table[table] = _quantiles(frame["lag"].to_numpy(), frame["age"].to_numpy())
    counts = dict(events.group_by("segment").len().sort("segment").iter_rows())
    pooled = pool_small_segments(counts, minimum=work.spec.label.min_segment_events)
    named = events.with_columns(pl.col("segment").replace_strict(pooled, return_dtype=pl.String))
    by_segment = {
        str(key[0]): _quantiles(part["lag_hours"].to_numpy(), part["event_age_hours"].to_numpy())
        for key, part in sorted(named.partition_by("segment", as_dict=True).items())
    }
    slowest = max([by_table["outcomes"]["q99"], *(one["q99"] for one in by_segment.values())])
    return {"by_table": by_table, "by_segment": by_segment, "slowest_q99": slowest}


def _quantiles(lag: NDArray[np.float64], age: NDArray[np.float64]) -> dict[str, float]:
    values = landing_lag_quantiles(lag, age, QUANTILES)
    return {name: round(float(value), 6) for name, value in zip(("q50", "q90", "q99"), values, strict=True)}


def _curves(work: Work, shown: pl.DataFrame, events: pl.DataFrame, horizon_hours: float) -> dict[str, Any]:
    oldest = float(shown["age_hours"].max() or 0.0)  # type: ignore[arg-type]
    if oldest < horizon_hours:
        reason = (
            f"completeness is identified only up to the age of the log, {oldest / 24:.1f} days; "
            f"the window and the landing lag need {horizon_hours / 24:.1f} days"
        )
        return {"curves": Cannot(reason).as_record(), "shift": Cannot(reason).as_record()}
    curves: dict[str, dict[str, Any]] = {}
    words: list[str] = []
    for kind in sorted(work.spec.label.gains):
        curves[kind] = _curves_of(kind, work, shown, events, horizon_hours, words)
    return {"curves": curves, "pooled": words, "shift": _shift(work, curves, shown, events)}


def _curves_of(  # noqa: PLR0917
    kind: str, work: Work, shown: pl.DataFrame, events: pl.DataFrame, horizon_hours: float, words: list[str]
) -> dict[str, Any]:
    first = events.filter(pl.col("kind") == kind).group_by("request_id", "item_id").agg(pl.col("known_age_hours").min())
    table = shown.join(first, on=["request_id", "item_id"], how="left", maintain_order="left")
    counts = table.group_by("segment").agg(pl.col("known_age_hours").is_not_null().sum()).sort("segment")
    pooled = pool_small_segments(dict(counts.iter_rows()), minimum=work.spec.label.min_segment_events)
    found: dict[str, Any] = {ALL: _curve(table, horizon_hours)}
    for segment, curve_of in sorted(pooled.items()):
        if ALL not in (curve_of, segment):
            found[segment] = _curve(table.filter(pl.col("segment") == segment), horizon_hours)
        elif segment != ALL:
            words.append(f"{kind}, {segment}: fewer than {work.spec.label.min_segment_events} outcomes, curve of all")
    return found


def _curve(table: pl.DataFrame, horizon_hours: float) -> dict[str, Any]:
    known = table["known_age_hours"].fill_null(float("nan")).to_numpy()
    try:
        return fit_delay_curve(table["age_hours"].to_numpy(), known, horizon_hours=horizon_hours).as_record()
    except Refused as refusal:
        return Cannot(str(refusal)).as_record()


def _shift(work: Work, curves: dict[str, dict[str, Any]], shown: pl.DataFrame, events: pl.DataFrame) -> dict[str, Any]:
    """Compare the target's outcomes of the newest fifth of the window with the curve that all of the log gives."""
    record: dict[str, Any] = curves[work.spec.label.target][ALL]
    if "cannot" in record:
        return record
    curve = DelayCurve.from_record(record)
    newest = shown.filter(pl.col("age_hours") <= curve.horizon_hours / 2)
    first = events.filter(pl.col("kind") == work.spec.label.target)
    first = first.group_by("request_id", "item_id").agg(pl.col("known_age_hours").min())
    table = newest.join(first, on=["request_id", "item_id"], how="left", maintain_order="left")
    known = table["known_age_hours"].fill_null(float("nan")).to_numpy()
    found = shift_alarm(table["age_hours"].to_numpy(), known, curve)
    return {"alarm": bool(found.alarm), "reason": found.reason}
