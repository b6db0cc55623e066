"""The bootstrap by user against brute force, the delta method, and the truth."""

import re

import numpy as np
import pytest

from sameworld.maths import bootstrap
from sameworld.maths.bootstrap import (
    effective_sample_size,
    ratio_replicates,
    replicate_sums,
    statistic_replicates,
    sums_by_user,
    user_bootstrap,
    user_bootstrap_difference,
    user_bootstrap_statistic,
)
from sameworld.maths.ranking import auc
from sameworld.records import Refused


def visits(*, seed, users=200, spread=0.5):
    """Rows of users who differ: click (0/1) by a rate of the user's own, and the user; 1..9 rows each."""
    generator = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), generator.integers(1, 10, users))
    rate = np.clip(0.5 + spread * generator.uniform(-1, 1, users), 0, 1)
    return (generator.random(len(user)) < rate[user]).astype(float), np.ones(len(user)), user


def width(estimate):
    return estimate.high - estimate.low


def test_replicates_equal_a_loop_over_users_with_the_same_weights():
    click, ones, user = visits(seed=1, users=30)
    got = ratio_replicates(click, ones, user, seed=5, replicates=50).draws[:, 0]
    generator = np.random.Generator(np.random.PCG64(5))
    for replicate in range(50):
        weight = generator.poisson(1.0, 30)
        rows = [row for row in range(len(user)) for _ in range(weight[user[row]])]
        assert got[replicate] == pytest.approx(np.mean(click[rows]))


def test_the_interval_has_the_width_of_the_delta_method_by_user():
    click, ones, user = visits(seed=2, users=3000)
    residual = np.bincount(user, weights=click - click.mean())
    standard_error = np.sqrt(np.sum(residual**2)) / len(user)
    assert width(user_bootstrap(click, ones, user, seed=1, replicates=2000)) == pytest.approx(
        2 * 1.96 * standard_error, rel=0.08
    )


def test_intervals_by_user_cover_the_truth_and_intervals_by_row_do_not():
    hit = {"user": 0, "row": 0}
    for seed in range(200):
        click, ones, user = visits(seed=seed, users=150)
        for unit, codes in (("user", user), ("row", np.arange(len(user)))):
            estimate = user_bootstrap(click, ones, codes, seed=seed, replicates=200)
            hit[unit] += estimate.low <= 0.5 <= estimate.high
    three_sigma = 3 * np.sqrt(0.95 * 0.05 / 200)
    assert abs(hit["user"] / 200 - 0.95) < three_sigma
    assert hit["row"] / 200 < 0.95 - three_sigma


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    rows = visits(seed=3)
    assert user_bootstrap(*rows, seed=1) == user_bootstrap(*rows, seed=1)
    assert user_bootstrap(*rows, seed=1) != user_bootstrap(*rows, seed=2)


def test_the_order_of_rows_and_the_names_of_users_do_not_matter():
    click, ones, user = visits(seed=4)
    order = np.random.default_rng(0).permutation(len(user))
    assert user_bootstrap(click[order], ones, 10 * user[order] + 7, seed=1) == user_bootstrap(click, ones, user, seed=1)


def test_the_size_of_a_chunk_changes_no_weight(monkeypatch):
    rows = visits(seed=5)
    whole = ratio_replicates(*rows, seed=1).draws
    monkeypatch.setattr(bootstrap, "CHUNK_WEIGHTS", 700)
    assert np.array_equal(ratio_replicates(*rows, seed=1).draws, whole)


def test_more_users_than_units_are_drawn_in_groups_with_the_same_width(monkeypatch):
    rows = visits(seed=6, users=6000)
    single = user_bootstrap(*rows, seed=1, replicates=1000)
    monkeypatch.setattr(bootstrap, "MAX_UNITS", 1000)
    grouped = user_bootstrap(*rows, seed=1, replicates=1000)
    assert grouped.value == pytest.approx(single.value)
    assert grouped != single
    assert width(grouped) == pytest.approx(width(single), rel=0.1)


def test_grouped_users_have_the_same_weights_in_sums_and_in_statistics(monkeypatch):
    monkeypatch.setattr(bootstrap, "MAX_UNITS", 20)
    worth = np.random.default_rng(7).random(90)
    sums = replicate_sums(worth[:, None], seed=1, replicates=50).draws
    statistic = statistic_replicates(lambda weights: (weights * worth).sum(), 90, seed=1, replicates=50).draws
    assert statistic == pytest.approx(sums)


def test_columns_are_added_as_ratios():
    generator = np.random.default_rng(8)
    top, bottom, user = generator.random((50, 3)), 1.0 + generator.random((50, 3)), np.arange(50)
    assert user_bootstrap(top, bottom, user, seed=1).value == pytest.approx((top.sum(0) / bottom.sum(0)).sum())
    one = user_bootstrap(top, bottom[:, 0], user, seed=1)
    assert one.value == pytest.approx(user_bootstrap(top.sum(1), bottom[:, 0], user, seed=1).value)
    assert one.high == pytest.approx(user_bootstrap(top.sum(1), bottom[:, 0], user, seed=1).high)


def test_a_paired_difference_is_exactly_0_for_the_same_thing_and_narrower_than_unpaired():
    click, ones, user = visits(seed=9)
    same = user_bootstrap_difference((click, ones), (click, ones), user, seed=1)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    better = np.where(np.arange(len(click)) % 20 == 0, 1.0, click)
    paired = user_bootstrap_difference((better, ones), (click, ones), user, seed=1)
    assert paired.value == pytest.approx(better.mean() - click.mean())
    assert width(paired) < 0.5 * width(user_bootstrap(click, ones, user, seed=1))


def test_a_statistic_of_weights_agrees_with_the_ratio_it_computes():
    click, ones, user = visits(seed=10)
    [estimate] = user_bootstrap_statistic(lambda w: np.average(click, weights=w[user]), 200, seed=1)
    ratio = user_bootstrap(click, ones, user, seed=1)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((ratio.value, ratio.low, ratio.high))


def test_a_sample_that_the_statistic_refuses_is_left_out():
    y, score = np.array([1.0, 0.0, 0.0, 1.0, 0.0, 0.0]), np.array([3.0, 1.0, 2.0, 2.0, 0.0, 1.0])
    replicates = statistic_replicates(lambda w: auc(y, score, w), 6, seed=1)
    undefined = np.isnan(replicates.draws).mean()
    assert 0.0 < undefined < 0.5  # about e^-2 of the samples have no positive
    [estimate] = replicates.estimates()
    assert estimate.value == auc(y, score)
    assert 0.0 <= estimate.low <= estimate.high <= 1.0


def test_one_user_has_no_interval():
    with pytest.raises(Refused, match=re.escape("no interval by user: got 1 user; wanted at least 2 users")):
        user_bootstrap([1.0, 0.0], [1.0, 1.0], np.array([3, 3]), seed=1)
    with pytest.raises(Refused, match=re.escape("no interval by user: got 0 users")):
        user_bootstrap([], [], np.array([], dtype=int), seed=1)


def test_a_denominator_of_0_is_refused():
    with pytest.raises(Refused, match=re.escape("no interval: the statistic is undefined: got value nan")):
        user_bootstrap([0.0, 0.0], [0.0, 0.0], np.array([0, 1]), seed=1)


def test_a_denominator_that_most_samples_lack_is_refused():
    class_of_one = np.eye(3)[0]
    estimate = user_bootstrap(class_of_one, class_of_one, np.arange(3), seed=1)  # 37 % of samples lack the user
    assert estimate.value == 1.0
    with pytest.raises(Refused, match=re.escape("defined in")):
        user_bootstrap(np.eye(3), np.eye(3), np.arange(3), seed=1)  # 75 % of samples lack one of the three


def test_numbers_that_are_not_finite_and_too_few_replicates_are_refused():
    with pytest.raises(Refused, match=re.escape("sums that are not finite: got 1 NaN or infinite entries")):
        user_bootstrap([np.nan, 1.0], [1.0, 1.0], np.array([0, 1]), seed=1)
    with pytest.raises(Refused, match=re.escape("too few bootstrap replicates for a 95 % interval: got 39")):
        user_bootstrap([0.0, 1.0], [1.0, 1.0], np.array([0, 1]), seed=1, replicates=39)


def test_sums_by_user_equal_brute_force():
    columns, user = np.random.default_rng(11).random((40, 2)), np.random.default_rng(12).integers(5, 9, 40)
    by_hand = [columns[user == u].sum(axis=0) for u in sorted(set(user.tolist()))]
    assert sums_by_user(columns, user) == pytest.approx(np.array(by_hand))


def test_the_effective_sample_size_is_that_of_equal_weights_and_0_without_any():
    assert effective_sample_size(np.full(7, 3.0)) == pytest.approx(7.0)
    assert effective_sample_size(np.array([5.0, 0.0])) == 1.0
    assert effective_sample_size(np.zeros(3)) == 0.0
