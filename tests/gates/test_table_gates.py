"""The gates of labels and training set: clean ones pass, and each fault is found in its own words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from gates.logs import a_spec, publish, publish_examples, publish_labels

from sameworld.store.artifacts import Artifact, Store
from tasks.validate import check_labels, check_training_set, write_data_docs

CUTOFF = datetime(2026, 3, 20, tzinfo=UTC)


def said(check: Artifact, level: str) -> list[str]:
    return [one["sentence"] for one in check.record["findings"] if one["level"] == level]


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
    labels = publish_labels(store, frame, CUTOFF)
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
        ({"completeness": pl.lit(1.5)}, "completeness: 100 rows lie outside [0, 1], or are closed and incomplete"),
        ({"age_hours": pl.lit(173.0)}, "closed: 400 rows closed before window and lag had passed"),
    ],
)
def test_numbers_that_cannot_be_right_block_with_examples(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    check = labels_judged(tmp_path, labels_frame().with_columns(**change))
    assert said(check, "BLOCK") == [words]
    assert check.record["findings"][0]["examples"][0]["request_id"] in {"r0", "r100"}  # the first closed, or open


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
    examples = publish_examples(store, frame, features, CUTOFF)
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
    assert check.record["findings"][0]["examples"] == [{"part": "2026-03-01", "request_id": "r0", "runs": 2}]


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
