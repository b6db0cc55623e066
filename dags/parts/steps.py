"""Makes an Airflow task of each step of a flow.

Steps are named, not imported: a task imports its own when it runs, so that reading a DAG file stays quick and the
processes that fork the tasks never start a compute library's threads.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import TaskGroup, XComArg, task

from dags.parts.failures import told
from dags.parts.form import cutoff_of, opened

if TYPE_CHECKING:
    from sameworld.sources.drop import Drop
    from sameworld.store.artifacts import Store
    from tasks.flow import Handle

# The cutoff is read where a task runs, not wired: a line from its task to nearly every other would hide the flow.
CUTOFF = "{{ ti.xcom_pull(task_ids='cutoff') }}"

PATIENCE = {
    "retries": 3,
    "retry_delay": timedelta(minutes=1),
    "retry_exponential_backoff": 2,
    "max_retry_delay": timedelta(minutes=30),
    "execution_timeout": timedelta(hours=4),  # a fit of 100 M rows takes about half an hour
}


@dataclass
class StepsAsTasks:
    """A flow's caller (see ``tasks.flow.Caller``); a step that reads no other starts when ``first`` has succeeded."""

    first: Any
    made: list[Any] = field(default_factory=list)

    def __call__(self, name: str, *, after: Any = None, **inputs: Any) -> Any:
        """Make the task of a step; its id is the step's key in the flow."""
        made_by = {key: value.operator.op_args[0] for key, value in inputs.items() if isinstance(value, XComArg)}
        as_task = task(task_id=name, doc_md=documentation(name), multiple_outputs=False)
        made = as_task(perform_step)(name, inputs, made_by)
        if after is not None:
            after >> made
        elif not made_by:
            self.first >> made
        self.made.append(made)
        return made

    def group(self, name: str) -> Any:
        """Show the steps called inside as one group."""
        return TaskGroup(name)


def await_day() -> Any:
    """Make the tasks that every run begins with: choose its day, wait for that day of the drop; return the last."""
    cutoff = task(task_id="cutoff", doc_md=choose_cutoff.__doc__)(choose_cutoff)()
    # Between two looks a waiting run holds no worker; a drop later than 20 hours is somebody's problem, so it fails.
    wait = task.sensor(
        mode="reschedule", poke_interval=300, timeout=timedelta(hours=20).total_seconds(), task_id="drop",
        doc_md=day_is_there.__doc__,
    )(day_is_there)(CUTOFF)  # fmt: skip
    cutoff >> wait
    return wait


def choose_cutoff(params: Any = None, dag_run: Any = None, data_interval_start: Any = None, ti: Any = None) -> str:
    """Choose the run's day (the param `day`, else the data interval's) and hand on its cutoff, the day's end."""
    with told(ti):
        return cutoff_of(params, dag_run, data_interval_start)


def day_is_there(cutoff: str, params: Any = None, ti: Any = None) -> bool:
    """Wait until the day lies in the drop, complete with its `_SUCCESS`; a day that was taken in is not waited for."""
    with told(ti):
        from sameworld.sources import open_source
        from sameworld.store.log import deliveries
        from sameworld.store.times import parse_time

        store, spec = opened(params)
        moment = parse_time(cutoff)
        day = (moment - timedelta(days=1)).date()
        return day in deliveries(store) or landed(open_source(spec.source), day)


def landed(drop: Drop, day: date) -> bool:
    """Say whether there is nothing to wait for: the day is there, or older than all that the drop will ever have."""
    return drop.is_there(day) or day < (drop.first_day() or day)


def perform_step(
    name: str, inputs: dict[str, Any], made_by: Mapping[str, str], params: Any = None, ti: Any = None
) -> Handle:
    """Run one step with the handles that XCom holds, each refused unless it is of the step that made it.

    made_by : the step that each handle is of; other inputs are plain values
    """
    with told(ti):
        from tasks.flow import perform

        store, spec = opened(params)
        for key, step in made_by.items():
            check_handle(store, inputs[key], step)
        return perform(name, store=store, spec=spec, **inputs)


def check_handle(store: Store, handle: Any, step: str) -> None:
    """Raise Refused unless a handle names artifacts of this root that the step's module made."""
    uris: Any = handle.get("uri") if isinstance(handle, dict) else handle
    for uri in uris if isinstance(uris, list) else [uris]:
        store.open(uri, step=step.partition(".")[0])


def documentation(name: str) -> str | None:
    """Return a step's docstring without importing it: its function's, else its module's.

    >>> print(documentation("promote").splitlines()[0])
    Write the promotion that the decision asks for, and say what happened.
    """
    module, _, function = name.partition(".")
    found = importlib.util.find_spec(f"tasks.{module}")
    if found is None or found.origin is None:
        return None
    tree = ast.parse(Path(found.origin).read_text(encoding="utf-8"))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    at = functions.get(function or "run")
    return (ast.get_docstring(at) if at else None) or ast.get_docstring(tree)
