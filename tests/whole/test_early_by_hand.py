"""The early read as a step: hand-made labels, curves and a bundle, read row by row."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from core.core_builders import FIRST, UTC_US, at, published
from models import tiny

from sameworld.maths.delay import DelayCurve, fit_delay_curve
from sameworld.models.rank import rank
from sameworld.spec import Spec
from sameworld.store.artifacts import Store
from sameworld.store.times import time_text
from tasks import read_early

CUTOFF, MATURE, DEPLOYED = at(days=6), timedelta(hours=60), at(days=1, seconds=6 * 3600)
GAINS = {"buy": 5.0, "click": 1.0}
THETA = (1.0, 0.5, 0.25)
OPENS = CUTOFF - MATURE
Row = dict[str, Any]


def curve(hours: float) -> dict[str, Any]:
    """A delay curve of outcomes that come evenly over so many hours, as a record."""
    arrivals = [hours * (one + 1) / 20 for one in range(20)]
    return fit_delay_curve(
        [100.0] * 40, [*arrivals, *[math.nan] * 20], horizon_hours=MATURE / timedelta(hours=1)
    ).as_record()


CURVES = {"click": {"all": curve(10.0)}, "buy": {"all": curve(50.0), "app": curve(30.0), "web": {"cannot": "too few"}}}


def drawn(seed: int) -> list[Row]:
    draw, rows = random.Random(seed), []
    for number in range(6 * 12):
        shown = at(days=number // 12, seconds=draw.uniform(0, 86_000))
        segment = draw.choice(["app", "web"])
        rows += [
            {"request_id": f"r{number:03}", "item_id": f"i{item}", "user_id": f"u{number % 9}", "position": place,
             "shown_at": shown, "segment": segment, "is_click": draw.random() < 0.4, "is_buy": draw.random() < 0.25,
             "x_colour": draw.choice(["blue", "green", "red", None]), "x_price": draw.gauss(0, 1)}
            for place, item in enumerate(draw.sample(range(8), 3), start=1)
        ]  # fmt: skip
    return sorted(rows, key=lambda row: row["shown_at"])


def read(root: Path, rows: list[Row], *, until: Any = CUTOFF, curves: Any = CURVES, look_to: Any = OPENS) -> Row:
    """Publish what the step reads, run it, and return its record."""
    store, labels, features = Store(str(root)), [], []
    for day in range(6):
        name = (FIRST + timedelta(days=day)).isoformat()
        shown = [row for row in rows if at(days=day) <= row["shown_at"] < at(days=day + 1)]
        if shown:
            frame = pl.DataFrame(shown, schema_overrides={"shown_at": UTC_US, "position": pl.Int32})
            label = frame.select(pl.exclude("x_colour", "x_price"), closes_at=pl.col("shown_at") + MATURE,
                                 request=pl.col("request_id").rle_id(), target=pl.col("is_buy").cast(pl.Int8),
                                 gain=pl.col("is_buy") * 5.0 + pl.col("is_click") * 1.0)  # fmt: skip
            made = published(store, "label", {"day": name}, {"labels": label})
            labels.append({"day": name, "fingerprint": made.fingerprint})
            made = published(store, "assemble", {"day": name}, {"features": frame.select("x_colour", "x_price")})
            features.append({"day": name, "fingerprint": made.fingerprint})
    record = {"cutoff": time_text(until), "curves": {}, "parts": features, "label_parts": labels}
    spec = Spec.parse({"label": {"gains": GAINS, "target": "buy"}, "evaluate": {"replicates": 100, "at": [2]},
                       "decide": {"metric": "ndcg@3"}})  # fmt: skip
    uris = {
        "examples": published(store, "assemble", record, {}).uri,
        "delay": published(store, "measure_delay", {"curves": curves}, {}).uri,
        "bundle": tiny.publish(store, tiny.write(root / "bundle")).uri,
        "look_back": published(store, "look_back", {"from": time_text(DEPLOYED), "to": time_text(look_to)}, {}).uri,
    }
    return store.open(read_early.run(store=store, spec=spec, **uris)).record


def known_share(row: Row, kind: str) -> float:
    by_segment = CURVES[kind]
    told = by_segment.get(row["segment"], by_segment["all"])
    told = by_segment["all"] if "cannot" in told else told
    return float(DelayCurve.from_record(told).at([(CUTOFF - row["shown_at"]) / timedelta(hours=1)])[0])


def reckoned(rows: list[Row]) -> dict[str, float]:
    """The same from the definition: calibration of the target, NDCG@3 of gains over their completeness."""
    rows = [row for row in rows if row["shown_at"] >= DEPLOYED and row["shown_at"] + MATURE > CUTOFF]
    ranked = rank(pl.DataFrame(rows), tiny_bundle()).select("score", "probability").rows()
    lists: dict[str, list[tuple[float, float, float, float]]] = defaultdict(list)
    p, y = [], []
    for row, (score, probability) in zip(rows, ranked, strict=True):
        theta, share = THETA[row["position"] - 1], {kind: known_share(row, kind) for kind in GAINS}
        p.append(probability * theta * share["buy"])
        y.append(row["is_buy"] if share["buy"] > 0 else 0)
        plain = sum(GAINS[kind] * row[f"is_{kind}"] for kind in GAINS)
        raised = sum(GAINS[kind] * row[f"is_{kind}"] / (share[kind] or 1.0) for kind in GAINS)
        if min(share.values()) >= 0.05:
            lists[row["request_id"]].append((score, raised / theta, plain, raised / theta))
    top, bottom = 0.0, 0.0
    for one in lists.values():
        gained = [gain for _, gain, _, _ in sorted(one, key=lambda row: -row[0])]
        weight = sum(row[3] for row in one) / max(sum(row[2] for row in one), 1e-12)
        if any(gained):
            top, bottom = top + weight * dcg(gained) / dcg(sorted(gained, reverse=True)), bottom + weight
    return {"calibration_ratio": sum(p) / sum(y), "observed_to_expected": sum(y) / sum(p), "ndcg@3": top / bottom}


def dcg(gains: list[float]) -> float:
    return sum(gain / math.log2(place + 1) for place, gain in enumerate(gains[:3], start=1))


def tiny_bundle() -> Any:
    from dataclasses import replace

    from sameworld.maths.calibration import PlattCalibrator

    return replace(tiny.bundle(), calibrator=PlattCalibrator(1.0, 0.0))


@pytest.mark.parametrize("seed", range(3))
def test_every_figure_is_that_of_a_plain_reading_row_by_row(tmp_path: Path, seed: int) -> None:
    rows = drawn(seed)
    found, wanted = read(tmp_path, rows), reckoned(rows)
    assert {name: found[name]["value"] for name in wanted} == pytest.approx(wanted, rel=1e-6)
    assert {"normalised_entropy", "ndcg@2", "ndcg@3"} < set(found)


def test_only_open_rows_shown_since_the_bundle_would_serve_are_read(tmp_path: Path) -> None:
    rows = drawn(3)
    found = read(tmp_path, rows)
    young = [row for row in rows if row["shown_at"] > OPENS]
    assert (found["rows"], found["requests"]) == (len(young), len({row["request_id"] for row in young}))
    assert (found["from"], found["to"]) == (time_text(OPENS), time_text(CUTOFF))
    assert found["positives"] == sum(row["is_buy"] for row in young)


def test_what_closed_rows_led_to_is_nowhere_in_it(tmp_path: Path) -> None:
    rows = drawn(4)
    other = [{**row, "is_buy": not row["is_buy"], "x_price": -row["x_price"]} if row["shown_at"] <= OPENS else row
             for row in rows]  # fmt: skip
    assert read(tmp_path / "a", rows) == read(tmp_path / "b", other)


def test_a_kind_of_which_nothing_ever_arrived_is_not_waited_for(tmp_path: Path) -> None:
    rows = [{**row, "is_click": False} for row in drawn(5)]
    without = read(tmp_path / "a", rows, curves={**CURVES, "click": {"all": {"cannot": "no outcomes"}}})
    assert without["ndcg@3"] == read(tmp_path / "b", rows)["ndcg@3"]


def test_where_nothing_is_open_it_cannot_say(tmp_path: Path) -> None:
    rows = [row for row in drawn(6) if row["shown_at"] < at(days=3)]
    assert read(tmp_path, rows) == {"cannot": f"no impression shown since {time_text(OPENS)} is still open"}
