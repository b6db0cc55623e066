"""The drop that a closed-loop world's log exporter writes: each row on the day on which it arrived."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path

import polars as pl

from sameworld.sources.closed_loop import Score, World, heuristic
from sameworld.sources.closed_loop_log import DayLog
from sameworld.sources.closed_loop_parameters import WorldParameters
from sameworld.sources.landing import land, want_empty

# by table: the column that says when a row arrived, and an order without ties
ORDERS = {
    "requests": ("arrived_at", "request_id"),
    "impressions": ("arrived_at", "request_id", "position"),
    "candidates": ("arrived_at", "request_id", "item_id"),
    "outcomes": ("arrived_at", "request_id", "item_id", "kind"),
    "features/item_stats": ("available_at", "item_id"),
    "features/user_profile": ("available_at", "user_id"),
}


def write_drop(
    out: Path, parameters: WorldParameters, score: Score | Mapping[str, Score] = heuristic, *, version: str = ""
) -> list[date]:
    """Simulate a world under one logging model, write its drop, and return the drop's days, oldest first.

    The drop has ``days`` days and then ``tail_days`` on which only late rows arrive; what would arrive after the last
    is not in it. Nothing of the truth is written. ``score`` and ``version`` are those of :meth:`World.simulate_day`.

    Raises Refused if ``out`` is not empty.
    """
    want_empty(out)
    world, waiting, days = World(parameters), dict[str, pl.DataFrame](), []
    for index in range(parameters.days + parameters.tail_days):
        day = parameters.first_day + timedelta(days=index)
        if index < parameters.days:
            waiting = _add(waiting, tables(world.simulate_day(index, score, version=version)))
        land({name: _arrived(frame, name, day) for name, frame in waiting.items()}, out, day)
        waiting = {name: frame.filter(_day_of(name) > day) for name, frame in waiting.items()}
        days.append(day)
    return days


def tables(log: DayLog) -> dict[str, pl.DataFrame]:
    """Return a simulated day's tables by their place in a drop, whenever their rows arrive."""
    return {
        "requests": log.requests,
        "impressions": log.impressions,
        "candidates": log.candidates(),
        "outcomes": log.outcomes,
        "features/item_stats": log.item_stats,
        "features/user_profile": log.user_profile,
    }


def _add(waiting: dict[str, pl.DataFrame], new: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    return {name: pl.concat([waiting[name], frame]) if name in waiting else frame for name, frame in new.items()}


def _day_of(table: str) -> pl.Expr:
    return pl.col(ORDERS[table][0]).dt.date()


def _arrived(frame: pl.DataFrame, table: str, day: date) -> pl.DataFrame:
    return frame.filter(_day_of(table) == day).sort(ORDERS[table])
