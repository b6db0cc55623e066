"""Replay logged requests under a new model's order: the slate log that off-policy evaluation reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sameworld.maths.ope import SlateLog
from sameworld.maths.ranking import order_positions, request_starts
from sameworld.models.bundle import Bundle
from sameworld.models.logging_policy import LoggedPolicy, logged_policy
from sameworld.models.rank import scores
from sameworld.models.scored_rows import user_codes

Floats = NDArray[np.float64]
# A marginal is worked out to 1e-8; an item with less than that is never shown in any log that fits a machine.
NEVER = 1e-8


_SHOWN = ("request_id", "item_id", "user_id", "position", "gain", "propensity")


@dataclass(frozen=True)
class Replay:
    """A slate log, and the share of the requests that had to be left out of it."""

    log: SlateLog | None
    requests: int
    left_out_share: float


def replay(shown: pl.DataFrame, candidates: pl.DataFrame, policies: pl.DataFrame, bundle: Bundle) -> Replay:
    """Lay a greedy target over logged requests.

    shown : request_id, item_id, position, gain, propensity (may be null), user_id; a request's rows contiguous
    candidates : request_id, item_id and the bundle's features, for all or a sample of the requests
    policies : request_id, candidates, tau, epsilon of the requests whose law of ordering is known

    A request is left out when its candidates' features are not logged, when a shown item is no candidate, when its
    positions have a gap, or when a shown item's propensity is neither logged nor to be worked out.
    Where the law of ordering is known, a target's choice that logging never shows at that position counts as
    unsupported. Where only the propensities of what was shown are logged, that cannot be told: a propensity of 1 still
    rules all other items out, and wrong mean weights are refused later.
    """
    total = shown["request_id"].n_unique()
    shown = shown.select(name for name in _SHOWN if name in shown.columns)
    wanted = candidates.join(shown.select("request_id").unique(), on="request_id", how="semi")
    rows = shown.join(wanted.select("request_id").unique(), on="request_id", how="semi", maintain_order="left")
    if not len(rows):
        return Replay(None, 0, 1.0)
    rows = rows.sort("request_id", "position")
    rows = _with_target(rows, wanted, bundle)
    policy = logged_policy(policies, rows, positions=int(rows["position"].to_numpy().max()))
    rows = rows.with_columns(
        propensity=pl.Series(_propensity(rows, policy)),
        prefix=pl.Series(policy.prefix_log_propensity),
        unsupported=pl.Series((policy.target < NEVER).astype(np.float64)),
    )
    usable = (
        pl.col("propensity").is_finite()
        & pl.col("own_q").is_not_null()
        & pl.col("target_q").is_not_null()
        & (pl.col("position") == pl.col("place"))
    )
    rows = rows.filter(usable.all().over("request_id"))
    kept = rows["request_id"].n_unique()
    return Replay(_slates(rows) if kept else None, kept, 1.0 - kept / max(total, 1))


def _propensity(rows: pl.DataFrame, policy: LoggedPolicy) -> Floats:
    """Return the logged marginal, or the one that candidates, tau and epsilon give."""
    place = rows["position"].cast(pl.Int64).to_numpy() - 1
    computed = policy.marginals[np.arange(len(rows)), place]
    if "propensity" not in rows.columns:
        return np.asarray(computed, np.float64)
    logged = rows["propensity"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return np.asarray(np.where(np.isfinite(logged), logged, computed), np.float64)


def _with_target(rows: pl.DataFrame, candidates: pl.DataFrame, bundle: Bundle) -> pl.DataFrame:
    """Add what the model would show at each row's position, and the expected gain of both items there."""
    ordered = candidates.sort("request_id", "item_id")
    request = ordered.select(pl.col("request_id").rle_id()).to_series().cast(pl.Int64).to_numpy()
    score, probability = scores(ordered, request, bundle)
    choices = ordered.select("request_id", "item_id").with_columns(
        place=pl.Series(order_positions(request, score).astype(np.int32)), relevance=pl.Series(probability)
    )
    own = choices.select("request_id", "item_id", own_relevance="relevance")
    target = choices.select("request_id", position="place", target_item="item_id", target_relevance="relevance")
    joined = rows.join(own, on=["request_id", "item_id"], how="left", maintain_order="left").join(
        target, on=["request_id", "position"], how="left", maintain_order="left"
    )
    seen = bundle.examination_at(joined["position"].cast(pl.Int64).to_numpy())
    joined = joined.with_columns(
        place=pl.int_range(1, pl.len() + 1).over("request_id").cast(pl.Int32),
        own_q=pl.col("own_relevance") * pl.Series(seen),
        target_q=pl.col("target_relevance") * pl.Series(seen),
    )
    # The model predicts the target outcome; gains are worth more or less by one factor, any value of which is unbiased.
    worth = float(joined["gain"].sum()) / max(float(joined["own_q"].sum() or 0.0), 1e-12)
    return joined.with_columns(pl.col("own_q", "target_q") * worth)


def _slates(rows: pl.DataFrame) -> SlateLog:
    request = rows.select(pl.col("request_id").rle_id()).to_series().cast(pl.Int64).to_numpy()
    match = (rows["item_id"] == rows["target_item"]).to_numpy().astype(np.float64)
    missed = np.cumsum(1.0 - match)
    start = request_starts(request)
    before = (missed - (1.0 - match))[start][request]
    prefix = rows["prefix"].to_numpy()
    known = np.isfinite(prefix).all()
    return SlateLog(
        request=request,
        position=rows["position"].cast(pl.Int64).to_numpy(),
        user=user_codes(rows),
        reward=rows["gain"].to_numpy().astype(np.float64),
        propensity=rows["propensity"].to_numpy(),
        target_match=match,
        q_logged=rows["own_q"].to_numpy(),
        q_target=rows["target_q"].to_numpy(),
        prefix_log_propensity=prefix if known else None,
        target_prefix_log=np.where(missed - before > 0, -np.inf, 0.0) if known else None,
        unsupported=rows["unsupported"].to_numpy(),
    )
