"""``sameworld show``: a run's answer in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer

from sameworld.records import Refused
from tasks.cli.console import Answer, printable
from tasks.cli.options import DEFAULT_ROOT, AsJson, Changes, Root, SpecName
from tasks.cli.run_command import badge


def show(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="A run's name; default: the newest.")] = None,
    root: Root = DEFAULT_ROOT,
    spec: SpecName = "",
    changes: Changes = None,
    as_json: AsJson = False,  # noqa: ARG001  # read where answers are printed
) -> Answer:
    """Show a run: its decision, the log, the labels, the metrics and where its page lies."""
    from sameworld.store.artifacts import Store
    from sameworld.store.runs import read_report, run_names

    check_spec(spec, changes)
    store = Store(root)
    names = run_names(store)
    if run is None and not names:
        raise Refused(
            what="no run yet", got=store.root, wanted="a root with runs", remedy="sameworld run --day D, or --root R"
        )
    report = read_report(store, run or names[-1])
    return Answer(report, [*summary(report), f"report: {store.root}/runs/{report['run']['id']}/report.html"])


def check_spec(spec: str, changes: Sequence[str] | None) -> None:
    """Refuse a wrong spec where a command takes one but answers from the root alone."""
    if spec or changes:
        from tasks.cli.options import DEFAULT_SPEC
        from tasks.cli.specs import find_spec

        find_spec(spec or DEFAULT_SPEC, changes or ())


def summary(report: Mapping[str, Any]) -> list[object]:
    """Return a report's lines and tables for a terminal; absent knowledge shows with its reason."""
    blocked = any(gate["status"] == "BLOCK" for gate in report["gates"])
    reasons = [f"  · {reason}" for reason in report["decision"]["reasons"]]
    found = [
        f"  {finding['level']} {gate['suite']}: {finding['sentence']}"
        for gate in report["gates"]
        for finding in gate["findings"]
    ]
    return [
        badge(report, blocked=blocked),
        *reasons,
        *found,
        *_section("log", report["log"], _log),
        *_section("labels", report["labels"], _labels),
        *_section("metrics", report["metrics"], _metrics),
        *_section("policy value", report["policy_value"], lambda one: [f"policy value: {estimate('gain', one)}"]),
        *_section("model", report["model"], lambda one: [f"model: {one['version']}", f"bundle: {one['bundle']}"]),
    ]


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> object:
    """Return a Rich table of plain text; its first column is never cut."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE, pad_edge=False)
    for place, column in enumerate(columns):
        made.add_column(Text(column), no_wrap=place == 0, overflow="fold")
    for row in rows:
        made.add_row(*(Text(printable(cell)) for cell in row))
    return made


def estimate(name: str, value: Any) -> str:
    """Write an estimate, a plain value, or why there is none."""
    from sameworld.page.words import cannot, interval, is_estimate, number

    reason = cannot(value)
    if reason is not None:
        return f"cannot: {reason}"
    if not is_estimate(value):
        return number(value)
    point, between = interval(name, value)
    return f"{point} [{between}]"


def _section(name: str, value: Any, read: Callable[[Any], list[object]]) -> list[object]:
    from sameworld.page.words import cannot

    reason = cannot(value)
    return read(value) if reason is None else [f"{name}: cannot: {reason}"]


def _log(tables: Mapping[str, Any]) -> list[object]:
    from sameworld.page.words import number

    names = ("rows_in", "kept", "duplicates", "conflicts")
    rows = [
        (name, *(number(one[key]) for key in names), _reasons(one["quarantined"]))
        for name, one in sorted(tables.items())
    ]
    return [table(("table", "rows in", "kept", "duplicates", "conflicts", "quarantined"), rows)]


def _reasons(quarantined: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(quarantined.items())) or "0"


def _labels(labels: Mapping[str, Any]) -> list[object]:
    from sameworld.page.words import number

    counts = ", ".join(f"{number(labels[name])} {name}" for name in ("rows", "closed", "open", "positives"))
    return [f"labels: {counts}, {number(labels['late_after_close'])} outcomes came after closing"]


def _metrics(metrics: Mapping[str, Any]) -> list[object]:
    from sameworld.page.words import cannot

    known = {name: one for name, one in metrics.items() if cannot(one) is None}
    rows = [
        (name, *(estimate(name, who) for who in (one, one["popular"], one["logged"]))) for name, one in known.items()
    ]
    absent = [f"  {name}: cannot: {cannot(one)}" for name, one in metrics.items() if name not in known]
    return [table(("metric", "model", "most popular", "logged order"), rows), *absent]
