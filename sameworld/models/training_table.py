"""The training set in memory: the matrix that LightGBM reads, filled day by day, and what goes beside it.

Nothing but the matrix is as wide as the features, and no text is kept: ids are numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sameworld.models.features import Feature, Kind, feature_matrix, learn_features
from sameworld.store.artifacts import Artifact, Store
from sameworld.store.feature_rows import SERVED
from sameworld.store.parts import example_parts, examples_of

Floats = NDArray[np.float64]
BASE_BYTES, BYTES_A_ROW, BYTES_A_VALUE = 0.5e9, 300, 10
BESIDE = ("request", "position", "target", "gain", "completeness", "closed", "shown_at", SERVED, "item_id")


def memory_needed(rows: int, features: int) -> float:
    """Return the most bytes that training on a table holds at once (measured: ``docs/benchmarks.md``).

    The matrix and a copy of what is fitted, LightGBM's bins, and gradients, scores and what goes beside the matrix.
    """
    return BASE_BYTES + rows * (BYTES_A_ROW + BYTES_A_VALUE * features)


@dataclass(frozen=True)
class TrainingTable:
    """Rows in the order of the training set, a request's together; arrays of shape (rows,) unless said otherwise.

    matrix (rows, features and room); request: a number a request, ascending; item: a place in ``items``, sorted;
    served: whether what was served was logged when the row arrived
    """

    features: tuple[Feature, ...]
    matrix: NDArray[np.float32]
    request: NDArray[np.int64]
    position: NDArray[np.int64]
    target: Floats
    gain: Floats
    completeness: Floats
    closed: NDArray[np.bool_]
    shown_at: NDArray[np.datetime64]
    served: NDArray[np.bool_]
    item: NDArray[np.int32]
    items: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.target)

    @classmethod
    def read(cls, examples: Artifact, store: Store, *, room: int = 0) -> TrainingTable:
        """Read a training set, one day's part at a time; ``room`` columns of the matrix are left NaN, at its end."""
        whole, kinds = examples_of(examples, store), examples.record["features"]
        features = learn_features(whole, kinds)
        items = whole.select(pl.col("item_id").unique().sort()).collect(engine="streaming")["item_id"]
        matrix = np.full((int(examples.record["rows"]), len(features) + room), np.nan, np.float32)
        found, at = [], 0
        for part in example_parts(examples, store):
            rows = part.select([*BESIDE, *_present(part, kinds)]).collect(engine="streaming")
            matrix[at : at + len(rows), : len(features)] = feature_matrix(rows, features)
            found.append(rows.select(*BESIDE[:-1], pl.col("item_id").cast(pl.Enum(items)).to_physical().cast(pl.Int32)))
            at += len(rows)
        return cls(features, matrix, **_beside(found), items=items.to_numpy().astype(np.str_))


def examined(table: TrainingTable, theta: Floats) -> Floats:
    """Return the examination of each row's position; beyond the last known position its value goes on."""
    return np.asarray(theta[np.clip(table.position, 1, len(theta)) - 1], np.float64)


def exposed(examination: Floats, known: Floats) -> Floats:
    """Return examination × completeness, kept away from 0."""
    return np.asarray(np.clip(examination * known, 1e-3, 1.0), np.float64)


def request_sizes(request: NDArray[Any]) -> NDArray[np.int64]:
    """Return how many rows each request has, in their order; a request's rows stand together.

    >>> request_sizes(np.array([4, 4, 7])).tolist()
    [2, 1]
    """
    starts = np.flatnonzero(np.r_[True, request[1:] != request[:-1]]) if len(request) else np.zeros(0, np.int64)
    return np.asarray(np.diff(np.r_[starts, len(request)]), np.int64)


def stretch(chosen: NDArray[np.bool_]) -> slice | NDArray[np.bool_]:
    """Return the chosen rows as a slice where they are one stretch, so that no copy is made of them.

    >>> stretch(np.array([False, True, True])), stretch(np.array([True, False, True])).tolist()
    (slice(1, 3, None), [True, False, True])
    """
    places = np.flatnonzero(chosen)
    whole = len(places) > 0 and places[-1] - places[0] + 1 == len(places)
    return slice(int(places[0]), int(places[-1]) + 1) if whole else chosen


def _present(part: pl.LazyFrame, kinds: Mapping[str, Kind]) -> list[str]:
    names = set(part.collect_schema().names())
    return [name for name in sorted(kinds) if name in names]


def _beside(parts: list[pl.DataFrame]) -> dict[str, Any]:
    last = np.cumsum([0, *(part["request"].to_numpy().max(initial=0) for part in parts)])
    table = pl.concat(
        [part.with_columns(pl.col("request").cast(pl.Int64) + int(n)) for part, n in zip(parts, last, strict=False)]
    )
    return {
        "request": table["request"].to_numpy(),
        "position": table["position"].cast(pl.Int64).to_numpy(),
        "target": table["target"].cast(pl.Float64).to_numpy(),
        "gain": table["gain"].cast(pl.Float64).to_numpy(),
        "completeness": table["completeness"].to_numpy(),
        "closed": table["closed"].to_numpy(),
        "shown_at": table["shown_at"].dt.replace_time_zone(None).to_numpy(),
        "served": table[SERVED].to_numpy(),
        "item": table["item_id"].to_numpy(),
    }
