"""The loop's watch: every figure row by row, worlds that collapse and worlds that do not, and what it cannot say."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from core.core_builders import at
from whole.loop_logs import MATURES_AFTER, REQUESTS, Day, drawn, exploring, feeding, simulated, watched

MEASURES = ("explored_share", "own_choice_share", "support", "concentration")
LAW = ("tau", "epsilon", "candidates")


def chance(row: dict[str, Any]) -> float | None:
    """How probable it is that a request was shuffled, as far as its row says."""
    told = {"shuffle": 1.0, "model": 0.0}.get(row.get("branch"))
    return row.get("epsilon") if told is None else told


def width(row: dict[str, Any]) -> float | None:
    """exp(entropy) of the first item over the candidates, None where the law is not known."""
    tau, epsilon = row["tau"], row["epsilon"]
    if epsilon is None or (tau is None and epsilon < 1.0):
        return None
    scores = [one["score"] for one in row["candidates"]]
    top = max(scores)
    weight = [float(one == top) if tau == 0.0 else math.exp((one - top) / (tau or 1.0)) for one in scores]
    p = [(1 - epsilon) * one / sum(weight) + epsilon / len(scores) for one in weight]
    return math.exp(-sum(one * math.log(one) for one in p if one > 0.0)) / len(scores)


def unevenness(day: Day) -> float:
    """Gini from all pairs: mean difference over twice the mean."""
    told = [row for row in day.requests.to_dicts() if width(row) is not None]
    items = {one["item_id"] for row in told for one in row["candidates"]} | set(day.shown["item_id"])
    count = Counter(day.shown["item_id"])
    values = [count[item] for item in items]
    apart = sum(abs(one - other) for one in values for other in values)
    return apart / (2 * len(values) * sum(values))


def mean(pairs: list[tuple[float, float]]) -> float:
    return sum(value * weight for value, weight in pairs) / sum(weight for _, weight in pairs)


def reckoned(days: list[Day]) -> dict[str, float]:
    """The measures of these days, by their definition."""
    rows = [row for day in days for row in day.requests.to_dicts()]
    size = Counter(name for day in days for name in day.shown["request_id"])
    known = [(chance(row), size[row["request_id"]]) for row in rows if chance(row) is not None]
    return {
        "explored_share": mean([(one, 1.0) for one, _ in known]),
        "own_choice_share": 1.0 - mean(known),
        "support": mean([(share, 1.0) for row in rows if (share := width(row)) is not None]),
        "concentration": mean([(unevenness(day), len(day.shown)) for day in days]),
    }


def cost_by_hand(days: list[Day], until: int) -> float:
    """Mean gain of the model's requests less that of all, each less its day's mean, where closed with a branch."""
    own, every = [], []
    for day in days:
        gains: dict[str, float] = defaultdict(float)
        for row in day.shown.to_dicts():
            gains[row["request_id"]] += row["gain"]
        closed = [
            row
            for row in day.requests.to_dicts()
            if row["branch"] and row["shown_at"] + MATURES_AFTER <= at(days=until)
        ]
        usual = sum(gains[row["request_id"]] for row in closed) / max(len(closed), 1)
        every += [gains[row["request_id"]] - usual for row in closed]
        own += [gains[row["request_id"]] - usual for row in closed if row["branch"] == "model"]
    return sum(own) / len(own) - sum(every) / len(every)


@pytest.mark.parametrize("seed", range(3))
def test_every_figure_is_that_of_a_plain_reading_row_by_row(tmp_path: Path, seed: int) -> None:
    days = drawn(seed)
    record = watched(tmp_path, days)[1].record
    assert {name: record[name]["value"] for name in MEASURES} == pytest.approx(reckoned(days), rel=1e-9)
    for told, day in zip(record["by_day"], days, strict=True):
        assert {name: told[name] for name in MEASURES} == pytest.approx(reckoned([day]), rel=1e-9)
    assert record["exploration_cost"]["value"] == pytest.approx(cost_by_hand(days, len(days)), rel=1e-9)
    assert (record["rows"], record["requests"]) == (sum(len(day.shown) for day in days), 270)


def test_a_day_that_has_closed_is_counted_once_for_all_later_runs(tmp_path: Path) -> None:
    days = drawn(4)
    store, early = watched(tmp_path, days, until=7)
    late = watched(tmp_path, days)[1]
    parts = [{one["day"]: one["fingerprint"] for one in run.record["parts"]} for run in (early, late)]
    same = {day for day, fingerprint in parts[0].items() if parts[1][day] == fingerprint}
    assert same == {f"2026-03-0{number}" for number in range(1, 6)}
    assert all(store.find("watch_loop", fingerprint) for fingerprint in parts[1].values())


def test_what_arrives_later_changes_nothing_of_an_earlier_run(tmp_path: Path) -> None:
    days, other = drawn(5), drawn(6)
    alone = watched(tmp_path / "a", days[:7])[1]
    assert watched(tmp_path / "b", days[:7] + other[7:], until=7)[1].content_hash == alone.content_hash


@pytest.mark.parametrize("seed", range(3))
def test_a_world_that_feeds_on_its_own_clicks_raises_the_alarm(tmp_path: Path, seed: int) -> None:
    record = watched(tmp_path, simulated(feeding, seed=seed, days=16, epsilon=0.02))[1].record
    assert record["alarm"] is True
    assert record["reason"].startswith("what may be shown first narrows, and exposure concentrates: support -")
    assert record["support"]["trend"]["high"] < 0.0 < record["concentration"]["trend"]["low"]


@pytest.mark.parametrize("seed", range(3))
def test_a_world_that_explores_and_does_not_feed_raises_none(tmp_path: Path, seed: int) -> None:
    record = watched(tmp_path, simulated(exploring, seed=seed, days=16, epsilon=0.1))[1].record
    assert record["alarm"] is False
    assert record["explored_share"]["value"] == pytest.approx(0.1, abs=0.03)
    assert record["own_choice_share"]["value"] == pytest.approx(0.9, abs=0.03)


def ordered_by(day: Day, branch: pl.Expr | str) -> Day:
    """Return the day with every request of a branch, and a choice as wide as a shuffle of scores at tau 1."""
    told = pl.lit(branch) if isinstance(branch, str) else branch
    return Day(day.requests.with_columns(branch=told, epsilon=pl.lit(0.5), tau=pl.lit(1.0)), day.shown)


def test_a_growing_share_of_own_choices_raises_no_alarm_by_itself(tmp_path: Path) -> None:
    days = [
        ordered_by(day, pl.when(pl.int_range(pl.len()) < 2 * number).then(pl.lit("model")).otherwise(pl.lit("shuffle")))
        for number, day in enumerate(drawn(7, days=14))
    ]
    record = watched(tmp_path, days)[1].record
    assert record["own_choice_share"]["trend"]["low"] > 0.0 > record["explored_share"]["trend"]["high"]
    assert record["alarm"] is False


def test_only_the_last_two_weeks_make_the_trend(tmp_path: Path) -> None:
    before = [ordered_by(day, "shuffle") for day in drawn(8, days=16)]
    now = [ordered_by(day, "model") for day in drawn(9, days=14, first=16)]
    record = watched(tmp_path, before + now)[1].record
    assert record["explored_share"]["trend"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert record["explored_share"]["value"] == pytest.approx(16 / 30)


def test_a_piece_of_a_day_is_no_point_of_the_trend(tmp_path: Path) -> None:
    days = [ordered_by(day, "model") for day in drawn(14, days=7)]
    first = ordered_by(days[0], "shuffle")
    piece = Day(first.requests.head(1), first.shown.filter(pl.col("request_id") == first.requests["request_id"][0]))
    record = watched(tmp_path, [piece, *days[1:]])[1].record
    assert record["explored_share"]["trend"] == {
        "cannot": "a trend needs 7 of the last 14 days with a value, there are 6"
    }


def test_a_few_days_have_values_but_neither_trend_nor_alarm(tmp_path: Path) -> None:
    record = watched(tmp_path, drawn(10, days=5))[1].record
    reason = "a trend needs 7 of the last 14 days with a value, there are 5"
    assert all(record[name]["trend"] == {"cannot": reason} for name in MEASURES)
    assert record["alarm"] == {"cannot": f"support: {reason}"}


@pytest.mark.parametrize(
    ("known", "cannot"),
    [
        ((), {"explored_share", "own_choice_share", "support", "exploration_cost", "alarm"}),
        (("branch",), {"support", "alarm"}),
        (("epsilon",), {"support", "exploration_cost", "alarm"}),
        (LAW, {"exploration_cost"}),
    ],
    ids=["no requests", "branch", "epsilon", "the law"],
)
def test_what_the_log_does_not_hold_cannot_be_said_and_the_rest_can(
    tmp_path: Path, known: tuple[str, ...], cannot: set[str]
) -> None:
    columns = [name for name in REQUESTS if name in known or name in ("request_id", "shown_at", "arrived_at")]
    days = drawn(11, known=columns if known else ())
    record = watched(tmp_path, days)[1].record
    names = (*MEASURES, "exploration_cost", "alarm")
    assert {name for name in names if isinstance(record[name], dict) and "cannot" in record[name]} == cannot


@pytest.mark.parametrize(("branch", "lacking"), [("model", "was shuffled"), ("shuffle", "was ordered by the model")])
def test_without_both_branches_what_exploring_costs_cannot_be_said(tmp_path: Path, branch: str, lacking: str) -> None:
    days = [Day(day.requests.with_columns(branch=pl.lit(branch)), day.shown) for day in drawn(12, days=3)]
    found = watched(tmp_path, days)[1].record["exploration_cost"]
    closed = sum((day.requests["shown_at"] + MATURES_AFTER <= at(days=3)).sum() for day in days)
    assert found == {"cannot": f"of the {closed} closed requests with a branch none {lacking}"}


def test_a_request_delivered_twice_counts_as_its_later_delivery(tmp_path: Path) -> None:
    [day, *rest] = drawn(13, days=2)
    whole = day.requests.with_columns(branch=pl.lit("model"))
    again = whole.head(10).with_columns(branch=pl.lit("shuffle"), arrived_at=pl.col("arrived_at") + timedelta(hours=1))
    record = watched(tmp_path, [Day(pl.concat([again, whole]), day.shown), *rest], until=1)[1].record
    assert record["explored_share"]["value"] == pytest.approx(10 / 30)
