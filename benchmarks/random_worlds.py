"""How much of the best possible gain does the product's order bring, the day after, in worlds drawn at random?

Each world is a closed loop of its own: candidates, slots, examination, delays, landing lags, outages, churn, drift,
how much content tells, gains, the target and the logging policy's exploration are drawn from the ranges below. A
hand-made policy serves it for some weeks, and its log is written as a drop. At the end of the last day the product
makes a bundle of all that is known. The next day's candidates, shown or not, are then ordered greedily by
- the product;
- a LightGBM lambdarank trained on everything known at the cutoff: same served features, gains as known, its rounds
  from the last two days, then refitted on all;
- a LightGBM regression on the true expected gain of the same rows with the served features, which nobody could train;
- the logging policy's scores without its exploration; and the item's popularity.

An order's value is the expected gain of its top slots under true relevance and examination, as a share of the oracle's.
Claims: the product beats lambdarank in 9 of 10 worlds; on average it closes four fifths of the gap between lambdarank
and the model that knows the truth; the sum of its probabilities, over all candidates, is within 5 % of the true sum in
8 of 10 worlds. At the small size, one world: it beats lambdarank, and is within half. The truth is never in the drop.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks._plain_lightgbm import lambdarank, regression_on_truth
from benchmarks.evidence import Claim, finding
from sameworld.models.bundle import Bundle, load_bundle
from sameworld.models.features import Feature, feature_matrix
from sameworld.models.rank import rank
from sameworld.sources.closed_loop import DayLog, World, WorldParameters
from sameworld.sources.closed_loop_drop import write_drop
from sameworld.spec import Spec
from sameworld.store.artifacts import Store, artifact_at
from sameworld.store.parts import examples_of
from sameworld.store.times import day_end, time_text
from tasks.flow import perform
from tasks.run import Call, planned

Floats = NDArray[np.float64]
SMALL_SEED, FULL_SEEDS = 101, tuple(range(101, 113))
# Of most parameters, their range; whole numbers stay whole, both ends included.
RANGES: dict[str, tuple[Any, Any]] = {
    "days": (17, 25), "requests_per_day": (350, 900), "users": (300, 2500), "items": (120, 500),
    "examination_exponent": (0.3, 1.4), "churn": (0.0, 0.06), "quality_trend": (0.0, 0.05),
    "quality_step": (0.02, 0.2), "content_proxy": (0.1, 0.7), "click_intercept": (-2.4, -0.8),
    "purchase_intercept": (-2.4, -0.6), "purchase_gain": (1.0, 8.0), "window_days": (2, 7),
    "fast_delay_days": (0.2, 1.5), "slow_delay_days": (1.5, 6.0), "slow_share": (0.2, 0.8),
    "click_lag_hours": (0.1, 6.0), "purchase_lag_hours": (1.0, 48.0), "outage_shared": (0.0, 0.25),
    "outage_user": (0.0, 0.2), "outage_item": (0.0, 0.2), "tau": (0.1, 0.6), "epsilon": (0.01, 0.1),
    "profile_refresh": (0.05, 0.5),
}  # fmt: skip
SMALL = {"days": 12, "requests_per_day": 300, "users": 300, "items": 120, "candidates": 12, "slots": 5}


@dataclass(frozen=True)
class Drawn:
    """A world to be: its parameters, and the outcome kind whose probability is wanted."""

    parameters: WorldParameters
    target: str


def drawn(seed: int, **fixed: Any) -> Drawn:
    """Draw a world; ``fixed`` parameters are taken as they are."""
    rng = np.random.default_rng([seed, 0])
    values: dict[str, Any] = {"seed": seed, "candidates_share": 0.0, "propensity_share": 0.0}
    for name, (low, high) in RANGES.items():
        whole = isinstance(getattr(WorldParameters, name), int)
        values[name] = int(rng.integers(low, high + 1)) if whole else round(float(rng.uniform(low, high)), 3)
    values["candidates"] = int(rng.choice([12, 20, 30, 50]))
    values["slots"] = int(rng.integers(4, min(12, values["candidates"] // 2) + 1))
    target = str(rng.choice(["click", "purchase"]))
    return Drawn(WorldParameters(**(values | fixed)), target)


def run(small: bool) -> dict[str, Any]:
    """Run one small world, or a dozen."""
    worlds = [drawn(SMALL_SEED, **SMALL)] if small else [drawn(seed) for seed in FULL_SEEDS]
    figures = {f"world {world.parameters.seed}": one_world(world) for world in worlds}
    found = list(figures.values())
    claims = [claim for name, one in figures.items() for claim in _told(name, one)]
    return finding(seed=worlds[0].parameters.seed, claims=[*_claims(found, small=small), *claims], figures=figures)


def one_world(world: Drawn) -> dict[str, Any]:
    """Return a world's parameters, each order's share of the oracle's reward, and the calibration."""
    with tempfile.TemporaryDirectory() as folder:
        spec, written = _spec(Path(folder) / "drop", world), world.parameters
        write_drop(Path(folder) / "drop", written)
        store = Store(str(Path(folder) / "root"))
        steps: dict[str, Any] = {}
        cutoff = day_end(written.first_day + timedelta(days=written.days - 1))
        for call in planned(time_text(cutoff)).only("calibrate"):
            if not call.name.startswith("validate."):
                given = {n: steps[v.key] if isinstance(v, Call) else v for n, v in call.inputs.items()}
                steps[call.key] = perform(call.name, store=store, spec=spec, **given)
        bundle = load_bundle(artifact_at(steps["calibrate"]["uri"]))
        rows = examples_of(artifact_at(steps["assemble"]["uri"]), store).collect()
    served = tuple(feature for feature in bundle.features if feature.name in rows.columns)
    return {"parameters": _words(world), **_the_day_after(world, bundle, rows, served)}


def _spec(drop: Path, world: Drawn) -> Spec:
    p = world.parameters
    label = {
        "gains": {"click": p.click_gain, "purchase": p.purchase_gain}, "target": world.target,
        "window_days": p.window_days, "segments": ["x_segment"],
    }  # fmt: skip
    return Spec.parse({"source": {"kind": "drop", "uri": str(drop)}, "label": label})


def _words(world: Drawn) -> dict[str, Any]:
    p = world.parameters
    names = [*RANGES, "seed", "candidates", "slots"]
    return {**{name: getattr(p, name) for name in names}, "target": world.target}


def _the_day_after(world: Drawn, bundle: Bundle, rows: pl.DataFrame, features: tuple[Feature, ...]) -> dict[str, Any]:
    """Simulate the same days and one more, and order its candidates in every way."""
    p = world.parameters
    whole = World(WorldParameters(**{**vars(p), "days": p.days + 1}))
    for day in range(p.days):
        whole.simulate_day(day)
    after = whole.simulate_day(p.days)
    truth = whole.true_relevance(rows.select("request_id", "item_id"))
    frame = after.features.frame()
    ranked = rank(frame, bundle)
    scores = {
        "product": ranked["score"].to_numpy(),
        "lambdarank": lambdarank(rows, features)(feature_matrix(frame, features)),
        "truth": _of_truth(rows, features, truth)(feature_matrix(frame, features)),
        "logging": after.scores.ravel(),
        "popular": bundle.items.of(frame["item_id"].to_list()),
    }
    shares = {name: _share(after, score) for name, score in scores.items()}
    true = after.truth.click if world.target == "click" else after.truth.target
    return {"shares": shares, "calibration": _calibration(after, ranked["probability"].to_numpy(), true)}


def _of_truth(
    rows: pl.DataFrame, features: tuple[Feature, ...], truth: pl.DataFrame
) -> Callable[[NDArray[np.float32]], Floats]:
    return regression_on_truth(feature_matrix(rows, features), truth["true_gain"].to_numpy(), features)


def _share(day: DayLog, score: Floats) -> float:
    return day.truth.reward_share(np.argsort(-score.reshape(day.features.shape), axis=1, kind="stable"))


def _calibration(day: DayLog, probability: Floats, true: Floats) -> dict[str, float]:
    """Return sum of probabilities over sum of truth: over all candidates, and over those that were shown."""
    told = probability.reshape(day.features.shape)
    shown = [np.take_along_axis(values, day.order, axis=1).sum() for values in (told, true)]
    return {"all": float(told.sum() / true.sum()), "shown": float(shown[0] / shown[1])}


def _claims(found: list[dict[str, Any]], *, small: bool) -> list[Claim]:
    shares = [one["shares"] for one in found]
    wins = sum(one["product"] > one["lambdarank"] for one in shares)
    close = 0.5 if small else 0.05
    near = sum(abs(one["calibration"]["all"] - 1.0) <= close for one in found)
    mean = {name: float(np.mean([one[name] for one in shares])) for name in shares[0]}
    need_wins, need_near = int(np.ceil(0.9 * len(found))), int(np.ceil(0.8 * len(found)))
    claims = [
        Claim(f"{len(found)} worlds: the product beats lambdarank in", f"{wins}", f"at least {need_wins}",
              wins >= need_wins),
        Claim(f"{len(found)} worlds: probabilities within {close:.0%} of truth in", f"{near}", f"at least {need_near}",
              near >= need_near),
    ]  # fmt: skip
    if small:
        return claims
    gaps = [(one["product"] - one["lambdarank"]) / (one["truth"] - one["lambdarank"]) for one in shares]
    closed = (mean["product"] - mean["lambdarank"]) / (mean["truth"] - mean["lambdarank"])
    words = "share of the gap between lambdarank and the model of the truth that is closed"
    told = f"{closed:.2f} of the means, {np.mean(gaps):.2f} mean of the worlds"
    return [*claims, Claim(f"{len(found)} worlds: {words}", told, "at least 0.80", closed >= 0.8)]


def _told(name: str, one: dict[str, Any]) -> list[Claim]:
    """Return a world's line: nothing is claimed of it but that its product is above the logging policy's order."""
    shares, p, ratio = one["shares"], one["parameters"], one["calibration"]
    what = (
        f"{name}: {p['candidates']} candidates, {p['slots']} slots, {p['items']} items, churn {p['churn']:g}, "
        f"target {p['target']}: share of the best gain"
    )
    others = ", ".join(f"{who} {shares[who]:.3f}" for who in ("lambdarank", "truth", "logging", "popular"))
    told = f"{shares['product']:.3f}; probabilities {ratio['all']:.3f} of truth, of the shown {ratio['shown']:.3f}"
    return [Claim(what, told, others, shares["product"] > shares["logging"])]
