"""Builds logs, labels and training sets as real artifacts, from frames of any shape, without the steps before."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from sameworld.spec import Spec
from sameworld.store.artifacts import Artifact, Store, canonical, fingerprint_of
from sameworld.store.times import time_text

FIRST = date(2026, 3, 2)  # a Monday
ITEMS = 4
GONE = {"day": pl.Date, "table": pl.String, "row": pl.UInt32, "reason": pl.String}
Tables = dict[str, pl.DataFrame]
Spoil = Callable[[Tables], Tables]


def a_spec(**checks: Any) -> Spec:
    """Return a spec with a click worth 1 and a purchase, the target, worth 5."""
    label = {"gains": {"click": 1.0, "purchase": 5.0}, "target": "purchase", "window_days": 7.0}
    return Spec.parse({"label": label, "validate": checks})


def cutoff_after(days: int) -> str:
    """Return the cutoff that ends the ``days``-th day."""
    return f"{FIRST + timedelta(days=days)}T00:00:00Z"


def publish(store: Store, step: str, record: Mapping[str, Any], tables: Mapping[str, pl.DataFrame]) -> Artifact:
    """Publish an artifact of a step with this record and these tables."""
    name = fingerprint_of([step, dict(record), {k: v.hash_rows(1).to_list() for k, v in tables.items()}])
    folder = Path(store.root) / "made" / name
    folder.mkdir(parents=True)
    (folder / "record.json").write_bytes(canonical(dict(record)))
    for table, frame in tables.items():
        frame.write_parquet(folder / f"{table}.parquet")
    return store.publish(step, name, folder, made_from={}, measured={})


def publish_labels(store: Store, frame: pl.DataFrame, cutoff: datetime) -> Artifact:
    """Publish labels in one part, so that they read as the frame's closed, age_hours and (where open) completeness."""
    age = pl.duration(microseconds=(pl.col("age_hours") * 3.6e9).cast(pl.Int64))
    closes_at = pl.lit(cutoff) + pl.when("closed").then(timedelta(hours=-1)).otherwise(timedelta(hours=1))
    stored = frame.with_columns(shown_at=pl.lit(cutoff) - age, closes_at=closes_at)
    known = frame.filter(~pl.col("closed"))["completeness"]
    part = publish(
        store, "label", {"day": "2026-03-01"}, {"labels": stored.drop("closed", "age_hours", "completeness")}
    )
    return publish(store, "label", _listing(part, cutoff, [float(known[0])] if len(known) else [1.0]), {})


def publish_examples(store: Store, frame: pl.DataFrame, features: Mapping[str, str], cutoff: datetime) -> Artifact:
    """Publish a training set in one part."""
    begins = (pl.col("request_id") != pl.col("request_id").shift()).fill_null(value=True)
    ids = frame.select("request_id", "item_id", "shown_at", request=begins.cum_sum().cast(pl.UInt32))
    ids = ids.with_columns(closes_at="shown_at", segment=pl.lit("all"))
    labels = publish(store, "label", {"day": "2026-03-01"}, {"labels": ids})
    part = publish(store, "assemble", {"day": "2026-03-01"}, {"features": frame.select(sorted(features))})
    named = {"features": dict(features), "label_parts": _listing(labels, cutoff, [1.0])["parts"]}
    return publish(store, "assemble", {**_listing(part, cutoff, [1.0]), **named}, {})


def _listing(part: Artifact, cutoff: datetime, known: list[float]) -> dict[str, Any]:
    curve = {"ages_hours": [0.0], "known": known, "low": known, "high": known, "impressions": 1, "events": 1}
    rates = {"rate": 0.1, "rate_low": 0.1, "rate_high": 0.1, "horizon_hours": 1e9}
    parts = [{"day": "2026-03-01", "fingerprint": part.fingerprint}]
    return {"cutoff": time_text(cutoff), "parts": parts, "curves": {"all": {**curve, **rates}}}


def a_day(day: date, *, requests: int) -> Tables:
    """Return one clean day: every request shows four items, every 4th impression is clicked, every 8th bought."""
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    shown = pl.select(r=pl.int_range(requests)).with_columns(
        request_id=pl.format("{}-{}", pl.lit(day.isoformat()), "r"),
        shown_at=pl.lit(start) + pl.duration(seconds=pl.col("r") * (43_200 // max(requests, 1))),
    )
    shown = shown.with_columns(arrived_at=pl.col("shown_at") + timedelta(minutes=5)).cast(
        {"shown_at": pl.Datetime("us", "UTC")}
    )
    rows = shown.join(pl.select(position=pl.int_range(1, ITEMS + 1, dtype=pl.Int32)), how="cross").with_columns(
        item_id=pl.format("item-{}", (pl.col("r") + pl.col("position")) % 50),
        x_price=pl.col("r").cast(pl.Float64) + pl.col("position"),
        x_kind=pl.format("kind-{}", pl.col("r") % 3),
    )
    clicks = rows.gather_every(4).with_columns(kind=pl.lit("click"))
    outcomes = pl.concat([clicks, rows.gather_every(8).with_columns(kind=pl.lit("purchase"))])
    outcomes = outcomes.select("request_id", "item_id", "kind", "arrived_at", happened_at="shown_at", value=pl.lit(1.0))
    return {"requests": shown.drop("r"), "impressions": rows.drop("r"), "outcomes": outcomes}


def sums_of(tables: Tables, **more: Any) -> dict[str, Any]:
    """Return ingest's sums of tables from which nothing was taken out."""
    clean = {"duplicates": 0, "conflicts": 0, "quarantined": {}}
    return {name: {"rows_in": len(frame), "kept": len(frame), **clean, **more} for name, frame in tables.items()}


class SmallLog:
    """A log in the making: add days, spoil one, then publish what resolve would."""

    def __init__(self, root: Path) -> None:
        self.store = Store(str(root))
        self.days: list[Artifact] = []

    def add(
        self, *, requests: int = 200, spoil: Spoil = lambda tables: tables, ignored: Mapping[str, Any] = {}, **sums: Any
    ) -> SmallLog:
        """Add the next day; ``sums`` overwrite what ingest would say of each of its tables."""
        day = FIRST + timedelta(days=len(self.days))
        tables = spoil(a_day(day, requests=requests))
        record = {"day": day.isoformat(), "tables": sums_of(tables, **sums), "ignored": dict(ignored)}
        self.days.append(publish(self.store, "ingest", record, tables))
        return self

    def resolved(self, gone: Iterable[tuple[Any, ...]] = ()) -> Artifact:
        """Publish the log as of its last day's end."""
        entries = [{"day": one.record["day"], "fingerprint": one.fingerprint} for one in self.days]
        tables: dict[str, Any] = {}
        for one in self.days:
            for table, sums in one.record["tables"].items():
                tables[table] = _added(tables.get(table), sums)
        frame = pl.DataFrame(list(gone), schema=GONE, orient="row")
        return publish(self.store, "resolve", {"days": entries, "tables": tables}, {"gone": frame})


def weeks_then(root: Path, *, days: int = 28, **last: Any) -> SmallLog:
    """Return a log of so many usual days and one more as told."""
    log = SmallLog(root)
    for _ in range(days):
        log.add()
    return log.add(**last)


def _added(before: Any, sums: Mapping[str, Any]) -> dict[str, Any]:
    if before is None:
        return json.loads(json.dumps(sums))
    reasons = {**before["quarantined"]}
    for reason, count in sums["quarantined"].items():
        reasons[reason] = reasons.get(reason, 0) + count
    return {
        **{name: before[name] + sums[name] for name in ("rows_in", "kept", "duplicates", "conflicts")},
        "quarantined": reasons,
    }
