"""From one day on outcomes take twice as long to land: the alarm is raised, labels wait, nothing ships meanwhile."""

from __future__ import annotations

import functools
import shutil
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest
from whole.small_days import Tree, copied, days_of, fresh, loop_drop, loop_tree, made_by, run

from sameworld.store.artifacts import Store
from sameworld.store.parts import labels_of
from tasks.report import Written

DAYS, SHIFT = 20, 14  # what happens from the fifteenth day on lands late
BEFORE, NEXT, AFTER = SHIFT - 1, SHIFT + 2, SHIFT + 4
SLOWEST_HOURS = 20.0
KEY = ["request_id", "item_id"]


@functools.cache
def drop() -> Path:
    """A closed-loop world whose outcomes land 12 to 20 hours after they happened, then 24 to 40."""
    out = copied(loop_drop(seed=3, days=DAYS))
    rows = outcomes(out)
    spread = 0.6 + 0.4 * (rows["happened_at"].dt.microsecond() / 1e6)
    slower = (rows["happened_at"].dt.date() >= days_of(out)[SHIFT]).cast(pl.Float64) + 1.0
    lag = (SLOWEST_HOURS * spread * slower * 3.6e9).cast(pl.Int64).cast(pl.Duration("us"))
    rows = rows.with_columns(arrived_at=rows["happened_at"] + lag)
    for day in days_of(out):
        land(rows.filter(pl.col("arrived_at").dt.date() == day), out / f"day={day}" / "outcomes")
    return out


def outcomes(made: Path) -> pl.DataFrame:
    return pl.concat(pl.read_parquet(file) for file in sorted(made.glob("*/outcomes/*.parquet")))


def land(rows: pl.DataFrame, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if len(rows):
        folder.mkdir()
        rows.sort("arrived_at", *KEY, "kind").write_parquet(folder / "part-0.parquet")


def tree() -> Tree:
    return {**loop_tree(drop(), target="click", window_days=1, segments=[]), "backtest": {"days": 1}}


def day(number: int) -> date:
    return days_of(drop())[number]


@functools.cache
def root() -> Path:
    return fresh("root")


@functools.cache
def labelled(number: int) -> Written:
    return run(root(), tree(), day(number), only="label")


def labels(number: int) -> pl.DataFrame:
    """The labels of what was shown since the shift, as of a day's end."""
    known = labels_of(made_by(root(), labelled(number), "label"), Store(str(root()))).collect()
    return known.filter(pl.col("shown_at").dt.date() >= day(SHIFT))


def test_fault_21_the_alarm_is_silent_before_the_lag_doubles_and_raised_within_three_days_of_it() -> None:
    assert labelled(BEFORE).report["delay"]["shift"]["alarm"] is False
    for number in (NEXT, AFTER):
        shift = labelled(number).report["delay"]["shift"]
        assert shift["alarm"] is True
        assert "arrivals" in shift["reason"]


def test_fault_21_labels_stay_open_for_as_long_as_the_new_lag_asks() -> None:
    """Three days after the shift: under the old lag of a day all that was shown on its first day would be closed."""
    rows, end = labels(NEXT), pl.lit(day(NEXT) + timedelta(days=1)).cast(pl.Datetime("us", "UTC"))
    waited = end - rows["shown_at"]
    assert len(rows.filter(waited >= timedelta(hours=48))) > 500
    assert rows.filter(waited < timedelta(hours=24 + 1.9 * SLOWEST_HOURS))["closed"].sum() == 0


@pytest.mark.parametrize("number", [NEXT, AFTER])
def test_fault_21_no_label_closes_before_its_outcomes_have_landed(number: int) -> None:
    closed = labels(number).filter("closed")
    late = closed.join(outcomes(drop()).filter(kind="click"), on=KEY, how="left", maintain_order="left")
    inside = late["happened_at"] < late["shown_at"] + timedelta(days=1)
    assert late["target"].to_list() == inside.fill_null(value=False).cast(pl.Int8).to_list()
    assert len(closed) > 100 * (number == AFTER)


def test_fault_21_the_decision_holds_and_says_that_delays_have_changed() -> None:
    decision = run(root(), tree(), day(AFTER)).report["decision"]
    assert decision["outcome"] == "HOLD"
    assert decision["reasons"][0].startswith("delays have changed: ")
