"""What a closed-loop world shows of a day, and what is true of it: features, frames of the log, truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from itertools import product

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sameworld.sources.closed_loop_population import Floats, Ints, Relevance
from sameworld.sources.closed_loop_traffic import STATUS_WORDS, Traffic

USER_SERVICE = ("x_user_0", "x_user_1", "x_user_2", "x_affinity")
ITEM_SERVICE = ("x_item_ctr", "x_item_buy_rate", "x_item_clicks")
WHOLE_NUMBERS = ("x_hour", "x_item_age_days", "x_item_clicks")
TIME = pl.Datetime("us", "UTC")


@dataclass(frozen=True)
class CandidateFeatures:
    """What a model sees of a day's candidates when it scores them.

    request_id, user_id (n,) and item_id (n, candidates) as numbers into ``names``; numbers: feature to (n, candidates),
    NaN where serving had null; words: categories by request, each (n,)
    """

    traffic: Traffic
    request_id: pl.Series
    user_names: pl.Series
    item_names: pl.Series
    numbers: Mapping[str, Floats]
    words: Mapping[str, pl.Series]

    @property
    def shape(self) -> tuple[int, int]:
        """Return (requests, candidates a request)."""
        n, candidates = self.traffic.item.shape
        return n, candidates

    def frame(self, request: Ints | None = None, candidate: Ints | None = None) -> pl.DataFrame:
        """Return request_id, item_id, user_id, shown_at, x_* and null_reason of these pairs, else of all, row by row.

        Without arguments the rows are the requests in order and their candidates in order, so that a column of scores
        reshapes to ``shape``.
        """
        if request is None or candidate is None:
            request, candidate = (index.ravel() for index in np.indices(self.shape))
        keys = {
            "request_id": self.request_id.gather(request),
            "item_id": self.item_names.gather(self.traffic.item[request, candidate]),
            "user_id": self.user_names.gather(self.traffic.user[request]),
            "shown_at": pl.Series(self.traffic.shown_at[request]).cast(TIME),
        }
        words = {name: values.gather(request) for name, values in self.words.items()}
        numbers = {name: _number(name, values[request, candidate]) for name, values in self.numbers.items()}
        return pl.DataFrame(keys | words | numbers | {"null_reason": self._null_reason(request)})

    def _null_reason(self, request: Ints) -> pl.Series:
        code = self.traffic.user_service * len(STATUS_WORDS) + self.traffic.item_service
        return NULL_REASONS.gather(code[request])


def _number(name: str, values: Floats) -> pl.Series:
    series = pl.Series(values, nan_to_null=True)
    return series.cast(pl.Int64) if name in WHOLE_NUMBERS else series


def _reasons(user_word: str, item_word: str) -> dict[str, str] | None:
    user = dict.fromkeys(USER_SERVICE, user_word) if user_word else {}
    item = dict.fromkeys(ITEM_SERVICE, item_word) if item_word else {}
    return user | item or None


NULL_REASONS = pl.Series(
    [_reasons(*words) for words in product(STATUS_WORDS, repeat=2)], dtype=pl.Map(pl.String, pl.String)
)


@dataclass(frozen=True)
class Truth:
    """What is true of a day's candidates: at position 1, arrays (n, candidates); and theta (slots,), examination."""

    click: Floats
    target: Floats
    gain: Floats
    theta: Floats

    @classmethod
    def of(cls, pairs: Relevance, theta: Floats) -> Truth:
        """Keep what the truth of a day states of its pairs."""
        return cls(pairs.click, pairs.target, pairs.gain, theta)

    def reward(self, order: Ints) -> Floats:
        """Return each request's expected gain, shape (n,), when shown in this order.

        order : candidate numbers by position, shape (n, at least slots); what lies below the slots is not shown
        """
        shown = np.take_along_axis(self.gain, order[:, : len(self.theta)], axis=1)
        return np.asarray(shown @ self.theta)

    def oracle_order(self) -> Ints:
        """Return the order of greatest expected gain, shape (n, candidates); ties by candidate number."""
        return np.argsort(-self.gain, axis=1, kind="stable")

    def reward_share(self, order: Ints) -> float:
        """Return the day's expected gain of this order as a share of the oracle's."""
        return float(self.reward(order).sum() / self.reward(self.oracle_order()).sum())


@dataclass(frozen=True)
class DayLog:
    """One simulated day.

    requests, impressions, outcomes, item_stats, user_profile : frames as the contract has them, in the order shown,
    whenever they arrive; features, scores (n, candidates) what was scored and how; order (n, slots) what was shown;
    shuffled (n,) whether the uniform shuffle drew it; truth is never written to a drop
    """

    day: date
    requests: pl.DataFrame
    impressions: pl.DataFrame
    outcomes: pl.DataFrame
    item_stats: pl.DataFrame
    user_profile: pl.DataFrame
    features: CandidateFeatures
    scores: Floats
    order: Ints
    shuffled: NDArray[np.bool_]
    truth: Truth

    def candidates(self) -> pl.DataFrame:
        """Return the contract's candidates table, for the sampled requests."""
        width = self.features.shape[1]
        request = np.repeat(np.flatnonzero(self.features.traffic.log_candidates), width)
        frame = self.features.frame(request, np.tile(np.arange(width), len(request) // width))
        arrived = pl.Series("arrived_at", self.features.traffic.request_arrived[request]).cast(TIME)
        return frame.drop("user_id", "shown_at").insert_column(2, arrived)
