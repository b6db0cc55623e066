"""Builders of small closed-loop worlds, and what tests read off them."""

import functools
from pathlib import Path

import numpy as np
import polars as pl
from sources.drop_contract import read

from sameworld.sources.closed_loop import DayLog, World, WorldParameters
from sameworld.sources.closed_loop_drop import write_drop

FAR = 4.5  # standard errors: beyond this by chance in 7 of a million draws


def small(**changes) -> WorldParameters:
    sizes = {"days": 4, "requests_per_day": 150, "users": 80, "items": 40, "candidates": 8, "slots": 4}
    return WorldParameters(**(sizes | changes))


@functools.cache
def big_day() -> DayLog:
    """One day of many requests, on whose rates a test can be strict."""
    return World(WorldParameters(days=1, requests_per_day=20_000, purchase_intercept=-0.6)).simulate_day(0)


def dropped(out: Path, **changes) -> Path:
    write_drop(out, small(**changes))
    return out


def table(drop: Path, name: str) -> pl.DataFrame:
    return pl.from_arrow(read(drop, name))


def files(drop: Path) -> dict[str, bytes]:
    return {str(path.relative_to(drop)): path.read_bytes() for path in sorted(drop.rglob("*")) if path.is_file()}


def shown_truth(log: DayLog, name: str) -> np.ndarray:
    """The probability at the position shown, shape (n, slots)."""
    return log.truth.theta * np.take_along_axis(getattr(log.truth, name), log.order, axis=1)


def outcomes_of(log: DayLog, kind: str) -> pl.DataFrame:
    shown = log.impressions.select("request_id", "item_id", "position", "shown_at", "x_segment")
    return log.outcomes.filter(kind=kind).join(shown, on=["request_id", "item_id"], validate="1:1")


def days_between(frame: pl.DataFrame, start: str, end: str) -> np.ndarray:
    return (frame[end] - frame[start]).dt.total_microseconds().to_numpy() / 86.4e9
