"""How a step's error ends its task: what can't get better by trying again fails at once, in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from airflow.sdk.exceptions import AirflowFailException

from sameworld.records import Blocked, NotYet, Refused, SameworldError

HANDLE = "return_value"  # Airflow's own key of what a task returns
STOPPED = "stopped"


@contextmanager
def told(ti: Any) -> Iterator[None]:
    """End the task without a retry where the block is refused or blocked, after leaving the reason in XCom.

    What has not arrived yet, and whatever is not ours, goes through as it is: Airflow tries again.
    A gate's findings stay reachable: the handle of its artifact becomes the task's return value.
    """
    try:
        yield
    except NotYet:
        raise
    except SameworldError as error:
        ti.xcom_push(STOPPED, stopped_record(error))
        if isinstance(error, Blocked) and error.uri:
            ti.xcom_push(HANDLE, {"uri": error.uri, "reused": False})
        raise AirflowFailException(str(error)) from None


def stopped_record(error: SameworldError) -> dict[str, Any]:
    """Return an error as small plain JSON; ``stopped_error`` reads it.

    >>> stopped_error(stopped_record(Blocked(what="the log did not pass", findings=("BLOCK landed",)))).findings
    ('BLOCK landed',)
    >>> str(stopped_error(stopped_record(Refused(what="no such spec", got="basline"))))
    'no such spec: got basline'
    """
    if isinstance(error, Blocked):
        return {"what": error.what, "uri": error.uri, "findings": list(error.findings)}
    return error.as_record()


def stopped_error(record: dict[str, Any]) -> Any:
    """Return the Blocked or Refused of a record."""
    if "findings" in record:
        return Blocked(what=record["what"], uri=record["uri"], findings=tuple(record["findings"]))
    return Refused(**record)
