"""The proof: small worlds through the real command, and what turns figures by seed into claims."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from cli.terminal import Said, sameworld
from scipy.stats import ttest_rel

from sameworld.page.proof import render_proof
from tasks.cli.proof_arms import Arm, Blind, Unaware, run_arm
from tasks.cli.proof_estimates import failure_record, paired
from tasks.cli.proof_failures import Found
from tasks.cli.proof_oracle import _under_outages
from tasks.cli.proof_shop import Shop, launch, share_served
from tasks.cli.proof_worlds import ALL, AUC, CALM, DEFAULT, DELAY, LOOP, NAMES, NULLS, QUICK, Course

OUTAGES = ("x_user_0", "x_affinity", "x_item_ctr")


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> tuple[Said, Path]:
    root = tmp_path_factory.mktemp("proof")
    return sameworld("prove", "--quick", "--root", root, "--json"), root


def failures(said: Said) -> dict[str, Any]:
    return {one["name"]: one for one in said.document["failures"]}


def is_estimate(value: Any) -> bool:
    return set(value) == {"cannot"} or value["low"] <= value["value"] <= value["high"]


def shop(seed: int = 3, days: int = 3, **changes: Any) -> Shop:
    proof = QUICK.proof(NULLS)
    made = Shop(proof.of_seed(seed, requests_per_day=40, **changes))
    for _ in range(days):
        made.serve(launch, "launch")
    return made


def world(seed: int, **figures: float) -> Found:
    days: dict[str, dict[str, dict[int, float]]] = {who: {"offline": {}, "truth": {}} for who in ("broken", "fixed")}
    return Found(DELAY, seed, {name.replace("_", ".", 1): value for name, value in figures.items()}, days)


def holding(*worlds: Found) -> dict[str, Any]:
    return {claim["what"]: claim["holds"] for claim in failure_record(DEFAULT.proof(DELAY), worlds)["claims"]}


def test_every_failure_has_the_shape_of_the_contract(said: tuple[Said, Path]) -> None:
    found = failures(said[0])
    assert (said[0].code, tuple(found)) == (0, NAMES)
    for failure in found.values():
        arms = [failure[who][what] for who in ("broken", "fixed") for what in ("offline", "truth")]
        assert all(map(is_estimate, [*arms, failure["reward_share"]["broken"], failure["reward_share"]["fixed"]]))
        assert failure["seeds"] == [201, 202]
        assert failure["claims"]
        assert set(failure["days"]) == set(failure["serving"]) == {"broken", "fixed"}
        assert {claim["what"] for claim in failure["claims"]} <= set(failure["paired"])
        assert failure["reward_share"]["oracle"] == 1.0


@pytest.mark.parametrize("name", NAMES)
def test_each_failure_costs_reward_that_the_product_gets_back(said: tuple[Said, Path], name: str) -> None:
    share = failures(said[0])[name]["reward_share"]
    assert share["fixed"]["value"] > share["broken"]["value"] + 0.02


@pytest.mark.parametrize("name", [DELAY, NULLS, ALL])
def test_the_broken_arm_promises_too_much_and_the_fixed_one_does_not(said: tuple[Said, Path], name: str) -> None:
    failure = failures(said[0])[name]
    gap = {who: failure[who]["truth"]["value"] - failure[who]["offline"]["value"] for who in ("broken", "fixed")}
    assert gap["broken"] > 0.02
    assert abs(gap["fixed"]) < gap["broken"]


def test_truth_falls_where_a_model_feeds_on_its_own_choices(said: tuple[Said, Path]) -> None:
    broken = failures(said[0])[LOOP]["broken"]
    assert broken["truth"]["value"] < broken["early"]["truth"]["value"]


def test_the_page_is_written_beside_the_document_and_fetches_nothing(said: tuple[Said, Path]) -> None:
    page = (said[1] / "prove" / "report.html").read_text(encoding="utf-8")
    assert page == render_proof(said[0].document)
    assert page.count("<svg") == 2 * len(NAMES)
    assert not [word for word in ("<script", "src=", 'href="http', "url(http", "None", "nan") if word in page]


def test_stderr_tells_the_progress_and_stdout_has_the_document_alone(said: tuple[Said, Path]) -> None:
    assert said[0].err.count("\n") == 2 * len(NAMES)
    assert said[0].out.startswith("{")


def test_a_paired_interval_is_that_of_the_paired_t_test() -> None:
    one, other = np.random.default_rng(1).normal(size=(2, 6))
    worlds = [world(seed, fixed_truth=a, broken_truth=b) for seed, (a, b) in enumerate(zip(one, other, strict=True))]
    told = ttest_rel(one, other).confidence_interval(0.95)
    found = paired(worlds, "fixed.truth", "broken.truth")
    assert [found["low"], found["high"]] == pytest.approx([told.low, told.high])


def test_a_claim_that_is_not_met_does_not_hold() -> None:
    noise = (0.0, 0.001, -0.001)
    worlds = [world(n, broken_truth=0.8 - e, broken_offline=0.9, fixed_truth=0.85 + e, fixed_offline=0.82)
              for n, e in enumerate(noise)]  # fmt: skip
    assert list(holding(*worlds).values()) == [False, False, False]


def test_a_claim_that_is_met_holds() -> None:
    noise = (0.0, 0.001, -0.001)
    worlds = [world(n, broken_truth=0.95 - e, broken_offline=0.9, fixed_truth=0.825 + e, fixed_offline=0.82)
              for n, e in enumerate(noise)]  # fmt: skip
    assert list(holding(*worlds).values()) == [True, True, True]


def test_a_mean_near_nothing_with_a_wide_interval_is_within_nothing() -> None:
    worlds = [world(n, broken_truth=1.2, broken_offline=0.9 + e, fixed_truth=0.82 + e, fixed_offline=0.82)
              for n, e in enumerate((-0.02, 0.0, 0.02))]  # fmt: skip
    assert list(holding(*worlds).values()) == [True, False, True]


@pytest.mark.parametrize(
    ("asked", "got"),
    [(["--quick", "--full"], "--full and --quick"), (["--set", "label.windw_days=3"], "'label.windw_days'"),
     (["--root", "gopher://worlds"], "gopher")],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_before_a_world_is_run(tmp_path: Path, asked: list[str], got: str) -> None:
    root = [] if "--root" in asked else ["--root", str(tmp_path)]
    said = sameworld("prove", *asked, *root, "--json")
    assert (said.code, set(said.document["error"])) == (2, {"what", "got", "wanted", "remedy"})
    assert got in said.document["error"]["got"]


def test_one_world_has_no_interval_and_says_so() -> None:
    (found,) = {str(holds) for holds in holding(world(1, broken_truth=1.0, broken_offline=0.9)).values()} - {
        "{'cannot': 'an interval over seeds needs two worlds that have this figure, and there are 0'}"
    }
    assert "there are 1" in found


def test_the_warehouse_has_what_serving_lacked_and_nothing_else_differs() -> None:
    made = shop()
    served, complete = made.shown(0, 3), made.shown(0, 3, complete=True).select(made.shown(0, 3).columns)
    same = served.select(pl.exclude("null_reason", "^x_.*$")).equals(
        complete.select(pl.exclude("null_reason", "^x_.*$"))
    )
    assert same
    assert served.select(OUTAGES).null_count().sum_horizontal().item() > 0
    assert complete.select(OUTAGES).null_count().sum_horizontal().item() == 0
    known = served.select(served["x_affinity"] == complete["x_affinity"]).to_series()
    assert known.drop_nulls().all()


def test_outcomes_that_have_not_arrived_are_not_known_yet() -> None:
    made = Shop(DEFAULT.proof(DELAY).of_seed(2, requests_per_day=60, **CALM))
    for _ in range(3):
        made.serve(launch, "launch")
    young, final = made.shown(0, 3, known_by=made.now), made.shown(0, 3)
    assert 0 < young["purchase"].sum() < 0.8 * final["purchase"].sum()
    assert (young["purchase"] <= final["purchase"]).all()


def test_a_random_order_brings_what_the_truth_says_of_it() -> None:
    made = shop()
    day = made.days[0]
    value = np.take_along_axis(day.truth.gain, day.order, axis=1) @ day.truth.theta
    best = -np.sort(-day.truth.gain, axis=1)[:, : len(day.truth.theta)] @ day.truth.theta
    assert share_served([day]) == pytest.approx(value.sum() / best.sum())


def test_the_oracles_outages_come_at_the_worlds_own_rates() -> None:
    made = shop(days=3)
    rows = made.shown(0, 3, complete=True)
    drawn = [_under_outages(rows, ["x_affinity", "x_item_ctr", "x_hour"], made.parameters, n) for n in range(60)]
    missing = np.isnan(np.concatenate(drawn)).mean(axis=0)
    assert missing == pytest.approx([1 - 0.85 * 0.88, 1 - 0.85 * 0.92, 0.0], abs=0.02)


def test_an_unaware_team_says_its_auc_of_the_day_that_it_served() -> None:
    course = Course(ships=(2,), days=4, judged_days=1)
    made = Shop(QUICK.proof(LOOP).of_seed(5, exploring=False, requests_per_day=60))
    arm = run_arm(course, made, Unaware(made, course, Blind(loop=True), "click"), target="click", metric=AUC)
    assert (sorted(arm.offline), sorted(arm.truth)) == ([2, 3], [2, 3])
    assert all(0.4 < value < 1.0 for value in arm.offline.values())


def test_the_mean_of_days_that_nobody_spoke_of_is_none() -> None:
    arm = Arm(shop(days=1), offline={1: 0.5})
    assert (arm.mean("offline", [1, 2]), arm.mean("offline", [2])) == (0.5, None)
