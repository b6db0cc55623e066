"""The gates judge real artifacts: clean ones pass, and each fault is found in its own words."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from gates.logs import FIRST, SmallLog, a_spec, cutoff_after, publish, weeks_then
from worlds.shops import news_feed

from sameworld.records import Blocked
from sameworld.spec import Spec
from sameworld.store.artifacts import Artifact, Store
from tasks import assemble, ingest, measure_delay, resolve
from tasks import label as tasks_label
from tasks.validate import check_labels, check_log, check_training_set, gate, write_data_docs

CUTOFF = datetime(2026, 3, 20, tzinfo=UTC)
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


def labels_frame(*, closed: int = 400, opened: int = 100, every: int = 10) -> pl.DataFrame:
    count, place = closed + opened, pl.int_range(closed + opened)
    return pl.select(
        request_id=pl.format("r{}", place // 4),
        item_id=pl.format("i{}", place),
        segment=pl.format("s{}", place % 2),
        closed=place < closed,
        age_hours=pl.when(place < closed).then(300.0).otherwise(2.0),
        gain=pl.when(place % every == every - 1).then(5.0).otherwise(0.0),
        target=(place % every == every - 1).cast(pl.Int8),
        completeness=pl.when(place < closed).then(1.0).otherwise(0.0),
    ).head(count)


def labels_judged(root: Path, frame: pl.DataFrame) -> Artifact:
    store = Store(str(root))
    labels = publish(store, "label", {"rows": len(frame)}, {"labels": frame})
    delay = publish(store, "measure_delay", {"lag_hours": 6.0}, {})
    return store.open(check_labels(store=store, spec=a_spec(), labels=labels.uri, delay=delay.uri))


def test_clean_labels_pass_though_fresh_ones_are_open_and_incomplete(tmp_path: Path) -> None:
    check = labels_judged(tmp_path, labels_frame())
    assert (check.record["status"], check.manifest["rows"]) == ("PASS", 500)


@pytest.mark.parametrize(("target", "missing"), [(0, "positive"), (1, "negative")])
def test_fault_13_one_class_is_refused_in_words(tmp_path: Path, target: int, missing: str) -> None:
    check = labels_judged(tmp_path, labels_frame().with_columns(target=pl.lit(target, pl.Int8)))
    wanted = f"classes: the target 'purchase' has no {missing} row among the 400 closed"
    assert said(check, "BLOCK") == [wanted]


def test_open_rows_never_block(tmp_path: Path) -> None:
    check = labels_judged(tmp_path, labels_frame(closed=0))
    assert check.record["status"] == "WARN"
    assert "closed: none of 100 labels is settled yet" in said(check, "WARN")


def test_a_rare_target_among_few_closed_rows_may_be_chance(tmp_path: Path) -> None:
    frame = labels_frame(closed=20, opened=400, every=50)
    assert any(one.endswith("20 closed, too few to tell") for one in said(labels_judged(tmp_path, frame), "WARN"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"gain": pl.lit(float("nan"))}, "gains: 500 rows have none, or a negative or infinite one"),
        ({"completeness": pl.lit(1.5)}, "completeness: 500 rows lie outside [0, 1], or are closed and incomplete"),
        ({"age_hours": pl.lit(173.0)}, "closed: 400 rows closed before window and lag had passed"),
    ],
)
def test_numbers_that_cannot_be_right_block_with_examples(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    check = labels_judged(tmp_path, labels_frame().with_columns(**change))
    assert said(check, "BLOCK") == [words]
    assert check.record["findings"][0]["examples"][0]["request_id"] == "r0"


def examples_frame(requests: int = 50) -> pl.DataFrame:
    place = pl.int_range(requests * 4)
    return pl.select(
        request_id=pl.format("r{}", place // 4),
        item_id=pl.format("i{}", place),
        shown_at=pl.lit(CUTOFF - timedelta(days=5)) + pl.duration(minutes=place // 4),
        x_price=place.cast(pl.Float64),
        x_kind=pl.format("kind-{}", place % 3),
        quality=place % 7,
    )


def examples_judged(root: Path, frame: pl.DataFrame) -> Artifact:
    store = Store(str(root))
    features = {"quality": "number", "x_kind": "category", "x_price": "number"}
    examples = publish(store, "assemble", {"features": features}, {"examples": frame})
    uri = check_training_set(store=store, spec=a_spec(), cutoff=CUTOFF.isoformat(), examples=examples.uri)
    return store.open(uri)


def test_a_clean_training_set_passes(tmp_path: Path) -> None:
    check = examples_judged(tmp_path, examples_frame())
    assert (check.record["status"], check.manifest["rows"]) == ("PASS", 200)


def test_a_row_shown_at_the_cutoff_blocks(tmp_path: Path) -> None:
    frame = examples_frame().with_columns(shown_at=pl.lit(CUTOFF))
    assert said(examples_judged(tmp_path, frame), "BLOCK") == ["time: 200 rows were shown at the cutoff or after it"]


def test_a_torn_request_blocks_with_its_name(tmp_path: Path) -> None:
    frame = examples_frame()
    check = examples_judged(tmp_path, pl.concat([frame.slice(1), frame.head(1)]))
    assert said(check, "BLOCK") == ["order: 1 requests' rows do not stand together"]
    assert check.record["findings"][0]["examples"] == [{"request_id": "r0", "runs": 2}]


@pytest.mark.parametrize(
    ("change", "level", "words"),
    [
        ({"x_price": pl.lit(float("inf"))}, "BLOCK", "infinite: x_price is infinite in 200 rows"),
        ({"x_price": pl.lit(float("nan"))}, "WARN", "features: x_price is null in every row"),
        ({"x_kind": pl.lit("same")}, "WARN", "features: x_kind has one value in every row that has it"),
    ],
)
def test_a_feature_that_says_nothing_is_named(tmp_path: Path, change: dict[str, Any], level: str, words: str) -> None:
    found = said(examples_judged(tmp_path, examples_frame().with_columns(**change)), level)
    assert any(one.startswith(words) for one in found)


def test_a_feature_that_no_served_row_has_is_named(tmp_path: Path) -> None:
    served = pl.int_range(pl.len()) < 100
    frame = examples_frame().with_columns(
        *(pl.when(served).then(name).alias(name) for name in ("x_price", "x_kind")),
        pl.when(~served).then("quality").alias("quality"),
    )
    assert any(
        one.startswith("features: quality is null in every served row")
        for one in said(examples_judged(tmp_path, frame), "WARN")
    )


def test_data_docs_are_written_outside_the_artifacts(tmp_path: Path) -> None:
    checks = [labels_judged(tmp_path / "root", labels_frame()), examples_judged(tmp_path / "root", examples_frame())]
    index = write_data_docs(Store(str(tmp_path / "root")), [one.uri for one in checks], tmp_path / "docs")
    assert index.exists()
    assert len(list((tmp_path / "docs" / "validations").rglob("*.html"))) == 2


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
