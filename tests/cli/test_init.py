"""A first spec says what a drop holds, reads back whatever its names are, and suggests what the log can carry."""

from __future__ import annotations

import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from cli.terminal import FIRST, Said, drop, outcomes, sameworld, shown
from worlds.shops import marketplace, news_feed, search

from sameworld.models.features import chosen
from sameworld.sources.landing import land
from sameworld.spec import Spec
from tasks.cli.drop_look import Outcomes
from tasks.cli.spec_advice import segment_for, target_of, window_for
from tasks.cli.spec_text import quoted
from tasks.cli.specs import find_spec

ODD = ["x_a b", 'x_"quoted"', "x_dot.ted", "x_[set]", "x_*", "x_ü\n", "x_#\x7f\\", "x_=']", "x_plain"]


def init(source: Path, out: Path, *more: str) -> Said:
    return sameworld("init", "--drop", source, "--out", out, "--json", *more)


def spec_of(source: Path) -> Spec:
    out = source.parent / "made" / "spec.toml"
    assert init(source, out).code == 0
    return find_spec(str(out))


@pytest.mark.parametrize("build", [news_feed, marketplace, search])
def test_a_shops_spec_names_what_its_record_says(build: Any, tmp_path: Path) -> None:
    shop = build(tmp_path / "drop", seed=5, requests_per_day=150)
    spec = spec_of(shop.drop)
    assert spec.source.uri == str(shop.drop.resolve())
    assert (set(spec.label.gains), spec.label.target) == (set(shop.kinds), shop.target)
    assert set(spec.label.gains.values()) == {1.0}
    assert set(spec.features.include) == set(shop.features)
    assert spec.label.segments == list(shop.segments)
    # 12 days carry a back-test of this window: the earlier cutoff lies a window and a day after the log's start
    assert 1 <= spec.label.window_days <= max(shop.window_days, 3)
    assert 12 - 2 * spec.label.window_days - spec.backtest.days >= 1


def test_views_stand_commented_out_with_columns_that_read_back(tmp_path: Path) -> None:
    shop = news_feed(tmp_path / "drop", requests_per_day=50)
    out = tmp_path / "spec.toml"
    said = init(shop.drop, out)
    line = next(line for line in out.read_text().splitlines() if line.startswith("# views ="))
    assert tomllib.loads(line.removeprefix("# "))["views"] == said.document["views"]
    assert said.document["views"] == {"author_stats": ["author_desk", "author_followers", "author_score"]}


def test_what_is_missing_is_said_with_what_it_costs(tmp_path: Path) -> None:
    source = drop(tmp_path / "drop", 3, ("click", 3), x_a=list(range(20)))
    said = init(source, tmp_path / "s.toml")
    absent = {"users", "lists", "requests", "policy", "propensities", "candidates", "views"}
    assert set(said.document["missing"]) == absent
    text = (tmp_path / "s.toml").read_text()
    assert all(f"# Missing: {name}: {words}" in text for name, words in said.document["missing"].items())
    assert said.document["spec"]["decide"]["metric"] == "normalised_entropy"


def test_fault_54_odd_names_round_trip(tmp_path: Path) -> None:
    kinds = ['say "hi"', "a.b", "", "línea\nnext"]
    values = {name: [float(row) for row in range(20)] for name in ODD}
    source = drop(tmp_path / "drop ü", 3, *((kind, 2 + n) for n, kind in enumerate(kinds)), **values)
    spec = spec_of(source)
    assert (set(spec.label.gains), spec.label.target) == (set(kinds), kinds[-1])
    assert chosen([*ODD, "x_s", "x_other"], include=spec.features.include, exclude=[]) == sorted(ODD)


@pytest.mark.parametrize("text", [*ODD, "\x00\x1f\u2028", "'''", '"""', "\\u0041", "𝄞"])
def test_any_text_reads_back_from_toml(text: str) -> None:
    assert tomllib.loads(f"{quoted(text)} = {quoted(text)}") == {text: text}


def test_doubtful_features_are_left_out_with_their_reason(tmp_path: Path) -> None:
    source = tmp_path / "drop"
    for day in range(3):
        session = [f"s{day}-{row}" for row in range(200)]
        rows = shown(day, 200, x_session=session, x_one=7, x_rare=[1.0] + [None] * 199, x_good=list(range(200)))
        land({"impressions": rows, "outcomes": outcomes(rows, "click", 5)}, source, FIRST + timedelta(days=day))
    said = init(source, tmp_path / "s.toml")
    assert said.document["spec"]["features"]["include"] == ["x_good"]
    assert set(said.document["doubtful"]) == {"x_session", "x_one", "x_rare"}
    assert "looks like an id" in said.document["doubtful"]["x_session"]
    assert '    # "x_session",  # category, 600 values; left out: 600 values' in (tmp_path / "s.toml").read_text()


def test_a_file_that_is_there_is_kept_unless_forced(tmp_path: Path) -> None:
    source, out = drop(tmp_path / "drop", 2, ("click", 3), x_a=list(range(20))), tmp_path / "s.toml"
    out.write_text("mine")
    said = init(source, out)
    assert (said.code, said.error["what"], out.read_text()) == (2, "there is a file already", "mine")
    assert init(source, out, "--force").code == 0
    assert out.read_text() != "mine"


def test_a_drop_without_outcomes_or_without_days_is_refused_in_words(tmp_path: Path) -> None:
    said = init(drop(tmp_path / "drop", 1, x_a=1.5), tmp_path / "s.toml")
    assert (said.code, said.error["what"]) == (2, "the drop has no outcomes")
    (tmp_path / "empty").mkdir()
    assert init(tmp_path / "empty", tmp_path / "s.toml").code == 3
    assert not (tmp_path / "s.toml").exists()


def test_a_broken_file_is_bad_input_not_a_blocked_run(tmp_path: Path) -> None:
    source = drop(tmp_path / "drop", 1, ("click", 3), x_a=1.5)
    next(source.glob("day=*/impressions/*.parquet")).write_bytes(b"PAR1 no")
    said = init(source, tmp_path / "s.toml")
    assert (said.code, "is no readable Parquet file" in said.error["what"]) == (2, True)


def test_only_the_newest_thirty_days_are_read(tmp_path: Path) -> None:
    source = drop(tmp_path / "drop", 32, ("click", 3), x_a=list(range(20)))
    next((source / "day=2026-03-02").glob("impressions/*.parquet")).write_bytes(b"not read")
    said = init(source, tmp_path / "s.toml")
    assert said.code == 0
    assert "newest 30 of the days 2026-03-01 to 2026-04-01" in (tmp_path / "s.toml").read_text()


def test_the_target_is_the_only_kind_else_the_rarest_else_the_first_by_name() -> None:
    def seen(impressions: int) -> Outcomes:
        return Outcomes(impressions, np.zeros(impressions), {})

    assert target_of({"click": seen(9)}) == "click"
    assert target_of({"click": seen(9), "buy": seen(2), "cart": seen(3)}) == "buy"
    assert target_of({"z": seen(2), "b": seen(2), "a": seen(3)}) == "b"


@pytest.mark.parametrize(("mean_hours", "days"), [(0.1, 1 / 24), (4.0, 1.0), (14.0, 3.0), (30.0, 7.0), (60.0, 14.0)])
def test_a_long_log_gets_the_smallest_window_that_covers_99_percent(mean_hours: float, days: float) -> None:
    hours = np.random.default_rng(1).exponential(mean_hours, 20_000)
    window = window_for({"buy": hours}, log_days=60, lag_hours=3.0)
    assert (window.days, window.fits, window.backtest_days) == (days, True, 3)
    assert window.covered == pytest.approx(1 - np.exp(-24 * days / mean_hours), abs=0.005)


@pytest.mark.parametrize("log_days", range(1, 40))
def test_a_window_that_fits_leaves_a_closed_day_before_the_back_test(log_days: int) -> None:
    hours = np.random.default_rng(2).exponential(60.0, 5_000)
    window = window_for({"buy": hours}, log_days=log_days, lag_hours=5.0)
    earlier = np.floor(log_days - 0.25 - window.days - window.backtest_days)  # as look_back finds it
    assert window.fits == (earlier - window.days - 0.25 >= 1)
    assert window.fits == (log_days >= 4)


def test_a_segment_is_suggested_only_for_delays_that_differ_beyond_doubt() -> None:
    rng, nothing = np.random.default_rng(3), np.zeros(0)

    def by(fast: float, slow: float, rows: int) -> Outcomes:
        values = {"a": rng.exponential(fast, rows), "b": rng.exponential(slow, rows)}
        return Outcomes(2 * rows, nothing, {"x_s": values})

    assert segment_for(by(5, 60, 200)) == "x_s"
    assert segment_for(by(5, 60, 20)) is None
    assert [segment_for(by(10, 10, 300)) for _ in range(50)] == [None] * 50


def test_young_impressions_do_not_shorten_the_delays_seen(tmp_path: Path) -> None:
    source = tmp_path / "drop"
    tables = {day: [shown(day, 100, x_a=list(range(100)))] for day in range(20)}
    late = {day: outcomes(tables[day][0], "buy", 1, hours=200.0) for day in range(20)}
    for day in range(20):
        early = outcomes(tables[day][0], "buy", 1, hours=1.0).gather_every(2)
        landed = [
            frame.filter(pl.col("arrived_at").dt.date() == FIRST + timedelta(days=day)) for frame in late.values()
        ]
        land(
            {"impressions": tables[day][0], "outcomes": pl.concat([early, *landed])},
            source,
            FIRST + timedelta(days=day),
        )
    text = init(source, tmp_path / "s.toml")
    assert text.code == 0
    assert "50 % of the outcomes" in (tmp_path / "s.toml").read_text()
