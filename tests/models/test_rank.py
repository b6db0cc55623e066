"""One rank for all: orders, probabilities, exploration with exact propensities, clear refusals."""

import re
from itertools import permutations

import numpy as np
import polars as pl
import pytest
from models import tiny
from polars.testing import assert_frame_equal
from scipy.stats import chisquare

from sameworld.maths.policy import prefix_log_propensity
from sameworld.models.rank import Exploration, rank
from sameworld.records import Refused

EXPLORE = Exploration(tau=0.5, epsilon=0.1, seed=11)


def many(request: pl.DataFrame, times: int) -> pl.DataFrame:
    """The same request again and again under other names."""
    copies = pl.DataFrame({"copy": np.arange(times)})
    named = request.join(copies, how="cross").sort("copy", maintain_order=True)
    return named.with_columns(request_id=pl.format("r{}", "copy")).drop("copy")


@pytest.mark.parametrize("lists", [True, False])
def test_positions_count_from_one_by_falling_score_in_each_request(lists):
    ranked = rank(tiny.candidates(), tiny.bundle(lists=lists))
    for _, request in ranked.group_by("request_id"):
        by_position = request.sort("position")
        assert by_position["position"].to_list() == list(range(1, 7))
        assert by_position["score"].is_sorted(descending=True)


@pytest.mark.parametrize("explore", [None, EXPLORE])
def test_rows_and_columns_stay_and_probabilities_lie_inside_zero_and_one(explore):
    frame = tiny.candidates().sample(fraction=1.0, shuffle=True, seed=2)
    ranked = rank(frame, tiny.bundle(), explore)
    assert ranked.select(frame.columns).equals(frame)
    assert ranked["probability"].is_between(0.0, 1.0, closed="none").all()


@pytest.mark.parametrize("explore", [None, EXPLORE])
def test_the_order_of_the_rows_changes_no_answer(explore):
    frame = tiny.candidates().with_columns(x_price=pl.int_range(pl.len()) / 10 % 3)
    shuffled = frame.sample(fraction=1.0, shuffle=True, seed=4)
    keys = ["request_id", "item_id"]
    one, other = (rank(each, tiny.bundle(), explore).sort(keys) for each in (frame, shuffled))
    tied = one.select("request_id", "score").is_duplicated() if explore is None else pl.repeat(False, len(one), eager=1)
    assert_frame_equal(one.filter(~tied), other.filter(~tied), abs_tol=1e-12)
    assert (~tied).sum() > 30


def test_equal_scores_keep_the_order_given():
    twins = pl.DataFrame({"request_id": ["r"] * 4, "item_id": list("dbca"), "x_price": [1.0] * 4})
    assert rank(twins, tiny.bundle())["position"].to_list() == [1, 2, 3, 4]


@pytest.mark.parametrize("explore", [None, EXPLORE])
def test_a_request_of_one_row_is_position_one_for_certain(explore):
    ranked = rank(tiny.candidates(requests=3, size=1), tiny.bundle(), explore)
    assert ranked["position"].to_list() == [1, 1, 1]
    assert explore is None or ranked["propensity"].to_list() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("explore", [None, EXPLORE])
def test_no_rows_give_no_rows(explore):
    ranked = rank(tiny.candidates().clear(), tiny.bundle(), explore)
    assert len(ranked) == 0
    assert {"score", "probability", "position"} <= set(ranked.columns)


def test_a_request_ranks_the_same_alone_and_in_company():
    frame = tiny.candidates()
    alone = rank(frame.filter(request_id="r007"), tiny.bundle(), EXPLORE)
    assert_frame_equal(alone, rank(frame, tiny.bundle(), EXPLORE).filter(request_id="r007"), abs_tol=1e-12)


def test_columns_of_the_same_name_are_ranked_anew_in_any_company():
    frame = tiny.candidates().with_columns(score=pl.lit("old"), position=pl.lit(0))
    alone = rank(frame.filter(request_id="r007"), tiny.bundle())
    assert_frame_equal(alone, rank(frame, tiny.bundle()).filter(request_id="r007"), abs_tol=1e-12)
    assert alone["position"].sort().to_list() == [1, 2, 3, 4, 5, 6]


def test_seeds_reproduce_and_other_seeds_draw_anew():
    first, again = (rank(tiny.candidates(), tiny.bundle(), EXPLORE) for _ in range(2))
    other = rank(tiny.candidates(), tiny.bundle(), Exploration(tau=0.5, epsilon=0.1, seed=12))
    assert first.equals(again)
    assert not first["position"].equals(other["position"])


def test_two_requests_of_one_call_draw_apart():
    ranked = rank(many(tiny.candidates(requests=1), 30), tiny.bundle(), EXPLORE)
    orders = {tuple(order) for order in ranked["position"].to_numpy().reshape(30, 6)}
    assert len(orders) > 10


def enumerated(score, tau, epsilon):
    """Item-at-position probabilities by summing over all orders."""
    m = len(score)
    orders = np.array(list(permutations(range(m))))
    chance = np.exp(prefix_log_propensity(np.tile(score, (len(orders), 1)), orders, m, tau=tau, epsilon=epsilon))
    table = np.zeros((m, m))
    for order, share in zip(orders, chance, strict=True):
        table[order, range(m)] += share
    return table


def test_propensities_are_the_policys_marginals_summed_over_all_orders():
    ranked = rank(many(tiny.candidates(requests=1, size=4), 40), tiny.bundle(), EXPLORE)
    score = ranked["score"].to_numpy()[:4]
    table = enumerated(score, EXPLORE.tau, EXPLORE.epsilon)
    item, place = np.tile(np.arange(4), 40), ranked["position"].to_numpy() - 1
    np.testing.assert_allclose(ranked["propensity"], table[item, place], atol=1e-7)


def test_items_are_drawn_as_often_as_their_propensities_say():
    ranked = rank(many(tiny.candidates(requests=1, size=4), 4000), tiny.bundle(), EXPLORE)
    table = enumerated(ranked["score"].to_numpy()[:4], EXPLORE.tau, EXPLORE.epsilon)
    place = ranked["position"].to_numpy().reshape(4000, 4) - 1
    for item in range(4):
        assert chisquare(np.bincount(place[:, item], minlength=4), 4000 * table[item]).pvalue > 1e-4


def test_long_lists_are_worked_out_in_bounded_blocks(monkeypatch):
    whole = rank(tiny.candidates(), tiny.bundle(), EXPLORE)
    monkeypatch.setattr("sameworld.models.rank._BLOCK_MARGINALS", 100)
    np.testing.assert_allclose(rank(tiny.candidates(), tiny.bundle(), EXPLORE)["propensity"], whole["propensity"])


def test_lists_of_different_length_share_a_call():
    frame = tiny.candidates().filter(pl.int_range(pl.len()) % 7 != 0)
    ranked = rank(frame, tiny.bundle(), EXPLORE)
    sizes = ranked.group_by("request_id").agg(n=pl.len(), top=pl.col("position").max(), low=pl.col("position").min())
    assert sizes["n"].equals(sizes["top"].cast(pl.UInt32).alias("n"))
    assert (sizes["low"] == 1).all()
    assert ranked["propensity"].is_between(0.0, 1.0).all()


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (tiny.candidates().drop("item_id"), "candidates lack their ids"),
        (tiny.candidates().with_columns(item_id=pl.lit(None)), "a candidate has a null id"),
        (pl.concat([tiny.candidates()] * 2), "got request 'r000', item 'i00'; wanted each item once"),
        (tiny.candidates().with_columns(x_price=pl.lit("dear")), "feature 'x_price' cannot be read: got String"),
    ],
)
def test_what_cannot_be_ranked_is_refused_in_words(frame, message):
    with pytest.raises(Refused, match=re.escape(message)):
        rank(frame, tiny.bundle())


def test_a_policy_that_cannot_be_is_refused():
    with pytest.raises(Refused, match=re.escape("tau 0")):
        rank(tiny.candidates(), tiny.bundle(), Exploration(tau=0.0, epsilon=0.1, seed=1))
