"""A simulated day as the contract's tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sameworld.sources.closed_loop_log import TIME, CandidateFeatures
from sameworld.sources.closed_loop_parameters import WorldParameters
from sameworld.sources.closed_loop_population import Floats, Ints, Items, Users
from sameworld.sources.closed_loop_traffic import delivered_at


@dataclass(frozen=True)
class Serving:
    """How a day's requests were served.

    scores (n, candidates); order (n, slots) candidate numbers by position; shuffled (n,); seed (n,) of each draw;
    version (n,) the model's name; arm (n,) None where no test runs; propensity (n, slots), NaN where not computed
    """

    scores: Floats
    order: Ints
    shuffled: NDArray[np.bool_]
    seed: Ints
    version: Sequence[str]
    arm: Sequence[str | None]
    propensity: Floats


@dataclass(frozen=True)
class Events:
    """Outcomes of one kind: request and slot numbers, times in microseconds, all of one length."""

    kind: str
    request: Ints
    slot: Ints
    happened_at: Ints
    arrived_at: Ints


def requests_frame(parameters: WorldParameters, features: CandidateFeatures, serving: Serving) -> pl.DataFrame:
    """Return the requests table: every request with its candidates, scores and the policy that ordered them."""
    traffic = features.traffic
    n, width = features.shape
    pairs = pl.DataFrame({
        "request": np.repeat(np.arange(n), width),
        "item_id": features.item_names.gather(traffic.item.ravel()),
        "score": serving.scores.ravel(),
    })  # fmt: skip
    lists = pairs.group_by("request", maintain_order=True).agg(candidates=pl.struct("item_id", "score"))
    return pl.DataFrame({
        "request_id": features.request_id,
        "user_id": features.user_names.gather(traffic.user),
        "surface": pl.repeat("feed", n, eager=True),
        "arm": pl.Series(serving.arm, dtype=pl.String),
        "policy_id": pl.repeat("plackett_luce", n, eager=True),
        "model_version": pl.Series(serving.version, dtype=pl.String),
        "branch": pl.Series(np.where(serving.shuffled, "shuffle", "model")),
        "shown_at": pl.Series(traffic.shown_at).cast(TIME),
        "arrived_at": pl.Series(traffic.request_arrived).cast(TIME),
        "tau": np.full(n, parameters.tau),
        "epsilon": np.full(n, parameters.epsilon),
        "seed": serving.seed,
        "candidates": lists["candidates"],
    })  # fmt: skip


def impressions_frame(features: CandidateFeatures, serving: Serving) -> pl.DataFrame:
    """Return the impressions table: what was shown, top first, with the features as served."""
    n, slots = serving.order.shape
    request = np.repeat(np.arange(n), slots)
    shown = pl.DataFrame({
        "position": np.tile(np.arange(1, slots + 1, dtype=np.int32), n),
        "arrived_at": pl.Series(features.traffic.impression_arrived[request]).cast(TIME),
        "propensity": pl.Series(serving.propensity.ravel(), nan_to_null=True),
    })  # fmt: skip
    served = features.frame(request, serving.order.ravel())
    first = ["request_id", "item_id", "user_id", "position", "shown_at", "arrived_at", "propensity"]
    return pl.concat([served, shown], how="horizontal").select(*first, pl.exclude(*first))


def outcomes_frame(features: CandidateFeatures, order: Ints, events: Sequence[Events]) -> pl.DataFrame:
    """Return the outcomes table: kind after kind, each by request and position."""
    return pl.concat([
        pl.DataFrame({
            "request_id": features.request_id.gather(kind.request),
            "item_id": features.item_names.gather(features.traffic.item[kind.request, order[kind.request, kind.slot]]),
            "kind": pl.repeat(kind.kind, len(kind.request), eager=True),
            "value": pl.repeat(None, len(kind.request), dtype=pl.Float64, eager=True),
            "happened_at": pl.Series(kind.happened_at).cast(TIME),
            "arrived_at": pl.Series(kind.arrived_at).cast(TIME),
            "retracted": pl.repeat(False, len(kind.request), dtype=pl.Boolean, eager=True),
        })
        for kind in events
    ])  # fmt: skip


def item_stats_frame(
    parameters: WorldParameters, names: pl.Series, items: Items, statistics: dict[str, Floats], batch: int
) -> pl.DataFrame:
    """Return the batch of item statistics: all living items; ``x_item_ctr`` is delivered as ``item_ctr``."""
    alive = items.alive[batch]
    values = {name.removeprefix("x_"): pl.Series(column[alive]) for name, column in statistics.items()}
    available = pl.repeat(delivered_at(parameters, batch), len(alive), dtype=pl.Int64, eager=True).cast(TIME)
    frame = pl.DataFrame({"item_id": names.gather(alive), "available_at": available} | values)
    return frame.with_columns(pl.col("item_clicks").cast(pl.Int64)).sort("item_id")


def user_profile_frame(parameters: WorldParameters, names: pl.Series, users: Users, batch: int) -> pl.DataFrame:
    """Return the batch of user profiles: all users in the first, then those estimated anew."""
    fresh = np.flatnonzero(users.refreshed[batch])
    values = {f"user_{axis}": pl.Series(users.estimate[batch, fresh, axis]) for axis in range(users.taste.shape[1])}
    available = pl.repeat(delivered_at(parameters, batch), len(fresh), dtype=pl.Int64, eager=True).cast(TIME)
    return pl.DataFrame({"user_id": names.gather(fresh), "available_at": available} | values)
