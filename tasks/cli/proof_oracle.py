"""An oracle of nulls: it knows the law by which services fail, where people look, and every label that will come."""

from __future__ import annotations

import lightgbm as lgb
import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import expit

from sameworld.maths.calibration import normalised_entropy
from sameworld.models.training import Rows, fit_probability
from sameworld.sources.closed_loop_log import ITEM_SERVICE, USER_SERVICE
from sameworld.sources.closed_loop_parameters import WorldParameters
from tasks.cli.proof_arms import EVERYTHING
from tasks.cli.proof_naive import SETTINGS, matrix_of
from tasks.cli.proof_product import ROUNDS, TRAIN_DAYS, Product

DRAWS = 4  # each impression under as many outages


def production_of_oracle(product: Product, ship: int, until: int) -> float:
    """Return the normalised entropy, on what the product served once judged, of a model that knew the null law.

    It is fitted with the product's objective on the same days as warehoused, each row under outages drawn from the
    world's own law, with true examination and all labels that will ever come.
    """
    shop, target = product.shop, product.spec.label.target
    rows = shop.shown(max(0, ship - int(TRAIN_DAYS)), ship, complete=True)
    columns = list(EVERYTHING)
    matrix = np.concatenate([_under_outages(rows, columns, shop.parameters, draw) for draw in range(DRAWS)])
    y, seen = (np.tile(one, DRAWS) for one in (rows[target].to_numpy(), _examined(rows, shop.parameters)))
    sizes = np.tile(rows["request_id"].rle().struct.field("len").to_numpy().astype(np.int64), DRAWS)
    position = np.tile(rows["position"].cast(pl.Int64).to_numpy(), DRAWS)
    fitted = fit_probability(
        Rows(matrix, y, y, seen, np.ones(len(y)), sizes, position),
        stop=None, settings=SETTINGS, max_rounds=ROUNDS, patience=ROUNDS, categories=[],
    )  # fmt: skip
    served = shop.shown(ship + product.judged_days, until)
    raw = lgb.Booster(model_str=fitted.text).predict(matrix_of(served, columns), raw_score=True)
    relevance = expit(fitted.start + np.asarray(raw, np.float64))
    return normalised_entropy(relevance * _examined(served, shop.parameters), served[target].to_numpy())


def _examined(rows: pl.DataFrame, parameters: WorldParameters) -> NDArray[np.float64]:
    return np.asarray(parameters.theta[rows["position"].cast(pl.Int64).to_numpy() - 1])


def _under_outages(
    rows: pl.DataFrame, columns: list[str], parameters: WorldParameters, draw: int
) -> NDArray[np.float32]:
    """Take away, request by request, what a failed service would have given."""
    p, matrix = parameters, matrix_of(rows, columns)
    request = rows.select(pl.col("request_id").rle_id()).to_series().to_numpy()
    rng = np.random.default_rng([p.seed, draw])
    shared, user, item = rng.random((3, int(request[-1]) + 1)) < np.array(
        [[p.outage_shared], [p.outage_user], [p.outage_item]]
    )
    for service, out in ((USER_SERVICE, shared | user), (ITEM_SERVICE, shared | item)):
        places = np.array([place for place, name in enumerate(columns) if name in service])
        matrix[np.ix_(np.flatnonzero(out[request]), places)] = np.nan
    return matrix
