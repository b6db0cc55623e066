"""Reads the DAG files as Airflow does, in a process of its own, and compares what they make with the flow."""

from __future__ import annotations

import ast
import fnmatch
import functools
import inspect
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from typing import Any

import pytest

from sameworld.store.code import PROJECT
from sameworld.store.step import Step
from tasks.flow import find_step
from tasks.run import planned

DAGS = PROJECT / "dags"
FILES = sorted(path for path in DAGS.glob("*.py") if path.name != "__init__.py")
HEAVY = ("great_expectations", "lightgbm", "polars", "pandas", "matplotlib", "sklearn")
READ = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(dag_folder=sys.argv[1])
about = lambda task: {
    "upstream": sorted(task.upstream_task_ids), "retries": task.retries, "backoff": task.retry_exponential_backoff,
    "timeout": task.execution_timeout and task.execution_timeout.total_seconds(), "doc": task.doc_md,
    "rule": task.trigger_rule.value, "group": task.task_group.group_id,
    "reschedule": getattr(task, "reschedule", False),
}
asked = lambda param: {"type": param.schema.get("type"), "description": param.description}
dags = {dag.fileloc: {
    "id": name, "tags": sorted(dag.tags), "doc": dag.doc_md, "catchup": dag.catchup, "active": dag.max_active_runs,
    "params": {key: asked(dag.params.get_param(key)) for key in dag.params},
    "tasks": {task.task_id: about(task) for task in dag.tasks},
} for name, dag in bag.dags.items()}
print("\\n" + json.dumps({"errors": bag.import_errors, "dags": dags, "loaded": sorted(sys.modules)}))
"""


@functools.cache
def read() -> dict[str, Any]:
    """Return what Airflow finds in the DAG folder."""
    with tempfile.TemporaryDirectory() as home:
        env = {**os.environ, "AIRFLOW_HOME": home, "PYTHONPATH": str(PROJECT), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
        done = subprocess.run([sys.executable, "-c", READ, str(DAGS)], env=env, cwd=home, capture_output=True,
                              text=True, timeout=120, check=True)  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def dag_of(file) -> dict[str, Any]:
    return read()["dags"][str(file)]


def retrain_tasks() -> dict[str, dict[str, Any]]:
    return dag_of(DAGS / "retrain.py")["tasks"]


def test_every_dag_file_gives_one_dag_of_its_name_and_nothing_else_does():
    assert read()["errors"] == {}
    assert {file: dag["id"] for file, dag in read()["dags"].items()} == {str(file): file.stem for file in FILES}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_dag_is_documented_by_its_file_and_has_tags_and_described_params(file):
    dag = dag_of(file)
    assert inspect.cleandoc(dag["doc"]) == ast.get_docstring(ast.parse(file.read_text()))
    assert "sameworld" in dag["tags"]
    assert not dag["catchup"]
    assert 1 <= dag["active"] <= 4
    assert all(param["description"] and param["type"] for param in dag["params"].values())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_task_is_documented_ends_in_time_and_is_tried_again_after_ever_longer_pauses(file):
    for name, about in dag_of(file)["tasks"].items():
        assert about["retries"] >= 1, name
        assert about["backoff"] > 1, name
        assert 0 < about["timeout"] <= 24 * 3600, name
        assert about["doc"], name


def test_the_tasks_and_edges_of_retrain_are_those_of_the_flow():
    calls = planned("2026-03-02T00:00:00Z").calls
    tasks = {name: about for name, about in retrain_tasks().items() if name not in {"cutoff", "drop", "report"}}
    edges = {call.key: sorted({one.key for one in call.needs()}) for call in calls}
    assert {name: about["upstream"] for name, about in tasks.items()} == edges | {"ingest": ["drop"]}
    grouped = {name for name, about in tasks.items() if about["group"] == "backtest"}
    assert grouped == {call.key for call in calls if call.key.startswith("backtest.")}


def test_retrain_waits_for_its_day_without_holding_a_worker_and_reports_after_everything():
    tasks = retrain_tasks()
    assert tasks["drop"]["reschedule"] is True
    assert tasks["drop"]["upstream"] == ["cutoff"]
    assert tasks["report"]["rule"] == "all_done"
    assert set(tasks["report"]["upstream"]) == {call.key for call in planned("2026-03-02T00:00:00Z").calls}


@pytest.mark.parametrize("call", planned("2026-03-02T00:00:00Z").calls, ids=lambda call: call.key)
def test_every_step_that_is_only_named_exists_and_takes_what_the_flow_hands_it(call):
    step = find_step(call.name)
    function = step.body if isinstance(step, Step) else step
    given = {"work", *call.inputs} - {"cutoff"} if isinstance(step, Step) else {"store", "spec", *call.inputs}
    wanted = {name for name, one in inspect.signature(function).parameters.items() if one.default is one.empty}
    assert wanted <= given <= set(inspect.signature(function).parameters)


@pytest.mark.parametrize("library", HEAVY)
def test_reading_the_dag_files_imports_no_library_that_computes(library):
    assert library not in read()["loaded"]


def test_an_installed_project_brings_what_the_dag_files_import():
    packages = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    for name in ("dags", "dags.parts", "tasks", "sameworld"):
        assert any(fnmatch.fnmatch(name, pattern) for pattern in packages["include"]), name
