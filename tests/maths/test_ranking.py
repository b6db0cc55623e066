"""Ranking measures against brute force and scikit-learn."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score, roc_auc_score

from sameworld.maths.ranking import (
    auc,
    coverage,
    gini,
    mean_within_request,
    mrr_by_request,
    ndcg_by_request,
    order_positions,
    request_starts,
    require_same_length,
)
from sameworld.records import Refused


def lists(*, seed, requests=40, longest=12):
    """Requests of 1..longest rows with untied scores and gains of which many are 0."""
    generator = np.random.default_rng(seed)
    request = np.repeat(np.arange(requests), generator.integers(1, longest + 1, requests))
    score = generator.permutation(len(request)).astype(float)
    return request, score, generator.choice([0.0, 0.0, 1.0, 2.5, 5.0], len(request))


def rows_of(request, r):
    return np.flatnonzero(request == r)


def test_positions_equal_those_of_sorting_each_request_by_itself():
    request, score, _ = lists(seed=1)
    position = order_positions(request, score)
    for r in range(request[-1] + 1):
        rows = rows_of(request, r)
        by_hand = {row: place + 1 for place, row in enumerate(sorted(rows, key=lambda row: -score[row]))}
        assert [by_hand[row] for row in rows] == position[rows].tolist()


def test_tied_rows_keep_their_order():
    request = np.array([0, 0, 0, 0, 1, 1])
    assert order_positions(request, [1.0, 2.0, 1.0, 2.0, 0.0, 0.0]).tolist() == [3, 1, 4, 2, 1, 2]


def test_infinite_scores_stand_at_the_ends():
    assert order_positions(np.zeros(3, int), [-np.inf, 0.0, np.inf]).tolist() == [3, 2, 1]


def test_a_score_that_is_not_a_number_is_refused():
    with pytest.raises(Refused, match=re.escape("a score is not a number: got 1 NaN of 2")):
        order_positions(np.array([0, 0]), [1.0, np.nan])


@pytest.mark.parametrize("codes", [[1, 1], [0, 2], [0, 1, 0], [1, 0]])
def test_requests_that_are_not_contiguous_and_ascending_are_refused(codes):
    with pytest.raises(Refused, match=re.escape("request codes out of order")):
        request_starts(np.array(codes))


def test_arrays_of_different_length_are_refused_by_name():
    with pytest.raises(Refused, match=re.escape("arrays of different length: got request 2, score 3")):
        order_positions(np.array([0, 0]), [1.0, 2.0, 3.0])
    assert require_same_length(a=np.zeros(2), b=np.zeros((2, 5))) == 2


@pytest.mark.parametrize("k", [1, 3, 10, 100])
def test_ndcg_equals_scikit_learns_where_nothing_is_tied(k):
    request, score, gain = lists(seed=2, requests=120)
    value, has_gain = ndcg_by_request(request, score, gain, k)
    for r in np.flatnonzero(np.bincount(request) > 1):  # scikit-learn refuses a list of one
        rows = rows_of(request, r)
        assert has_gain[r] == (gain[rows].sum() > 0)
        assert value[r] == pytest.approx(ndcg_score(gain[None, rows], score[None, rows], k=k))


def test_a_single_row_with_gain_has_ndcg_1_and_one_without_is_left_out():
    value, has_gain = ndcg_by_request(np.array([0, 1]), [0.0, 0.0], [3.0, 0.0], k=10)
    assert (value.tolist(), has_gain.tolist()) == ([1.0, 0.0], [True, False])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_permuting_rows_within_a_request_keeps_ndcg_and_mrr(seed):
    request, score, gain = lists(seed=seed, requests=6)
    shuffled = np.lexsort((np.random.default_rng(seed + 1).random(len(request)), request))
    for measure in (lambda *rows: ndcg_by_request(*rows, k=5), mrr_by_request):
        as_is, permuted = measure(request, score, gain), measure(request, score[shuffled], gain[shuffled])
        assert permuted[0] == pytest.approx(as_is[0])
        assert (permuted[1] == as_is[1]).all()


def test_ndcg_does_not_depend_on_the_unit_of_the_gains_nor_on_the_scale_of_the_scores():
    request, score, gain = lists(seed=3)
    other = ndcg_by_request(request, np.exp(score / 100.0), 7.0 * gain, 5)[0]
    assert other == pytest.approx(ndcg_by_request(request, score, gain, 5)[0])


def test_a_negative_gain_and_a_cut_at_0_are_refused():
    with pytest.raises(Refused, match=re.escape("a gain that cannot be ranked by: got -1.0 to 1.0")):
        ndcg_by_request(np.array([0, 0]), [1.0, 2.0], [1.0, -1.0], 5)
    with pytest.raises(Refused, match=re.escape("no positions to count: got k = 0")):
        ndcg_by_request(np.array([0]), [1.0], [1.0], 0)


def test_reciprocal_rank_equals_brute_force():
    request, score, gain = lists(seed=4)
    value, has_gain = mrr_by_request(request, score, gain)
    for r in range(request[-1] + 1):
        ordered = gain[rows_of(request, r)[np.argsort(-score[request == r])]]
        first = np.flatnonzero(ordered > 0)
        assert value[r] == (1.0 / (first[0] + 1) if len(first) else 0.0)
        assert has_gain[r] == bool(len(first))


def test_no_rows_give_no_requests():
    none = np.empty(0, dtype=int)
    assert all(len(part) == 0 for part in ndcg_by_request(none, none, none, 5) + mrr_by_request(none, none, none))


def test_auc_equals_scikit_learns_with_ties_and_weights():
    generator = np.random.default_rng(5)
    y, score, weight = generator.integers(0, 2, 500), generator.integers(0, 20, 500), generator.random(500)
    assert auc(y, score) == pytest.approx(roc_auc_score(y, score))
    assert auc(y, score, weight) == pytest.approx(roc_auc_score(y, score, sample_weight=weight))


def test_auc_weight_2_equals_the_row_twice():
    y, score, weight = np.array([0, 1, 1, 0, 1]), np.array([1, 2, 0, 1, 1]), np.array([1, 2, 1, 2, 0])
    assert auc(y, score, weight) == pytest.approx(auc(np.repeat(y, weight), np.repeat(score, weight)))


def test_auc_of_one_class_is_refused():
    with pytest.raises(Refused, match=re.escape("only one class of label: got positives weigh 2, negatives 0")):
        auc([1, 1], [0.1, 0.2])
    with pytest.raises(Refused, match=re.escape("only one class of label: got positives weigh 0, negatives 1")):
        auc([1, 0], [0.1, 0.2], [0.0, 1.0])


def test_gini_equals_half_the_relative_mean_absolute_difference():
    counts = np.random.default_rng(6).poisson(3.0, 200).astype(float)
    differences = np.abs(counts[:, None] - counts[None, :]).mean()
    assert gini(counts) == pytest.approx(differences / (2.0 * counts.mean()))


@pytest.mark.parametrize("counts", [[], [0, 0], [1, -1, 3]])
def test_gini_without_exposure_is_refused(counts):
    with pytest.raises(Refused, match=re.escape("no exposure to compare")):
        gini(counts)


def test_coverage_counts_each_item_once():
    assert coverage(np.array([4, 4, 0]), 5) == pytest.approx(0.4)
    assert coverage(np.empty(0, dtype=int), 5) == 0.0
    with pytest.raises(Refused, match=re.escape("an item outside the catalogue: got codes 0 to 5; wanted codes 0..4")):
        coverage(np.array([0, 5]), 5)


def test_the_mean_within_a_request_is_repeated_on_its_rows():
    request, score, _ = lists(seed=7)
    by_hand = [score[request == r].mean() for r in request]
    assert mean_within_request(request, score) == pytest.approx(by_hand)
