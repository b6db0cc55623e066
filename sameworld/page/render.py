"""A report and its figures' data as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import ChainableUndefined, Environment, FileSystemLoader
from markupsafe import Markup

from sameworld.page import claims, feedback, leak, outages, plots, repeats, view, words
from sameworld.page.glossary import GLOSSARY


def render(report: dict[str, Any], *, plots: dict[str, Any]) -> str:
    """Return the page for one run: no script, nothing fetched, every text of the report escaped.

    report : a run's ``report.json``; a section may be ``{"cannot": reason}``, and an absent one says so
    plots : the figures' data by name (reliability, delay_curves, examination, slices, propensity_histogram,
        null_rates, labels_by_day, findings, ignored_columns); each may be missing or a "cannot"
    """
    findings = view.listed(plots.get("findings"))
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            plots=plots,
            findings=findings,
            figures=_figures(report, plots),
            answers=claims.answers(report, plots.get("findings")),
            checks=claims.checks(report),
            slices=_slices(report, plots),
            glossary=GLOSSARY,
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "cannot": words.cannot,
        "humanise": words.humanise,
        "number": words.number,
        "share": words.share,
        "duration": words.seconds,
        "moment": words.moment,
        "short": words.short,
        "spec_text": words.spec_text,
        "present": view.mapping,
        "listed": view.listed,
    }
    environment.globals |= {"words": words, "view": view, "claims": claims}
    environment.globals |= {"leak": leak, "feedback": feedback, "outages": outages, "repeats": repeats}
    return environment


def _slices(report: Mapping[str, Any], data: Mapping[str, Any]) -> list[dict[str, Any]]:
    metric = view.primary(report)
    overall = view.mapping(report.get("metrics")).get(metric)
    return view.slice_rows(report.get("slices") or data.get("slices"), metric, overall)


def _figures(report: Mapping[str, Any], data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the figures in reading order; one without data carries the reason instead."""
    labels = view.rows_of(report.get("labels"))
    figures = [
        _reliability(data.get("reliability"), report.get("metrics")),
        _examination(data.get("examination"), report.get("position")),
        *_delays(data.get("delay_curves"), report.get("delay"), labels),
        _labels(data, report.get("labels")),
        _propensities(data.get("propensity_histogram"), report.get("policy_value")),
        _nulls(data.get("null_rates"), report.get("log")),
    ]
    return [figure for figure in figures if figure]


def _figure(title: str, draw: Any, given: Any, *, note: str, wide: bool = False, why: object = None) -> dict[str, Any]:
    reason = words.cannot(given) or ("" if given else words.cannot(why) or "no data in this run")
    svg = "" if reason else draw(given)
    return {
        "title": title,
        "svg": Markup(svg),  # noqa: S704 - drawn in plots.py, which escapes every text
        "note": note,
        "reason": reason or ("" if svg else "no data"),
        "wide": wide,
    }


def _reliability(given: Any, metrics: object) -> dict[str, Any]:
    rows = sum(int(point.get("rows", 0)) for point in view.listed(given))
    note = f"On the dashed line, predictions are right. 95 % Wilson intervals, {words.number(rows)} rows."
    return _figure("Calibration", plots.reliability, given, note=note, why=metrics)


def _examination(given: Any, position: object) -> dict[str, Any]:
    section = view.mapping(position)
    told = section.get("examination")
    chosen = given or (told if isinstance(told, list) else None)
    note = f"How often a position is looked at, relative to the top; {view.rows_of(section)}."
    why = told if words.cannot(told) else position
    return _figure("Examination by position", plots.examination, chosen, note=note, why=why)


def _delays(given: Any, delay: object, labels: str) -> list[dict[str, Any]]:
    curves = view.listed(given)
    kinds = list(dict.fromkeys(str(curve.get("kind")) for curve in curves))
    if not kinds:
        return [_figure("Delay", str, given, note="", why=delay)]
    return [_delay(curves, kind, labels) for kind in kinds]


def _delay(curves: Sequence[Mapping[str, Any]], kind: str, labels: str) -> dict[str, Any]:
    def draw(given: Sequence[Mapping[str, Any]]) -> str:
        return plots.delay_curves(given, kind=kind)

    note = f"Of the outcomes still to come, the share known by each age, by segment; {labels}."
    return _figure(f"Delay: {kind}", draw, curves, note=note)


def _labels(data: Mapping[str, Any], labels: object) -> dict[str, Any]:
    given = data.get("labels_by_day")
    days = view.listed(given)
    rows = sum(int(day.get("closed") or 0) + int(day.get("open") or 0) for day in days)
    note = f"An open label may still change, so it is never judged; {words.number(rows)} rows. Below: positive so far."
    return _figure("Labels by day", plots.labels_by_day, given, note=note, why=labels)


def _propensities(given: Any, policy: object) -> dict[str, Any]:
    rows = sum(int(count) for count in view.mapping(given).get("counts", ()))
    note = f"How probable each logged choice was, {words.number(rows)} impressions. Far left: rare, so a large weight."
    return _figure("Propensities", plots.propensity_histogram, given, note=note, why=policy)


def _nulls(given: Any, log: object) -> dict[str, Any]:
    kept = view.mapping(view.mapping(log).get("impressions")).get("kept")
    counted = f"; the log keeps {words.number(kept)} impressions" if words.is_number(kept) else ""
    note = f"Share of nulls as served, by feature and day; in figures: the newest day{counted}."
    return _figure("Missing features by day", plots.null_rates, given, note=note, wide=True)
