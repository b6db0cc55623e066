"""Which days logged what was served: those whose files hold any served value."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from core.core_builders import FIRST, a_log

from sameworld.store.feature_rows import days_that_serve
from sameworld.store.parquet_facts import holds_any

NULLS = pl.Series([None, None], dtype=pl.Float64)


def impressions(**columns: object) -> dict[str, pl.DataFrame]:
    return {"impressions": pl.DataFrame({"request_id": ["r1", "r2"], **columns})}


def test_a_day_serves_if_its_file_has_any_value_of_a_chosen_column(tmp_path: Path) -> None:
    log = a_log(
        tmp_path,
        impressions(x_a=[1.0, None], x_b=NULLS),
        impressions(x_a=NULLS, x_b=NULLS),
        impressions(),
        impressions(x_b=[None, "late"], x_other=[1, 2]),
        impressions(x_other=[1, 2]),
    )
    assert days_that_serve(log, "impressions", ["x_a", "x_b"]) == (FIRST, FIRST + timedelta(days=3))
    assert days_that_serve(log, "impressions", []) == ()
    assert days_that_serve(log, "outcomes", ["x_a"]) == ()


@pytest.mark.parametrize("statistics", [True, False])
def test_a_footer_that_does_not_say_is_not_believed_to_be_empty(tmp_path: Path, statistics: bool) -> None:
    reasons = pl.Series([[{"key": "x_a", "value": "absent"}], None])
    frame = pl.DataFrame({"null_reason": reasons, "x_a": NULLS, "x_b": [None, 2.0]})
    frame.write_parquet(tmp_path / "rows.parquet", statistics=statistics, row_group_size=1)
    found = [holds_any(tmp_path / "rows.parquet", names) for names in (("x_a",), ("x_b",), ("x_a", "x_b"), ())]
    assert found == [False, True, True, False]
