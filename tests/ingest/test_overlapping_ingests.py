"""Two runs take days in at the same time, each at any moment of the other; and a day that lands three days late."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from core.core_builders import TESTS
from ingest.tiny_drops import at, change_price, impression, outcome, resolved, store_beside, take_in, write_day

from sameworld.records import NotYet, Refused
from sameworld.store.artifacts import Artifact
from sameworld.store.blobs import FolderBlobs
from sameworld.store.log import deliveries

OF_ONE_DAY = 7  # puts of an ingest: the source's claim, a day's four files and manifest, its delivery
PUTS = 13  # of two days, which are taken in at once
TAKE_IN = """
import sys; sys.path.insert(0, sys.argv[1])
from pathlib import Path
from ingest.tiny_drops import take_in
print("ready", flush=True); sys.stdin.readline()
print(" ".join(one.uri for one in take_in(Path(sys.argv[2]), int(sys.argv[3]))))
"""


def days(drop: Path, *numbers: int) -> Path:
    for day in numbers:
        rows = [impression(f"i{day}", day, shown_at=at(day, 10), arrived_at=at(day, 11))]
        write_day(drop, day, impressions=rows, outcomes=[outcome(f"i{day}", arrived_at=at(day, 13))])
    return drop


def bytes_of(artifacts: list[Artifact]) -> dict[str, dict[str, bytes]]:
    return {one.fingerprint: {name: one.path(name).read_bytes() for name in one.files} for one in artifacts}


def numbers(drop: Path) -> list[list[int]]:
    return [[one.number for one in of_day] for of_day in deliveries(store_beside(drop)).values()]


@contextmanager
def interrupted(number: int, other: Callable[[], Any]) -> Iterator[list[str]]:
    """Let ``other`` happen before the n-th put; yields the keys that were put by then and after, by whomever."""
    asked: list[str] = []
    real = FolderBlobs.put_if_absent

    def put(self: FolderBlobs, key: str, content: bytes | Path) -> bool:
        asked.append(key)
        if len(asked) == number:
            other()
        return real(self, key, content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FolderBlobs, "put_if_absent", put)
        yield asked


@pytest.mark.parametrize(("last", "puts"), [(1, OF_ONE_DAY), (2, PUTS)])
def test_an_ingest_has_as_many_puts_as_it_is_interrupted_at(tmp_path: Path, last: int, puts: int) -> None:
    with interrupted(0, pytest.fail) as asked:
        take_in(days(tmp_path / "drop", 1, 2), last)
    assert len(asked) == puts, asked


@pytest.mark.parametrize("number", range(1, PUTS + 1))
def test_fault_31_an_ingest_of_the_same_days_in_the_midst_of_another_takes_nothing_in_twice(
    tmp_path: Path, number: int
) -> None:
    alone, drop = take_in(days(tmp_path / "a" / "drop", 1, 2), 2), days(tmp_path / "b" / "drop", 1, 2)
    inner: list[list[Artifact]] = []
    with interrupted(number, lambda: inner.append(take_in(drop, 2))):
        outer = take_in(drop, 2)
    assert [one.uri for one in outer] == [one.uri for one in inner[0]]
    assert bytes_of(outer) == bytes_of(alone)
    assert numbers(drop) == [[1], [1]]


@pytest.mark.parametrize("number", range(1, PUTS + 1))
def test_fault_31_ingests_of_different_days_in_the_midst_of_each_other_both_land(tmp_path: Path, number: int) -> None:
    alone, drop = take_in(days(tmp_path / "a" / "drop", 1, 2, 3), 3), days(tmp_path / "b" / "drop", 1, 2, 3)
    with interrupted(number, lambda: take_in(drop, 3)):
        take_in(drop, 2)
    assert bytes_of(take_in(drop, 3)) == bytes_of(alone)
    assert numbers(drop) == [[1], [1], [1]]


@pytest.mark.parametrize("number", range(2, OF_ONE_DAY + 1))
def test_fault_31_of_two_runs_that_read_other_files_of_a_day_one_wins_and_the_other_is_refused(
    tmp_path: Path, number: int
) -> None:
    drop, winner = days(tmp_path / "drop", 1), list[list[str]]()

    def correct_and_take_in() -> None:
        change_price(drop, 1)
        winner.append([one.uri for one in take_in(drop, 1)])

    words = re.escape("another run took in 2026-03-01 with other files. run again")
    with interrupted(number, correct_and_take_in), pytest.raises(Refused, match=words):
        take_in(drop, 1)
    assert [one.uri for one in take_in(drop, 1)] == winner[0]
    assert numbers(drop) == [[1]]


def test_fault_31_processes_that_start_together_take_each_day_in_once(tmp_path: Path) -> None:
    drop = days(tmp_path / "drop", 1, 2, 3)
    command = [sys.executable, "-c", TAKE_IN, str(TESTS), str(drop)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    running = [subprocess.Popen([*command, last], **pipes) for last in ("3", "2", "3")]
    assert [one.stdout.readline() for one in running] == ["ready\n"] * 3
    found = [one.communicate("go\n", timeout=60)[0].split() for one in running]
    assert [one.uri for one in take_in(drop, 3)] == found[0] == found[2]
    assert found[1] == found[0][:2]
    assert numbers(drop) == [[1], [1], [1]]


def test_fault_20_a_day_that_lands_three_days_late_changes_no_byte_of_older_cutoffs(tmp_path: Path) -> None:
    drop = days(tmp_path / "drop", 1, 2, 4, 5, 6)
    before = bytes_of([resolved(drop, 2), *take_in(drop, 2)])
    for waiting in (3, 4, 5, 6):
        with pytest.raises(NotYet, match=re.escape("day 2026-03-03 of the drop is not there yet")):
            take_in(drop, waiting)
    late = impression("i1", 1, x_price=9.0, shown_at=at(1, 10), arrived_at=at(3, 23))
    write_day(drop, 3, impressions=[late], outcomes=[outcome("i2", happened_at=at(2, 12), arrived_at=at(3, 12))])
    assert len(take_in(drop, 6)) == 6
    assert bytes_of([resolved(drop, 2), *take_in(drop, 2)]) == before
    shutil.rmtree(tmp_path / "root")
    assert bytes_of([resolved(drop, 2), *take_in(drop, 2)]) == before
