"""Builders of small training rows, candidates, bundles and policies for the tests of the models."""

import functools
from dataclasses import replace
from pathlib import Path

import lightgbm as lgb
import numpy as np
import polars as pl

from sameworld.maths.calibration import PlattCalibrator, StackCalibrator
from sameworld.models.bundle import Bundle, ItemStatistics, write_bundle
from sameworld.models.features import Feature
from sameworld.models.item_history import ItemHistory
from sameworld.models.training import Rows, fit_probability, fit_ranker
from sameworld.store.artifacts import Store

FEATURES = (Feature("x_colour", "category", ("blue", "green", "red")), Feature("x_price", "number"))
SETTINGS = {"learning_rate": 0.1, "num_leaves": 8, "min_data_in_leaf": 10, "seed": 3, "num_threads": 1}
FIT = {"stop": None, "settings": SETTINGS, "max_rounds": 20, "patience": 5, "categories": [0]}
ITEMS = ItemStatistics(np.array(["i00", "i01", "i02"]), np.array([0.3, 0.2, 0.1]), 0.15)
HISTORY = ItemHistory(ITEMS.ids, (), np.zeros((0, 3)), np.zeros(3))


def logistic(x):
    return 1.0 / (1.0 + np.exp(-x))


def truth(colour, price):
    """Relevance of an item: red is liked, a price is not."""
    return logistic(1.2 * (np.asarray(colour) == 2) - 1.0 * np.asarray(price) - 0.5)


def rows(requests=300, size=8, seed=0, theta=None) -> Rows:
    """Training rows, ``size`` to a request; seen at position k with probability theta[k - 1]."""
    rng, n = np.random.default_rng(seed), requests * size
    colour, price = rng.integers(0, 3, n), rng.normal(size=n).astype(np.float32)
    exposure = np.tile(np.ones(size) if theta is None else np.asarray(theta), requests)
    target = (rng.random(n) < exposure * truth(colour, price)).astype(np.float64)
    return Rows(
        matrix=np.stack([colour, price], axis=1).astype(np.float32),
        target=target,
        gain=target * np.where(rng.random(n) < 0.3, 5.0, 1.0),
        exposure=exposure,
        weight=np.ones(n),
        sizes=np.full(requests, size),
        position=np.tile(np.arange(1, size + 1), requests),
    )


def candidates(requests=20, size=6, seed=1) -> pl.DataFrame:
    rng, n = np.random.default_rng(seed), requests * size
    return pl.DataFrame({
        "request_id": [f"r{row // size:03d}" for row in range(n)],
        "item_id": [f"i{row % size:02d}" for row in range(n)],
        "x_colour": rng.choice(["blue", "green", "red", None], n).tolist(),
        "x_price": rng.normal(size=n),
    })  # fmt: skip


@functools.cache
def texts() -> tuple[str, str, float]:
    """A ranker's and a probability model's text, and the latter's start."""
    probability = fit_probability(rows(), **FIT)
    return fit_ranker(rows(), **FIT).text, probability.text, probability.start


@functools.cache
def bundle(lists: bool = True) -> Bundle:
    """A small bundle in memory; without lists the probability model orders."""
    ranker, probability, start = texts()
    stack = StackCalibrator(1.0, 1.0, 0.0)
    return Bundle(
        version="20260302-00000000",
        cutoff="2026-03-02T00:00:00Z",
        features=FEATURES,
        ranker=lgb.Booster(model_str=ranker) if lists else None,
        probability=lgb.Booster(model_str=probability),
        start=start,
        calibrator=stack if lists else PlattCalibrator(1.0, 0.0),
        examination=np.array([1.0, 0.5, 0.25]),
        items=ITEMS,
        history=HISTORY,
        about={},
    )


def with_examination(theta) -> Bundle:
    return replace(bundle(lists=False), examination=np.asarray(theta, np.float64))


def about(**changes):
    record = {
        "version": "20260302-00000000",
        "cutoff": "2026-03-02T00:00:00Z",
        "features": [feature.as_record() for feature in FEATURES],
        "start": texts()[2],
        "calibrator": PlattCalibrator(1.0, 0.0).as_record(),
        "examination": [1.0, 0.5, 0.25],
    }
    return record | changes


def write(folder: Path, **changes) -> Path:
    """Write a bundle's files; ``changes`` are other entries of its bundle.json."""
    folder.mkdir(parents=True)
    ranker, probability, _ = texts()
    write_bundle(folder, ranker=ranker, probability=probability, items=ITEMS, history=HISTORY, about=about(**changes))
    (folder / "record.json").write_bytes(b'{"version":"20260302-00000000"}')
    return folder


def publish(store: Store, folder: Path, step: str = "calibrate"):
    return store.publish(step, "a" * 64, folder, made_from={}, measured={})
