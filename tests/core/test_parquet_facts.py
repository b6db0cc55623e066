"""Footers say what their columns hold."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from sameworld.store.parquet_facts import span_of

TIMES = [datetime(2026, 3, 2, 4, 5, 6, 789000, UTC), datetime(1969, 12, 31, tzinfo=UTC), None]


def written(folder: Path, unit: str, **how: int) -> Path:
    times = pl.Series("at", TIMES, pl.Datetime("us", "UTC")).cast(pl.Datetime(unit, "UTC"))  # type: ignore[arg-type]
    pl.DataFrame({"other": ["a", "b", "c"], "at": times}).write_parquet(folder / "times.parquet", **how)
    return folder / "times.parquet"


@pytest.mark.parametrize("unit", ["us", "ms"])
def test_a_footer_gives_the_first_and_last_time_of_a_column_without_its_nulls(tmp_path: Path, unit: str) -> None:
    assert span_of(written(tmp_path, unit), "at") == (TIMES[1], TIMES[0])


def test_where_a_piece_of_the_file_has_nulls_only_its_footer_does_not_say(tmp_path: Path) -> None:
    assert span_of(written(tmp_path, "us", row_group_size=1), "at") is None


def test_reading_a_footer_imports_no_pandas(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from sameworld.store.parquet_facts import span_of; "
    asked = f"{code}assert span_of(Path(sys.argv[1]), 'at'); assert 'pandas' not in sys.modules"
    pl.DataFrame({"at": pl.Series(TIMES[:2], dtype=pl.Datetime("us", "UTC"))}).write_parquet(tmp_path / "at.parquet")
    subprocess.run([sys.executable, "-c", asked, str(tmp_path / "at.parquet")], check=True, timeout=60)
