"""Measure how late the log is: the landing lag of each table, and how long outcomes take to be known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sameworld.maths.delay import fit_delay_curve, landing_lag_quantiles, pool_small_segments, why_pooled
from sameworld.maths.delay_shift import WEEK, ShiftAlarm, shift_alarm
from sameworld.records import Cannot, Refused
from sameworld.store.artifacts import Artifact
from sameworld.store.log import Log
from sameworld.store.outcomes import impressions_shown, outcomes_in_window, with_segments
from sameworld.store.step import Work, step

QUANTILES = (0.5, 0.9, 0.99)
ALL = "all"
ALPHA = 0.001  # of a day's shift alarm, over all segments together: one false alarm in some three years of days


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
    with too few events, or too young, take the curve of all, and ``pooled`` says which and why. Where no impression
    is as old as window + lag, completeness is not identified and the curves say so. The newest days' outcomes of the
    target are compared with those of earlier weeks, segment by segment: the shift alarm.
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
    late = _late(events, sorted(work.spec.label.gains), window + timedelta(hours=lag_hours))
    work.record = {
        "cutoff_day": work.now.date().isoformat(),
        "landing_lag_hours": lags["by_table"],
        "lag_by_segment_hours": lags["by_segment"],
        "lag_hours": lag_hours,
        "late_after_close": late,
        "window_days": work.spec.label.window_days,
        "segments": work.spec.label.segments,
        **_curves(work, shown, events, horizon_hours),
    }


def _late(events: pl.DataFrame, kinds: Sequence[str], matures_after: timedelta) -> dict[str, int]:
    """Count the outcomes that arrived after their impression's label had closed, by kind and in all."""
    late = events.filter(pl.col("arrived_at") - pl.col("shown_at") >= matures_after)
    return {"all": len(late), **{kind: int((late["kind"] == kind).sum()) for kind in kinds}}


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
        known = _first_known(kind, shown, events)
        curves[kind], why = _curves_of(known, horizon_hours, work.spec.label.min_segment_events)
        words += [f"{kind}: {one}" for one in why]
    target = _first_known(work.spec.label.target, shown, events)
    return {"curves": curves, "pooled": words, "shift": _shift(target, curves[work.spec.label.target], horizon_hours)}


def _first_known(kind: str, shown: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """Give each impression the age at which its first outcome of a kind became known, null where none is."""
    first = events.filter(pl.col("kind") == kind).group_by("request_id", "item_id").agg(pl.col("known_age_hours").min())
    table = shown.join(first, on=["request_id", "item_id"], how="left", maintain_order="left")
    return table.select("segment", "age_hours", "known_age_hours")


def _curves_of(table: pl.DataFrame, horizon_hours: float, minimum: int) -> tuple[dict[str, Any], list[str]]:
    """Return the curve of all and of each segment that can have its own, and why the others have none."""
    counts = table.group_by("segment").agg(pl.col("known_age_hours").is_not_null().sum()).sort("segment")
    by_segment = {segment: count for segment, count in counts.iter_rows() if segment != ALL}
    words = why_pooled(by_segment, minimum=minimum)
    found: dict[str, Any] = {ALL: _curve(table, horizon_hours)}
    for segment in sorted(by_segment.keys() - words.keys()):
        curve = _curve(table.filter(pl.col("segment") == segment), horizon_hours)
        if "cannot" in curve:
            words[segment] = f"'{segment}' has no curve of its own ({curve['cannot']}): the curve of all stands in"
        else:
            found[segment] = curve
    return found, [words[segment] for segment in sorted(words)]


def _arrays(table: pl.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return table["age_hours"].to_numpy(), table["known_age_hours"].fill_null(float("nan")).to_numpy()


def _curve(table: pl.DataFrame, horizon_hours: float) -> dict[str, Any]:
    try:
        return fit_delay_curve(*_arrays(table), horizon_hours=horizon_hours, rhythm_hours=WEEK).as_record()
    except Refused as refusal:
        return Cannot(str(refusal)).as_record()


def _shift(table: pl.DataFrame, curves: dict[str, Any], horizon_hours: float) -> dict[str, Any]:
    """Compare the newest outcomes of the target with earlier weeks', for each curve the impressions that it serves.

    The alarm is raised if any of them raises it, at a share of ``ALPHA`` each (Bonferroni).
    """
    if "cannot" in curves[ALL]:
        return dict(curves[ALL])
    own = pl.col("segment").is_in(sorted(curves))
    served = table.with_columns(curve=pl.when(own).then("segment").otherwise(pl.lit(ALL)))
    parts = {str(key[0]): part for key, part in served.partition_by("curve", as_dict=True).items()}
    found = {name: _shift_of(parts[name], horizon_hours, ALPHA / len(parts)) for name in sorted(parts)}
    told = {name: one for name, one in found.items() if isinstance(one, ShiftAlarm)}
    by_segment = {name: one.as_record() for name, one in found.items()}
    if not told:
        return dict(by_segment[min(by_segment)])
    worst = min(told, key=lambda name: np.nan_to_num(told[name].p_value, nan=2.0))
    reason = told[worst].reason if len(parts) == 1 else f"'{worst}', the most unlike: {told[worst].reason}"
    p_value = float(np.minimum(told[worst].p_value * len(parts), 1.0))  # NaN stays NaN
    return {**replace(told[worst], reason=reason, p_value=p_value).as_record(), "by_segment": by_segment}


def _shift_of(table: pl.DataFrame, horizon_hours: float, alpha: float) -> ShiftAlarm | Cannot:
    try:
        return shift_alarm(*_arrays(table), horizon_hours=horizon_hours, alpha=alpha)
    except Refused as refusal:
        return Cannot(str(refusal))
