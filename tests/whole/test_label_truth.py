"""Labels against a plain reading of the contract, row by row in Python, on a small log with every boundary in it."""

from __future__ import annotations

import functools
import itertools
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from whole.small_days import fresh

from sameworld.spec import Spec
from sameworld.store.artifacts import Artifact, Store
from sameworld.store.parts import labels_of
from sameworld.store.times import time_text
from tasks import ingest, label, measure_delay, resolve

START = datetime(2026, 3, 1, tzinfo=UTC)
HOUR, DAY, TICK = timedelta(hours=1), timedelta(days=1), timedelta(microseconds=1)
WINDOW, LAG, SKEW = DAY, 48 * HOUR, timedelta(seconds=60)
DAYS, CUTOFFS = 9, (5, 6, 7, 9)
KINDS = {"click": 1.0, "buy": 5.0}
Event = dict[str, Any]

# name: hours (and ticks) from shown to happened, from shown to arrived, from shown to retracted
CASES: dict[str, tuple[timedelta, timedelta, timedelta | None]] = {
    "happened at once": (0 * HOUR, 1 * HOUR, None),
    "a minute before, by another clock": (-SKEW, 1 * HOUR, None),
    "more than a minute before": (-SKEW - TICK, 1 * HOUR, None),
    "at the window's last tick": (WINDOW - TICK, WINDOW + HOUR, None),
    "at the window's end": (WINDOW, WINDOW + HOUR, None),
    "arrived at the last tick before it closed": (20 * HOUR, WINDOW + LAG - TICK, None),
    "arrived as it closed": (20 * HOUR, WINDOW + LAG, None),
    "arrived after it closed": (20 * HOUR, WINDOW + LAG + 5 * HOUR, None),
    "retracted before it closed": (HOUR, 2 * HOUR, 30 * HOUR),
    "retracted at the last tick before it closed": (HOUR, 2 * HOUR, WINDOW + LAG - TICK),
    "retracted as it closed": (HOUR, 2 * HOUR, WINDOW + LAG),
    "retracted after it closed": (HOUR, 2 * HOUR, WINDOW + LAG + 7 * HOUR),
    "retracted before it was known": (HOUR, 5 * HOUR, 3 * HOUR),
}


@functools.cache
def rows() -> tuple[list[Event], list[Event]]:
    """Impressions and outcomes: every case on every one of four days, among a thousand plain ones."""
    rng = np.random.default_rng(11)
    shown, events = [], []

    def show(name: str, at: datetime) -> Event:
        one = {"request_id": name, "item_id": "i", "position": 1, "shown_at": at, "arrived_at": at + 5 * TICK}
        shown.append(one)
        return one

    def happen(one: Event, kind: str, waits: tuple[timedelta, timedelta, timedelta | None]) -> None:
        key = {name: one[name] for name in ("request_id", "item_id")}
        event = {**key, "kind": kind, "happened_at": one["shown_at"] + waits[0], "value": 1.0}
        events.append({**event, "arrived_at": one["shown_at"] + waits[1], "retracted": False})
        if waits[2] is not None:
            events.append({**event, "arrived_at": one["shown_at"] + waits[2], "retracted": True})

    for number in range(2500):
        one = show(f"plain-{number}", START + timedelta(seconds=int(rng.integers(0, 7 * 86_400))))
        for kind in KINDS:
            if rng.random() < 0.6:
                wait = timedelta(minutes=int(rng.integers(0, 1800)))
                happen(one, kind, (wait, wait + timedelta(minutes=int(rng.integers(0, 2400))), None))
    for day in (0, 1):
        for number, (name, waits) in enumerate(CASES.items()):
            happen(show(f"{name}, day {day}", START + day * DAY + (number % 7 + 1) * HOUR), "click", waits)
    at_cutoff = show("arrived at the cutoff", START + 3 * DAY + 2 * HOUR)
    happen(at_cutoff, "click", (HOUR, 2 * DAY - 2 * HOUR, None))
    return shown, [one for one in events if one["arrived_at"] < START + DAYS * DAY]


def write(out: Path) -> Path:
    shown, events = rows()
    for number in range(DAYS):
        day = START + number * DAY
        for table, all_rows in (("impressions", shown), ("outcomes", events)):
            landed = [one for one in all_rows if day <= one["arrived_at"] < day + DAY]
            folder = out / f"day={day.date()}" / table
            folder.mkdir(parents=True)
            kinds = {name: pl.Datetime("us", "UTC") for name in ("shown_at", "happened_at", "arrived_at")}
            frame = pl.DataFrame(landed or all_rows[:1], infer_schema_length=None).head(len(landed))
            frame = frame.cast({name: kind for name, kind in kinds.items() if name in frame.columns})
            frame.cast({"position": pl.Int32} if table == "impressions" else {}).write_parquet(folder / "a.parquet")
        (out / f"day={day.date()}" / "_SUCCESS").touch()
    return out


@functools.cache
def labels_at(number: int) -> Artifact:
    """The labels as of the end of so many days."""
    store, cutoff = Store(str(root())), time_text(START + number * DAY)
    tree = {"gains": KINDS, "target": "click", "window_days": 1, "lag_grid_hours": LAG / HOUR}
    spec = Spec.parse({"source": {"kind": "drop", "uri": str(drop())}, "label": tree})
    days = ingest.run(store=store, spec=spec, cutoff=cutoff)
    log = resolve.run(store=store, spec=spec, days=days, cutoff=cutoff)
    delay = measure_delay.run(store=store, spec=spec, log=log, cutoff=cutoff)
    assert store.open(delay).record["lag_hours"] == LAG / HOUR  # what the cases are built on
    return store.open(label.run(store=store, spec=spec, log=log, delay=delay, cutoff=cutoff))


def labelled(number: int) -> pl.LazyFrame:
    return labels_of(labels_at(number), Store(str(root())))


@functools.cache
def root() -> Path:
    return fresh("root")


@functools.cache
def drop() -> Path:
    return write(fresh("label") / "drop")


def expected(cutoff: datetime) -> dict[str, dict[str, Any]]:
    """Label every impression known at the cutoff as the contract says, one row at a time."""
    by_key: dict[str, dict[tuple[Any, ...], list[Event]]] = defaultdict(lambda: defaultdict(list))
    for event in rows()[1]:
        if event["arrived_at"] < cutoff:
            by_key[event["request_id"]][event["kind"], event["happened_at"]].append(event)
    found = {}
    for one in rows()[0]:
        if one["arrived_at"] < cutoff:
            found[one["request_id"]] = expected_label(one, by_key[one["request_id"]], cutoff)
    return found


def expected_label(one: Event, events: dict[tuple[Any, ...], list[Event]], cutoff: datetime) -> dict[str, Any]:
    closes = one["shown_at"] + WINDOW + LAG
    happened, late = set(), 0
    for (kind, at), copies in events.items():
        if not -SKEW <= at - one["shown_at"] < WINDOW:
            continue
        known = [copy["arrived_at"] for copy in copies if not copy["retracted"]]
        taken_back = [copy["arrived_at"] for copy in copies if copy["retracted"]]
        if known and min(known) >= closes:
            late += closes <= cutoff
        elif known and not (taken_back and min(taken_back) < closes):
            happened.add(kind)
    return {
        "closed": closes <= cutoff,
        "gain": sum(KINDS[kind] for kind in happened),
        "target": int("click" in happened),
        "late": late,
    }


@pytest.mark.parametrize("number", CUTOFFS)
def test_labels_are_what_a_plain_reading_gives(number: int) -> None:
    labels, wanted = labelled(number).collect(), expected(START + number * DAY)
    found = {row.pop("request_id"): row for row in labels.select("request_id", "closed", "gain", "target").to_dicts()}
    assert len(labels) == len(found)
    assert found == {name: {k: v for k, v in one.items() if k != "late"} for name, one in wanted.items()}


@pytest.mark.parametrize("number", CUTOFFS)
def test_fault_22_what_came_after_the_close_is_counted_and_changes_no_label(number: int) -> None:
    late = sum(one["late"] for one in expected(START + number * DAY).values())
    assert labels_at(number).record["late_after_close"] == late
    assert late >= (number > 5)


def target_at(one: Event, events: dict[tuple[Any, ...], list[Event]], moment: datetime) -> bool:
    """Read an impression's target as it stood at a moment."""
    for (kind, at), copies in events.items():
        known = [copy["arrived_at"] for copy in copies if not copy["retracted"]]
        taken_back = [copy["arrived_at"] for copy in copies if copy["retracted"]]
        in_window = kind == "click" and -SKEW <= at - one["shown_at"] < WINDOW
        if in_window and known and min(known) < moment and not (taken_back and min(taken_back) < moment):
            return True
    return False


@pytest.mark.parametrize("number", CUTOFFS[1:])
def test_how_far_labels_moved_between_maturities_is_what_a_plain_reading_gives(number: int) -> None:
    cutoff, by_key = START + number * DAY, defaultdict(lambda: defaultdict(list))
    for event in rows()[1]:
        by_key[event["request_id"]][event["kind"], event["happened_at"]].append(event)
    closed = [one for one in rows()[0] if one["shown_at"] + WINDOW + LAG <= cutoff]
    then = [target_at(one, by_key[one["request_id"]], one["shown_at"] + DAY) for one in closed]
    at_close = [target_at(one, by_key[one["request_id"]], one["shown_at"] + WINDOW + LAG) for one in closed]
    (moved,) = labels_at(number).record["moves"]  # of 1, 3 and 7 days only the first comes before the close
    assert (moved["maturity_days"], moved["rows"], moved["positives"]) == (1, len(closed), sum(then))
    assert moved["gained"] == sum(b and not a for a, b in zip(then, at_close, strict=True)) > 100
    assert moved["lost"] == sum(a and not b for a, b in zip(then, at_close, strict=True)) > 0
    assert moved["moved_share"] == (moved["gained"] + moved["lost"]) / len(closed)


def test_a_closed_label_is_the_same_at_every_later_cutoff() -> None:
    columns = ["request_id", "item_id", "gain", "target", "is_click", "is_buy"]
    closed = [labelled(number).filter("closed").select(columns).collect() for number in CUTOFFS]
    for earlier, later in itertools.pairwise(closed):
        assert len(later) > len(earlier) > 0
        kept = later.join(earlier, on="request_id", how="semi").sort("request_id")
        assert kept.equals(earlier.sort("request_id"))


@pytest.mark.parametrize(
    ("case", "target"),
    [
        ("at the window's last tick", 1),
        ("at the window's end", 0),
        ("a minute before, by another clock", 1),
        ("more than a minute before", 0),
        ("arrived at the last tick before it closed", 1),
        ("arrived as it closed", 0),
        ("retracted at the last tick before it closed", 0),
        ("retracted as it closed", 1),
        ("retracted before it was known", 0),
    ],
)
def test_boundaries_are_half_open_to_the_microsecond(case: str, target: int) -> None:
    labels = labelled(CUTOFFS[-1]).collect()
    found = labels.filter(pl.col("request_id").str.starts_with(f"{case}, day"))
    assert found.select("closed", "target").rows() == [(True, target)] * 2


def test_fault_17_what_arrived_exactly_at_the_cutoff_is_out() -> None:
    """Shown on the fourth day, and known with the sixth day's first microsecond."""
    for number, target in ((5, 0), (6, 1)):
        labels = labelled(number).filter(request_id="arrived at the cutoff").collect()
        assert labels["target"].to_list() == [target]


def test_an_open_label_is_known_in_part_and_a_closed_one_whole() -> None:
    labels = labelled(7).collect()
    assert (labels.filter("closed")["completeness"] == 1.0).all()
    assert labels.filter(~pl.col("closed"))["completeness"].is_between(0.0, 1.0).all()
    by_age = labels.filter(~pl.col("closed")).sort("age_hours")["completeness"]
    assert by_age.is_sorted()
    assert by_age[0] < 0.2
