"""Looks across days are paid for by what is new: marks are kept, and in any order of days the verdicts are the same."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from ingest.test_log import a_muddle
from ingest.tiny_drops import at, end_of, impression, outcome, request, resolved, spec_of, sums, take_in, write_day

from sameworld.store.artifacts import Artifact, Store
from tasks import ingest, resolve


def in_a_new_root(drop: Path, day: int, root: Path) -> Artifact:
    store, spec = Store(str(root)), spec_of(drop)
    days = ingest.run(store=store, spec=spec, cutoff=end_of(day))
    return store.open(resolve.run(store=store, spec=spec, cutoff=end_of(day), days=days))


def bytes_of(artifact: Artifact) -> dict[str, bytes]:
    return {name: artifact.path(name).read_bytes() for name in artifact.files}


def made(drop: Path) -> set[str]:
    """The names of what the step has written below the root beside the drop."""
    return {folder.name for folder in (drop.parent / "root" / "artifacts" / "resolve").iterdir()}


def busy_days(drop: Path, days: Sequence[int]) -> Path:
    """Each day brings a request with two impressions and a click on one."""
    for day in days:
        times = {"shown_at": at(day, 10), "arrived_at": at(day, 11), "request_id": f"r{day}"}
        click = outcome(request_id=f"r{day}", happened_at=at(day, 12), arrived_at=at(day, 13))
        rows = [impression(**times), impression("b", 2, **times)]
        write_day(drop, day, requests=[request(f"r{day}") | times], impressions=rows, outcomes=[click])
    return drop


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 3, 1)])
def test_a_muddle_resolves_to_the_same_bytes_in_whatever_order_its_days_are_run(
    tmp_path: Path, order: Sequence[int]
) -> None:
    a_muddle(tmp_path / "drop", 4)
    for day in order:
        found = resolved(tmp_path / "drop", day)
        assert bytes_of(found) == bytes_of(in_a_new_root(tmp_path / "drop", day, tmp_path / f"root-{day}"))


def test_the_next_day_reads_no_file_of_a_day_with_which_it_has_nothing_to_settle(tmp_path: Path) -> None:
    drop = busy_days(tmp_path / "drop", (1, 2, 3))
    resolved(drop, 2)
    days = take_in(drop, 3)
    for file in [file for day in days[:2] for file in Path(day.uri).glob("*.parquet")]:
        file.unlink()
    store = Store(str(tmp_path / "root"))
    log = store.open(resolve.run(store=store, spec=spec_of(drop), cutoff=end_of(3), days=[day.uri for day in days]))
    assert log.record["tables"]["impressions"] == sums(6)


def test_the_next_day_makes_its_own_marks_and_copies_only_rows_that_are_newly_contested(tmp_path: Path) -> None:
    drop = busy_days(tmp_path / "drop", (1, 2, 3))
    for day in (2, 3):
        again = {"shown_at": at(day - 1, 10), "arrived_at": at(day, 1), "request_id": f"r{day - 1}"}
        write_day(drop, day, impressions=[impression(**again)])
    resolved(drop, 2)
    before = made(drop)
    resolved(drop, 3)
    assert len(made(drop) - before) == 4  # the log, day 3's marks, and rows of the days 2 and 3


def test_a_days_marks_do_not_depend_on_the_cutoff_that_first_asked_for_them(tmp_path: Path) -> None:
    drop = busy_days(tmp_path / "drop", (1, 2, 3))
    late, early = resolved(drop, 3).record["marks"], resolved(drop, 2).record["marks"]
    assert late[:2] == early


def test_a_view_that_gets_another_key_later_is_told_by_both(tmp_path: Path) -> None:
    first = {"item_id": "a", "available_at": at(1, 6), "ctr": "low"}
    write_day(tmp_path / "drop", 1, features__stats=[first])
    assert resolved(tmp_path / "drop", 1).record["tables"]["features.stats"] == sums(1)
    again = {"item_id": "a", "user_id": "u", "available_at": at(1, 6), "ctr": "low"}
    write_day(tmp_path / "drop", 2, features__stats=[again, again | {"user_id": None}])
    found = resolved(tmp_path / "drop", 2)
    shutil.rmtree(tmp_path / "root")
    assert bytes_of(resolved(tmp_path / "drop", 2)) == bytes_of(found)


def test_a_request_that_lost_every_row_leaves_its_impressions_of_any_day_alone(tmp_path: Path) -> None:
    times = {"shown_at": at(1, 10), "arrived_at": at(1, 11)}
    write_day(tmp_path / "drop", 1, requests=[request("r1") | times, request("r2") | times], impressions=[impression()])
    late = impression("b", 2, arrived_at=at(2, 1))
    clash = [request("r1", user_id=user, arrived_at=at(2, 2)) for user in ("u8", "u9")]
    write_day(tmp_path / "drop", 2, requests=clash, impressions=[late])
    tables = resolved(tmp_path / "drop", 2).record["tables"]
    assert tables["requests"] == sums(4, conflicts=1, conflict_same_arrival=2)
    assert tables["impressions"] == sums(2, orphan=2)
