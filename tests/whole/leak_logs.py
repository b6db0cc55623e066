"""Hand-made logs for the leak meter, all that it reads, and a plain reading of its definition, row by row."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from core.core_builders import FIRST, GONE, UTC_US, a_frame, at, published
from models import tiny

from sameworld.models.rank import rank
from sameworld.spec import Spec
from sameworld.store.artifacts import Artifact, Store
from sameworld.store.times import day_start, time_text
from tasks import measure_leak

DAYS, LAG_HOURS, WINDOW = 8, 50.0, timedelta(days=2)
CUTOFF, SINCE, UNTIL = at(days=DAYS), at(days=1, seconds=6 * 3600), at(days=5)  # 50 hours before the cutoff: day 5
KINDS = {"click": 1.0, "buy": 5.0}
IMPRESSIONS = {
    **dict.fromkeys(("request_id", "item_id", "user_id"), pl.String),
    **{"position": pl.Int32, "shown_at": UTC_US, "arrived_at": UTC_US},
}
OUTCOMES = {
    **dict.fromkeys(("request_id", "item_id", "kind"), pl.String),
    **{"value": pl.Float64, "happened_at": UTC_US, "arrived_at": UTC_US, "retracted": pl.Boolean},
}
VIEW = {"item_id": pl.String, "available_at": UTC_US, "price": pl.Float64}
Row = dict[str, Any]


@dataclass(frozen=True)
class Given:
    """A log's rows; a view's row names the number of the day on which it arrived.

    served : days of arrival on which impressions carry ``x_price``, which the view gives on the others
    """

    impressions: list[Row] = field(default_factory=list)
    outcomes: list[Row] = field(default_factory=list)
    views: dict[str, list[Row]] = field(default_factory=dict)
    served: frozenset[int] = frozenset()

    def known(self, impression: Row) -> bool:
        return SINCE <= impression["shown_at"] < UNTIL and impression["arrived_at"] < UNTIL


def drawn(seed: int, *, late: bool = True, views: bool = True, served: frozenset[int] = frozenset()) -> Given:
    """Draw a log. With ``late`` False all arrives as it happens, views on the day on which they can be read."""
    draw = random.Random(seed)
    given = Given(served=served)

    def wait(hours: float) -> timedelta:
        return timedelta(seconds=draw.expovariate(1 / (3600 * hours)))

    for number in range(DAYS * 20):
        shown = at(days=number // 20, seconds=draw.uniform(0, 86_000))
        for place, item in enumerate(draw.sample(range(8), 4), start=1):
            key = {"request_id": f"r{number:04d}", "item_id": f"i{item}"}
            arrived = shown + (wait(3) if late else timedelta())
            given.impressions.append(
                {**key, "user_id": f"u{number % 17}", "position": place, "shown_at": shown, "arrived_at": arrived,
                 "x_colour": draw.choice(["blue", "green", "red", None]),
                 "x_price": draw.choice([None, -1.0, 0.0, 2.0])}
            )  # fmt: skip
            for kind in KINDS:
                if draw.random() < 0.3:
                    given.outcomes.extend(_happen(draw, {**key, "kind": kind}, shown + wait(12), late=late, wait=wait))
    for view in ("stats", "more") if views else ():
        given.views[view] = [_value(draw, item, day, late=late) for day in range(DAYS) for item in range(7)]
    return given


def _happen(
    draw: random.Random, key: Row, happened: datetime, *, late: bool, wait: Callable[[float], timedelta]
) -> list[Row]:
    skew = timedelta(seconds=draw.choice([0, 0, 30]))
    arrived = happened + (draw.choice([wait(1), wait(40), -skew]) if late else timedelta())
    found = [{**key, "happened_at": happened, "arrived_at": arrived, "retracted": False}]
    if draw.random() < 0.15:
        found.append({**found[0], "arrived_at": arrived + (wait(30) if late else timedelta()), "retracted": True})
    return found


def _value(draw: random.Random, item: int, day: int, *, late: bool) -> Row:
    available = at(days=day, seconds=draw.uniform(0, 80_000))
    arrives = max(0, min(DAYS - 1, day + (draw.choice([-3, -1, 0, 0, 2, 4]) if late else 0)))
    return {
        "item_id": f"i{item}",
        "available_at": available,
        "price": draw.choice([None, -2.0, 0.5, 1.5]),
        "day": arrives,
    }


# --- what the step reads


def measured(root: Path, given: Given, *, metric: str = "auc", names: tuple[str, ...] = ("stats",)) -> dict[str, Any]:
    """Run the step on the log and return its record; the first view gives ``x_price``, the second ``x_other``."""
    store = Store(str(root))
    views = {name: ["price" if name == "stats" else "other"] for name in names}
    tree = {"gains": KINDS, "target": "buy", "window_days": WINDOW / timedelta(days=1)}
    spec = Spec.parse({"label": tree, "features": {"views": views}, "decide": {"metric": metric},
                       "evaluate": {"replicates": 100}})  # fmt: skip
    look_back = {"from": time_text(SINCE), "cutoff": time_text(at(days=1)), "to": time_text(UNTIL)}
    bundle = tiny.publish(store, tiny.write(Path(store.root) / "made" / "bundle"))
    inputs = {
        "log": _log(store, given),
        "delay": published(store, "measure_delay", {"lag_hours": LAG_HOURS}, {}),
        "examples": _examples(store, given),
        "bundle": bundle,
        "look_back": published(store, "look_back", look_back, {}),
    }
    uris = {name: one.uri for name, one in inputs.items()}
    record: dict[str, Any] = store.open(
        measure_leak.run(store=store, spec=spec, cutoff=time_text(CUTOFF), **uris)
    ).record
    return record


def _frame(schema: dict[str, Any], rows: list[Row]) -> pl.DataFrame:
    return a_frame(schema, *(tuple(row.get(name) for name in schema) for row in rows))


def _log(store: Store, given: Given) -> Artifact:
    entries = []
    for number in range(DAYS):
        day = (FIRST + timedelta(days=number)).isoformat()
        made = published(store, "ingest", {"day": day}, _tables(given, number))
        entries.append({"day": day, "fingerprint": made.fingerprint})
    return published(store, "resolve", {"days": entries}, {"gone": pl.DataFrame(schema=GONE)})


def _tables(given: Given, number: int) -> dict[str, pl.DataFrame]:
    """What arrived on a day."""

    def arrived(rows: list[Row]) -> list[Row]:
        return [one for one in rows if at(days=number) <= one["arrived_at"] < at(days=number + 1)]

    served = {"x_colour": pl.String, **({"x_price": pl.Float64} if number in given.served else {})}
    views = {view: _frame(VIEW, [one for one in rows if one["day"] == number]) for view, rows in given.views.items()}
    return {
        "impressions": _frame({**IMPRESSIONS, **served}, arrived(given.impressions)),
        "outcomes": _frame(OUTCOMES, arrived(given.outcomes)),
        **{f"features.{view}": rows.rename({} if view == "stats" else {"price": "other"})
           for view, rows in views.items()},
    }  # fmt: skip


def _examples(store: Store, given: Given) -> Artifact:
    """The training set as of the cutoff; of its features only what was served counts, each read joins its own."""
    labels, features = [], []
    for number in range(DAYS):
        day = (FIRST + timedelta(days=number)).isoformat()
        shown = [one for one in given.impressions if at(days=number) <= one["shown_at"] < at(days=number + 1)]
        names = ("request_id", "item_id", "user_id", "shown_at", "position")
        frame = _frame({name: IMPRESSIONS[name] for name in names}, shown)
        frame = frame.with_columns(
            closes_at="shown_at", segment=pl.lit("all"), gain=pl.lit(9.0), target=pl.lit(1),
            request=pl.col("request_id").rle_id(),
        )  # fmt: skip
        served = [one["x_price"] if _was_served(given, one) else None for one in shown]
        columns = {"x_colour": pl.Series([one["x_colour"] for one in shown], dtype=pl.String),
                   "x_price": pl.Series(served, dtype=pl.Float64)}  # fmt: skip
        about = {"day": day}
        labels.append({**about, "fingerprint": published(store, "label", about, {"labels": frame}).fingerprint})
        made = published(store, "assemble", about, {"features": pl.DataFrame(columns)})
        features.append({**about, "fingerprint": made.fingerprint})
    record = {"cutoff": time_text(CUTOFF), "curves": {}, "parts": features, "label_parts": labels}
    return published(store, "assemble", record, {})


def _was_served(given: Given, impression: Row) -> bool:
    return (impression["arrived_at"] - at()).days in given.served


# --- a plain reading of the definition


def reckoned(given: Given, *, outcomes: str = "known", stats: str = "known") -> dict[str, float]:
    """Return the metrics of one read: outcomes and the view each ``known``, ``let in``, or the view as of ``today``."""
    rows = [one for one in given.impressions if given.known(one)]
    prices = [one["x_price"] if _was_served(given, one) else price_of(given, one, stats) for one in rows]
    table = pl.DataFrame(
        {"request_id": [one["request_id"] for one in rows], "item_id": [one["item_id"] for one in rows],
         "x_colour": pl.Series([one["x_colour"] for one in rows], dtype=pl.String),
         "x_price": pl.Series(prices, dtype=pl.Float64)}
    )  # fmt: skip
    model = replace(tiny.bundle(lists=False), calibrator=tiny.PlattCalibrator(1.0, 0.0))
    theta = [1.0, 0.5, 0.25, 0.25]
    seen = [theta[one["position"] - 1] for one in rows]
    p = [min(max(a * b, 1e-15), 1 - 1e-15) for a, b in zip(rank(table, model)["probability"], seen, strict=True)]
    events = _events(given, "buy")
    y = [_led_to(events, one, outcomes) for one in rows]
    rate = sum(y) / len(y)
    loss = -sum(math.log(a) if b else math.log(1 - a) for a, b in zip(p, y, strict=True)) / len(y)
    entropy = -(rate * math.log(rate) + (1 - rate) * math.log(1 - rate))
    return {"normalised_entropy": loss / entropy, "calibration_ratio": sum(p) / sum(y), "auc": _auc(p, y)}


def _events(given: Given, kind: str) -> dict[Any, dict[datetime, list[Row]]]:
    found: dict[Any, dict[datetime, list[Row]]] = {}
    for one in given.outcomes:
        if one["kind"] == kind:
            found.setdefault((one["request_id"], one["item_id"]), {}).setdefault(one["happened_at"], []).append(one)
    return found


def _led_to(events: dict[Any, dict[datetime, list[Row]]], shown: Row, read: str) -> bool:
    own = events.get((shown["request_id"], shown["item_id"]), {})
    return any(_counts(at, rows, read) for at, rows in own.items() if at < shown["shown_at"] + WINDOW)


def _counts(happened: datetime, rows: list[Row], read: str) -> bool:
    came = min((one["arrived_at"] for one in rows if not one["retracted"] and one["arrived_at"] < CUTOFF), default=None)
    back = min((one["arrived_at"] for one in rows if one["retracted"] and one["arrived_at"] < CUTOFF), default=None)
    if came is None:
        return False
    if read == "known":
        return came < UNTIL and (back is None or back >= UNTIL)
    return (came < UNTIL or happened < UNTIL) and back is None


def price_of(given: Given, shown: Row, read: str) -> float | None:
    """Return the view's value that a read gives an impression, by looking at every row of the view."""
    found: tuple[datetime, int] | None = None
    price = None
    for one in given.views.get("stats", []):
        stored = at(days=one["day"] + 1)
        allowed = {
            "known": one["available_at"] <= shown["shown_at"] and stored <= UNTIL,
            "let in": one["available_at"] <= shown["shown_at"] or stored <= day_start(shown["shown_at"].date()),
            "today": True,
        }[read]
        place = (one["available_at"], one["day"])
        if one["item_id"] == shown["item_id"] and allowed and (found is None or place >= found):
            found, price = place, one["price"]
    return price


def _auc(p: list[float], y: list[bool]) -> float:
    ups, downs = [a for a, b in zip(p, y, strict=True) if b], [a for a, b in zip(p, y, strict=True) if not b]
    return sum((a > b) + (a == b) / 2 for a in ups for b in downs) / (len(ups) * len(downs))
