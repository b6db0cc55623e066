import dataclasses
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from core.core_builders import Killed, at, dying_at_put

from sameworld.records import Refused
from sameworld.store.artifacts import Store
from sameworld.store.promotions import Promotion, in_production, promote, promotions
from sameworld.store.times import time_text


def of_day(day: int, *, bundle: str = "", stage: str = "champion", said_at: int | None = None) -> Promotion:
    return Promotion(
        number=0,
        at=time_text(at(days=day if said_at is None else said_at, seconds=3600)),
        version=f"v{day}{bundle}",
        bundle=bundle or f"bundle{day}",
        bundle_fingerprint="f" * 64,
        cutoff=time_text(at(days=day)),
        previous=None,
        stage=stage,
        reason="better",
        run=f"run{day}",
        by="retrain",
    )


def a_store(root: Path, *days: int) -> Store:
    store = Store(str(root))
    for day in days:
        promote(store, of_day(day))
    return store


def test_promotions_are_numbered_from_one_and_name_what_they_replaced(tmp_path: Path) -> None:
    found = promotions(a_store(tmp_path, 1, 2, 5))
    assert [(one.number, one.version, one.previous) for one in found] == [
        (1, "v1", None),
        (2, "v2", "v1"),
        (3, "v5", "v2"),
    ]


def test_a_record_says_from_and_to(tmp_path: Path) -> None:
    found = promotions(a_store(tmp_path, 1, 2))[1]
    record = found.as_record()
    assert (record["from"], record["to"], record["number"]) == ("v1", "champion", 2)
    assert Promotion.from_record(record) == found


@pytest.mark.parametrize("day", [1, 4])
def test_fault_35_a_cutoff_that_is_not_newer_is_refused_and_the_holder_stays(tmp_path: Path, day: int) -> None:
    store = a_store(tmp_path, 4)
    with pytest.raises(Refused, match=re.escape("a promotion moves forward in cutoff only (champion)")) as caught:
        promote(store, of_day(day, bundle="another"))
    assert caught.value.wanted == "a cutoff after 2026-03-05T00:00:00Z (v4)"
    assert [one.version for one in promotions(store)] == ["v4"]


def test_cutoffs_are_compared_as_times_and_not_as_text(tmp_path: Path) -> None:
    store = a_store(tmp_path, 1)
    earlier = dataclasses.replace(of_day(1, bundle="b"), cutoff="2026-03-02T00:30:00+01:00")
    with pytest.raises(Refused, match=re.escape("moves forward in cutoff only")):
        promote(store, earlier)
    later = dataclasses.replace(of_day(1, bundle="b"), cutoff="2026-03-01T23:30:00-01:00")
    assert promote(store, later).number == 2


def test_fault_41_a_promotion_that_is_replayed_is_one_record(tmp_path: Path) -> None:
    store = a_store(tmp_path, 1)
    for again in (of_day(1), of_day(1, said_at=9)):
        assert promote(store, again) == promotions(store)[0]
    assert len(promotions(store)) == 1


def test_fault_41_a_replay_after_a_newer_promotion_changes_nothing(tmp_path: Path) -> None:
    store = a_store(tmp_path, 1, 2)
    with pytest.raises(Refused, match=re.escape("moves forward in cutoff only")):
        promote(store, of_day(1))
    assert [one.version for one in promotions(store)] == ["v1", "v2"]


def test_champion_and_challenger_move_apart(tmp_path: Path) -> None:
    store = a_store(tmp_path, 5)
    assert promote(store, of_day(2, stage="challenger")).previous is None
    assert promote(store, of_day(6)).previous == "v5"
    events = promotions(store)
    holders = [in_production(events, stage=stage) for stage in ("champion", "challenger", "other")]
    assert [one.version if one else None for one in holders] == ["v6", "v2", None]


def test_what_was_in_production_at_a_time_goes_by_the_records_own_clock(tmp_path: Path) -> None:
    events = promotions(a_store(tmp_path, 1, 3))
    moments = [
        at(days=1),
        at(days=1, seconds=3600, microseconds=-1),
        at(days=1, seconds=3600),
        at(days=3, seconds=3599),
    ]
    held = [in_production(events, stage="champion", at=moment) for moment in (*moments, at(days=3, seconds=3600))]
    assert [one.version if one else None for one in held] == [None, None, "v1", "v1", "v3"]


def test_the_number_and_not_the_clock_says_what_came_last(tmp_path: Path) -> None:
    store = a_store(tmp_path, 1)
    promote(store, of_day(2, said_at=0))
    assert getattr(in_production(promotions(store), stage="champion"), "version", None) == "v2"
    assert getattr(in_production(promotions(store), stage="champion", at=at(days=9)), "version", None) == "v2"


def test_history_is_in_the_order_of_the_numbers_beyond_six_digits(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for number in (999_999, 1_000_000):
        record = dataclasses.replace(of_day(number - 999_998), number=number).as_record()
        store.blobs.put(
            f"promotions/{number:06d}.json", repr(record).replace("'", '"').replace("None", "null").encode()
        )
    assert [one.number for one in promotions(store)] == [999_999, 1_000_000]
    assert promote(store, of_day(5)).number == 1_000_001


def test_fault_34_racing_promoters_get_exactly_one_next_number_each(tmp_path: Path) -> None:
    for number in range(25):
        store, start = Store(str(tmp_path / str(number))), Barrier(8)
        with ThreadPoolExecutor(8) as pool:
            won = [one for one in pool.map(lambda day, s=store, b=start: raced(s, b, day), range(8)) if one]
        found = promotions(store)
        assert [one.number for one in found] == list(range(1, len(won) + 1))
        assert {one.number for one in won} == {one.number for one in found}
        assert [one.cutoff for one in found] == sorted({one.cutoff for one in found})
        assert [one.previous for one in found] == [None, *(one.version for one in found[:-1])]
        assert found[-1].version == "v7"


def raced(store: Store, start: Barrier, day: int) -> Promotion | None:
    start.wait()
    try:
        return promote(store, of_day(day))
    except Refused:
        return None


def test_fault_34_racing_promoters_of_one_bundle_write_one_record(tmp_path: Path) -> None:
    store, start = Store(str(tmp_path)), Barrier(8)
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda _: raced(store, start, 1), range(8)))
    assert won == promotions(store) * 8


@pytest.mark.parametrize("landed", [False, True])
def test_fault_26_a_promotion_that_landed_but_raised_is_recognised(tmp_path: Path, landed: bool) -> None:
    store = a_store(tmp_path, 1)
    with dying_at_put(1, landed=landed), pytest.raises(Killed):
        promote(store, of_day(2))
    assert promote(store, of_day(2)).number == 2
    assert [one.version for one in promotions(store)] == ["v1", "v2"]


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff"])
def test_a_promotion_that_was_damaged_is_refused_and_nothing_promoted_over_it(tmp_path: Path, content: bytes) -> None:
    store = a_store(tmp_path, 1)
    (tmp_path / "promotions" / "000001.json").write_bytes(content)
    with pytest.raises(Refused, match=re.escape(f"got {tmp_path}/promotions/000001.json")):
        promote(store, of_day(2))
    assert store.blobs.keys("promotions") == ["promotions/000001.json"]
