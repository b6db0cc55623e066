"""``sameworld backfill``: the retrain flow for each of several days, oldest first."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sameworld.records import Refused
from tasks.cli.console import Answer, progress
from tasks.cli.options import DEFAULT_ROOT, DEFAULT_SPEC, AsJson, Changes, Root, SpecName
from tasks.cli.run_command import badge

if TYPE_CHECKING:
    from datetime import date

    from tasks.report import Written


def backfill(  # noqa: PLR0917  # the command line's own options
    first: Annotated[str, typer.Option("--from", metavar="A", help="The first day.")],
    last: Annotated[str, typer.Option("--to", metavar="B", help="The last day, included.")],
    root: Root = DEFAULT_ROOT,
    spec: SpecName = DEFAULT_SPEC,
    changes: Changes = None,
    as_json: AsJson = False,  # noqa: ARG001  # read where answers are printed
) -> Answer:
    """Run every day from A to B, oldest first; what is there already is reused."""
    from tasks.cli.specs import find_spec, use_threads

    chosen = find_spec(spec, changes or ())
    use_threads(chosen)
    from sameworld.store.artifacts import Store
    from sameworld.store.times import parse_day
    from tasks.run import run_day

    store, runs = Store(root), []
    for day in _days(parse_day(first), parse_day(last)):
        runs.append(run_day(store, chosen, day, progress=progress(f"{day} ")))
    shown = [part for one in runs for part in (badge(one.report, blocked=one.blocked), f"  report: {one.html}")]
    blocked = sum(one.blocked for one in runs)
    total = f"{len(runs)} days done" + (f", {blocked} of them blocked by a gate" if blocked else "")
    return Answer({"runs": [_summary(one) for one in runs]}, [*shown, total], code=int(blocked > 0))


def _days(first: date, last: date) -> list[date]:
    if last < first:
        raise Refused(
            what="the days go backwards",
            got=f"--from {first} --to {last}",
            wanted="--from the oldest day --to the newest",
            remedy=f"--from {last} --to {first}",
        )
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


def _summary(written: Written) -> dict[str, Any]:
    about = {name: written.report["run"][name] for name in ("id", "day", "cutoff", "fingerprint", "seconds")}
    decision = {name: written.report["decision"][name] for name in ("outcome", "reasons", "bundle")}
    reused = [bool(step["reused"]) for step in written.report["steps"]]
    return {
        **about,
        **decision,
        "blocked": written.blocked,
        "artifacts": len(reused),
        "reused": sum(reused),
        "html": written.html,
        "json": written.json,
    }
