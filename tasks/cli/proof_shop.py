"""A shop of the closed-loop world: it serves day after day and logs what it shows; its truth is kept aside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sameworld.maths.ranking import ndcg_by_request
from sameworld.sources.closed_loop import CandidateFeatures, DayLog, World, WorldParameters
from sameworld.sources.closed_loop_drop import ORDERS, tables
from sameworld.sources.landing import land

Floats = NDArray[np.float64]
Score = Callable[[CandidateFeatures], Floats]
KEYS = ["request_id", "item_id"]
NDCG_AT = 10
LOGS_CANDIDATES_EVERY = 2  # requests: their propensities cost more than all other steps together


class Shop:
    """A world whose days are kept as they were, each with its features as they would have been without outages.

    drop : where its log is written, by day of arrival; None where nobody reads one
    """

    def __init__(self, parameters: WorldParameters, drop: Path | None = None) -> None:
        self.parameters, self.drop = parameters, drop
        self.days: list[DayLog] = []
        self.complete: list[CandidateFeatures] = []
        self._world = World(parameters)
        self._without_outages = World(replace(parameters, outage_shared=0.0, outage_user=0.0, outage_item=0.0))
        self._waiting: dict[str, pl.DataFrame] = {}

    @property
    def now(self) -> datetime:
        """The midnight after the last day served."""
        return self.midnight(len(self.days))

    def midnight(self, day: int) -> datetime:
        """Return when the day of this number begins."""
        return datetime.combine(self.parameters.first_day + timedelta(days=day), time(), tzinfo=UTC)

    def serve(self, score: Score, version: str) -> None:
        """Serve a day's requests and land what arrives on it."""
        number = len(self.days)
        day = self._world.simulate_day(number, score, version=version)
        # the same scores in a world of equal luck bring the same order and outcomes: only the nulls are not there
        twin = self._without_outages.simulate_day(number, lambda _: day.scores, version=version)
        self.days.append(day)
        self.complete.append(twin.features)
        if self.drop is not None:
            self._land(day, self.drop)

    def _land(self, log: DayLog, drop: Path) -> None:
        written = tables(log)
        written["requests"] = _some_candidates(written["requests"])
        for name, frame in written.items():
            old = self._waiting.get(name)
            self._waiting[name] = frame if old is None else pl.concat([old, frame])
        today = {name: pl.col(ORDERS[name][0]).dt.date() == log.day for name in self._waiting}
        landed = {name: frame.filter(today[name]).sort(ORDERS[name]) for name, frame in self._waiting.items()}
        land(landed, drop, log.day)
        self._waiting = {name: frame.filter(~today[name]) for name, frame in self._waiting.items()}

    def shown(
        self, since: int, before: int, *, known_by: datetime | None = None, complete: bool = False
    ) -> pl.DataFrame:
        """Return the impressions of days ``since`` up to ``before``, with what came of them within the window.

        known_by : outcomes that had not arrived by then are not counted; default: all that ever come
        complete : features as a warehouse would have them, without the nulls that serving had

        Adds click and purchase (0 or 1), and gain; a request's rows are contiguous, top first.
        """
        days = self.days[since:before]
        rows = (
            [_complete(day, features) for day, features in zip(days, self.complete[since:before], strict=True)]
            if complete
            else [day.impressions for day in days]
        )
        came = pl.concat([day.outcomes for day in days])
        came = came if known_by is None else came.filter(pl.col("arrived_at") < known_by)
        return _with_outcomes(pl.concat(rows), came, self.parameters)


def launch(features: CandidateFeatures) -> Floats:
    """Score nothing: a shop that has no model yet shows its candidates in a random order."""
    return np.zeros(features.shape)


def standardised(values: Floats) -> Floats:
    """Return scores centred within their request, with a spread of 1 over all: what a policy's tau is meant for.

    >>> standardised(np.array([[1.0, 3.0], [7.0, 5.0]])).tolist()
    [[-1.0, 1.0], [1.0, -1.0]]
    """
    centred = values - values.mean(axis=1, keepdims=True)
    return np.asarray(centred / max(float(centred.std()), 1e-9))


def share_served(days: Sequence[DayLog]) -> float:
    """Return what was shown, exploration included, as a share of the best expected gain of these days."""
    got = sum(float(day.truth.reward(day.order).sum()) for day in days)
    return got / sum(float(day.truth.reward(day.truth.oracle_order()).sum()) for day in days)


def true_ndcg(days: Sequence[DayLog]) -> float:
    """Return the mean NDCG@10 of the scores over all candidates, with their true expected gains."""
    return float(np.mean([_true_ndcg(day) for day in days]))


def _true_ndcg(day: DayLog) -> float:
    request = np.repeat(np.arange(len(day.scores)), day.scores.shape[1])
    found, counted = ndcg_by_request(request, day.scores.ravel(), day.truth.gain.ravel(), NDCG_AT)
    return float(found[counted].mean())


def _some_candidates(requests: pl.DataFrame) -> pl.DataFrame:
    logged = pl.int_range(pl.len()) % LOGS_CANDIDATES_EVERY == 0
    return requests.with_columns(pl.when(logged).then("candidates"))


def _complete(day: DayLog, features: CandidateFeatures) -> pl.DataFrame:
    request = np.repeat(np.arange(len(day.order)), day.order.shape[1])
    whole = features.frame(request, day.order.ravel())
    return whole.with_columns(day.impressions.select("position", "arrived_at", "propensity"))


def _with_outcomes(rows: pl.DataFrame, outcomes: pl.DataFrame, parameters: WorldParameters) -> pl.DataFrame:
    window = timedelta(days=parameters.window_days)
    for kind in ("click", "purchase"):
        mine = outcomes.filter(pl.col("kind") == kind).select(*KEYS, "happened_at")
        inside = (pl.col("happened_at") - pl.col("shown_at") < window).fill_null(value=False)
        rows = rows.join(mine, on=KEYS, how="left", maintain_order="left")
        rows = rows.with_columns(inside.cast(pl.Float64).alias(kind)).drop("happened_at")
    gain = parameters.click_gain * pl.col("click") + parameters.purchase_gain * pl.col("purchase")
    return rows.with_columns(gain=gain)
