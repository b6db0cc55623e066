"""Closed-loop worlds whose examination is known, as logs that say of each shown row what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sameworld.maths.position import examination_all_pairs
from sameworld.models.logging_policy import logged_policy
from sameworld.models.scored_rows import user_codes
from sameworld.records import Estimate
from sameworld.sources.closed_loop import DayLog, World, WorldParameters

A_DAY = 5_000  # requests
# Three curves of examination: hyperbolic, flat, and broken as by a fold; with policies that explore much and little.
WORLDS: dict[str, dict[str, Any]] = {
    "hyperbolic": {"seed": 11, "tau": 0.3, "candidates": 20, "slots": 8},
    "flat": {"seed": 12, "tau": 0.2, "epsilon": 0.05, "candidates": 24, "slots": 8, "examination_exponent": 0.4},
    "a fold": {"seed": 13, "tau": 0.1, "epsilon": 0.05, "candidates": 16, "slots": 6,
               "examination": (1.0, 0.9, 0.8, 0.35, 0.3, 0.28)},
}  # fmt: skip
SMALL: dict[str, dict[str, Any]] = {"small": {"seed": 14, "tau": 0.5, "candidates": 8, "slots": 3}}


@dataclass(frozen=True)
class Examined:
    """A world's log: its requests, its shown rows with ``click`` and ``purchase``, and the truth by position."""

    requests: pl.DataFrame
    rows: pl.DataFrame
    theta: NDArray[np.float64]

    def gained(self, kind: str) -> pl.LazyFrame:
        """Return the rows with one kind of outcome as their gain."""
        return self.rows.lazy().with_columns(gain=pl.col(kind).cast(pl.Float64))

    def marginals(self) -> NDArray[np.float64]:
        """Return each shown row's probabilities of standing at each position."""
        return logged_policy(self.requests, self.rows, positions=len(self.theta)).marginals


def simulated(*, days: int, **parameters: Any) -> Examined:
    """Simulate days of 5,000 requests each."""
    sizes = {"days": days, "requests_per_day": A_DAY, "users": 20_000, "purchase_intercept": -0.5}
    quiet = {"candidates_share": 0.0, "propensity_share": 0.0}
    world = World(WorldParameters(**{**sizes, **quiet, **parameters}))
    logs = [_kept(world.simulate_day(day)) for day in range(days)]
    requests, rows = (pl.concat(frames) for frames in zip(*logs, strict=True))
    return Examined(requests, rows, world.parameters.theta)


def _kept(day: DayLog) -> tuple[pl.DataFrame, pl.DataFrame]:
    key = ["request_id", "item_id"]
    rows = day.impressions.select(*key, "user_id", "position")
    for kind in ("click", "purchase"):
        happened = day.outcomes.filter(pl.col("kind") == kind).select(key).unique().with_columns(pl.lit(1).alias(kind))
        rows = rows.join(happened, on=key, how="left", maintain_order="left")
    rows = rows.with_columns(pl.col("click", "purchase").fill_null(0))
    return day.requests.select("request_id", "candidates", "tau", "epsilon"), rows


def estimated(
    world: Examined, kind: str, marginals: NDArray[np.float64], chosen: NDArray[np.bool_] | None = None
) -> list[Estimate]:
    """Estimate examination from the rows, or from chosen ones, with marginals that are known already."""
    part = slice(None) if chosen is None else chosen
    position, hit = (world.rows[name].to_numpy()[part] for name in ("position", kind))
    return examination_all_pairs(position, hit, marginals[part], user_codes=user_codes(world.rows)[part], seed=1)
