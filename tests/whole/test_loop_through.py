"""The loop and the early read through the whole flow: their sections, and that later days change nothing of them."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path
from typing import Any

import pytest
from whole.report_contract import faults
from whole.small_days import Tree, content, copied, days_of, fresh, loop_tree, made_by, run

from sameworld.sources.closed_loop_drop import write_drop
from sameworld.sources.closed_loop_parameters import WorldParameters
from tasks.report import Written

LAST = 10
WATCHED = ("artifacts/watch_loop/", "artifacts/read_early/")


@functools.cache
def world(seed: int = 3) -> Path:
    """A small closed loop that explores much, logs all its candidates, and whose outcomes land within a day."""
    out = fresh("loop") / "drop"
    sizes: Tree = {"requests_per_day": 100, "users": 100, "items": 40, "candidates": 8, "slots": 4}
    policy = {"tau": 1.0, "epsilon": 0.2, "propensity_share": 1.0}
    lags = {"fast_delay_days": 0.1, "slow_delay_days": 0.3, "purchase_lag_hours": 2.0, "purchase_intercept": 0.5}
    write_drop(out, WorldParameters(seed=seed, days=LAST + 1, window_days=1.0, **sizes, **policy, **lags))
    return out


def tree(drop: Path, **evaluate: Any) -> Tree:
    spec = {**loop_tree(drop, window_days=1, segments=[]), "backtest": {"days": 2}}
    return {**spec, "train": {"max_rounds": 20}, "evaluate": {**spec["evaluate"], **evaluate}}


@functools.cache
def ran() -> tuple[Path, Written]:
    root = fresh("root")
    return root, run(root, tree(world()), days_of(world())[LAST - 1], page=True)


def test_the_report_has_both_sections_and_its_page_draws_them() -> None:
    report = ran()[1].report
    assert faults(report) == []
    assert all("cannot" not in report[name] for name in ("loop", "early"))
    html = Path(ran()[1].html).read_text(encoding="utf-8")
    assert "by day, 10 days" in html
    assert "Half-width of the policy&#x27;s value by share of shuffled requests" in html


def test_what_was_explored_is_what_the_world_explores() -> None:
    loop = ran()[1].report["loop"]
    assert loop["explored_share"]["value"] == pytest.approx(0.2, abs=0.04)
    assert loop["own_choice_share"]["value"] == pytest.approx(1.0 - loop["explored_share"]["value"], abs=1e-9)
    assert loop["budget"]["epsilon"] == 0.2
    assert loop["exploration_cost"]["shuffled"] / loop["exploration_cost"]["requests"] == pytest.approx(0.2, abs=0.05)


def test_the_predicted_half_width_is_near_the_one_that_was_measured() -> None:
    budget = ran()[1].report["loop"]["budget"]
    assert budget["half_width"] == pytest.approx(budget["measured"]["half_width"], rel=0.25)
    assert budget["requests"] == ran()[1].report["policy_value"]["requests"]


def test_what_is_enough_is_the_least_share_that_gives_the_precision_asked_for() -> None:
    widths = {point["epsilon"]: point["half_width"] for point in ran()[1].report["loop"]["budget"]["curve"]}
    best = min(widths, key=lambda share: widths[share])
    asked = (widths[0.0] + widths[best]) / 2
    again = run(ran()[0], tree(world(), precision=asked), days_of(world())[LAST - 1], only="watch_loop.budget")
    enough = made_by(ran()[0], again, "watch_loop.budget").record["epsilon_enough"]
    assert 0.0 < enough <= best
    assert all(width > asked for share, width in widths.items() if share < enough)


def test_a_precision_out_of_reach_says_how_many_more_requests_it_takes() -> None:
    enough = run(ran()[0], tree(world(), precision=0.001), days_of(world())[LAST - 1], only="watch_loop.budget")
    reason = made_by(ran()[0], enough, "watch_loop.budget").record["epsilon_enough"]["cannot"]
    assert reason.startswith(
        "no share of shuffled requests would bring the half-width of the policy's value to 0.1% of it"
    )
    assert reason.endswith(" times as many requests")


def test_the_early_read_is_of_the_rows_that_no_metric_has() -> None:
    report = ran()[1].report
    assert report["early"]["from"] == report["evaluated"]["to"]
    assert report["early"]["to"] == report["run"]["cutoff"]
    assert report["early"]["calibration_ratio"]["low"] < 1.1
    assert report["early"]["calibration_ratio"]["high"] > 0.9


def test_fault_24_a_day_after_the_cutoff_of_another_world_changes_no_byte_of_either() -> None:
    drop = copied(world())
    late, other = days_of(drop)[LAST], world(4)
    shutil.rmtree(drop / f"day={late}")
    shutil.copytree(other / f"day={late}", drop / f"day={late}")
    root = fresh("noise")
    run(root, tree(drop), days_of(drop)[LAST - 1])
    before, after = (
        {at: one for at, one in content(where).items() if at.startswith(WATCHED)} for where in (ran()[0], root)
    )
    assert after.items() <= before.items()
    assert len(after) > 2 * LAST


def test_a_young_log_has_shares_but_no_trend_and_no_back_test_to_read() -> None:
    report = run(fresh("young"), tree(world()), days_of(world())[1]).report
    assert report["loop"]["explored_share"]["value"] == pytest.approx(0.2, abs=0.1)
    assert all("cannot" in one for one in (report["loop"]["support"]["trend"], report["loop"]["alarm"]))
    assert all("no back-test" in one["cannot"] for one in (report["early"], report["loop"]["epsilon_enough"]))


def test_a_log_younger_than_its_labels_says_that_of_the_loop_too() -> None:
    report = run(fresh("newborn"), tree(world()), days_of(world())[0]).report
    assert "completeness is identified only up to the age of the log" in report["loop"]["cannot"]
