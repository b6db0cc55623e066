"""A sequence of days on one root: what is judged is what an earlier day shipped, and production only moves forward."""

from __future__ import annotations

import functools
from datetime import date, timedelta
from pathlib import Path

import polars as pl
from whole.report_contract import faults
from whole.small_days import Tree, content, days_of, fresh, loop_drop, loop_tree, made_by, run

from sameworld.models.bundle import load_bundle
from sameworld.store.artifacts import Store
from sameworld.store.parts import labels_of
from sameworld.store.promotions import Promotion, promotions
from sameworld.store.times import day_end, parse_time
from tasks.report import Written

# A metric that a small model beats its baseline in, and no guardrail: these tests need promotions to happen.
KEEN: Tree = {"metric": "normalised_entropy", "guardrails": {}, "margin": 0.05}
LAST, RUN_DAYS, WINDOW, JUDGED = 13, 6, 1, 2


def tree() -> Tree:
    base = loop_tree(loop_drop(days=LAST), target="click", window_days=WINDOW)
    return {**base, "decide": KEEN, "backtest": {"days": JUDGED}}


def day(number: int) -> date:
    return days_of(loop_drop(days=LAST))[number]


@functools.cache
def sequence() -> tuple[Path, dict[date, Written]]:
    """The last days one after the other; each one's back-test was shipped by one before, where that one was run."""
    root = fresh("sequence")
    return root, {day(number): run(root, tree(), day(number)) for number in range(LAST - RUN_DAYS, LAST)}


def earlier_cutoff(root: Path, written: Written) -> str:
    return str(made_by(root, written, "look_back").record["cutoff"])


def judged_days() -> list[tuple[Written, Written]]:
    """Pairs: a day, and the day that shipped what it judged."""
    root, found = sequence()
    by_cutoff = {one.report["run"]["cutoff"]: one for one in found.values()}
    pairs = [(one, by_cutoff.get(earlier_cutoff(root, one))) for one in found.values()]
    return [(one, shipped) for one, shipped in pairs if shipped]


def test_the_bundle_judged_is_the_one_that_the_earlier_day_shipped() -> None:
    pairs = judged_days()
    assert len(pairs) >= 2
    for one, shipped in pairs:
        assert one.report["model"]["backtest_bundle"] == shipped.report["model"]["bundle"]


def test_what_an_earlier_day_shipped_is_reused_not_made_again() -> None:
    for one, _ in judged_days():
        steps = {step["name"]: step["reused"] for step in one.report["steps"]}
        assert all(reused for name, reused in steps.items() if name.startswith("backtest."))
        assert not steps["calibrate"]


def test_shipping_the_earlier_day_afterwards_reuses_what_was_judged() -> None:
    root = fresh("after")
    later = run(root, tree(), day(LAST - 1), only="backtest.calibrate")
    earlier = parse_time(earlier_cutoff(root, later)).date() - timedelta(days=1)
    shipped = run(root, tree(), earlier, only="calibrate")
    assert made_by(root, shipped, "calibrate").uri == made_by(root, later, "backtest.calibrate").uri
    steps = {step["name"]: step["reused"] for step in shipped.report["steps"]}
    assert all(steps[name] for name in ("label", "assemble", "train", "calibrate"))


@functools.cache
def backfilled() -> tuple[Path, Written, list[Promotion]]:
    """An old day run after all later ones, and the promotions from before it."""
    root, _ = sequence()
    before = promotions(Store(str(root)))
    return root, run(root, tree(), day(LAST - RUN_DAYS - 1)), before


def test_a_day_backfilled_under_later_ones_and_the_same_day_alone_give_the_same_bytes() -> None:
    alone = fresh("alone")
    run(alone, tree(), day(LAST - RUN_DAYS - 1))
    mine, theirs = content(alone), content(backfilled()[0])
    assert {name.split("/")[1] for name in mine} >= {"label", "calibrate", "evaluate", "look_back", "decide"}
    assert {name: (digest, theirs.get(name)) for name, digest in mine.items() if theirs.get(name) != digest} == {}


def test_the_earlier_cutoff_leaves_the_window_the_lag_and_the_days_to_judge() -> None:
    root, found = sequence()
    for today, one in found.items():
        lag = timedelta(hours=made_by(root, one, "measure_delay").record["lag_hours"])
        latest = day_end(today) - lag - timedelta(days=WINDOW + JUDGED)
        assert latest - timedelta(days=1) < parse_time(earlier_cutoff(root, one)) <= latest


def test_a_bundle_is_scored_only_on_what_was_shown_after_its_cutoff_and_has_closed() -> None:
    root, found = sequence()
    for one in found.values():
        rows = made_by(root, one, "evaluate").scan("judged").collect()
        cutoff = parse_time(load_bundle(made_by(root, one, "backtest.calibrate")).cutoff)
        assert len(rows)
        assert rows["closed"].all()
        assert rows["shown_at"].min() >= cutoff + timedelta(hours=6)  # type: ignore[operator]


def test_a_champion_that_saw_the_answers_is_not_compared() -> None:
    found = sequence()[1]
    young = [one for one in found.values() if "cannot" in one.report["comparison"]]
    reasons = [one.report["comparison"]["cannot"] for one in young]
    assert reasons[0] == "nothing was in production before this run's cutoff"
    assert any("no promotion is old enough" in reason for reason in reasons)


def test_an_old_enough_champion_is_compared_on_the_rows_that_were_judged() -> None:
    root, found = sequence()
    compared = [one for one in found.values() if "cannot" not in one.report["comparison"]]
    assert compared, [one.report["decision"] for one in found.values()]
    for one in compared:
        about = one.report["comparison"]
        assert parse_time(about["cutoff"]) <= parse_time(earlier_cutoff(root, one))
        assert about["rows"] == one.report["evaluated"]["rows"]
        assert {"ndcg@5", "normalised_entropy"} <= set(about["metrics"])


def test_the_delta_to_the_champion_is_the_difference_of_the_two_on_the_same_rows() -> None:
    """Where the champion is the very bundle that is judged, there is none."""
    met = 0
    for one in sequence()[1].values():
        about = one.report["comparison"]
        judged = made_by(sequence()[0], one, "backtest.calibrate").content_hash
        if about.get("bundle") == judged:
            assert {(d["value"], d["low"], d["high"]) for d in about["metrics"].values()} == {(0.0, 0.0, 0.0)}
            met += 1
    assert met


def test_every_report_of_the_sequence_keeps_the_contract() -> None:
    assert {str(day): faults(one.report) for day, one in sequence()[1].items() if faults(one.report)} == {}


def test_a_refresh_of_the_champion_that_cannot_be_compared_yet_is_promoted_as_a_refresh() -> None:
    _, found = sequence()
    refreshed = [one for one in found.values() if "no promotion is old enough" in str(one.report["comparison"])]
    assert any("a refresh of the same recipe" in " ".join(one.report["decision"]["reasons"]) for one in refreshed)


def test_fault_35_a_backfilled_day_never_takes_production_back() -> None:
    root, late, before = backfilled()
    assert [one.cutoff for one in before] == sorted({one.cutoff for one in before}) != []
    assert promotions(Store(str(root))) == before
    assert late.report["decision"]["promotion"]["promoted"] is False


def test_fault_35_a_run_day_run_again_decides_as_it_did() -> None:
    root, found = sequence()
    first = found[day(LAST - RUN_DAYS + 1)]
    before = promotions(Store(str(root)))
    again = run(root, tree(), day(LAST - RUN_DAYS + 1))
    names = ("outcome", "reasons", "bundle", "deltas")
    assert {n: again.report["decision"][n] for n in names} == {n: first.report["decision"][n] for n in names}
    assert promotions(Store(str(root))) == before


def test_truth_closed_labels_are_the_same_at_every_later_cutoff_with_the_same_lag() -> None:
    root, found = sequence()
    closed: dict[float, pl.DataFrame] = {}
    for one in found.values():
        lag = made_by(root, one, "measure_delay").record["lag_hours"]
        labels = labels_of(made_by(root, one, "label"), Store(str(root))).filter("closed").collect()
        labels = labels.select("request_id", "item_id", "gain", "target", "is_click", "is_purchase")
        if lag in closed:
            both = closed[lag].join(labels, on=["request_id", "item_id"], how="inner", suffix="_later")
            assert len(both) == len(closed[lag])
            assert both.select((pl.col(name) == pl.col(f"{name}_later")).all() for name in ("gain", "target")).row(
                0
            ) == (True, True)
        closed[lag] = labels
    assert len(closed) < len(found)
