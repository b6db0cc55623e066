"""Every rule of the decision with a table of cases: intervals decide, never points."""

import math
import re

import pytest

from sameworld.models.decision import Drill, Evidence, Outcome, decide
from sameworld.records import Cannot, Estimate

PROMOTE, HOLD, REJECT = Outcome
GOOD = Estimate(0.03, 0.01, 0.05)
NOT_A_NUMBER = Estimate(math.nan, math.nan, math.nan)
RANGE = {"calibration_ratio": [0.9, 1.1]}


def evidence(**changes) -> Evidence:
    first = {
        "metric": "ndcg@10",
        "days": 3.0,
        "baselines": {"popular": GOOD, "logged": GOOD},
        "guardrails": {"calibration_ratio": Estimate(1.0, 0.97, 1.03)},
        "champion": None,
        "same_recipe": True,
    }
    return Evidence(**(first | changes))


def outcome(**changes):
    return decide(evidence(**changes), margin=0.002, guardrails=RANGE)


@pytest.mark.parametrize(
    ("delta", "expected"),
    [
        (Estimate(0.03, 0.001, 0.06), PROMOTE),
        (Estimate(0.03, 0.0, 0.06), HOLD),  # 0 is inside the interval
        (Estimate(0.03, -0.001, 0.06), HOLD),
        (Estimate(-0.03, -0.06, 0.0), HOLD),
        (Estimate(-0.03, -0.06, -0.001), REJECT),
        (Cannot("the log has no lists"), HOLD),
        (NOT_A_NUMBER, HOLD),
        (Estimate(0.03, -math.inf, math.inf), HOLD),
    ],
)
def test_a_baseline_must_be_beaten_by_the_whole_interval(delta, expected):
    assert outcome(baselines={"popular": delta, "logged": GOOD}).outcome is expected


@pytest.mark.parametrize("metric", ["normalised_entropy", "ece", "exposure_gini@10"])
def test_where_less_is_better_the_signs_turn(metric):
    worse, better = Estimate(0.03, 0.01, 0.05), Estimate(-0.03, -0.05, -0.01)
    assert outcome(metric=metric, baselines={"popular": better}).outcome is PROMOTE
    assert outcome(metric=metric, baselines={"popular": worse}).outcome is REJECT
    assert outcome(metric=metric, baselines={"popular": better}, champion=worse).outcome is REJECT


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (Estimate(1.0, 0.95, 1.05), PROMOTE),
        (Estimate(1.08, 1.0, 1.15), PROMOTE),  # reaches out of the range, but does not lie outside
        (Estimate(1.12, 1.05, 1.19), PROMOTE),  # the value alone breaks nothing
        (Estimate(0.88, 0.82, 0.94), PROMOTE),
        (Estimate(1.2, 1.11, 1.25), REJECT),
        (Estimate(0.8, 0.7, 0.89), REJECT),
        (Estimate(1.0, 0.8, 1.2), HOLD),  # wider than the range: it tells nothing
        (Cannot("no positives"), HOLD),
        (NOT_A_NUMBER, HOLD),
    ],
)
def test_a_guardrail_holds_unless_its_interval_lies_outside_or_tells_nothing(found, expected):
    assert outcome(guardrails={"calibration_ratio": found}).outcome is expected


@pytest.mark.parametrize(
    ("delta", "refresh", "another"),
    [
        (Estimate(0.010, 0.001, 0.020), PROMOTE, PROMOTE),
        (Estimate(0.000, -0.001, 0.001), PROMOTE, HOLD),  # no worse than the margin, but no win
        (Estimate(0.000, -0.010, 0.010), HOLD, HOLD),
        (Estimate(-0.0015, -0.0019, -0.0011), PROMOTE, REJECT),
        (Estimate(-0.020, -0.030, -0.010), REJECT, REJECT),
        (NOT_A_NUMBER, PROMOTE, HOLD),
        (Cannot("no champion before C₀"), PROMOTE, HOLD),
        (None, PROMOTE, PROMOTE),
    ],
)
def test_a_refresh_may_lose_the_margin_and_another_recipe_must_win(delta, refresh, another):
    assert outcome(champion=delta, same_recipe=True).outcome is refresh
    assert outcome(champion=delta, same_recipe=False).outcome is another


def test_what_is_ruled_out_outweighs_what_is_open_and_only_its_reasons_stand():
    bad, open_ = Estimate(-0.03, -0.05, -0.01), Estimate(0.0, -0.1, 0.1)
    verdict = outcome(baselines={"logged": open_, "popular": bad})
    assert verdict.outcome is REJECT
    assert verdict.reasons == ("ndcg@10 against popular: -0.0300 [-0.0500, -0.0100], worse",)


def test_a_promotion_names_every_rule_that_it_passed():
    assert outcome().reasons == (
        "ndcg@10 against logged: +0.0300 [+0.0100, +0.0500], better",
        "ndcg@10 against popular: +0.0300 [+0.0100, +0.0500], better",
        "guardrail calibration_ratio: 1.000 [0.970, 1.030], allowed 0.9 to 1.1",
        "nothing is in production yet",
    )


@pytest.mark.parametrize(
    ("delta", "words"),
    [
        # the half width .04 must shrink to .02: four times the days, so nine more than three
        (Estimate(0.02, -0.02, 0.06), "about 9 more days"),
        (Estimate(-0.02, -0.06, 0.02), "about 9 more days"),
        (Estimate(0.05, -0.001, 0.051), "about 1 more day"),
        (Estimate(0.05, 0.0, 0.06), "about 1 more day"),
        (Estimate(0.05, -0.051, 0.06), "about 10 more days"),  # the end towards 0 counts, not the width
        (Estimate(0.001, -0.1, 0.102), "not within a year at this rate"),
        (Estimate(0.0, -0.1, 0.1), "not to be settled at this value"),
    ],
)
def test_what_is_open_says_about_how_many_more_days_settle_it(delta, words):
    [reason] = outcome(baselines={"popular": delta}).reasons
    assert reason.endswith(f"not settled, {words}")


def test_the_days_left_against_a_champion_count_from_the_margin():
    [reason] = outcome(champion=Estimate(0.0, -0.004, 0.004)).reasons
    assert re.search(re.escape("a refresh may lose at most 0.002; not settled, about 9 more days"), reason)


def test_fault_40_a_number_that_is_none_holds_in_a_sentence():
    verdict = outcome(baselines={"popular": NOT_A_NUMBER}, guardrails={"calibration_ratio": NOT_A_NUMBER})
    assert verdict.reasons == (
        "ndcg@10 against popular: the estimate is not a number",
        "guardrail calibration_ratio: the estimate is not a number",
    )


BELOW, WITHIN, ABOVE = Estimate(0.55, 0.5, 0.6), Estimate(0.97, 0.9, 1.05), Estimate(1.5, 1.4, 1.6)
TOUCHES, WIDE = Estimate(0.75, 0.69, 0.81), Estimate(0.9, 0.6, 1.3)


def drilled(under, hit, share=0.05):
    features = ("x_a", "x_b", "x_c", "x_d", "x_e")
    return decide(
        evidence(drills=[Drill(features, share, drilled=under, hit=hit)]),
        margin=0.002, guardrails=RANGE, drill_calibration=[0.8, 1.25],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("under", "hit", "share", "expected"),
    [
        (BELOW, BELOW, 0.05, REJECT),
        (ABOVE, ABOVE, 0.05, REJECT),
        (BELOW, BELOW, 0.01, REJECT),
        (BELOW, BELOW, 0.009, PROMOTE),  # too rare to decide
        (BELOW, BELOW, 0.0, PROMOTE),
        (TOUCHES, BELOW, 0.05, PROMOTE),  # reaches into the range
        (BELOW, TOUCHES, 0.05, PROMOTE),
        (BELOW, WITHIN, 0.05, PROMOTE),  # nulls with good reason: those who really lacked it were told right
        (BELOW, ABOVE, 0.05, PROMOTE),
        (BELOW, WIDE, 0.05, PROMOTE),
        (WITHIN, BELOW, 0.05, PROMOTE),
        (BELOW, Cannot("no positives"), 0.05, PROMOTE),
        (Cannot("no positives"), BELOW, 0.05, PROMOTE),
        (NOT_A_NUMBER, BELOW, 0.05, PROMOTE),
        (BELOW, NOT_A_NUMBER, 0.05, PROMOTE),
    ],
)
def test_an_outage_that_was_seen_rejects_only_where_drill_and_experience_agree(under, hit, share, expected):
    assert drilled(under, hit, share).outcome is expected


def test_what_an_outage_broke_is_said_in_words():
    assert drilled(BELOW, BELOW).reasons == (
        "without x_a, x_b, x_c, x_d and 1 more, as 5.0% of requests were: calibration_ratio 0.550 [0.500, 0.600], "
        "allowed 0.8 to 1.25; of those requests themselves 0.550 [0.500, 0.600]: broken",
    )


@pytest.mark.parametrize(("hit", "said"), [(WIDE, "too wide to tell"), (Cannot("no positives"), "no positives")])
def test_an_outage_of_which_little_is_known_adds_a_reason_and_holds_nothing(hit, said):
    found = drilled(BELOW, hit)
    assert found.outcome is PROMOTE
    assert any(reason.startswith("without x_a") and reason.endswith(said) for reason in found.reasons)


def test_an_outage_that_the_model_bears_is_no_reason():
    assert not [reason for reason in drilled(WITHIN, WITHIN).reasons if reason.startswith("without")]
