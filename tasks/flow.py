"""The order of the steps, written once, for every entrance.

A flow only says which step reads what. The command line plans it and runs the plan in this process; a DAG makes a task
of each step. Steps are named by module, ``validate.check_log`` by module and function, so that reading a flow imports
none of them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

if TYPE_CHECKING:  # a scheduler that reads the flow loads no library that computes
    from sameworld.spec import Spec
    from sameworld.store.artifacts import Store


class Handle(TypedDict):
    """What one step hands to the next, small and plain JSON: where it wrote, and whether it was there already."""

    uri: Any
    reused: Any


class Caller(Protocol):
    """How a flow calls a step: at once, as a plan, or as an Airflow task."""

    def __call__(self, name: str, *, after: Any = None, **inputs: Any) -> Any:
        """Call a step; ``after`` orders it without being an input."""

    def group(self, name: str) -> AbstractContextManager[Any]:
        """Name the steps called inside ``name.step``."""


def ship(step: Caller, cutoff: Any, *, gated: bool) -> dict[str, Any]:
    """Make a bundle of all that is known at a cutoff; ``gated`` puts the checks between the steps."""

    def check(what: str, **inputs: Any) -> Any:
        return step(f"validate.{what}", cutoff=cutoff, **inputs) if gated else None

    days = step("ingest", cutoff=cutoff)
    log = step("resolve", days=days, cutoff=cutoff)
    sound = check("check_log", log=log)
    delay = step("measure_delay", log=log, cutoff=cutoff, after=sound)
    labels = step("label", log=log, delay=delay, cutoff=cutoff)
    settled = check("check_labels", labels=labels, delay=delay)
    repeats = step("find_repeats", labels=labels)
    examples = step("assemble", log=log, labels=labels, delay=delay, cutoff=cutoff, after=settled)
    trainable = check("check_training_set", examples=examples)
    models = step("train", log=log, examples=examples, repeats=repeats, after=trainable)
    bundle = step("calibrate", models=models, examples=examples, delay=delay)
    made = {"log": log, "delay": delay, "labels": labels, "repeats": repeats, "examples": examples}
    return {**made, "bundle": bundle}


def retrain(step: Caller, cutoff: Any) -> None:
    """One day: ship what is known now, judge the recipe by what it would have shipped earlier, decide, promote.

    The bundle that is judged is the one that an earlier cutoff shipped: where that day ran, it is reused as it is.
    """
    now = ship(step, cutoff, gated=True)
    step("measure_skew", log=now["log"], delay=now["delay"], cutoff=cutoff, after=now["examples"])
    look_back = step("look_back", log=now["log"], delay=now["delay"], cutoff=cutoff)
    with step.group("backtest"):
        earlier = ship(step, look_back, gated=False)
    evaluation = step(
        "evaluate", log=now["log"], examples=now["examples"], repeats=now["repeats"], bundle=earlier["bundle"],
        look_back=look_back,
    )  # fmt: skip
    step(
        "measure_leak", log=now["log"], delay=now["delay"], examples=now["examples"], bundle=earlier["bundle"],
        look_back=look_back, cutoff=cutoff,
    )  # fmt: skip
    step("watch_loop", log=now["log"], labels=now["labels"], cutoff=cutoff)
    step("watch_loop.budget", log=now["log"], bundle=earlier["bundle"], evaluation=evaluation)
    step("read_early", examples=now["examples"], delay=now["delay"], bundle=earlier["bundle"], look_back=look_back)
    drill = step("drill", log=now["log"], examples=now["examples"], evaluation=evaluation, bundle=earlier["bundle"])
    decision = step(
        "decide", evaluation=evaluation, drill=drill, bundle=now["bundle"], look_back=look_back, delay=now["delay"],
        cutoff=cutoff,
    )  # fmt: skip
    step("promote", log=now["log"], decision=decision, bundle=now["bundle"], evaluation=evaluation)


def find_step(name: str) -> Callable[..., Any]:
    """Return the step of a name: ``label`` is ``tasks.label.run``, ``validate.check_log`` that function."""
    module, _, function = name.partition(".")
    found: Callable[..., Any] = getattr(importlib.import_module(f"tasks.{module}"), function or "run")
    return found


def perform(name: str, *, store: Store, spec: Spec, **inputs: Any) -> Handle:
    """Run one step with the handles of its inputs and return its handle.

    A check that finds a BLOCK raises ``Blocked`` with the URI of its findings, after they were published.
    """
    from sameworld.store.step import Step

    function = find_step("ingest.taken_in" if name == "ingest" else name)
    plain = {
        key: value["uri"] if isinstance(value, dict) and "uri" in value else value for key, value in inputs.items()
    }
    made = (
        function.make(store=store, spec=spec, **plain)
        if isinstance(function, Step)
        else function(store=store, spec=spec, **plain)
    )
    if name.startswith("validate."):
        find_step("validate.gate")(store, made.uri)
    return as_handle(made)


def as_handle(made: Any) -> Handle:
    """Return the handle of what a step gave: an artifact, several, or a plain record."""
    from sameworld.store.step import Made

    if isinstance(made, Made):
        return {"uri": made.uri, "reused": made.reused}
    if isinstance(made, list):
        return {"uri": [one.uri for one in made], "reused": [one.reused for one in made]}
    return {"uri": made, "reused": False}
