"""Examination by position, from whichever propensities a log has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sameworld.maths.position import examination_all_pairs, examination_from_propensities
from sameworld.models.logging_policy import knows_policy, logged_policy
from sameworld.models.scored_rows import user_codes
from sameworld.records import Cannot, Estimate, Refused
from sameworld.store.log import Log

FEWEST_REQUESTS, MOST_REQUESTS = 20_000, 100_000  # marginals cost about a third of a millisecond a request
# A rate from this many clicks has an interval of about 5 % either way; beyond it more requests only cost time.
CLICKS_A_POSITION = 3_000
MOST_MARGINALS = 1 << 24  # numbers held, 128 MB: long lists are sampled more sparsely


@dataclass(frozen=True)
class Theta:
    """Examination by position, or the reason why it can't be told from relevance."""

    estimates: tuple[Estimate, ...]
    reason: str

    @classmethod
    def of(cls, log: Log, closed: pl.LazyFrame, *, seed: int) -> Theta:
        """Estimate it as :func:`estimate_examination` does; what is refused there is the reason here."""
        try:
            return cls(tuple(estimate_examination(log, closed, seed=seed)), "")
        except Refused as refusal:
            return cls((), str(refusal))

    def values(self) -> NDArray[np.float64]:
        """Return theta by position, (positions,), in [0.01, 1]; all of it 1 where it can't be told."""
        found = np.array([one.value for one in self.estimates]) if self.estimates else np.ones(1)
        return np.asarray(np.clip(found, 0.01, 1.0), np.float64)

    def as_record(self) -> Any:
        """Return the estimates, or the reason."""
        if not self.estimates:
            return Cannot(self.reason).as_record()
        return [one.as_record() for one in self.estimates]


def estimate_examination(log: Log, closed: pl.LazyFrame, *, seed: int) -> list[Estimate]:
    """Return theta by position, the first 1, with intervals by user.

    closed : examples whose labels have closed: request_id, item_id, position, gain, and where known user_id, propensity

    Where requests logged their candidates with scores, tau and epsilon, they give exact marginals and all pairs of
    positions are compared (see :func:`examination_of_requests`); else the logged propensities are used as they are.
    Refused in words where neither is there, where nothing was ever swapped, and where all was shown at position 1.
    """
    deepest = closed.select(pl.col("position").max()).collect(engine="streaming").item()
    if deepest is None or deepest == 1:
        raise Refused(what="examination has no positions to compare", got="position 1 only", wanted="lists")
    found = examination_of_requests(log.table("requests"), closed, seed=seed) if log.has("requests") else None
    if found is not None:
        return found
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


def examination_of_requests(requests: pl.LazyFrame, rows: pl.LazyFrame, *, seed: int) -> list[Estimate] | None:
    """Return theta by position from the exact marginals of requests whose law of ordering is known; None without any.

    requests : as the log has them
    rows : request_id, item_id, position, gain and where known user_id, of these requests and of others

    An evenly spaced sample of the requests is taken where that is enough: for 3,000 clicks at each position, from
    20,000 requests at least and 100,000 at most.
    """
    known = knows_policy(requests).join(rows.select("request_id"), on="request_id", how="semi", maintain_order="left")
    ids = known.select("request_id").collect(engine="streaming")
    if not len(ids):
        return None
    chosen = ids[_evenly(len(ids), _enough(ids, rows))]
    sampled = known.join(chosen.lazy(), on="request_id", how="semi", maintain_order="left").collect(engine="streaming")
    shown = _read(rows.join(chosen.lazy(), on="request_id", how="semi", maintain_order="left"))
    marginals = logged_policy(sampled, shown, positions=int(shown["position"].to_numpy().max())).marginals
    usable = np.isfinite(marginals).all(axis=1)
    shown = shown.filter(pl.Series(usable))
    position, clicked, user = (shown[name].to_numpy() for name in ("position", "_clicked", "_user"))
    return examination_all_pairs(position, clicked, marginals[usable], user_codes=user, seed=seed)


def _enough(ids: pl.DataFrame, rows: pl.LazyFrame) -> int:
    """Return how many of these requests say enough about the position with the fewest clicks."""
    clicks = (
        rows.join(ids.lazy(), on="request_id", how="semi")
        .group_by("position")
        .agg(rows=pl.len(), clicks=(pl.col("gain") > 0).sum())
        .collect(engine="streaming")
    )
    most = int(min(MOST_REQUESTS, MOST_MARGINALS // (int(clicks["rows"].sum()) / len(ids) * len(clicks))))
    wanted = -(-len(ids) * CLICKS_A_POSITION // max(int(clicks["clicks"].to_numpy().min()), 1))
    return max(1, min(most, max(FEWEST_REQUESTS, wanted)))


def _evenly(length: int, wanted: int) -> NDArray[np.int64]:
    """Return at most so many places among ``length``, evenly spaced.

    >>> _evenly(10, 4), _evenly(3, 4)
    (array([0, 2, 5, 7]), array([0, 1, 2]))
    """
    return np.arange(min(wanted, length), dtype=np.int64) * length // min(wanted, length)


def _read(rows: pl.LazyFrame) -> pl.DataFrame:
    names = rows.collect_schema().names()
    wanted = [name for name in ("request_id", "item_id", "user_id", "position", "gain", "propensity") if name in names]
    table = rows.select(wanted).collect(engine="streaming")
    return table.with_columns(_user=pl.Series(user_codes(table)), _clicked=pl.col("gain") > 0)
