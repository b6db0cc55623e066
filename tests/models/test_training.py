"""The trainer against plain LightGBM on real data, across threads, and where there is nothing to fit."""

import hashlib
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pytest
from models import tiny

from benchmarks import lambdarank_oracle as oracle
from sameworld.maths.ranking import ndcg_by_request
from sameworld.models.training import binned, binned_rows, fit_gain, fit_probability, fit_ranker
from sameworld.records import Refused


def test_the_ranker_equals_plain_lightgbm_on_its_own_example():
    train, test = oracle.example("train"), oracle.example("test")
    ours = lgb.Booster(model_str=oracle.ours(train, oracle.SETTINGS, 100)).predict(test[0])
    theirs = oracle.theirs(train, oracle.SETTINGS, 100).predict(test[0])
    for k in (1, 3, 5):
        mine, other = (oracle.ndcg(test, score, k) for score in (ours, theirs))
        assert mine == pytest.approx(other, abs=1e-9)
        assert mine > oracle.ndcg(test, np.zeros(len(ours)), k) + 0.1


def test_ndcg_on_the_example_equals_what_lightgbm_itself_reports():
    train, test, seen = oracle.example("train"), oracle.example("test"), {}
    data = lgb.Dataset(train[0], train[1], group=train[2], params={"verbosity": -1})
    held = lgb.Dataset(test[0], test[1], group=test[2], reference=data)
    params = {**oracle.SETTINGS, **oracle.PLAIN, "metric": "ndcg", "eval_at": [1, 3, 5]}
    booster = lgb.train(params, data, 20, valid_sets=[held], callbacks=[lgb.record_evaluation(seen)])
    for k in (1, 3, 5):
        reported = seen["valid_0"][f"ndcg@{k}"][-1]
        assert oracle.ndcg(test, booster.predict(test[0]), k) == pytest.approx(reported, abs=1e-9)


def text_hash(threads):
    """Hash of a probability model and two rankers, with bagging, early stopping and position debiasing."""
    settings = {**tiny.SETTINGS, "num_threads": threads, "bagging_fraction": 0.8, "bagging_freq": 1}
    rows, stop, fit = tiny.rows(requests=500), tiny.rows(seed=9), {**tiny.FIT, "settings": settings, "max_rounds": 8}
    fitted = [fit_probability(rows, **{**fit, "stop": stop}), fit_ranker(rows, **{**fit, "stop": stop})]
    fitted.append(fit_ranker(rows, **fit, debias_position=True))
    bins = binned(rows.matrix, settings=settings, categories=[0])
    some = replace(rows, matrix=binned_rows(bins, np.ones(len(rows.target), np.bool_)))
    fitted.append(fit_gain(some, **fit))
    return hashlib.sha256("".join(one.text for one in fitted).encode()).hexdigest()


def text_hash_of_a_process(omp_threads):
    tests = Path(__file__).parents[1]
    environment = {"PYTHONPATH": f"{tests}{os.pathsep}{tests.parent}", "OMP_NUM_THREADS": omp_threads}
    command = [sys.executable, "-c", "from models.test_training import text_hash; print(text_hash(0))"]
    done = subprocess.run(command, env={**os.environ, **environment}, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_fault_60_any_number_of_threads_gives_the_same_bytes():
    assert len({text_hash(threads) for threads in (1, 2, 4)} | {text_hash_of_a_process("3")}) == 1


def on_bins(rows, chosen=None):
    chosen = np.ones(len(rows.target), np.bool_) if chosen is None else chosen
    bins = binned(rows.matrix, settings=tiny.SETTINGS, categories=[0])
    return replace(rows, matrix=binned_rows(bins, chosen))


def test_bins_made_once_give_every_model_the_text_of_its_own_matrix():
    rows = tiny.rows()
    shared = on_bins(rows)
    for fit in (fit_probability, fit_gain, fit_ranker, fit_probability):
        assert fit(shared, **tiny.FIT).text == fit(rows, **tiny.FIT).text


def chosen_rows(rows, chosen):
    kept = {
        name: getattr(rows, name)[chosen] for name in ("matrix", "target", "gain", "exposure", "weight", "position")
    }
    return replace(rows, **kept, sizes=np.full(chosen.sum() // 8, 8))


def test_a_choice_of_binned_rows_is_fitted_on_those_rows_and_stopped_by_others():
    rows = tiny.rows()
    coarse = replace(rows, matrix=np.round(rows.matrix))  # so few values that any choice of rows has the same bins
    early = np.repeat(np.arange(300) < 200, 8)
    bins = binned(coarse.matrix, settings=tiny.SETTINGS, categories=[0])
    texts = []
    for matrices in ((binned_rows(bins, early), binned_rows(bins, ~early)), (None, None)):
        fit, stop = (chosen_rows(coarse, one) for one in (early, ~early))
        if matrices[0] is not None:
            fit, stop = (replace(one, matrix=matrix) for one, matrix in zip((fit, stop), matrices, strict=True))
        texts.append(fit_probability(fit, **{**tiny.FIT, "stop": stop}).text)
    assert trees(texts[0]) == trees(texts[1])


@pytest.mark.parametrize("fit", [fit_probability, fit_gain])
def test_scores_kept_from_the_fitting_are_the_models_own(fit):
    rows = tiny.rows()
    fitted = fit(rows, **tiny.FIT, keep_raw=True)
    predicted = fitted.start + lgb.Booster(model_str=fitted.text).predict(rows.matrix, raw_score=True)
    np.testing.assert_allclose(fitted.raw, predicted, atol=1e-12)
    assert not len(fit(rows, **tiny.FIT).raw)


def test_position_debiasing_changes_the_ranker():
    rows = tiny.rows(theta=1.0 / np.arange(1, 9))
    assert fit_ranker(rows, **tiny.FIT).text != fit_ranker(rows, **tiny.FIT, debias_position=True).text


@pytest.mark.parametrize(("label", "got"), [(0.0, "negative rows only"), (1.0, "positive rows only")])
def test_fault_13_one_class_of_label_is_refused_in_words(label, got):
    rows = tiny.rows(requests=20)
    with pytest.raises(Refused, match=re.escape(f"the probability model cannot be fitted: got {got}")):
        fit_probability(replace(rows, target=np.full(len(rows.target), label)), **tiny.FIT)


def test_a_held_out_period_ends_the_fitting_and_the_text_keeps_the_best_round_only():
    rows = tiny.rows(requests=60)
    fitted = fit_probability(rows, **{**tiny.FIT, "stop": tiny.rows(seed=5), "max_rounds": 300})
    assert 0 < fitted.rounds < 300
    assert lgb.Booster(model_str=fitted.text).num_trees() == fitted.rounds


def logged_badly(seed, requests=600, size=8, swaps=1.5):
    """Rows of a log that mostly shows the dear, disliked items on top, where people look."""
    rows, rng = tiny.rows(requests, size, seed), np.random.default_rng(seed)
    price = rows.matrix[:, 1].reshape(requests, size)
    order = np.argsort(-price + swaps * rng.gumbel(size=price.shape) / 2, axis=1)
    matrix = rows.matrix[(np.arange(requests)[:, None] * size + order).ravel()]
    exposure = np.tile(1.0 / np.arange(1, size + 1), requests)
    target = (rng.random(len(exposure)) < exposure * tiny.truth(*matrix.T)).astype(float)
    return replace(rows, matrix=matrix, exposure=exposure, target=target, gain=target)


def test_the_ranker_stops_on_gains_over_their_exposure_and_not_on_the_logged_order():
    rows, stop = logged_badly(1), logged_badly(2)
    fit = {**tiny.FIT, "max_rounds": 60, "debias_position": True}
    debiased = fit_ranker(rows, **{**fit, "stop": stop})
    as_clicked = fit_ranker(rows, **{**fit, "stop": replace(stop, exposure=np.ones(len(stop.exposure)))})
    quality = [
        ndcg_by_request(np.repeat(np.arange(600), 8), lgb.Booster(model_str=one.text).predict(stop.matrix),
                        tiny.truth(*stop.matrix.T), 8)[0].mean()
        for one in (debiased, as_clicked)
    ]  # fmt: skip
    assert quality[0] > quality[1] + 0.01


def test_gains_count_as_they_are_and_not_as_powers_of_two():
    rows = tiny.rows()
    text = fit_ranker(rows, **tiny.FIT).text
    assert "[label_gain: 0,1,5]" in text
    doubled = fit_ranker(replace(rows, gain=2.0 * rows.gain), **tiny.FIT).text
    assert hashlib.sha256(trees(text)).digest() == hashlib.sha256(trees(doubled)).digest()


def trees(text):
    return text.partition("\nparameters:")[0].encode()


def test_the_text_names_nothing_of_the_machine():
    assert "num_threads" not in tiny.texts()[0] + tiny.texts()[1]


def test_a_ranker_of_two_halves_of_every_request_is_that_of_the_whole():
    whole, settings = tiny.rows(), {**tiny.SETTINGS, "min_data_in_leaf": 1, "min_sum_hessian_in_leaf": 5.0}
    twice = {name: np.concatenate([one, one]) for name, one in vars(whole).items() if one is not None}
    halves = replace(whole, **twice, share=np.full(2 * len(whole.target), 0.5))
    made = [lgb.Booster(model_str=fit_ranker(rows, **{**tiny.FIT, "settings": settings}).text)
            for rows in (whole, halves)]  # fmt: skip
    first, second = (one.predict(whole.matrix) for one in made)
    assert second == pytest.approx(first, abs=1e-6)
    alone = fit_ranker(replace(halves, share=None), **{**tiny.FIT, "settings": settings})
    assert lgb.Booster(model_str=alone.text).predict(whole.matrix) != pytest.approx(first, abs=1e-3)
