"""The trigger form that the DAGs share, and what its answers mean."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import Param

from sameworld.records import Refused

if TYPE_CHECKING:
    from sameworld.spec import Spec
    from sameworld.store.artifacts import Store

FORM = {
    "day": Param(
        None,
        type=["null", "string"],
        format="date",
        title="Day",
        description="The UTC day to run, as in 2026-03-01; what arrived later is not read. "
        "Empty: the day of the run's data interval. Never set it for a backfill: it names its days itself.",
    ),
    "spec": Param(
        "baseline",
        type="string",
        minLength=1,
        title="Spec",
        description="What the run is made of: a TOML file, or a name looked up in ./experiments, "
        "then in the installed project's experiments/.",
    ),
    "root": Param(
        os.environ.get("SAMEWORLD_ROOT", ".sameworld"),
        type="string",
        minLength=1,
        title="Root",
        description="Where artifacts, promotions and reports lie: a folder that every worker sees, "
        "or s3://bucket/prefix. The default is SAMEWORLD_ROOT of the DAG processor.",
    ),
    "set": Param(
        [],
        type="array",
        items={"type": "string", "pattern": "^[^=]+=.*$"},
        title="Set",
        description="Changes to the spec, one a line: key.path=value, as in train.days=30; the value is TOML.",
    ),
}


def cutoff_of(params: Mapping[str, Any], dag_run: Any = None, data_interval_start: datetime | None = None) -> str:
    """Return the cutoff of the day that a run is about: param ``day``, else its data interval's start.

    This is the one place where a run's day is chosen. Raises Refused for a run without either, for a backfill with a
    ``day`` (it would make the same day of each of its runs) and for a key of the conf that the form does not have.
    """
    from sameworld.store.times import day_end, parse_day, time_text

    unknown = sorted(set(dag_run.conf or {}) - set(FORM)) if dag_run else []
    if unknown:
        raise Refused(what="unknown key in the run's conf", got=", ".join(unknown), wanted=", ".join(FORM))
    day = params["day"]
    if day and dag_run and dag_run.run_type == "backfill":
        raise Refused(
            what="a backfill with a day in its conf", got=day, wanted="no day: each run of a backfill has its own",
            remedy="start the backfill again without it",
        )  # fmt: skip
    if day:
        return time_text(day_end(parse_day(day)))
    if data_interval_start is None:
        raise Refused(
            what="this run does not say which day it is about", got="neither a day nor a data interval",
            wanted="the param day, as in 2026-03-01", remedy='trigger it with {"day": "2026-03-01"}',
        )  # fmt: skip
    return time_text(day_end(data_interval_start.astimezone(UTC).date()))


def opened(params: Mapping[str, Any]) -> tuple[Store, Spec]:
    """Read the spec that a run's params name, and open the root."""
    from tasks.cli.specs import find_spec, use_threads

    spec = find_spec(params["spec"], params["set"])
    use_threads(spec)
    from sameworld.store.artifacts import Store

    return Store(params["root"]), spec
