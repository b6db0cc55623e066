"""Items' intercepts: the optimum of the likelihood they claim, true ones recovered, shrunk, and blind to exposure."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit, xlogy

from sameworld.maths.item_residual import item_residuals


def rows(n=40_000, items=200, sd=0.8, seed=0):
    """Rows of items with true intercepts, at exposures that have nothing to do with them."""
    rng = np.random.default_rng(seed)
    true, item = rng.normal(0.0, sd, items), rng.integers(items, size=n).astype(np.int32)
    logit, exposure = rng.normal(-1.5, 0.7, n), rng.choice([1.0, 0.5, 0.2], n)
    y = (rng.random(n) < exposure * expit(logit + true[item])).astype(float)
    return true, {"item": item, "logit": logit, "y": y, "exposure": exposure, "weight": np.ones(n), "items": items}


def found(kept, **changes):
    arguments = kept | changes
    return item_residuals(arguments.pop("item"), arguments.pop("logit"), arguments.pop("y"), **arguments)


def test_true_intercepts_are_recovered():
    true, kept = rows()
    residual = found(kept)
    assert np.corrcoef(residual, true)[0, 1] > 0.93
    assert np.polyfit(residual, true - true.mean(), 1)[0] == pytest.approx(1.0, abs=0.08)


def test_each_intercept_is_the_optimum_of_its_penalised_likelihood():
    _, kept = rows(n=6000, items=12)
    residual = found(kept)
    variance = _variance(residual, kept)
    for item in range(12):
        own = kept["item"] == item
        y, logit, exposure = (kept[name][own] for name in ("y", "logit", "exposure"))

        def loss(b, y=y, logit=logit, exposure=exposure):
            p = exposure * expit(logit + b)
            return b * b / 2 / variance - np.sum(xlogy(y, p) + xlogy(1 - y, 1 - p))

        assert minimize_scalar(loss, bounds=(-5, 5), method="bounded").x == pytest.approx(residual[item], abs=2e-2)


def _variance(residual, kept):
    p = expit(kept["logit"] + residual[kept["item"]])
    seen = kept["exposure"] * p * (1 - p) ** 2 / (1 - kept["exposure"] * p)
    curvature, variance = np.bincount(kept["item"], weights=seen), 0.3
    for _ in range(200):
        variance = float(np.mean(residual**2 + 1 / (curvature + 1 / variance)))
    return variance


def test_items_that_are_alike_get_almost_no_intercept():
    _, kept = rows(sd=0.0)
    assert np.abs(found(kept)).mean() < 0.12
    assert np.abs(found(kept)).mean() < 0.5 * np.abs(found(rows(sd=0.4)[1])).mean()


def test_weight_two_equals_the_row_twice():
    _, kept = rows(n=3000, items=10)
    twice = {name: np.concatenate([kept[name]] * 2) for name in ("item", "logit", "y", "exposure", "weight")}
    np.testing.assert_allclose(found(kept, weight=np.full(3000, 2.0)), found(kept, **twice), atol=1e-9)


def test_an_item_without_rows_has_none_and_no_rows_give_none():
    _, kept = rows(n=500, items=5)
    assert found(kept, items=6)[5] == 0.0
    nothing = {name: kept[name][:0] for name in ("item", "logit", "y", "exposure", "weight")}
    assert found(kept, **nothing).tolist() == [0.0] * 5
