import random
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from core.core_builders import UTC_US, a_frame, a_log, at

from sameworld.records import Refused
from sameworld.store.log import Log
from sameworld.store.outcomes import impressions_shown, outcomes_in_window, segment_expression, with_segments

SHOWN = {"request_id": pl.String, "item_id": pl.String, "shown_at": UTC_US}
EVENTS = {
    "request_id": pl.String,
    "item_id": pl.String,
    "kind": pl.String,
    "value": pl.Float64,
    "happened_at": UTC_US,
    "arrived_at": UTC_US,
    "retracted": pl.Boolean,
}
WINDOW, SKEW, CUTOFF = timedelta(seconds=100), timedelta(seconds=5), at(days=5)
Event = tuple[str, str, str, float, datetime, datetime, bool | None]


def an_event(happened: datetime, arrived: datetime, *, kind: str = "click", retracted: bool | None = None) -> Event:
    return ("r", "i", kind, 1.0, happened, arrived, retracted)


def found(root: Path, *days: list[Event], cutoff: datetime = CUTOFF, shown: datetime | None = None) -> pl.DataFrame:
    log = a_log(root, *({"outcomes": a_frame(EVENTS, *rows)} for rows in days))
    frame = a_frame(SHOWN, ("r", "i", shown or at(1000)))
    return outcomes_in_window(log, shown=frame.lazy(), window=WINDOW, skew=SKEW, cutoff=cutoff).collect()


def test_a_window_is_half_open_and_the_clocks_may_differ_by_the_skew(tmp_path: Path) -> None:
    moments = [at(994, microseconds=999_999), at(995), at(1000), at(1099, microseconds=999_999), at(1100)]
    events = [an_event(moment, at(2000)) for moment in moments]
    assert found(tmp_path, events)["happened_at"].to_list() == moments[1:4]


def test_fault_17_what_arrived_exactly_at_the_cutoff_is_not_known(tmp_path: Path) -> None:
    events = [an_event(at(1001), at(1999, microseconds=999_999)), an_event(at(1002), at(2000))]
    assert found(tmp_path, events, cutoff=at(2000))["happened_at"].to_list() == [at(1001)]


def test_each_event_is_one_row_known_since_its_first_arrival(tmp_path: Path) -> None:
    first, again = an_event(at(1001), at(1500)), an_event(at(1001), at(1400))
    other, later = an_event(at(1001), at(1600), kind="purchase"), an_event(at(1002), at(1700))
    rows = found(tmp_path, [first, again], [other, later])
    assert rows.select("kind", "happened_at", "arrived_at", "retracted_at").rows() == [
        ("click", at(1001), at(1400), None),
        ("click", at(1002), at(1700), None),
        ("purchase", at(1001), at(1600), None),
    ]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)])
def test_fault_15_a_retraction_first_or_twice_or_later_is_one_since_its_first(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    event, taken_back = an_event(at(1001), at(1500)), an_event(at(1001), at(1400), retracted=True)
    twice = an_event(at(1001), at(1900), retracted=True)
    days = [[(event, taken_back, twice)[number]] for number in order]
    assert found(tmp_path, *days).select("arrived_at", "retracted_at").rows() == [(at(1500), at(1400))]


def test_a_retraction_is_known_from_its_own_arrival_on(tmp_path: Path) -> None:
    events = [an_event(at(1001), at(1500)), an_event(at(1001), at(1800), retracted=True)]
    known = [found(tmp_path / str(n), events, cutoff=at(n))["retracted_at"].to_list() for n in (1800, 1801)]
    assert known == [[None], [at(1800)]]


def test_a_retraction_of_what_never_came_is_no_event(tmp_path: Path) -> None:
    assert len(found(tmp_path, [an_event(at(1001), at(1500), retracted=True)])) == 0


def test_a_retraction_takes_back_its_own_kind_and_moment_only(tmp_path: Path) -> None:
    kept = [an_event(at(1001), at(1500)), an_event(at(1002), at(1500), kind="purchase")]
    others = [
        an_event(at(1001), at(1600), kind="purchase", retracted=True),
        an_event(at(1002), at(1600), retracted=True),
    ]
    assert found(tmp_path, [*kept, *others])["retracted_at"].to_list() == [None, None]


def test_a_log_that_never_retracts_needs_no_column_for_it(tmp_path: Path) -> None:
    frame = a_frame(EVENTS, an_event(at(1001), at(1500))).drop("retracted")
    rows = a_frame(SHOWN, ("r", "i", at(1000))).lazy()
    log = a_log(tmp_path, {"outcomes": frame})
    events = outcomes_in_window(log, shown=rows, window=WINDOW, skew=SKEW, cutoff=CUTOFF).collect()
    assert events["retracted_at"].to_list() == [None]


def oracle(shown: list[Any], events: list[Event], cutoff: datetime) -> list[Any]:
    """Go through every impression and every event, one by one."""
    rows = []
    for request, item, moment in shown:
        for kind, happened in sorted({(e[2], e[4]) for e in events if e[:2] == (request, item)}):
            same = [e for e in events if e[:3] == (request, item, kind) and e[4] == happened and e[5] < cutoff]
            came, gone = [e[5] for e in same if not e[6]], [e[5] for e in same if e[6]]
            if came and -SKEW <= happened - moment < WINDOW:
                rows.append((request, item, moment, kind, happened, min(came), min(gone, default=None)))
    return sorted(rows, key=lambda row: (row[2], row[0], row[1], row[3], row[4]))


@pytest.mark.parametrize("seed", range(12))
def test_random_outcomes_are_matched_as_going_through_all_of_them_does(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    shown = [(f"r{n // 3}", f"i{n % 3}", at(draw.choice([0, 50, 60]))) for n in range(9)]
    events: list[Event] = [
        (f"r{draw.randrange(4)}", f"i{draw.randrange(3)}", draw.choice(["click", "buy"]), 1.0,
         at(draw.choice([-5, -5.000001, 0, 45, 99.999999, 100, 160])), at(draw.randrange(200, 230)),
         draw.choice([None, False, False, True]))
        for _ in range(150)
    ]  # fmt: skip
    log = a_log(tmp_path, *({"outcomes": a_frame(EVENTS, *events[part::3])} for part in range(3)))
    for cutoff in (at(200), at(215), at(230)):
        got = outcomes_in_window(log, shown=a_frame(SHOWN, *shown).lazy(), window=WINDOW, skew=SKEW, cutoff=cutoff)
        assert got.collect().rows() == oracle(shown, events, cutoff)


# --- impressions and their segments


IMPRESSIONS = {**SHOWN, "arrived_at": UTC_US, "x_place": pl.String, "x_age": pl.Int64}


def a_shown_log(root: Path, *rows: tuple[Any, ...]) -> Log:
    return a_log(root, {"impressions": a_frame(IMPRESSIONS, *rows)})


def test_impressions_are_those_shown_and_arrived_in_the_half_open_time(tmp_path: Path) -> None:
    moments = [(at(10), at(11)), (at(9, microseconds=999_999), at(11)), (at(15), at(20)), (at(20), at(20))]
    log = a_shown_log(tmp_path, *(("r", str(n), shown, arrived, "a", 1) for n, (shown, arrived) in enumerate(moments)))
    assert impressions_shown(log, since=at(10), before=at(20)).collect()["item_id"].to_list() == ["0"]
    assert impressions_shown(log, since=at(0), before=at(20.000001)).collect()["item_id"].to_list() == list("0123")


def test_a_segment_is_the_values_of_its_columns_and_null_is_one_of_them(tmp_path: Path) -> None:
    log = a_shown_log(tmp_path, ("r", "i", at(1), at(2), "home", 3), ("r", "j", at(1), at(2), None, None))
    frame = with_segments(log.table("impressions"), ["x_place", "x_age"]).collect()
    assert frame["segment"].to_list() == ["home | 3", "(null) | (null)"]
    assert frame.select(segment_expression([])).item() == "all"


def test_a_segment_that_is_no_column_is_refused(tmp_path: Path) -> None:
    log = a_shown_log(tmp_path, ("r", "i", at(1), at(2), "home", 3))
    with pytest.raises(Refused, match=re.escape("a segment is no column of the impressions: got x_surface")):
        with_segments(log.table("impressions"), ["x_place", "x_surface"])
