"""The last task of a run: whatever happened, write what was found; then be as red as the run was."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import task
from airflow.sdk.exceptions import AirflowFailException

from dags.parts.failures import HANDLE, STOPPED, stopped_error, told
from dags.parts.form import opened
from dags.parts.steps import CUTOFF, StepsAsTasks
from sameworld.records import Blocked

if TYPE_CHECKING:
    from tasks.flow import Handle

FIRST = ("cutoff", "drop")
RAN = ("success", "failed")  # a task that was cleared and not reached again still holds an older try's XCom


def report_on(steps: StepsAsTasks) -> Any:
    """Make the task that reports on all steps, after the last of them is over."""
    names = [made.operator.task_id for made in steps.made]
    as_task = task(task_id="report", trigger_rule="all_done", doc_md=write_report.__doc__)
    report = as_task(write_report)(names, CUTOFF)
    steps.made >> report
    return report


def write_report(steps: list[str], cutoff: str, params: Any = None, dag_run: Any = None, ti: Any = None) -> str:
    """Write the run's report and return the URI of its page; fail if a step before it did.

    A blocked run has a report too: sections that were not reached say so. Where no step made anything there is none.
    """
    states = ti.get_task_states(dag_run.dag_id, run_ids=[dag_run.run_id])[dag_run.run_id]
    ran = [name for name in [*FIRST, *steps] if states.get(name) in RAN]
    failed = [name for name in ran if states[name] == "failed"]
    stopped = next((stopped_error(found) for name in failed if (found := ti.xcom_pull(name, key=STOPPED))), None)
    handles = {name: ti.xcom_pull(name, key=HANDLE) if name in ran else None for name in steps}
    why = str(stopped or f"failed: {', '.join(failed)}; the tasks' logs say why")
    if not (any(handles.values()) or isinstance(stopped, Blocked)):
        raise AirflowFailException(f"nothing to report, no step made anything. {why}")
    page = written(handles, cutoff, stopped, params=params, dag_run=dag_run, ti=ti)
    if failed:
        ti.xcom_push(HANDLE, page)
        raise AirflowFailException(f"the run did not finish. {why}. What was found: {page}")
    return page


def written(
    handles: Mapping[str, Handle | None], cutoff: str, stopped: Any, *, params: Any, dag_run: Any, ti: Any
) -> str:
    """Write the report's page and its JSON twin, and return the page's URI."""
    with told(ti):
        from sameworld.store.times import parse_time
        from tasks.run import finish

        store, spec = opened(params)
        seconds = (datetime.now(tz=UTC) - dag_run.start_date).total_seconds()
        return finish(store, spec, parse_time(cutoff), handles, stopped=stopped, seconds=seconds).html
