"""Examination recovered in a world whose examination is known."""

import re

import numpy as np
import pytest
from scipy.stats import binomtest

from sameworld.maths.policy import position_marginals, sample_orders
from sameworld.maths.position import examination_all_pairs, examination_from_propensities
from sameworld.records import Refused

THETA = np.array([1.0, 0.5, 0.333, 0.25, 0.2])
K = len(THETA)
POLICY = {"tau": 0.5, "epsilon": 0.1}


def candidates(n, m=8, seed=0):
    """Scores that follow relevance, and each candidate's marginals under the policy."""
    table = np.random.default_rng(seed).normal(size=(n, m))
    return table, position_marginals(table, **POLICY, positions=K)


def log(table, marginals, seed=0):
    """Shown rows: position, clicked, marginals (rows, K), user (three requests each)."""
    rng = np.random.default_rng(seed)
    rows = np.arange(len(table))[:, None]
    shown = sample_orders(table, **POLICY, seed=seed)[0][:, :K]
    relevance = 1 / (1 + np.exp(0.5 - 1.2 * table[rows, shown]))
    clicked = rng.random(shown.shape) < THETA * relevance
    position = np.tile(np.arange(1, K + 1), len(table))
    return position, clicked.ravel(), marginals[rows, shown].reshape(-1, K), np.repeat(np.arange(len(table)) // 3, K)


def own(position, marginals):
    return marginals[np.arange(len(position)), position - 1]


def values(estimates):
    return np.array([estimate.value for estimate in estimates])


def test_both_estimators_recover_the_truth_that_raw_click_rates_miss():
    position, clicked, marginals, users = log(*candidates(50_000))
    pairs = examination_all_pairs(position, clicked, marginals, user_codes=users, seed=0)
    weighted = examination_from_propensities(position, clicked, own(position, marginals), user_codes=users, seed=0)
    rates = np.array([clicked[position == k].mean() for k in range(1, K + 1)])
    np.testing.assert_allclose(values(pairs), THETA, rtol=0.05)
    np.testing.assert_allclose(values(weighted), THETA, rtol=0.08)
    assert (rates[1:] / rates[0] < 0.9 * THETA[1:]).all()


@pytest.mark.parametrize("method", ["pairs", "weights"])
def test_the_intervals_cover_the_truth_as_often_as_they_say(method):
    """One set of requests, orders and clicks drawn anew 120 times."""
    table, marginals = candidates(3000)
    hits = np.zeros(K - 1, dtype=int)
    for seed in range(120):
        position, clicked, shown, users = log(table, marginals, seed)
        if method == "pairs":
            found = examination_all_pairs(position, clicked, shown, user_codes=users, seed=seed)
        else:
            found = examination_from_propensities(position, clicked, own(position, shown), user_codes=users, seed=seed)
        hits += [e.low <= theta <= e.high for e, theta in zip(found[1:], THETA[1:], strict=True)]
    assert min(binomtest(int(hit), 120, 0.95).pvalue for hit in hits) > 0.001


def test_the_first_position_is_one_without_an_interval():
    position, clicked, marginals, users = log(*candidates(2000))
    first = examination_all_pairs(position, clicked, marginals, user_codes=users, seed=0)[0]
    assert (first.value, first.low, first.high) == (1.0, 1.0, 1.0)


def test_two_positions_give_the_ratio_of_overlap_weighted_click_rates():
    position, clicked, marginals, users = log(*candidates(2000))
    found = examination_all_pairs(position, clicked, marginals[:, :2], user_codes=users, seed=0)[1].value
    weight = marginals[:, [1, 0]] / marginals[:, :2].sum(axis=1, keepdims=True)
    rate = [np.average(clicked[position == k], weights=weight[position == k, k - 1]) for k in (1, 2)]
    assert found == pytest.approx(rate[1] / rate[0], rel=1e-12)


def test_rows_that_could_not_be_swapped_change_nothing():
    position, clicked, marginals, users = log(*candidates(2000))
    fixed = np.eye(K)[position[:500] - 1]
    wanted = examination_all_pairs(position, clicked, marginals, user_codes=users, seed=0)
    more = [np.concatenate([a, b]) for a, b in ((position, position[:500]), (clicked, clicked[:500] | True))]
    codes = np.concatenate([users, users[:500]])
    found = examination_all_pairs(*more, np.concatenate([marginals, fixed]), user_codes=codes, seed=0)
    assert found == wanted


def test_the_same_seed_gives_the_same_interval_whatever_the_order_of_rows():
    position, clicked, marginals, users = log(*candidates(2000))
    mixed = np.random.default_rng(1).permutation(len(position))
    one = examination_all_pairs(position, clicked, marginals, user_codes=users, seed=3)
    other = examination_all_pairs(position[mixed], clicked[mixed], marginals[mixed], user_codes=users[mixed], seed=3)
    np.testing.assert_allclose([e.low for e in one], [e.low for e in other], rtol=1e-9)


def test_many_users_are_folded_without_moving_the_estimate_or_its_width():
    position, clicked, marginals, users = log(*candidates(50_000))
    share = own(position, marginals)
    single = examination_from_propensities(position, clicked, share, user_codes=np.arange(len(users)), seed=0)
    by_user = examination_from_propensities(position, clicked, share, user_codes=users, seed=0)
    np.testing.assert_allclose(values(single), values(by_user), rtol=1e-9)
    width = [np.array([e.high - e.low for e in found])[1:] for found in (single, by_user)]
    np.testing.assert_allclose(width[0], width[1], rtol=0.3)


def test_a_deterministic_log_is_refused_in_words():
    position, clicked, _, users = log(*candidates(500))
    words = "examination cannot be told from relevance: got propensity 1 on each of 2500 rows"
    with pytest.raises(Refused, match=re.escape(words)):
        examination_from_propensities(position, clicked, np.ones(len(position)), user_codes=users, seed=0)
    with pytest.raises(Refused, match=re.escape(words)):
        examination_all_pairs(position, clicked, np.eye(K)[position - 1], user_codes=users, seed=0)


def test_a_log_without_propensities_is_refused_in_words():
    position, clicked, marginals, users = log(*candidates(500))
    with pytest.raises(Refused, match=re.escape("got no propensities")):
        examination_from_propensities(position, clicked, own(position, marginals) * np.nan, user_codes=users, seed=0)


def test_positions_without_enough_clicks_are_named_with_their_counts():
    position, clicked, marginals, users = log(*candidates(2000))
    fourth = np.flatnonzero((position == 4) & clicked)
    clicked[fourth[3:]] = False
    words = "got position 4 has 3; wanted 10 at each position"
    with pytest.raises(Refused, match=re.escape(words)):
        examination_all_pairs(position, clicked, marginals, user_codes=users, seed=0)


def test_positions_that_are_never_swapped_with_the_first_are_named():
    position, clicked, marginals, users = log(*candidates(3000))
    blocks = np.zeros((K, K), dtype=bool)
    blocks[:3, :3] = blocks[3:, 3:] = True
    apart = np.where(blocks[position - 1], np.minimum(marginals, 0.5), 0.0)
    with pytest.raises(Refused, match=re.escape("too few clicks on swaps with positions 4, 5")):
        examination_all_pairs(position, clicked, apart, user_codes=users, seed=0)


def test_a_row_shown_against_its_propensity_is_refused():
    position, clicked, marginals, users = log(*candidates(500))
    marginals[7, position[7] - 1] = 0.0
    with pytest.raises(Refused, match=re.escape("rows were shown that could not be: got 1 rows")):
        examination_all_pairs(position, clicked, marginals, user_codes=users, seed=0)
