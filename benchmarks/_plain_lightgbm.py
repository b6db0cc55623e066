"""LightGBM as a competent engineer would set it up without the product: what the product has to beat."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightgbm as lgb
import numpy as np
import polars as pl
from numpy.typing import NDArray

from sameworld.models.features import Feature, feature_matrix

Floats = NDArray[np.float64]
Scorer = Callable[[NDArray[np.float32]], Floats]
SETTINGS = {
    "learning_rate": 0.06, "num_leaves": 31, "min_data_in_leaf": 50, "seed": 1, "verbosity": -1,
    "deterministic": True, "force_row_wise": True,
}  # fmt: skip
MOST_ROUNDS, TRUTH_ROUNDS, PATIENCE, STOP_DAYS = 400, 300, 30, 2


def lambdarank(rows: pl.DataFrame, features: tuple[Feature, ...]) -> Scorer:
    """Fit lambdarank on gains as known: rounds from the last two days, then refitted on everything.

    rows : request (contiguous), shown_at, gain and the features
    """
    gains, grade = np.unique(rows["gain"].to_numpy(), return_inverse=True)
    matrix = feature_matrix(rows, features)
    params = {
        **SETTINGS, "objective": "lambdarank", "label_gain": gains.tolist(), "metric": "ndcg", "eval_at": [10],
    }  # fmt: skip
    late = _late(rows["shown_at"].dt.date())

    def data(chosen: NDArray[np.bool_], reference: lgb.Dataset | None = None) -> lgb.Dataset:
        sizes = rows.filter(pl.Series(chosen))["request"].rle().struct.field("len").to_numpy()
        return lgb.Dataset(
            matrix[chosen], grade[chosen], group=sizes, categorical_feature=_categories(features), reference=reference
        )

    early = data(~late)
    stop = [lgb.early_stopping(PATIENCE, verbose=False)]
    found = lgb.train(params, early, MOST_ROUNDS, valid_sets=[data(late, early)], callbacks=stop)
    return _scorer(lgb.train(params, data(np.ones(len(rows), np.bool_)), max(found.best_iteration, 1)))


def regression_on_truth(matrix: NDArray[np.float32], truth: Floats, features: tuple[Feature, ...]) -> Scorer:
    """Fit the true expected gain of each row, noiseless: the best that served features can say."""
    params: dict[str, Any] = {**SETTINGS, "objective": "regression"}
    data = lgb.Dataset(matrix, truth, categorical_feature=_categories(features))
    return _scorer(lgb.train(params, data, TRUTH_ROUNDS))


def _late(day: pl.Series) -> NDArray[np.bool_]:
    number = day.rank("dense").to_numpy()
    return np.asarray(number > number.max() - STOP_DAYS)


def _categories(features: tuple[Feature, ...]) -> list[int]:
    return [place for place, feature in enumerate(features) if feature.kind == "category"]


def _scorer(booster: lgb.Booster) -> Scorer:
    return lambda matrix: np.asarray(booster.predict(matrix), np.float64)
