"""The training of the two boosters: the lambdarank ranker and the probability model."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from sameworld.maths.ranking import ndcg_by_request
from sameworld.models.objective import lightgbm_metric, lightgbm_objective, starting_logit
from sameworld.records import Refused

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
# The same data and seed give the same trees, whatever the number of threads.
DETERMINISTIC = {"deterministic": True, "force_row_wise": True, "verbosity": -1}
# What does not change a tree is left out of the model's text, so that the text doesn't depend on the machine.
_MACHINE = re.compile(r"^\[(num_threads|verbosity|machines|gpu_[a-z_]+):[^\]]*\]\n", re.MULTILINE)


@dataclass(frozen=True)
class Rows:
    """Rows to fit or to stop on. A request's rows are contiguous.

    matrix (n, features), or what :func:`binned_rows` made of it; target (n,) 0 or 1; gain (n,) >= 0
    exposure (n,) in (0, 1], examination × completeness
    weight (n,) > 0; sizes (requests,) rows of each request; position (n,) from 1
    share (n,): how much of a row this one is, which lambdarank has no other weight for; None: all of it
    """

    matrix: NDArray[np.float32] | lgb.Dataset
    target: Floats
    gain: Floats
    exposure: Floats
    weight: Floats
    sizes: Ints
    position: Ints
    share: Floats | None = None


@dataclass(frozen=True)
class Fitted:
    """A booster as text, the constant its trees add to, and how many rounds it has.

    raw (n,): what it says of the rows it was fitted on, its start included, where that was asked for; else (0,)
    """

    text: str
    start: float
    rounds: int
    raw: Floats = field(default_factory=lambda: np.zeros(0))


def binned(matrix: NDArray[np.float32], *, settings: Mapping[str, Any], categories: list[int]) -> lgb.Dataset:
    """Return a matrix as LightGBM's bins: made once, they serve every model and every choice of its rows.

    Bins know nothing of labels. settings : those of the models that will be fitted
    """
    params = {**DETERMINISTIC, **settings}
    label = np.zeros(len(matrix), np.float32)  # LightGBM wants one; each fit sets its own
    return lgb.Dataset(matrix, label=label, categorical_feature=categories, params=params).construct()


def binned_rows(bins: lgb.Dataset, chosen: NDArray[np.bool_]) -> lgb.Dataset:
    """Return the chosen rows of bins, to be the matrix of :class:`Rows`; each fit sets its labels and starts in them.

    chosen : (rows of bins,)
    """
    rows = bins.subset([])
    rows.used_indices = np.flatnonzero(chosen).astype(np.int32)  # subset would sort a Python list of all the places
    return rows


def fit_probability(
    rows: Rows,
    *,
    stop: Rows | None,
    settings: Mapping[str, Any],
    max_rounds: int,
    patience: int,
    categories: list[int],
    keep_raw: bool = False,
) -> Fitted:
    """Fit the relevance probability of the target under known exposure; raw score in logits, without its start.

    stop : rows of a later time whose loss ends the fitting after ``patience`` rounds without gain; None: all rounds
    keep_raw : also return the scores of the rows, which are known after all rounds (not where ``stop`` may end it)
    """
    if not 0 < rows.target.sum() < len(rows.target):
        one = "positive" if rows.target.sum() else "negative"
        raise Refused(what="the probability model cannot be fitted", got=f"{one} rows only", wanted="both classes")
    start = starting_logit(rows.target, rows.exposure, rows.weight)
    data = _dataset(rows, rows.target, categories, start=start)
    params = {
        **DETERMINISTIC,
        **settings,
        "objective": lightgbm_objective(rows.target, rows.exposure, rows.weight),
        "metric": "None",
    }
    if stop is None:
        booster = lgb.train(params, data, num_boost_round=max_rounds, keep_training_booster=keep_raw)
        return replace(_fitted(booster, start), raw=_raw(booster) if keep_raw else np.zeros(0))
    held_out = _dataset(stop, stop.target, categories, start=start, reference=data)
    booster = lgb.train(
        params,
        data,
        num_boost_round=max_rounds,
        valid_sets=[held_out],
        feval=lightgbm_metric(stop.target, stop.exposure, stop.weight),
        callbacks=[lgb.early_stopping(patience, verbose=False)],
    )
    return _fitted(booster, start)


def fit_ranker(
    rows: Rows,
    *,
    stop: Rows | None,
    settings: Mapping[str, Any],
    max_rounds: int,
    patience: int,
    categories: list[int],
    at: int = 10,
    debias_position: bool = False,
) -> Fitted:
    """Fit lambdarank on the gains as they are: each distinct gain is a grade that is worth itself.

    debias_position : let LightGBM estimate position factors (unregularised: any regularisation switches them off)
    """
    gains = np.unique(np.concatenate([rows.gain, stop.gain if stop else rows.gain, [0.0]]))
    params = {
        **DETERMINISTIC,
        **settings,
        "objective": "lambdarank",
        "label_gain": gains.tolist(),
        "metric": "None" if stop is not None else "ndcg",
        "eval_at": [at],
        "lambdarank_position_bias_regularization": 0.0,
    }
    data = _dataset(rows, _grades(rows, gains), categories, lists=True, position=debias_position)
    if stop is None:
        return _fitted(lgb.train(params, data, num_boost_round=max_rounds), 0.0)
    held_out = _dataset(stop, _grades(stop, gains), categories, lists=True, reference=data)
    booster = lgb.train(
        params,
        data,
        num_boost_round=max_rounds,
        valid_sets=[held_out],
        feval=_debiased_ndcg(stop, at),
        callbacks=[lgb.early_stopping(patience, verbose=False)],
    )
    return _fitted(booster, 0.0)


def _debiased_ndcg(stop: Rows, at: int) -> Callable[[Floats, lgb.Dataset], tuple[str, float, bool]]:
    """Return held-out NDCG with each gain over its exposure; equal scores stand in the worst order, not the logged one.

    Measured on clicks as they fell, the best ranker is the one that shows what was shown: fitting would stop at once.
    """
    request = np.repeat(np.arange(len(stop.sizes)), stop.sizes)
    worst_first = np.lexsort((stop.gain, request))
    gain = (stop.gain / stop.exposure)[worst_first]
    weight = np.add.reduceat(gain, np.cumsum(stop.sizes) - stop.sizes)

    def metric(raw: Floats, _: lgb.Dataset) -> tuple[str, float, bool]:
        values, counted = ndcg_by_request(request, raw[worst_first], gain, at)
        total = float(weight[counted].sum())
        return "debiased_ndcg", float((weight * np.where(counted, values, 0.0)).sum()) / max(total, 1e-12), True

    return metric


def _grades(rows: Rows, gains: Floats) -> Floats:
    return np.searchsorted(gains, rows.gain).astype(np.float64)


def _dataset(
    rows: Rows,
    label: Floats,
    categories: list[int],
    *,
    start: float = 0.0,
    lists: bool = False,
    position: bool = False,
    reference: lgb.Dataset | None = None,
) -> lgb.Dataset:
    if isinstance(rows.matrix, lgb.Dataset):
        data = rows.matrix.construct().set_label(label).set_init_score(np.full(len(label), start))
        data.set_group(rows.sizes if lists else None).set_position(rows.position if position else None)
        return data.set_weight(rows.share if lists else None)
    return lgb.Dataset(
        rows.matrix,
        label=label,
        group=rows.sizes if lists else None,
        weight=rows.share if lists else None,
        position=rows.position if position else None,
        init_score=np.full(len(label), start) if start else None,
        categorical_feature=categories,
        reference=reference,
        params=dict(DETERMINISTIC),
        free_raw_data=True,
    )


def _fitted(booster: lgb.Booster, start: float) -> Fitted:
    rounds = booster.best_iteration if booster.best_iteration > 0 else booster.num_trees()
    return Fitted(_MACHINE.sub("", booster.model_to_string(num_iteration=rounds)), start, int(rounds))


def _raw(booster: lgb.Booster) -> Floats:
    """Return the scores that LightGBM kept of the rows it fitted: predicting them anew costs as much as the fitting."""
    found: list[Floats] = []

    def keep(raw: Floats, _: lgb.Dataset) -> tuple[str, float, bool]:
        found.append(raw.copy())
        return "kept", 0.0, False

    booster.eval_train(keep)
    return found[0]


def fit_gain(rows: Rows, *, stop: Rows | None, **how: Any) -> Fitted:
    """Fit the expected gain of an item that is looked at, as a share of the greatest gain: what orders best.

    A gain between none and all counts as that share of a success and the rest of a failure, which keeps the
    likelihood's gradient right in the mean (Papke and Wooldridge, J. Applied Econometrics 1996, section 2).
    rows.exposure : examination × completeness of the gain; how : see :func:`fit_probability`
    """
    most = max(float(rows.gain.max(initial=0.0)), 1e-12)
    shares = replace(rows, target=np.asarray(rows.gain / most))
    held_out = replace(stop, target=np.asarray(np.minimum(stop.gain / most, 1.0))) if stop is not None else None
    return fit_probability(shares, stop=held_out, **how)
