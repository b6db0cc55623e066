"""What a competent team does that has never heard of loops, delays or nulls: LightGBM on the log as it stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lightgbm as lgb
import numpy as np
import polars as pl
from numpy.typing import NDArray

from sameworld.sources.closed_loop import CandidateFeatures
from tasks.cli.proof_shop import standardised

Floats = NDArray[np.float64]
SETTINGS: dict[str, Any] = {
    "learning_rate": 0.1, "num_leaves": 31, "min_data_in_leaf": 50, "seed": 1, "verbosity": -1, "num_threads": 1,
    "deterministic": True, "force_row_wise": True,
}  # fmt: skip
ROUNDS = 40
WORDS = {"x_surface": ("article", "home", "topic"), "x_segment": ("fast", "slow")}


@dataclass(frozen=True)
class Naive:
    """A classifier of the target and, where gains are of several kinds, a ranker that orders instead of it."""

    classifier: lgb.Booster
    ranker: lgb.Booster | None
    columns: tuple[str, ...]

    def score(self, features: CandidateFeatures) -> Floats:
        """Score a day's candidates, standardised, shape (requests, candidates)."""
        matrix = matrix_of(features.frame(), self.columns)
        orders = self.ranker or self.classifier
        raw = np.asarray(orders.predict(matrix, raw_score=True), np.float64)
        return standardised(raw.reshape(features.shape))

    def probability(self, rows: pl.DataFrame) -> Floats:
        """Return each row's probability of the target."""
        return np.asarray(self.classifier.predict(matrix_of(rows, self.columns)), np.float64)


def fit_naive(rows: pl.DataFrame, *, target: str, columns: Sequence[str]) -> Naive:
    """Fit on impressions as they stand: no position, no delay, and no nulls but those that are there.

    rows : request_id (contiguous), gain, the target's column and the features
    """
    matrix, y, gain = matrix_of(rows, columns), rows[target].to_numpy(), rows["gain"].to_numpy()
    data = lgb.Dataset(matrix, y)
    classifier = lgb.train({**SETTINGS, "objective": "binary"}, data, ROUNDS)
    gains, grade = np.unique(gain, return_inverse=True)
    if np.array_equal(gain, y * gain.max()):
        return Naive(classifier, None, tuple(columns))
    sizes = rows["request_id"].rle().struct.field("len").to_numpy()
    ranking = {**SETTINGS, "objective": "lambdarank", "label_gain": gains.tolist()}
    return Naive(classifier, lgb.train(ranking, lgb.Dataset(matrix, grade, group=sizes), ROUNDS), tuple(columns))


def matrix_of(rows: pl.DataFrame, columns: Sequence[str]) -> NDArray[np.float32]:
    """Return the columns as numbers, NaN for null; words by their place.

    >>> matrix_of(pl.DataFrame({"x_hour": [3, None], "x_segment": ["fast", "slow"]}), ["x_hour", "x_segment"]).tolist()
    [[3.0, 0.0], [nan, 1.0]]
    """
    return rows.select(_number(name) for name in columns).fill_null(float("nan")).to_numpy()


def _number(name: str) -> pl.Expr:
    if name not in WORDS:
        return pl.col(name).cast(pl.Float32)
    places = {word: float(place) for place, word in enumerate(WORDS[name])}
    return pl.col(name).replace_strict(places, default=None, return_dtype=pl.Float32)
