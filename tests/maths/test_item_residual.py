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


def with_a_look_a_round(kept, rounds=25):
    """The same EM with a look at all the rows before each round."""
    item, y, exposure = kept["item"], kept["y"], kept["exposure"]
    residual, variance = np.zeros(kept["items"]), 0.3
    for _ in range(rounds):
        p = expit(kept["logit"] + residual[item])
        slope = y + (1 - y) * p * (1 - exposure) / (1 - p * exposure) - p
        curvature = np.bincount(item, exposure * p * (1 - p) ** 2 / (1 - p * exposure)) + 1 / variance
        residual = residual + np.clip((np.bincount(item, slope) - residual / variance) / curvature, -1, 1)
        variance = max(float(np.mean(residual**2 + 1 / curvature)), 1e-4)
    return residual


@pytest.mark.parametrize(("items", "sd"), [(200, 0.8), (200, 0.0), (2000, 0.5)])
def test_few_looks_at_the_rows_find_what_a_look_a_round_finds(items, sd):
    _, kept = rows(items=items, sd=sd)
    np.testing.assert_allclose(found(kept), with_a_look_a_round(kept), atol=2e-3)


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
