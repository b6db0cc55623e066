"""What a look at a drop suggests: target, window, segments, and what will have to be answered with "cannot"."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kruskal

from tasks.cli.drop_look import DropLook, Outcomes

WINDOWS_DAYS = (1 / 24, 1.0, 3.0, 7.0, 14.0, 30.0)
COVERED = 0.99
BACKTEST_DAYS = (3, 2, 1)
HOLDOUT_DAYS = 2.0
LAG_GRID_HOURS = 6.0
# Segments must differ beyond doubt: a column named without need splits the delay curves' data.
SEGMENT_P, SEGMENT_RATIO, SEGMENT_EVENTS = 1e-6, 1.5, 50


@dataclass(frozen=True)
class Window:
    """A window with the share of outcomes that it covers, and the back-test that the log's length leaves room for.

    slowest : the window that covers 99 %; fits : whether the log is long enough for a back-test
    """

    days: float
    covered: float
    slowest: float
    backtest_days: int
    holdout_days: float
    fits: bool


def target_of(kinds: Mapping[str, Outcomes]) -> str:
    """Return the only kind, else the rarest; of equally rare ones the first by name."""
    return min(sorted(kinds), key=lambda kind: kinds[kind].impressions)


def window_for(hours: Mapping[str, NDArray[np.float64]], *, log_days: int, lag_hours: float) -> Window:
    """Choose the smallest window that covers 99 % of each kind's outcomes and leaves room for a back-test.

    hours : by kind, how long outcomes took
    Where that window is too long for the log, the longest that is not; where none is, that window without a back-test.

    >>> hours = {"click": np.array([0.1]), "purchase": np.linspace(1, 60, 100)}
    >>> window_for(hours, log_days=28, lag_hours=5.0).days, window_for(hours, log_days=6, lag_hours=5.0).days
    (3.0, 1.0)
    """
    shares = {days: min(float(np.mean(of_kind < 24 * days)) for of_kind in hours.values()) for days in WINDOWS_DAYS}
    slowest = next((days for days in WINDOWS_DAYS if shares[days] >= COVERED), WINDOWS_DAYS[-1])
    lag_days = math.ceil(lag_hours / LAG_GRID_HOURS) * LAG_GRID_HOURS / 24
    for days in (one for one in reversed(WINDOWS_DAYS) if one <= slowest):
        for backtest_days in BACKTEST_DAYS:
            closed = _closed_before_backtest(log_days, days, lag_days, backtest_days)
            if closed >= 1:
                holdout = round(min(HOLDOUT_DAYS, closed / 3), 2)
                return Window(days, shares[days], slowest, backtest_days, holdout, fits=True)
    return Window(slowest, shares[slowest], slowest, 1, 1.0, fits=False)


def _closed_before_backtest(log_days: int, window: float, lag: float, backtest_days: int) -> float:
    """Return how many days had closed at the earlier cutoff that a back-test trains at."""
    return math.floor(log_days - lag - window - backtest_days) - window - lag


def segment_for(outcomes: Outcomes) -> str | None:
    """Return the column whose values' delays differ most clearly, or None where none do beyond doubt."""
    found = {}
    for name, by_value in outcomes.by_segment.items():
        groups = [hours for hours in by_value.values() if len(hours) >= SEGMENT_EVENTS]
        medians = [float(np.median(hours)) for hours in groups]
        if len(groups) > 1 and max(medians) > SEGMENT_RATIO * min(medians):
            found[name] = float(kruskal(*groups).pvalue)
    best = min(sorted(found), key=lambda name: found[name], default=None)
    return best if best is not None and found[best] < SEGMENT_P else None


def missing(look: DropLook) -> dict[str, str]:
    """Return what the drop lacks, each with what will therefore be absent or answered with "cannot"."""
    found = {}
    if not look.users:
        found["users"] = "no user_id: each request counts as a user of its own, and intervals are too narrow for it"
    if not look.lists:
        found["lists"] = "every request shows one item: no ranker (the probability orders); ndcg, mrr, coverage cannot"
    if "requests" not in look.tables:
        found["requests"] = "no requests table: what is told by policy, branch or arm cannot"
    if not look.policy:
        found["policy"] = (
            "no request names its candidates with scores, tau and epsilon: propensities cannot be computed"
        )
    if not (look.policy or look.propensities):
        found["propensities"] = "neither logged nor computable: position.examination and policy_value cannot"
    if "candidates" not in look.tables:
        found["candidates"] = "no candidates table: policy_value cannot, what else could have been shown is not known"
    if not look.views:
        found["views"] = "no feature views: features are as served, nothing to compare them with"
    if not look.features:
        found["features"] = "the impressions have no x_* column: without a view nothing can be trained"
    return found
