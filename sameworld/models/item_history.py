"""What the log knows about each item by its id: learned with a model, kept in its bundle, added to what is scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sameworld.maths.delay import DelayCurve
from sameworld.maths.item_history import Came, Shown, item_history
from sameworld.maths.item_residual import item_residuals
from sameworld.models.features import Feature
from sameworld.models.training_table import TrainingTable
from sameworld.store.artifacts import Artifact, Store
from sameworld.store.parts import example_parts

Floats = NDArray[np.float64]
HALF_LIFE_DAYS = 10.0  # best on the mean of 4, 10 and no fading: docs/decisions/013
RESIDUAL_HALF_LIFE = np.timedelta64(7, "D")
ALL = "all"


@dataclass(frozen=True)
class ItemHistory:
    """Statistics by item: ids sorted (items,), kinds of outcome, log_ratio (kinds, items), 0 for an average item.

    residual (items,) : what the ordering model leaves of an item, added to its score
    """

    ids: NDArray[np.str_]
    kinds: tuple[str, ...]
    log_ratio: Floats
    residual: Floats

    def added_to(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return the rows with one column a kind, by item_id."""
        found, _ = self.of(rows["item_id"])
        return rows.with_columns(
            pl.Series(feature.name, column.astype(np.float64))
            for feature, column in zip(history_features(self.kinds), found.T, strict=True)
        )

    def of(self, item_id: pl.Series) -> tuple[NDArray[np.float32], Floats]:
        """Return each row's statistics (rows, kinds), and what to add to its score (rows,).

        An item that the log never had counts as average: 0.
        """
        if not len(self.ids):
            return np.zeros((len(item_id), len(self.kinds)), np.float32), np.zeros(len(item_id))
        wanted = item_id.cast(pl.String).to_numpy().astype(np.str_)
        place = np.minimum(np.searchsorted(self.ids, wanted), len(self.ids) - 1)
        known = self.ids[place] == wanted
        log_ratio = np.where(known, self.log_ratio[:, place], 0.0).T
        return log_ratio.astype(np.float32), np.where(known, self.residual[place], 0.0)


def history_features(kinds: Sequence[str]) -> tuple[Feature, ...]:
    """Return the features that a history adds, one a kind; their names cannot be those of served features.

    >>> [feature.name for feature in history_features(["click"])]
    ['history of click']
    """
    return tuple(Feature(f"history of {kind}", "number") for kind in kinds)


def learn_history(
    examples: Artifact, store: Store, *, kinds: Sequence[str], item: NDArray[np.int32], items: NDArray[np.str_],
    examination: Floats, weight: Floats | None = None,
) -> tuple[NDArray[np.float32], ItemHistory]:  # fmt: skip
    """Return each training row's statistics as they were known when its day began, (rows, kinds); and today's.

    item : (rows,) places in ``items``, which are sorted; examination : (rows,), of the position of each row
    weight : (rows,) >= 0, what a row counts; None: each 1
    """
    weight = np.ones(len(item)) if weight is None else weight
    rows = _read(examples, store, kinds)
    today = int(rows["today"][0]) if len(rows) else 0
    segments = rows["segment"].unique().sort()
    segment = rows["segment"].cast(pl.Enum(segments)).to_physical().cast(pl.Int64).to_numpy()
    shown = Shown(item.astype(np.int64), rows["day"].to_numpy(), segment, examination * weight)
    found, latest = np.zeros((len(rows), len(kinds)), np.float32), np.zeros((len(kinds), len(items)))
    for place, kind in enumerate(kinds):
        known = rows[f"known_{kind}"]
        came = np.flatnonzero(known.is_not_null().to_numpy())
        history = item_history(
            shown,
            Came(shown.item[came], shown.day[came], known.gather(came).to_numpy(), weight[came]),
            completeness=completeness_by_day(examples.record["curves_by_kind"][kind], segments.to_list()),
            half_life_days=HALF_LIFE_DAYS,
            items=len(items),
            today=today,
        )
        found[:, place], latest[place] = history.rows, history.latest
    return found, ItemHistory(items, tuple(kinds), latest, np.zeros(len(items)))


def left_by_model(table: TrainingTable, logit: Floats, *, exposure: Floats, weight: Floats) -> Floats:
    """Return what a model of the gain leaves of each item, (items,): newer rows count more.

    logit : (rows,), the model's, of a gain as a share of the greatest; exposure, weight : (rows,)
    """
    age = table.shown_at.max() - table.shown_at
    return item_residuals(
        table.item,
        logit,
        table.gain / max(float(table.gain.max(initial=0.0)), 1e-12),
        exposure=exposure,
        weight=weight * 0.5 ** (age / RESIDUAL_HALF_LIFE),
        items=len(table.items),
    )


def completeness_by_day(curves: Mapping[str, Any], segments: Sequence[str]) -> Floats:
    """Return the share of outcomes known 1, 2, … midnights after the day shown, (segments, days) up to completeness.

    An impression counts as shown in the middle of its day. A segment without a curve takes that of all; without any,
    outcomes count as known at once.
    """
    read = {name: DelayCurve.from_record(record) for name, record in curves.items()}
    horizon = max((curve.horizon_hours for curve in read.values()), default=0.0)
    ages = np.arange(max(int(np.ceil(horizon / 24.0)), 1)) * 24.0 + 12.0
    chosen = [read.get(segment, read.get(ALL)) for segment in segments]
    return np.stack([np.ones(len(ages)) if curve is None else curve.at(ages) for curve in chosen])


def _read(examples: Artifact, store: Store, kinds: Sequence[str]) -> pl.DataFrame:
    """Return segment, day (from 0), today, and the day on which each kind was first known, row by row."""
    known = [f"known_{kind}" for kind in kinds]
    parts = [part.select("shown_at", "segment", *known) for part in example_parts(examples, store)]
    rows = pl.concat(parts).collect(engine="streaming")
    first = rows["shown_at"].dt.date().min()

    def day(moment: pl.Expr) -> pl.Expr:
        return (moment.dt.date() - pl.lit(first)).dt.total_days()

    cutoff = pl.lit(examples.record["cutoff"]).str.to_datetime(time_unit="us", time_zone="UTC")
    # A part-day at the end counts as a day: what is known at the cutoff is known at its end.
    today = day(cutoff - pl.duration(microseconds=1)) + 1
    named = {name: day(pl.col(name)) for name in known}
    return rows.select("segment", day=day(pl.col("shown_at")), today=today, **named)
