"""Retrain the ranking model on everything known at a day's end, judge it, and decide whether it ships.

Each box is a step of `sameworld run`, with the same inputs and the same bytes out; click one for what it does.
What is there already is reused, so a retry, a second run or a backfill of a day that ran costs next to nothing.

**Start one by hand** with Trigger, and name the day:

```json
{"day": "2026-03-01", "spec": "baseline", "set": ["train.days=30"]}
```

Over REST or the command line leave the logical date empty (`"logical_date": null`): a run by hand that takes a
midnight as its logical date stands in the way of a backfill of that day.

**Backfill** (both ends included; no `day` in the conf, each run has its own):

```
airflow backfill create --dag-id retrain --from-date 2026-03-01 --to-date 2026-03-07T23:59:59
```

**When it is red**, open the failed task's log, it says what to do. A gate that blocks (`validate.…`) stops the run
at once, and `report` still writes what was found. A day that has not landed holds no worker: `drop` looks again every
five minutes, for 20 hours. One step runs at a time in each run, because a step may use the whole machine.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG, CronDataIntervalTimetable

from dags.parts.form import FORM
from dags.parts.report import report_on
from dags.parts.steps import CUTOFF, PATIENCE, StepsAsTasks, await_day
from tasks.flow import retrain

with DAG(
    "retrain",
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
    start_date=datetime(2020, 1, 1, tzinfo=UTC),  # days before it can't be backfilled
    catchup=False,
    max_active_runs=2,  # one may be waiting for its day while somebody runs another
    max_active_tasks=1,
    params=FORM,
    default_args=PATIENCE,
    doc_md=__doc__,
    tags=["sameworld", "daily"],
):
    steps = StepsAsTasks(first=await_day())
    retrain(steps, CUTOFF)
    report_on(steps)
