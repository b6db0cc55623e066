"""The two arms of the proof in one world, day by day: an unaware team's, and the product's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sameworld.maths.calibration import normalised_entropy
from sameworld.maths.ranking import auc
from sameworld.sources.closed_loop import CandidateFeatures
from tasks.cli.proof_naive import Naive, fit_naive
from tasks.cli.proof_shop import Shop, launch, share_served, true_ndcg
from tasks.cli.proof_worlds import AUC, Course

Floats = NDArray[np.float64]
SERVED = ("x_content", "x_user_0", "x_user_1", "x_user_2", "x_affinity", "x_hour", "x_surface", "x_segment")
HELD_OUT_EVERY = 5  # requests
WINDOW_DAYS = 7  # of log that an unaware team trains on
# An item's standing in the log as a sum, and no word of how long it had to earn it: what closes the loop.
CUMULATIVE = (*SERVED, "x_item_clicks")
EVERYTHING = (*CUMULATIVE, "x_item_ctr", "x_item_buy_rate", "x_item_age_days")


@dataclass(frozen=True)
class Said:
    """An offline metric, and the day that it speaks of: the midnight that shipped the model, or the day judged."""

    about: int
    value: float


class Contender(Protocol):
    """Who serves a shop: an unaware team, or the product.

    judged_days : days after each ship that its own back-test will read, so that production is counted from later on
    """

    @property
    def judged_days(self) -> int:
        """How many they are."""

    def ship(self) -> None:
        """Put a model of all that is known into service."""

    def backtest(self, metric: str) -> Said | None:
        """Return what the log of this midnight says of a model of its own, None where it cannot say."""

    def score(self, features: CandidateFeatures) -> Floats:
        """Score a day's candidates."""

    def probability(self, rows: pl.DataFrame) -> Floats:
        """Return how likely each impression's target is."""


@dataclass
class Arm:
    """What became of an arm: by day what was said of it offline, at which midnight, and what was true of it."""

    shop: Shop
    offline: dict[int, float] = field(default_factory=dict)
    said_at: dict[int, int] = field(default_factory=dict)
    truth: dict[int, float] = field(default_factory=dict)

    def mean(self, what: str, days: Sequence[int]) -> float | None:
        """Return the mean of ``offline`` or ``truth`` over those of the days that have it, None where none has."""
        known: dict[int, float] = getattr(self, what)
        values = [known[day] for day in days if day in known]
        return float(np.mean(values)) if values else None

    def share(self, since: int) -> float:
        """Return the share of the oracle's reward of all days since, as served."""
        return share_served(self.shop.days[since:])


def run_arm(course: Course, shop: Shop, who: Contender, *, target: str, metric: str) -> Arm:
    """Serve a course from the launch on.

    Truth is, for the AUC, the true NDCG of each day's order; else the metric in production: of the model that each
    midnight shipped, over the days that it served and that its back-test did not read, with all labels.
    """
    arm, shipped = Arm(shop), -1
    for day in range(course.days + 1):
        said = who.backtest(metric)
        if said is not None:
            arm.offline[said.about], arm.said_at[said.about] = said.value, day
        if shipped >= 0 and (day == course.days or day in course.ships) and metric != AUC:
            rows = shop.shown(shipped + who.judged_days, day)
            arm.truth[shipped] = normalised_entropy(who.probability(rows), rows[target].to_numpy())
        if day == course.days:
            break
        if day in course.ships:
            who.ship()
            shipped = day
        shop.serve(who.score if shipped >= 0 else launch, type(who).__name__ if shipped >= 0 else "launch")
        if shipped >= 0 and metric == AUC:
            arm.truth[day] = true_ndcg(shop.days[day:])
    return arm


@dataclass(frozen=True)
class Blind:
    """What an unaware team does not see: ``loop``, it ranks by cumulative counts; ``delay``, it takes labels as they
    are known; ``nulls``, it trains on features that the warehouse has complete."""

    loop: bool = False
    delay: bool = False
    nulls: bool = False


@dataclass
class Unaware:
    """A team whose model is refitted on the log as it stands, and judged on requests of the log as it stands."""

    shop: Shop
    course: Course
    blind: Blind
    target: str
    model: Naive | None = None
    judged_days: int = 0  # it holds requests out of the days before; blind to nulls alone, it means the same rows

    def ship(self) -> None:
        """Refit on all days that it reads."""
        self.model = fit_naive(self._window(), target=self.target, columns=self._columns)

    def backtest(self, metric: str) -> Said | None:
        """Judge: the AUC of the model in service on yesterday's requests; else a model of four fifths of the requests
        on the fifth held out, or, blind to nulls alone, the model in service on what it served."""
        today = len(self.shop.days)
        if metric == AUC and self.model is not None:
            yesterday = self._rows(today - 1, today)
            return Said(today - 1, auc(yesterday[self.target].to_numpy(), self.probability(yesterday)))
        if metric == AUC:
            return None
        if self.blind == Blind(nulls=True):
            return self._in_the_warehouse(today) if today in (*self.course.ships, self.course.days) else None
        return self._on_a_fifth(today) if today in self.course.ships else None

    def _on_a_fifth(self, today: int) -> Said:
        rows = self._window()
        held_out = pl.col("request_id").rle_id() % HELD_OUT_EVERY == 0
        test = rows.filter(held_out)
        model = fit_naive(rows.filter(~held_out), target=self.target, columns=self._columns)
        return Said(today, normalised_entropy(model.probability(test), test[self.target].to_numpy()))

    def _in_the_warehouse(self, today: int) -> Said | None:
        """Judge the model in service on what it served, with the features that the warehouse has of it."""
        since = max((ship for ship in self.course.ships if ship < today), default=today)
        if self.model is None or since == today:
            return None
        rows = self._rows(since, today)
        return Said(since, normalised_entropy(self.probability(rows), rows[self.target].to_numpy()))

    def score(self, features: CandidateFeatures) -> Floats:
        """Score a day's candidates."""
        return self._serving().score(features)

    def probability(self, rows: pl.DataFrame) -> Floats:
        """Return how likely the target is, by the model in service."""
        return self._serving().probability(rows)

    def _serving(self) -> Naive:
        if self.model is None:
            raise ValueError("nothing was shipped yet")
        return self.model

    @property
    def _columns(self) -> Sequence[str]:
        return CUMULATIVE if self.blind.loop else EVERYTHING

    def _window(self) -> pl.DataFrame:
        today = len(self.shop.days)
        return self._rows(0 if self.blind.loop else max(0, today - WINDOW_DAYS), today)

    def _rows(self, since: int, before: int) -> pl.DataFrame:
        known_by = self.shop.now if self.blind.delay else None
        return self.shop.shown(since, before, known_by=known_by, complete=self.blind.nulls)
