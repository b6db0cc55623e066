"""The early read: exact on hand-made rows, and right on average where the truth is known."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from sameworld.maths.delay import fit_delay_curve
from sameworld.models.early import calibration, ranking
from sameworld.models.judging import Judged, metric_replicates
from sameworld.sources.closed_loop import World, WorldParameters

DRAW = {"seed": 1, "replicates": 100}
GAINS = {"click": 1.0, "purchase": 5.0}
DAY = 86_400_000_000
Floats = NDArray[np.float64]


def judged(target: list[float], p: list[float], *, gain: list[float] | None = None, size: int = 1) -> Judged:
    """Rows in requests of ``size``, each of a user of its own, scored from the top down."""
    n = len(target)
    request = np.arange(n) // size
    gains = np.array(target if gain is None else gain)
    return Judged(request, request, np.arange(n), gains, np.array(target), -np.arange(n, dtype=np.float64),
                  np.array(p), np.ones(n))  # fmt: skip


def test_what_is_known_is_compared_with_what_could_be_known() -> None:
    found = calibration(judged([1.0, 0.0, 0.0, 1.0], [0.4, 0.2, 0.5, 0.8]), np.array([0.5, 0.25, 1.0, 1.0]), **DRAW)
    expected = 0.4 * 0.5 + 0.2 * 0.25 + 0.5 + 0.8
    assert found["calibration_ratio"]["value"] == pytest.approx(expected / 2)
    assert found["observed_to_expected"]["value"] == pytest.approx(2 / expected)
    base = 2 / 2.75
    loss = -math.log(0.2) - math.log(0.95) - math.log(0.5) - math.log(0.8)
    usual = -math.log(base * 0.5) - math.log(1 - base * 0.25) - math.log(1 - base) - math.log(base)
    assert found["normalised_entropy"]["value"] == pytest.approx(loss / usual)


def test_on_closed_rows_it_is_the_matured_metric_itself() -> None:
    rng = np.random.default_rng(2)
    p = rng.uniform(0.05, 0.6, 300)
    rows = judged((rng.random(300) < p).astype(float).tolist(), p.tolist(), size=3)
    closed = np.ones(300)
    found = calibration(rows, closed, **DRAW) | {"ndcg@3": ranking("ndcg@3", rows, rows.gain, closed, **DRAW)}
    for name in ("calibration_ratio", "normalised_entropy", "ndcg@3"):
        matured = metric_replicates(name, rows, **DRAW)
        assert found[name]["value"] == pytest.approx(matured.value[0])  # type: ignore[union-attr]


def test_rows_of_which_nothing_can_be_known_are_left_out() -> None:
    some = judged([1.0, 0.0, 0.0], [0.4, 0.2, 0.9])
    known = np.array([0.5, 0.5, 0.0])
    fewer = judged([1.0, 0.0], [0.4, 0.2])
    assert calibration(some, known, **DRAW) == calibration(fewer, known[:2], **DRAW)


def test_a_request_seen_with_half_the_chance_counts_twice() -> None:
    rows = judged([1.0, 0.0, 0.0, 1.0], [0.5] * 4, size=2)
    corrected = np.array([1.0, 0.0, 0.0, 2.0])
    found = ranking("ndcg@2", rows, corrected, np.array([1.0, 1.0, 0.5, 0.5]), **DRAW)
    assert found["value"] == pytest.approx((1.0 + 2.0 / math.log2(3)) / 3.0)


def test_a_request_too_young_is_left_out_whatever_it_gained() -> None:
    rows = judged([1.0, 0.0, 0.0, 1.0, 1.0, 0.0], [0.5] * 6, size=2)
    known, corrected = np.array([1.0, 1.0, 0.5, 0.5, 0.9, 0.04]), np.array([1.0, 0.0, 0.0, 2.0, 25.0, 0.0])
    first = judged([1.0, 0.0, 0.0, 1.0], [0.5] * 4, size=2)
    assert ranking("ndcg@2", rows, corrected, known, **DRAW)["value"] == pytest.approx(
        ranking("ndcg@2", first, corrected[:4], known[:4], **DRAW)["value"]
    )


def test_what_cannot_be_read_early_says_why() -> None:
    nothing = calibration(judged([0.0, 0.0], [0.1, 0.1]), np.array([0.5, 0.5]), **DRAW)
    reason = {"cannot": "no outcome of the target is known yet"}
    assert (nothing["calibration_ratio"], nothing["normalised_entropy"]) == (reason, reason)
    assert nothing["observed_to_expected"]["value"] == 0.0
    young = calibration(judged([0.0], [0.1]), np.zeros(1), **DRAW)
    assert set(map(str, young.values())) == {"{'cannot': 'nothing of the target can be known yet of any row'}"}
    alone = calibration(judged([1.0], [0.1]), np.ones(1), **DRAW)
    assert "no interval by user: got 1 user" in alone["calibration_ratio"]["cannot"]
    rank = ranking("ndcg@2", judged([0.0], [0.1]), np.zeros(1), np.zeros(1), **DRAW)
    assert rank == {"cannot": "of no request 5% can be known yet"}


# --- a world whose truth is known


@dataclass(frozen=True)
class Opened:
    """A closed loop's open rows at a cutoff: as known then, and as they matured; completeness by kind as measured."""

    early: Judged
    matured: Judged
    corrected: Floats
    completeness: dict[str, Floats]

    @classmethod
    def of(cls, seed: int) -> Opened:
        sizes = {"users": 300, "items": 120, "candidates": 10, "slots": 5, "requests_per_day": 300, "days": 24}
        late = {"purchase_intercept": 0.0, "purchase_lag_hours": 3.0}
        p = WorldParameters(seed=seed, **sizes, **late, candidates_share=0.0, propensity_share=0.0)  # type: ignore[arg-type]
        world = World(p)
        logs = [world.simulate_day(day) for day in range(p.days)]
        rows = pl.concat([one.impressions for one in logs])
        shown = rows["shown_at"].to_physical().to_numpy()
        cutoff = shown.min() // DAY * DAY + p.days * DAY
        age = (cutoff - shown) / 3.6e9
        slow = (rows["x_segment"] == "slow").to_numpy()
        arrived = first_arrivals(rows, pl.concat([one.outcomes for one in logs]))
        known = {kind: np.where(at < cutoff, at, np.inf) for kind, at in arrived.items()}
        curves = {kind: by_segment(age, (at - shown) / 3.6e9, slow) for kind, at in known.items()}
        is_open = age < 8 * 24
        true = np.concatenate([np.take_along_axis(one.truth.target, one.order, axis=1).ravel() for one in logs])
        seen = p.theta[rows["position"].to_numpy() - 1]
        noise = np.random.default_rng(seed).normal(0.0, 0.5, is_open.sum())
        early, matured = (came(one, is_open) for one in (known, arrived))
        completeness = {kind: one[is_open] for kind, one in curves.items()}
        ids = rows.select("request_id", "user_id").filter(pl.Series(is_open))
        request, user = (np.unique(ids[name].to_numpy(), return_inverse=True)[1] for name in ids.columns)

        def judge(outcome: dict[str, Floats]) -> Judged:
            gain = sum(GAINS[kind] * one for kind, one in outcome.items())
            return Judged(request, user, request * 0, np.asarray(gain), outcome["purchase"],
                          np.log(true[is_open]) + noise, (true * seen)[is_open], 1.0 / seen[is_open])  # fmt: skip

        corrected = sum(GAINS[kind] * one / np.maximum(completeness[kind], 1e-9) for kind, one in early.items())
        return cls(judge(early), judge(matured), np.asarray(corrected), completeness)

    def read(self, p: float = 1.0) -> dict[str, Any]:
        rows = self.early.with_scores(self.early.score, np.minimum(p * self.early.probability, 1.0))  # type: ignore[operator]
        ndcg = ranking("ndcg@5", rows, self.corrected, np.min(list(self.completeness.values()), axis=0), **DRAW)
        return calibration(rows, self.completeness["purchase"], **DRAW) | {"ndcg@5": ndcg}


def came(arrived: dict[str, Floats], chosen: NDArray[np.bool_]) -> dict[str, Floats]:
    return {kind: np.isfinite(at)[chosen].astype(np.float64) for kind, at in arrived.items()}


def first_arrivals(rows: pl.DataFrame, outcomes: pl.DataFrame) -> dict[str, Floats]:
    """When each row's outcome of a kind within the window arrived, infinite where none ever does."""
    numbered = rows.select("request_id", "item_id", "shown_at").with_row_index("row")
    placed = outcomes.join(numbered, on=["request_id", "item_id"])
    counted = placed.filter(pl.col("happened_at") < pl.col("shown_at") + pl.duration(days=7))
    found = {}
    for kind in GAINS:
        found[kind] = np.full(len(rows), np.inf)
        chosen = counted.filter(pl.col("kind") == kind)
        found[kind][chosen["row"].to_numpy()] = chosen["arrived_at"].to_physical().to_numpy()
    return found


def by_segment(age: Floats, after: Floats, slow: NDArray[np.bool_]) -> Floats:
    found = np.zeros(len(age))
    for one in (slow, ~slow):
        known = np.where(np.isfinite(after[one]), np.maximum(after[one], 0.0), np.nan)
        found[one] = fit_delay_curve(age[one], known, horizon_hours=8 * 24.0).at(age[one])
    return found


@functools.cache
def worlds() -> list[Opened]:
    return [Opened.of(seed) for seed in range(10)]


@pytest.mark.parametrize("name", ["calibration_ratio", "normalised_entropy", "ndcg@5"])
def test_on_average_the_early_read_is_within_its_interval_of_the_matured_value(name: str) -> None:
    early = [one.read()[name] for one in worlds()]
    matured = [metric_replicates(name, one.matured, **DRAW).value[0] for one in worlds()]  # type: ignore[union-attr]
    off = np.mean([one["value"] for one in early]) - np.mean(matured)
    assert abs(off) < np.mean([(one["high"] - one["low"]) / 2 for one in early])


def test_calibration_is_unbiased_at_once_where_the_plain_ratio_says_too_little_was_bought() -> None:
    off = [one.read()["observed_to_expected"]["value"] - 1.0 for one in worlds()]
    assert abs(np.mean(off)) < 3.0 * np.std(off, ddof=1) / math.sqrt(len(off))
    plain = [one.early.target.sum() / one.early.probability.sum() for one in worlds()]  # type: ignore[union-attr]
    assert np.mean(plain) < 0.8


@pytest.mark.parametrize("factor", [0.7, 1.3])
def test_a_model_that_promises_too_much_or_too_little_is_seen_before_a_label_has_closed(factor: float) -> None:
    found = [one.read(factor)["calibration_ratio"] for one in worlds()]
    assert np.mean([one["value"] for one in found]) == pytest.approx(factor, rel=0.06)
    assert np.mean([(one["low"] > 1.0) if factor > 1.0 else (one["high"] < 1.0) for one in found]) > 0.9
