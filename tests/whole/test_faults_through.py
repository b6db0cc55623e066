"""What goes wrong with a drop or a root, as one who runs a day meets it: typed, named, and nothing half written."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from whole.report_contract import faults
from whole.small_days import Tree, content, copied, days_of, fresh, loop_drop, loop_tree, made_by, run
from worlds.damage import (
    change_type,
    drop_column,
    empty_table,
    flip_byte,
    naive_timestamps,
    remove_success,
    rename_column,
    scale_day,
    truncate_file,
)

from sameworld.records import NotYet, Refused
from sameworld.spec import Spec
from sameworld.store.artifacts import Store
from sameworld.store.parts import labels_of
from tasks.flow import perform
from tasks.report import Written
from tasks.run import run_day

DAYS = 6
CHECKED = "validate.check_log"


def clean() -> Path:
    return loop_drop(seed=3, days=DAYS, requests_per_day=60)


def tree(drop: Path) -> Tree:
    return {**loop_tree(drop, target="click", window_days=1), "backtest": {"days": 1}}


def spoiled(spoil: Callable[[Path], None], day: int = 2) -> Path:
    """A copy of the clean drop, one day of which is spoiled."""
    drop = copied(clean())
    spoil(drop / f"day={days_of(drop)[day]}")
    return drop


def last_day(drop: Path, root: Path | None = None, *, only: str | None = None) -> Written:
    return run(root or fresh("root"), tree(drop), days_of(drop)[-1], only=only)


def first_file(day: Path, table: str = "impressions") -> Path:
    return sorted((day / table).glob("*.parquet"))[0]


def blocked(drop: Path) -> str:
    """Run to the block, and return what the report says: on hold, for that reason, no section made up."""
    written = last_day(drop)
    assert written.blocked
    assert faults(written.report) == []
    assert written.report["decision"]["outcome"] == "HOLD"
    assert "not reached" in written.report["metrics"]["cannot"]
    return " ".join(written.report["decision"]["reasons"])


def findings(written: Written) -> list[tuple[str, str]]:
    return [(one["level"], one["sentence"]) for gate in written.report["gates"] for one in gate["findings"]]


def test_fault_01_a_day_that_is_not_there_yet_is_waited_for_and_nothing_is_written() -> None:
    drop, root = spoiled(remove_success), fresh("root")
    with pytest.raises(NotYet, match=re.escape(f"day {days_of(drop)[2]} of the drop is not there yet")) as raised:
        last_day(drop, root)
    assert raised.value.exit_code == 3
    assert [path for path in root.rglob("*") if path.is_file()] == []


def test_fault_01_days_before_the_missing_one_still_run() -> None:
    drop = spoiled(remove_success, day=DAYS - 1)
    assert not run(fresh("root"), tree(drop), days_of(drop)[-2], only=CHECKED).blocked


@pytest.mark.parametrize("spoil", [truncate_file, flip_byte])
def test_fault_02_a_broken_file_blocks_the_day_by_its_name(spoil: Callable[[Path], None]) -> None:
    drop = spoiled(lambda day: spoil(first_file(day)))
    assert f"day={days_of(drop)[2]}/impressions/" in blocked(drop)


def test_fault_03_an_odd_volume_warns_where_too_few_like_weekdays_are_known() -> None:
    written = last_day(spoiled(lambda day: scale_day(day, 3.0), day=DAYS - 1), only=CHECKED)
    assert not written.blocked
    assert any(level == "WARN" and "landed" in sentence for level, sentence in findings(written))


def test_fault_03_a_day_of_impressions_without_requests_is_blocked_by_name() -> None:
    found = blocked(spoiled(lambda day: empty_table(day, "requests"), day=DAYS - 1))
    assert "orphan" in found
    assert "impressions" in found


def test_fault_03_an_odd_volume_blocks_where_four_like_weekdays_are_known() -> None:
    drop, root = copied(loop_drop(seed=3, days=30, requests_per_day=60)), fresh("root")
    last, whole = drop / f"day={days_of(drop)[-1]}", fresh("last") / "day"
    shutil.copytree(last, whole)
    for factor in (0.3, 3.0):
        shutil.rmtree(last)
        shutil.copytree(whole, last)
        scale_day(last, factor)
        spec, store = Spec.parse(tree(drop)), Store(str(root))
        written = run_day(store, spec, days_of(drop)[-1], only=CHECKED, redeliver=factor > 1)
        assert written.blocked
        assert any("BLOCK landed" in reason for reason in written.report["decision"]["reasons"])
        assert faults(written.report) == []


def test_fault_04_a_missing_column_is_named() -> None:
    found = blocked(spoiled(lambda day: drop_column(day, "impressions", "position")))
    assert "position" in found
    assert "impressions" in found


def test_fault_04_a_renamed_column_is_refused_with_both_names() -> None:
    found = blocked(spoiled(lambda day: rename_column(day, "outcomes", "happened_at", "happend_at")))
    assert "happened_at" in found
    assert "happend_at" in found


def test_fault_05_an_unknown_column_is_a_line_in_the_report() -> None:
    def add(day: Path) -> None:
        file = first_file(day)
        rows = pq.ParquetFile(file).read()
        pq.write_table(rows.append_column("shelf", pa.nulls(len(rows), pa.string())), file)

    written = last_day(spoiled(add), only=CHECKED)
    assert any(level == "WARN" and "shelf" in sentence for level, sentence in findings(written))


def test_fault_06_a_changed_type_is_named_and_never_cast() -> None:
    found = blocked(spoiled(lambda day: change_type(day, "impressions", "position", pa.string())))
    assert "position" in found
    assert "string" in found.lower()


def test_fault_11_an_outcome_before_its_impression_is_joined_once_that_arrives() -> None:
    """The impressions of one request land a day after its clicks, which wait, or wait too long, until then."""
    moved, drop = delayed_impressions()
    for day, there in zip(days_of(drop)[2:4], (False, True), strict=True):
        root = fresh("root")
        written = run(root, tree(drop), day, only="label")
        log = written.report["log"]["outcomes"]
        assert log["kept"] + log["quarantined"].get("orphan", 0) == log["rows_in"]
        assert not (there and log["quarantined"])
        labels = labels_of(made_by(root, written, "label"), Store(str(root))).collect()
        rows = labels.filter(pl.col("request_id") == moved["request_id"][0])
        assert (len(rows), rows["target"].sum() > 0) == (len(moved) * there, there)


def delayed_impressions() -> tuple[pl.DataFrame, Path]:
    """Move one clicked request's impressions from the third day, late in it, to the fourth day's first minutes."""
    drop = copied(clean())
    today, tomorrow = (first_file(drop / f"day={day}") for day in days_of(drop)[2:4])
    clicks = pl.read_parquet(first_file(drop / f"day={days_of(drop)[2]}", "outcomes")).filter(kind="click")
    rows = pl.read_parquet(today)
    clicked = rows.join(clicks.select("request_id", "item_id"), on=["request_id", "item_id"], how="semi")
    request = clicked.sort("shown_at")["request_id"][-1]
    start = pl.read_parquet(tomorrow)["arrived_at"].dt.truncate("1d").min()
    at = pl.lit(start).cast(rows.schema["arrived_at"])
    moved = rows.filter(pl.col("request_id") == request).with_columns(arrived_at=at)
    rows.filter(pl.col("request_id") != request).write_parquet(today)
    pl.concat([pl.read_parquet(tomorrow), moved]).write_parquet(tomorrow)
    return moved, drop


def test_fault_13_a_log_of_one_class_is_refused_in_words() -> None:
    drop = copied(clean())
    for day in drop.glob("day=*"):
        for file in (day / "outcomes").glob("*.parquet"):
            rows = pl.read_parquet(file)
            rows.filter(pl.col("kind") != "click").write_parquet(file)
    written = last_day(drop)
    assert faults(written.report) == []
    assert written.report["decision"]["outcome"] == "HOLD"
    assert "click" in " ".join(written.report["decision"]["reasons"])


def test_fault_17_a_row_that_arrived_at_the_days_end_belongs_to_the_next_day() -> None:
    def late(day: Path) -> None:
        file = first_file(day)
        rows = pl.read_parquet(file).sort("arrived_at", descending=True)
        end = rows["arrived_at"].dt.truncate("1d").dt.offset_by("1d")
        at = pl.when(pl.int_range(pl.len()) == 0).then(end).otherwise("arrived_at")
        rows.with_columns(arrived_at=at).write_parquet(file)

    written = last_day(spoiled(late), only=CHECKED)
    assert written.report["log"]["impressions"]["quarantined"]["arrived_outside_day"] == 1


def test_fault_19_a_naive_timestamp_is_refused_with_the_remedy() -> None:
    drop, root = spoiled(lambda day: naive_timestamps(day, "impressions", "shown_at")), fresh("root")
    with pytest.raises(Refused, match=re.escape("column 'shown_at' has timestamps without a zone")) as raised:
        last_day(drop, root)
    assert raised.value.exit_code == 2
    assert raised.value.remedy == "write them with tz=UTC"
    taken_in = [path.parent.name for path in sorted((root / "log").rglob("*.json"))]
    assert taken_in == [f"day={day}" for day in days_of(drop)[:2]]


def test_fault_44_a_cutoff_without_a_zone_is_refused_in_words() -> None:
    spec, store = Spec.parse(tree(clean())), Store(str(fresh("root")))
    with pytest.raises(Refused, match=re.escape("a time without a zone: got '2026-03-05T00:00:00'; wanted UTC")):
        perform("ingest", store=store, spec=spec, cutoff="2026-03-05T00:00:00")


class Trap:
    """Says so when it is unpickled."""

    sprung = Path()

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Trap.sprung,))  # type: ignore[return-value]


def test_fault_55_a_pickle_in_a_bundle_is_refused_unread(tmp_path: Path) -> None:
    root, Trap.sprung = fresh("root"), tmp_path / "sprung"
    written = last_day(clean(), root)
    bundle = Path(made_by(root, written, "backtest.calibrate").uri)
    with (bundle / "items.npz").open("wb") as stream:
        np.savez(stream, ids=np.array([Trap()], dtype=object), rate=np.zeros(1), prior=np.zeros(1))
    with pytest.raises(Refused, match=re.escape("items.npz")):
        last_day(clean(), root)
    assert not Trap.sprung.exists()


def test_a_blocked_day_leaves_the_days_before_it_as_they_were() -> None:
    drop, root = spoiled(lambda day: truncate_file(first_file(day)), day=DAYS - 1), fresh("root")
    run(root, tree(drop), days_of(drop)[-2])
    before = content(root)
    assert last_day(drop, root).blocked
    after = content(root)
    assert {name: after.get(name) for name in before} == before


def test_a_blocked_report_still_names_the_steps_that_were_reached() -> None:
    written = last_day(spoiled(lambda day: truncate_file(first_file(day))))
    assert written.report["steps"] == []
    assert written.report["run"]["day"] == str(days_of(clean())[-1])
