"""The short answers at the top of the page, and the checks that say whether to believe them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sameworld.page import view, words

# The ways in which a served value can differ; a stale one is among the mismatches.
DIFFERENCES = ("mismatch_share", "missing_share", "extra_share")


def answers(report: Mapping[str, Any], findings: object) -> list[dict[str, str]]:
    """Return the four answers that a person in a hurry reads: better, for whom, worth what, believable."""
    return [_better(report), _whom(report), _worth(report), _believable(report, findings)]


def _answer(
    question: str, said: str, detail: str, *, anchor: str, tone: str = "plain", interval: str = ""
) -> dict[str, str]:
    return {"question": question, "said": said, "detail": detail, "anchor": anchor, "tone": tone, "interval": interval}


def _better(report: Mapping[str, Any]) -> dict[str, str]:
    question, metric = "Is it better?", view.primary(report)
    delta = view.deltas(report).get(metric)
    if not words.is_estimate(delta):
        reason = words.cannot(report.get("comparison")) or words.cannot(delta) or "no comparison in this report"
        return _better_than_baselines(report, question, metric, reason)
    tone, verdict = view.better(metric, delta)
    value, interval = words.interval(metric, view.mapping(delta), signed=True)
    counted = view.rows_of(delta, report.get("comparison"))
    detail = f"{verdict}: {words.humanise(metric)} minus that of {view.champion(report)}, {counted}"
    return _answer(question, value, detail, anchor="better", tone=tone, interval=interval)


def _better_than_baselines(report: Mapping[str, Any], question: str, metric: str, reason: str) -> dict[str, str]:
    """Answer by the nearest of the simple baselines where there is no champion to compare with."""
    deltas = view.mapping(view.mapping(report.get("decision")).get("deltas"))
    known = {name: delta for name, delta in sorted(deltas.items()) if words.is_estimate(delta)}
    if not known:
        return _answer(question, "Cannot say", reason, anchor="better")
    side = words.direction(metric) or 1
    nearest = min(known, key=lambda name: side * known[name]["value"])
    tone, verdict = view.better(metric, known[nearest])
    value, interval = words.interval(metric, known[nearest], signed=True)
    counted = view.rows_of(known[nearest], report.get("evaluated"))
    detail = f"{verdict}: {words.humanise(metric)} minus that of {nearest}, {counted}; against a champion: {reason}"
    return _answer(question, value, detail, anchor="better", tone=tone, interval=interval)


def _whom(report: Mapping[str, Any]) -> dict[str, str]:
    question, metric = "For whom?", view.primary(report)
    slices = [
        s for s in view.listed(report.get("slices")) if words.is_estimate(view.mapping(s.get("metrics")).get(metric))
    ]
    if not slices:
        return _answer(
            question, "Cannot say", words.cannot(report.get("slices")) or "no slices in this report", anchor="slices"
        )
    side = words.direction(metric) or 1
    least = min(slices, key=lambda s: side * s["metrics"][metric]["value"])
    value, interval = words.interval(metric, least["metrics"][metric])
    detail = f"weakest of {len(slices)} slices: {least.get('slice')} = {least.get('value')}, {view.rows_of(least)}"
    return _answer(question, value, detail, anchor="slices", interval=interval)


def _worth(report: Mapping[str, Any]) -> dict[str, str]:
    question, policy = "What is it worth?", report.get("policy_value")
    lift = view.mapping(policy).get("lift")
    if not words.is_estimate(lift):
        reason = words.cannot(policy) or words.cannot(lift) or "no policy value in this report"
        return _answer(question, "Cannot say", reason, anchor="worth")
    tone, verdict = view.better("gain", lift)
    value, interval = words.interval("gain", view.mapping(lift), signed=True)
    detail = f"{verdict}: gain a request against the order as logged, {view.rows_of(lift, policy)}"
    return _answer(question, value, detail, anchor="worth", tone=tone, interval=interval)


def _believable(report: Mapping[str, Any], findings: object) -> dict[str, str]:
    question = "Can I believe it?"
    if not isinstance(findings, (list, tuple)):
        # Silence of the gates is not their approval.
        reason = words.cannot(findings) or "what the gates found is not in this report"
        return _answer(question, "Cannot say", reason, anchor="belief")
    blocks, warnings = (len(at_level(view.listed(findings), level)) for level in ("BLOCK", "WARN"))
    absent = len(view.unsaid(report))
    said = f"{blocks} blocking" if blocks else plural(warnings, "warning") if warnings else "No findings"
    tone = "bad" if blocks else "warn" if warnings or absent else "good"
    rest = [plural(warnings, "warning")] if blocks and warnings else []
    rest += (
        [f"{plural(absent, 'reason')} why something cannot be said"]
        if absent
        else ["everything asked for could be said"]
    )
    counted = view.rows_of(report.get("training_set"))
    rest += [f"trained on {counted}"] if counted != "rows not stated" else []
    return _answer(question, said, "; ".join(rest), anchor="belief", tone=tone)


def at_level(findings: Sequence[Mapping[str, Any]], level: str) -> list[Mapping[str, Any]]:
    """Return the findings of one level, whatever its case."""
    return [finding for finding in findings if str(finding.get("level", "")).upper() == level]


def plural(count: int, noun: str) -> str:
    """Write a count with its noun.

    >>> plural(1, "warning"), plural(2, "warning")
    ('1 warning', '2 warnings')
    """
    return f"{words.number(count)} {noun}{'' if count == 1 else 's'}"


def checks(report: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the checks on the evidence itself: (name, tone, said, rows), absent ones with their reason."""
    found = [
        _alarm(report, "delay", "Delay of outcomes", inner="shift"),
        _alarm(report, "loop", "Feedback loop"),
    ]
    return [*found, _leak(report), _skew(report), _closed(report)]


def _check(name: str, tone: str, said: str, rows: str = "") -> dict[str, str]:
    return {"name": name, "tone": tone, "said": said, "rows": rows}


def _absent(name: str, *places: object) -> dict[str, str]:
    reason = next((found for place in places if (found := words.cannot(place)) is not None), "not in this report")
    return _check(name, "plain", f"cannot say: {reason}")


def _alarm(report: Mapping[str, Any], section: str, name: str, *, inner: str = "") -> dict[str, str]:
    outer = report.get(section)
    place = view.mapping(outer).get(inner) if inner else outer
    alarm = view.mapping(place).get("alarm")
    if alarm is None or isinstance(alarm, Mapping):
        inside = view.mapping(alarm)
        if "alarm" not in inside:
            return _absent(name, outer, place, alarm)
        place, alarm = inside, inside["alarm"]
    reason = view.mapping(place).get("reason") or (alarm if isinstance(alarm, str) else "")
    said = ("alarm" if alarm else "no alarm") + (f": {reason}" if reason else "")
    labels = view.rows_of(place, outer, report.get("labels"))
    return _check(name, "bad" if alarm else "good", said, labels)


def _leak(report: Mapping[str, Any]) -> dict[str, str]:
    name, leak = "Leak from the future", report.get("leak")
    inflation = view.mapping(leak).get("inflation")
    if not words.is_estimate(inflation):
        return _absent(name, leak, inflation)
    value, interval = words.interval("inflation", view.mapping(inflation), signed=True)
    metric = words.humanise(view.mapping(leak).get("metric", "the metric"))
    if not any(view.mapping(inflation)[part] for part in ("value", "low", "high")):
        return _check(name, "good", f"kept out; let in, it would not have moved {metric}", view.rows_of(leak))
    said = f"kept out; let in, it would have moved {metric} by {value} ({interval})"
    return _check(name, "plain", said, view.rows_of(inflation, leak))


def _skew(report: Mapping[str, Any]) -> dict[str, str]:
    name, skew = "Served against recomputed features", report.get("skew")
    known = [row for row in view.listed(skew) if words.is_number(row.get("mismatch_share"))]
    if not known:
        inner = (row.get("mismatch_share") for row in view.listed(skew))
        return _absent(name, skew, *inner)
    worst = max(known, key=_differing)
    if not _differing(worst):
        return _check(name, "good", f"no difference in {plural(len(known), 'feature')}", view.rows_of(worst))
    kinds = (*DIFFERENCES, "stale_share")
    parts = [(words.humanise(key.removesuffix("_share")), worst.get(key)) for key in kinds]
    told = ", ".join(f"{part} {words.share(value)}" for part, value in parts if words.is_number(value) and value)
    said = f"{words.share(_differing(worst))} of {worst.get('feature')}, the worst: {told}"
    return _check(name, "plain", said, view.rows_of(worst))


def _differing(row: Mapping[str, Any]) -> float:
    return sum(float(row[key]) for key in DIFFERENCES if words.is_number(row.get(key)))


def _closed(report: Mapping[str, Any]) -> dict[str, str]:
    name, labels = "Labels closed", report.get("labels")
    if not words.is_number(view.mapping(labels).get("closed_share")):
        return _absent(name, labels)
    said = f"{words.share(view.mapping(labels)['closed_share'])}; what is open is never judged"
    return _check(name, "plain", said, view.rows_of(labels))
