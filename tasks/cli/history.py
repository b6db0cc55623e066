"""``sameworld history``: every promotion, and what was in production when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tasks.cli.console import Answer
from tasks.cli.options import DEFAULT_ROOT, AsJson, Changes, Root, SpecName

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sameworld.store.promotions import Promotion

CHAMPION, CHALLENGER = "champion", "challenger"


def history(
    at: Annotated[
        str | None, typer.Option("--at", metavar="T", help="An ISO time, as in 2026-03-02T00:00:00Z.")
    ] = None,
    root: Root = DEFAULT_ROOT,
    spec: SpecName = "",
    changes: Changes = None,
    as_json: AsJson = False,  # noqa: ARG001  # read where answers are printed
) -> Answer:
    """Show the promotions, and what was in production at a time (default: now) by the records' own clock."""
    from sameworld.store.artifacts import Store
    from sameworld.store.promotions import promotions
    from sameworld.store.times import parse_time
    from tasks.cli.show import check_spec

    check_spec(spec, changes)
    moment = parse_time(at) if at else None
    events = promotions(Store(root))
    holders = {stage: _holder(events, stage, moment) for stage in (CHAMPION, CHALLENGER)}
    document: dict[str, Any] = {"events": [one.as_record() for one in events], **holders, "grades": []}
    when = f"at {at}" if at else "now"
    words = [f"{stage} {when}: {_words(holder)}" for stage, holder in holders.items()]
    return Answer(document, [_table(events), *words] if events else ["nothing was ever promoted in this root"])


def _holder(events: Sequence[Promotion], stage: str, moment: Any) -> str | dict[str, str]:
    from sameworld.records import Cannot
    from sameworld.store.promotions import in_production

    held = in_production(events, stage=stage, at=moment)
    return held.version if held else Cannot(f"there was no {stage} at that time").as_record()


def _words(holder: str | dict[str, str]) -> str:
    return holder if isinstance(holder, str) else "none"


def _table(events: Sequence[Promotion]) -> object:
    from tasks.cli.show import table

    rows = [
        (str(one.number), one.at, one.stage, one.previous or "-", one.version, one.cutoff, one.by, one.reason)
        for one in events
    ]
    return table(("#", "at", "stage", "from", "version", "cutoff", "by", "reason"), rows)
