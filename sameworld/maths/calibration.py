"""From scores to probabilities, and how true they are: Platt and stack calibrators, NE, calibration ratio, ECE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, xlogy

from sameworld.maths.ranking import mean_within_request, require_both_classes, require_same_length
from sameworld.records import Refused

FloatArray = NDArray[np.float64]

SLOPE_PRIOR_SD = 0.5  # of log slope: 95 % of slopes in .38 .. 2.66, worth about 4 positives
RANKER_PRIOR_SD = 1.0  # of log(coefficient x standard deviation): a ranker's score has no natural scale
Z_95 = 1.959963984540054


def _sigmoid(logit: FloatArray) -> FloatArray:
    return np.asarray(expit(logit), dtype=np.float64)


class _Recorded:
    kind: ClassVar[str]

    def as_record(self) -> dict[str, Any]:
        """Return the JSON-ready form; floats survive JSON exactly."""
        return {"kind": self.kind, **vars(self)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Read what `as_record` wrote; refuses the record of another kind."""
        if record.get("kind") != cls.kind:
            raise Refused(what="another kind of calibrator", got=str(record.get("kind")), wanted=cls.kind)
        return cls(**{name: float(value) for name, value in record.items() if name != "kind"})


@dataclass(frozen=True)
class PlattCalibrator(_Recorded):
    """p = sigmoid(slope · logit + intercept) with slope > 0, so the order of the logits is kept."""

    slope: float
    intercept: float
    kind: ClassVar[str] = "platt"

    def probability(self, logit: ArrayLike) -> FloatArray:
        """Probability if seen at position 1 and waited for, shape (n,), from logits of shape (n,)."""
        return _sigmoid(self.slope * np.asarray(logit, dtype=np.float64) + self.intercept)


@dataclass(frozen=True)
class StackCalibrator(_Recorded):
    """p = sigmoid(a · centred ranker score + b · request mean logit + c), a > 0: keeps the ranker's order exactly."""

    a: float
    b: float
    c: float
    kind: ClassVar[str] = "stack"

    def probability(self, ranker_centred: ArrayLike, request_mean_logit: ArrayLike) -> FloatArray:
        """Probability if seen at position 1 and waited for, shape (n,), from one entry a row in each argument."""
        ranker = np.asarray(ranker_centred, dtype=np.float64)
        return _sigmoid(self.a * ranker + self.b * np.asarray(request_mean_logit, dtype=np.float64) + self.c)


def calibrator_from_record(record: Mapping[str, Any]) -> PlattCalibrator | StackCalibrator:
    """Read a calibrator of either kind from its record."""
    return PlattCalibrator.from_record(record) if record.get("kind") == "platt" else StackCalibrator.from_record(record)


def centre_within_request(request: NDArray[Any], score: ArrayLike) -> FloatArray:
    """Score minus its request's mean, shape (n,): centre over the same set of rows in fitting and in serving."""
    return np.asarray(score, dtype=np.float64) - mean_within_request(request, score)


def fit_platt(
    logit: ArrayLike, y: ArrayLike, *, exposure: ArrayLike | None = None, weight: ArrayLike | None = None
) -> PlattCalibrator:
    """Fit p = sigmoid(slope · logit + intercept) where a row's outcome is seen with chance exposure · p.

    logit : float array, shape (n,);  y : 0/1 array, shape (n,)
    exposure : float array in (0, 1]: examination x completeness of the row, default 1
    weight : float array, >= 0, default 1; weight 2 equals the row twice
    The slope's logarithm has the prior N(0, 0.5²), worth about four positives: with few positives the slope stays
    near 1 and the intercept carries the correction; with thousands the prior cannot be seen.
    Raises Refused when a class has no weight, and when there are more positives than the exposure allows.
    Platt, "Probabilistic outputs for support vector machines", 1999; Chapelle (exposure, as delay), KDD 2014.

    >>> fit_platt([0.0, 0.0, 0.0, 0.0], [1, 0, 0, 0]).probability([0.0]).round(4)
    array([0.25])
    """
    column = np.asarray(logit, dtype=np.float64)[:, None]
    likelihood = _Likelihood.of(column, np.array([SLOPE_PRIOR_SD]), y, exposure, weight)
    log_slope, intercept = likelihood.maximum()
    return PlattCalibrator(float(np.exp(log_slope)), float(intercept))


def fit_stack(
    ranker_score_centred: ArrayLike, request_mean_logit: ArrayLike, y: ArrayLike, *, exposure: ArrayLike | None = None
) -> StackCalibrator:
    """Fit p = sigmoid(a · ranker + b · mean logit + c), a and b > 0; other arguments and errors as in `fit_platt`.

    ranker_score_centred : float array, shape (n,), as from `centre_within_request`
    request_mean_logit : float array, shape (n,): the request's mean logit of the probability model, on each row
    Priors: log b ~ N(0, 0.5²); log(a · sd of the ranker's score) ~ N(0, 1), as a ranker's score has no scale.
    """
    ranker = np.asarray(ranker_score_centred, dtype=np.float64)
    mean_logit = np.asarray(request_mean_logit, dtype=np.float64)
    require_same_length(ranker_score_centred=ranker, request_mean_logit=mean_logit)
    spread = (float(ranker.std()) if len(ranker) else 0.0) or 1.0
    columns, prior_sd = np.stack([ranker / spread, mean_logit], axis=1), np.array([RANKER_PRIOR_SD, SLOPE_PRIOR_SD])
    log_a, log_b, c = _Likelihood.of(columns, prior_sd, y, exposure, None).maximum()
    return StackCalibrator(float(np.exp(log_a)) / spread, float(np.exp(log_b)), float(c))


@dataclass(frozen=True)
class _Likelihood:
    """Penalised Bernoulli likelihood of y given exposure · sigmoid(sum_j exp(theta_j) x_j + theta_last)."""

    x: FloatArray
    prior_sd: FloatArray
    y: FloatArray
    exposure: FloatArray
    weight: FloatArray

    @classmethod
    def of(cls, x: FloatArray, prior_sd: FloatArray, y: ArrayLike, *optional: ArrayLike | None) -> _Likelihood:
        """Check the rows: both classes, exposures in (0, 1], and room for the positives under them."""
        labels = np.asarray(y, dtype=np.float64)
        seen, weight = (np.ones(len(labels)) if a is None else np.asarray(a, dtype=np.float64) for a in optional)
        require_same_length(scores=x, y=labels, exposure=seen, weight=weight)
        require_both_classes(labels, weight)
        if not np.all((seen > 0.0) & (seen <= 1.0)) or not np.isfinite(x).all():
            got = f"scores {np.min(x):g} to {np.max(x):g}, exposure {np.min(seen):g} to {np.max(seen):g}"
            wanted, remedy = "finite scores, exposure in (0, 1]", "leave out rows that cannot have been seen"
            raise Refused(what="rows to calibrate on", got=got, wanted=wanted, remedy=remedy)
        return cls(x, prior_sd, labels, seen, weight)

    def logit(self, theta: FloatArray) -> FloatArray:
        """Calibrated logit of each row."""
        return np.asarray(np.einsum("nj,j->n", self.x, np.exp(theta[:-1])) + theta[-1], dtype=np.float64)

    def maximum(self) -> FloatArray:
        """Fisher scoring with step halving, from slope 1; the last entry is the intercept."""
        theta, before = np.zeros(len(self.prior_sd) + 1), np.inf
        for _ in range(200):
            loss, step = self.loss(theta), self.step(theta)
            while np.abs(step).max() > 1e-10 and self.loss(theta + step) > loss:
                step /= 2.0
            if np.abs(step).max() <= 1e-10 or before - loss <= 1e-15 * loss:
                break
            theta, before = theta + step, loss
        if self.logit(theta).min() < 15.0:
            return theta
        got, remedy = f"{np.sum(self.y):g} of {np.sum(self.exposure):g}", "estimate examination and completeness again"
        raise Refused(what="more positives than the exposure allows", got=got, wanted="fewer", remedy=remedy)

    def loss(self, theta: FloatArray) -> float:
        """Negative log posterior, constants aside."""
        f = self.logit(theta)
        with np.errstate(divide="ignore"):
            unseen = np.log1p(-self.exposure)
        missed = np.logaddexp(0.0, f) - np.logaddexp(0.0, f + unseen)  # -log(1 - exposure · p)
        rows = np.where(self.y > 0.0, np.logaddexp(0.0, -f), missed)
        return float(np.sum(self.weight * rows) + 0.5 * np.sum((theta[:-1] / self.prior_sd) ** 2))

    def step(self, theta: FloatArray) -> FloatArray:
        """Fisher scoring step: by expected information, so uphill even where the likelihood is not concave."""
        p = _sigmoid(self.logit(theta))
        hidden = np.maximum(1.0 - self.exposure * p, 1e-300)
        slope = np.where(self.y > 0.0, 1.0 - p, -self.exposure * p * (1.0 - p) / hidden)  # of log likelihood, in f
        information = self.weight * self.exposure * p * (1.0 - p) ** 2 / hidden
        along = np.concatenate([self.x * np.exp(theta[:-1]), np.ones((len(p), 1))], axis=1)
        prior = np.append(1.0 / self.prior_sd**2, 0.0)
        gradient = np.einsum("n,ni->i", self.weight * slope, along) - prior * theta
        matrix = np.einsum("n,ni,nj->ij", information, along, along) + np.diag(prior)
        matrix += 1e-12 * np.trace(matrix) * np.eye(len(theta))
        return np.asarray(np.clip(np.linalg.solve(matrix, gradient), -2.0, 2.0), dtype=np.float64)


def _checked(p: ArrayLike, y: ArrayLike) -> tuple[FloatArray, FloatArray]:
    values, labels = np.asarray(p, dtype=np.float64), np.asarray(y, dtype=np.float64)
    require_same_length(p=values, y=labels)
    if not np.all((values >= 0.0) & (values <= 1.0)) or not labels.sum() > 0.0:
        got = f"{np.min(values, initial=0.0):g} to {np.max(values, initial=0.0):g}, {labels.sum():g} positives"
        wanted, remedy = "probabilities in [0, 1] and at least one positive", "calibrate first, or take more days"
        raise Refused(what="nothing to measure calibration on", got=got, wanted=wanted, remedy=remedy)
    return values, labels


def normalised_entropy(p: ArrayLike, y: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Log loss over the entropy of the base rate: 1.0 says no more than the base rate does, lower is better.

    p : float array in [0, 1], shape (n,); clipped to [1e-15, 1 − 1e-15], as a certain error would cost infinity
    y : 0/1 array;  weight : float array, >= 0, default 1. Raises Refused when a class has no weight.
    He et al., "Practical lessons from predicting clicks on ads at Facebook", ADKDD 2014.

    >>> round(normalised_entropy([0.5, 0.5, 0.5, 0.5], [0, 1, 0, 1]), 6)
    1.0
    """
    values, labels = _checked(p, y)
    weights = np.ones(len(labels)) if weight is None else np.asarray(weight, dtype=np.float64)
    require_same_length(p=values, weight=weights)
    require_both_classes(labels, weights)
    base, clipped = float(np.sum(weights * labels) / np.sum(weights)), np.clip(values, 1e-15, 1.0 - 1e-15)
    entropy = -float(xlogy(base, base) + xlogy(1.0 - base, 1.0 - base))
    losses = -np.where(labels > 0.0, np.log(clipped), np.log1p(-clipped))
    return float(np.sum(weights * losses) / np.sum(weights)) / entropy


def calibration_ratio(p: ArrayLike, y: ArrayLike) -> float:
    """Sum of the predictions over the sum of the outcomes: above 1 promises too much. Refused without outcomes.

    >>> calibration_ratio([0.5, 0.5, 0.5, 0.5], [1, 0, 0, 0])
    2.0
    """
    values, labels = _checked(p, y)
    return float(values.sum() / labels.sum())


def _equal_mass_bin(p: FloatArray, bins: int) -> NDArray[np.int64]:
    """Bin of each row by the rank of its p; equal p share the bin of the first of them, so row order is no matter."""
    _, level, count = np.unique(p, return_inverse=True, return_counts=True)
    return ((np.cumsum(count) - count) * bins // len(p))[level].astype(np.int64)


def _bin_gap(p: FloatArray, y: FloatArray, bin_of_row: NDArray[np.int64]) -> float:
    return float(np.abs(np.bincount(bin_of_row, weights=p - y)).sum()) / len(p)


def ece_equal_mass(p: ArrayLike, y: ArrayLike, bins: int = 50) -> float:
    """Expected calibration error on bins of equal mass, over the base rate: 0.1 is an error of 10 % of the base rate.

    p : float array in [0, 1], shape (n,);  y : 0/1 array. Equal p fall into one bin. Refused without positives.
    Read it beside `ece_under_perfect_calibration`: with few rows it is never near 0.
    >>> round(ece_equal_mass([0.2, 0.2, 0.8, 0.8], [0, 0, 1, 1], bins=2), 6)
    0.4
    """
    values, labels = _checked(p, y)
    return _bin_gap(values, labels, _equal_mass_bin(values, bins)) / float(labels.mean())


def ece_under_perfect_calibration(p: ArrayLike, seed: int, bins: int = 50, draws: int = 32) -> float:
    """What `ece_equal_mass` is expected to say when every p is true: the mean over draws of y ~ Bernoulli(p).

    p : float array in [0, 1], shape (n,), with a sum above 0. Each draw's error is taken over the expected base rate.
    """
    values, _ = _checked(p, p)
    generator, bin_of_row = np.random.Generator(np.random.PCG64(seed)), _equal_mass_bin(values, bins)
    outcomes = ((generator.random(len(values)) < values).astype(np.float64) for _ in range(draws))
    return float(np.mean([_bin_gap(values, y, bin_of_row) for y in outcomes])) / float(values.mean())


@dataclass(frozen=True)
class ReliabilityBins:
    """Bins of a reliability plot, ascending in p, empty ones left out; low and high are the Wilson 95 % interval."""

    predicted: FloatArray
    observed: FloatArray
    low: FloatArray
    high: FloatArray
    rows: NDArray[np.int64]

    def as_record(self) -> dict[str, list[float]]:
        """Return one JSON-ready list a column."""
        return {name: column.tolist() for name, column in vars(self).items()}


def reliability_bins(p: ArrayLike, y: ArrayLike, bins: int = 20) -> ReliabilityBins:
    """Mean prediction and observed rate in bins of equal mass, with Wilson (JASA 1927) 95 % intervals."""
    values, labels = _checked(p, y)
    bin_of_row = np.unique(_equal_mass_bin(values, bins), return_inverse=True)[1]
    rows = np.bincount(bin_of_row)
    predicted = np.bincount(bin_of_row, weights=values) / rows
    observed = np.bincount(bin_of_row, weights=labels) / rows
    shrink = 1.0 + Z_95**2 / rows
    centre = (observed + Z_95**2 / (2.0 * rows)) / shrink
    half = Z_95 / shrink * np.sqrt(observed * (1.0 - observed) / rows + (Z_95 / (2.0 * rows)) ** 2)
    return ReliabilityBins(predicted, observed, np.maximum(centre - half, 0.0), np.minimum(centre + half, 1.0), rows)


def correct_for_negative_rate(p: ArrayLike, rate: float) -> FloatArray:
    """Probability in the whole log from one learned where only a share ``rate`` of the negatives was kept.

    p : float array in [0, 1];  rate : in (0, 1], 1 changes nothing. Keeps the order.
    He et al., "Practical lessons from predicting clicks on ads at Facebook", ADKDD 2014.

    >>> correct_for_negative_rate([0.5], 0.1).round(4)
    array([0.0909])
    """
    if not 0.0 < rate <= 1.0:
        raise Refused(
            what="share of negatives kept", got=f"{rate:g}", wanted="(0, 1]", remedy="set train.negative_rate"
        )
    values = np.asarray(p, dtype=np.float64)
    return values / (values + (1.0 - values) / rate)
