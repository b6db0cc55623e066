"""Replay: off-policy values in a world with known truth, and an exact account of what is left out."""

import functools
from dataclasses import dataclass

import numpy as np
import polars as pl
import pytest
from models import tiny

from sameworld.maths.ope import iips_dr, position_weights, refusal, unsupported_mass
from sameworld.maths.policy import sample_orders
from sameworld.models.rank import rank
from sameworld.models.replay import replay

THETA = np.array([1.0, 0.5, 0.25])
SLOTS, WIDTH = 3, 6


@dataclass(frozen=True)
class Logs:
    """What production logged: the three frames that a replay reads, and what the bundle's order is truly worth."""

    shown: pl.DataFrame
    candidates: pl.DataFrame
    policies: pl.DataFrame
    truth: float

    def replayed(self, bundle=None, **changes):
        frames = {"shown": self.shown, "candidates": self.candidates, "policies": self.policies} | changes
        return replay(**frames, bundle=bundle or tiny.with_examination(THETA))


def relevance(candidates):
    code = candidates["x_colour"].replace_strict({"blue": 0, "green": 1, "red": 2}, default=0)
    return tiny.truth(code.to_numpy(), candidates["x_price"].to_numpy()).reshape(-1, WIDTH)


@functools.cache
def logs(requests=400, seed=0, tau=0.7, epsilon=0.1, far=0.0) -> Logs:
    """Clicks where position and relevance meet; production likes expensive items, and ``far`` more so some of them."""
    candidates, rng = tiny.candidates(requests, WIDTH, seed=1), np.random.default_rng(seed)
    score = candidates["x_price"].to_numpy().reshape(-1, WIDTH) - far * (np.arange(WIDTH) >= 4)
    order = sample_orders(score, tau=tau, epsilon=epsilon, seed=seed)[0][:, :SLOTS]
    rows = np.arange(requests)[:, None] * WIDTH + order
    click = rng.random(order.shape) < THETA * np.take_along_axis(relevance(candidates), order, axis=1)
    shown = candidates.select("request_id", "item_id")[rows.ravel()].with_columns(
        position=pl.Series(np.tile(np.arange(1, SLOTS + 1, dtype=np.int32), requests)),
        gain=pl.Series(2.0 * click.ravel()),
        user_id=pl.Series([f"u{number // SLOTS % 150}" for number in range(order.size)]),
    )
    listed = candidates.select("request_id", "item_id", score=pl.Series(score.ravel()))
    policies = listed.group_by("request_id", maintain_order=True).agg(candidates=pl.struct("item_id", "score"))
    place = rank(candidates, tiny.with_examination(THETA))["position"].to_numpy()
    seen = np.where(place <= SLOTS, THETA[np.minimum(place, SLOTS) - 1], 0.0)
    truth = float((2.0 * seen * relevance(candidates).ravel()).sum()) / requests
    return Logs(shown, candidates, policies.with_columns(tau=pl.lit(tau), epsilon=pl.lit(epsilon)), truth)


def test_the_replayed_value_is_unbiased_where_reward_is_item_times_position():
    values = np.array([iips_dr(logs(seed=s).replayed().log, seed=1, replicates=40).value for s in range(40)])
    standard_error = values.std(ddof=1) / np.sqrt(len(values))
    assert abs(values.mean() - logs().truth) < 4.0 * standard_error
    assert standard_error < 0.02 * logs().truth


def test_what_was_clicked_as_it_was_shown_is_far_from_the_targets_value():
    assert logs().shown["gain"].sum() / 400 < 0.8 * logs().truth


def test_a_good_log_is_answered_and_its_interval_covers_the_truth():
    log = logs(requests=3000).replayed().log
    estimate = iips_dr(log, seed=1)
    assert refusal(log, seed=1) is None
    assert estimate.low < logs(requests=3000).truth < estimate.high


def test_weights_average_one_and_the_target_is_the_bundles_own_order():
    found = logs(requests=3000).replayed()
    assert position_weights(found.log).mean() == pytest.approx(1.0, abs=0.05)
    first = rank(logs(requests=3000).candidates, tiny.with_examination(THETA)).filter(position=1)
    top = logs(requests=3000).shown.filter(position=1).join(first, on=["request_id", "item_id"], how="semi")
    assert found.log.target_match[found.log.position == 1].sum() == len(top)


def test_expected_gains_are_probability_times_examination_in_the_units_of_the_gain():
    found = logs(requests=3000).replayed().log
    assert found.q_logged.sum() == pytest.approx(found.reward.sum())
    assert found.q_target.sum() / found.requests == pytest.approx(logs(requests=3000).truth, rel=0.15)


def test_propensities_as_logged_come_first_and_missing_ones_are_worked_out():
    whole = logs().replayed().log
    half = pl.when(pl.int_range(pl.len()) % 2 == 0).then(pl.Series(whole.propensity)).otherwise(None)
    log = logs().replayed(shown=logs().shown.with_columns(propensity=half)).log
    np.testing.assert_allclose(log.propensity, whole.propensity)
    assert (logs().replayed(shown=logs().shown.with_columns(propensity=0.125)).log.propensity == 0.125).all()


def test_the_order_of_the_rows_changes_nothing():
    by_request = pl.col("request_id").str.slice(1).cast(pl.Int64) * 7 % 400
    other = logs().replayed(
        shown=logs().shown.sort(by_request, "item_id"),
        candidates=logs().candidates.sample(fraction=1.0, shuffle=True, seed=1),
        policies=logs().policies.reverse(),
    )
    whole = logs().replayed()
    assert iips_dr(other.log, seed=1).value == pytest.approx(iips_dr(whole.log, seed=1).value, rel=1e-12)


def of(number):
    return pl.col("request_id") == f"r{number:03d}"


def damaged():
    """Six requests, each with another fault that leaves it out; none touches the other 394."""
    place = pl.col("position")
    shown = logs().shown.filter(~(of(0) & (place == 2)) & ~(of(1) & (place == 1)))
    shown = shown.with_columns(item_id=pl.when(of(2) & (place == 3)).then(pl.lit("stranger")).otherwise("item_id"))
    policies = logs().policies.filter(~of(3))
    candidates = logs().candidates.filter(~of(4) & ~(of(5) & (pl.col("item_id").is_in(["i00", "i01", "i02", "i03"]))))
    return {"shown": shown, "candidates": candidates, "policies": policies}


def test_fault_12_gaps_strangers_missing_laws_and_missing_candidates_are_left_out_and_counted():
    found = logs().replayed(**damaged())
    assert (found.requests, found.left_out_share) == (394, pytest.approx(6 / 400))
    rest = logs().shown.filter(~pl.any_horizontal(of(n) for n in range(6)))
    alone = logs().replayed(shown=rest)
    assert alone.left_out_share == 0.0
    for name in ("position", "propensity", "target_match", "reward"):
        np.testing.assert_array_equal(getattr(found.log, name), getattr(alone.log, name))


def test_a_request_whose_one_propensity_is_missing_is_left_out_whole():
    one = pl.when(of(7) & (pl.col("position") == 2)).then(None).otherwise(0.2)
    found = logs().replayed(shown=logs().shown.with_columns(propensity=one), policies=logs().policies.clear())
    assert (found.requests, found.left_out_share) == (399, pytest.approx(1 / 400))
    assert len(found.log.request) == 399 * SLOTS


@pytest.mark.parametrize("missing", ["candidates", "policies"])
def test_without_candidates_or_any_propensity_everything_is_left_out(missing):
    found = logs().replayed(**{missing: getattr(logs(), missing).clear()})
    assert (found.log, found.requests, found.left_out_share) == (None, 0, 1.0)


def test_a_choice_that_logging_never_shows_is_counted_as_unsupported():
    far = logs(requests=1500, epsilon=0.0, far=100.0)
    log = far.replayed().log
    place = rank(far.candidates, tiny.with_examination(THETA)).filter(pl.col("position") <= SLOTS)
    never = place["item_id"].is_in(["i04", "i05"]).mean()
    assert unsupported_mass(log) == pytest.approx(never)
    assert "logging could never have shown" in refusal(log, seed=1)


def test_a_shuffle_supports_every_choice():
    assert unsupported_mass(logs(requests=1500, epsilon=0.1, far=100.0).replayed().log) == 0.0


def test_where_only_shown_propensities_are_logged_support_cannot_be_told():
    far = logs(requests=1500, epsilon=0.0, far=100.0)
    shown = far.shown.with_columns(propensity=0.25)
    assert unsupported_mass(far.replayed(shown=shown, policies=far.policies.clear()).log) == 0.0


def test_an_item_that_the_logging_model_did_not_score_is_unsupported():
    cheapest = pl.col("candidates").list.eval(
        pl.element().filter(pl.element().struct.field("score") > pl.element().struct.field("score").min())
    )
    policies = logs().policies.with_columns(candidates=cheapest)
    found = logs().replayed(policies=policies)
    assert found.left_out_share > 0.0
    assert unsupported_mass(found.log) > 0.2


def test_a_deterministic_log_is_refused_by_that_name():
    log = logs(requests=1500, tau=1e-9, epsilon=0.0).replayed().log
    assert "deterministic for 100 % of requests" in refusal(log, seed=1)
    greedy = logs(requests=1500, tau=1e-9, epsilon=0.0).policies.with_columns(tau=0.0)
    at_zero = logs(requests=1500, tau=1e-9, epsilon=0.0).replayed(policies=greedy).log
    np.testing.assert_allclose(at_zero.propensity, log.propensity)
    np.testing.assert_array_equal(at_zero.unsupported, log.unsupported)


def test_prefixes_check_the_estimate_only_where_every_request_has_one():
    assert logs().replayed().log.prefix_log_propensity is not None
    shown = logs().shown.with_columns(propensity=0.2)
    assert logs().replayed(shown=shown, policies=logs().policies.filter(~of(3))).log.prefix_log_propensity is None
