"""What one shown day's part is made of: which rows, in which order, and which days of a view its joins open."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from core.core_builders import UTC_US, a_frame, a_log, at

from sameworld.sources.day_rows import began_between
from sameworld.sources.view_days import with_days_to_join
from sameworld.store.log import Log
from sameworld.store.views import join_view

BEGIN, END = datetime(2026, 3, 2, tzinfo=UTC), datetime(2026, 3, 3, tzinfo=UTC)
VIEW = {"item_id": pl.String, "available_at": UTC_US, "price": pl.Float64}


def rows_near_midnight(seed: int, *, torn: float) -> pl.DataFrame:
    """Requests of one to four rows around both ends of the day; some rows stand apart from the rest of theirs."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 5, 60)
    request = np.repeat(np.arange(60), sizes)
    began = np.sort(rng.integers(-40, 24 * 60 + 40, 60))
    shown = [BEGIN + timedelta(minutes=int(m), seconds=int(s)) for m, s in
             zip(began[request], rng.integers(0, 900, len(request)), strict=True)]  # fmt: skip
    frame = pl.DataFrame(
        {"request_id": [f"r{n}" for n in request], "shown_at": shown}, schema_overrides={"shown_at": UTC_US}
    )
    place = np.arange(len(frame)) + np.where(rng.random(len(frame)) < torn, rng.integers(0, 30, len(frame)), 0)
    return frame[np.argsort(place, kind="stable")].with_row_index("row")


def plainly(rows: pl.DataFrame) -> list[int]:
    """The same in plain Python: whole requests in their order, then those in pieces, by their first piece."""
    places, times = defaultdict(list), defaultdict(list)
    for row, request, shown in rows.select("row", "request_id", "shown_at").iter_rows():
        places[request].append(row)
        times[request].append(shown)
    mine = [request for request in places if BEGIN <= min(times[request]) < END]
    together = [one for one in mine if places[one][-1] - places[one][0] + 1 == len(places[one])]
    apart = [one for one in mine if one not in together]
    return [row for one in (*together, *apart) for row in places[one]]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("torn", [0.0, 0.1, 1.0])
def test_a_days_rows_are_those_of_requests_that_began_on_it_each_requests_together(seed: int, torn: float) -> None:
    rows = rows_near_midnight(seed, torn=torn)
    assert began_between(rows, BEGIN, END)["row"].to_list() == plainly(rows)


def test_no_rows_are_no_rows() -> None:
    assert len(began_between(rows_near_midnight(1, torn=0.0).clear(), BEGIN, END)) == 0


def a_long_view(root: Path, rng: np.random.Generator, *, everywhere: bool) -> Log:
    """Twelve days of batches; values come late, some keys are in few batches, and some in none."""
    days = []
    for number in range(12):
        keys = [f"i{n}" for n in range(12) if everywhere or rng.random() < 0.4]
        lags = rng.integers(-2 * 86_400, 86_400, len(keys))
        days.append(
            [(key, at(int(lag), days=number), float(rng.random())) for key, lag in zip(keys, lags, strict=True)]
        )
    return a_log(root, *({"features.stats": a_frame(VIEW, *rows)} for rows in days))


@pytest.mark.parametrize("seed", range(6))
def test_a_join_finds_in_the_days_to_open_all_that_it_finds_in_the_whole_log(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    log = a_long_view(tmp_path, rng, everywhere=seed % 2 == 0)
    moments = [at(int(second), days=8) for second in np.sort(rng.integers(0, 86_400, 80))]
    shown = pl.DataFrame({"item_id": [f"i{n}" for n in rng.integers(0, 12, 80)], "shown_at": moments},
                         schema_overrides={"shown_at": UTC_US})  # fmt: skip
    few = with_days_to_join(log, ["stats"], shown)
    found = [join_view(shown.lazy(), one, "stats", ["price"], cutoff=at(days=11)).collect() for one in (log, few)]
    assert found[0].equals(found[1])
    assert found[0]["x_price@view"].null_count() < 80


def test_of_daily_batches_a_join_opens_the_days_and_the_newest_before(tmp_path: Path) -> None:
    log = a_log(tmp_path, *({"features.stats": a_frame(VIEW, ("i", at(60, days=number), 1.0))} for number in range(12)))
    shown = pl.DataFrame({"item_id": ["i", "i"], "shown_at": [at(0, days=8), at(90, days=8)]},
                         schema_overrides={"shown_at": UTC_US})  # fmt: skip
    opened = [day.record["day"] for day in with_days_to_join(log, ["stats"], shown).days]
    assert opened == ["2026-03-08", "2026-03-09"]


def test_a_view_of_which_nothing_could_be_read_yet_gives_nulls_and_so_does_a_column_that_came_later(
    tmp_path: Path,
) -> None:
    both = VIEW | {"stock": pl.Float64}
    log = a_log(
        tmp_path,
        {"features.stats": a_frame(VIEW, ("i", at(60), 1.0))},
        {"features.stats": a_frame(both, ("i", at(60, days=1), 2.0, 7.0))},
    )
    shown = pl.DataFrame({"item_id": ["i", "i"], "shown_at": [at(0), at(30)]}, schema_overrides={"shown_at": UTC_US})
    later = shown.with_columns(pl.col("shown_at") + timedelta(minutes=2))
    for rows, price in ((shown, [None, None]), (later, [1.0, 1.0])):
        few = with_days_to_join(log, ["stats"], rows)
        found = join_view(rows.lazy(), few, "stats", ["price", "stock"], cutoff=at(days=2)).collect()
        assert found.select("x_price@view", "x_stock@view").rows() == [(one, None) for one in price]
