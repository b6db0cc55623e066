"""Sampled negatives: what the weights keep, what is drawn, and that what judges and calibrates is the whole log."""

import numpy as np
import pytest
from models import tiny
from scipy.special import expit

from sameworld.models.negatives import sampled_negatives
from sameworld.models.training import Rows, fit_probability


def log(n=60_000, seed=0):
    """Rows of positions 1 to 8 with a rare target: target and exposure."""
    rng, exposure = np.random.default_rng(seed), np.tile(1.0 / np.arange(1, 9), n // 8)
    return (rng.random(n) < 0.05 * exposure).astype(float), exposure


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.9])
def test_the_share_of_negatives_kept_is_the_rate_and_every_positive_stays(rate):
    target, exposure = log()
    kept, _ = sampled_negatives(target, np.ones(len(target), bool), worth=exposure, rate=rate, seed=1)
    assert kept[target == 1].all()
    assert kept[target == 0].mean() == pytest.approx(rate, abs=0.01)


def test_what_the_negatives_are_worth_is_kept_beside_what_the_positives_are():
    target, exposure = log()
    negative = target == 0
    kept, factor = sampled_negatives(target, np.ones(len(target), bool), worth=exposure, rate=0.1, seed=1)
    for position in (1.0, 0.5, 0.125):
        here = negative & (exposure == position)
        odds = (factor * exposure)[here & kept].sum() / factor[target == 1].mean()
        assert odds == pytest.approx(exposure[here].sum(), rel=0.1)


def test_seldom_seen_negatives_are_kept_in_proportion_to_their_exposure():
    target, exposure = log()
    kept, _ = sampled_negatives(target, np.ones(len(target), bool), worth=exposure, rate=0.1, seed=1)
    share = [kept[(target == 0) & (exposure == place)].mean() for place in (1.0, 0.5, 0.25)]
    np.testing.assert_allclose(np.array(share) / share[0], [1.0, 0.5, 0.25], atol=0.06)


def test_rows_that_were_not_chosen_are_never_kept_and_the_draw_is_the_same_again():
    target, exposure = log()
    some = np.arange(len(target)) % 2 == 0
    kept, _ = sampled_negatives(target, some, worth=exposure, rate=0.5, seed=1)
    again, _ = sampled_negatives(target, some, worth=exposure, rate=0.5, seed=1)
    assert not kept[~some].any()
    np.testing.assert_array_equal(kept, again)


def test_the_factors_shrink_as_the_variance_of_the_log_odds_grows():
    """The spread of the estimated log-odds over 400 draws of sample and outcomes, against 1 / (a · factor)."""
    exposure, every = np.ones(4000), np.ones(4000, bool)
    found, told = [], []
    for seed in range(400):
        target = (np.random.default_rng(seed).random(4000) < 0.1).astype(float)
        kept, factor = sampled_negatives(target, every, worth=exposure, rate=0.1, seed=seed + 10_000)
        weight = factor * kept
        found.append(np.log(weight[target == 1].sum() / weight[target == 0].sum()))
        told.append(1.0 / (target.sum() * factor[target == 1][0]))
    assert np.var(found) == pytest.approx(np.mean(told), rel=0.2)


def test_a_rate_of_one_changes_nothing():
    target, exposure = log()
    kept, factor = sampled_negatives(target, exposure > 0.2, worth=exposure, rate=1.0, seed=1)
    np.testing.assert_array_equal(kept, exposure > 0.2)
    assert (factor == 1.0).all()


def of_some(rows: Rows, kept, weight) -> Rows:
    """The kept rows; the probability model asks for no lists."""
    parts = {name: getattr(rows, name)[kept] for name in ("matrix", "target", "gain", "exposure", "position")}
    return Rows(**parts, weight=weight[kept], sizes=np.array([int(kept.sum())]))


def test_a_model_of_a_tenth_of_the_negatives_says_what_the_whole_logs_model_says():
    rows = tiny.rows(requests=6000, theta=1.0 / np.arange(1, 9))
    every = np.ones(len(rows.target), bool)
    kept, factor = sampled_negatives(rows.target, every, worth=rows.exposure, rate=0.1, seed=1)
    models = [fit_probability(one, **tiny.FIT) for one in (rows, of_some(rows, kept, factor))]
    new = tiny.rows(requests=500, seed=9)
    raw = [one.start + tiny.lgb.Booster(model_str=one.text).predict(new.matrix, raw_score=True) for one in models]
    whole, sampled = (expit(one).mean() for one in raw)
    assert sampled == pytest.approx(whole, rel=0.03)
    bare = fit_probability(of_some(rows, kept, np.ones(len(kept))), **tiny.FIT)
    wrong = bare.start + tiny.lgb.Booster(model_str=bare.text).predict(new.matrix, raw_score=True)
    assert expit(wrong).mean() > 1.5 * whole
