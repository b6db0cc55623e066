"""Run a flow in this process: plan it, perform what is wanted, write the report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from sameworld.records import Blocked, Refused, SameworldError
from sameworld.spec import Spec
from sameworld.store.artifacts import Store
from sameworld.store.runs import write_page
from sameworld.store.step import scratch_folder
from sameworld.store.times import day_end, time_text
from tasks import report
from tasks.flow import Handle, find_step, perform, retrain
from tasks.report import Written


@dataclass(frozen=True)
class Call:
    """A planned step: its key in the flow, the step's name, and its inputs, some of which are keys of other calls."""

    key: str
    name: str
    inputs: Mapping[str, Any]
    after: Call | None

    def needs(self) -> list[Call]:
        """Return the calls that must come before."""
        wanted = [value for value in self.inputs.values() if isinstance(value, Call)]
        return [*wanted, *([self.after] if self.after else [])]


@dataclass
class Plan:
    """A caller that only writes down what it is asked for."""

    calls: list[Call] = field(default_factory=list)
    _group: str = ""

    def __call__(self, name: str, *, after: Any = None, **inputs: Any) -> Call:
        """Plan a step (see ``tasks.flow.Caller``)."""
        call = Call(f"{self._group}{name}", name, inputs, after)
        self.calls.append(call)
        return call

    @contextmanager
    def group(self, name: str) -> Iterator[None]:
        """Plan the steps inside as ``name.step``."""
        outside, self._group = self._group, f"{self._group}{name}."
        try:
            yield
        finally:
            self._group = outside

    def only(self, key: str) -> list[Call]:
        """Return the call of a key and all that it needs, in order; a key that is not in the plan is refused."""
        found = {call.key: call for call in self.calls}
        if key not in found:
            raise Refused(what="no such step", got=repr(key), wanted=", ".join(found))
        wanted: set[str] = set()
        waiting = [found[key]]
        while waiting:
            call = waiting.pop()
            if call.key not in wanted:
                wanted.add(call.key)
                waiting += call.needs()
        return [call for call in self.calls if call.key in wanted]


def planned(cutoff: str) -> Plan:
    """Return the plan of one day's retraining."""
    plan = Plan()
    retrain(plan, cutoff)
    return plan


def run_day(
    store: Store,
    spec: Spec,
    day: date,
    *,
    only: str | None = None,
    redeliver: bool = False,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> Written:
    """Run one day and write its report; a gate that blocks is in the report, not raised.

    progress : called with the step's key, its number and how many there are, before each step
    """
    if spec.engine.kind != "local":
        raise Refused(what="this engine is not there yet", got=f"engine.kind = {spec.engine.kind!r}", wanted="'local'")
    started, cutoff = time.perf_counter(), day_end(day)
    plan = planned(time_text(cutoff))
    calls = plan.only(only) if only else plan.calls
    handles: dict[str, Handle | None] = {call.key: None for call in plan.calls}
    stopped = None
    for number, call in enumerate(calls, start=1):
        progress(call.key, number, len(calls))
        try:
            handles[call.key] = _perform(call, handles, store, spec, redeliver=redeliver)
        except Blocked as blocked:
            handles[call.key] = {"uri": blocked.uri, "reused": False} if blocked.uri else None
            stopped = blocked
            break
    seconds = time.perf_counter() - started
    return finish(store, spec, cutoff, handles, stopped=stopped, seconds=seconds, only=only)


def finish(
    store: Store,
    spec: Spec,
    cutoff: datetime,
    handles: Mapping[str, Handle | None],
    *,
    stopped: SameworldError | None,
    seconds: float,
    only: str | None = None,
) -> Written:
    """Write the report, and beside it Great Expectations' Data Docs of the checks that were made."""
    written = report.run(
        store=store, spec=spec, cutoff=cutoff, handles=handles, stopped=stopped, seconds=seconds, only=only
    )
    checks = [str(one["uri"]) for name, one in handles.items() if one and name.startswith("validate.")]
    if checks and not only and store.blobs.get(f"runs/{written.run}/data_docs/index.html") is None:
        with scratch_folder(store) as folder:
            find_step("validate.write_data_docs")(store, checks, folder)
            for page in sorted(path for path in folder.rglob("*") if path.is_file()):
                write_page(store, written.run, f"data_docs/{page.relative_to(folder).as_posix()}", page.read_bytes())
    return written


def _perform(call: Call, handles: Mapping[str, Handle | None], store: Store, spec: Spec, *, redeliver: bool) -> Handle:
    inputs = {name: handles[value.key] if isinstance(value, Call) else value for name, value in call.inputs.items()}
    if call.name == "ingest" and redeliver:
        inputs["redeliver"] = True
    return perform(call.name, store=store, spec=spec, **inputs)
