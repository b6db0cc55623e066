"""The drill step on a hand-made log: outages, their share, reasons and metrics beside the same reckoned row by row."""

from __future__ import annotations

import functools
import math
import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from core.core_builders import GONE, UTC_US, a_frame, at, published
from models import tiny
from whole.small_days import fresh

from sameworld.models.rank import rank
from sameworld.spec import Spec
from sameworld.store.artifacts import Store
from sameworld.store.times import time_text
from tasks import drill

THETA = (1.0, 0.5, 0.25)
IMPRESSIONS = {
    **dict.fromkeys(("request_id", "item_id", "user_id"), pl.String),
    **{"position": pl.Int32, "shown_at": UTC_US, "x_colour": pl.String, "x_price": pl.Float64},
    "null_reason": pl.List(pl.Struct({"key": pl.String, "value": pl.String})),
}
REQUESTS = 200
Row = dict[str, Any]


@functools.cache
def drawn(*, outages: bool = True) -> list[Row]:
    """Rows of requests: every fifth lacks its price, every tenth its colour too; a third of the prices say why."""
    draw, rows = random.Random(4), list[Row]()
    for number in range(REQUESTS):
        shown = at(days=number // 50, seconds=draw.uniform(0, 80_000))
        no_price, no_colour = outages and number % 5 == 0, outages and number % 10 == 0
        for place in (1, 2, 3):
            price, colour = draw.gauss(0, 1), draw.choice(["blue", "green", "red"])
            reasons = [("x_price", "timeout" if number % 15 else "absent")] if no_price and place == 1 else []
            chance = THETA[place - 1] * tiny.truth({"blue": 0, "green": 1, "red": 2}[colour], price)
            rows.append(
                {"request_id": f"r{number:04d}", "item_id": f"i{place:02d}", "user_id": f"u{number % 31}",
                 "position": place, "shown_at": shown, "x_price": None if no_price else price,
                 "x_colour": None if no_colour else colour, "target": int(draw.random() < chance),
                 "null_reason": [{"key": key, "value": value} for key, value in reasons] or None}
            )  # fmt: skip
    return rows


def drilled(rows: list[Row], *, served: bool = True, view: bool = False, reasons: bool = True) -> dict[str, Any]:
    """Publish what the step reads, run it, and return its record."""
    store = Store(str(fresh("drill")))
    schema = IMPRESSIONS if reasons else {name: kind for name, kind in IMPRESSIONS.items() if name != "null_reason"}
    entries = []
    for day in range(4):
        tables = {"impressions": frame({**schema, "arrived_at": UTC_US}, [one for one in rows if number(one) == day])}
        if view:
            tables["features.stats"] = a_frame({"item_id": pl.String, "available_at": UTC_US, "price": pl.Float64})
        named = {"day": f"2026-03-0{day + 1}"}
        entries.append({**named, "fingerprint": published(store, "ingest", named, tables).fingerprint})
    table = frame({name: kind for name, kind in IMPRESSIONS.items() if name != "null_reason"}, rows)
    target = pl.Series("target", [one["target"] for one in rows])
    judged = table.with_columns(target, gain=target.cast(pl.Float64), features_served=pl.lit(served))
    period = {"from": time_text(at()), "to": time_text(at(days=4)), "rows": len(rows)}
    inputs = {
        "log": published(store, "resolve", {"days": entries}, {"gone": pl.DataFrame(schema=GONE)}),
        "examples": published(store, "assemble", {"served_features": ["x_colour", "x_price"]}, {}),
        "evaluation": published(store, "evaluate", period, {"judged": judged}),
        "bundle": tiny.publish(store, tiny.write(Path(store.root) / "made" / "bundle")),
    }
    tree = {"label": {"gains": {"click": 1.0}, "target": "click"}, "evaluate": {"replicates": 100}}
    spec = Spec.parse({**tree, "decide": {"metric": "ndcg@2"}})
    made = drill.run(store=store, spec=spec, **{name: one.uri for name, one in inputs.items()})
    record: dict[str, Any] = store.open(made).record
    return record


def number(row: Row) -> int:
    return (row["shown_at"] - at()).days


def frame(schema: dict[str, Any], rows: list[Row]) -> pl.DataFrame:
    full = [{**one, "arrived_at": one["shown_at"]} for one in rows]
    return a_frame(schema, *(tuple(one[name] for name in schema) for one in full))


@functools.cache
def by_features() -> dict[tuple[str, ...], dict[str, Any]]:
    return {tuple(one["outage"]): one for one in drilled(drawn())["drills"]}


def reckoned(rows: list[Row], lacking: tuple[str, ...] = ()) -> dict[str, float]:
    """Return calibration ratio and normalised entropy of the rows without some features, one by one."""
    plain = [{**one, **dict.fromkeys(lacking)} for one in rows]
    table = frame({name: IMPRESSIONS[name] for name in ("request_id", "item_id", "x_colour", "x_price")}, plain)
    model = tiny.replace(tiny.bundle(), calibrator=tiny.PlattCalibrator(1.0, 0.0))
    seen = [THETA[one["position"] - 1] for one in rows]
    p = [a * b for a, b in zip(rank(table, model)["probability"], seen, strict=True)]
    y = [one["target"] for one in rows]
    loss = -sum(math.log(a) if b else math.log(1 - a) for a, b in zip(p, y, strict=True)) / len(y)
    rate = sum(y) / len(y)
    entropy = -(rate * math.log(rate) + (1 - rate) * math.log(1 - rate))
    return {"calibration_ratio": sum(p) / sum(y), "normalised_entropy": loss / entropy}


def test_the_outages_are_the_patterns_of_the_log_and_what_fails_together() -> None:
    found = {features: (one["kind"], one["request_share"], one["requests"]) for features, one in by_features().items()}
    assert found == {
        ("x_colour", "x_price"): ("pattern", 0.1, 20),
        ("x_price",): ("pattern", 0.2, 40),  # requests that lack the price, whatever else they lack
        ("x_colour",): ("group", 0.1, 20),
    }


@pytest.mark.parametrize("lacking", [("x_colour", "x_price"), ("x_price",), ("x_colour",)])
def test_metrics_with_and_without_are_those_reckoned_row_by_row(lacking: tuple[str, ...]) -> None:
    for name, value in reckoned(drawn(), lacking).items():
        found, served = by_features()[lacking]["metrics"][name], reckoned(drawn())[name]
        assert found["with"]["value"] == pytest.approx(value)
        assert found["without"]["value"] == pytest.approx(served)
        assert found["delta"]["value"] == pytest.approx(value - served)
        assert found["delta"]["low"] <= value - served <= found["delta"]["high"]


def test_the_deciding_metric_is_among_them() -> None:
    metrics = by_features()["x_price",]["metrics"]
    assert set(metrics) == {"ndcg@2", "normalised_entropy", "calibration_ratio"}
    assert metrics["ndcg@2"]["delta"]["value"] < 0.0


def test_the_requests_that_were_hit_are_measured_as_they_were_served() -> None:
    hit = [one for one in drawn() if one["x_price"] is None]
    found = by_features()["x_price",]["hit"]["calibration_ratio"]
    assert found["value"] == pytest.approx(reckoned(hit)["calibration_ratio"])


def test_reasons_are_shares_of_the_nulls_that_the_requests_had() -> None:
    # 40 requests of 3 rows lack the price, and one row of each says why
    stated = {one["request_id"]: one["null_reason"][0]["value"] for one in drawn() if one["null_reason"]}
    absent = sum(reason == "absent" for reason in stated.values())
    found = by_features()["x_price",]["reasons"]
    assert found == {"not stated": pytest.approx(80 / 120), "timeout": pytest.approx((40 - absent) / 120),
                     "absent": pytest.approx(absent / 120)}  # fmt: skip


def test_a_log_without_reasons_says_so() -> None:
    reasons = {one["reasons"]["cannot"] for one in drilled(drawn(), reasons=False)["drills"]}
    assert reasons == {"the log states no null_reason"}


def test_nulls_of_rows_that_were_not_served_are_no_outage() -> None:
    assert drilled(drawn(), served=False)["drills"]["cannot"].endswith("there is nothing to drill")


def test_a_view_whose_features_never_failed_is_drilled_all_the_same() -> None:
    only = drilled(drawn(outages=False), view=True)["drills"]
    assert [(one["outage"], one["kind"], one["request_share"]) for one in only] == [(["x_price"], "group", 0.0)]
    never = "no judged request lacked these features"
    assert (only[0]["reasons"]["cannot"], only[0]["hit"]["calibration_ratio"]["cannot"]) == (never, never)
    assert only[0]["metrics"]["normalised_entropy"]["delta"]["low"] > 0.0


def test_of_too_many_rows_every_nth_request_is_drilled_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drill, "MAX_ROWS", 250)
    found = drilled(drawn())
    assert (found["requests"], found["rows"]) == (67, 201)
