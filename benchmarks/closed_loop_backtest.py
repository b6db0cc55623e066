"""Does the back-test say what production then shows? One day of the product in a world whose truth is known.

A simulated shop logs what a hand-made policy shows, with clicks, purchases that come days later, and feature services
that fail. The product runs its last day on that log. Then the world goes on for a day under the bundle that was
shipped, with the same exploration. Two questions: which share of the best possible gain do the orders bring, the
bundle's and the hand-made policy's, each without exploration and as served; and is the back-test's normalised entropy
what that day shows once all of its outcomes are in? The truth is never in the drop. The target is a click at small
size, and a purchase within 7 days at full size. The back-test's bundle and the shipped one are of one recipe, but days
apart, and the world drifts: the claim is that the two intervals meet.
"""

from __future__ import annotations

import copy
import tempfile
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.evidence import Claim, finding, interval
from sameworld.models.bundle import Bundle, load_bundle
from sameworld.models.judging import Judged, estimate_record, metric_replicates
from sameworld.models.rank import rank, scores
from sameworld.models.scored_rows import user_codes
from sameworld.sources.closed_loop import CandidateFeatures, DayLog, World, WorldParameters, heuristic
from sameworld.spec import Spec
from sameworld.store.artifacts import Store, artifact_at
from tasks.run import run_day

Floats = NDArray[np.float64]
FIRST_DAY = date(2026, 3, 1)


@dataclass(frozen=True)
class Size:
    """A world's sizes, what counts as an outcome, trees at most, and the seeds of the worlds."""

    world: dict[str, int]
    label: dict[str, Any]
    rounds: int
    seeds: tuple[int, ...]


DRAW = {"seed": 5, "replicates": 500}
GAINS = {"click": 1.0, "purchase": 5.0}
SIZES = {
    "small": Size(
        world={"days": 12, "requests_per_day": 250, "users": 400, "items": 120, "candidates": 12, "slots": 6},
        label={"window_days": 2.0, "gains": GAINS, "target": "click"},
        rounds=40,
        seeds=(11,),
    ),
    "full": Size(
        world={"days": 26, "requests_per_day": 1500, "users": 2000, "items": 300, "candidates": 20, "slots": 10},
        label={"window_days": 7.0, "gains": GAINS, "target": "purchase"},
        rounds=400,
        seeds=(11, 12, 13),
    ),
}


def run(small: bool) -> dict[str, Any]:
    """Run one small world, or three of full size."""
    size = SIZES["small" if small else "full"]
    figures = {f"seed {seed}": one_world(seed, size) for seed in size.seeds}
    claims = [claim for seed, found in figures.items() for claim in _claims(f"world of {seed}", found)]
    return finding(seed=size.seeds[0], claims=claims, figures=figures)


def one_world(seed: int, size: Size) -> dict[str, Any]:
    """Return what the product promised in a world, and what was true the day after."""
    world = {**size.world, "days": size.world["days"] + 1, "seed": seed, "first_day": FIRST_DAY.isoformat()}
    source = {"kind": "closed_loop", "world": world}
    spec = Spec.parse({"label": size.label, "source": source, "train": {"max_rounds": size.rounds}})
    with tempfile.TemporaryDirectory() as root:
        last = FIRST_DAY + timedelta(days=size.world["days"] - 1)
        report = run_day(Store(root), spec, last, only="decide").report
        bundle = load_bundle(artifact_at(report["model"]["bundle"]))
    return {**_the_day_after(WorldParameters.parse(world), bundle, spec), **_promised(report)}


def _promised(report: dict[str, Any]) -> dict[str, Any]:
    value = report["policy_value"]
    estimates = {
        name: {end: report["metrics"][name][end] for end in ("value", "low", "high")}
        for name in ("normalised_entropy", "calibration_ratio")
    }
    lift = value.get("lift", {"cannot": value.get("cannot", "")})
    return {"backtest": estimates, "lift": lift, "decision": report["decision"]["outcome"]}


def _the_day_after(parameters: WorldParameters, bundle: Bundle, spec: Spec) -> dict[str, Any]:
    """Let the world go on under the bundle and, in a copy, under the hand-made policy."""
    world, last = World(parameters), parameters.days - 1
    for day in range(last):
        world.simulate_day(day)
    under_policy = copy.deepcopy(world).simulate_day(last)
    under_bundle = world.simulate_day(last, lambda features: scored(features, bundle), version=bundle.version)
    rows = _matured(under_bundle, bundle, spec)
    realised = {
        name: estimate_record(metric_replicates(name, rows, **DRAW))
        for name in ("normalised_entropy", "calibration_ratio")
    }
    return {
        "bundle": _shares(under_bundle, scored(under_bundle.features, bundle)),
        "policy": _shares(under_policy, heuristic(under_policy.features)),
        "production": realised,
    }


def _shares(log: DayLog, score: Floats) -> dict[str, float]:
    greedy = np.argsort(-score, axis=1, kind="stable")
    return {"greedy": log.truth.reward_share(greedy), "served": log.truth.reward_share(log.order)}


def scored(features: CandidateFeatures, bundle: Bundle) -> Floats:
    """Score a day's candidates, standardised to the spread that the exploring policy's tau is meant for."""
    request = np.repeat(np.arange(features.shape[0]), features.shape[1])
    values = scores(features.frame(), request, bundle)[0].reshape(features.shape)
    return np.asarray((values - values.mean(axis=1, keepdims=True)) / values.std())


def _matured(log: DayLog, bundle: Bundle, spec: Spec) -> Judged:
    """Return what the day showed, with the labels that it comes to once all has arrived."""
    keys, label = ["request_id", "item_id"], spec.label
    target = log.outcomes.filter(pl.col("kind") == label.target).select(*keys, "happened_at")
    relevance = rank(log.features.frame(), bundle).select(*keys, "probability")
    rows = log.impressions.join(target, on=keys, how="left", maintain_order="left")
    rows = rows.join(relevance, on=keys, how="left", maintain_order="left")
    inside = pl.col("happened_at") < pl.col("shown_at") + timedelta(days=label.window_days)
    y = rows.select(inside.fill_null(False).cast(pl.Float64).alias("y")).to_series().to_numpy()
    request = rows.select(pl.col("request_id").rle_id()).to_series().cast(pl.Int64).to_numpy()
    seen = bundle.examination_at(rows["position"].cast(pl.Int64).to_numpy())
    probability = rows["probability"].to_numpy() * seen
    items = np.zeros(len(y), np.int64)
    return Judged(request, user_codes(rows), items, y, y, probability, probability, 1.0 / seen)


def _claims(world: str, found: dict[str, Any]) -> list[Claim]:
    bundle, policy = found["bundle"], found["policy"]
    promised, happened = found["backtest"]["normalised_entropy"], found["production"]["normalised_entropy"]
    meet = promised["low"] <= happened["high"] and happened["low"] <= promised["high"]
    shares = [
        Claim(
            f"{world}: share of the best gain, {how}: the bundle against the policy",
            f"{bundle[how]:.3f}",
            f"{policy[how]:.3f}",
            bundle[how] > policy[how],
        )
        for how in ("greedy", "served")
    ]
    words = f"{world}: normalised entropy, back-test against the day served"
    return [*shares, Claim(words, interval(promised), interval(happened), meet)]
