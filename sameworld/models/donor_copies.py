"""Rows whose served features were not logged, once more under the nulls of a logged request.

A row that was filled in later has every feature that could be joined; served, it would have lacked some. So it counts
half as it is and half as a copy without what a random logged request, its donor, lacked as a whole: never feature by
feature, since the features of one service fail together.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sameworld.maths.missingness import donor_masks, request_null_masks
from sameworld.models.training_table import TrainingTable, request_sizes

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
BLOCK_ROWS = 100_000


@dataclass(frozen=True)
class DonorCopies:
    """Copies of some rows of a table, in the table's order; they follow below it.

    of (copies,): the row that each is a copy of; request (copies,): its request's place among ``masks``;
    columns: places of the features that are served; masks (requests, columns): which of them the donor lacked;
    donors: how many logged requests they were drawn from; unserved: rows whose served features were not logged
    """

    of: Ints
    request: Ints
    columns: Ints
    masks: Bools
    donors: int
    unserved: int

    def __len__(self) -> int:
        return len(self.of)

    def below(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the matrix with the copies below it; the same one where there are none."""
        if not len(self):
            return matrix
        whole = np.empty((len(matrix) + len(self), matrix.shape[1]), np.float32)
        whole[: len(matrix)] = matrix
        for first in range(0, len(self), BLOCK_ROWS):
            part = slice(first, min(first + BLOCK_ROWS, len(self)))
            copies = matrix[self.of[part]]
            served = copies[:, self.columns]
            served[self.masks[self.request[part]]] = np.nan
            copies[:, self.columns] = served
            whole[len(matrix) + part.start : len(matrix) + part.stop] = copies
        return whole

    def with_copies(self, chosen: Bools, *, copied: bool = True) -> Bools:
        """Return which rows of the table and the copies below it: a chosen row's copy is chosen, too, if ``copied``."""
        return np.concatenate([chosen, chosen[self.of] & copied]) if len(self) else chosen

    def rows(self, chosen: Bools) -> Ints:
        """Return the table's row behind each chosen one; chosen as from ``with_copies``."""
        behind = np.concatenate([np.arange(len(chosen) - len(self)), self.of])
        return np.asarray(behind[chosen])

    def sizes(self, request: Ints, chosen: Bools) -> Ints:
        """Return how many rows each chosen request has; copies form requests of their own, below all others.

        request (rows,): of the table's rows
        """
        table = request_sizes(request[chosen[: len(request)]])
        return np.concatenate([table, request_sizes(self.request[chosen[len(request) :]])])

    def shares(self, rows: int) -> NDArray[np.float64]:
        """Return how much each row of the table counts, and each of the copies below it: the two make 1."""
        share = np.ones(rows + len(self))
        share[self.of] = share[rows:] = 0.5
        return share

    def as_record(self, rows: int) -> dict[str, Any]:
        """Return the share of a table's rows that were replayed, how many donors there were, and it all in words."""
        return {"replayed_share": len(self) / rows, "donors": self.donors, "replay": self._in_words()}

    def _in_words(self) -> str:
        if not self.unserved:
            return "every row has the features that were served"
        if not len(self):
            return f"{self.unserved:,} rows lack what was served, and no request logs it: there are no nulls to copy"
        donors = f"{self.donors:,} logged requests"
        return f"{len(self):,} rows lack what was served: each counts half under the nulls of one of {donors}"


def donor_copies(table: TrainingTable, served_features: Collection[str], *, seed: int) -> DonorCopies:
    """Copy each row of requests that were not served from the log, with a random served request's nulls.

    served_features : names of the features that serving logs; of other features no copy loses any
    A request counts as served if any of its rows does. Every request draws its donor with equal chance.
    """
    length = request_sizes(table.request)
    by_request = np.logical_or.reduceat(table.served, np.cumsum(length) - length) if len(table) else table.served
    served = np.repeat(by_request, length)
    names = set(served_features)
    columns = np.array([n for n, feature in enumerate(table.features) if feature.name in names], np.int64)
    donors, receivers, unserved = int(by_request.sum()), int((~by_request).sum()), int((~served).sum())
    if not donors or not receivers or not len(columns):
        nothing = np.zeros(0, np.int64)
        return DonorCopies(nothing, nothing, columns, np.zeros((0, len(columns)), np.bool_), donors, unserved)
    logged = served_null_masks(table, np.flatnonzero(served), columns)
    return DonorCopies(
        of=np.flatnonzero(~served),
        request=np.repeat(np.arange(receivers), length[~by_request]),
        columns=columns,
        masks=donor_masks(np.arange(receivers), logged, seed=seed),
        donors=donors,
        unserved=unserved,
    )


def served_null_masks(table: TrainingTable, rows: Ints, columns: Ints) -> Bools:
    """Return the null mask of each request of these rows, (requests, columns), some requests at a time.

    rows : places in the table, ascending, a request's together
    """
    ends = np.cumsum(request_sizes(table.request[rows]))
    last = ends[np.searchsorted(ends, np.arange(BLOCK_ROWS, len(rows), BLOCK_ROWS))]
    cuts = np.unique(np.concatenate([[0], last, [len(rows)]]))
    found = []
    for first, end in pairwise(cuts.tolist()):
        nulls = np.isnan(table.matrix[rows[first:end]][:, columns])
        found.append(request_null_masks(nulls, np.unique(table.request[rows[first:end]], return_inverse=True)[1]))
    return np.concatenate(found)
