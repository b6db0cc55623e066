"""The closed-loop world: a truth that its log agrees with, and the same luck for every policy."""

import copy
import re
from datetime import timedelta
from itertools import permutations

import numpy as np
import polars as pl
import pytest
from scipy import stats
from sources.small_worlds import FAR, big_day, days_between, outcomes_of, shown_truth, small

from sameworld.maths.policy import sample_orders
from sameworld.records import Refused
from sameworld.sources.closed_loop import World, WorldParameters, heuristic
from sameworld.sources.closed_loop_log import ITEM_SERVICE, USER_SERVICE


def test_clicks_at_each_position_come_at_the_true_rate():
    log = big_day()
    true = shown_truth(log, "click")
    seen = np.bincount(outcomes_of(log, "click")["position"] - 1, minlength=true.shape[1])
    assert np.abs((seen - true.sum(axis=0)) / np.sqrt((true * (1 - true)).sum(axis=0))).max() < FAR


def test_clicks_are_calibrated_over_the_range_of_the_truth():
    log = big_day()
    clicked = log.impressions.join(log.outcomes.filter(kind="click"), on=["request_id", "item_id"], how="left")
    true, seen = shown_truth(log, "click").ravel(), clicked["kind"].is_not_null().to_numpy()
    for part in np.array_split(np.argsort(true), 10):
        assert abs(seen[part].sum() - true[part].sum()) < FAR * np.sqrt((true[part] * (1 - true[part])).sum())


def test_purchases_within_the_window_come_at_the_true_rate():
    log = big_day()
    true, bought = shown_truth(log, "target"), outcomes_of(log, "purchase")
    seen = (days_between(bought, "shown_at", "happened_at") <= 7.0).sum()
    assert abs(seen - true.sum()) < FAR * np.sqrt((true * (1 - true)).sum())


def test_the_expected_reward_is_what_was_earned():
    log = big_day()
    within = outcomes_of(log, "purchase").filter(pl.col("happened_at") - pl.col("shown_at") <= timedelta(days=7))
    earned = outcomes_of(log, "click").height + 5.0 * within.height
    spread = np.sqrt((shown_truth(log, "click") + (25.0 + 10.0) * shown_truth(log, "target")).sum())
    assert abs(earned - log.truth.reward(log.order).sum()) < FAR * spread


@pytest.mark.parametrize(("segment", "mean_days"), [("fast", 1.0), ("slow", 6.0)])
def test_purchases_follow_after_their_segments_exponential_delay(segment, mean_days):
    delay = days_between(outcomes_of(big_day(), "purchase").filter(x_segment=segment), "shown_at", "happened_at")
    assert stats.kstest(delay, stats.expon(scale=mean_days).cdf).pvalue > 1e-4
    assert abs(delay.mean() / mean_days - 1) < FAR / np.sqrt(len(delay))


@pytest.mark.parametrize(("kind", "mean_hours"), [("click", 1.0), ("purchase", 12.0)])
def test_outcomes_land_after_their_kinds_lag(kind, mean_hours):
    hours = 24 * days_between(big_day().outcomes.filter(kind=kind), "happened_at", "arrived_at")
    assert stats.kstest(hours, stats.gamma(4, scale=mean_hours / 4).cdf).pvalue > 1e-4


def test_services_fail_at_their_rates_and_share_the_upstream():
    traffic = big_day().features.traffic
    user, item = traffic.user_service > 0, traffic.item_service > 0
    for seen, rate in ((user, 1 - 0.85 * 0.88), (item, 1 - 0.85 * 0.92), (user & item, 0.15 + 0.85 * 0.12 * 0.08)):
        assert abs(seen.mean() - rate) < FAR * np.sqrt(rate * (1 - rate) / len(seen))


def test_an_outage_takes_a_whole_group_from_a_whole_request_and_says_why():
    log = big_day()
    reason = log.impressions["null_reason"].to_list()[:4000]
    for row, why in zip(log.impressions.head(4000).iter_rows(named=True), reason, strict=True):
        gone = {name for name in row if name.startswith("x_") and row[name] is None}
        assert gone == set(why or {})
        assert gone in (set(), set(USER_SERVICE), set(ITEM_SERVICE), {*USER_SERVICE, *ITEM_SERVICE})
    by_request = log.impressions.group_by("request_id").agg(pl.col("x_affinity", "x_item_ctr").is_null().n_unique())
    assert by_request.select(pl.max("x_affinity", "x_item_ctr")).row(0) == (1, 1)


def test_propensities_at_the_top_are_the_mixtures_softmax():
    log = World(small(propensity_share=1.0)).simulate_day(0)
    weight = np.exp(log.scores / 0.2 - (log.scores / 0.2).max(axis=1, keepdims=True))
    top = 0.98 * weight / weight.sum(axis=1, keepdims=True) + 0.02 / 8
    given = log.impressions["propensity"].to_numpy().reshape(-1, 4)
    assert given[:, 0] == pytest.approx(np.take_along_axis(top, log.order[:, :1], axis=1)[:, 0], abs=1e-7)
    assert ((given > 0) & (given <= 1)).all()


def test_propensities_are_given_for_a_sample_of_whole_requests():
    given = World(small(requests_per_day=2000)).simulate_day(0).impressions.group_by("request_id").agg(
        pl.col("propensity").is_not_null().mean()
    )["propensity"]  # fmt: skip
    assert set(given) == {0.0, 1.0}
    assert abs(given.mean() - 0.2) < FAR * 0.4 / np.sqrt(2000)


def test_a_logged_request_holds_all_that_redraws_its_order():
    log = World(small()).simulate_day(0)
    lists = log.requests.explode("candidates").unnest("candidates")
    scores, items = (lists[name].to_numpy().reshape(-1, 8) for name in ("score", "item_id"))
    orders, shuffled = sample_orders(
        scores, tau=log.requests["tau"], epsilon=log.requests["epsilon"], seed=log.requests["seed"]
    )
    shown = np.take_along_axis(items, orders[:, :4], axis=1)
    assert shown.ravel().tolist() == log.impressions["item_id"].to_list()
    assert np.where(shuffled, "shuffle", "model").tolist() == log.requests["branch"].to_list()


def test_no_order_earns_more_than_the_oracles():
    truth = World(small(candidates=5, slots=3)).simulate_day(0).truth
    orders = [np.tile(order, (150, 1)) for order in permutations(range(5))]
    best = np.max([truth.reward(order) for order in orders], axis=0)
    assert truth.reward(truth.oracle_order()) == pytest.approx(best)


def test_true_relevance_is_that_of_the_day_in_which_the_request_was_made():
    world = World(small())
    logs = [world.simulate_day(day) for day in range(3)]
    pairs = logs[1].candidates().select("request_id", "item_id").reverse()
    found = world.true_relevance(pairs)
    assert found["true_gain"].reverse().to_numpy() == pytest.approx(logs[1].truth.gain.ravel(), rel=1e-12)
    assert found["true_target"].reverse().to_numpy() == pytest.approx(logs[1].truth.target.ravel(), rel=1e-12)


def test_policies_meet_the_same_requests_and_the_same_luck():
    world = World(small())
    world.simulate_day(0)
    other = copy.deepcopy(world)
    mine, theirs = world.simulate_day(1), other.simulate_day(1, lambda features: -heuristic(features))
    assert mine.requests["user_id"].equals(theirs.requests["user_id"])
    both = mine.impressions.join(theirs.impressions, on=["request_id", "item_id", "position"], how="semi")
    clicks = [log.outcomes.join(both, on=["request_id", "item_id"], how="semi").drop("value") for log in (mine, theirs)]
    assert clicks[0].height > 3
    assert clicks[0].equals(clicks[1])


def test_a_model_that_is_better_by_the_truth_earns_more():
    def oracle(features):
        return world.true_relevance(features.frame())["true_gain"].to_numpy().reshape(features.shape)

    world = World(small())
    log = world.simulate_day(0, oracle)
    assert log.truth.reward_share(log.order) > log.truth.reward_share(np.argsort(-heuristic(log.features), axis=1))


def test_a_test_shows_each_user_one_arm_and_names_its_model():
    requests = World(small()).simulate_day(0, {"a": heuristic, "b": lambda features: -heuristic(features)}).requests
    assert requests.group_by("user_id").agg(pl.col("arm").n_unique())["arm"].max() == 1
    assert requests["arm"].equals(requests["model_version"], check_names=False)
    assert sorted(requests["arm"].unique()) == ["a", "b"]


def test_shown_features_are_those_that_were_scored():
    log = World(small()).simulate_day(0)
    features = [name for name in log.impressions.columns if name.startswith("x_")]
    scored = log.impressions.select("request_id", "item_id").join(
        log.candidates(), on=["request_id", "item_id"], maintain_order="left"
    )
    assert log.impressions.select(features).equals(scored.select(features))


def test_newborns_are_better_by_the_trend_and_the_pool_keeps_its_size():
    items = World(WorldParameters(days=11, items=4000, churn=0.1, quality_trend=0.3)).items
    newborn = items.born[items.alive[10]] == 10
    assert newborn.sum() == 400
    of_first = items.quality[10, items.alive[10]][items.born[items.alive[10]] == 0]
    gap = items.quality[10, items.alive[10]][newborn].mean() - of_first.mean()
    assert abs(gap - 3.0) < FAR * np.sqrt(1 / 400 + 1.1 / len(of_first))
    assert len(np.unique(items.alive[10])) == 4000


def test_the_content_feature_hints_at_quality_as_much_as_asked():
    items = World(WorldParameters(days=1, items=5000, content_proxy=0.4)).items
    assert abs(np.corrcoef(items.content, items.quality[0])[0, 1] - 0.4) < FAR / np.sqrt(5000)


@pytest.mark.parametrize("seed", [7, 8])
def test_the_default_world_is_plausible(seed):
    world = World(WorldParameters(days=6, seed=seed, propensity_share=0.0))
    logs = [world.simulate_day(day) for day in range(6)]
    shown, kinds = sum(log.impressions.height for log in logs), pl.concat([log.outcomes["kind"] for log in logs])
    assert 0.05 < (kinds == "click").sum() / shown < 0.15
    assert 0.01 < (kinds == "purchase").sum() / shown < 0.03
    assert 0.68 < np.mean([log.truth.reward_share(log.order) for log in logs]) < 0.85


def test_a_day_out_of_turn_is_refused():
    with pytest.raises(Refused, match=re.escape("got day 1; wanted day 0 of 4")):
        World(small()).simulate_day(1)


def test_the_truth_of_an_unknown_request_is_refused():
    with pytest.raises(Refused, match=re.escape("the world does not know this id: got r009-000000")):
        World(small()).true_relevance(pl.DataFrame({"request_id": ["r009-000000"], "item_id": ["i000001"]}))


@pytest.mark.parametrize("scores", [np.zeros((150, 7)), np.full((150, 8), np.nan)])
def test_scores_that_cannot_be_served_are_refused(scores):
    with pytest.raises(Refused, match=re.escape("wanted finite ones of shape (150, 8)")):
        World(small()).simulate_day(0, lambda features: scores)
