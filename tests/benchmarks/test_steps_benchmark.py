"""The benchmark yields every figure; how long anything takes is no test's business."""

from __future__ import annotations

import math
from pathlib import Path

import polars as pl
import pytest

from benchmarks._floors import FLOORS, OTHERS
from benchmarks.big_drop import Size, write_drop
from benchmarks.steps import Figure, growth, measure, page

ROWS = 20_000


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> list[Figure]:
    return measure(ROWS, folder=tmp_path_factory.mktemp("bench"))


def test_every_table_step_has_seconds_memory_and_a_floor(figures: list[Figure]) -> None:
    assert [one.step for one in figures] == list(FLOORS)
    numbers = [(c.seconds, c.peak_mb) for one in figures for c in (one.cost, one.floor)]
    assert all(math.isfinite(seconds) and seconds > 0 and peak > 10 for seconds, peak in numbers)


def test_a_small_log_is_also_measured_the_pandas_way(figures: list[Figure]) -> None:
    assert {one.step for one in figures if one.other} == set(OTHERS)


def test_no_step_that_was_measured_had_been_run_before(figures: list[Figure]) -> None:
    reused = [one.cost.answer["reused"] for one in figures]
    assert not any(any(one) if isinstance(one, list) else one for one in reused)
    assert all(one.next_day_seconds > 0 for one in figures)


def test_the_page_names_every_step_its_seed_and_the_next_day(figures: list[Figure]) -> None:
    text = page(figures, seed=7)
    assert "Seed 7;" in text
    assert "The next day" in text
    assert all(f"| {step} | 20,000 |" in text for step in (*FLOORS, "all"))


def test_growth_is_read_from_size_to_size(figures: list[Figure]) -> None:
    bigger = [Figure(one.step, 100 * ROWS, one.cost, one.floor, None, 1.0) for one in figures]
    assert growth([*figures, *bigger]) == {step: [0.0] for step in FLOORS}


def test_a_drop_of_one_seed_is_the_same_row_by_row_and_another_seed_another(tmp_path: Path) -> None:
    found = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_drop(tmp_path / name, Size(1_000, days=3), seed=seed)
        found.append(pl.read_parquet(tmp_path / name / "**" / "impressions" / "*.parquet"))
    assert found[0].equals(found[1])
    assert not found[0].equals(found[2])


def test_rows_lie_in_the_folder_of_the_day_they_arrived(tmp_path: Path) -> None:
    write_drop(tmp_path, Size(1_000, days=3))
    for table in ("requests", "impressions", "outcomes"):
        rows = pl.scan_parquet(tmp_path / "**" / table / "*.parquet", hive_partitioning=True, try_parse_hive_dates=True)
        other = rows.filter(pl.col("arrived_at").dt.date() != pl.col("day")).collect()
        assert other.is_empty()
