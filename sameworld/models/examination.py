"""Examination by position, from whichever propensities a log has."""

from __future__ import annotations

import numpy as np
import polars as pl

from sameworld.maths.position import examination_all_pairs, examination_from_propensities
from sameworld.models.logging_policy import knows_policy, logged_policy
from sameworld.models.scored_rows import user_codes
from sameworld.records import Estimate, Refused
from sameworld.store.log import Log

MOST_REQUESTS = 20_000  # enough for intervals of a few percent; more only costs time


def estimate_examination(log: Log, closed: pl.LazyFrame, *, seed: int) -> list[Estimate]:
    """Return theta by position, the first 1, with intervals by user.

    closed : examples whose labels have closed: request_id, item_id, position, gain, and where known user_id, propensity

    Where requests logged their candidates with scores, tau and epsilon, an evenly spaced sample of them gives exact
    marginals and all pairs of positions are compared; else the logged propensities are used as they are. Refused in
    words where neither is there, where nothing was ever swapped, and where all was shown at position 1.
    """
    deepest = closed.select(pl.col("position").max()).collect(engine="streaming").item()
    if deepest is None or deepest == 1:
        raise Refused(what="examination has no positions to compare", got="position 1 only", wanted="lists")
    requests = _known_policies(log, closed)
    if len(requests):
        return _from_marginals(requests, closed, seed)
    known = pl.col("propensity").is_not_null()
    rows = _read(closed.filter(known)) if "propensity" in closed.collect_schema().names() else None
    if rows is None or not len(rows):
        raise Refused(
            what="examination cannot be told from relevance",
            got="a log without propensities",
            wanted="propensities, or candidates with scores, tau and epsilon",
        )
    position, clicked, propensity, user = (
        rows[name].to_numpy() for name in ("position", "_clicked", "propensity", "_user")
    )
    return examination_from_propensities(position, clicked, propensity, user_codes=user, seed=seed)


def _read(rows: pl.LazyFrame) -> pl.DataFrame:
    names = rows.collect_schema().names()
    wanted = [name for name in ("request_id", "item_id", "user_id", "position", "gain", "propensity") if name in names]
    table = rows.select(wanted).collect(engine="streaming")
    return table.with_columns(_user=pl.Series(user_codes(table)), _clicked=pl.col("gain") > 0)


def _known_policies(log: Log, rows: pl.LazyFrame) -> pl.DataFrame:
    wanted = rows.select("request_id")
    if not log.has("requests"):
        return wanted.collect().clear()
    known = knows_policy(log.table("requests")).join(wanted, on="request_id", how="semi", maintain_order="left")
    requests = known.collect(engine="streaming")
    return requests.gather_every(max(1, -(-len(requests) // MOST_REQUESTS)))


def _from_marginals(requests: pl.DataFrame, rows: pl.LazyFrame, seed: int) -> list[Estimate]:
    sampled = _read(rows.join(requests.lazy().select("request_id"), on="request_id", how="semi", maintain_order="left"))
    marginals = logged_policy(requests, sampled, positions=int(sampled["position"].to_numpy().max())).marginals
    usable = np.isfinite(marginals).all(axis=1)
    sampled = sampled.filter(pl.Series(usable))
    position, clicked, user = (sampled[name].to_numpy() for name in ("position", "_clicked", "_user"))
    return examination_all_pairs(position, clicked, marginals[usable], user_codes=user, seed=seed)
