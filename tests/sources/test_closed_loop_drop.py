"""The closed-loop world's drop: as the contract has it, each row where it arrived, the same bytes again."""

import re
from datetime import UTC, date, datetime

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sources.drop_contract import problems
from sources.small_worlds import FAR, days_between, dropped, files, small, table

from sameworld.records import Refused
from sameworld.sources.closed_loop import World
from sameworld.sources.closed_loop_drop import write_drop
from sameworld.sources.closed_loop_log import ITEM_SERVICE


def test_every_column_and_arrival_is_as_the_contract_has_it(tmp_path):
    assert problems(dropped(tmp_path / "drop", tail_days=3)) == []


def test_the_contract_check_sees_a_naive_time_and_a_wrong_folder(tmp_path):
    path = dropped(tmp_path / "drop") / "day=2026-03-02/requests/part-0.parquet"
    rows = pq.ParquetFile(path).read()
    naive = pa.array(rows["shown_at"].to_pylist(), pa.timestamp("us"))
    pq.write_table(rows.set_column(rows.column_names.index("shown_at"), "shown_at", naive), path)
    (tmp_path / "drop/day=2026-03-03").rename(tmp_path / "drop/day=2026-04-03")
    found = problems(tmp_path / "drop")
    assert "day=2026-03-02/requests: shown_at is timestamp[us]" in found
    assert "day=2026-04-03/requests: arrived on another day" in found


def test_the_same_parameters_write_the_same_bytes_and_another_seed_others(tmp_path):
    first, again, other = (files(dropped(tmp_path / name, seed=seed)) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert first == again
    assert first.keys() == other.keys()
    assert all(first[name] != other[name] for name in first if "impressions" in name or "outcomes" in name)


def test_a_longer_world_begins_with_the_days_of_a_shorter_one(tmp_path):
    short, long = files(dropped(tmp_path / "short", days=2)), files(dropped(tmp_path / "long", days=3))
    assert short.items() <= long.items()


def test_the_days_written_are_those_returned(tmp_path):
    days = write_drop(tmp_path, small(days=2, tail_days=1))
    assert days == [date(2026, 3, 1), date(2026, 3, 2), date(2026, 3, 3)]
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"day={day}" for day in days]


def test_requests_land_minutes_after_they_were_shown_some_past_midnight(tmp_path):
    requests = table(dropped(tmp_path / "drop", requests_per_day=1000), "requests")
    minutes = 1440 * days_between(requests, "shown_at", "arrived_at")
    assert abs(minutes.mean() - 3.0) < FAR * 1.5 / np.sqrt(len(minutes))
    assert (requests["arrived_at"].dt.date() > requests["shown_at"].dt.date()).any()


def test_nothing_of_the_truth_is_in_the_drop(tmp_path):
    drop, world = dropped(tmp_path / "drop"), World(small())
    logs = [world.simulate_day(day) for day in range(4)]
    true = np.concatenate([getattr(log.truth, name).ravel() for log in logs for name in ("click", "target", "gain")])
    secret = np.concatenate([true, *(part.ravel() for part in (world.items.quality, world.items.taste))])
    secret = np.concatenate([secret, world.items.conversion, world.users.taste.ravel()])
    for name in ("requests", "impressions", "candidates", "outcomes", "features/item_stats", "features/user_profile"):
        numbers = table(drop, name).select(pl.selectors.float())
        assert not any(np.isin(column.drop_nulls().to_numpy(), secret).any() for column in numbers)


@pytest.mark.parametrize(
    ("view", "key", "served"),
    [("item_stats", "item_id", ITEM_SERVICE), ("user_profile", "user_id", ("x_user_0", "x_user_1", "x_user_2"))],
)
def test_served_features_are_the_newest_that_the_view_had_then(tmp_path, view, key, served):
    drop = dropped(tmp_path / "drop")
    shown = table(drop, "impressions").drop_nulls(list(served)).sort("shown_at")
    rows = table(drop, f"features/{view}").sort("available_at")
    joined = shown.join_asof(rows, left_on="shown_at", right_on="available_at", by=key, check_sortedness=False)
    assert shown.height > 1000
    assert all(joined[name].equals(joined[name.removeprefix("x_")], check_names=False) for name in served)


def test_item_statistics_count_what_had_arrived_before_their_day(tmp_path):
    drop = dropped(tmp_path / "drop")
    known = table(drop, "outcomes").filter(pl.col("arrived_at") < datetime(2026, 3, 4, tzinfo=UTC), kind="click")
    batch = table(drop, "features/item_stats").filter(available_at=datetime(2026, 3, 4, 6, tzinfo=UTC))
    counted = batch.join(known.group_by("item_id").len(), on="item_id", how="left")
    assert counted["len"].fill_null(0).to_list() == counted["item_clicks"].to_list()
    assert counted["item_clicks"].sum() > 50


def test_outcomes_land_days_later_and_tail_days_carry_only_late_rows(tmp_path):
    drop = dropped(tmp_path / "drop", days=3, tail_days=4, purchase_intercept=0.0)
    outcomes = table(drop, "outcomes").filter(kind="purchase")
    assert ((outcomes["arrived_at"].dt.date() - outcomes["happened_at"].dt.date()).dt.total_days() == 2).any()
    assert {path.name for path in (drop / "day=2026-03-06").iterdir()} == {"_SUCCESS", "outcomes"}


def test_candidates_are_logged_whole_for_their_share_of_requests(tmp_path):
    drop = dropped(tmp_path / "drop", candidates_share=0.3)
    rows = table(drop, "candidates").group_by("request_id").len()
    assert rows["len"].unique().to_list() == [8]
    assert abs(rows.height / table(drop, "requests").height - 0.3) < FAR * np.sqrt(0.21 / 600)
    assert "candidates" not in {path.name for path in (dropped(tmp_path / "none", candidates_share=0.0)).glob("*/*")}


def test_a_folder_that_holds_something_is_refused(tmp_path):
    (tmp_path / "day=2026-03-01").mkdir()
    with pytest.raises(Refused, match=re.escape("the drop's folder is not empty")):
        write_drop(tmp_path, small())
