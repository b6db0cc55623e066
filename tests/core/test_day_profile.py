"""Profiles of days add up to what one look at the whole log finds."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from core.core_builders import UTC_US, a_log, a_spec, at

from sameworld.store.artifacts import Artifact, Store
from sameworld.store.day_profile import StandingDay, daily_counts, kind_counts, request_counts
from sameworld.store.log import Log
from sameworld.store.times import day_end, time_text
from tasks.validate import profile_day

SETTLED = at(0, days=3)
Shown = tuple[str, str, int, datetime]


def shown(rng: np.random.Generator) -> dict[int, list[Shown]]:
    """Requests whose rows arrive over several days, with gaps, and with items that come twice."""
    days: dict[int, list[Shown]] = defaultdict(list)
    for number in range(60):
        day, length = int(rng.integers(0, 4)), int(rng.integers(1, 5))
        moment = at(int(rng.integers(0, 86_000)), days=day)
        for position in range(1, length + 1):
            if rng.random() < 0.9:
                arrives = day + int(rng.random() < 0.2)
                days[arrives].append((f"r{number}", f"i{rng.integers(0, 8)}", position, moment))
    return days


def a_log_of(root: Path, days: dict[int, list[Shown]]) -> Log:
    schema = {"request_id": pl.String, "item_id": pl.String, "position": pl.Int32, "shown_at": UTC_US}
    tables = [{"impressions": pl.DataFrame(days[number], schema=schema, orient="row")} for number in range(5)]
    return a_log(root, *tables)


def profiles(log: Log, root: Path) -> list[Artifact]:
    store = Store(str(root))
    return [
        store.open(profile_day(store=store, spec=a_spec(), day=day, cutoff=time_text(day_end(day.day))))
        for day in StandingDay.each(log)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_requests_over_several_days_are_counted_as_one_look_at_all_rows_counts_them(tmp_path: Path, seed: int) -> None:
    days = shown(np.random.default_rng(seed))
    log = a_log_of(tmp_path, days)
    rows: dict[str, list[Shown]] = defaultdict(list)
    for row in (row for number in range(5) for row in days[number]):
        rows[row[0]].append(row)
    found = request_counts(log, profiles(log, tmp_path), settled_before=SETTLED)
    places = {name: [row[2] for row in one] for name, one in rows.items()}
    gaps = [name for name, one in places.items() if min(one) != 1 or max(one) != len(one)]
    young = [name for name in gaps if min(row[3] for row in rows[name]) >= SETTLED]
    assert (found["requests"], found["log_rows"]) == (len(rows), sum(map(len, rows.values())))
    assert found["repeated_keys"] == sum(len(one) - len({row[1] for row in one}) for one in rows.values()) > 0
    assert (found["gaps"], found["young_gaps"]) == (len(gaps) - len(young), len(young))
    assert found["oldest"] == min(row[3] for one in rows.values() for row in one)


def test_a_day_without_a_feature_has_null_in_all_its_rows(tmp_path: Path) -> None:
    keys = {"request_id": ["a", "b"], "item_id": ["i", "i"], "position": [1, 1], "shown_at": [at(1), at(2)]}
    later = {**keys, "x_new": [None, 1.0]}
    types = {"shown_at": UTC_US, "position": pl.Int32}
    log = a_log(tmp_path, *({"impressions": pl.DataFrame(one, schema_overrides=types)} for one in (keys, later)))
    counts = daily_counts(profiles(log, tmp_path), "impressions")
    assert counts.select("rows", "groups", "null x_new").rows() == [(2, 2, 2), (2, 2, 1)]


def test_a_day_that_nothing_later_touched_keeps_its_profile(tmp_path: Path) -> None:
    log = a_log_of(tmp_path, shown(np.random.default_rng(7)))
    before = [day.fingerprint for day in StandingDay.each(log)]
    gone = pl.DataFrame(
        {"day": [log.days[2].record["day"]], "table": ["impressions"], "row": [0], "reason": ["orphan"]}
    )
    gone = gone.with_columns(pl.col("day").str.to_date()).cast(log.gone.schema)
    after = [day.fingerprint for day in StandingDay.each(Log(log.resolved, log.days, gone))]
    assert [one == two for one, two in zip(before, after, strict=True)] == [True, True, False, True, True]


def test_kinds_are_added_up(tmp_path: Path) -> None:
    outcome = {
        "request_id": "a",
        "item_id": "i",
        "happened_at": at(1),
        "arrived_at": at(1) + timedelta(1),
        "value": 1.0,
    }
    days = ([{**outcome, "kind": "click"}] * 3, [{**outcome, "kind": "click"}, {**outcome, "kind": "buy"}])
    types = {"happened_at": UTC_US, "arrived_at": UTC_US}
    log = a_log(tmp_path, *({"outcomes": pl.DataFrame(rows, schema_overrides=types)} for rows in days))
    assert kind_counts(profiles(log, tmp_path)) == {"buy": 1, "click": 4}
