"""Measure where served features differ from the same features recomputed, and how old the joined values were."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl

from sameworld.maths.missingness import Skew
from sameworld.records import Cannot
from sameworld.sources.day_rows import DayRows, ViewRows, shown_days
from sameworld.store.artifacts import Artifact
from sameworld.store.comparison import IMPRESSIONS, ServedAndView
from sameworld.store.log import Log
from sameworld.store.step import Work, step
from sameworld.store.times import time_text
from sameworld.store.views import KEYS

QUANTILES = {"q50_hours": 0.5, "q90_hours": 0.9, "q99_hours": 0.99}
AGES = {"view": pl.String, "age_minutes": pl.Int64, "rows": pl.Int64}


@step(reads=("features.views",))
def measure_skew_day(work: Work, *, rows: DayRows, views: ViewRows) -> None:
    """Compare what was served on one shown day with the views as of each impression, and date the views' values.

    Only views that give a served feature, or are joined for training, are read.
    """
    every = [ServedAndView(rows.log, views.log, view, rows.until) for view in views.columns]
    read = [one for one in every if one.columns or one.view in work.spec.features.views]
    served = sorted({feature for one in read for feature in one.columns})
    shown = rows.impressions([*KEYS, "shown_at", "arrival_day", *served]).collect(engine="streaming")
    shown = shown.with_columns(pl.lit(None, pl.String).alias(key) for key in KEYS if key not in shown.columns)
    work.rows = len(shown)
    work.record = {"day": rows.day.isoformat(), "rows": len(shown), "skew": [], "views": []}
    ages = [pl.DataFrame(schema=AGES)]
    for one in read:
        compared = one.compare(shown)
        ages.append(compared.ages.select(pl.lit(one.view).alias("view"), "age_minutes", "rows"))
        work.record["skew"] += [_entry(feature, one.view, found) for feature, found in compared.found.items()]
        work.record["views"].append({"view": one.view, "keys": one.keys, "keyed": compared.keyed})
    work.write("staleness", pl.concat(ages))


@step(reads=("features.views", "label.window_days", "train.days"))
def run(work: Work, *, log: Artifact, delay: Artifact) -> None:
    """Count, over the training period, where served features differ from the views, and how old the views' values were.

    A served feature is compared with every view that gives it, joined for training or not: the newest value that could
    be read when the impression was shown, as known when its day's labels close. One part a shown day; parts of closed
    days are reused as they are.
    """
    view = Log.open(log, work.store)
    every: Mapping[str, Sequence[str]] = dict.fromkeys(view.views(), ())
    served = any(ServedAndView(view, view, name, work.now).columns for name in every)
    if not served and not work.spec.features.views:
        work.record = Cannot("no feature view of the log gives a served feature, and none is joined").as_record()
        return
    parts = _parts(work, view, every, lag_hours=delay.record["lag_hours"])
    if not parts:
        work.record = Cannot("no impression was shown in the training period").as_record()
        return
    records = [part.record for part in parts]
    work.rows = sum(record["rows"] for record in records)
    work.record = {
        "cutoff": time_text(work.now),
        "parts": [{"day": part.record["day"], "fingerprint": part.fingerprint} for part in parts],
        "skew": _skew(records),
        "staleness": _staleness(records, pl.concat(part.scan("staleness") for part in parts)),
        "by_day": [{"day": record["day"], "skew": record["skew"]} for record in records],
    }


def _parts(work: Work, view: Log, every: Mapping[str, Sequence[str]], *, lag_hours: float) -> list[Artifact]:
    """Make (or reuse) the part of every day on which something was shown, oldest first."""
    matures_after = timedelta(days=work.spec.label.window_days, hours=lag_hours)

    def made(day: date) -> Artifact | None:
        rows = DayRows.of(view, day, matures_after=matures_after, cutoff=work.now)
        if not rows.log.has(IMPRESSIONS):  # the log has a gap as long as a window
            return None
        read = ViewRows.of(view, every, rows.until)
        return work.part(measure_skew_day, rows=rows, views=read, cutoff=time_text(rows.until))

    days = shown_days(view, since=work.now - timedelta(days=work.spec.train.days), cutoff=work.now)
    return [part for part in work.each(made, days) if part is not None and part.record["rows"]]


def _entry(feature: str, view: str, found: Skew | Cannot) -> dict[str, Any]:
    return {"feature": feature, "view": view, **(found.as_record() if isinstance(found, Cannot) else vars(found))}


def _skew(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]] | dict[str, str]:
    """Return each feature's shares over all days: the worst first, then those that cannot be told."""
    totals: dict[tuple[str, str], Skew] = {}
    reasons: dict[tuple[str, str], str] = {}
    keyless = _keyless(records)
    for one in (dict(one) for record in records for one in record["skew"]):
        name = (one.pop("feature"), one.pop("view"))
        if reason := keyless.get(name[1]) or one.pop("cannot", None):
            reasons[name] = reason
        totals[name] = totals.get(name, Skew()) + (Skew() if reason else Skew(**one))
    if not totals:
        return Cannot("no feature view of the log gives a served feature").as_record()
    worst_first = sorted(totals, key=lambda name: (-totals[name].differing_share, name))
    return [{"feature": feature, "view": view, **totals[feature, view].shares(reasons.get((feature, view), ""))}
            for feature, view in worst_first]  # fmt: skip


def _keyless(records: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return why a view cannot be joined at all, by view: no impression of any day has its keys."""
    keyed: dict[str, int] = {}
    keys: dict[str, str] = {}
    for one in (one for record in records for one in record["views"]):
        keyed[one["view"]] = keyed.get(one["view"], 0) + one["keyed"]
        keys[one["view"]] = " and ".join(one["keys"])
    return {view: f"no impression has the view's key, {keys[view]}" for view, count in keyed.items() if not count}


def _staleness(records: Sequence[Mapping[str, Any]], ages: pl.LazyFrame) -> list[dict[str, Any]] | dict[str, str]:
    """Return by view the share of impressions that found a value, and how old the values were when they were used."""
    shown = sum(record["rows"] for record in records)
    views = sorted({one["view"] for record in records for one in record["views"]})
    if not views:
        return Cannot("no feature view is joined, and none gives a served feature").as_record()
    counted = ages.group_by("view", "age_minutes").agg(pl.col("rows").sum()).sort("view", "age_minutes").collect()
    found = {view: counted.filter(pl.col("view") == view) for view in views}
    return [
        {"view": view, "joined_share": int(one["rows"].sum()) / shown, **_quantiles(one)} for view, one in found.items()
    ]


def _quantiles(ages: pl.DataFrame) -> dict[str, Any]:
    """Return the least age, in hours, that so large a share of the rows does not exceed."""
    if not len(ages):
        return dict.fromkeys(QUANTILES, Cannot("no impression found a value").as_record())
    up_to = ages["rows"].cum_sum().to_numpy()
    places = {name: int(np.searchsorted(up_to, q * up_to[-1])) for name, q in QUANTILES.items()}
    return {name: ages["age_minutes"][place] / 60 for name, place in places.items()}
