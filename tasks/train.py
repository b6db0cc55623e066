"""Train the two boosters: judged on later days first, then refitted on everything known."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sameworld.models.bundle import ItemStatistics
from sameworld.models.examination import estimate_examination
from sameworld.models.training import Fitted, Rows, fit_probability, fit_ranker
from sameworld.models.training_table import TrainingTable, memory_needed
from sameworld.records import Cannot, Estimate, Refused
from sameworld.store.artifacts import Artifact, canonical
from sameworld.store.log import Log
from sameworld.store.parts import examples_of
from sameworld.store.room import refuse_beyond_memory
from sameworld.store.step import Work, step
from sameworld.store.times import parse_time

Floats = NDArray[np.float64]
MAX_WEIGHT = 5.0  # of 1 / completeness: the youngest rows would otherwise outweigh all others
PRIOR_IMPRESSIONS = 20.0  # how many average impressions an item's rate is shrunk by
MIN_STOP_POSITIVES = 20
FEW_ROUNDS = 20


@step(
    reads=(
        "train.negative_rate",
        "train.position",
        "train.delay",
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
    """Fit the lambdarank ranker and the probability model.

    Both are fitted on the days before the hold-out, stopped on its first half, and asked about its second half, which
    the calibration reads. Then both are refitted with the same rounds on all that is known at the cutoff; young rows
    count by their completeness. A log without lists gets no ranker: the probability orders.
    """
    rows, features = int(examples.record["rows"]), len(examples.record["features"])
    refuse_beyond_memory(
        memory_needed(rows, features),
        memory_gb=work.whole_spec.engine.memory_gb,
        what=f"training on {rows:,} rows of {features} features",
        remedy="read fewer days (train.days)",
    )
    theta = _examination(work, log, examples_of(examples, work.store))
    table = TrainingTable.read(examples, work.store)
    parts = _parts(work, table, examples.record["splits"])
    lists = int(examples.record["longest_list"]) > 1
    trainer = _Trainer(work, table, theta.values(), lists)
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
        "features": [feature.as_record() for feature in table.features],
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

    @cached_property
    def exposure(self) -> Floats:
        """Examination × completeness of every row."""
        seen = self.theta[np.clip(self.table.position, 1, len(self.theta)) - 1]
        return np.asarray(np.clip(seen * self.table.completeness, 1e-3, 1.0), np.float64)

    @property
    def categories(self) -> list[int]:
        return [place for place, feature in enumerate(self.table.features) if feature.kind == "category"]

    def rows(self, chosen: NDArray[np.bool_], *, lists: bool) -> Rows:
        """Return the chosen rows; negatives are sampled for the probability model only, and weighted back."""
        table, rate = self.table, self.work.spec.train.negative_rate
        weight = np.minimum(1.0 / np.maximum(table.completeness, 1e-3), MAX_WEIGHT)
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
            exposure=self.exposure[places],
            weight=weight[places],
            sizes=_sizes(table.request[places]),
            position=table.position[places],
        )

    def settings(self) -> dict[str, Any]:
        train = self.work.spec.train
        return {
            "learning_rate": train.learning_rate,
            "num_leaves": train.leaves,
            "min_data_in_leaf": train.min_leaf_rows,
            "seed": train.seed,
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
            debias = train.position == "estimated" and len(self.theta) > 1
            rows, settings = self.rows(chosen, lists=True), self.settings()
            ranker = fit_ranker(
                rows, stop=held, settings=settings, max_rounds=rounds[1], debias_position=debias, **shared
            )
        return _Pair(probability, ranker)


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
    items = _item_statistics(trainer)
    record = {"ids": items.ids.tolist(), "rate": items.rate.tolist(), "prior": items.prior}
    (work.folder / "items.json").write_bytes(canonical(record))


def _item_statistics(trainer: _Trainer) -> ItemStatistics:
    """Gain an exposed impression by item, shrunk to the mean: what "most popular" knows."""
    # Added up in the order of the rows: a parallel group_by adds in any order, and the last bits of a sum show it.
    table, exposure = trainer.table, trainer.exposure
    prior = float(table.gain.sum()) / max(float(exposure.sum()), 1e-9)
    sums = (np.bincount(table.item, weights=one, minlength=len(table.items)) for one in (table.gain, exposure))
    gains, exposures = sums
    rate = (gains + prior * PRIOR_IMPRESSIONS) / (exposures + PRIOR_IMPRESSIONS)
    return ItemStatistics(table.items, rate, prior)


def _logits(fitted: Fitted, matrix: NDArray[np.float32]) -> Floats:
    import lightgbm as lgb

    if not len(matrix):
        return np.empty(0)
    booster = lgb.Booster(model_str=fitted.text)
    return fitted.start + np.asarray(booster.predict(matrix, raw_score=True), np.float64)


def _sizes(request: NDArray[Any]) -> NDArray[np.int64]:
    starts = np.flatnonzero(np.r_[True, request[1:] != request[:-1]]) if len(request) else np.zeros(0, np.int64)
    return np.asarray(np.diff(np.r_[starts, len(request)]), np.int64)
