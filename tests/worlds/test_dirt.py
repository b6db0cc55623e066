"""What is planted is what a plain reading of the contract counts, and damage damages what it says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from worlds import dirt
from worlds.market import Marketplace, write_marketplace
from worlds.reckoning import reckon
from worlds.shops import Shop, news_feed, search

NAMES = ("marketplace", "news_feed", "search")


def small(out: Path, name: str, seed: int = 1, requests_per_day: int = 60) -> Shop:
    if name == "marketplace":
        world = Marketplace(seed=seed, days=8, requests_per_day=requests_per_day, users=60, items=300)
        return write_marketplace(out / name, world)
    return {"news_feed": news_feed, "search": search}[name](out / name, seed, 8, requests_per_day)


def impressions(day: Path) -> pa.Table:
    return pa.concat_tables([pq.ParquetFile(file).read() for file in sorted((day / "impressions").glob("*.parquet"))])


@pytest.mark.parametrize("name", NAMES)
def test_a_clean_drop_is_clean_at_any_cutoff(tmp_path: Path, name: str) -> None:
    shop = small(tmp_path, name, requests_per_day=20)
    for day, today in enumerate(shop.days[::2]):
        for table, sums in reckon(shop.drop, today).items():
            assert sums == dirt.Sums(sum(shop.rows_by_day[table][: 2 * day + 1]), 0, 0, {}), (today, table)


@pytest.mark.parametrize("name", NAMES)
def test_planted_faults_are_counted_as_expected(tmp_path: Path, name: str) -> None:
    shop = small(tmp_path, name, seed=2)
    expected = dirt.plant(shop.drop, seed=3)
    assert reckon(shop.drop, shop.days[-1]) == expected.tables
    for table, sums in expected.tables.items():
        assert sums.rows_in == shop.rows[table] + sum(p.added for p in expected.plantings if p.table == table)


def test_every_reason_is_planted_but_the_one_that_others_always_cover(tmp_path: Path) -> None:
    expected = dirt.plant(small(tmp_path, "news_feed").drop, 4)
    found = {reason for sums in expected.tables.values() for reason in sums.quarantined}
    assert found == set(dirt.REASONS) - {"future_timestamp"}


def test_planting_is_deterministic_and_faults_can_be_left_out(tmp_path: Path) -> None:
    drops = [small(tmp_path / str(run), "search").drop for run in range(3)]
    first, again, fewer = (dirt.plant(d, 4, without=w) for d, w in zip(drops, ((), (), ("nul_text",)), strict=True))
    assert first.tables == again.tables
    files = [[path.read_bytes() for path in sorted(drop.rglob("*.parquet"))] for drop in drops]
    assert files[0] == files[1]
    assert not fewer.of("nul_text")
    assert len(first.of("nul_text")) >= 6


def test_a_planted_correction_names_the_value_that_must_stand(tmp_path: Path) -> None:
    shop = small(tmp_path, "marketplace")
    rows = [p for p in dirt.plant(shop.drop, 4).of("conflict_later_day") if p.table == "impressions"]
    for planting in rows:
        assert planting.winner is not None
        found = impressions(shop.drop / f"day={shop.days[planting.day]}").to_pylist()
        [row] = [row for row in found if (row["request_id"], row["item_id"]) == planting.key]
        assert row[planting.winner[0]] == planting.winner[1]
    assert rows


def test_a_drop_too_young_to_hold_old_and_new_faults_is_refused(tmp_path: Path) -> None:
    search(tmp_path / "drop", days=5, requests_per_day=60)
    with pytest.raises(ValueError, match=re.escape("has 5 days; 6 are needed")):
        dirt.plant(tmp_path / "drop", 1)


@pytest.mark.parametrize("damage", [dirt.truncate_file, dirt.flip_byte])
def test_a_damaged_file_cannot_be_read(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    file = sorted(small(tmp_path, "search").drop.rglob("*.parquet"))[0]
    damage(file)
    with pytest.raises((pa.ArrowInvalid, OSError)):
        pq.ParquetFile(file).read()


def test_columns_can_be_dropped_renamed_and_retyped(tmp_path: Path) -> None:
    day = small(tmp_path, "search").drop / "day=2026-03-03"
    dirt.drop_column(day, "impressions", "user_id")
    dirt.rename_column(day, "impressions", "x_stars", "x_star")
    dirt.change_type(day, "impressions", "x_nights", pa.string())
    dirt.naive_timestamps(day, "impressions", "shown_at")
    schema = impressions(day).schema
    assert not {"user_id", "x_stars"} & set(schema.names)
    assert (schema.field("x_nights").type, schema.field("shown_at").type) == (pa.string(), pa.timestamp("us"))
    assert schema.field("x_star").type == pa.int32()


def test_invalid_text_cannot_be_decoded(tmp_path: Path) -> None:
    day = small(tmp_path, "news_feed").drop / "day=2026-03-03"
    dirt.invalid_utf8(day, "impressions", "item_id")
    column = impressions(day)["item_id"]
    with pytest.raises(pa.ArrowInvalid, match=re.escape("Invalid UTF8")):
        column.validate(full=True)


def test_a_day_can_lose_its_success_and_a_table_its_rows(tmp_path: Path) -> None:
    day = small(tmp_path, "search").drop / "day=2026-03-03"
    dirt.remove_success(day)
    dirt.empty_table(day, "impressions")
    assert not (day / "_SUCCESS").exists()
    assert impressions(day).num_rows == 0
    assert "x_stars" in impressions(day).column_names


@pytest.mark.parametrize("factor", [0.3, 1.5, 3.0])
def test_a_scaled_day_has_that_many_whole_requests(tmp_path: Path, factor: float) -> None:
    shop = small(tmp_path, "marketplace")
    day = shop.drop / "day=2026-03-03"
    before = len(set(impressions(day)["request_id"].to_pylist()))
    dirt.scale_day(day, factor)
    ids, slots = np.unique(impressions(day)["request_id"].to_pylist(), return_counts=True)
    assert len(ids) == pytest.approx(before * factor, abs=1)
    assert slots.max() <= shop.slots


def test_a_grown_day_has_no_new_faults(tmp_path: Path) -> None:
    shop = small(tmp_path, "search")
    dirt.scale_day(shop.drop / "day=2026-03-03", 3.0)
    sums = reckon(shop.drop, "2026-03-03")
    assert sum(table.duplicates + table.conflicts for table in sums.values()) == 0
    assert sums["impressions"].rows_in > 1.5 * sum(shop.rows_by_day["impressions"][:3])
