"""The logging policy's own probabilities, from what each request logged: candidates, scores, tau, epsilon."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sameworld.maths.policy import position_marginals, prefix_log_propensities
from sameworld.models.rank import padded

Floats = NDArray[np.float64]
_BLOCK = 4096


@dataclass(frozen=True)
class LoggedPolicy:
    """For each row shown: its item's probability at each position, and that of the prefix shown so far.

    marginals (n, positions); prefix_log_propensity (n,): log-probability of the items at positions 1 … the row's.
    NaN where a request's policy is not known, or a shown item was no candidate.
    """

    marginals: Floats
    prefix_log_propensity: Floats


def knows_policy(requests: pl.LazyFrame) -> pl.LazyFrame:
    """Return the requests whose order's law is known: candidates with finite scores, tau and epsilon."""
    names = set(requests.collect_schema().names())
    if not {"candidates", "tau", "epsilon"} <= names:
        return requests.filter(pl.lit(False))
    scored = pl.col("candidates").list.eval(pl.element().struct.field("score").is_finite()).list.all()
    known = pl.col("epsilon").is_not_null() & (pl.col("tau").is_not_null() | (pl.col("epsilon") == 1.0))
    return requests.filter(known & (pl.col("candidates").list.len() > 0) & scored.fill_null(False))


def logged_policy(requests: pl.DataFrame, shown: pl.DataFrame, *, positions: int) -> LoggedPolicy:
    """Work out the logging policy's probabilities for the rows shown.

    requests : request_id, candidates (list of {item_id, score}), tau, epsilon; see ``knows_policy``
    shown : request_id, item_id, position (1 is the top), in any order
    """
    marginals = np.full((len(shown), positions), np.nan)
    prefix = np.full(len(shown), np.nan)
    numbered = shown.with_row_index("_row").select("_row", "request_id", "item_id", "position")
    for start in range(0, len(requests), _BLOCK):
        block = requests.slice(start, _BLOCK).with_row_index("_request")
        rows = numbered.join(block.select("request_id", "_request"), on="request_id").sort("_row")
        if len(rows):
            place = rows["_row"].to_numpy()
            marginals[place], prefix[place] = _block(block, rows, positions)
    return LoggedPolicy(marginals, prefix)


def _block(block: pl.DataFrame, rows: pl.DataFrame, positions: int) -> tuple[Floats, Floats]:
    listed = block.select("_request", "candidates").explode("candidates").unnest("candidates")
    request = listed["_request"].cast(pl.Int64).to_numpy()
    table, _, column = padded(request, listed["score"].to_numpy())
    slots = listed.select("_request", "item_id", _column=pl.Series(column)).unique(
        ["_request", "item_id"], keep="first", maintain_order=True
    )
    found = rows.join(slots, on=["_request", "item_id"], how="left", maintain_order="left")
    row, slot = found["_request"].cast(pl.Int64).to_numpy(), found["_column"].fill_null(-1).to_numpy()
    place = found["position"].cast(pl.Int64).to_numpy() - 1
    tau, epsilon = (block[name].fill_null(1.0).cast(pl.Float64).to_numpy() for name in ("tau", "epsilon"))
    chances = position_marginals(table, tau=tau, epsilon=epsilon, positions=positions)[row, np.maximum(slot, 0)]
    chances[slot < 0] = np.nan
    return chances, _prefixes(table, row, slot, place, tau, epsilon)


def _prefixes(  # noqa: PLR0917
    table: Floats,
    row: NDArray[np.int64],
    slot: NDArray[np.int64],
    place: NDArray[np.int64],
    tau: Floats,
    epsilon: Floats,
) -> Floats:
    """Log-probability of each row's prefix; NaN in requests with a gap, or with an item that was no candidate."""
    depth = int(place.max()) + 1
    orders = np.full((len(table), depth), -1, np.int64)
    orders[row, place] = slot
    shown = np.bincount(row, minlength=len(table))
    whole = (np.cumprod(orders >= 0, axis=1).sum(axis=1) == shown) & (shown > 0)
    result = np.full(len(row), np.nan)
    if whole.any():
        every = np.full(orders.shape, np.nan)
        every[whole] = prefix_log_propensities(
            table[whole], orders[whole], depth, tau=tau[whole], epsilon=epsilon[whole]
        )
        result = every[row, place]
    return result
