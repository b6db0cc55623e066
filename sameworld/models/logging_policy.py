"""The logging policy's own probabilities, from what each request logged: candidates, scores, tau, epsilon."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sameworld.maths.policy import position_marginals, prefix_log_propensities
from sameworld.models.rank import padded

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_BLOCK = 4096  # requests at a time, fewer where lists are long: their marginals then stay below 128 MB
_BLOCK_MARGINALS = 1 << 24


@dataclass(frozen=True)
class LoggedPolicy:
    """For each row shown: its item's probability at each position, and that of the prefix shown so far.

    marginals (n, positions); prefix_log_propensity (n,): log-probability of the items at positions 1 … the row's.
    NaN where a request's policy is not known, or a shown item was no candidate.
    target (n,): probability of the row's ``target_item`` at the row's position; 0 where it was no candidate, NaN where
    the policy is not known, or no target was asked about
    """

    marginals: Floats
    prefix_log_propensity: Floats
    target: Floats


def knows_policy(requests: pl.LazyFrame) -> pl.LazyFrame:
    """Return the requests whose order's law is known.

    That takes candidates, each once and with a finite score, epsilon in [0, 1] and tau >= 0 (any, null too, where
    epsilon is 1). A tau of 0 is the order by score itself.
    """
    names = set(requests.collect_schema().names())
    if not {"candidates", "tau", "epsilon"} <= names:
        return requests.filter(pl.lit(False))
    ids, scores = (pl.element().struct.field(name) for name in ("item_id", "score"))
    candidates, epsilon, tau = pl.col("candidates"), pl.col("epsilon"), pl.col("tau")
    scored = candidates.list.eval(scores.is_finite().fill_null(False)).list.all()
    once = candidates.list.eval(ids.is_duplicated()).list.any().not_()
    heated = tau.is_finite() & (tau >= 0.0)
    known = epsilon.is_between(0.0, 1.0) & (heated | (epsilon == 1.0)) & (candidates.list.len() > 0) & scored & once
    return requests.filter(known.fill_null(False))


def logged_policy(requests: pl.DataFrame, shown: pl.DataFrame, *, positions: int) -> LoggedPolicy:
    """Work out the logging policy's probabilities for the rows shown.

    requests : request_id, candidates (list of {item_id, score}), tau, epsilon; see ``knows_policy``
    shown : request_id, item_id, position (1 is the top), in any order; ``target_item``, if it is there, names another
        item whose probability at that position is wanted, null for none
    """
    marginals = np.full((len(shown), positions), np.nan)
    prefix, target = np.full(len(shown), np.nan), np.full(len(shown), np.nan)
    columns = [name for name in ("request_id", "item_id", "position", "target_item") if name in shown.columns]
    numbered = shown.with_row_index("_row").select("_row", *columns)
    for block in _blocks(requests, positions):
        rows = numbered.join(block.select("request_id", "_request"), on="request_id").sort("_row")
        if len(rows):
            place = rows["_row"].to_numpy()
            marginals[place], prefix[place], target[place] = _block(block, rows, positions)
    return LoggedPolicy(marginals, prefix, target)


def _blocks(requests: pl.DataFrame, positions: int) -> Iterator[pl.DataFrame]:
    if not len(requests):
        return
    longest = int(requests["candidates"].list.len().to_numpy().max())
    size = max(1, min(_BLOCK, _BLOCK_MARGINALS // (longest * positions)))
    for start in range(0, len(requests), size):
        yield requests.slice(start, size).with_row_index("_request")


@dataclass(frozen=True)
class _Laws:
    """Requests' scores (n, longest), NaN beyond each list's end, and the policy that ordered them; tau 0: by score."""

    scores: Floats
    tau: Floats
    epsilon: Floats

    @property
    def greedy(self) -> NDArray[np.bool_]:
        return np.asarray((self.tau == 0.0) & (self.epsilon < 1.0))

    def smooth(self) -> tuple[Floats, Floats]:
        """Return tau and epsilon for the library, which knows the greedy part of a mixture as no law: all shuffle."""
        return np.where(self.tau == 0.0, 1.0, self.tau), np.where(self.greedy, 1.0, self.epsilon)

    def marginals(self, positions: int) -> Floats:
        (tau, epsilon), greedy = self.smooth(), self.greedy
        law = position_marginals(self.scores, tau=tau, epsilon=epsilon, positions=positions)
        if greedy.any():
            scores, shuffled = self.scores[greedy], self.epsilon[greedy][:, None, None]
            rank = np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1)
            top = (rank[:, :, None] == np.arange(positions)) & np.isfinite(scores)[:, :, None]
            law[greedy] = (1.0 - shuffled) * top + shuffled * law[greedy]
        return law

    def prefixes(self, orders: Ints) -> Floats:
        """Log-probability of each order's first 1, 2, … items; orders as in ``prefix_log_propensities``."""
        (tau, epsilon), greedy, depth = self.smooth(), self.greedy, orders.shape[1]
        law = prefix_log_propensities(self.scores, orders, depth, tau=tau, epsilon=epsilon)
        if greedy.any():
            top = np.argsort(-self.scores[greedy], axis=1, kind="stable")[:, :depth]
            agrees = np.cumprod((orders[greedy] == top) | (orders[greedy] < 0), axis=1)
            shuffled = self.epsilon[greedy][:, None]
            with np.errstate(divide="ignore"):
                law[greedy] = np.logaddexp(np.log((1.0 - shuffled) * agrees), np.log(shuffled) + law[greedy])
        return law


def _block(block: pl.DataFrame, rows: pl.DataFrame, positions: int) -> tuple[Floats, Floats, Floats]:
    listed = block.select("_request", "candidates").explode("candidates").unnest("candidates")
    request = listed["_request"].cast(pl.Int64).to_numpy()
    scores, _, column = padded(request, listed["score"].to_numpy())
    slots = listed.select("_request", "item_id", _column=pl.Series(column))
    tau, epsilon = (block[name].fill_null(1.0).cast(pl.Float64).to_numpy() for name in ("tau", "epsilon"))
    laws = _Laws(scores, tau, epsilon)
    law, row = laws.marginals(positions), rows["_request"].cast(pl.Int64).to_numpy()
    slot, place = _slots(rows, slots, "item_id"), rows["position"].cast(pl.Int64).to_numpy() - 1
    chances = law[row, np.maximum(slot, 0)]
    chances[slot < 0] = np.nan
    target = np.full(len(rows), np.nan)
    if "target_item" in rows.columns:
        wanted = _slots(rows, slots, "target_item")
        target = np.where(wanted >= 0, law[row, np.maximum(wanted, 0), place], 0.0)
        target[rows["target_item"].is_null().to_numpy()] = np.nan
    return chances, _prefixes(laws, row, slot, place), target


def _slots(rows: pl.DataFrame, slots: pl.DataFrame, item: str) -> Ints:
    """Return the column of each row's item in its request's list, -1 where it was no candidate."""
    keys = slots.rename({"item_id": item})
    found = rows.select("_request", item).join(keys, on=["_request", item], how="left", maintain_order="left")
    return found["_column"].fill_null(-1).to_numpy()


def _prefixes(laws: _Laws, row: Ints, slot: Ints, place: Ints) -> Floats:
    """Log-probability of each row's prefix; NaN in requests with a gap, or with an item that was no candidate."""
    orders = np.full((len(laws.scores), int(place.max()) + 1), -1, np.int64)
    orders[row, place] = slot
    shown = np.bincount(row, minlength=len(orders))
    whole = (np.cumprod(orders >= 0, axis=1).sum(axis=1) == shown) & (shown > 0)
    result = np.full(len(row), np.nan)
    if whole.any():
        every = np.full(orders.shape, np.nan)
        every[whole] = _Laws(laws.scores[whole], laws.tau[whole], laws.epsilon[whole]).prefixes(orders[whole])
        result = every[row, place]
    return result
