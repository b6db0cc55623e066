"""The whole flow on three shops that look nothing alike: what the report says, and whether it is true."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr
from whole.report_contract import faults, row_sum_faults
from whole.small_days import examples_with_truth, made_by, run, shop, shop_run, tree_of, whole_root

from sameworld.models.bundle import load_bundle
from sameworld.models.scored_rows import judged_rows
from sameworld.store.artifacts import Store
from sameworld.store.parts import labels_of
from sameworld.store.times import parse_time
from tasks.report import Written

SHOPS = ("news_feed", "marketplace", "search")


@pytest.mark.parametrize("name", SHOPS)
def test_a_report_keeps_the_contract(name: str) -> None:
    _, written = shop_run(name)
    assert faults(written.report) == []
    assert row_sum_faults(written.report) == []


@pytest.mark.parametrize("name", SHOPS)
def test_the_twin_on_disk_is_the_report(name: str) -> None:
    _, written = shop_run(name)
    twin = json.loads(Path(written.json).read_text(encoding="utf-8"))
    assert sections(replace(written, report=twin)) == sections(written)
    assert {step["uri"] for step in twin["steps"]} == {step["uri"] for step in written.report["steps"]}


@pytest.mark.parametrize("name", SHOPS)
def test_the_flow_ends_in_a_decision_with_its_reasons(name: str) -> None:
    decision = shop_run(name)[1].report["decision"]
    assert decision["outcome"] in {"PROMOTE", "HOLD", "REJECT"}
    assert decision["reasons"]
    assert all(decision["reasons"])
    assert decision["promotion"]["promoted"] == (decision["outcome"] == "PROMOTE")


@pytest.mark.parametrize("name", SHOPS)
def test_every_row_of_a_clean_drop_is_taken_in_and_kept(name: str) -> None:
    log, made = shop_run(name)[1].report["log"], shop(name)
    assert {table.replace(".", "/"): sums["rows_in"] for table, sums in log.items()} == made.rows
    assert all(sums["kept"] == sums["rows_in"] for sums in log.values())


@pytest.mark.parametrize("name", ["news_feed", "marketplace"])
def test_the_model_orders_better_than_popularity(name: str) -> None:
    metric = shop_run(name)[1].report["metrics"]["ndcg@5"]
    assert metric["value"] > metric["popular"]["value"]


def unseen(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probability at position 1, popularity and true relevance of what was shown after the back-test's cutoff."""
    root, written = shop_run(name)
    rows = examples_with_truth(root, written, shop(name))
    model = load_bundle(made_by(root, written, "backtest.calibrate"))
    rows = rows.filter(rows["shown_at"] >= parse_time(model.cutoff))
    judged = judged_rows(rows, model)
    return judged.probability * judged.unseen, model.items.of(rows["item_id"].to_list()), rows["relevance"].to_numpy()


@pytest.mark.parametrize("name", SHOPS)
def test_the_probability_follows_the_truth_more_closely_than_popularity(name: str) -> None:
    probability, popularity, relevance = unseen(name)
    assert len(relevance) > 2000
    by_model, by_popularity = (spearmanr(one, relevance).statistic for one in (probability, popularity))
    assert by_model > max(by_popularity, 0.3)


@pytest.mark.parametrize("name", ["news_feed", "marketplace"])
def test_what_ships_is_calibrated_to_the_truth(name: str) -> None:
    root, written = shop_run(name)
    rows = examples_with_truth(root, written, shop(name))
    judged = judged_rows(rows, load_bundle(made_by(root, written, "calibrate")))
    assert (judged.probability * judged.unseen).mean() == pytest.approx(rows["relevance"].mean(), rel=0.15)


@pytest.mark.parametrize("name", ["news_feed", "marketplace"])
def test_examination_is_near_the_truth_at_every_position(name: str) -> None:
    found = shop_run(name)[1].report["position"]["examination"]
    truth = shop(name).truth.examination
    half = np.array([max(one["high"] - one["low"], 0.02) / 2 for one in found])
    off = np.abs(np.array([one["value"] for one in found]) - truth) / half
    assert len(found) == len(truth)
    assert off.max() < 2.5  # about five standard errors


def test_a_log_whose_policy_is_unknown_says_that_examination_cannot_be_told() -> None:
    report = shop_run("search")[1].report
    assert "propensities" in report["position"]["examination"]["cannot"]
    assert "cannot" in report["policy_value"]


@pytest.mark.parametrize("name", SHOPS)
def test_what_is_open_is_what_is_younger_than_window_and_lag(name: str) -> None:
    root, written = shop_run(name)
    labels = labels_of(made_by(root, written, "label"), Store(str(root))).collect()
    horizon = 24 * shop(name).window_days + made_by(root, written, "measure_delay").record["lag_hours"]
    assert (labels["closed"] == (labels["age_hours"] >= horizon)).all()
    assert written.report["labels"]["open"] == (~labels["closed"]).sum() > 0


def test_a_day_run_again_reuses_every_step_and_writes_nothing_else() -> None:
    root, first = shop_run("search")
    before = whole_root(root)
    again = run(root, tree_of(shop("search")), shop("search").days[-1])
    assert whole_root(root) == before
    assert [step["name"] for step in again.report["steps"] if not step["reused"]] == []
    assert again.run == first.run
    assert sections(again) == sections(first)


def test_a_day_run_again_leaves_one_promotion() -> None:
    root, written = shop_run("news_feed")
    run(root, tree_of(shop("news_feed")), shop("news_feed").days[-1])
    records = list(Store(str(root)).blobs.keys("promotions"))
    assert len(records) == int(written.report["decision"]["outcome"] == "PROMOTE")


def sections(written: Written) -> dict[str, Any]:
    """The report without what its own run cost and reused."""
    timeless = {**written.report, "run": {**written.report["run"], "seconds": 0}}
    return {name: one for name, one in timeless.items() if name != "steps"}
