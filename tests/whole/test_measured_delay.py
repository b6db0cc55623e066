"""The delays that a day's run measures: curves by segment, pooled in words, and the shift alarm, on drops."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from whole.small_days import fresh

from sameworld.maths.delay import DelayCurve
from sameworld.sources.landing import land
from sameworld.spec import Spec
from sameworld.store.artifacts import Store, artifact_at
from tasks import ingest, measure_delay, resolve
from tasks.run import run_day

FIRST, DAYS, RATE = date(2026, 3, 2), 28, 0.3
MONDAY = int(datetime(FIRST.year, FIRST.month, FIRST.day, tzinfo=UTC).timestamp()) * 1_000_000
TIME = pl.Datetime("us", "UTC")


def segment(
    name: str, n: int, *, mean: float = 6.0, since: int = 0, kind: str = "click", seed: int = 0
) -> pl.DataFrame:
    """Impressions shown from day ``since`` on, three in ten with an outcome after an exponential time."""
    rng = np.random.default_rng([seed, n, since])
    shown = rng.uniform(since * 24, DAYS * 24, n)
    late = np.where(rng.random(n) < RATE, rng.exponential(mean, n), np.nan)
    known = pl.Series(shown + late, nan_to_null=True)
    return pl.DataFrame({"x_s": [name] * n, "shown": shown, "known": known, "kind": [kind] * n})


def slower_since(name: str, n: int, day: int) -> pl.DataFrame:
    """The same segment with four times the delay from a day on."""
    before = segment(name, n).filter(pl.col("shown") < day * 24)
    return pl.concat([before, segment(name, n * (DAYS - day) // DAYS, mean=24.0, since=day)])


def instants(hours: str) -> pl.Expr:
    return ((pl.col(hours) * 3.6e9).round().cast(pl.Int64) + MONDAY).cast(TIME)


def drop_of(*parts: pl.DataFrame) -> Path:
    rows = (
        pl.concat(parts)
        .with_row_index("n")
        .with_columns(pl.format("r{}", "n").alias("request_id"), item_id=pl.lit("i"), user_id=pl.format("u{}", "n"))
    )
    shown = rows.select(
        "request_id", "item_id", "user_id", "x_s", position=pl.lit(1, pl.Int32),
        shown_at=instants("shown"), arrived_at=instants("shown"),
    )  # fmt: skip
    came = rows.filter(pl.col("known").is_not_null()).select(
        "request_id", "item_id", "kind", happened_at=instants("known"), arrived_at=instants("known")
    )
    out = fresh("delays") / "drop"
    for day in (FIRST + timedelta(days=number) for number in range(DAYS)):
        tables = {"impressions": shown, "outcomes": came}
        land({name: frame.filter(pl.col("arrived_at").dt.date() == day) for name, frame in tables.items()}, out, day)
    return out


def spec_of(*parts: pl.DataFrame, **label: Any) -> Spec:
    known = {"gains": {"click": 1.0}, "target": "click", "window_days": 2.0, "segments": ["x_s"], **label}
    return Spec.parse({"source": {"kind": "drop", "uri": str(drop_of(*parts))}, "label": known})


def delay(*parts: pl.DataFrame, **label: Any) -> dict[str, Any]:
    """Measure the delays at the end of the drop, step by step."""
    spec, store, cutoff = (
        spec_of(*parts, **label),
        Store(str(fresh("root"))),
        f"{FIRST + timedelta(days=DAYS)}T00:00:00Z",
    )
    days = ingest.run(store=store, spec=spec, cutoff=cutoff)
    log = resolve.run(store=store, spec=spec, days=days, cutoff=cutoff)
    return artifact_at(measure_delay.run(store=store, spec=spec, log=log, cutoff=cutoff)).record


def days_run(store: Store, spec: Spec, days: list[int]) -> dict[int, bytes]:
    """Run days of the drop in this order; what the step wrote of each, by day."""
    found = {}
    for number in days:
        cutoff = f"{FIRST + timedelta(days=number)}T00:00:00Z"
        log = resolve.run(store=store, spec=spec, days=ingest.run(store=store, spec=spec, cutoff=cutoff), cutoff=cutoff)
        uri = measure_delay.run(store=store, spec=spec, log=log, cutoff=cutoff)
        found[number] = artifact_at(uri).path("record.json").read_bytes()
    return found


def known_by(record: dict[str, Any], name: str, hours: float) -> float:
    return float(DelayCurve.from_record(record["curves"]["click"][name]).at(hours))


def test_a_segment_of_too_few_outcomes_takes_the_curve_of_all_and_the_record_says_why() -> None:
    record = delay(segment("big", 3000), segment("tiny", 60))
    assert set(record["curves"]["click"]) == {"all", "big"}
    (words,) = record["pooled"]
    assert words.startswith("click: 'tiny' has ")
    assert words.endswith(" outcomes, fewer than 50: the curve of all segments stands in")


def test_a_segment_too_young_for_a_curve_takes_that_of_all_and_the_record_says_why() -> None:
    record = delay(segment("old", 3000), segment("new", 1000, since=DAYS - 1))
    assert set(record["curves"]["click"]) == {"all", "old"}
    (words,) = record["pooled"]
    assert words.startswith("click: 'new' has no curve of its own (completeness is identified only up to")


def test_very_uneven_segments_keep_a_curve_each() -> None:
    """One has a hundred times the outcomes of the other, which waits ten times as long."""
    record = delay(segment("big", 40_000, mean=3.0), segment("small", 400, mean=30.0))
    assert record["pooled"] == []
    assert known_by(record, "big", 6.0) == pytest.approx(1 - np.exp(-2.0), abs=0.02)
    truth = (1 - np.exp(-12.0 / 30.0)) / (1 - np.exp(-48.0 / 30.0))
    assert known_by(record, "small", 12.0) == pytest.approx(truth, abs=0.15)


def test_a_kind_that_never_happened_cannot_have_a_curve_and_the_others_have_theirs() -> None:
    spec = spec_of(segment("big", 3000), gains={"click": 1.0, "purchase": 5.0})
    last = FIRST + timedelta(days=DAYS - 1)
    report = run_day(Store(str(fresh("root"))), spec, last, only="measure_delay").report["delay"]
    curves = {(one["kind"], one["segment"]): one for one in report["curves"]}
    assert "no delay can be measured without outcomes" in curves["purchase", "all"]["rate"]["cannot"]
    assert set(curves["click", "big"]["rate"]) == {"value", "low", "high"}
    assert any(words.startswith("purchase: 'big' has 0 outcomes") for words in report["pooled"])


def test_a_target_that_never_happened_has_no_shift_to_speak_of() -> None:
    record = delay(segment("big", 3000), gains={"click": 1.0, "purchase": 5.0}, target="purchase")
    assert "no delay can be measured without outcomes" in record["shift"]["cannot"]


def test_a_segment_called_all_is_not_mistaken_for_all_segments() -> None:
    record = delay(segment("all", 3000, mean=2.0), segment("big", 3000, mean=20.0))
    assert set(record["curves"]["click"]) == {"all", "big"}
    assert known_by(record, "all", 6.0) < 0.85


def test_unchanged_delays_raise_no_alarm_and_the_record_has_the_numbers() -> None:
    shift = delay(segment("a", 6000), segment("b", 6000))["shift"]
    assert shift["alarm"] is False
    assert set(shift) >= {"alarm", "reason", "p_value", "events", "expected_events", "by_segment"}
    least = min(one["p_value"] for one in shift["by_segment"].values())
    assert shift["p_value"] == pytest.approx(min(1.0, 2 * least))  # Bonferroni over two segments


def test_one_segment_that_slows_down_raises_the_alarm_and_is_named() -> None:
    shift = delay(segment("steady", 6000), slower_since("slow", 6000, DAYS - 3))["shift"]
    assert shift["alarm"] is True
    assert shift["reason"].startswith("'slow', the most unlike: arrivals no longer follow those of the weeks before")
    assert [name for name, one in shift["by_segment"].items() if one["alarm"]] == ["slow"]


def test_segments_without_a_curve_of_their_own_are_watched_together() -> None:
    few = [slower_since(f"s{number}", 150, DAYS - 3).sample(fraction=0.9, seed=1) for number in range(40)]
    shift = delay(*few, min_segment_events=1000)["shift"]
    assert (shift["alarm"], list(shift["by_segment"])) == (True, ["all"])


def test_days_measured_in_any_order_and_alone_give_the_same_bytes() -> None:
    spec = spec_of(segment("a", 3000), segment("b", 3000))
    forward = days_run(Store(str(fresh("root"))), spec, [DAYS - 2, DAYS])
    assert days_run(Store(str(fresh("root"))), spec, [DAYS, DAYS - 2]) == forward
    assert days_run(Store(str(fresh("root"))), spec, [DAYS]) == {DAYS: forward[DAYS]}


def test_the_next_day_makes_the_runs_of_one_day_only() -> None:
    spec, root = spec_of(segment("a", 3000)), fresh("root")
    made = []
    for number in (DAYS - 1, DAYS):
        days_run(Store(str(root)), spec, [number])
        made.append(len(list((root / "artifacts" / "measure_delay").iterdir())))
    assert made == [DAYS - 1 + 1, DAYS + 2]  # a day's runs each, and what was measured: once, then twice


def test_a_training_period_in_which_nothing_was_shown_cannot_be_measured() -> None:
    parts = segment("a", 600).filter(pl.col("shown") < 48)
    spec = Spec.parse({**spec_of(parts).tree(), "train": {"days": 3}})
    [record] = days_run(Store(str(fresh("root"))), spec, [DAYS]).values()
    assert b"no impression was shown in the training period" in record
