"""The log's gate judges real artifacts: clean ones pass, each fault is found in its own words, noise is allowed for."""

from __future__ import annotations

import re
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from gates.logs import FIRST, SmallLog, a_spec, cutoff_after, weeks_then
from worlds.shops import news_feed

from sameworld.records import Blocked
from sameworld.spec import Spec
from sameworld.store.artifacts import Artifact, Store
from sameworld.store.log_profile import Asked, Sums, day_row
from tasks import assemble, ingest, measure_delay, resolve
from tasks import label as tasks_label
from tasks.validate import check_labels, check_log, check_training_set, gate

BOUGHT = pl.col("kind") == "purchase"


def judged(log: SmallLog, gone: Any = (), **checks: Any) -> Artifact:
    uri = check_log(
        store=log.store, spec=a_spec(**checks), cutoff=cutoff_after(len(log.days)), log=log.resolved(gone).uri
    )
    return log.store.open(uri)


def said(check: Artifact, level: str) -> list[str]:
    return [one["sentence"] for one in check.record["findings"] if one["level"] == level]


def without(table: str) -> Any:
    return lambda tables: {**tables, table: tables[table].clear()}


def on(table: str, *changes: pl.Expr) -> Any:
    return lambda tables: {**tables, table: tables[table].with_columns(*changes)}


def test_a_clean_log_passes_and_its_gate_returns_the_uri(tmp_path: Path) -> None:
    check = judged(weeks_then(tmp_path))
    assert (check.record["status"], check.record["findings"]) == ("PASS", [])
    assert gate(Store(str(tmp_path)), check.uri) == check.uri
    assert check.scan("profile").collect().filter(pl.col("segment") == "day").height == 3


def test_the_first_day_of_a_log_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    assert judged(SmallLog(tmp_path).add(requests=3)).record["status"] == "PASS"


def test_fault_03_a_third_of_the_rows_blocks_with_four_like_weekdays(tmp_path: Path) -> None:
    check, words = judged(weeks_then(tmp_path, requests=60)), "30 % of the requests usual for a Monday, need 50 %"
    assert f"landed: {words}" in said(check, "BLOCK")
    with pytest.raises(Blocked, match=re.escape(f"BLOCK landed: {words}")) as caught:
        gate(Store(str(tmp_path)), check.uri)
    assert caught.value.uri == check.uri
    assert caught.value.findings == tuple(f"BLOCK {sentence}" for sentence in said(check, "BLOCK"))


def test_fault_03_three_times_the_rows_block_with_four_like_weekdays(tmp_path: Path) -> None:
    wanted = "landed: 300 % of the requests usual for a Monday, at most 200 %"
    assert wanted in said(judged(weeks_then(tmp_path, requests=600)), "BLOCK")


def test_fault_03_zero_rows_of_one_table_block_with_four_like_weekdays(tmp_path: Path) -> None:
    check = judged(weeks_then(tmp_path, spoil=without("outcomes")))
    assert said(check, "BLOCK") == ["landed: 0 % of the outcomes usual for a Monday, need 50 %"]
    assert check.record["findings"][0]["examples"][0] == {"arrival_day": "2026-03-29", "rows": 300}


@pytest.mark.parametrize("requests", [0, 60, 600])
def test_fault_03_with_three_like_weekdays_volume_only_warns(tmp_path: Path, requests: int) -> None:
    check = judged(weeks_then(tmp_path, days=21, requests=requests))
    assert not said(check, "BLOCK")
    assert any(one.startswith("landed: ") and "3 Mondays to compare with" in one for one in said(check, "WARN"))


def test_rows_that_were_all_repeated_are_as_good_as_not_landed(tmp_path: Path) -> None:
    log = weeks_then(tmp_path)
    gone = [(FIRST + timedelta(days=28), "requests", row, "duplicate") for row in range(200)]
    check = judged(log, gone)
    assert said(check, "BLOCK") == ["landed: 0 % of the requests usual for a Monday, need 50 %"]
    assert "repeated: 100 % of the day's requests were duplicates or conflicts, usually 0 %" in said(check, "WARN")


def test_few_rows_may_be_chance_and_only_warn(tmp_path: Path) -> None:
    log = SmallLog(tmp_path)
    for requests in [5] * 28 + [2]:
        log.add(requests=requests)
    check = judged(log)
    assert check.record["status"] == "WARN"
    wanted = "landed: 40 % of the requests usual for a Monday, need 50 % (so few rows may be chance)"
    assert wanted in said(check, "WARN")


def test_a_log_without_impressions_is_blocked(tmp_path: Path) -> None:
    check = judged(SmallLog(tmp_path).add(spoil=without("impressions")))
    assert "landed: the log has no impressions" in said(check, "BLOCK")


def test_quarantine_names_its_reasons(tmp_path: Path) -> None:
    log = SmallLog(tmp_path).add(quarantined={"bad_position": 30, "null_key": 10})
    wanted = "quarantined: 40 of the requests (day), 20 %: bad_position 30, null_key 10; at most 5 %"
    assert wanted in said(judged(log), "BLOCK")


def test_orphans_of_a_young_log_are_no_fault_of_the_drop(tmp_path: Path) -> None:
    gone = [(FIRST + timedelta(days=1), "outcomes", row, "orphan") for row in range(200)]
    assert not said(judged(SmallLog(tmp_path).add().add(), gone), "BLOCK")


def test_orphans_of_an_old_log_block(tmp_path: Path) -> None:
    gone = [(FIRST + timedelta(days=8), "outcomes", row, "orphan") for row in range(200)]
    check = judged(weeks_then(tmp_path, days=8), gone)
    assert said(check, "BLOCK") == ["quarantined: 200 of the outcomes (day), 66.7 %: orphan 200; at most 5 %"]
    assert check.record["findings"][0]["examples"][0] == {
        "day": "2026-03-10", "table": "outcomes", "row": 0, "reason": "orphan"
    }  # fmt: skip


def test_two_rows_of_one_key_block_with_the_key(tmp_path: Path) -> None:
    twice = lambda tables: {**tables, "impressions": pl.concat([tables["impressions"], tables["impressions"].head(1)])}  # noqa: E731
    check = judged(SmallLog(tmp_path).add(spoil=twice))
    assert "keys: 1 impressions share a key" in said(check, "BLOCK")
    assert check.record["findings"][0]["examples"] == [{"request_id": "2026-03-02-0", "item_id": "item-1", "rows": 2}]


def test_a_gap_in_positions_warns_unless_the_row_may_still_land(tmp_path: Path) -> None:
    gap = lambda tables: {**tables, "impressions": tables["impressions"].slice(1)}  # noqa: E731
    log = SmallLog(tmp_path).add(spoil=gap)
    assert judged(log).record["status"] == "PASS"
    wanted = "positions: 1 of 400 requests lack one between 1 and their last (1 more may still land)"
    assert said(judged(log.add(spoil=gap)), "WARN") == [wanted]


def test_a_moved_null_rate_warns_and_nan_counts_as_null(tmp_path: Path) -> None:
    log = weeks_then(tmp_path, days=3, spoil=on("impressions", pl.lit(float("nan")).alias("x_price")))
    wanted = "nulls: x_price is null in 100 % of the day's impressions, usually in 0 %; at most 20 % apart"
    assert said(judged(log), "WARN") == [wanted]


def test_unknown_columns_are_ignored_with_a_line(tmp_path: Path) -> None:
    log = SmallLog(tmp_path).add(ignored={"requests": ["colour", "mood"]})
    assert said(judged(log), "WARN") == ["columns: unknown in requests and ignored: colour, mood"]


def test_a_kind_without_a_gain_warns(tmp_path: Path) -> None:
    renamed = on("outcomes", pl.when(BOUGHT).then(pl.lit("buy")).otherwise("kind").alias("kind"))
    wanted = ["kinds: 'buy' (100 rows) has no gain in label.gains"]
    assert said(judged(weeks_then(tmp_path, days=1, spoil=renamed)), "WARN") == wanted


def test_a_target_that_never_occurs_warns_at_first_and_blocks_after_a_window(tmp_path: Path) -> None:
    log, clicks = SmallLog(tmp_path), lambda tables: {**tables, "outcomes": tables["outcomes"].filter(~BOUGHT)}
    for _ in range(6):
        log.add(spoil=clicks)
    assert said(judged(log), "WARN") == ["kinds: no outcome of kind 'purchase' has occurred yet; label.gains names it"]
    check = judged(log.add(spoil=clicks))
    assert said(check, "BLOCK") == ["kinds: no outcome of kind 'purchase' has occurred, and it is the target"]


def test_the_same_log_gives_the_same_bytes(tmp_path: Path) -> None:
    checks = [judged(weeks_then(tmp_path / name, days=8, requests=20, ignored={"requests": ["a"]})) for name in "ab"]
    assert checks[0].content_hash == checks[1].content_hash


def test_the_gates_take_what_the_real_steps_write(tmp_path: Path) -> None:
    (tmp_path / "drop").mkdir()
    shop = news_feed(tmp_path / "drop", days=5, requests_per_day=60)
    label = {"gains": {"read": 1.0, "share": 3.0}, "target": "share", "window_days": shop.window_days}
    given = {"spec": Spec.parse({"source": {"uri": str(shop.drop)}, "label": label}), "cutoff": "2026-03-06T00:00:00Z"}
    given["store"] = store = Store(str(tmp_path / "root"))
    log = resolve.run(days=ingest.run(**given), **given)
    delay = measure_delay.run(log=log, **given)
    labels = tasks_label.run(log=log, delay=delay, **given)
    examples = assemble.run(log=log, labels=labels, delay=delay, **given)
    checks = check_log(log=log, **given), check_labels(labels=labels, delay=delay, **given)
    for uri in (*checks, check_training_set(examples=examples, **given)):
        assert (store.open(uri).record["status"], store.open(uri).record["findings"]) == ("PASS", [])


def test_what_a_day_leaves_open_is_counted_once(tmp_path: Path) -> None:
    log = SmallLog(tmp_path).add(quarantined={"position_taken": 40}, conflicts=30)
    gone = [(FIRST, "requests", row, "conflict" if row < 30 else "position_taken") for row in range(70)]
    check = judged(log, gone)
    requests = next(row for row in check.record["profile"] if (row["table"], row["segment"]) == ("requests", "day"))
    assert (requests["quarantined"], requests["reasons"]) == (40, "position_taken 40")


WEEK = np.array([0.9, 1.0, 1.02, 1.0, 1.0, 1.05, 0.6])


def days_as_one_profile(per_day: float, *, seed: int, days: int, fault: float = 1.0) -> pl.DataFrame:
    """Return a row for each of ``days`` judged days of a log with weekdays, drift and Poisson noise."""
    rng = np.random.default_rng(seed)
    calendar = [FIRST + timedelta(days=i) for i in range(days + 28)]
    mean = per_day * WEEK[np.arange(len(calendar)) % 7] * np.exp(rng.normal(0, 0.08, len(calendar)))
    requests = rng.poisson(mean)
    rows = []
    for i in range(28, len(calendar)):
        counts = [*requests[i - 28 : i].tolist(), int(rng.poisson(mean[i] * fault))]
        row = {"table": "impressions", "segment": f"day {i}", **_judged_day(calendar[i - 28 : i + 1], counts)}
        rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None)


def _judged_day(calendar: list[date], requests: list[int]) -> dict[str, Any]:
    daily = pl.DataFrame({"arrival_day": calendar, "rows": [10 * n for n in requests], "groups": requests})
    sums = {day: Sums(10 * n, 0, {}) for day, n in zip(calendar, requests, strict=True)}
    asked = Asked(calendar[-1], 4, ("click",), "click", timedelta(days=7))
    return day_row("impressions", daily.filter(pl.col("rows") > 0), sums, asked, old=True)


def blocked_days(profile: pl.DataFrame) -> int:
    from expectations.judge import findings
    from expectations.log import volume

    found = findings(profile.to_pandas(), name="volume", expectations=volume(0.5, 2.0)[1:])
    return len({one["segment"] for one in found if one["level"] == "BLOCK"})


@pytest.mark.parametrize(("per_day", "allowed"), [(3.0, 2), (20.0, 0), (400.0, 0)])
def test_of_two_hundred_clean_days_at_most_one_in_a_hundred_is_blocked(per_day: float, allowed: int) -> None:
    assert blocked_days(days_as_one_profile(per_day, seed=7, days=200)) <= allowed


@pytest.mark.parametrize("fault", [0.0, 0.3, 3.0])
def test_every_fault_of_volume_is_caught_where_days_have_a_few_hundred_requests(fault: float) -> None:
    assert blocked_days(days_as_one_profile(400.0, seed=5, days=200, fault=fault)) >= 198
