"""Calibrators recover the truth; calibration measures equal scikit-learn's, SciPy's and brute force."""

import json
import re

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import binom, binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from sameworld.maths.calibration import (
    PlattCalibrator,
    StackCalibrator,
    calibration_ratio,
    calibrator_from_record,
    centre_within_request,
    correct_for_negative_rate,
    ece_equal_mass,
    ece_under_perfect_calibration,
    fit_platt,
    fit_stack,
    normalised_entropy,
    reliability_bins,
)
from sameworld.maths.ranking import mean_within_request, order_positions
from sameworld.records import Refused


def outcomes(*, seed, rows=20_000, slope=0.7, intercept=-1.5, exposed=False):
    """Logits, outcomes of sigmoid(slope · logit + intercept) seen with chance `exposure`, and that exposure."""
    generator = np.random.default_rng(seed)
    logit = generator.normal(0.0, 1.5, rows)
    exposure = generator.choice([1.0, 0.5, 0.2], rows) if exposed else np.ones(rows)
    return logit, (generator.random(rows) < exposure * expit(slope * logit + intercept)).astype(float), exposure


def stacked(*, seed, requests=4000, size=8):
    """Requests where mean logit and centred ranker both carry truth: p = sigmoid(1.4 · ranker + .6 · mean − 1)."""
    generator = np.random.default_rng(seed)
    request = np.repeat(np.arange(requests), size)
    ranker = centre_within_request(request, generator.normal(0.0, 0.8, len(request)))
    mean_logit = np.repeat(generator.normal(-0.5, 1.0, requests), size)
    p = expit(1.4 * ranker + 0.6 * mean_logit - 1.0)
    return request, ranker, mean_logit, p, (generator.random(len(p)) < p).astype(float)


def test_platt_recovers_slope_and_intercept_without_exposure():
    logit, y, _ = outcomes(seed=1)
    fitted = fit_platt(logit, y)
    assert (fitted.slope, fitted.intercept) == pytest.approx((0.7, -1.5), abs=0.06)


def test_platt_recovers_slope_and_intercept_under_exposure_where_ignoring_it_does_not():
    logit, y, exposure = outcomes(seed=2, rows=60_000, exposed=True)
    fitted, ignoring = fit_platt(logit, y, exposure=exposure), fit_platt(logit, y)
    assert (fitted.slope, fitted.intercept) == pytest.approx((0.7, -1.5), abs=0.06)
    assert ignoring.intercept < -2.0


def test_platt_equals_scikit_learns_logistic_regression_on_many_rows():
    logit, y, _ = outcomes(seed=3, rows=50_000)
    oracle = LogisticRegression(C=np.inf, tol=1e-10).fit(logit[:, None], y)
    fitted = fit_platt(logit, y)
    assert fitted.slope == pytest.approx(oracle.coef_[0, 0], abs=2e-3)  # what is left is the prior
    assert fitted.intercept == pytest.approx(oracle.intercept_[0], abs=2e-3)


def test_platt_maximises_the_documented_posterior():
    logit, y, exposure = outcomes(seed=4, rows=300, exposed=True)
    weight = np.random.default_rng(4).uniform(0.5, 2.0, 300)

    def negative_log_posterior(theta):
        p = exposure * expit(np.exp(theta[0]) * logit + theta[1])
        return -np.sum(weight * (y * np.log(p) + (1 - y) * np.log(1 - p))) + theta[0] ** 2 / (2 * 0.5**2)

    best = minimize(negative_log_posterior, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12})
    fitted = fit_platt(logit, y, exposure=exposure, weight=weight)
    assert (np.log(fitted.slope), fitted.intercept) == pytest.approx(tuple(best.x), abs=1e-5)


def test_five_positives_leave_the_slope_near_1_even_where_they_are_separable():
    logit = np.sort(np.random.default_rng(5).normal(-3.0, 1.0, 2000))
    fitted = fit_platt(logit, (np.arange(2000) >= 1995).astype(float))
    assert 1.0 < fitted.slope < 5.0  # unpenalised it is infinite
    assert fitted.probability(logit).sum() == pytest.approx(5.0, rel=1e-6)


def test_with_about_five_positives_the_prior_halves_the_squared_error_of_the_slope():
    error = {"prior": 0.0, "none": 0.0}
    for seed in range(40):
        logit = np.random.default_rng(seed).normal(-6.5, 1.0, 2000)
        y = (np.random.default_rng(1000 + seed).random(2000) < expit(logit)).astype(float)
        if y.any():
            error["prior"] += (fit_platt(logit, y).slope - 1.0) ** 2
            error["none"] += (LogisticRegression(C=np.inf).fit(logit[:, None], y).coef_[0, 0] - 1.0) ** 2
    assert error["prior"] < 0.5 * error["none"]


def test_a_logit_that_says_nothing_or_the_opposite_still_gets_a_positive_slope():
    logit, y, _ = outcomes(seed=6, rows=2000, slope=-1.0)
    assert 0.0 < fit_platt(logit, y).slope < 0.2
    constant = fit_platt(np.full(2000, 3.0), y)
    assert constant.slope == pytest.approx(1.0)
    assert constant.probability([3.0])[0] == pytest.approx(y.mean())


def test_weight_2_equals_the_row_twice_and_the_fit_repeats_exactly():
    logit, y, exposure = outcomes(seed=7, rows=500, exposed=True)
    weight = np.random.default_rng(7).integers(1, 4, 500)
    twice = fit_platt(np.repeat(logit, weight), np.repeat(y, weight), exposure=np.repeat(exposure, weight))
    weighted = fit_platt(logit, y, exposure=exposure, weight=weight)
    assert (weighted.slope, weighted.intercept) == pytest.approx((twice.slope, twice.intercept), abs=1e-7)
    assert fit_platt(logit, y, exposure=exposure, weight=weight) == weighted


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_class_is_refused(label):
    with pytest.raises(Refused, match=re.escape("only one class of label")):
        fit_platt([0.0, 1.0], [label, label])


@pytest.mark.parametrize("exposure", [[0.0, 1.0], [1.1, 1.0], [np.nan, 1.0]])
def test_an_exposure_outside_0_to_1_is_refused(exposure):
    with pytest.raises(Refused, match=re.escape("wanted finite scores, exposure in (0, 1]")):
        fit_platt([0.0, 1.0], [0, 1], exposure=exposure)


@pytest.mark.parametrize("seen", [0.3, 0.5])
def test_more_positives_than_the_exposure_allows_are_refused(seen):
    y = (np.arange(100) < 50).astype(float)
    with pytest.raises(Refused, match=re.escape("more positives than the exposure allows: got 50 of")):
        fit_platt(np.zeros(100), y, exposure=np.full(100, seen))


def test_the_stack_recovers_its_coefficients_and_keeps_the_rankers_order_exactly():
    request, ranker, mean_logit, p, y = stacked(seed=8)
    fitted = fit_stack(ranker, mean_logit, y)
    assert (fitted.a, fitted.b, fitted.c) == pytest.approx((1.4, 0.6, -1.0), abs=0.07)
    probability = fitted.probability(ranker, mean_logit)
    assert np.array_equal(order_positions(request, probability), order_positions(request, ranker))
    assert np.abs(probability - p).max() < 0.05


def test_the_stack_gives_the_same_probabilities_whatever_the_rankers_scale():
    _, ranker, mean_logit, _, y = stacked(seed=9, requests=500)
    as_is, scaled = fit_stack(ranker, mean_logit, y), fit_stack(1000.0 * ranker, mean_logit, y)
    assert scaled.probability(1000.0 * ranker, mean_logit) == pytest.approx(as_is.probability(ranker, mean_logit))


def test_the_stack_recovers_its_coefficients_under_exposure():
    _, ranker, mean_logit, p, _ = stacked(seed=10, requests=8000)
    generator = np.random.default_rng(10)
    exposure = generator.uniform(0.2, 1.0, len(p))
    fitted = fit_stack(ranker, mean_logit, (generator.random(len(p)) < exposure * p).astype(float), exposure=exposure)
    assert (fitted.a, fitted.b, fitted.c) == pytest.approx((1.4, 0.6, -1.0), abs=0.08)


def test_a_ranker_that_says_nothing_leaves_the_mean_logit_to_speak():
    _, ranker, mean_logit, _, y = stacked(seed=11, requests=2000)
    fitted = fit_stack(np.zeros(len(ranker)), mean_logit, y)
    assert fitted.probability(np.zeros(len(ranker)), mean_logit).sum() == pytest.approx(y.sum(), rel=1e-6)


def test_centring_takes_the_requests_mean_off():
    request, _, mean_logit, _, _ = stacked(seed=12, requests=50)
    centred = centre_within_request(request, 5.0 * mean_logit + np.arange(len(request)))
    assert mean_within_request(request, centred) == pytest.approx(np.zeros(len(request)), abs=1e-9)


@pytest.mark.parametrize("calibrator", [PlattCalibrator(0.1 + 0.2, -1 / 3), StackCalibrator(1e-17, 2.0, -0.1)])
def test_calibrators_survive_json_exactly(calibrator):
    assert calibrator_from_record(json.loads(json.dumps(calibrator.as_record()))) == calibrator


def test_a_record_of_another_kind_is_refused():
    with pytest.raises(Refused, match=re.escape("another kind of calibrator: got stack; wanted platt")):
        PlattCalibrator.from_record(StackCalibrator(1.0, 1.0, 0.0).as_record())


def test_normalised_entropy_equals_scikit_learns_log_loss_over_the_base_rates():
    _, y, _ = outcomes(seed=13, rows=500)
    generator = np.random.default_rng(13)
    p, weight = generator.random(500), generator.random(500)
    base = np.full(500, np.average(y, weights=weight))
    expected = log_loss(y, p, sample_weight=weight) / log_loss(y, base, sample_weight=weight)
    assert normalised_entropy(p, y, weight) == pytest.approx(expected)
    assert normalised_entropy(np.full(500, y.mean()), y) == pytest.approx(1.0)


def test_certain_predictions_cost_much_but_not_infinity_and_true_ones_nothing():
    assert normalised_entropy([1.0, 0.0], [1, 0]) == pytest.approx(0.0, abs=1e-12)
    assert 30.0 < normalised_entropy([0.0, 1.0], [1, 0]) < 60.0


@pytest.mark.parametrize("measure", [normalised_entropy, calibration_ratio, ece_equal_mass, reliability_bins])
def test_predictions_that_are_no_probabilities_and_labels_without_positives_are_refused(measure):
    for p, y in (([0.5, 1.5], [0, 1]), ([0.5, np.nan], [0, 1]), ([0.5, 0.5], [0, 0]), ([], [])):
        with pytest.raises(Refused, match=re.escape("nothing to measure calibration on")):
            measure(p, y)


def test_the_calibration_ratio_is_the_factor_by_which_predictions_are_too_high():
    logit, y, _ = outcomes(seed=14, slope=1.0, intercept=-3.0, rows=100_000)
    p = expit(logit - 3.0)
    assert calibration_ratio(p, y) == pytest.approx(1.0, abs=0.03)
    assert calibration_ratio(0.5 * p, y) == pytest.approx(0.5 * calibration_ratio(p, y))


def test_ece_equals_brute_force_over_sorted_slices():
    logit, y, _ = outcomes(seed=15, rows=1000)
    p, order = expit(logit), np.argsort(logit)
    slices = np.array_split(order, 50)
    expected = sum(len(s) / 1000 * abs(p[s].mean() - y[s].mean()) for s in slices) / y.mean()
    assert ece_equal_mass(p, y) == pytest.approx(expected)


def test_equal_predictions_share_a_bin_so_the_order_of_rows_does_not_matter():
    p, y = np.repeat([0.1, 0.6], [70, 30]), np.repeat([0, 1, 0, 1], [60, 10, 10, 20])
    shuffled = np.random.default_rng(16).permutation(100)
    assert ece_equal_mass(p[shuffled], y[shuffled]) == pytest.approx(ece_equal_mass(p, y))
    expected = (70 * abs(0.1 - 10 / 70) + 30 * abs(0.6 - 20 / 30)) / 100 / 0.3
    assert ece_equal_mass(p, y) == pytest.approx(expected)


def test_the_ece_of_perfect_calibration_is_the_exact_one_of_a_binomial():
    n, p = 50, 0.3
    exact = sum(binom.pmf(k, n, p) * abs(k / n - p) for k in range(n + 1)) / p
    assert ece_under_perfect_calibration(np.full(n, p), seed=1, bins=1, draws=4000) == pytest.approx(exact, rel=0.05)


def test_only_a_miscalibrated_model_exceeds_the_ece_of_perfect_calibration():
    logit, y, _ = outcomes(seed=17, slope=1.0, intercept=0.0)
    true_p, bold_p = expit(logit), expit(2.0 * logit)
    assert ece_equal_mass(true_p, y) == pytest.approx(ece_under_perfect_calibration(true_p, seed=1), rel=0.4)
    assert ece_equal_mass(bold_p, y) > 5.0 * ece_under_perfect_calibration(bold_p, seed=1)


def test_reliability_bins_carry_scipys_wilson_intervals():
    logit, y, _ = outcomes(seed=18, rows=400)
    found = reliability_bins(expit(logit), y, bins=10)
    assert found.rows.tolist() == [40] * 10
    for b in range(10):
        wilson = binomtest(round(found.observed[b] * 40), 40).proportion_ci(method="wilson")
        assert (found.low[b], found.high[b]) == pytest.approx((wilson.low, wilson.high))
    assert (np.diff(found.predicted) > 0).all()


def test_reliability_bins_leave_empty_ones_out_and_serialise():
    record = json.loads(json.dumps(reliability_bins([0.2, 0.2, 0.2, 0.9], [0, 0, 1, 1], bins=4).as_record()))
    assert record["rows"] == [3, 1]
    assert record["predicted"] == pytest.approx([0.2, 0.9])


def test_correcting_for_the_negative_rate_recovers_the_rate_of_the_whole_log():
    logit, y, _ = outcomes(seed=19, rows=200_000)
    kept = (y > 0) | (np.random.default_rng(19).random(len(y)) < 0.1)
    corrected = correct_for_negative_rate(fit_platt(logit[kept], y[kept]).probability(logit), 0.1)
    assert corrected == pytest.approx(expit(0.7 * logit - 1.5), abs=0.02)
    assert calibration_ratio(corrected, y) == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("rate", [0.0, 1.5])
def test_a_negative_rate_outside_0_to_1_is_refused(rate):
    with pytest.raises(Refused, match=re.escape(f"share of negatives kept: got {rate:g}; wanted (0, 1]")):
        correct_for_negative_rate([0.5], rate)
