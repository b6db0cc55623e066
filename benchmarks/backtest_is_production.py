"""Is the back-test's promise what production then shows? Closed loops with landing lags of 0, 2 and 3 days.

A simulated shop runs under a hand-made policy. At an earlier cutoff C0 the product ships a bundle of all that is known,
and from six hours later on that bundle serves every request, with exploration: what is shown, and what items' click
rates say, is then the bundle's own doing. Later, at C, the product runs on the drop again. Its back-test judges that
very bundle on the requests shown since whose labels have closed. Production is known from the world itself: every
request that was served in those days, with the features that were served, and with every purchase that happened within
its window, whenever it landed. Outcomes land after gamma lags of these means (after minutes for 0).
Claims, by lag: over the worlds, the mean of back-test minus production has 0 in its 95 % interval, or is below 0.001;
and production lies in the back-test's own interval in as many worlds as 95 % allows (a binomial band that 1 honest
count in 2000 leaves).
Beside it stands the naive evaluation: the bundle is scored at its own cutoff on its own last three days, with labels as
they were known then. Claims: its normalised entropy is wrong (0 lies outside the interval of the mean difference,
over the worlds in which any purchase was known; at the small size it is further off than the back-test), and so is its
calibration ratio. Ratios are predicted over observed purchases of all worlds together.
The leak meter of the same run is held to another naive evaluation, by event time: the same bundle on the meter's own
rows, with every purchase that had happened by its moment, whenever it landed, from the world itself. Claims: what had
arrived plus what the meter says is that evaluation, as above over the worlds, and within its interval in as many as
95 % allows. Lag 0 is minutes, not nothing: in some worlds an outcome of the last minutes before the moment arrived just
after it. There the inflation is below 0.01; in the worlds in which nothing was late it is exactly 0.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy.stats import binom, t

from benchmarks._leak_claims import leak_claims
from benchmarks.closed_loop_backtest import scored
from benchmarks.evidence import Claim, finding
from sameworld.models.bundle import Bundle, load_bundle
from sameworld.models.judging import estimate_record, metric_replicates
from sameworld.models.scored_rows import judged_rows
from sameworld.sources.closed_loop import CandidateFeatures, DayLog, World, WorldParameters, heuristic
from sameworld.sources.closed_loop_drop import ORDERS, tables
from sameworld.sources.landing import land
from sameworld.spec import Spec
from sameworld.store.artifacts import Store, artifact_at
from sameworld.store.times import parse_time, time_text
from tasks.flow import perform
from tasks.run import Call, planned

FIRST_DAY, WINDOW_DAYS, JUDGED_DAYS, DEPLOY_LAG = date(2026, 3, 2), 2, 3, timedelta(hours=6)
NE = "normalised_entropy"
METRICS = (NE, "calibration_ratio")
DRAW = {"seed": 5, "replicates": 300}
WORLD: dict[str, Any] = {
    "users": 150, "items": 80, "candidates": 10, "slots": 5, "candidates_share": 0.0, "propensity_share": 0.0,
    "first_day": FIRST_DAY.isoformat(), "window_days": float(WINDOW_DAYS),
    "fast_delay_days": 0.3, "slow_delay_days": 1.2, "purchase_intercept": -0.6,
}  # fmt: skip


@dataclass(frozen=True)
class Size:
    """How large: requests a day, the worlds' seeds, and the landing lags in days."""

    requests: int
    seeds: tuple[int, ...]
    lags: tuple[float, ...]


SIZES = {
    "small": Size(requests=120, seeds=(1, 2), lags=(2.0,)),
    "full": Size(requests=150, seeds=tuple(range(1, 21)), lags=(0.0, 2.0, 3.0)),
}
# Days of log before C0: the window, the landing lag's q99, and days whose labels have closed by then.
MOST_DAYS = 45
SHIPPED_ON = {0.0: 10, 2.0: 15, 3.0: 16}


def run(small: bool) -> dict[str, Any]:
    """Run every lag's worlds."""
    size = SIZES["small" if small else "full"]
    figures = {f"{lag:g} days": [one_world(seed, lag, size) for seed in size.seeds] for lag in size.lags}
    claims = [claim for lag, worlds in figures.items() for claim in _claims(lag, worlds, small=small)]
    return finding(seed=size.seeds[0], claims=claims, figures=figures)


class Shop:
    """A world whose drop grows day by day, and its days as they were."""

    def __init__(self, drop: Path, parameters: WorldParameters) -> None:
        self.drop, self.world, self.first_day = drop, World(parameters), parameters.first_day
        self.days: list[DayLog] = []
        self._waiting: dict[str, pl.DataFrame] = {}

    def serve(self, score: Any, version: str) -> None:
        """Serve a day and land what arrives on it."""
        day = self.first_day + timedelta(days=len(self.days))
        self.days.append(self.world.simulate_day(len(self.days), score, version=version))
        for name, frame in tables(self.days[-1]).items():
            old = self._waiting.get(name)
            self._waiting[name] = frame if old is None else pl.concat([old, frame])
        today = {name: pl.col(ORDERS[name][0]).dt.date() == day for name in self._waiting}
        land({name: frame.filter(today[name]).sort(ORDERS[name]) for name, frame in self._waiting.items()},
             self.drop, day)  # fmt: skip
        self._waiting = {name: frame.filter(~today[name]) for name, frame in self._waiting.items()}

    def served(
        self, since: datetime, before: datetime, known_by: datetime | None = None, *, by_event: bool = False
    ) -> pl.DataFrame:
        """Return what was shown in between, as served, with the purchases known by then; by default all there are.

        by_event : what was shown and had landed by the end, with the purchases that had happened by then
        """
        shown = pl.concat([day.impressions for day in self.days]).filter(
            pl.col("shown_at").is_between(since, before, closed="left")
        )
        came = pl.concat([day.outcomes for day in self.days]).filter(pl.col("kind") == "purchase")
        came = came if known_by is None else came.filter(pl.col("arrived_at") < known_by)
        if by_event:
            shown, came = shown.filter(pl.col("arrived_at") < before), came.filter(pl.col("happened_at") < before)
        rows = shown.join(came.select("request_id", "item_id", "happened_at"), on=["request_id", "item_id"], how="left")
        inside = (pl.col("happened_at") - pl.col("shown_at") < timedelta(days=WINDOW_DAYS)).fill_null(value=False)
        rows = rows.with_columns(target=inside.cast(pl.Int8), gain=inside.cast(pl.Float64))
        return rows.sort("shown_at", "request_id", "position")


def one_world(seed: int, lag_days: float, size: Size) -> dict[str, Any]:
    """Let a world go on under a bundle, and return what was promised of it and what happened.

    The landing lag is measured anew every day; where it shrinks overnight no run may look back at a cutoff, and the
    world is begun again with the next one.
    """
    lag_hours = 24.0 * lag_days or 0.1
    values = {**WORLD, "seed": seed, "days": MOST_DAYS, "requests_per_day": size.requests}
    parameters = WorldParameters.parse({**values, "purchase_lag_hours": lag_hours, "click_lag_hours": lag_hours})
    for shipped_on in range(SHIPPED_ON[lag_days], MOST_DAYS):
        found = _shipped_on(shipped_on, parameters)
        if found:
            return found
    raise AssertionError("no run looks back at any cutoff")


def _shipped_on(days: int, parameters: WorldParameters) -> dict[str, Any] | None:
    with tempfile.TemporaryDirectory() as folder:
        shop, store = Shop(Path(folder) / "drop", parameters), Store(str(Path(folder) / "root"))
        spec = _spec(shop.drop)
        for _ in range(days):
            shop.serve(heuristic, "by hand")
        cutoff = _midnight_after(shop)
        bundle = load_bundle(artifact_at(_step(store, spec, cutoff, "calibrate")["calibrate"]))
        naive = _found(shop.served(cutoff - timedelta(days=JUDGED_DAYS), cutoff, known_by=cutoff), bundle)
        later = _production(store, spec, shop, bundle, cutoff)
        return {"naive": naive, **later} if later else None


def _spec(drop: Path) -> Spec:
    label = {
        "gains": {"click": 1.0, "purchase": 5.0}, "target": "purchase", "window_days": float(WINDOW_DAYS),
        "segments": ["x_segment"],
    }  # fmt: skip
    return Spec.parse(
        {
            "source": {"kind": "drop", "uri": str(drop)},
            "label": label,
            "train": {"max_rounds": 60},
            "engine": {"threads": 1},
            "evaluate": {"replicates": DRAW["replicates"], "at": [5]},
            "backtest": {"days": JUDGED_DAYS, "deploy_lag_hours": DEPLOY_LAG / timedelta(hours=1)},
        }
    )


def _midnight_after(shop: Shop) -> datetime:
    return datetime.combine(shop.first_day + timedelta(days=len(shop.days)), time(), tzinfo=UTC)


def _step(store: Store, spec: Spec, cutoff: datetime, only: str) -> dict[str, Any]:
    """Run the flow of a cutoff up to a step, without gates and report, and return where each step wrote."""
    handles: dict[str, Any] = {}
    for call in planned(time_text(cutoff)).only(only):
        if call.name.startswith("validate."):
            continue
        given = {name: handles[value.key] if isinstance(value, Call) else value for name, value in call.inputs.items()}
        handles[call.key] = perform(call.name, store=store, spec=spec, **given)
    return {name: handle["uri"] for name, handle in handles.items()}


def _production(store: Store, spec: Spec, shop: Shop, bundle: Bundle, cutoff: datetime) -> dict[str, Any] | None:
    """Serve with the bundle until a run looks back at its cutoff; return the back-test and what really happened."""
    policy, back = _deployed(bundle, cutoff + DEPLOY_LAG), cutoff - timedelta(days=WINDOW_DAYS + JUDGED_DAYS)
    while back < cutoff:
        for _ in range((cutoff - back).days):
            shop.serve(policy, bundle.version)
        period = _looks_back(store, spec, shop)
        back = parse_time(period["cutoff"])
    if back > cutoff:
        return None
    record = artifact_at(_step(store, spec, _midnight_after(shop), "evaluate")["evaluate"]).record
    if record["bundle"] != bundle.content_hash:
        raise AssertionError("the bundle that was judged is not the one that served")
    happened = _found(shop.served(parse_time(period["from"]), parse_time(period["to"])), bundle)
    return {"backtest": _promised(record), "production": happened, "days": len(shop.days)} | _leak(
        artifact_at(_step(store, spec, _midnight_after(shop), "measure_leak")["measure_leak"]).record, shop, bundle
    )


def _leak(record: dict[str, Any], shop: Shop, bundle: Bundle) -> dict[str, Any]:
    """Return what the leak meter says, beside the naive evaluation of its rows by event time."""
    rows = shop.served(parse_time(record["from"]), parse_time(record["to"]), by_event=True)
    if len(rows) != record["rows"]:
        raise AssertionError(f"the meter judged {record['rows']} rows, the world has {len(rows)}")
    return {"leak": record, "by_event": _found(rows, bundle)[NE]}


def _promised(record: dict[str, Any]) -> dict[str, Any]:
    metrics = {name: record["metrics"][name] for name in METRICS}
    predicted = metrics["calibration_ratio"]["value"] * record["positives"]
    return {**metrics, "rows": record["rows"], "positives": record["positives"], "predicted": predicted}


def _looks_back(store: Store, spec: Spec, shop: Shop) -> dict[str, Any]:
    return artifact_at(_step(store, spec, _midnight_after(shop), "look_back")["look_back"]).record


def _deployed(bundle: Bundle, since: datetime) -> Any:
    """Score as the policy by hand did until the bundle was deployed."""

    def score(features: CandidateFeatures) -> Any:
        old = features.traffic.shown_at < int(since.timestamp()) * 1_000_000
        return np.where(old[:, None], heuristic(features), scored(features, bundle))

    return score


def _found(rows: pl.DataFrame, bundle: Bundle) -> dict[str, Any]:
    judged = judged_rows(rows, bundle)
    metrics = {name: estimate_record(metric_replicates(name, judged, **DRAW)) for name in METRICS}
    predicted = float(np.sum(0.0 if judged.probability is None else judged.probability))
    return {**metrics, "rows": len(rows), "positives": int(judged.target.sum()), "predicted": predicted}


def _mean(values: list[float]) -> tuple[float, float]:
    """Return the mean and the half width of its 95 % interval (Student's t over worlds)."""
    spread = float(np.std(values, ddof=1)) / np.sqrt(len(values))
    return float(np.mean(values)), float(t.ppf(0.975, len(values) - 1) * spread)


def _claims(lag: str, worlds: list[dict[str, Any]], *, small: bool) -> list[Claim]:
    of = f"lag {lag}, {len(worlds)} worlds"
    off, naive = (_differences(worlds, who) for who in ("backtest", "naive"))
    (bias, reach), (wrong, about) = _mean(off), _mean(naive)
    inside, least = sum(map(_inside, worlds)), max(int(binom.ppf(0.0005, len(worlds), 0.95)), 1)
    truth = f"{np.mean([one['production'][NE]['value'] for one in worlds]):.4f} in production"
    told = f"{wrong:+.4f} ± {about:.4f}, {len(naive)} worlds have a number"
    return [
        Claim(f"{of}: NE of the back-test, mean difference to production", f"{bias:+.4f} ± {reach:.4f}", truth,
              abs(bias) <= max(reach, 0.001)),
        Claim(f"{of}: worlds in which production lies in the back-test's interval", str(inside), f"at least {least}",
              inside >= least),
        Claim(f"{of}: NE of the naive evaluation, mean difference to production", told, "wrong",
              abs(wrong) > (abs(bias) if small else about) or len(naive) < len(worlds) / 2),
        *_calibration(of, worlds),
        *leak_claims(of, worlds, at_once=lag.startswith("0 ")),
    ]  # fmt: skip


def _differences(worlds: list[dict[str, Any]], who: str) -> list[float]:
    return [one[who][NE]["value"] - one["production"][NE]["value"] for one in worlds if "value" in one[who][NE]]


def _inside(world: dict[str, Any]) -> bool:
    promised = world["backtest"][NE]
    return bool(promised["low"] <= world["production"][NE]["value"] <= promised["high"])


def _calibration(of: str, worlds: list[dict[str, Any]]) -> list[Claim]:
    sums = {
        who: np.sum([[one[who]["predicted"], one[who]["positives"]] for one in worlds], axis=0)
        for who in ("backtest", "naive", "production")
    }
    ratio = {who: float(predicted / max(positives, 1)) for who, (predicted, positives) in sums.items()}
    truth = f"{ratio['production']:.3f} in production"
    return [
        Claim(f"{of}: calibration ratio of the back-test", f"{ratio['backtest']:.3f}", truth,
              abs(ratio["backtest"] - ratio["production"]) <= 0.02),
        Claim(f"{of}: calibration ratio of the naive evaluation", f"{ratio['naive']:.3f}", "wrong",
              abs(ratio["naive"] - ratio["production"]) > 0.1),
    ]  # fmt: skip
