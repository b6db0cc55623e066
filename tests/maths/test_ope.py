"""Off-policy estimates recover known truth, agree with published figures on real logs, and refuse where they must."""

import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sameworld.maths import ope
from sameworld.maths.ope import SlateLog, iips_dr, plain_ips, refusal, sn_rips
from sameworld.records import Refused

OPEN_BANDIT = Path(__file__).parents[2] / "examples" / "open_bandit"
SLATES = np.array(list(itertools.permutations(range(6), 3)))  # 6 candidates, 3 shown: all 120 ordered slates
THETA = np.array([1.0, 0.6, 0.4])
KINDS = 8  # of request, each with its own scores and relevances


def slate_probabilities(score, *, tau=0.7, epsilon=0.1):
    """Probability of each of the 120 slates under Plackett-Luce mixed with a uniform shuffle, shape (kinds, 120)."""
    strength = np.exp(score / tau)
    chosen = strength[:, SLATES]
    left = strength.sum(axis=1)[:, None, None] - np.cumsum(chosen, axis=2) + chosen
    return (1 - epsilon) * np.prod(chosen / left, axis=2) + epsilon / len(SLATES)


class World:
    """Logging orders by noisy relevance; the target is greedy by relevance; everything about both is known exactly."""

    def __init__(self, **policy):
        generator = np.random.default_rng(0)
        self.relevance = generator.beta(1.5, 3.0, (KINDS, 6))
        self.slates = slate_probabilities(2.5 * self.relevance + generator.normal(0, 0.4, (KINDS, 6)), **policy)
        self.target = np.argsort(-self.relevance, axis=1)[:, :3]
        same = SLATES[:, None, :] == SLATES[None, :, :]
        self.marginal = np.einsum("ts,xsk->txk", self.slates, same.astype(float))
        self.prefix = np.einsum("ts,xsk->txk", self.slates, np.cumprod(same, axis=2).astype(float))
        self.truth = self.worth(self.target[:, None, :], cascade=False).sum(axis=2).mean()

    def worth(self, slates, *, cascade):
        """Reward chances of slates (kinds, s, 3); in a cascade an item below a poor one is hardly looked at."""
        worth = THETA * np.take_along_axis(self.relevance[:, None, :], slates, axis=2)
        best_above = slates[:, :, :1] == self.target[:, None, :1]
        return worth * np.where(cascade & ~best_above & (np.arange(3) > 0), 0.2, 1.0)

    def log(self, *, seed, requests=2000, users=250, q_error=0.5, cascade=False):
        """A log of whole slates; users differ by a factor of .5 to 1.5 in all their rewards; q is off by up to 50 %."""
        generator = np.random.default_rng(seed)
        user = np.sort(generator.integers(0, users, requests))
        kind, factor = generator.integers(0, KINDS, requests), generator.uniform(0.5, 1.5, users)
        cumulative = np.cumsum(self.slates, axis=1)
        slate = (generator.random(requests)[:, None] < cumulative[kind]).argmax(axis=1)
        chance = self.worth(np.broadcast_to(SLATES, (KINDS, 120, 3)), cascade=cascade)[kind, slate]
        match = SLATES[slate] == self.target[kind]
        wrong = 1.0 + q_error * np.random.default_rng(1).uniform(-1, 1, (KINDS, 6, 1))
        q = THETA * self.relevance[:, :, None] * wrong
        row, k = np.repeat(np.arange(requests), 3), np.tile(np.arange(3), requests)
        with np.errstate(divide="ignore"):
            target_prefix = np.log(np.cumprod(match, axis=1).astype(float)).ravel()
        return SlateLog(
            request=row,
            position=k + 1,
            user=user[row],
            reward=(generator.random((requests, 3)) < chance * factor[user][:, None]).astype(float).ravel(),
            propensity=self.marginal[kind, slate].ravel(),
            target_match=match.astype(float).ravel(),
            q_logged=q[kind[row], SLATES[slate].ravel(), k],
            q_target=q[kind[row], self.target[kind].ravel(), k],
            prefix_log_propensity=np.log(self.prefix[kind, slate]).ravel(),
            target_prefix_log=target_prefix,
        )


WORLD = World()


def in_sigmas(values, truth):
    return (np.mean(values) - truth) / (np.std(values, ddof=1) / np.sqrt(len(values)))


@pytest.fixture(scope="module")
def hundred_logs():
    return [WORLD.log(seed=seed, requests=3000, users=375) for seed in range(100)]


@pytest.mark.parametrize("estimator", [iips_dr, sn_rips])
def test_the_estimate_is_unbiased_and_its_intervals_cover_the_truth(hundred_logs, estimator):
    results = [estimator(log, seed=1, replicates=200) for log in hundred_logs]
    assert {result.depth for result in results} == {3}
    assert abs(in_sigmas([result.value for result in results], WORLD.truth)) < 3
    covered = np.mean([result.low <= WORLD.truth <= result.high for result in results])
    assert abs(covered - 0.95) <= 3 * np.sqrt(0.95 * 0.05 / 100)


def test_plain_ips_is_unbiased_and_reranked_logged_rewards_are_not(hundred_logs):
    values = [plain_ips(log, seed=1, replicates=40).value for log in hundred_logs]
    naive = [np.sum(log.reward * log.target_match) / log.requests for log in hundred_logs]
    assert abs(in_sigmas(values, WORLD.truth)) < 3
    assert in_sigmas(naive, WORLD.truth) < -20


def test_the_logged_value_and_the_lift_cover_their_truth(hundred_logs):
    slates = np.broadcast_to(SLATES, (KINDS, 120, 3))
    logged = (WORLD.slates * WORLD.worth(slates, cascade=False).sum(axis=2)).sum(axis=1).mean()
    covered = []
    for log in hundred_logs:
        value, gain = ope.logged_value(log, seed=1, replicates=200), ope.lift(log, seed=1, replicates=200)
        covered.append((value.low <= logged <= value.high, gain.low <= WORLD.truth - logged <= gain.high))
    assert (np.abs(np.mean(covered, axis=0) - 0.95) <= 3 * np.sqrt(0.95 * 0.05 / 100)).all()


def test_a_true_model_of_a_certain_reward_narrows_the_interval():
    log = WORLD.log(seed=1)
    certain = replace(log, reward=log.q_logged)
    dr, ips = (iips_dr(each, seed=1) for each in (certain, replace(certain, q_logged=None, q_target=None)))
    assert dr.high - dr.low < 0.7 * (ips.high - ips.low)


def test_iips_dr_equals_its_formula_written_out_by_position(hundred_logs):
    log, value = hundred_logs[1], 0.0
    weight = ope.position_weights(log)
    for k in (1, 2, 3):
        at = log.position == k
        corrected = np.average(log.reward[at] - log.q_logged[at], weights=weight[at])
        value += log.q_target[at].mean() + corrected
    assert iips_dr(log, seed=1).value == pytest.approx(value)


def test_depth_counts_the_first_positions_only(hundred_logs):
    log = hundred_logs[2]
    top = log.position == 1
    first = SlateLog(*(None if a is None else a[top] for a in vars(log).values()))
    shallow, alone = iips_dr(log, seed=1, depth=1), iips_dr(first, seed=1)
    assert (shallow.value, shallow.low, shallow.high) == pytest.approx((alone.value, alone.low, alone.high))
    assert (shallow.depth, shallow.requests) == (1, 3000)


def test_evaluating_the_logging_policy_itself_gives_the_logged_value(hundred_logs):
    log = hundred_logs[3]
    same = replace(log, target_match=log.propensity, target_prefix_log=log.prefix_log_propensity, q_target=log.q_logged)
    logged = ope.logged_value(log, seed=1)
    for result in (iips_dr(same, seed=1), sn_rips(same, seed=1), plain_ips(same, seed=1)):
        assert (result.value, result.low, result.high) == pytest.approx((logged.value, logged.low, logged.high))
        assert result.ess == pytest.approx(9000)


def test_a_deep_position_without_a_match_shares_its_neighbours_normaliser():
    log = WORLD.log(seed=1)
    unmatched = replace(log, target_match=np.where(log.position == 3, 0.0, log.target_match))
    weight, first, second = ope.position_weights(log), log.position == 1, log.position == 2
    top, below = (np.average((log.reward - log.q_logged)[at], weights=weight[at]) for at in (first, second))
    by_hand = log.q_target.sum() / log.requests + top + 2.0 * below
    assert iips_dr(unmatched, seed=1).value == pytest.approx(by_hand)


def test_lists_of_different_length_count_each_position_where_it_exists():
    log = WORLD.log(seed=2, requests=20_000, users=2500)
    keep = (log.position < 3) | (log.request % 2 == 0)
    short = SlateLog(*(None if a is None else a[keep] for a in vars(log).values()))
    third = WORLD.worth(WORLD.target[:, None, :], cascade=False)[:, 0, 2].mean()
    for result in (iips_dr(short, seed=1), sn_rips(short, seed=1), plain_ips(short, seed=1)):
        assert result.low <= WORLD.truth - third / 2 <= result.high


def test_weights_average_one_and_their_standard_error_is_by_user(hundred_logs):
    states = [ope.weight_state(ope.position_weights(log), log.user) for log in hundred_logs]
    off = np.array([(state.mean_weight - 1.0) / state.mean_weight_se for state in states])
    assert abs(off.mean()) < 3 / np.sqrt(100)
    assert off.std() == pytest.approx(1.0, abs=0.25)


def test_prefix_weights_average_one_at_every_length(hundred_logs):
    weights = np.array([ope.prefix_weights(log).reshape(-1, 3).mean(axis=0) for log in hundred_logs])
    assert all(abs(in_sigmas(weights[:, k], 1.0)) < 3 for k in range(3))


def test_the_result_survives_json_and_says_that_nothing_was_clipped(hundred_logs):
    record = json.loads(json.dumps(iips_dr(hundred_logs[0], seed=1).as_record()))
    assert record["clipped_mass"] == 0.0
    assert {"method", "value", "low", "high", "ess", "largest_weight", "mean_weight", "mean_weight_se"} <= set(record)


def test_a_good_log_is_not_refused(hundred_logs):
    assert [refusal(log, seed=1, replicates=200) for log in hundred_logs[:25]] == [None] * 25


def test_missing_propensities_are_refused():
    log = WORLD.log(seed=1)
    holed = replace(log, propensity=np.where(np.arange(6000) < 60, np.nan, log.propensity))
    assert refusal(holed, seed=1) == "the propensities are missing or outside (0, 1] for 1 % of the rows"
    with pytest.raises(Refused, match=re.escape("no position weights: got the propensities are missing")):
        iips_dr(holed, seed=1)


def test_a_deterministic_log_is_refused():
    log = replace(WORLD.log(seed=1), propensity=np.ones(6000))
    assert refusal(log, seed=1) == "the logging policy was deterministic for 100 % of requests"


def test_targets_that_logging_never_shows_are_refused_beyond_one_percent():
    log = WORLD.log(seed=1)
    for share, refused in ((0.009, False), (0.02, True)):
        never = (np.arange(6000) < share * 6000).astype(float)
        words = refusal(replace(log, unsupported=never), seed=1)
        assert (words is not None) == refused
    assert words == "logging could never have shown 2 % of what the target would show, at most 1 % is allowed"


def test_requests_without_any_choice_support_only_what_they_showed():
    log = WORLD.log(seed=1)
    fixed = log.request < 400
    mixed = replace(log, propensity=np.where(fixed, 1.0, log.propensity))
    assert ope.unsupported_mass(mixed) == pytest.approx(np.mean(fixed & (log.target_match == 0.0)))
    assert refusal(mixed, seed=1).startswith("logging could never have shown")


def test_a_small_effective_sample_is_refused():
    log = WORLD.log(seed=1, requests=60)
    weight = ope.position_weights(log)
    by_hand = weight.sum() ** 2 / (weight**2).sum()
    assert by_hand < 99
    assert refusal(log, seed=1) == f"the effective sample size is {by_hand:.0f}, need 100"


def test_one_heavy_weight_is_refused():
    log = WORLD.log(seed=1)
    row = int(np.flatnonzero(log.target_match)[0])
    heavy = replace(log, propensity=np.where(np.arange(6000) == row, 1 / 450, log.propensity))
    assert re.fullmatch(r"one weight \(450\) holds [67]\.\d+ % of all, over 5 %", refusal(heavy, seed=1))


@pytest.mark.parametrize("factor", [0.7, 1.4])
def test_wrong_propensities_are_refused(factor):
    log = WORLD.log(seed=1)
    wrong = replace(log, propensity=np.minimum(log.propensity * factor, 0.999))
    assert refusal(wrong, seed=1).startswith("the propensities are wrong: the mean weight is")


def test_an_interaction_is_detected_in_a_cascade_and_the_prefix_estimate_is_right_there():
    log = WORLD.log(seed=1, requests=20_000, users=2500, cascade=True)
    assert refusal(log, seed=1).startswith("interaction detected: on positions 1..3 IIPS-DR says [")
    truth = WORLD.truth  # the target shows the best item first, so nothing below it is dimmed
    assert sn_rips(log, seed=1).low <= truth <= sn_rips(log, seed=1).high
    assert iips_dr(log, seed=1).high < truth


def test_prefixes_are_compared_only_where_thirty_effective_slates_agree():
    log = WORLD.log(seed=1, requests=150)
    depth = ope.supported_prefix(log)
    assert 0 < depth < 3
    assert sn_rips(log, seed=1).depth == depth
    by_hand = [ope.prefix_weights(log)[log.position == k] for k in (1, 2, 3)]
    assert [w.sum() ** 2 / (w**2).sum() >= 30 for w in by_hand] == [k <= depth for k in (1, 2, 3)]


def test_without_prefixes_there_is_no_check_and_without_agreement_none_either():
    log = replace(WORLD.log(seed=1), prefix_log_propensity=None)
    assert refusal(log, seed=1) is None
    with pytest.raises(Refused, match=re.escape("no prefix weights: got a log without prefixes")):
        sn_rips(log, seed=1)
    disagreeing = replace(WORLD.log(seed=1), target_prefix_log=np.full(6000, -np.inf))
    with pytest.raises(Refused, match=re.escape("no prefix to check the estimate on")):
        sn_rips(disagreeing, seed=1)


def test_a_log_of_one_user_is_refused_in_words():
    log = replace(WORLD.log(seed=1), user=np.zeros(6000, dtype=int))
    assert refusal(log, seed=1) == "all requests are of one user, so there is no interval by user"


@pytest.mark.parametrize("column", ["reward", "target_match", "q_logged", "q_target", "prefix_log_propensity"])
def test_a_log_with_an_entry_that_is_no_number_is_refused(column):
    with pytest.raises(Refused, match=re.escape("a slate log to evaluate")):
        replace(WORLD.log(seed=1), **{column: np.full(6000, np.nan)})


def open_bandit(campaign, items):
    """The real log of Bernoulli Thompson sampling, each row its own request and user; the target shows uniformly."""
    rows = pl.read_parquet(OPEN_BANDIT / f"bts_{campaign}.parquet")
    n = np.arange(len(rows))
    reward, propensity = rows["click"].to_numpy().astype(float), rows["propensity_score"].to_numpy()
    return SlateLog(n, rows["position"].to_numpy(), n, reward, propensity, np.full(len(n), 1.0 / items))


@pytest.mark.parametrize(
    ("campaign", "items", "reference"),
    [("all", 80, (0.0024, 0.0010, 0.0043, 340, 278)), ("men", 34, (0.0030, 0.0016, 0.0047, 656, 178))],
)
def test_plain_ips_on_open_bandit_agrees_with_the_reference_and_the_uniform_log(campaign, items, reference):
    result = plain_ips(open_bandit(campaign, items), seed=1)
    assert round(result.value, 4) == reference[0]
    assert (result.low, result.high) == pytest.approx(reference[1:3], abs=3e-4)
    assert (result.ess, result.largest_weight) == pytest.approx(reference[3:], rel=0.01)
    assert refusal(open_bandit(campaign, items), seed=1) is None
    on_policy = pl.read_parquet(OPEN_BANDIT / f"random_{campaign}.parquet")["click"].mean()
    assert result.low <= on_policy <= result.high
