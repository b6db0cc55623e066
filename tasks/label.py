"""Label every impression: what it led to as far as was known, and whether that is settled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl

from sameworld.records import Cannot
from sameworld.sources.day_rows import LONGEST_REQUEST, PLACE, DayRows, runs_of, shown_days
from sameworld.store.artifacts import Artifact
from sameworld.store.log import Log
from sameworld.store.outcomes import outcomes_in_window, segment_expression
from sameworld.store.parts import usable_curves
from sameworld.store.step import Work, step
from sameworld.store.times import day_end, day_start, time_text

KEY = ["request_id", "item_id"]
OF_A_DAY = ("label.window_days", "label.gains", "label.target", "label.segments", "source.max_skew_seconds")
COLUMNS = ("request_id", "item_id", "user_id", "shown_at", "position", "propensity")
MATURITY_DAYS = (1, 3, 7)


@step(reads=OF_A_DAY)
def label_day(work: Work, *, rows: DayRows) -> None:
    """Label the impressions of one shown day as known at the part's end.

    An impression closes at shown_at + window + lag; its label counts what had arrived by then (and by the part's end)
    and never changes. So the part of a day whose impressions have all closed is made once.
    """
    shown = _shown(rows, work.spec.label.segments)
    events = _events(work, rows, shown)
    kinds = sorted(work.spec.label.gains)
    labels = _labelled(shown.drop(PLACE), events, kinds)
    labels = labels.with_columns(
        gain=pl.sum_horizontal(pl.col(f"is_{k}") * work.spec.label.gains[k] for k in kinds).cast(pl.Float64),
        target=pl.col(f"is_{work.spec.label.target}").cast(pl.Int8),
    )
    work.rows = len(labels)
    work.record = {
        **_counts(rows, labels, events, kinds),
        "moves": _moves(rows, events, work.spec.label.target),
    }
    work.write("labels", labels)
    work.write("places", runs_of(shown[PLACE].to_numpy()))


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

    def made(day: date) -> Artifact:
        rows = DayRows.of(view, day, matures_after=matures_after, cutoff=work.now)
        return work.part(label_day, rows=rows, cutoff=time_text(rows.until))

    days = shown_days(view, since=work.now - timedelta(days=work.spec.train.days), cutoff=work.now)
    parts = [part for part in work.each(made, days) if part.record["rows"]]
    if not parts:
        work.record = Cannot("no impression was shown in the training period").as_record()
        return
    work.record = {
        "cutoff": time_text(work.now),
        "parts": [{"day": part.record["day"], "fingerprint": part.fingerprint} for part in parts],
        "curves": usable_curves(delay.record["curves"][work.spec.label.target]),
        "curves_by_kind": {kind: usable_curves(delay.record["curves"][kind]) for kind in sorted(work.spec.label.gains)},
        "matures_after_hours": matures_after / timedelta(hours=1),
        **_totals([part.record for part in parts], sorted(work.spec.label.gains)),
        "late_after_close": delay.record["late_after_close"]["all"],
    }
    for kind, counts in work.record["by_kind"].items():
        counts["late_after_close"] = delay.record["late_after_close"][kind]
    work.rows = work.record["rows"]


def _shown(rows: DayRows, segments: Sequence[str]) -> pl.DataFrame:
    """Return the day's impressions with their segment, when they close, and their request's number in the day."""
    table = rows.narrow([*COLUMNS, *segments])
    absent = sorted(set(segments) - set(table.columns))  # a column can come into the log later
    begins = (pl.col("request_id") != pl.col("request_id").shift()).fill_null(value=True)
    named = table.with_columns(
        *(pl.lit(None).alias(name) for name in absent),
        closes_at=pl.col("shown_at") + rows.matures_after,
        request=begins.cum_sum().cast(pl.UInt32),
    )
    columns = [name for name in (*COLUMNS, PLACE, "closes_at", "request") if name in named.columns]
    return named.select(*columns, segment=segment_expression(segments))


def _events(work: Work, rows: DayRows, shown: pl.DataFrame) -> pl.DataFrame:
    """Return the outcome events of the day's impressions within their window, known at the part's end.

    ``place`` is the impression's row in ``shown``.
    """
    window, skew = timedelta(days=work.spec.label.window_days), timedelta(seconds=work.spec.source.max_skew_seconds)
    keyed = shown.select(*KEY, "shown_at", "closes_at").with_row_index("place")
    if not rows.log.has("outcomes"):
        return keyed.clear().with_columns(
            kind=pl.lit("", pl.String), **dict.fromkeys(("arrived_at", "retracted_at"), pl.col("shown_at"))
        )
    happened = pl.col("happened_at").is_between(
        day_start(rows.day) - skew, day_end(rows.day) + LONGEST_REQUEST + window, closed="left"
    )
    events = outcomes_in_window(
        rows.log, shown=keyed.lazy(), window=window, skew=skew, cutoff=rows.until, among=happened
    )
    return events.collect(engine="streaming")


def _labelled(shown: pl.DataFrame, events: pl.DataFrame, kinds: Sequence[str]) -> pl.DataFrame:
    """Add ``is_<kind>``, whether an outcome of the kind had arrived when the label closed, and stood; and
    ``known_<kind>``, when the log first had it."""
    known = events.filter(_stood(pl.col("closes_at"))).group_by("place", "kind").agg(pl.col("arrived_at").min())
    columns: list[pl.Series] = []
    for kind in kinds:
        place, first = known.filter(pl.col("kind") == kind).select("place", "arrived_at")
        flag = np.zeros(len(shown), np.bool_)
        flag[place.to_numpy()] = True
        never = pl.repeat(None, len(shown), dtype=shown.schema["shown_at"], eager=True)  # scatter writes into it
        columns += [pl.Series(f"is_{kind}", flag), never.scatter(place, first).alias(f"known_{kind}")]
    return shown.with_columns(columns)


def _stood(at: pl.Expr) -> pl.Expr:
    """Say of an outcome whether it had arrived by a time, and had not been taken back by then."""
    return (pl.col("arrived_at") < at) & (pl.col("retracted_at").is_null() | (pl.col("retracted_at") >= at))


def _moves(rows: DayRows, events: pl.DataFrame, target: str) -> list[dict[str, Any]]:
    """Count how the closed labels moved from each younger maturity to their close: 0 to 1 (gained), 1 to 0 (lost)."""
    of_target = events.filter(pl.col("kind") == target, pl.col("closes_at") <= rows.until)
    ages = [days for days in MATURITY_DAYS if timedelta(days=days) < rows.matures_after]
    at = {f"{days}": pl.col("shown_at") + timedelta(days=days) for days in ages}
    stood = of_target.group_by("place").agg(
        close=_stood(pl.col("closes_at")).any(), **{age: _stood(moment).any() for age, moment in at.items()}
    )
    return [
        {
            "maturity_days": days,
            "positives": int(stood[f"{days}"].sum()),
            "gained": int((~stood[f"{days}"] & stood["close"]).sum()),
            "lost": int((stood[f"{days}"] & ~stood["close"]).sum()),
        }
        for days in ages
    ]


def _counts(rows: DayRows, labels: pl.DataFrame, events: pl.DataFrame, kinds: Sequence[str]) -> dict[str, Any]:
    retracted = events.filter(pl.col("retracted_at").is_not_null())
    return {
        "day": rows.day.isoformat(),
        "until": time_text(rows.until),
        "rows": len(labels),
        **_lists(labels),
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


def _lists(labels: pl.DataFrame) -> dict[str, Any]:
    """Return how many requests there are, the longest one's rows, and the first and last time of showing."""
    sizes = labels["request"].rle().struct.field("len")
    times = labels.select(first=pl.col("shown_at").min(), last=pl.col("shown_at").max()).row(0, named=True)
    return {
        "requests": len(sizes),
        "longest_list": int(sizes.max() or 0),  # type: ignore[arg-type]
        **{name: time_text(at) if at else None for name, at in times.items()},
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
        "moves": _summed_moves([one["moves"] for one in records], closed),
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


def _summed_moves(by_day: Sequence[Sequence[Mapping[str, int]]], closed: int) -> list[dict[str, Any]]:
    """Add the days' moves up, by maturity; ``moved_share`` is of the closed labels."""
    found = []
    for moves in zip(*by_day, strict=True) if closed else ():
        sums = {name: sum(one[name] for one in moves) for name in ("positives", "gained", "lost")}
        moved = (sums["gained"] + sums["lost"]) / closed
        found.append({"maturity_days": moves[0]["maturity_days"], "rows": closed, **sums, "moved_share": moved})
    return found
