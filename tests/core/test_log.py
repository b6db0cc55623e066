import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from core.core_builders import FIRST, Killed, a_log, a_record, a_spec, at, dying_at_put, published

from sameworld.records import Refused
from sameworld.store.artifacts import Store
from sameworld.store.log import Delivery, Log, deliveries, delivery_seen, record_delivery
from sameworld.store.runs import read_report, run_name, run_names, write_page
from sameworld.store.times import day_end, day_start, parse_day, parse_time, time_text


def a_delivery(
    number: int = 1, *, day: date = FIRST, files: Any = ("aa",), seen_from: datetime | None = None
) -> Delivery:
    return Delivery(day, number, {"outcomes": files}, f"{number:064d}", seen_from)


# --- deliveries


def test_a_delivery_is_read_as_it_was_written(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for one in (a_delivery(files=["aa", "bb"]), a_delivery(2, files=["cc"], seen_from=at(5, microseconds=7))):
        assert record_delivery(store, one) == one
        assert deliveries(store)[FIRST][-1] == one


def test_deliveries_come_by_day_and_number_whatever_the_order_they_were_written_in(tmp_path: Path) -> None:
    store, days = Store(str(tmp_path)), [FIRST + timedelta(days=n) for n in (3, 0, 31)]
    for day in days:
        for number in (2, 1, 11):
            record_delivery(store, a_delivery(number, day=day))
    assert list(deliveries(store)) == sorted(days)
    assert [one.number for one in deliveries(store)[days[0]]] == [1, 2, 11]


def test_a_root_without_a_log_has_no_deliveries(tmp_path: Path) -> None:
    assert deliveries(Store(str(tmp_path))) == {}


def test_fault_23_a_cutoff_sees_the_newest_delivery_that_it_may_see() -> None:
    found = [a_delivery(1), a_delivery(2, seen_from=at(10)), a_delivery(3, seen_from=at(20))]
    moments = [at(0), at(10, microseconds=-1), at(10), at(19), at(20), at(days=9)]
    assert [delivery_seen(found, moment).number for moment in moments] == [1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("files", [["aa"], ("aa",)])
def test_fault_31_a_delivery_that_another_run_recorded_stands_if_it_says_the_same(tmp_path: Path, files: Any) -> None:
    store, theirs = Store(str(tmp_path)), Delivery(FIRST, 1, {"outcomes": ["aa"]}, "f" * 64, None)
    record_delivery(store, theirs)
    assert record_delivery(store, a_delivery(files=files)) == theirs


def test_fault_31_a_delivery_of_other_files_under_one_number_is_refused(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    record_delivery(store, a_delivery(files=["aa"]))
    with pytest.raises(Refused, match=re.escape("another run took in 2026-03-01 with other files. run again")):
        record_delivery(store, a_delivery(files=["bb"]))


def test_fault_26_a_delivery_that_landed_but_raised_is_recognised(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with dying_at_put(1, landed=True), pytest.raises(Killed):
        record_delivery(store, a_delivery(files=["aa"]))
    assert record_delivery(store, a_delivery(files=["aa"])) == a_delivery(files=["aa"])


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff", b'{"day": 3}'])
def test_a_damaged_delivery_is_refused_by_its_key(tmp_path: Path, content: bytes) -> None:
    Store(str(tmp_path)).blobs.put("log/day=2026-03-01/000001.json", content)
    with pytest.raises(Refused, match=re.escape(f"got {tmp_path}/log/day=2026-03-01/000001.json")):
        deliveries(Store(str(tmp_path)))


# --- the log as of a cutoff


def numbers(*values: Any, **more: Any) -> pl.DataFrame:
    return pl.DataFrame({"n": list(values), **more})


def test_a_table_is_the_days_rows_in_order_with_the_day_they_arrived(tmp_path: Path) -> None:
    log = a_log(tmp_path, {"requests": numbers(3, 1)}, {"other": numbers(9)}, {"requests": numbers(2)})
    rows = log.table("requests").collect().rows()
    assert rows == [(3, FIRST), (1, FIRST), (2, FIRST + timedelta(days=2))]


def test_rows_that_no_longer_stand_are_left_out_of_their_own_table_and_day(tmp_path: Path) -> None:
    days = [{"requests": numbers(0, 1, 2), "impressions": numbers(0, 1, 2)}, {"requests": numbers(10, 11, 12)}]
    gone = [(FIRST, "requests", 1, "duplicate"), (FIRST + timedelta(days=1), "requests", 0, "conflict")]
    gone += [(FIRST, "impressions", 2, "orphan")]
    log = a_log(tmp_path, *days, gone=gone)
    assert log.table("requests").collect()["n"].to_list() == [0, 2, 11, 12]
    assert log.table("impressions").collect()["n"].to_list() == [0, 1]


def test_an_outcome_that_lost_a_conflict_stays_and_its_null_value_is_one(tmp_path: Path) -> None:
    gone = [(FIRST, "outcomes", 0, "conflict"), (FIRST, "outcomes", 1, "duplicate")]
    log = a_log(tmp_path, {"outcomes": numbers(0, 1, 2, value=[None, 4.0, 0.0])}, gone=gone)
    assert log.table("outcomes").select("n", "value").collect().rows() == [(0, 1.0), (2, 0.0)]


def test_arrival_days_include_both_ends(tmp_path: Path) -> None:
    log = a_log(tmp_path, *({"requests": numbers(n)} for n in range(4)))
    days = (FIRST + timedelta(days=1), FIRST + timedelta(days=2))
    assert log.table("requests", arrival_days=days).collect()["n"].to_list() == [1, 2]


def test_columns_may_come_and_whole_numbers_may_become_fractions(tmp_path: Path) -> None:
    log = a_log(tmp_path, {"requests": numbers(1)}, {"requests": numbers(0.5, x_new=["a"])})
    rows = log.table("requests").select("n", "x_new").collect()
    assert rows.rows() == [(1.0, None), (0.5, "a")]
    assert rows.schema["n"] == pl.Float64


def test_a_log_knows_its_tables_and_its_views(tmp_path: Path) -> None:
    log = a_log(tmp_path, {"requests": numbers(1), "features.b": numbers(1)}, {"features.a": numbers(1)})
    assert (log.has("requests"), log.has("outcomes"), log.views()) == (True, False, ("a", "b"))


def test_a_table_that_no_day_delivered_is_refused(tmp_path: Path) -> None:
    log = a_log(tmp_path, {"requests": numbers(1)})
    with pytest.raises(Refused, match=re.escape("the log has no table 'candidates': wanted at least one day with it")):
        log.table("candidates")


def test_a_log_whose_day_is_gone_is_refused_by_the_day(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    record = {"days": [{"day": "2026-03-01", "fingerprint": "0" * 64}]}
    with pytest.raises(Refused, match=re.escape("the log's day 2026-03-01 is gone. run the day again")):
        Log.open(published(store, "resolve", record, {}), store)


# --- runs


def test_a_run_is_named_by_its_day_its_spec_and_the_log_that_it_read(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    log, other = (store.open(a_record(store, "resolve", {"n": n})) for n in (1, 2))
    names = {
        run_name(at(days=1), spec, one) for spec in (a_spec(), a_spec(train={"seed": 2})) for one in (log, other, None)
    }
    assert len(names) == 6
    assert all(re.fullmatch(r"2026-03-01-[0-9a-f]{10}", name) for name in names)


def test_runs_with_a_report_are_listed_by_day_and_pages_may_be_written_again(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for run in ("2026-03-02-b", "2026-03-01-a"):
        assert write_page(store, run, "report.json", b'{"n": 1}') == f"{store.root}/runs/{run}/report.json"
    write_page(store, "2026-03-03-c", "report.html", b"")
    write_page(store, "2026-03-01-a", "report.json", b'{"n": 2}')
    assert run_names(store) == ["2026-03-01-a", "2026-03-02-b"]
    assert read_report(store, "2026-03-01-a") == {"n": 2}


def test_a_run_that_there_is_not_is_refused_with_the_newest_five(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with pytest.raises(Refused, match=re.escape("no such run: got 'x'; wanted a run; there is none yet")):
        read_report(store, "x")
    for number in range(1, 8):
        write_page(store, f"2026-03-0{number}-a", "report.json", b"{}")
    with pytest.raises(Refused, match=re.escape("wanted 2026-03-03-a, 2026-03-04-a")):
        read_report(store, "x")


@pytest.mark.parametrize("run", ["../x", "a/../../x", "%2e%2e", "a\\b", "a\0"])
def test_fault_53_a_run_outside_the_runs_is_refused(tmp_path: Path, run: str) -> None:
    for call in (lambda store: read_report(store, run), lambda store: write_page(store, run, "report.html", b"")):
        with pytest.raises(Refused, match=re.escape("a key leaves its root")):
            call(Store(str(tmp_path)))


# --- times


def test_a_time_survives_its_text_to_the_microsecond() -> None:
    for moment in (at(0), at(1, microseconds=1), datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)):
        assert parse_time(time_text(moment)) == moment
    assert time_text(parse_time("2026-03-01T01:00:00+01:00")) == "2026-03-01T00:00:00Z"


def test_fault_19_a_time_without_a_zone_is_refused_with_one_that_can_be_read() -> None:
    for text in ("2026-03-01T00:00:00", "2026-03-01", "20260301T000000"):
        with pytest.raises(Refused, match=re.escape(f"a time without a zone: got {text!r}; wanted UTC")) as caught:
            parse_time(text)
        assert parse_time(caught.value.remedy.removeprefix("write ")) == at(0)


@pytest.mark.parametrize("text", ["", "yesterday", "2026-02-30T00:00:00Z", "0001-01-01T00:00:00+14:00", "1772323200"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(Refused, match=re.escape(f"not a time: got {text!r}")):
        parse_time(text)


@pytest.mark.parametrize(
    "text", ["", "2026-3-1", "20260301", "2026-W09-7", "2026-02-30", "2026-03-01T00:00", "9999-12-31"]
)
def test_what_is_no_day_is_refused(text: str) -> None:
    with pytest.raises(Refused, match=re.escape(f"not a day: got {text!r}; wanted YYYY-MM-DD")):
        parse_day(text)


def test_fault_19_a_day_has_24_hours_even_when_clocks_change() -> None:
    for text in ("2026-03-29", "2026-10-25", "2024-02-29", "2026-12-31"):
        assert day_end(parse_day(text)) - day_start(parse_day(text)) == timedelta(hours=24)
