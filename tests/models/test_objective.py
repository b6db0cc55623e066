"""The likelihood against finite differences, LightGBM's own binary objective, and a known truth."""

import lightgbm as lgb
import numpy as np
import pytest
from models import tiny
from scipy.special import expit

from sameworld.models import objective
from sameworld.models.objective import ExposedLikelihood, exposed_gradients, exposed_log_loss, starting_logit
from sameworld.models.training import fit_probability


def draws(n=200, seed=0):
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.4).astype(float)
    return rng.normal(0, 2, n), y, rng.uniform(0.02, 1.0, n), rng.uniform(0.2, 5.0, n)


def loss_of_each(raw, y, exposure, weight):
    """Loss row by row, straight from the definition."""
    p = exposure * expit(raw)
    return weight * -np.where(y > 0, np.log(p), np.log1p(-p))


def test_the_gradient_equals_the_finite_difference_of_the_loss():
    raw, y, exposure, weight = draws()
    step = 1e-5
    up, down = (loss_of_each(raw + side, y, exposure, weight) for side in (step, -step))
    gradient, _ = exposed_gradients(raw, y, exposure, weight)
    np.testing.assert_allclose(gradient, (up - down) / (2 * step), rtol=1e-6, atol=1e-8)


def test_the_curvature_is_positive_and_exact_for_the_expected_row_at_full_exposure():
    raw, y, exposure, weight = draws()
    assert (exposed_gradients(raw, y, exposure, weight)[1] > 0).all()
    p = expit(raw)
    np.testing.assert_allclose(exposed_gradients(raw, y, np.ones_like(raw), weight)[1], weight * p * (1 - p))


def posterior_gradients(raw, y, exposure, weight):
    """The slope p − q and its curvature as the papers write them, in 64 bits."""
    p = expit(raw)
    q = y + (1 - y) * p * (1 - exposure) / (1 - p * exposure)
    return weight * (p - q), weight * np.maximum(p * (1 - p) * (y + (1 - y) * exposure), objective.SMALLEST_HESSIAN)


def test_gradients_in_32_bits_are_those_of_64_as_far_as_lightgbm_reads_them(monkeypatch):
    monkeypatch.setattr(objective, "BLOCK_ROWS", 64)
    rows = draws(1000)
    found = ExposedLikelihood.of(*rows[1:]).gradients(rows[0])
    assert [one.dtype for one in found] == [np.float32, np.float32]
    for one, wanted in zip(found, posterior_gradients(*rows), strict=True):
        np.testing.assert_allclose(one, wanted, rtol=3e-6)


def test_blocks_of_rows_change_no_bit(monkeypatch):
    rows = draws(1000)
    whole = ExposedLikelihood.of(*rows[1:]).gradients(rows[0])
    monkeypatch.setattr(objective, "BLOCK_ROWS", 17)
    np.testing.assert_array_equal(ExposedLikelihood.of(*rows[1:]).gradients(rows[0]), whole)


def test_extreme_scores_and_exposures_stay_finite():
    raw = np.array([-700.0, 700.0, 700.0, -700.0])
    gradient, curvature = exposed_gradients(raw, np.array([1.0, 0, 1, 0]), np.array([1.0, 1.0, 1e-9, 1e-9]), np.ones(4))
    assert np.isfinite([gradient, curvature]).all()
    assert np.isfinite(exposed_log_loss(raw, np.array([1.0, 0, 1, 0]), np.ones(4), np.ones(4)))


def test_the_loss_is_the_weighted_mean_and_weight_two_is_the_row_twice():
    raw, y, exposure, weight = draws()
    assert exposed_log_loss(raw, y, exposure, weight) == pytest.approx(
        loss_of_each(raw, y, exposure, weight).sum() / weight.sum()
    )
    twice = [np.concatenate([column, column[:50]]) for column in (raw, y, exposure)]
    doubled = np.concatenate([np.full(50, 2.0), np.ones(150)])
    assert exposed_log_loss(*twice, np.ones(250)) == pytest.approx(exposed_log_loss(raw, y, exposure, doubled))


def test_boosting_starts_where_the_expected_outcomes_equal_the_observed():
    _, y, exposure, weight = draws()
    start = starting_logit(y, exposure, weight)
    assert (weight * exposure * expit(start)).sum() == pytest.approx((weight * y).sum())


def test_the_start_is_finite_where_more_is_seen_than_exposure_allows():
    assert starting_logit(np.ones(3), np.full(3, 0.1), np.ones(3)) == pytest.approx(np.log((1 - 1e-6) / 1e-6))


def structure(text):
    keys = ("split_feature=", "threshold=", "left_child=", "right_child=", "leaf_count=")
    return [line for line in text.splitlines() if line.startswith(keys)]


def test_at_full_exposure_the_trees_are_those_of_lightgbms_own_binary_objective():
    rows = tiny.rows()
    fitted = fit_probability(rows, **tiny.FIT)
    data = lgb.Dataset(
        rows.matrix, rows.target, init_score=np.full(len(rows.target), fitted.start), categorical_feature=[0]
    )
    own = {**tiny.SETTINGS, "objective": "binary", "boost_from_average": False, "deterministic": True, "verbosity": -1}
    other = lgb.train({**own, "force_row_wise": True}, data, num_boost_round=20)
    assert structure(fitted.text) == structure(other.model_to_string())
    mine = lgb.Booster(model_str=fitted.text).predict(rows.matrix, raw_score=True)
    np.testing.assert_allclose(mine, other.predict(rows.matrix, raw_score=True), atol=1e-5)


def test_relevance_is_recovered_from_clicks_under_a_known_exposure():
    rows = tiny.rows(requests=4000, theta=[1.0, 0.6, 0.45, 0.35, 0.25, 0.2, 0.15, 0.1])
    fitted = fit_probability(rows, **{**tiny.FIT, "max_rounds": 60})
    colour, price = np.meshgrid([0.0, 1.0, 2.0], np.linspace(-1.5, 1.5, 13))
    grid = np.stack([colour.ravel(), price.ravel()], axis=1)
    found = expit(fitted.start + lgb.Booster(model_str=fitted.text).predict(grid, raw_score=True))
    assert np.abs(found - tiny.truth(*grid.T)).mean() < 0.04
    assert found.mean() == pytest.approx(tiny.truth(*grid.T).mean(), abs=0.02)


def test_clicks_taken_as_relevance_are_far_from_it_where_exposure_is_low():
    rows = tiny.rows(requests=4000, theta=[1.0, 0.6, 0.45, 0.35, 0.25, 0.2, 0.15, 0.1])
    seen = tiny.truth(*rows.matrix.T).mean()
    assert rows.target.mean() < 0.5 * seen
    assert expit(starting_logit(rows.target, rows.exposure, rows.weight)) == pytest.approx(seen, rel=0.03)
