"""Random small drops with views, in which serving got known things wrong, and the same question asked row by row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from core.core_builders import published
from ingest.tiny_drops import Row, at, end_of, impression, resolved, store_beside, table_of, write_day

from sameworld.maths.missingness import Skew, skew_of
from sameworld.spec import Spec
from sameworld.store.artifacts import Artifact
from tasks import measure_skew

DAYS, PER_DAY = 6, 40
ITEMS, USERS = "abcdef", ("u1", "u2", "u3", None)
KEYS = {"stats": ("item_id",), "pair": ("user_id", "item_id")}
WINDOW_DAYS = 1
VALUES: dict[str, Sequence[Any]] = {
    "price": (0.1, 0.25, 1 / 3, 7.5, float("nan"), None),
    "clicks": (0, 1, 2, 30, None),
    "label": ("new", "old", "", None),
    "flag": (True, False, None),
    "x_age": (1, 2, 3, None),
    "affinity": (0.1, -0.2, 0.3, None),
}
GIVEN = {"stats": ("price", "clicks", "label", "flag", "x_age"), "pair": ("affinity",)}
TYPES = {
    "price": pa.float64(), "clicks": pa.int32(), "flag": pa.bool_(), "x_age": pa.int64(), "affinity": pa.float32(),
    "x_price": pa.float32(), "x_clicks": pa.float64(), "x_flag": pa.bool_(), "x_affinity": pa.float64(),
}  # fmt: skip
NARROW = ("x_price", "x_affinity")  # 32 bits on one side
NOT_SERVED = {4: ("x_label", "x_flag")}  # the files of this day lack these


@dataclass
class Planted:
    """What a drop holds: impressions by day of arrival, and each view's rows by day of arrival."""

    shown: list[tuple[int, Row]] = field(default_factory=list)
    views: dict[str, list[tuple[int, Row]]] = field(default_factory=dict)

    def write(self, drop: Path) -> Path:
        """Write the drop, a folder a day."""
        for day in range(1, DAYS + 1):
            shown = [without(row, NOT_SERVED.get(day, ())) for arrived, row in self.shown if arrived == day]
            views = {f"features__{view}": [row for arrived, row in rows if arrived == day]
                     for view, rows in self.views.items()}  # fmt: skip
            tables = {name: table_of(rows, types_of(rows)) for name, rows in {"impressions": shown, **views}.items()
                      if rows}  # fmt: skip
            write_day(drop, day, **tables)
        return drop


def named(column: str) -> str:
    return column if column.startswith("x_") else f"x_{column}"


def without(row: Row, names: Sequence[str]) -> Row:
    return {name: value for name, value in row.items() if name not in names}


def types_of(rows: Sequence[Row]) -> dict[str, pa.DataType]:
    """Return the types as delivered: ``x_age`` is served as int32, whatever the view has."""
    return {**TYPES, "x_age": pa.int32()} if "request_id" in rows[0] else TYPES


def a_log(seed: int, *, wrong: float = 0.4) -> Planted:
    """Draw views with late rows and corrections, and impressions; a share of the served values is ``wrong``."""
    rng = np.random.default_rng(seed)
    log = Planted(views={"stats": [], "pair": []})
    for view, day in [(view, day) for view in GIVEN for day in range(1, DAYS + 1)]:
        log.views[view] += [(day, row) for row in view_rows(rng, view, day, log.views[view])]
    for day, number in [(day, number) for day in range(1, DAYS + 1) for number in range(PER_DAY)]:
        shown_at = at(day, float(rng.uniform(0, 24)))
        arrived_at = shown_at + timedelta(hours=float(rng.choice([0.1, 1.0, 36.0], p=[0.6, 0.3, 0.1])))
        user, item = USERS[rng.integers(len(USERS))], ITEMS[rng.integers(len(ITEMS))]
        row = impression(item, request_id=f"r{day}-{number}", user_id=user, shown_at=shown_at, arrived_at=arrived_at)
        served = {named(name): served_value(rng, log, view, name, row, wrong) for view, names in GIVEN.items()
                  for name in names}  # fmt: skip
        log.shown.append((arrived_at.day, row | served))
    return log


def view_rows(rng: np.random.Generator, view: str, day: int, before: Sequence[tuple[int, Row]]) -> list[Row]:
    """Draw what arrives on a day: new rows, some readable since long ago, and corrections of older rows."""
    found: dict[tuple[Any, ...], Row] = {}
    for item in ITEMS:
        user = USERS[rng.integers(3)]
        readable = at(day, float(rng.integers(24))) - timedelta(days=int(rng.choice([0, 0, 0, 1, 3])))
        keys: Row = {"item_id": item} if view == "stats" else {"user_id": user, "item_id": item}
        keys = dict(before[rng.integers(len(before))][1]) if before and rng.random() < 0.2 else keys
        row = {"available_at": readable, **keys} | {name: drawn(rng, name) for name in GIVEN[view]}
        found[(*(row[key] for key in KEYS[view]), row["available_at"])] = row
    return list(found.values())


def drawn(rng: np.random.Generator, name: str) -> Any:
    return VALUES[name][rng.integers(len(VALUES[name]))]


def served_value(rng: np.random.Generator, log: Planted, view: str, name: str, row: Row, wrong: float) -> Any:
    """Return what serving gave: the right value, or a random, a missing or an earlier one."""
    seen = versions(log.views[view], view, row, until=at(DAYS + 9, 0))
    right = seen[-1][name] if seen else None
    earlier = seen[rng.integers(len(seen))][name] if seen else drawn(rng, name)
    if rng.random() >= wrong:
        return right
    return [drawn(rng, name), None, earlier][rng.integers(3)]


def versions(rows: Sequence[tuple[int, Row]], view: str, shown: Row, *, until: datetime) -> list[Row]:
    """Return a key's rows that could be read when the impression was shown, as known at ``until``, oldest first."""
    wanted = [shown[key] for key in KEYS[view]]
    known = [
        (row["available_at"], day, row) for day, row in rows
        if None not in wanted and [row[key] for key in KEYS[view]] == wanted
        and row["available_at"] <= shown["shown_at"] and row["available_at"] < until and at(day + 1, 0) <= until
    ]  # fmt: skip
    return [row for _, _, row in sorted(known, key=lambda one: one[:2])]


def counted_by_hand(log: Planted, *, day: int = DAYS) -> dict[tuple[str, str], Skew]:
    """Count every feature's differences row by row, as a run of ``day`` should."""
    found = {}
    for view, name in [(view, name) for view, names in GIVEN.items() for name in names]:
        sides: list[tuple[Any, Any, list[Any]]] = []
        for arrived, row, until in known_rows(log, day):
            if named(name) not in NOT_SERVED.get(arrived, ()):
                seen = versions(log.views[view], view, row, until=until)
                now = seen[-1]["available_at"] if seen else None
                earlier = [narrowed(name, one[name]) for one in seen if one["available_at"] < now]
                recomputed = narrowed(name, seen[-1][name]) if seen else None
                sides.append((narrowed(name, row[named(name)]), recomputed, earlier))
        served, again, earlier_values = zip(*sides, strict=True)
        found[named(name), view] = skew_of(as_objects(served), as_objects(again), earlier_values)
    return found


def ages_by_hand(log: Planted, view: str) -> tuple[list[int], int]:
    """Return the age in minutes, rounded up, of each value that was found, sorted, and how many rows there were."""
    rows = known_rows(log, DAYS)
    newest = [(row["shown_at"], versions(log.views[view], view, row, until=until)) for _, row, until in rows]
    ages = [math.ceil((shown - seen[-1]["available_at"]) / timedelta(minutes=1)) for shown, seen in newest if seen]
    return sorted(ages), len(rows)


def known_rows(log: Planted, day: int) -> list[tuple[int, Row, datetime]]:
    """Return the impressions that a run of ``day`` knows, with the end of what their day's part knows."""
    ends = [(arrived, row, min(at(row["shown_at"].day + WINDOW_DAYS + 2, 0), at(day + 1, 0)))
            for arrived, row in log.shown]  # fmt: skip
    return [(arrived, row, until) for arrived, row, until in ends if at(arrived + 1, 0) <= until]


def narrowed(name: str, value: Any) -> Any:
    return np.float32(value) if value is not None and named(name) in NARROW else value


def as_objects(values: Sequence[Any]) -> np.ndarray[Any, Any]:
    found = np.empty(len(values), dtype=object)
    found[:] = values
    return found


def measured(drop: Path, day: int, views: Mapping[str, list[str]] | None = None) -> Artifact:
    """Take in a drop up to a day and measure its skew."""
    store, log = store_beside(drop), resolved(drop, day)
    label = {"gains": {"click": 1.0}, "target": "click", "window_days": WINDOW_DAYS}
    spec = Spec.parse({"source": {"uri": str(drop)}, "label": label, "features": {"views": dict(views or {})}})
    delay = published(store, "measure_delay", {"lag_hours": 0.0}, {})
    return store.open(measure_skew.run(store=store, spec=spec, cutoff=end_of(day), log=log.uri, delay=delay.uri))
