"""One ``rank`` for serving, shadowing, simulating and evaluating."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sameworld.maths.calibration import StackCalibrator, centre_within_request
from sameworld.maths.policy import position_marginals, sample_orders
from sameworld.maths.ranking import mean_within_request, order_positions
from sameworld.models.bundle import Bundle
from sameworld.models.features import feature_matrix
from sameworld.records import Refused

Floats = NDArray[np.float64]
_BLOCK_MARGINALS = 1 << 24  # (requests, candidates, positions) held at a time: 128 MB


@dataclass(frozen=True)
class Exploration:
    """A Plackett-Luce/shuffle mixture: temperature tau on the scores, share epsilon of shuffled requests."""

    tau: float
    epsilon: float
    seed: int


def rank(candidates: pl.DataFrame, bundle: Bundle, exploration: Exploration | None = None) -> pl.DataFrame:
    """Score and order candidates; rows come back in the order given.

    candidates : frame with request_id, item_id and the bundle's features (a missing one reads as null)
    adds score (orders within a request), probability (of the target within the window, if shown at position 1),
    Raises Refused for missing id columns, null ids and repeated candidates.
    """
    _check_ids(candidates)
    if exploration is None and candidates["request_id"].n_unique() <= 1:  # served: nothing to sort, and no time to
        request = np.zeros(len(candidates), np.int64)
        score, probability = scores(candidates, request, bundle)
        added = _columns(score, probability, order_positions(request, score))
        new = {"score", "probability", "position"}.isdisjoint(candidates.columns)
        return candidates.hstack(added) if new else candidates.with_columns(added)
    numbered = candidates.with_row_index("_row").with_columns(
        _request=pl.col("request_id").rank("dense").cast(pl.Int64) - 1
    )
    ordered = numbered.sort("_request", "_row" if exploration is None else "item_id")
    request = ordered["_request"].to_numpy()
    score, probability = scores(ordered, request, bundle)
    if exploration is None:
        added = _columns(score, probability, order_positions(request, score))
    else:
        ids = ordered["request_id"].unique(maintain_order=True).cast(pl.String)
        position, propensity = _explore(request, score, exploration, _seeds(ids, exploration.seed))
        added = [*_columns(score, probability, position), pl.Series("propensity", propensity)]
    return ordered.with_columns(added).sort("_row").drop("_row", "_request")


def _columns(score: Floats, probability: Floats, position: NDArray[np.int64]) -> list[pl.Series]:
    return [
        pl.Series("score", score), pl.Series("probability", probability),
        pl.Series("position", position.astype(np.int32)),
    ]  # fmt: skip


def scores(rows: pl.DataFrame, request: NDArray[np.int64], bundle: Bundle) -> tuple[Floats, Floats]:
    """Return each row's ordering score and probability, shape (n,) each; a request's rows are contiguous."""
    if not len(rows):
        return np.empty(0), np.empty(0)
    matrix, residual = model_matrix(rows, bundle)
    logit = bundle.start + np.asarray(bundle.probability.predict(matrix, raw_score=True), np.float64)
    score = logit if bundle.ranker is None else np.asarray(bundle.ranker.predict(matrix, raw_score=True), np.float64)
    score = score + residual
    if isinstance(bundle.calibrator, StackCalibrator):
        centred, mean_logit = centre_within_request(request, score), mean_within_request(request, logit)
        return score, bundle.calibrator.probability(centred, mean_logit)
    return score, bundle.calibrator.probability(logit)


def model_matrix(rows: pl.DataFrame, bundle: Bundle) -> tuple[NDArray[np.float32], Floats]:
    """Return what the boosters read, (rows, features), and what the items' history adds to the score, (rows,)."""
    history, residual = bundle.history.of(rows["item_id"])
    served = bundle.features[: len(bundle.features) - len(bundle.history.kinds)]
    columns = [feature_matrix(rows, served)] if served else []
    return np.concatenate([*columns, history], axis=1), residual


def padded(request: NDArray[np.int64], values: Floats) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Lay ragged requests out as (requests, longest), NaN beyond each end; also return each row's row and column."""
    sizes = np.bincount(request) if len(request) else np.zeros(0, np.int64)
    column = np.arange(len(request)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    table = np.full((len(sizes), int(sizes.max(initial=0))), np.nan)
    table[request, column] = values
    return table, request, column


def _seeds(request_ids: pl.Series, seed: int) -> NDArray[np.int64]:
    """Return one seed a request: the same request draws alike in any company, two requests of one call never do."""
    digests = [hashlib.sha256(f"{seed} {name}".encode()).digest()[:8] for name in request_ids]
    return np.frombuffer(b"".join(digests), dtype="<i8").astype(np.int64)


def _explore(
    request: NDArray[np.int64], score: Floats, how: Exploration, seeds: NDArray[np.int64]
) -> tuple[NDArray[np.int64], Floats]:
    table, row, column = padded(request, score)
    orders, _ = sample_orders(table, tau=how.tau, epsilon=how.epsilon, seed=seeds)
    place = np.zeros(table.shape, np.int64)
    rows, ranks = np.nonzero(orders >= 0)
    place[rows, orders[rows, ranks]] = ranks
    position = place[row, column]
    propensity = np.empty(len(score))
    size = max(1, _BLOCK_MARGINALS // max(table.shape[1], 1) ** 2)
    for block in range(0, len(table), size):
        here = slice(*np.searchsorted(row, [block, block + size]))
        marginals = position_marginals(
            table[block : block + size], tau=how.tau, epsilon=how.epsilon, positions=table.shape[1]
        )
        propensity[here] = marginals[row[here] - block, column[here], position[here]]
    return position + 1, propensity


def _check_ids(candidates: pl.DataFrame) -> None:
    missing = [name for name in ("request_id", "item_id") if name not in candidates.columns]
    if missing:
        raise Refused(what="candidates lack their ids", got=", ".join(candidates.columns), wanted=" and ".join(missing))
    request_id, item_id = candidates["request_id"], candidates["item_id"]
    if request_id.null_count() or item_id.null_count():
        raise Refused(what="a candidate has a null id", wanted="request_id and item_id in every row")
    if item_id.n_unique() == len(candidates):
        return
    repeated = candidates.select("request_id", "item_id").is_duplicated()
    if repeated.any():
        first = candidates.filter(repeated).row(0, named=True)
        got = f"request {first['request_id']!r}, item {first['item_id']!r}"
        raise Refused(what="a candidate stands twice in its request", got=got, wanted="each item once")
