"""Runs ``retrain`` in a real Airflow, with its scheduler, and compares it with the same day in one process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from in_airflow.live_airflow import Airflow, live_airflow
from in_airflow.told_runs import (
    Backfilled,
    Steps,
    Told,
    backfilled,
    run_again,
    start_backfill,
    steps_before_the_registry,
    told,
)
from whole.small_days import content

from sameworld.store.artifacts import Store
from tasks.cli.specs import find_spec
from tasks.run import run_day

DAY = "2026-03-11"
DAYS = [date(2026, 3, 9), date(2026, 3, 10), date(2026, 3, 11)]
DONE_AGAIN = DAYS[1:]
AGAIN = ("evaluate", "backtest.train", "ingest")
TINY = """
[source]
kind = "closed_loop"
[source.world]
days = 12
requests_per_day = 100
users = 60
items = 40
candidates = 8
slots = 4
click_intercept = -0.5
[label]
window_days = 1
gains = { click = 1.0, purchase = 5.0 }
target = "click"
[train]
max_rounds = 20
[backtest]
days = 2
[evaluate]
replicates = 100
"""
NEVER = ["label.gains={ click = 1.0, gift = 1.0 }", "label.target=gift"]


@dataclass(frozen=True)
class Seen:
    """All that one Airflow was asked to do; ``made`` is what lay in the backfill's root after it, by name."""

    first: Told
    second: Told
    blocked: Told
    misspelt: Told
    dayless: Told
    filled: Backfilled
    refilled: Backfilled
    made: tuple[dict[str, str], dict[str, str], dict[str, str]]
    again: dict[str, tuple[Any, Any]]
    waiting: dict[str, str]
    loaded: set[str]
    left: list[str]


def compute_libraries(airflow: Airflow) -> set[str]:
    """Return the compute libraries in the memory of the services and their idle workers."""
    maps = [Path(one.path).name for process in airflow.processes() for one in process.memory_maps()]
    return {name for name in ("polars", "lightgbm", "libgomp") for file in maps if name in file}


def run_each_again(airflow: Airflow, last: Told, run: str) -> dict[str, tuple[Any, Any]]:
    """Run tasks again one by one, the last of the flow first, without what they made; return both handles of each."""
    return {task: (last.xcoms[task], run_again(airflow, run, task)) for task in AGAIN}


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    home = tmp_path_factory.mktemp("airflow")
    (home / "experiments").mkdir()
    spec, root = home / "experiments" / "baseline.toml", home / "backfilled"
    spec.write_text(TINY)
    with live_airflow(home) as airflow:
        airflow.ask("PATCH", "/api/v2/dags/retrain", {"is_paused": False})
        aside = {"spec": str(spec), "root": str(root)}
        named = {**aside, "day": DAY, "root": str(home / "root")}
        start_backfill(airflow, DAYS[0], DAYS[-1], behavior="none", conf=aside)
        alone = airflow.trigger("retrain", named)
        first, filled, made = told(airflow, alone), backfilled(airflow), content(root)
        airflow.until(lambda: not compute_libraries(airflow), 30, lambda: f"{compute_libraries(airflow)} are loaded")
        confs = ({"day": DAY}, {**named, "set": NEVER}, {"dya": DAY}, {})
        start_backfill(airflow, DONE_AGAIN[0], DONE_AGAIN[-1], behavior="completed", conf=aside)
        runs = [airflow.trigger("retrain", conf) for conf in confs]
        rest = [told(airflow, run) for run in runs]
        refilled, remade = backfilled(airflow), content(root)
        again = run_each_again(airflow, refilled.days[DAYS[-1]], refilled.run_ids[DAYS[-1]])
        waiting = airflow.task_states("retrain", airflow.runs("retrain", "scheduled")[0]["dag_run_id"])
        loaded = compute_libraries(airflow)
    left = [process.name() for process in airflow.processes()]
    return Seen(first, *rest, filled=filled, refilled=refilled, made=(made, remade, content(root)), again=again,
                waiting=waiting, loaded=loaded, left=left)  # fmt: skip


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[date, Steps], dict[str, str]]:
    """Run the backfill's days in one process: their steps, and what lies in the root then."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "tiny.toml").write_text(TINY)
    store, spec = Store(str(folder / "root")), find_spec(str(folder / "tiny.toml"))
    steps = {day: steps_before_the_registry(run_day(store, spec, day).report) for day in DAYS}
    return steps, content(folder / "root")


def without_decisions(made: dict[str, str]) -> dict[str, str]:
    return {name: digest for name, digest in made.items() if not name.startswith("artifacts/decide/")}


def test_a_run_in_airflow_makes_what_the_same_day_makes_in_one_process(seen, tmp_path):
    spec = tmp_path / "tiny.toml"
    spec.write_text(TINY)
    alone = run_day(Store(str(tmp_path / "other")), find_spec(str(spec)), date.fromisoformat(DAY)).report
    report = seen.first.report
    assert seen.first.state == "success"
    made = {(step["name"], step["fingerprint"]) for step in report["steps"]}
    assert made == {(step["name"], step["fingerprint"]) for step in alone["steps"]}
    assert len(made) > 21
    assert report["run"]["fingerprint"] == alone["run"]["fingerprint"]
    assert report["metrics"] == alone["metrics"]


def test_every_task_of_a_run_succeeds_at_its_first_try(seen):
    assert set(seen.first.tasks.values()) == {"success"}
    assert set(seen.first.tries.values()) == {1}


def test_a_run_of_the_same_day_with_the_forms_defaults_reuses_every_step(seen):
    assert seen.second.state == "success"
    assert all(step["reused"] for step in seen.second.report["steps"])
    assert not all(step["reused"] for step in seen.first.report["steps"])


def test_a_gate_that_blocks_makes_the_run_red_without_a_retry_and_still_reports(seen):
    assert seen.blocked.state == "failed"
    assert seen.blocked.tasks["validate.check_log"] == "failed"
    assert seen.blocked.tries["validate.check_log"] == 1
    assert seen.blocked.tasks["train"] == "upstream_failed"
    report = seen.blocked.report
    assert report["decision"]["outcome"] == "HOLD"
    assert any("gift" in reason for reason in report["decision"]["reasons"])
    assert "/artifacts/validate/" in seen.blocked.xcoms["validate.check_log"]["uri"]


def test_a_misspelt_key_is_refused_by_the_first_task_and_leaves_nothing_to_report(seen):
    assert seen.misspelt.state == "failed"
    assert (seen.misspelt.tasks["cutoff"], seen.misspelt.tries["cutoff"]) == ("failed", 1)
    assert seen.misspelt.tasks["ingest"] == "upstream_failed"
    assert seen.misspelt.xcoms["report"] is None


def test_fault_44_a_run_without_a_day_or_an_interval_is_refused_by_the_first_task_in_words(seen):
    assert seen.dayless.state == "failed"
    assert (seen.dayless.tasks["cutoff"], seen.dayless.tries["cutoff"]) == ("failed", 1)
    assert "does not say which day" in seen.dayless.stopped["what"]
    assert seen.dayless.xcoms["report"] is None


def test_fault_45_each_day_of_a_backfill_makes_what_it_makes_alone_in_one_process(seen, one_by_one):
    assert {day: one.state for day, one in seen.filled.days.items()} == dict.fromkeys(DAYS, "success")
    assert {day: steps_before_the_registry(one.report) for day, one in seen.filled.days.items()} == one_by_one[0]
    assert without_decisions(seen.made[0]) == without_decisions(one_by_one[1])
    assert {try_ for one in seen.filled.days.values() for try_ in one.tries.values()} == {1}


def test_fault_45_a_backfill_of_days_that_are_done_reuses_every_step(seen):
    for one in (seen.refilled.days[day] for day in DONE_AGAIN):
        assert (one.state, one.tries["train"]) == ("success", 2)
        assert all(step["reused"] for step in one.report["steps"])
    assert without_decisions(seen.made[1]) == without_decisions(seen.made[0])


def test_a_backfill_runs_as_many_days_at_once_as_it_was_asked_to(seen):
    assert (seen.filled.at_once, seen.refilled.at_once) == (2, 2)


def test_fault_43_tasks_cleared_and_run_again_from_last_to_first_make_the_same_bytes(seen):
    assert {name: new for name, (_, new) in seen.again.items()} == {
        name: {**old, "reused": not_reused(old)} for name, (old, _) in seen.again.items()
    }
    assert seen.made[2] == seen.made[1]


def not_reused(handle: dict[str, Any]) -> Any:
    return [False] * len(handle["uri"]) if isinstance(handle["uri"], list) else False


def test_the_scheduled_run_of_a_day_that_has_not_landed_waits_without_a_worker(seen):
    assert seen.waiting["drop"] == "up_for_reschedule"


def test_what_forks_the_tasks_has_no_compute_library_loaded(seen):
    assert seen.loaded == set()


def test_nothing_is_left_running(seen):
    assert seen.left == []
