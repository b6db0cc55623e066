"""Metrics against plain scikit-learn, paired replicates, slices, and what position debiasing mends."""

import re

import numpy as np
import polars as pl
import pytest
from models import tiny
from sklearn.metrics import log_loss, ndcg_score, roc_auc_score

from sameworld.maths.bootstrap import Replicates
from sameworld.models.judging import Judged, estimate_record, metric_names, metric_replicates
from sameworld.models.scored_rows import judged_rows
from sameworld.records import Cannot

NAMES = metric_names([5, 10])
DRAW = {"seed": 1, "replicates": 100}
SIZE = 6


def judged(requests=200, seed=0, users=40, unseen=None) -> Judged:
    rng, n = np.random.default_rng(seed), requests * SIZE
    probability = rng.uniform(0.02, 0.6, n)
    target = (rng.random(n) < probability).astype(float)
    return Judged(
        request=np.repeat(np.arange(requests), SIZE),
        user=np.repeat(rng.permutation(np.arange(requests) % users), SIZE),
        item=rng.integers(0, 25, n),
        gain=target * rng.choice([1.0, 5.0], n),
        target=target,
        score=rng.permutation(n) / n + probability,
        probability=probability,
        unseen=np.ones(n) if unseen is None else unseen,
    )


def value(name, rows) -> float:
    found = metric_replicates(name, rows, **DRAW)
    assert isinstance(found, Replicates), found
    return float(found.value[0])


def table(column):
    return column.reshape(-1, SIZE)


@pytest.mark.parametrize("k", [5, 10])
def test_ndcg_is_scikit_learns_mean_over_the_requests_with_gain(k):
    rows = judged()
    counted = table(rows.gain).sum(axis=1) > 0
    assert value(f"ndcg@{k}", rows) == pytest.approx(
        ndcg_score(table(rows.gain)[counted], table(rows.score)[counted], k=k)
    )


def test_gains_count_over_their_examination_and_requests_by_how_unlikely_theirs_were():
    rows = judged(unseen=np.tile(np.arange(1.0, SIZE + 1), 200))
    worth = table(rows.gain * rows.unseen)
    counted = worth.sum(axis=1) > 0
    weight = worth.sum(axis=1)[counted] / table(rows.gain).sum(axis=1)[counted]
    each = [ndcg_score([w], [s], k=5) for w, s in zip(worth[counted], table(rows.score)[counted], strict=True)]
    assert value("ndcg@5", rows) == pytest.approx(np.average(each, weights=weight))


def test_mrr_is_the_mean_of_one_over_the_first_gainful_position():
    rows, firsts = judged(), []
    for gain, score in zip(table(rows.gain), table(rows.score), strict=True):
        hits = np.flatnonzero(gain[np.argsort(-score)])
        firsts += [1.0 / (hits[0] + 1)] if len(hits) else []
    assert value("mrr", rows) == pytest.approx(np.mean(firsts))


def test_auc_and_entropy_are_scikit_learns():
    rows = judged()
    assert value("auc", rows) == pytest.approx(roc_auc_score(rows.target, rows.probability))
    base = log_loss(rows.target, np.full(len(rows.target), rows.target.mean()))
    assert value("normalised_entropy", rows) == pytest.approx(log_loss(rows.target, rows.probability) / base)
    assert value("calibration_ratio", rows) == pytest.approx(rows.probability.sum() / rows.target.sum())


def test_coverage_and_gini_count_the_items_of_the_top():
    rows = judged()
    top = np.argsort(np.argsort(-table(rows.score), axis=1), axis=1).ravel() < 5
    counts = np.bincount(rows.item[top], minlength=rows.item.max() + 1)
    pairs = np.abs(counts[:, None] - counts[None, :]).mean() / (2 * counts.mean())
    found = [metric_replicates(name, rows, **DRAW).value[0] for name in ("coverage@5", "exposure_gini@5")]
    assert found == pytest.approx([(counts > 0).mean(), pairs])


@pytest.mark.parametrize("name", NAMES)
def test_a_model_against_itself_is_exactly_zero_in_every_sample(name):
    one, other = (metric_replicates(name, judged(), **DRAW) for _ in range(2))
    difference = one.minus(other)
    assert difference.value.tolist() == [0.0]
    assert (difference.draws[np.isfinite(difference.draws)] == 0.0).all()


@pytest.mark.parametrize("name", ["ndcg@5", "normalised_entropy", "auc"])
def test_a_paired_difference_is_narrower_than_either_models_interval(name):
    rows = judged()
    nudged = rows.with_scores(rows.score + 1e-3 * rows.target, np.clip(rows.probability * 1.02, 0, 0.99))
    one, other = (metric_replicates(name, each, **DRAW) for each in (rows, nudged))
    own, paired = one.estimates()[0], other.minus(one).estimates()[0]
    assert paired.high - paired.low < 0.2 * (own.high - own.low)


@pytest.mark.parametrize("name", NAMES)
def test_a_slice_is_the_metric_of_its_rows_alone(name):
    rows, chosen = judged(), judged().user % 3 == 0
    alone = Judged(
        request=np.unique(rows.request[chosen], return_inverse=True)[1],
        user=np.unique(rows.user[chosen], return_inverse=True)[1],
        **{k: getattr(rows, k)[chosen] for k in ("item", "gain", "target", "score", "probability", "unseen")},
    )
    one, other = (metric_replicates(name, part, **DRAW) for part in (rows.where(chosen), alone))
    np.testing.assert_array_equal(one.draws, other.draws)
    assert one.value[0] != metric_replicates(name, rows, **DRAW).value[0] or name.startswith("coverage")


def test_a_slice_of_single_rows_has_no_lists():
    first = judged().where(np.arange(1200) % SIZE == 0)
    assert metric_replicates("mrr", first, **DRAW) == Cannot("the log has no lists: each request shows one item")


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_slice_says_that_it_has_no_rows(name):
    empty = judged().where(np.zeros(1200, dtype=bool))
    assert metric_replicates(name, empty, **DRAW) == Cannot("no rows to judge")


@pytest.mark.parametrize("name", ["normalised_entropy", "calibration_ratio", "ece"])
def test_a_mere_order_has_no_probabilities(name):
    found = metric_replicates(name, judged().with_scores(judged().score), **DRAW)
    assert estimate_record(found) == {"cannot": "a mere order has no probabilities"}


@pytest.mark.parametrize("name", ["ndcg@5", "mrr", "normalised_entropy", "calibration_ratio", "auc"])
def test_without_any_outcome_there_is_a_reason_and_no_number(name):
    rows, nothing = judged(), np.zeros(1200)
    none = Judged(rows.request, rows.user, rows.item, nothing, nothing, rows.score, rows.probability, rows.unseen)
    assert set(estimate_record(metric_replicates(name, none, **DRAW))) == {"cannot"}


def test_one_user_has_no_interval():
    record = estimate_record(metric_replicates("ndcg@5", judged(users=1), **DRAW))
    assert re.search(re.escape("no interval by user"), record["cannot"])


def test_an_estimate_holds_its_value_inside_its_interval():
    record = estimate_record(metric_replicates("ndcg@5", judged(), **DRAW))
    assert record["low"] < record["value"] < record["high"]


def clicked_world(requests=6000, seed=3):
    """A logged order that puts the worse items on top half of the time, and clicks that need examination 1/k."""
    rng = np.random.default_rng(seed)
    relevance = np.tile(np.linspace(0.1, 0.5, SIZE), (requests, 1))
    logged = np.where(rng.random((requests, 1)) < 0.7, np.arange(SIZE), np.arange(SIZE)[::-1])
    position = np.empty_like(logged)
    np.put_along_axis(position, logged, np.arange(SIZE)[None, :] + 1, axis=1)
    click = (rng.random(relevance.shape) < relevance / position).astype(float).ravel()
    flat, request = position.ravel().astype(float), np.repeat(np.arange(requests), SIZE)
    shape = {"request": request, "user": request, "item": np.tile(np.arange(SIZE), requests)}
    rows = Judged(**shape, gain=click, target=click, score=-flat, probability=None, unseen=flat)
    return rows, relevance.ravel()


@pytest.mark.parametrize("name", ["ndcg@5", "ndcg@10"])
def test_debiased_ndcg_prefers_the_true_order_where_the_plain_one_prefers_the_logged(name):
    rows, relevance = clicked_world()
    true, plain = rows.with_scores(relevance), Judged(**{**vars(rows), "unseen": np.ones(len(relevance))})
    assert value(name, plain) > value(name, plain.with_scores(relevance))
    difference = metric_replicates(name, true, **DRAW).minus(metric_replicates(name, rows, **DRAW)).estimates()[0]
    assert difference.low > 0


def single_answers(requests=6000, seed=4):
    """One relevant item a request, at the position where it was logged; what was seen of it, and all of it."""
    rng = np.random.default_rng(seed)
    position = np.argsort(rng.random((requests, SIZE)) - 0.3 * np.linspace(0, 1, SIZE), axis=1).argsort(axis=1) + 1.0
    relevant = np.zeros((requests, SIZE))
    relevant[np.arange(requests), rng.choice(SIZE, requests, p=np.arange(1, SIZE + 1) / 21)] = 1.0
    seen = relevant * (rng.random((requests, SIZE)) < 1.0 / position)
    request, item = (column.ravel() for column in np.indices((requests, SIZE)))
    shape = {"request": request, "user": request, "item": item, "score": -position.ravel(), "probability": None}
    ones = np.ones(len(request))
    full = Judged(**shape, gain=relevant.ravel(), target=relevant.ravel(), unseen=ones)
    return Judged(**shape, gain=seen.ravel(), target=seen.ravel(), unseen=position.ravel()), full


@pytest.mark.parametrize("name", ["ndcg@10", "mrr"])
def test_debiased_metrics_are_what_full_examination_would_have_shown(name):
    clicks, full = single_answers()
    for score in (full.score, full.item.astype(float), -full.item.astype(float)):
        estimate = metric_replicates(name, clicks.with_scores(score), **DRAW).estimates()[0]
        half = (estimate.high - estimate.low) / 2
        assert abs(value(name, full.with_scores(score)) - estimate.value) < 2.5 * half
        assert half < 0.03
    plain = Judged(**{**vars(clicks), "unseen": np.ones(len(clicks.gain))})
    assert value(name, plain) > value(name, full) + 0.05


def test_rows_are_scored_by_the_bundle_and_seen_by_their_position():
    frame = tiny.candidates(requests=4, size=3).with_columns(position=np.tile([1, 2, 3], 4), gain=0.0, target=0.0)
    rows = judged_rows(frame, tiny.bundle(lists=False))
    theta = np.tile([1.0, 0.5, 0.25], 4)
    np.testing.assert_allclose(rows.probability, tiny.logistic(rows.score) * theta)
    np.testing.assert_allclose(rows.unseen, 1.0 / theta)
    assert rows.request.tolist() == np.repeat(range(4), 3).tolist()


def test_an_unknown_user_counts_as_its_request_and_never_as_a_user_of_that_name():
    frame = tiny.candidates(requests=4, size=1).with_columns(position=1, gain=0.0, target=0.0)
    users = frame.with_columns(user_id=pl.Series([None, "r000", "r000", None]))
    assert len(set(judged_rows(users, tiny.bundle()).user)) == 3
