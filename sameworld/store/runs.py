"""Runs: the pages and records that people open; they lie outside the artifacts and may be written again."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sameworld.records import Refused
from sameworld.spec import Spec
from sameworld.store.artifacts import Artifact, Store, fingerprint_of, read_record


def run_name(cutoff: datetime, spec: Spec, log: Artifact | None) -> str:
    """Name a run by its day, and by ten digits of its spec and of the log that it read."""
    what = fingerprint_of({"spec": spec.digest(), "log": log.fingerprint if log else None})
    return f"{(cutoff - timedelta(days=1)).date().isoformat()}-{what[:10]}"


def write_page(store: Store, run: str, name: str, content: bytes) -> str:
    """Write a file of a run and return its URI."""
    store.blobs.put(f"runs/{run}/{name}", content)
    return f"{store.root}/runs/{run}/{name}"


def run_names(store: Store) -> list[str]:
    """Return the runs that have a report, in the order of their days."""
    return sorted({key.split("/")[1] for key in store.blobs.keys("runs") if key.endswith("/report.json")})


def read_report(store: Store, run: str) -> dict[str, Any]:
    """Return a run's report; an unknown run is refused with the newest known ones."""
    report: dict[str, Any] | None = read_record(store, f"runs/{run}/report.json", dict)
    if report is None:
        known = run_names(store)[-5:]
        raise Refused(what="no such run", got=repr(run), wanted=", ".join(known) or "a run; there is none yet")
    return report
