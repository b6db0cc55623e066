"""``sameworld run``: one day of the retrain flow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tasks.cli.console import Answer, printable, progress
from tasks.cli.options import DEFAULT_ROOT, DEFAULT_SPEC, AsJson, Changes, Root, SpecName

if TYPE_CHECKING:
    from tasks.report import Written

GREEN, YELLOW, RED = "green", "yellow", "red"
COLOURS = {"PROMOTE": GREEN, "HOLD": YELLOW, "REJECT": RED, "ROLLBACK": RED}


def run(  # noqa: PLR0917  # the command line's own options
    day: Annotated[str, typer.Option("--day", metavar="D", help="The UTC day; the cutoff is its end.")],
    only: Annotated[
        str | None, typer.Option("--only", metavar="STEP", help="This step and what it needs, no other.")
    ] = None,
    redeliver: Annotated[
        bool, typer.Option("--redeliver", help="Take a drop's old day that changed, knowingly.")
    ] = False,
    root: Root = DEFAULT_ROOT,
    spec: SpecName = DEFAULT_SPEC,
    changes: Changes = None,
    as_json: AsJson = False,  # noqa: ARG001  # read where answers are printed
) -> Answer:
    """Run one day: take in what landed, label, train, judge, decide, report."""
    from tasks.cli.specs import find_spec, use_threads

    chosen = find_spec(spec, changes or ())
    use_threads(chosen)
    from sameworld.store.artifacts import Store
    from sameworld.store.times import parse_day
    from tasks.run import run_day

    written = run_day(Store(root), chosen, parse_day(day), only=only, redeliver=redeliver, progress=progress())
    return Answer(written.report, _shown(written, only), code=int(written.blocked))


def badge(report: Mapping[str, Any], *, blocked: bool) -> object:
    """Return a run's first line: its outcome in colour, its day and name."""
    from rich.text import Text

    outcome, about = str(report["decision"]["outcome"]), report["run"]
    colour = RED if blocked else COLOURS.get(outcome, YELLOW)
    words = f" {outcome}{' (blocked)' if blocked else ''} "
    return Text.assemble((words, f"bold white on {colour}"), printable(f" {about['day']}  run {about['id']}"))


def _shown(written: Written, only: str | None) -> list[object]:
    from sameworld.page.words import seconds

    steps = written.report["steps"]
    reused = sum(bool(step["reused"]) for step in steps)
    counts = f"{len(steps)} artifacts, {reused} of them reused, {seconds(written.report['run']['seconds'])}"
    if only is not None and not written.blocked:
        made = [step["uri"] for step in steps if step["name"] == only]
        return [counts, *made] if made else [f"{only}: nothing to show", counts]
    reasons = [f"  · {reason}" for reason in written.report["decision"]["reasons"]]
    return [badge(written.report, blocked=written.blocked), *reasons, counts, f"report: {written.html}"]
