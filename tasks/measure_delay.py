"""Measure how late the log is: the landing lag of each table, and how long outcomes take to be known."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sameworld.maths.delay import curve_of, landing_lag_quantiles, pool_small_segments, why_pooled
from sameworld.maths.delay_shift import WEEK, ShiftAlarm, alarm_of
from sameworld.maths.watched import Ages, Watched
from sameworld.records import Cannot, Refused
from sameworld.store.artifacts import Artifact
from sameworld.store.delay_rows import PLACE, Shown, known_outcomes, landing_times, runs_of
from sameworld.store.log import Log
from sameworld.store.step import Work, step
from sameworld.store.times import day_end, parse_day, time_text

QUANTILES = (0.5, 0.9, 0.99)
ALL = "all"
EPOCH, HOUR_US = datetime(1970, 1, 1, tzinfo=UTC), 3.6e9
ALPHA = 0.001  # of a day's shift alarm, over all segments together: one false alarm in some three years of days


@step(reads=("label.segments",))
def day_runs(work: Work, *, day: Artifact) -> None:
    """Note when the impressions of one day of arrival were shown, in runs, and the values of their segments."""
    runs, values = runs_of(day.scan("impressions"), work.spec.label.segments)
    work.rows = len(runs)
    work.record = {"day": day.record["day"]}
    work.write("runs", runs)
    work.write("segments", values)


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
    seen = _read(work, view)
    if isinstance(seen, Cannot):
        work.record = seen.as_record()
        return
    lags, label = _landing_lags(work, view, seen), work.spec.label
    lag_hours = math.ceil(lags["slowest_q99"] / label.lag_grid_hours) * label.lag_grid_hours
    window, lag = timedelta(days=label.window_days), timedelta(hours=lag_hours)
    work.rows = len(seen.ages)
    work.record = {
        "cutoff_day": work.now.date().isoformat(),
        **{name: lags[name] for name in ("landing_lag_hours", "lag_by_segment_hours")},
        "lag_hours": lag_hours,
        "late_after_close": _late(seen.events, sorted(label.gains), window + lag),
        "window_days": label.window_days,
        "segments": label.segments,
        **_curves(work, seen, window / timedelta(hours=1) + lag_hours),
    }


@dataclass(frozen=True, eq=False)
class _Seen:
    """What the log shows of the period: impressions by age and segment, and the outcomes known of them.

    code : a place in ``segments``, beside each of the ages; events : one row an outcome, ages and lags in hours
    """

    shown: Shown
    cutoff_us: int
    ages: Ages
    code: NDArray[np.int32]
    events: pl.DataFrame

    def of(self, segments: Collection[str] | None) -> Ages:
        """Return the ages of the impressions of these segments (None: all)."""
        if segments is None:
            return self.ages
        chosen = np.array([name in segments for name in self.shown.segments])[self.code]
        return Ages.of(self.ages.hours[chosen], np.diff(self.ages.before)[chosen])

    def names(self) -> set[str]:
        """Return the segments in which an impression was shown and stands."""
        return {self.shown.segments[number] for number in np.unique(self.code)}

    def watched(self, kind: str, segments: Collection[str] | None = None) -> Watched:
        """Return the impressions of these segments (None: all) and the first outcome of a kind known of each."""
        chosen = pl.col("kind") == kind
        rows = self.events.filter(chosen if segments is None else chosen & pl.col("segment").is_in(sorted(segments)))
        place, age, known = (rows[name].to_numpy() for name in (PLACE, "age_hours", "known_hours"))
        first = np.flatnonzero(np.diff(place, prepend=-1))  # an impression's outcomes stand together
        earliest = np.minimum.reduceat(known, first) if len(first) else known
        return Watched.among(self.of(segments), age[first], earliest)


def _read(work: Work, view: Log) -> _Seen | Cannot:
    if not (view.has("outcomes") and view.has("impressions")):
        return Cannot("the log has no outcomes yet, or no impressions")
    since, label = work.now - timedelta(days=work.spec.train.days), work.spec.label
    parts = work.each(partial(_runs, work), view.days)
    shown = Shown.read(view, parts, label.segments, since=since, before=work.now)
    if not shown.asked.any():
        return Cannot("no impression was shown in the training period")
    window = timedelta(days=label.window_days)
    skew, kinds = timedelta(seconds=work.spec.source.max_skew_seconds), sorted(label.gains)
    found = known_outcomes(view, work.store, shown, kinds=kinds, window=window, skew=skew, since=since)
    if not len(found):
        return Cannot("no outcome of the named kinds has arrived within its window yet")
    now = (work.now - EPOCH) // timedelta(microseconds=1)
    age = (now - shown.shown_us[shown.asked]) / HOUR_US
    order = np.argsort(age)
    ages = Ages.of(age[order], shown.rows[shown.asked][order])
    return _Seen(shown, now, ages, shown.segment[shown.asked][order], _in_hours(found, shown, now))


def _runs(work: Work, day: Artifact) -> Artifact | None:
    if "impressions.parquet" not in day.files:
        return None
    return work.part(day_runs, day=day.uri, cutoff=time_text(day_end(parse_day(day.record["day"]))))


def _in_hours(found: pl.DataFrame, shown: Shown, now: int) -> pl.DataFrame:
    run = found["run"].to_numpy()
    times = found.with_columns(shown_us=shown.shown_us[run])
    names = pl.Series(shown.segments, dtype=pl.String)
    return times.select(
        PLACE,
        "kind",
        segment=names.gather(shown.segment[run]),
        waited_us=pl.col("arrived_us") - pl.col("shown_us"),
        age_hours=(now - pl.col("shown_us")) / HOUR_US,
        known_hours=(pl.col("arrived_us") - pl.col("shown_us")).clip(0) / HOUR_US,
        lag_hours=(pl.col("arrived_us") - pl.col("happened_us")).clip(0) / HOUR_US,
        event_age_hours=(now - pl.col("happened_us")) / HOUR_US,
    )


def _late(events: pl.DataFrame, kinds: Sequence[str], matures_after: timedelta) -> dict[str, int]:
    """Count the outcomes that arrived after their impression's label had closed, by kind and in all."""
    late = events.filter(pl.col("waited_us") >= matures_after // timedelta(microseconds=1))
    return {"all": len(late), **{kind: int((late["kind"] == kind).sum()) for kind in kinds}}


def _landing_lags(work: Work, view: Log, seen: _Seen) -> dict[str, Any]:
    events, shown = seen.events, seen.shown
    by_table = {"outcomes": _quantiles(*_lags(events))}
    there = shown.rows > 0
    happened, arrived = shown.shown_us[there], shown.arrived_us[there]
    lag, age = (arrived - happened) / HOUR_US, (seen.cutoff_us - happened) / HOUR_US
    by_table["impressions"] = _quantiles(lag, age, rows=shown.rows[there])
    if view.has("requests"):
        happened, took = landing_times(view, work.store, "requests")
        by_table["requests"] = _quantiles(took / HOUR_US, (seen.cutoff_us - happened) / HOUR_US)
    counts = dict(events.group_by("segment").len().sort("segment").iter_rows())
    pooled = pool_small_segments(counts, minimum=work.spec.label.min_segment_events)
    named = events.with_columns(pl.col("segment").replace_strict(pooled, return_dtype=pl.String))
    parts = sorted(named.partition_by("segment", as_dict=True).items())
    by_segment = {str(key[0]): _quantiles(*_lags(part)) for key, part in parts}
    slowest = max([by_table["outcomes"]["q99"], *(one["q99"] for one in by_segment.values())])
    return {"landing_lag_hours": by_table, "lag_by_segment_hours": by_segment, "slowest_q99": slowest}


def _lags(events: pl.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return events["lag_hours"].to_numpy(), events["event_age_hours"].to_numpy()


def _quantiles(
    lag: NDArray[np.float64], age: NDArray[np.float64], rows: NDArray[np.int64] | None = None
) -> dict[str, float]:
    values = landing_lag_quantiles(lag, age, QUANTILES, rows=rows)
    return {name: round(float(value), 6) for name, value in zip(("q50", "q90", "q99"), values, strict=True)}


def _curves(work: Work, seen: _Seen, horizon_hours: float) -> dict[str, Any]:
    oldest = seen.ages.oldest
    if oldest < horizon_hours:
        reason = (
            f"completeness is identified only up to the age of the log, {oldest / 24:.1f} days; "
            f"the window and the landing lag need {horizon_hours / 24:.1f} days"
        )
        return {"curves": Cannot(reason).as_record(), "shift": Cannot(reason).as_record()}
    curves: dict[str, dict[str, Any]] = {}
    words: list[str] = []
    for kind in sorted(work.spec.label.gains):
        curves[kind], why = _curves_of(seen, kind, horizon_hours, work.spec.label.min_segment_events)
        words += [f"{kind}: {one}" for one in why]
    target = work.spec.label.target
    return {"curves": curves, "pooled": words, "shift": _shift(seen, target, curves[target], horizon_hours)}


def _curves_of(seen: _Seen, kind: str, horizon_hours: float, minimum: int) -> tuple[dict[str, Any], list[str]]:
    """Return the curve of all and of each segment that can have its own, and why the others have none."""
    converted = seen.events.filter(pl.col("kind") == kind).group_by("segment").agg(pl.col(PLACE).n_unique())
    counts = dict(converted.iter_rows())
    by_segment = {segment: counts.get(segment, 0) for segment in sorted(seen.names() - {ALL})}
    words = why_pooled(by_segment, minimum=minimum)
    found: dict[str, Any] = {ALL: _curve(seen.watched(kind), horizon_hours)}
    for segment in sorted(by_segment.keys() - words.keys()):
        curve = _curve(seen.watched(kind, {segment}), horizon_hours)
        if "cannot" in curve:
            words[segment] = f"'{segment}' has no curve of its own ({curve['cannot']}): the curve of all stands in"
        else:
            found[segment] = curve
    return found, [words[segment] for segment in sorted(words)]


def _curve(watched: Watched, horizon_hours: float) -> dict[str, Any]:
    try:
        return curve_of(watched, horizon_hours=horizon_hours, rhythm_hours=WEEK).as_record()
    except Refused as refusal:
        return Cannot(str(refusal)).as_record()


def _shift(seen: _Seen, kind: str, curves: dict[str, Any], horizon_hours: float) -> dict[str, Any]:
    """Compare the newest outcomes of the target with earlier weeks', for each curve the impressions that it serves.

    The alarm is raised if any of them raises it, at a share of ``ALPHA`` each (Bonferroni).
    """
    if "cannot" in curves[ALL]:
        return dict(curves[ALL])
    names = seen.names()
    pooled = names - (curves.keys() - {ALL})
    served = {**{name: {name} for name in sorted(names - pooled)}, **({ALL: pooled} if pooled else {})}
    alpha = ALPHA / len(served)
    found = {name: _shift_of(seen.watched(kind, served[name]), horizon_hours, alpha) for name in sorted(served)}
    told = {name: one for name, one in found.items() if isinstance(one, ShiftAlarm)}
    by_segment = {name: one.as_record() for name, one in found.items()}
    if not told:
        return dict(by_segment[min(by_segment)])
    worst = min(told, key=lambda name: np.nan_to_num(told[name].p_value, nan=2.0))
    reason = told[worst].reason if len(served) == 1 else f"'{worst}', the most unlike: {told[worst].reason}"
    p_value = float(np.minimum(told[worst].p_value * len(served), 1.0))  # NaN stays NaN
    return {**replace(told[worst], reason=reason, p_value=p_value).as_record(), "by_segment": by_segment}


def _shift_of(watched: Watched, horizon_hours: float, alpha: float) -> ShiftAlarm | Cannot:
    try:
        return alarm_of(watched, horizon_hours=horizon_hours, alpha=alpha)
    except Refused as refusal:
        return Cannot(str(refusal))
