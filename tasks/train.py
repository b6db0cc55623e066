"""Train the two boosters: judged on later days first, then refitted on everything known.

One orders by expected gain, the other says how likely the target is. Both also read what the log knew of each item.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sameworld.models.bundle import item_statistics
from sameworld.models.donor_copies import DonorCopies, donor_copies
from sameworld.models.examination import Theta
from sameworld.models.features import Feature
from sameworld.models.gain_completeness import gain_completeness
from sameworld.models.item_history import ItemHistory, history_features, learn_history, left_by_model
from sameworld.models.negatives import sampled_negatives
from sameworld.models.training import Fitted, Rows, binned, binned_rows, fit_gain, fit_probability, fit_ranker
from sameworld.models.training_table import TrainingTable, examined, exposed, memory_needed, stretch
from sameworld.records import Cannot, Refused
from sameworld.store.artifacts import Artifact, canonical
from sameworld.store.log import Log
from sameworld.store.parts import examples_of
from sameworld.store.repeat_rows import repeat_weights
from sameworld.store.room import refuse_beyond_memory
from sameworld.store.step import Work, step
from sameworld.store.times import parse_time

if TYPE_CHECKING:
    import lightgbm as lgb

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
def run(work: Work, *, log: Artifact, examples: Artifact, repeats: Artifact) -> None:
    """Fit the model that orders and the probability model.

    Both are fitted on the days before the hold-out, stopped on its first half, and asked about its second half, which
    the calibration reads. Then both are refitted with the same rounds on all that is known at the cutoff; young rows
    count by their completeness, repeated ones by their weight, and rows whose served features were not logged half
    under the nulls of a request whose were. A log without lists gets no ranker: the probability orders.
    """
    kinds = len(work.spec.label.gains) if work.spec.train.item_history else 0
    rows, features = int(examples.record["rows"]), len(examples.record["features"]) + kinds
    copied = round(rows * (1.0 - examples.record["served_share"])) if examples.record["served_share"] else 0
    refuse_beyond_memory(
        memory_needed(rows + copied, features),
        memory_gb=work.whole_spec.engine.memory_gb,
        what=f"training on {rows:,} rows of {features} features",
        remedy="read fewer days (train.days)",
    )
    theta = _examination(work, log, examples_of(examples, work.store))
    trainer = _trainer(work, examples, repeats, theta.values())
    table, lists = trainer.table, trainer.lists
    split = _parts(work, table, examples.record["splits"])
    parts = {name: chosen & (trainer.repeats > 0.0) for name, chosen in split.items()}
    try:
        judged, shipped = _fit(trainer, parts)
    except Refused as refusal:
        work.record = Cannot(str(refusal)).as_record()
        return
    _write(work, shipped, trainer, parts["ship"])
    held_out = parts["calibrate"] & trainer.judged  # as the back-test will judge: each wish once
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
        **trainer.copies.as_record(len(table)),
    }


@dataclass(frozen=True)
class _Pair:
    probability: Fitted
    ranker: Fitted | None


@dataclass(frozen=True)
class _Trainer:
    work: Work
    table: TrainingTable
    theta: Floats
    lists: bool
    history: ItemHistory
    gain_known: Floats
    copies: DonorCopies
    repeats: Floats
    judged: NDArray[np.bool_]

    @cached_property
    def exposure(self) -> Floats:
        """Examination × completeness of every row."""
        return exposed(examined(self.table, self.theta), self.table.completeness)

    @cached_property
    def bins(self) -> lgb.Dataset:
        """The table and its copies as LightGBM's bins. They know no label; held-out features were known by then."""
        return binned(self.copies.below(self.table.matrix), settings=self.settings(), categories=self.categories)

    @property
    def features(self) -> tuple[Feature, ...]:
        return (*self.table.features, *history_features(self.history.kinds))

    @property
    def categories(self) -> list[int]:
        return [place for place, feature in enumerate(self.features) if feature.kind == "category"]

    def rows(self, chosen: NDArray[np.bool_], *, lists: bool, sampled: bool = False, copied: bool = True) -> Rows:
        """Return the chosen rows, and below them their copies if ``copied``.

        Their negatives are ``sampled`` and weighted back where that is asked for.
        """
        table, rate = self.table, self.work.spec.train.negative_rate
        known = self.gain_known if lists else table.completeness
        weight = np.minimum(1.0 / np.maximum(known, 1e-3), MAX_WEIGHT) * self.repeats
        if rate < 1.0 and sampled:
            chosen, factor = sampled_negatives(
                table.target, chosen, worth=weight * self.exposure, rate=rate, seed=self.work.spec.train.seed
            )
            weight = weight * factor
        both = self.copies.with_copies(chosen, copied=copied)
        places = self.copies.rows(both) if len(self.copies) else stretch(chosen)
        part = self.copies.shares(len(table))[both] if copied and len(self.copies) else np.ones(1)
        return Rows(
            matrix=binned_rows(self.bins, both),
            target=table.target[places],
            gain=table.gain[places],
            exposure=exposed(examined(table, self.theta), known)[places] if lists else self.exposure[places],
            weight=weight[places] * part,
            sizes=self.copies.sizes(table.request, both),
            position=table.position[places],
            share=self.repeats[places] * part,
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
        held = self.rows(stop, lists=False, copied=False) if stop is not None else None
        settings = {**self.settings(), "min_sum_hessian_in_leaf": train.min_leaf_positives}
        rows = self.rows(chosen, lists=False, sampled=True)
        probability = fit_probability(rows, stop=held, settings=settings, max_rounds=rounds[0], **shared)
        if self.lists:
            rows = self._beside(rows, chosen)
            held = self._beside(held, stop, copied=False) if held is not None and stop is not None else None
            ranker = self._fit_order(rows, settings, stop=held, max_rounds=rounds[1], **shared)
        return _Pair(probability, ranker)

    def _beside(self, rows: Rows, chosen: NDArray[np.bool_], *, copied: bool = True) -> Rows:
        """Return the rows to order by; where none were left out for the probability, its bins serve again."""
        ranked = self.rows(chosen, lists=True, copied=copied)
        return replace(ranked, matrix=rows.matrix) if len(ranked.target) == len(rows.target) else ranked

    def _fit_order(self, rows: Rows, settings: dict[str, Any], **shared: Any) -> Fitted:
        train = self.work.spec.train
        if train.order == "gain":
            return fit_gain(rows, settings=settings, keep_raw=shared["stop"] is None, **shared)
        debias = train.position == "estimated" and len(self.theta) > 1
        return fit_ranker(rows, settings=self.settings(), debias_position=debias, **shared)


def _trainer(work: Work, examples: Artifact, repeats: Artifact, theta: Floats) -> _Trainer:
    """Read the training set, and beside its features what the log knew of each row's item."""
    gains = work.spec.label.gains
    kinds = sorted(gains) if work.spec.train.item_history else []
    table = TrainingTable.read(examples, work.store, room=len(kinds))
    seen, (weight, judged) = examined(table, theta), repeat_weights(repeats, work.store)
    history = ItemHistory(table.items, (), np.zeros((0, len(table.items))), np.zeros(len(table.items)))
    if kinds:
        beside, history = learn_history(
            examples, work.store, kinds=kinds, item=table.item, items=table.items, examination=seen, weight=weight
        )
        table.matrix[:, len(table.features) :] = beside
    lists = int(examples.record["longest_list"]) > 1
    known = gain_completeness(examples, work.store, gains=gains, examination=seen) if lists else np.ones(len(table))
    copies = donor_copies(table, examples.record["served_features"], seed=work.spec.train.seed)
    return _Trainer(work, table, theta, lists, history, known, copies, weight, judged)


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


def _examination(work: Work, log: Artifact, examples: pl.LazyFrame) -> Theta:
    """Estimate examination on closed rows of requests whose law of ordering is known."""
    if work.spec.train.position == "none":
        return Theta((), "train.position is none")
    return Theta.of(Log.open(log, work.store), examples.filter("closed"), seed=work.spec.train.seed)


def _write(work: Work, pair: _Pair, trainer: _Trainer, shipped: NDArray[np.bool_]) -> None:
    (work.folder / "probability.txt").write_text(pair.probability.text, encoding="utf-8")
    if pair.ranker is not None:
        (work.folder / "ranker.txt").write_text(pair.ranker.text, encoding="utf-8")
    table = trainer.table
    gain, exposure = table.gain * trainer.repeats, trainer.exposure * trainer.repeats
    items = item_statistics(table.items, table.item, gain=gain, exposure=exposure)
    history = trainer.history
    record = {
        "ids": items.ids.tolist(),
        "rate": items.rate.tolist(),
        "prior": items.prior,
        "kinds": list(history.kinds),
        "log_ratio": history.log_ratio.tolist(),
        "residual": _residuals(trainer, pair, shipped).tolist(),
    }
    (work.folder / "items.json").write_bytes(canonical(record))


def _residuals(trainer: _Trainer, pair: _Pair, shipped: NDArray[np.bool_]) -> Floats:
    """Return what the model that orders leaves of each item; nothing where it does not order by expected gain."""
    table, spec = trainer.table, trainer.work.spec.train
    if pair.ranker is None or spec.order != "gain" or not spec.item_history:
        return np.zeros(len(table.items))
    exposure = exposed(examined(table, trainer.theta), trainer.gain_known)
    logit = np.empty(len(table))
    logit[shipped] = pair.ranker.raw[: int(shipped.sum())]  # those of the copies follow
    logit[~shipped] = _logits(pair.ranker, table.matrix[~shipped])
    return left_by_model(table, logit, exposure=exposure, weight=trainer.repeats)


def _logits(fitted: Fitted, matrix: NDArray[np.float32]) -> Floats:
    import lightgbm as lgb

    if not len(matrix):
        return np.empty(0)
    booster = lgb.Booster(model_str=fitted.text)
    return fitted.start + np.asarray(booster.predict(matrix, raw_score=True), np.float64)
