"""The loop's measures against brute force, planted trends, and what a simulated log's intervals really are."""

from __future__ import annotations

import functools
import itertools
import math
import re

import numpy as np
import pytest

from sameworld.maths.loop import (
    TargetRows,
    effective_share,
    feeds_on_itself,
    half_widths,
    shown_first,
    smallest_enough,
    trend,
)
from sameworld.maths.ope import SlateLog, iips_dr
from sameworld.maths.policy import position_marginals, sample_orders
from sameworld.records import Cannot, Estimate, Refused

THETA = np.array([1.0, 0.5, 0.33])


def share_by_hand(scores: list[float], tau: float, epsilon: float) -> float:
    """exp(entropy) over the number of candidates, in plain arithmetic."""
    weight = [math.exp(score / tau) for score in scores]
    chance = [(1 - epsilon) * one / sum(weight) + epsilon / len(scores) for one in weight]
    return math.exp(-sum(p * math.log(p) for p in chance)) / len(scores)


@pytest.mark.parametrize("seed", range(5))
def test_the_effective_share_is_that_of_plain_arithmetic_whatever_the_lists_length(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lists = [rng.normal(size=size).tolist() for size in (1, 3, 7)]
    table = np.array([[*one, *[np.nan] * (7 - len(one))] for one in lists])
    tau, epsilon = rng.uniform(0.2, 2.0, 3), rng.uniform(0.0, 1.0, 3)
    by_hand = [share_by_hand(*one) for one in zip(lists, tau.tolist(), epsilon.tolist(), strict=True)]
    np.testing.assert_allclose(effective_share(table, tau=tau, epsilon=epsilon), by_hand, rtol=1e-12)


def test_what_is_shown_first_is_the_policys_own_marginal() -> None:
    scores = np.random.default_rng(1).normal(size=(20, 6)) * 3.0
    marginals = position_marginals(scores, tau=0.4, epsilon=0.1, positions=1)[:, :, 0]
    np.testing.assert_allclose(shown_first(scores, tau=0.4, epsilon=0.1), marginals, atol=1e-12)


def test_a_certain_choice_is_one_of_many_and_a_shuffle_all_of_them() -> None:
    scores = [[1e6, 0.0, np.nan, -1e6]]
    for tau in (0.0, 0.1):
        assert effective_share(scores, tau=tau, epsilon=0.0)[0] == pytest.approx(1 / 3)
        assert effective_share(scores, tau=tau, epsilon=1.0)[0] == pytest.approx(1.0)
    assert np.isnan(effective_share([[np.nan, np.nan]], tau=1.0, epsilon=0.0)[0])


def test_of_equal_scores_a_greedy_policy_shows_the_first() -> None:
    assert shown_first([[1.0, 2.0, 2.0]], tau=0.0, epsilon=0.3)[0].tolist() == pytest.approx([0.1, 0.8, 0.1])


@pytest.mark.parametrize("seed", range(5))
def test_a_trend_is_the_median_of_all_pairs_slopes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    day, value = np.sort(rng.choice(30, 11, replace=False)), rng.normal(size=11)
    slopes = [(value[b] - value[a]) / (day[b] - day[a]) for a, b in itertools.combinations(range(11), 2)]
    found = trend(day, value)
    assert isinstance(found, Estimate)
    assert found.value == pytest.approx(float(np.median(slopes)))
    assert found.low <= found.value <= found.high


@pytest.mark.parametrize("slope", [-0.004, 0.0, 0.01])
def test_a_planted_trend_is_covered_as_often_as_its_interval_says(slope: float) -> None:
    rng, days = np.random.default_rng(8), np.arange(14)
    found = [trend(days, 0.4 + slope * days + rng.normal(0, 0.01, 14)) for _ in range(400)]
    inside = np.mean([isinstance(one, Estimate) and one.low <= slope <= one.high for one in found])
    assert 0.95 - 3.5 * math.sqrt(0.95 * 0.05 / 400) < inside
    assert np.mean([one.value for one in found if isinstance(one, Estimate)]) == pytest.approx(slope, abs=2e-4)


def test_one_day_gone_wrong_does_not_turn_a_trend() -> None:
    values = 0.5 - 0.01 * np.arange(14)
    values[9] = 40.0
    found = trend(np.arange(14), values)
    assert isinstance(found, Estimate)
    assert found.high < 0.0


def test_values_that_stand_still_have_a_trend_of_exactly_0() -> None:
    assert trend(range(14), np.full(14, 0.3)) == Estimate(0.0, 0.0, 0.0)


def test_a_handful_of_days_has_no_trend() -> None:
    assert trend(range(6), range(6)) == Cannot("a trend needs 7 of the last 14 days with a value, there are 6")


@pytest.mark.parametrize(
    ("support", "concentration", "alarm"),
    [((-2, -1), (1, 2), True), ((-2, 0), (1, 2), False), ((-2, -1), (-1, 2), False), ((1, 2), (1, 2), False)],
)
def test_the_alarm_needs_both_intervals_clear_of_0(
    support: tuple[int, int], concentration: tuple[int, int], alarm: bool
) -> None:
    narrows, gathers = (Estimate(sum(one) / 2, *one) for one in (support, concentration))
    assert feeds_on_itself(narrows, gathers) is alarm


class Simulated:
    """Logs of requests whose truth is known, under Plackett-Luce at tau 0.3 and any share of shuffles."""

    def __init__(self, seed: int, requests: int = 400, candidates: int = 8) -> None:
        rng = np.random.default_rng(seed)
        self.rng, self.requests, positions = rng, requests, len(THETA)
        taste = rng.normal(size=(requests, candidates))
        self.relevance = 0.6 / (1 + np.exp(-taste))
        self.scores = 0.4 * taste + 0.6 * rng.normal(size=taste.shape)
        self.q = self.relevance * np.exp(rng.normal(0, 0.15, taste.shape))
        self.target = np.argsort(-self.q, axis=1)[:, :positions]
        self.drawn = position_marginals(self.scores, tau=0.3, epsilon=0.0, positions=positions)
        self.request, self.place = np.repeat(np.arange(requests), positions), np.tile(np.arange(positions), requests)

    def target_rows(self) -> TargetRows:
        chosen, n = self.target.ravel(), len(self.request)
        expected = self.q[self.request, chosen] * THETA[self.place]
        drawn, listed = self.drawn[self.request, chosen, self.place], np.full(n, self.scores.shape[1])
        # of a Bernoulli with this mean; a test of the formula, not of how the variance was learned
        return TargetRows(self.request, self.request, expected, expected * (1 - expected), drawn, listed)

    def value(self, epsilon: float) -> float:
        """Draw a log and estimate the target's value from it."""
        seeds = self.rng.integers(2**62, size=self.requests)
        orders, _ = sample_orders(self.scores, tau=0.3, epsilon=epsilon, seed=seeds)
        shown = orders[:, : len(THETA)].ravel()
        at, k = self.request, self.place
        reward = (self.rng.random(len(at)) < self.relevance[at, shown] * THETA[k]).astype(np.float64)
        propensity = (1 - epsilon) * self.drawn[at, shown, k] + epsilon / self.scores.shape[1]
        match = (shown == self.target.ravel()).astype(np.float64)
        q = self.q[at, shown] * THETA[k], self.q[at, self.target.ravel()] * THETA[k]
        log = SlateLog(at, k + 1, at, reward, propensity, match, *q)
        return iips_dr(log, seed=1, replicates=40).value


@functools.cache
def worlds() -> list[Simulated]:
    return [Simulated(seed, requests=300) for seed in range(180)]


@pytest.mark.parametrize("epsilon", [0.03, 0.3, 1.0])
def test_the_predicted_half_width_is_what_simulated_logs_give(epsilon: float) -> None:
    wide = 1.96 * np.std([one.value(epsilon) for one in worlds()], ddof=1)
    predicted = np.mean([half_widths(one.target_rows(), [epsilon], requests=300)[0] for one in worlds()[:40]])
    assert predicted == pytest.approx(wide, rel=0.25)


def test_the_half_width_shrinks_with_the_root_of_the_requests() -> None:
    rows = Simulated(3).target_rows()
    once, four_times = (half_widths(rows, [0.02, 0.5], requests=n) for n in (100, 400))
    np.testing.assert_allclose(once, 2.0 * four_times)


def test_users_who_gain_alike_make_the_interval_wider() -> None:
    n = np.arange(40)
    worth, drawn, listed = np.where(n < 20, 1.0, 0.0), np.ones(40), np.full(40, 5)
    apart, together = (TargetRows(n, user, worth, worth * 0.0, drawn, listed) for user in (n, n // 10))
    widths = [half_widths(one, [0.0], requests=40)[0] for one in (apart, together)]
    assert widths[1] == pytest.approx(widths[0] * math.sqrt(10 * (4 / 3) / (40 / 39)))


def test_a_choice_that_is_never_shown_has_no_bounded_interval_until_something_is_shuffled() -> None:
    one = np.array([0])
    rows = TargetRows(one, one, np.array([0.2]), np.array([0.1]), np.zeros(1), np.array([10]))
    never, some, all_shuffled = half_widths(rows, [0.0, 0.1, 1.0], requests=50)
    assert np.isinf(never)
    assert some == pytest.approx(1.959964 * math.sqrt(0.1 / 0.01 / 50))
    assert some > all_shuffled


def test_the_smallest_share_that_is_enough_may_be_none_or_not_the_last() -> None:
    assert smallest_enough([0.0, 0.1, 1.0], [np.inf, 0.04, 0.06], 0.05) == 0.1
    assert smallest_enough([0.0, 1.0], [np.inf, 0.06], 0.05) is None


def test_no_choices_are_refused() -> None:
    nothing = np.zeros(0, np.int64)
    with pytest.raises(Refused, match=re.escape("nothing to predict an interval from")):
        TargetRows(nothing, nothing, np.zeros(0), np.zeros(0), np.zeros(0), nothing)
