"""Train the two boosters: judged on later days first, then refitted on everything known.

One orders by expected gain, the other says how likely the target is. Both also read what the log knew of each item.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sameworld.models.bundle import item_statistics
from sameworld.models.examination import estimate_examination
from sameworld.models.features import Feature
from sameworld.models.gain_completeness import gain_completeness
from sameworld.models.item_history import ItemHistory, history_features, learn_history, left_by_model
from sameworld.models.training import Fitted, Rows, fit_gain, fit_probability, fit_ranker
from sameworld.models.training_table import TrainingTable, examined, exposed, memory_needed, request_sizes
from sameworld.records import Cannot, Estimate, Refused
from sameworld.store.artifacts import Artifact, canonical
from sameworld.store.log import Log
from sameworld.store.parts import examples_of
from sameworld.store.room import refuse_beyond_memory
from sameworld.store.step import Work, step
from sameworld.store.times import parse_time

Floats = NDArray[np.float64]
MAX_WEIGHT = 5.0  # of 1 / completeness: the youngest rows would otherwise outweigh all others
# Rare outcomes are noisy: trees that each see part of the rows and features vary less (docs/decisions/013).
SPREAD = {"bagging_fraction": 0.7, "bagging_freq": 1, "feature_fraction": 0.7, "lambda_l2": 5.0}
MIN_STOP_POSITIVES = 20
FEW_ROUNDS = 20


@step(
    reads=(
        "train.negative_rate",
        "train.position",
        "train.delay",
        "train.order",
        "train.item_history",
        "label.gains",
        "train.max_rounds",
        "train.early_stopping_rounds",
        "train.learning_rate",
        "train.leaves",
        "train.min_leaf_rows",
        "train.min_leaf_positives",
        "train.seed",
    )
)
def run(work: Work, *, log: Artifact, examples: Artifact) -> None:
    """Fit the model that orders and the probability model.

    Both are fitted on the days before the hold-out, stopped on its first half, and asked about its second half, which
    the calibration reads. Then both are refitted with the same rounds on all that is known at the cutoff; young rows
    count by their completeness. A log without lists gets no ranker: the probability orders.
    """
    kinds = len(work.spec.label.gains) if work.spec.train.item_history else 0
    rows, features = int(examples.record["rows"]), len(examples.record["features"]) + kinds
    refuse_beyond_memory(
        memory_needed(rows, features),
        memory_gb=work.whole_spec.engine.memory_gb,
        what=f"training on {rows:,} rows of {features} features",
        remedy="read fewer days (train.days)",
    )
    theta = _examination(work, log, examples_of(examples, work.store))
    trainer = _trainer(work, examples, theta.values())
    table, lists = trainer.table, trainer.lists
    parts = _parts(work, table, examples.record["splits"])
    try:
        judged, shipped = _fit(trainer, parts)
    except Refused as refusal:
        work.record = Cannot(str(refusal)).as_record()
        return
    _write(work, shipped, trainer)
    held_out = parts["calibrate"]
    columns = {
        "target": table.target[held_out],
        "shown_at": table.shown_at[held_out],
        "logit": _logits(judged.probability, table.matrix[held_out]),
        "exposure": trainer.exposure[held_out],
    }
    work.write("held_out", pl.DataFrame(columns))
    work.rows = len(table)
    work.record = {
        "rounds": {"probability": shipped.probability.rounds, "ranker": shipped.ranker.rounds if shipped.ranker else 0},
        "start": shipped.probability.start,
        "examination": theta.as_record(),
        "features": [feature.as_record() for feature in trainer.features],
        "rows_fitted": int(parts["ship"].sum()),
        "lists": lists,
    }


@dataclass(frozen=True)
class _Pair:
    probability: Fitted
    ranker: Fitted | None


@dataclass(frozen=True)
class _Theta:
    """Examination by position, or the reason why it can't be told from relevance."""

    estimates: tuple[Estimate, ...]
    reason: str

    def values(self) -> Floats:
        found = np.array([one.value for one in self.estimates]) if self.estimates else np.ones(1)
        return np.asarray(np.clip(found, 0.01, 1.0), np.float64)

    def as_record(self) -> Any:
        if not self.estimates:
            return Cannot(self.reason).as_record()
        return [one.as_record() for one in self.estimates]


@dataclass(frozen=True)
class _Trainer:
    work: Work
    table: TrainingTable
    theta: Floats
    lists: bool
    history: ItemHistory
    gain_known: Floats

    @cached_property
    def exposure(self) -> Floats:
        """Examination × completeness of every row."""
        return exposed(examined(self.table, self.theta), self.table.completeness)

    @property
    def features(self) -> tuple[Feature, ...]:
        return (*self.table.features, *history_features(self.history.kinds))

    @property
    def categories(self) -> list[int]:
        return [place for place, feature in enumerate(self.features) if feature.kind == "category"]

    def rows(self, chosen: NDArray[np.bool_], *, lists: bool) -> Rows:
        """Return the chosen rows; negatives are sampled for the probability model only, and weighted back."""
        table, rate = self.table, self.work.spec.train.negative_rate
        known = self.gain_known if lists else table.completeness
        weight = np.minimum(1.0 / np.maximum(known, 1e-3), MAX_WEIGHT)
        if rate < 1.0 and not lists:
            negative = table.target == 0
            draw = np.random.default_rng(self.work.spec.train.seed).random(len(chosen))
            chosen = chosen & (~negative | (draw < rate))
            weight = np.where(negative, weight / rate, weight)
        places = stretch(chosen)
        return Rows(
            matrix=table.matrix[places],
            target=table.target[places],
            gain=table.gain[places],
            exposure=exposed(examined(table, self.theta), known)[places] if lists else self.exposure[places],
            weight=weight[places],
            sizes=request_sizes(table.request[places]),
            position=table.position[places],
        )

    def settings(self) -> dict[str, Any]:
        train = self.work.spec.train
        return {
            "learning_rate": train.learning_rate,
            "num_leaves": train.leaves,
            "min_data_in_leaf": train.min_leaf_rows,
            "seed": train.seed,
            **SPREAD,
        }

    def fit(self, chosen: NDArray[np.bool_], stop: NDArray[np.bool_] | None, rounds: tuple[int, int]) -> _Pair:
        """Fit both models; ``rounds`` bounds the probability model's and the ranker's."""
        train, ranker = self.work.spec.train, None
        shared: dict[str, Any] = {
            "patience": train.early_stopping_rounds,
            "categories": self.categories,
        }
        held = self.rows(stop, lists=False) if stop is not None else None
        settings = {**self.settings(), "min_sum_hessian_in_leaf": train.min_leaf_positives}
        rows = self.rows(chosen, lists=False)
        probability = fit_probability(rows, stop=held, settings=settings, max_rounds=rounds[0], **shared)
        if self.lists:
            held = self.rows(stop, lists=True) if stop is not None else None
            ranker = self._fit_order(self.rows(chosen, lists=True), settings, stop=held, max_rounds=rounds[1], **shared)
        return _Pair(probability, ranker)

    def _fit_order(self, rows: Rows, settings: dict[str, Any], **shared: Any) -> Fitted:
        train = self.work.spec.train
        if train.order == "gain":
            return fit_gain(rows, settings=settings, **shared)
        debias = train.position == "estimated" and len(self.theta) > 1
        return fit_ranker(rows, settings=self.settings(), debias_position=debias, **shared)


def _trainer(work: Work, examples: Artifact, theta: Floats) -> _Trainer:
    """Read the training set, and beside its features what the log knew of each row's item."""
    gains = work.spec.label.gains
    kinds = sorted(gains) if work.spec.train.item_history else []
    table = TrainingTable.read(examples, work.store, room=len(kinds))
    seen = examined(table, theta)
    history = ItemHistory(table.items, (), np.zeros((0, len(table.items))), np.zeros(len(table.items)))
    if kinds:
        beside, history = learn_history(
            examples, work.store, kinds=kinds, item=table.item, items=table.items, examination=seen
        )
        table.matrix[:, len(table.features) :] = beside
    lists = int(examples.record["longest_list"]) > 1
    known = gain_completeness(examples, work.store, gains=gains, examination=seen) if lists else np.ones(len(table))
    return _Trainer(work, table, theta, lists, history, known)


def _fit(trainer: _Trainer, parts: dict[str, NDArray[np.bool_]]) -> tuple[_Pair, _Pair]:
    """Return the pair that the hold-out judges, and the pair that ships."""
    enough = trainer.table.target[parts["stop"]].sum() >= MIN_STOP_POSITIVES
    most = trainer.work.spec.train.max_rounds
    # Too few positives to stop on: the noise of the held-out loss would choose the rounds, so few are taken.
    limit = most if enough else min(most, FEW_ROUNDS)
    judged = trainer.fit(parts["fit"], parts["stop"] if enough else None, (limit, limit))
    rounds = (judged.probability.rounds, judged.ranker.rounds if judged.ranker else 1)
    return judged, trainer.fit(parts["ship"], None, rounds)


def _parts(work: Work, table: TrainingTable, splits: dict[str, str]) -> dict[str, NDArray[np.bool_]]:
    at = {name: np.datetime64(parse_time(text).replace(tzinfo=None)) for name, text in splits.items()}
    shown, closed = table.shown_at, table.closed
    ship = np.ones(len(table), np.bool_) if work.spec.train.delay == "corrected" else closed
    return {
        "fit": shown < at["stop"],
        "stop": (shown >= at["stop"]) & (shown < at["calibrate"]),
        "calibrate": (shown >= at["calibrate"]) & (shown < at["closed"]) & closed,
        "ship": ship & (table.completeness > 0),
    }


def stretch(chosen: NDArray[np.bool_]) -> slice | NDArray[np.bool_]:
    """Return the chosen rows as a slice where they are one stretch, so that no copy is made of them.

    >>> stretch(np.array([False, True, True])), stretch(np.array([True, False, True])).tolist()
    (slice(1, 3, None), [True, False, True])
    """
    places = np.flatnonzero(chosen)
    whole = len(places) > 0 and places[-1] - places[0] + 1 == len(places)
    return slice(int(places[0]), int(places[-1]) + 1) if whole else chosen


def _examination(work: Work, log: Artifact, examples: pl.LazyFrame) -> _Theta:
    """Estimate examination on closed rows of requests whose law of ordering is known."""
    if work.spec.train.position == "none":
        return _Theta((), "train.position is none")
    try:
        view = Log.open(log, work.store)
        return _Theta(tuple(estimate_examination(view, examples.filter("closed"), seed=work.spec.train.seed)), "")
    except Refused as refusal:
        return _Theta((), str(refusal))


def _write(work: Work, pair: _Pair, trainer: _Trainer) -> None:
    (work.folder / "probability.txt").write_text(pair.probability.text, encoding="utf-8")
    if pair.ranker is not None:
        (work.folder / "ranker.txt").write_text(pair.ranker.text, encoding="utf-8")
    table = trainer.table
    items = item_statistics(table.items, table.item, gain=table.gain, exposure=trainer.exposure)
    history = trainer.history
    record = {
        "ids": items.ids.tolist(),
        "rate": items.rate.tolist(),
        "prior": items.prior,
        "kinds": list(history.kinds),
        "log_ratio": history.log_ratio.tolist(),
        "residual": _residuals(trainer, pair).tolist(),
    }
    (work.folder / "items.json").write_bytes(canonical(record))


def _residuals(trainer: _Trainer, pair: _Pair) -> Floats:
    """Return what the model that orders leaves of each item; nothing where it does not order by expected gain."""
    table, spec = trainer.table, trainer.work.spec.train
    if pair.ranker is None or spec.order != "gain" or not spec.item_history:
        return np.zeros(len(table.items))
    exposure = exposed(examined(table, trainer.theta), trainer.gain_known)
    return left_by_model(table, _logits(pair.ranker, table.matrix), exposure=exposure)


def _logits(fitted: Fitted, matrix: NDArray[np.float32]) -> Floats:
    import lightgbm as lgb

    if not len(matrix):
        return np.empty(0)
    booster = lgb.Booster(model_str=fitted.text)
    return fitted.start + np.asarray(booster.predict(matrix, raw_score=True), np.float64)
