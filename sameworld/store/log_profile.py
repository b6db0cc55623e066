"""The log as numbers for a gate: one row a table and segment, added up from the profiles of its days.

Segments are ``day`` (the day that just ended), ``all`` (the whole log as of the cutoff), and named ones for features,
outcome kinds and unknown columns. A cell that does not apply, or that cannot be judged yet, is null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from statistics import mean, median
from typing import Any

import polars as pl
from scipy.special import betaincinv

from sameworld.store.artifacts import Artifact
from sameworld.store.day_profile import daily_counts, kind_counts, request_counts
from sameworld.store.log import TABLES, VIEW_PREFIX, Log
from sameworld.store.times import day_start, parse_day

CHANCE = 0.05  # one-sided: with the default volume shares fewer than one clean day in two hundred is blocked
RECENT_DAYS, RECENT_WEEKS = 28, 8
ORPHAN = "orphan"
TEXT, NUMBER = pl.String, pl.Float64
SCHEMA: dict[str, type[pl.DataType]] = {
    **dict.fromkeys(("table", "segment", "name", "usual", "caution", "reasons"), TEXT),
    **dict.fromkeys(("rows", "kept_share", "kept_high", "landed_share", "landed_low", "log_rows"), NUMBER),
    **dict.fromkeys(("quarantined", "quarantined_share", "quarantined_low", "repeated_share"), NUMBER),
    **dict.fromkeys(("usual_repeated_share", "repeated_move", "requests", "repeated_keys", "gaps"), NUMBER),
    **dict.fromkeys(("young_gaps", "null_rate", "usual_null_rate", "null_rate_move", "unknown_columns"), NUMBER),
    **dict.fromkeys(("unnamed_rows", "missing_kind", "missing_target"), NUMBER),
}
Row = dict[str, Any]
Counts = tuple[int, int]  # rows, and the requests that they are of


@dataclass(frozen=True)
class Asked:
    """What a gate asks of the log: the day to judge, and what the spec says of outcomes.

    left_open : fates that a day's sums state but leave to ``resolve``, whose ``gone`` has them again
    """

    day: date
    like_weekdays: int
    kinds: tuple[str, ...]
    target: str
    window: timedelta
    left_open: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sums:
    """What became of one table's rows of one arrival day, as of the cutoff."""

    rows_in: int
    repeated: int
    quarantined: Mapping[str, int]


def log_profile(view: Log, days: Sequence[Artifact], asked: Asked) -> pl.DataFrame:
    """Return the profile, sorted by table and segment; its columns are ``SCHEMA``.

    days : the profiles of the log's days (``sameworld.store.day_profile``)
    """
    tables = [name for name in TABLES if view.has(name)] + [f"{VIEW_PREFIX}{name}" for name in view.views()]
    rows: list[Row] = []
    oldest: datetime | None = None
    if "impressions" in tables:
        whole = request_counts(view, days, settled_before=_settled_before(view, asked.day))
        oldest = whole.pop("oldest")
        rows.append({"table": "impressions", "segment": "all", **whole})
    else:
        rows.append({"table": "impressions", "segment": "all", "log_rows": 0})
    old = oldest is not None and oldest + asked.window <= day_start(asked.day) + timedelta(days=1)
    for table in tables:
        daily, sums = daily_counts(days, table), day_sums(view, table, asked.left_open)
        rows.append({"table": table, "segment": "day", **day_row(table, daily, sums, asked, old=old)})
        rows += [*_null_rows(table, daily, asked.day), *_unknown_rows(view, table)]
    rows += [*_overall_rows(view, tables), *_kind_rows(view, kind_counts(days), asked, old=old)]
    return _framed(rows)


def day_sums(view: Log, table: str, left_open: Sequence[str]) -> dict[date, Sums]:
    """Return each arrival day's sums: what ingest counted within the day, and what resolve took out since."""
    gone = view.resolved.scan("gone").filter(pl.col("table") == table).group_by("day", "reason").len().collect()
    later: dict[date, dict[str, int]] = {}
    for day, reason, count in gone.iter_rows():
        later.setdefault(day, {})[reason] = count
    found = {}
    for artifact in view.days:
        day, sums = parse_day(artifact.record["day"]), artifact.record["tables"].get(table)
        if sums is None:
            continue
        reasons = dict(later.get(day, {}))
        repeated = sums["duplicates"] + reasons.pop("duplicate", 0) + reasons.pop("conflict", 0)
        for reason in set(sums["quarantined"]) - set(left_open):
            reasons[reason] = reasons.get(reason, 0) + sums["quarantined"][reason]
        found[day] = Sums(sums["rows_in"], repeated, reasons)
    return found


def ratio_bounds(count: float, usual: float, days: int) -> tuple[float, float]:
    """Return the bounds of (today's rate / a usual day's rate), each missed by chance once in twenty.

    count : events today; usual : events of a usual day, as seen on ``days`` days; > 0

    Given the sum of two Poisson counts one of them is binomial (Przyborowski and Wilenski, Biometrika 1940), whose
    exact bounds are Clopper and Pearson's.

    >>> [round(float(bound), 2) for bound in ratio_bounds(30, 100, 4)]
    [0.21, 0.41]
    """
    before = usual * days
    low = betaincinv(count, before + 1, CHANCE) if count > 0 else 0.0
    high = betaincinv(count + 1, before, 1 - CHANCE)
    return float(days * low / (1 - low)), float(days * high / (1 - high))


def day_row(table: str, daily: pl.DataFrame, sums: Mapping[date, Sums], asked: Asked, *, old: bool) -> Row:
    """Return one table's cells of the day: volume, quarantine and repetition against what is usual.

    daily : arrival_day, rows, groups, as ``daily_counts`` returns them
    sums : by arrival day
    old : the log has lasted a window, so an orphan is no longer an outcome from before the log
    """
    counts = {day: (rows, groups) for day, rows, groups in daily.select("arrival_day", "rows", "groups").iter_rows()}
    days = sorted({*sums, *counts})
    rows, _ = counts.get(asked.day, (0, 0))
    today = sums.get(asked.day, Sums(rows, 0, {}))
    # At the log's beginning outcomes come of impressions that it never had: they say nothing about the drop.
    reasons = {reason: n for reason, n in today.quarantined.items() if old or reason != ORPHAN}
    row: Row = {"rows": rows, **_quarantine(reasons, today.rows_in), **_repetition(sums, today, asked.day)}
    landed = {day: one.rows_in for day, one in sums.items()}
    return row | _volume(counts, landed, days, asked, judged=not table.startswith(VIEW_PREFIX))


def _repetition(sums: Mapping[date, Sums], today: Sums, day: date) -> Row:
    usual = [one.repeated / one.rows_in for at, one in sorted(sums.items()) if at < day and one.rows_in]
    if not (today.rows_in and usual):
        return {}
    share, before = today.repeated / today.rows_in, median(usual[-RECENT_DAYS:])
    return {"repeated_share": share, "usual_repeated_share": before, "repeated_move": max(share - before, 0.0)}


def _volume(
    counts: Mapping[date, Counts], landed: Mapping[date, int], days: Sequence[date], asked: Asked, *, judged: bool
) -> Row:
    """Compare the day with the same weekday's median; with too few of those, with the mean of all earlier days."""
    earlier = [day for day in days if day < asked.day]
    like = [day for day in earlier if day.weekday() == asked.day.weekday()][-RECENT_WEEKS:]
    enough = len(like) >= asked.like_weekdays
    against, average = (like, median) if enough else (earlier, mean)
    if not against or not (enough or judged):  # a view may come weekly: only like weekdays say what is usual
        return {}
    kept = average([_rows(counts, day) for day in against])
    arrived = average([landed.get(day, _rows(counts, day)) for day in against])
    if not kept or not arrived:
        return {}
    rows, weekday = _rows(counts, asked.day), f"{asked.day:%A}"
    rows_in = landed.get(asked.day, rows)
    row: Row = {"kept_share": rows / kept, "landed_share": rows_in / arrived}
    row["usual"] = f"usual for a {weekday}" if enough else f"of a mean day before ({len(earlier)} so far)"
    if not judged:
        return row | {"caution": "a view only warns"}
    if not enough:
        return row | {"caution": f"{len(like)} {weekday}s to compare with, {asked.like_weekdays} would block"}
    together = _rows_a_group(counts, (*against, asked.day))
    row["kept_high"] = ratio_bounds(rows / together, kept / together, len(like))[1]
    row["landed_low"] = ratio_bounds(rows_in / together, arrived / together, len(like))[0]
    return row | {"caution": "so few rows may be chance"}


def _rows(counts: Mapping[date, Counts], day: date) -> int:
    return counts.get(day, (0, 0))[0]


def _rows_a_group(counts: Mapping[date, Counts], days: Sequence[date]) -> float:
    """Return rows a request, as the rows of one come or stay away together: requests are what chance draws."""
    seen = [counts[day] for day in days if day in counts]
    return sum(rows for rows, _ in seen) / max(sum(groups for _, groups in seen), 1)


def _quarantine(reasons: Mapping[str, int], rows_in: int) -> Row:
    count = sum(reasons.values())
    if not rows_in:
        return {}
    low = betaincinv(count, rows_in - count + 1, CHANCE) if count else 0.0
    words = ", ".join(f"{reason} {n}" for reason, n in sorted(reasons.items(), key=lambda one: (-one[1], one[0])))
    share = count / rows_in
    return {"quarantined": count, "quarantined_share": share, "quarantined_low": float(low), "reasons": words}


def _overall_rows(view: Log, tables: Sequence[str]) -> list[Row]:
    rows = []
    for table in tables:
        sums = view.resolved.record["tables"].get(table)
        if sums is not None:
            reasons = {reason: n for reason, n in sums["quarantined"].items() if reason != ORPHAN}
            rows.append(
                {"table": table, "segment": "all", "rows": sums["kept"], **_quarantine(reasons, sums["rows_in"])}
            )
    return rows


def _settled_before(view: Log, day: date) -> datetime:
    """Return since when a request's rows may still be under way: twice the landing lag, a day where it is not known."""
    lag_hours = view.resolved.record.get("lag_used_hours", {}).get("impressions", 12.0)
    return day_start(day) + timedelta(days=1, hours=-2 * lag_hours)


def _null_rows(table: str, daily: pl.DataFrame, day: date) -> list[Row]:
    names = [name for name in daily.columns if name.startswith("null ")]
    today, earlier = daily.filter(pl.col("arrival_day") == day), daily.filter(pl.col("arrival_day") < day)
    if not names or not len(today):
        return []
    usual = earlier.tail(RECENT_DAYS).select(pl.col(names) / pl.col("rows")).median()
    rows = []
    for name in names:
        feature, rate = name.removeprefix("null "), float(today[name][0] / today["rows"][0])
        before = usual[name][0]
        row: Row = {"table": table, "segment": f"feature {feature}", "name": feature, "null_rate": rate}
        if before is not None:
            row |= {"usual_null_rate": before, "null_rate_move": abs(rate - before)}
        rows.append(row)
    return rows


def _unknown_rows(view: Log, table: str) -> list[Row]:
    names = sorted({name for one in view.days for name in one.record.get("ignored", {}).get(table, ())})
    if not names:
        return []
    found = {"name": ", ".join(names), "unknown_columns": len(names)}
    return [{"table": table, "segment": "unknown columns", **found}]


def _kind_rows(view: Log, seen: Mapping[str, int], asked: Asked, *, old: bool) -> list[Row]:
    rows = []
    for kind in sorted({*seen, *asked.kinds}):
        row: Row = {"table": "outcomes", "segment": f"kind {kind}", "name": kind, "rows": seen.get(kind, 0)}
        # A young log has no outcome of a slow kind yet; only one as old as the window can miss its target.
        judged_hard = kind == asked.target and old and view.has("outcomes")
        row["missing_target" if judged_hard else "missing_kind"] = float(kind not in seen)
        row["unnamed_rows"] = 0 if kind in asked.kinds else seen[kind]
        rows.append(row)
    return rows


def _framed(rows: Sequence[Row]) -> pl.DataFrame:
    merged: dict[tuple[str, str], Row] = {}
    for row in rows:
        merged.setdefault((row["table"], row["segment"]), {}).update(row)
    return pl.DataFrame([merged[key] for key in sorted(merged)], schema=SCHEMA, strict=False)
