"""The logging policy's probabilities against enumeration of all orders, and where there are none."""

import math
from itertools import permutations

import numpy as np
import polars as pl
import pytest

from sameworld.models import logging_policy
from sameworld.models.logging_policy import knows_policy, logged_policy

SCORES = {"a": 1.0, "b": 0.2, "c": -0.4, "d": 0.7}
POLICIES = [(0.5, 0.1), (0.2, 0.0), (None, 1.0), (0.0, 0.0), (0.0, 0.3), (3.0, 0.02)]


def requests(policies=tuple(POLICIES), scores=SCORES) -> pl.DataFrame:
    listed = [{"item_id": item, "score": score} for item, score in scores.items()]
    return pl.DataFrame(
        [{"request_id": f"r{n}", "candidates": listed, "tau": t, "epsilon": e} for n, (t, e) in enumerate(policies)],
        schema_overrides={"tau": pl.Float64, "epsilon": pl.Float64},
    )


def shown(order="dab", **more) -> pl.DataFrame:
    rows = [(f"r{n}", item, place) for n in range(len(POLICIES)) for place, item in enumerate(order, start=1)]
    return pl.DataFrame(rows, schema=["request_id", "item_id", "position"], orient="row").with_columns(**more)


def chance(order, tau, epsilon):
    """Probability of a whole order, straight from the definition; at tau 0 the order by score is certain."""
    if not tau:
        model = float(list(order) == sorted(SCORES, key=SCORES.get, reverse=True))
    else:
        weight = np.exp(np.array([SCORES[item] for item in order]) / tau)
        model = np.prod([weight[k] / weight[k:].sum() for k in range(len(order))])
    return (1 - epsilon) * model + epsilon / math.factorial(len(order))


def enumerated(policy, wanted) -> float:
    return sum(chance(order, *policy) for order in permutations(SCORES) if wanted(order))


def test_marginals_are_the_sums_over_all_orders():
    found = logged_policy(requests(), shown(), positions=3).marginals
    every = [
        [enumerated(policy, lambda order, item=item, k=k: order[k] == item) for k in range(3)]
        for policy in POLICIES
        for item in "dab"
    ]
    np.testing.assert_allclose(found, every, atol=1e-8)


def test_prefixes_are_the_sums_over_the_orders_that_begin_with_them():
    found = logged_policy(requests(), shown("adb"), positions=3).prefix_log_propensity
    every = [
        enumerated(policy, lambda order, k=k: order[:k] == tuple("adb")[:k]) for policy in POLICIES for k in (1, 2, 3)
    ]
    np.testing.assert_allclose(np.exp(found), every, atol=1e-12)


def test_a_targets_chance_is_its_marginal_at_the_rows_position():
    rows = shown(target_item=pl.Series(["c", "b", "zz"] * len(POLICIES)))
    found = logged_policy(requests(), rows, positions=3).target.reshape(-1, 3)
    every = [
        [enumerated(policy, lambda order, item=item, k=k: order[k] == item) for k, item in enumerate("cb")]
        for policy in POLICIES
    ]
    np.testing.assert_allclose(found[:, :2], every, atol=1e-8)
    assert (found[:, 2] == 0.0).all()  # no candidate: never shown


def test_without_a_target_or_a_law_its_chance_is_unknown():
    assert np.isnan(logged_policy(requests(), shown(), positions=3).target).all()
    nobody = shown(target_item=pl.lit(None, dtype=pl.String))
    assert np.isnan(logged_policy(requests(), nobody, positions=3).target).all()
    assert np.isnan(logged_policy(requests().clear(), shown(target_item=pl.lit("a")), positions=3).target).all()


@pytest.mark.parametrize("block", [1, 40, 10_000])
def test_the_size_of_the_blocks_and_the_order_of_the_rows_change_nothing(monkeypatch, block):
    whole = logged_policy(requests(), shown(), positions=3)
    monkeypatch.setattr(logging_policy, "_BLOCK_MARGINALS", block)
    order = np.random.default_rng(0).permutation(len(shown()))
    parts = logged_policy(requests(), shown()[order], positions=3)
    np.testing.assert_allclose(parts.marginals, whole.marginals[order], atol=1e-12)
    np.testing.assert_allclose(parts.prefix_log_propensity, whole.prefix_log_propensity[order], atol=1e-12)


def test_fault_12_a_gap_or_an_unknown_item_has_no_prefix_and_touches_no_other_request():
    rows = shown().filter(~((pl.col("request_id") == "r0") & (pl.col("position") == 2)))
    rows = rows.with_columns(item_id=pl.when(request_id="r1", position=1).then(pl.lit("zz")).otherwise("item_id"))
    found = logged_policy(requests(), rows, positions=3)
    bad = rows["request_id"].is_in(["r0", "r1"]).to_numpy()
    assert np.isnan(found.prefix_log_propensity[bad]).all()
    assert not np.isnan(found.prefix_log_propensity[~bad]).any()
    unknown = (rows["item_id"] == "zz").to_numpy()
    assert np.isnan(found.marginals[unknown]).all()
    assert np.isfinite(found.marginals[~unknown]).all()


def test_rows_of_a_request_without_a_law_are_unknown():
    found = logged_policy(requests().filter(pl.col("request_id") != "r2"), shown(), positions=3)
    unknown = (shown()["request_id"] == "r2").to_numpy()
    assert np.array_equal(np.isnan(found.marginals).all(axis=1), unknown)
    assert np.array_equal(np.isnan(found.prefix_log_propensity), unknown)


def known(frame: pl.DataFrame) -> list[str]:
    return knows_policy(frame.lazy()).collect()["request_id"].to_list()


@pytest.mark.parametrize(
    ("tau", "epsilon", "law"),
    [
        (0.5, 0.1, True),
        (0.0, 0.0, True),
        (None, 1.0, True),
        (None, 0.5, False),
        (0.5, None, False),
        (-1.0, 0.1, False),
        (math.nan, 0.1, False),
        (math.inf, 0.1, False),
        (0.5, 1.5, False),
        (0.5, math.nan, False),
    ],
)
def test_only_a_sound_tau_and_epsilon_make_a_law(tau, epsilon, law):
    assert (known(requests([(tau, epsilon)])) == ["r0"]) is law


@pytest.mark.parametrize(
    "candidates",
    [None, [], [("a", None)], [("a", math.nan)], [("a", 1.0), ("b", math.inf)], [("a", 1.0), ("a", 2.0)]],
)
def test_only_candidates_that_stand_once_with_finite_scores_make_a_law(candidates):
    listed = None if candidates is None else [{"item_id": item, "score": score} for item, score in candidates]
    kind = requests().schema["candidates"]
    bad = requests([(0.5, 0.1)]).with_columns(candidates=pl.Series([listed], dtype=kind))
    assert known(bad) == []
    assert known(pl.concat([bad, requests([(0.5, 0.1)])])) == ["r0"]


def test_a_log_without_those_columns_knows_no_law():
    assert known(requests().drop("tau")) == []
