"""Propensities against enumeration, high-precision arithmetic and drawn frequencies."""

import math
import re
from decimal import Decimal, getcontext
from itertools import combinations, permutations

import numpy as np
import pytest
from scipy.stats import chisquare, kstest

from sameworld.maths.policy import position_marginals, prefix_log_propensities, prefix_log_propensity, sample_orders
from sameworld.records import Refused

NAN = np.nan
TAUS = [0.05, 0.1, 0.3, 1.0, 10.0]


def scores(n, m, seed=0):
    return np.random.default_rng(seed).normal(size=(n, m))


def chance(row, order, tau, epsilon):
    """Probability of a whole order, straight from the definition of Plackett-Luce."""
    weight = np.exp(np.asarray(row) / tau)
    left = [weight[list(order[j:])].sum() for j in range(len(order))]
    return (1 - epsilon) * np.prod(weight[list(order)] / left) + epsilon / math.factorial(len(order))


def enumerated_marginals(row, tau, epsilon):
    """Item-at-position probabilities, shape (m, m), by summing over all orders."""
    table = np.zeros((len(row), len(row)))
    for order in permutations(range(len(row))):
        table[order, range(len(row))] += chance(row, order, tau, epsilon)
    return table


def subset_marginals(row, tau, depth):
    """Plackett-Luce item-at-rank probabilities by a recursion over the sets of items shown so far."""
    weight, m = np.exp((row - row.max()) / tau), len(row)
    table, reached = np.zeros((m, depth)), {(): 1.0}
    for rank in range(depth):
        following = dict.fromkeys(combinations(range(m), rank + 1), 0.0)
        for shown, share in reached.items():
            left = [i for i in range(m) if i not in shown]
            for i, part in zip(left, weight[left] / weight[left].sum(), strict=True):
                table[i, rank] += share * part
                following[tuple(sorted((*shown, i)))] += share * part
        reached = following
    return table


@pytest.mark.parametrize("epsilon", [0.0, 0.02, 1.0])
@pytest.mark.parametrize("tau", TAUS)
def test_the_propensities_of_all_orders_sum_to_one(tau, epsilon):
    orders = np.array(list(permutations(range(5))))
    table = np.tile(scores(1, 5, seed=3), (len(orders), 1))
    total = np.exp(prefix_log_propensity(table, orders, 5, tau=tau, epsilon=epsilon)).sum()
    assert total == pytest.approx(1.0, abs=1e-12)


def test_every_order_has_the_probability_that_the_definition_gives():
    row, orders = scores(1, 4)[0], list(permutations(range(4)))
    found = prefix_log_propensity(np.tile(row, (24, 1)), np.array(orders), 4, tau=0.7, epsilon=0.1)
    np.testing.assert_allclose(np.exp(found), [chance(row, order, 0.7, 0.1) for order in orders], rtol=1e-12)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_prefix_has_the_probability_of_all_orders_that_begin_with_it(k):
    row, orders = scores(1, 5, seed=2)[0], list(permutations(range(5)))
    wanted = sum(chance(row, order, 0.5, 0.2) for order in orders if order[:k] == (4, 0, 2)[:k])
    found = prefix_log_propensities([row], [[4, 0, 2]], 3, tau=0.5, epsilon=0.2)[0, k - 1]
    assert math.exp(found) == pytest.approx(wanted, rel=1e-12)


def test_scores_thousands_of_tau_apart_lose_no_digits():
    """Oracle: the same sum in 60-digit decimal arithmetic."""
    getcontext().prec = 60
    row, order = [2.0, -1.5, 1.999, -1.4995, 0.25], [1, 3, 4, 0, 2]
    weight = [(Decimal(value) * 1000).exp() for value in row]
    wanted = sum(((weight[i] / sum(weight[j] for j in order[at:])).ln() for at, i in enumerate(order)), Decimal(0))
    found = prefix_log_propensity([row], [order], 5, tau=0.001, epsilon=0.0)[0]
    assert found == pytest.approx(float(wanted), rel=1e-13)


def test_absent_candidates_and_short_orders_end_the_prefix():
    ragged, full = [[0.3, NAN, 1.2, -0.5]], [[0.3, 1.2, -0.5]]
    wanted = prefix_log_propensities(full, [[1, 0, 2]], 3, tau=0.4, epsilon=0.1)[0]
    found = prefix_log_propensities(ragged, [[2, 0, 3, -1]], 4, tau=0.4, epsilon=0.1)[0]
    cut = prefix_log_propensities(ragged, [[2, 0, -1, -1]], 4, tau=0.4, epsilon=0.1)[0]
    np.testing.assert_allclose(found, [*wanted, wanted[2]], rtol=1e-14)
    np.testing.assert_allclose(cut, [wanted[0], wanted[1], wanted[1], wanted[1]], rtol=1e-14)


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_drawn_orders_are_as_frequent_as_their_propensity_says(epsilon):
    table = np.tile(scores(1, 4, seed=5), (40_000, 1))
    orders, shuffled = sample_orders(table, tau=0.8, epsilon=epsilon, seed=11)
    every = np.array(list(permutations(range(4))))
    counts = (orders[:, None, :] == every).all(axis=2).sum(axis=0)
    chances = np.exp(prefix_log_propensity(table[:24], every, 4, tau=0.8, epsilon=epsilon))
    assert chisquare(counts, chances / chances.sum() * 40_000).pvalue > 0.001
    assert shuffled.mean() == pytest.approx(epsilon, abs=0.01)


def test_draws_with_one_seed_each_depend_on_their_own_row_alone():
    table, seeds = scores(50, 6), np.arange(50) * 7919 - 100
    orders, shuffled = sample_orders(table, tau=0.5, epsilon=0.5, seed=seeds)
    some = np.array([41, 3, 17])
    again, branch = sample_orders(table[some], tau=0.5, epsilon=0.5, seed=seeds[some])
    np.testing.assert_array_equal(again, orders[some])
    np.testing.assert_array_equal(branch, shuffled[some])


def test_one_seed_gives_different_draws_to_each_request_and_the_same_to_each_run():
    table = np.zeros((2000, 5))
    orders, _ = sample_orders(table, tau=1.0, epsilon=0.0, seed=1)
    np.testing.assert_array_equal(orders, sample_orders(table, tau=1.0, epsilon=0.0, seed=1)[0])
    assert len(np.unique(orders, axis=0)) == 120
    assert (orders != sample_orders(table, tau=1.0, epsilon=0.0, seed=2)[0]).any(axis=1).mean() > 0.95


def test_the_top_of_a_list_under_neighbouring_seeds_is_as_random_as_it_should_be():
    """The rank of one of 100 equal candidates, over consecutive seeds, against uniform."""
    orders, _ = sample_orders(np.zeros((5000, 100)), tau=1.0, epsilon=0.0, seed=np.arange(5000))
    assert kstest((orders[:, 0] + 0.5) / 100, "uniform").pvalue > 0.001


def test_absent_candidates_are_never_drawn():
    table = np.array([[0.0, NAN, 1.0], [NAN, NAN, 5.0], [NAN, NAN, NAN]])
    orders, _ = sample_orders(table, tau=0.5, epsilon=0.5, seed=0)
    assert sorted(orders[0].tolist()) == [-1, 0, 2]
    assert orders[1:].tolist() == [[2, -1, -1], [-1, -1, -1]]


@pytest.mark.parametrize("epsilon", [0.0, 0.02, 1.0])
@pytest.mark.parametrize("tau", TAUS)
def test_marginals_equal_the_sum_over_all_orders(tau, epsilon):
    table = scores(6, 5, seed=8)
    found = position_marginals(table, tau=tau, epsilon=epsilon, positions=5)
    wanted = np.array([enumerated_marginals(row, tau, epsilon) for row in table])
    np.testing.assert_allclose(found, wanted, atol=1e-8)


@pytest.mark.parametrize("tau", TAUS)
@pytest.mark.parametrize("depth", [1, 3, 11])
def test_marginals_of_longer_lists_equal_the_recursion_over_sets(tau, depth):
    table = scores(2, 11, seed=9)
    found = position_marginals(table, tau=tau, epsilon=0.0, positions=depth)
    np.testing.assert_allclose(found, [subset_marginals(row, tau, depth) for row in table], atol=1e-8)


def test_marginals_are_a_distribution_over_candidates_and_over_positions():
    found = position_marginals(scores(40, 24), tau=0.2, epsilon=0.02, positions=24)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-8)
    np.testing.assert_allclose(found.sum(axis=2), 1.0, atol=1e-8)
    assert found.min() >= 0.02 / 24


@pytest.mark.parametrize(("tau", "nodes"), [(0.3, 64), (0.1, 128)])
def test_the_stated_nodes_suffice_on_standardised_scores(tau, nodes):
    few = position_marginals(scores(30, 24), tau=tau, epsilon=0.0, positions=8, nodes=nodes)
    many = position_marginals(scores(30, 24), tau=tau, epsilon=0.0, positions=8, nodes=1000)
    np.testing.assert_allclose(few, many, atol=1e-8)


def test_ragged_marginals_equal_those_of_the_list_without_the_gaps():
    ragged = np.array([[0.3, NAN, 1.2, -0.5, NAN], [NAN] * 5, [NAN, 2.0, NAN, NAN, NAN]])
    found = position_marginals(ragged, tau=0.4, epsilon=0.1, positions=5)
    np.testing.assert_allclose(found[0][[0, 2, 3], :3], enumerated_marginals([0.3, 1.2, -0.5], 0.4, 0.1), atol=1e-8)
    assert found[2, 1, 0] == pytest.approx(1.0)
    assert found.sum() == pytest.approx(4.0)


def test_an_outlier_a_billion_away_leaves_the_other_marginals_as_they_are():
    found = position_marginals([[0.1, -1e9, 0.0, 1e9]], tau=0.1, epsilon=0.0, positions=4)[0]
    top = 1 / (1 + math.exp(-1.0))
    wanted = [[0, top, 1 - top, 0], [0, 0, 0, 1], [0, 1 - top, top, 0], [1, 0, 0, 0]]
    np.testing.assert_allclose(found, wanted, atol=1e-8)


def test_tau_and_epsilon_may_differ_by_request_and_blocks_do_not_show():
    table, tau, epsilon = scores(700, 6), np.tile([0.1, 0.5, NAN], 234)[:700], np.tile([0.0, 0.2, 1.0], 234)[:700]
    found = position_marginals(table, tau=tau, epsilon=epsilon, positions=3)
    for row in (0, 1, 2, 699):
        alone = position_marginals(table[[row]], tau=tau[row], epsilon=epsilon[row], positions=3)[0]
        np.testing.assert_allclose(found[row], alone, atol=1e-13)


def test_the_first_position_agrees_with_the_prefix_of_length_one():
    table = scores(9, 7)
    marginals = position_marginals(table, tau=0.3, epsilon=0.05, positions=1)[:, 4, 0]
    prefix = prefix_log_propensity(table, np.full((9, 1), 4), 1, tau=0.3, epsilon=0.05)
    np.testing.assert_allclose(np.log(marginals), prefix, rtol=1e-12)


def test_drawn_items_stand_at_positions_as_often_as_the_marginals_say():
    table = np.tile(scores(1, 6, seed=4), (40_000, 1))
    orders, _ = sample_orders(table, tau=0.6, epsilon=0.1, seed=3)
    wanted = position_marginals(table[:1], tau=0.6, epsilon=0.1, positions=6)[0]
    for position in range(6):
        counts = np.bincount(orders[:, position], minlength=6)
        assert chisquare(counts, wanted[:, position] / wanted[:, position].sum() * 40_000).pvalue > 0.0005


@pytest.mark.parametrize(
    ("tau", "epsilon", "words"),
    [
        (None, 0.1, "the logging policy is not known: got tau null in 2 of 2 requests"),
        ([0.3, NAN], 0.1, "tau null in 1 of 2 requests"),
        (0.3, None, "the logging policy is not known: got epsilon null or outside [0, 1] in 2 of 2"),
        (0.3, 1.2, "epsilon null or outside [0, 1]"),
        (0.0, 0.1, "the logging policy was deterministic: got tau 0"),
        (-1.0, 0.1, "tau below 0"),
    ],
)
def test_a_policy_without_propensities_is_refused_in_words(tau, epsilon, words):
    with pytest.raises(Refused, match=re.escape(words)):
        position_marginals(np.zeros((2, 3)), tau=tau, epsilon=epsilon, positions=2)
    with pytest.raises(Refused, match=re.escape(words)):
        sample_orders(np.zeros((2, 3)), tau=tau, epsilon=epsilon, seed=0)


@pytest.mark.parametrize("order", [[0, 0, 1], [0, 3, 1], [0, 1, 4], [0, -1, 1]])
def test_an_order_that_is_no_order_of_its_candidates_is_refused(order):
    with pytest.raises(Refused, match=re.escape("a shown order is no order of its candidates: got 1 such")):
        prefix_log_propensities([[0.0, 1.0, 2.0, NAN]], [order], 3, tau=1.0, epsilon=0.0)


def test_infinite_scores_and_impossible_sizes_are_refused():
    with pytest.raises(Refused, match=re.escape("an infinite value in 1 of 2 requests")):
        position_marginals([[np.inf, 0.0], [0.0, 0.0]], tau=1.0, epsilon=0.0, positions=1)
    with pytest.raises(Refused, match=re.escape("marginals need a position")):
        position_marginals([[0.0]], tau=1.0, epsilon=0.0, positions=0)
    with pytest.raises(Refused, match=re.escape("there is no such prefix: got k = 3")):
        prefix_log_propensities([[0.0, 1.0]], [[0, 1]], 3, tau=1.0, epsilon=0.0)


def test_no_propensity_exceeds_one_where_the_order_is_certain():
    table = np.random.default_rng(1).uniform(0, 400, size=(500, 3))
    orders, _ = sample_orders(table, tau=0.5, epsilon=0.0, seed=0)
    assert prefix_log_propensities(table, orders, 3, tau=0.5, epsilon=0.0).max() <= 0
    assert position_marginals(table, tau=0.5, epsilon=0.02, positions=3).max() <= 1
