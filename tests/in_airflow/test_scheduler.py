"""Runs ``retrain`` in a real Airflow, with its scheduler, and compares it with the same day in one process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from in_airflow.live_airflow import Airflow, live_airflow

from sameworld.store.artifacts import Store
from tasks.cli.specs import find_spec
from tasks.run import run_day

DAY = "2026-03-11"
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
class Told:
    """What Airflow said of a run when it was over."""

    state: str
    tasks: dict[str, str]
    tries: dict[str, int]
    xcoms: dict[str, Any]
    report: dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """All that one Airflow was asked to do."""

    first: Told
    second: Told
    blocked: Told
    misspelt: Told
    waiting: dict[str, str]
    loaded: set[str]
    left: list[str]


def told(airflow: Airflow, run: str) -> Told:
    state, tasks = airflow.outcome("retrain", run), airflow.tasks("retrain", run)
    ended = [one["task_id"] for one in tasks if one["state"] in {"success", "failed"}]
    xcoms = {name: airflow.xcom("retrain", run, name) for name in ended}
    states = {one["task_id"]: one["state"] for one in tasks}
    page = xcoms["report"]  # read at once: a later run of the same day and spec writes it anew
    report = json.loads(Path(page).with_suffix(".json").read_text()) if page else {}
    return Told(state, states, {one["task_id"]: one["try_number"] for one in tasks}, xcoms, report)


def compute_libraries(airflow: Airflow) -> set[str]:
    """Return the compute libraries in the memory of the services and their idle workers."""
    maps = [Path(one.path).name for process in airflow.processes() for one in process.memory_maps()]
    return {name for name in ("polars", "lightgbm", "libgomp") for file in maps if name in file}


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    home = tmp_path_factory.mktemp("airflow")
    (home / "experiments").mkdir()
    spec = home / "experiments" / "baseline.toml"
    spec.write_text(TINY)
    with live_airflow(home) as airflow:
        airflow.ask("PATCH", "/api/v2/dags/retrain", {"is_paused": False})
        named = {"day": DAY, "spec": str(spec), "root": str(home / "root")}
        first = told(airflow, airflow.trigger("retrain", named))
        airflow.until(lambda: not compute_libraries(airflow), 30, lambda: f"{compute_libraries(airflow)} are loaded")
        confs = ({"day": DAY}, {**named, "set": NEVER}, {"dya": DAY})
        runs = [airflow.trigger("retrain", conf) for conf in confs]
        rest = [told(airflow, run) for run in runs]
        scheduled = airflow.runs("retrain", "scheduled")
        waiting = airflow.task_states("retrain", scheduled[0])
        loaded = compute_libraries(airflow)
    left = [process.name() for process in airflow.processes()]
    return Seen(first, *rest, waiting=waiting, loaded=loaded, left=left)


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


def test_the_scheduled_run_of_a_day_that_has_not_landed_waits_without_a_worker(seen):
    assert seen.waiting["drop"] == "up_for_reschedule"


def test_what_forks_the_tasks_has_no_compute_library_loaded(seen):
    assert seen.loaded == set()


def test_nothing_is_left_running(seen):
    assert seen.left == []
