"""Logs for the loop's watch, all that it reads: hand-made, drawn, and simulated under a policy that learns or feeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from core.core_builders import FIRST, GONE, UTC_US, at, published

from sameworld.sources.closed_loop import CandidateFeatures, World, WorldParameters
from sameworld.spec import Spec
from sameworld.store.artifacts import Artifact, Store
from sameworld.store.times import time_text
from tasks import watch_loop

MATURES_AFTER = timedelta(hours=36)
CANDIDATES = pl.List(pl.Struct({"item_id": pl.String, "score": pl.Float64}))
REQUESTS = {
    **dict.fromkeys(("request_id", "user_id", "branch"), pl.String),
    **dict.fromkeys(("shown_at", "arrived_at"), UTC_US),
    **dict.fromkeys(("tau", "epsilon"), pl.Float64),
    "candidates": CANDIDATES,
}
# A world whose policy collapses: many candidates, items that come and go, hardly a hint of their quality.
COLLAPSING: dict[str, Any] = {
    **{"requests_per_day": 120, "users": 300, "items": 300, "candidates": 60, "slots": 10, "churn": 0.04},
    **{"quality_trend": 0.06, "content_proxy": 0.15, "candidates_share": 0.0, "propensity_share": 0.0},
    **{"outage_shared": 0.0, "outage_item": 0.0, "outage_user": 0.0},
}
Row = dict[str, Any]
Score = Callable[[CandidateFeatures], np.ndarray[Any, np.dtype[np.float64]]]


@dataclass(frozen=True)
class Day:
    """What was shown on a day: the requests as logged, and the impressions with what each gained."""

    requests: pl.DataFrame
    shown: pl.DataFrame


def drawn(
    seed: int, days: int = 9, per_day: int = 30, *, first: int = 0, known: Sequence[str] = tuple(REQUESTS)
) -> list[Day]:
    """Draw a log whose requests each lack something at random; of the columns only those ``known`` are logged."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(first, first + days):
        requests, shown = [], []
        for place in range(per_day):
            row = _request(rng, f"r{number}-{place:03}", at(days=number, seconds=rng.uniform(0, 80_000)))
            requests.append(row)
            picks = rng.choice(9, rng.integers(1, 6), replace=False)
            shown += [
                {**{name: row[name] for name in ("request_id", "user_id", "shown_at")}, "item_id": f"i{item}",
                 "position": rank, "gain": float(rng.choice([0.0, 0.0, 1.0, 5.0]))}
                for rank, item in enumerate(picks.tolist(), start=1)
            ]  # fmt: skip
        logged = pl.DataFrame(requests, schema=REQUESTS).select(*known)
        found.append(Day(logged, pl.DataFrame(shown, schema_overrides={"shown_at": UTC_US, "user_id": pl.String})))
    return found


def _request(rng: np.random.Generator, name: str, shown_at: Any) -> Row:
    listed = rng.choice(12, rng.integers(1, 8), replace=False)
    return {
        "request_id": name,
        "user_id": rng.choice(["u1", "u2", "u3", "u4", None]),
        "branch": rng.choice(["model", "model", "shuffle", None]),
        "shown_at": shown_at,
        "arrived_at": shown_at + timedelta(seconds=60),
        "tau": rng.choice([None, 0.0, 0.3, 1.0]),
        "epsilon": rng.choice([None, 0.0, 0.1, 1.0]),
        "candidates": [{"item_id": f"i{item}", "score": float(rng.normal())} for item in listed],
    }


def simulated(score: Score, *, seed: int, days: int, epsilon: float) -> list[Day]:
    """Simulate the collapsing world under a policy, from the first day on."""
    world = World(WorldParameters(seed=seed, days=days, epsilon=epsilon, **COLLAPSING))
    logs = [world.simulate_day(number, score) for number in range(days)]
    names = ("request_id", "item_id", "user_id", "shown_at", "position")
    return [Day(one.requests.select(*REQUESTS), one.impressions.select(names).with_columns(gain=pl.lit(0.0)))
            for one in logs]  # fmt: skip


def feeding(features: CandidateFeatures) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Score by cumulative clicks: what was shown was clicked, what was clicked is shown."""
    return np.asarray(0.4 * features.numbers["x_content"] + 0.02 * features.numbers["x_item_clicks"])


def exploring(features: CandidateFeatures) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Score by what the policy's own log cannot change."""
    return np.asarray(0.4 * features.numbers["x_content"] + 0.5 * features.numbers["x_affinity"])


# --- what the step reads


def watched(root: Path, days: Iterable[Day], *, until: int = 0) -> tuple[Store, Artifact]:
    """Run the step on the log as of the end of its last day, or of the day ``until``."""
    store, days = Store(str(root)), list(days)
    count = until or len(days)
    spec = Spec.parse({"label": {"gains": {"click": 1.0}, "target": "click"}, "evaluate": {"replicates": 200}})
    uri = watch_loop.run(store=store, spec=spec, cutoff=time_text(at(days=count)), log=log_of(store, days[:count]).uri,
                         labels=labels_of(store, days[:count]).uri)  # fmt: skip
    return store, store.open(uri)


def log_of(store: Store, days: Sequence[Day]) -> Artifact:
    """Publish the log: what was shown on a day arrived on it."""
    entries = []
    for number, day in enumerate(days):
        name = (FIRST + timedelta(days=number)).isoformat()
        impressions = day.shown.select("request_id", "item_id", "shown_at", "position", arrived_at="shown_at")
        tables = {"impressions": impressions, **({"requests": day.requests} if day.requests.width else {})}
        entries.append({"day": name, "fingerprint": published(store, "ingest", {"day": name}, tables).fingerprint})
    record = {"days": entries, "lag_used_hours": {}}
    return published(store, "resolve", record, {"gone": pl.DataFrame(schema=GONE)})


def labels_of(store: Store, days: Sequence[Day]) -> Artifact:
    """Publish the labels, a part a day."""
    parts = []
    for number, day in enumerate(days):
        name = (FIRST + timedelta(days=number)).isoformat()
        frame = day.shown.with_columns(
            closes_at=pl.col("shown_at") + MATURES_AFTER, request=pl.col("request_id").rle_id() + 1
        )
        parts.append(
            {"day": name, "fingerprint": published(store, "label", {"day": name}, {"labels": frame}).fingerprint}
        )
    record = {"parts": parts, "matures_after_hours": MATURES_AFTER / timedelta(hours=1)}
    return published(store, "label", record, {})
