"""``sameworld demo``: the main job on the shipped sample and on a small simulated world."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.cli.console import Answer, progress
from tasks.cli.options import DEFAULT_ROOT, AsJson, Changes, Root, SpecName
from tasks.cli.run_command import badge

if TYPE_CHECKING:
    from sameworld.spec import Spec
    from tasks.report import Written

DEMOS = ("open_bandit", "closed_loop")


def demo(
    root: Root = DEFAULT_ROOT,
    spec: SpecName = "",
    changes: Changes = None,
    as_json: AsJson = False,  # noqa: ARG001  # read where answers are printed
) -> Answer:
    """Run the last day of the shipped real sample and of a closed-loop world, each into a root of its own below R.

    With --spec only that one of the two runs.
    """
    from tasks.cli.specs import find_spec

    names = DEMOS if not spec else (spec,)
    specs = {name: find_spec(name, changes or ()) for name in names}
    runs = {name: _last_day(f"{root.rstrip('/')}/{name}", name, one) for name, one in specs.items()}
    shown: list[object] = []
    for name, written in runs.items():
        reasons = [f"  · {reason}" for reason in written.report["decision"]["reasons"]]
        shown += [name, badge(written.report, blocked=written.blocked), *reasons]
    last = f"reports: {' and '.join(written.html for written in runs.values())}"
    document: dict[str, Any] = {name: _where(written) for name, written in runs.items()}
    return Answer(document, [*shown, last], code=int(any(written.blocked for written in runs.values())))


def _last_day(root: str, name: str, spec: Spec) -> Written:
    from tasks.cli.specs import use_threads

    use_threads(spec)
    from sameworld.sources import open_source
    from sameworld.store.artifacts import Store
    from tasks.run import run_day

    day = open_source(spec.source).days()[-1]
    return run_day(Store(root), spec, day, progress=progress(f"{name} {day} "))


def _where(written: Written) -> dict[str, Any]:
    return {"html": written.html, "json": written.json, "report": written.report}
