"""What a live Airflow says of runs of ``retrain``: one run, the runs of a backfill, tasks that were run again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from in_airflow.live_airflow import Airflow

DAG = "retrain"
STOPPED = "stopped"  # the key of dags.parts.failures, whose import would bring Airflow's logging into this process
# What was in production goes into these, so what ran before them does too.
AFTER_THE_REGISTRY = ("decide", "promote")
Steps = set[tuple[str, str]]


@dataclass(frozen=True)
class Told:
    """What Airflow said of a run when it was over; ``stopped`` is the first failed task's error, if it left one."""

    state: str
    tasks: dict[str, str]
    tries: dict[str, int]
    xcoms: dict[str, Any]
    report: dict[str, Any]
    stopped: dict[str, Any]


@dataclass(frozen=True)
class Backfilled:
    """What a backfill's runs came to by day, and how many of them ran at once at most."""

    days: dict[date, Told]
    run_ids: dict[date, str]
    at_once: int


def told(airflow: Airflow, run: str) -> Told:
    """Wait until a run is over and return what it came to."""
    state, tasks = airflow.outcome(DAG, run, seconds=1200), airflow.tasks(DAG, run)
    ended = [one["task_id"] for one in tasks if one["state"] in {"success", "failed"}]
    xcoms = {name: airflow.xcom(DAG, run, name) for name in ended}
    states = {one["task_id"]: one["state"] for one in tasks}
    page = xcoms.get("report")  # read at once: a later run of the same day and spec writes it anew
    report = json.loads(Path(page).with_suffix(".json").read_text()) if page else {}
    failed = (name for name in ended if states[name] == "failed")
    stopped = next((found for name in failed if (found := airflow.xcom(DAG, run, name, key=STOPPED))), {})
    return Told(state, states, {one["task_id"]: one["try_number"] for one in tasks}, xcoms, report, stopped)


def steps_before_the_registry(report: Mapping[str, Any]) -> Steps:
    """Return the names and fingerprints of a report's steps that do not depend on what was in production."""
    made = {(step["name"], step["fingerprint"]) for step in report["steps"]}
    return {one for one in made if one[0] not in AFTER_THE_REGISTRY}


def start_backfill(airflow: Airflow, first: date, last: date, *, behavior: str, conf: Mapping[str, Any]) -> None:
    """Start a backfill of days, both included, two at a time, from the command line.

    A DAG has one active backfill: an earlier one is waited for, which Airflow says up to half a minute late.
    """
    airflow.until(lambda: not _active(airflow), 90, lambda: f"{_active(airflow)} are active")
    with airflow.held_still():
        airflow.command("backfill", "create", "--dag-id", DAG, "--from-date", first.isoformat(),
                        "--to-date", f"{last}T23:59:59", "--reprocess-behavior", behavior,
                        "--max-active-runs", "2", "--dag-run-conf", json.dumps(conf))  # fmt: skip


def _active(airflow: Airflow) -> list[int]:
    found = airflow.ask("GET", f"/api/v2/backfills?dag_id={DAG}")["backfills"]
    return [one["id"] for one in found if one["completed_at"] is None]


def backfilled(airflow: Airflow, *, seconds: float = 1200) -> Backfilled:
    """Wait until every run of the backfills so far is over and return what they came to."""

    def waiting() -> list[str]:
        runs = airflow.runs(DAG, "backfill")
        return [one["dag_run_id"] for one in runs if one["state"] not in ("success", "failed")]

    airflow.until(lambda: not waiting(), seconds, lambda: f"{waiting()} are not over")
    runs = airflow.runs(DAG, "backfill")
    ids = {datetime.fromisoformat(one["data_interval_start"]).date(): one["dag_run_id"] for one in runs}
    return Backfilled({day: told(airflow, run) for day, run in ids.items()}, ids, _at_once(runs))


def _at_once(runs: Iterable[Mapping[str, Any]]) -> int:
    """Return how many runs overlapped at most; one that ended as another began did not overlap it."""
    edges = [(one[edge], step) for one in runs for edge, step in (("start_date", 1), ("end_date", -1))]
    running = most = 0
    for _, step in sorted(edges):
        running += step
        most = max(most, running)
    return most


def uris_of(handle: Any) -> list[str]:
    """Return the artifacts of a handle; what is no step's, or made a plain record, has none."""
    uris = handle["uri"] if isinstance(handle, dict) else None
    return [uris] if isinstance(uris, str) else uris if isinstance(uris, list) else []


def run_again(airflow: Airflow, run: str, task: str) -> Any:
    """Take away what a task of a finished run made, clear that task alone, and return what it hands on after it ran."""
    for uri in uris_of(airflow.xcom(DAG, run, task)):
        shutil.rmtree(uri)
    asked = {"dry_run": False, "only_failed": False, "dag_run_id": run, "task_ids": [task]}
    airflow.ask("POST", f"/api/v2/dags/{DAG}/clearTaskInstances", asked)
    assert airflow.outcome(DAG, run) == "success"
    return airflow.xcom(DAG, run, task)
