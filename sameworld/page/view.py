"""What the page says about a report: its tables as rows, its claims with their number of rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from sameworld.page import bars, words

TONES = {"PROMOTE": "good", "HOLD": "warn", "REJECT": "bad", "ROLLBACK": "bad"}
SENTENCES = {
    "PROMOTE": "This version is promoted.",
    "HOLD": "Nothing changes yet.",
    "REJECT": "This version does not ship.",
    "ROLLBACK": "Production goes back to an earlier version.",
}
SECTIONS = (
    *("run", "log", "delay", "labels", "training_set", "position", "model", "metrics", "slices", "policy_value"),
    *("skew", "staleness", "drills", "loop", "leak", "early", "gap", "comparison", "ab", "decision", "steps"),
)
_COUNTED = ("rows", "requests", "compared", "impressions", "users")
_ESTIMATE = ("value", "low", "high")


def mapping(value: object) -> Mapping[str, Any]:
    """Return the value if it is a present section, else an empty mapping."""
    return value if isinstance(value, Mapping) and "cannot" not in value else {}


def listed(value: object) -> list[Mapping[str, Any]]:
    """Return the value's records if it is a list, else none."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, (list, tuple)) else []


def rows_of(*places: object) -> str:
    """Return the first number of rows (or requests, …) that the places state, in words.

    >>> rows_of({}, {"requests": 1200}), rows_of({})
    ('1,200 requests', 'rows not stated')
    """
    for place in places:
        for unit in _COUNTED:
            if words.is_number(mapping(place).get(unit)):
                return f"{words.number(mapping(place)[unit])} {'rows compared' if unit == 'compared' else unit}"
    return "rows not stated"


def primary(report: Mapping[str, Any]) -> str:
    """Return the metric that decides: the spec's, else the first NDCG, else the first one there is."""
    spec = mapping(mapping(report.get("run")).get("spec"))
    named = mapping(spec.get("decide")).get("metric")
    known = [name for name in (*mapping(report.get("metrics")), *deltas(report)) if name not in _COUNTED]
    first = next((name for name in known if name.startswith("ndcg")), known[0] if known else "")
    return str(named) if named in known else first


def deltas(report: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the paired differences with the champion by metric."""
    section = mapping(report.get("comparison"))
    return next((mapping(section[key]) for key in ("deltas", "delta", "metrics") if key in section), {})


def champion(report: Mapping[str, Any]) -> str:
    """Return the name of the version that this one is compared with."""
    section = mapping(report.get("comparison"))
    return next(
        (str(section[key]) for key in ("champion", "which", "version", "with", "vs") if key in section), "the champion"
    )


def better(metric: str, estimate: object, *, reference: float = 0.0) -> tuple[str, str]:
    """Judge an interval against a reference: (tone, words).

    >>> gained = {"value": 0.2, "low": 0.1, "high": 0.3}
    >>> better("ndcg@10", gained), better("ece", gained)
    (('good', 'better'), ('bad', 'worse'))
    """
    if not words.is_estimate(estimate):
        return "plain", "cannot say"
    interval, sign = mapping(estimate), words.direction(metric)
    if interval["low"] <= reference <= interval["high"]:
        return "plain", "no clear difference"
    side = 1 if interval["low"] > reference else -1
    if sign == 0:
        return "plain", "higher" if side > 0 else "lower"
    return ("good", "better") if side == sign else ("bad", "worse")


def comparison_rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one record a metric: its paired difference, the verdict, the rows and a bar around zero."""
    section, first = mapping(report.get("comparison")), primary(report)
    ordered = sorted(deltas(report).items(), key=lambda pair: pair[0] != first)
    return [_difference(name, delta, section) for name, delta in ordered]


def _difference(name: str, delta: object, section: object) -> dict[str, Any]:
    tone, verdict = better(name, delta)
    reach = max((abs(edge) for edge in bars.span_of([delta], reference=0.0)), default=1.0) * 1.1
    label = f"{words.humanise(name)}: difference with its interval, around zero"
    bar = bars.interval_bar([(tone, mapping(delta))], span=(-reach, reach), label=label, reference=0.0)
    return {"name": name, "delta": delta, "tone": tone, "verdict": verdict, "rows": rows_of(delta, section), "bar": bar}


def baselines(report: Mapping[str, Any]) -> list[str]:
    """Return the names of what stands beside the model's metrics, in the report's order."""
    found: dict[str, None] = {}
    for metric in mapping(report.get("metrics")).values():
        found |= dict.fromkeys(_beside(metric))
    return list(found)


def _beside(metric: object) -> dict[str, Any]:
    plain = {key: value for key, value in mapping(metric).items() if isinstance(value, Mapping) and key != "baselines"}
    return plain | dict(mapping(mapping(metric).get("baselines")))


def metric_rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one record a metric: the model, each baseline, the rows and a bar with all of them on one scale."""
    section = mapping(report.get("metrics"))
    names = baselines(report)
    return [_metric(name, metric, names, section) for name, metric in section.items() if name not in _COUNTED]


def _metric(name: str, metric: Any, names: Sequence[str], section: object) -> dict[str, Any]:
    beside = _beside(metric)
    others = [beside.get(other, {}) for other in names]
    lanes = [("accent", metric), *(("muted", other) for other in others)]
    label = f"{words.humanise(name)}: this model above {', '.join(names) or 'no baseline'}"
    hint = {1: "higher is better", -1: "lower is better", 0: "1 is right" if "ratio" in name else ""}[
        words.direction(name)
    ]
    bar = bars.interval_bar(lanes, span=bars.span_of([metric, *others]), label=label)
    judged = rows_of(metric, section)
    return {"name": name, "hint": hint, "model": metric, "others": others, "rows": judged, "bar": bar}


def standing(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return (baseline, tone, words) for the metric that decides: by paired differences, else by the intervals."""
    name = primary(report)
    metric = mapping(report.get("metrics")).get(name)
    paired = mapping(mapping(report.get("decision")).get("deltas"))
    if paired:
        return [(other, *better(name, delta)) for other, delta in paired.items()]
    return [(other, *_apart(name, metric, estimate)) for other, estimate in _beside(metric).items()]


def _apart(name: str, model: object, other: object) -> tuple[str, str]:
    if not (words.is_estimate(model) and words.is_estimate(other)):
        return "plain", words.cannot(other) or words.cannot(model) or "cannot say"
    mine, theirs = mapping(model), mapping(other)
    if mine["low"] <= theirs["high"] and theirs["low"] <= mine["high"]:
        return "plain", "intervals overlap"
    ahead = (mine["value"] - theirs["value"]) * words.direction(name)
    return ("good", "better") if ahead > 0 else ("bad", "worse") if ahead < 0 else ("plain", "different")


def slice_rows(slices: object, metric: str, overall: object) -> list[dict[str, Any]]:
    """Return one record a slice with a bar on a scale that all slices and the overall value share."""
    found = listed(slices)
    estimates = [mapping(item.get("metrics")).get(metric) for item in found]
    reference = float(mapping(overall)["value"]) if words.is_estimate(overall) else None
    span = bars.span_of(estimates, reference=reference)
    return [
        {"item": item, "estimate": estimate, "bar": _slice_bar(item, estimate, span=span, reference=reference)}
        for item, estimate in zip(found, estimates, strict=True)
    ]


def _slice_bar(
    item: Mapping[str, Any], estimate: object, *, span: tuple[float, float], reference: float | None
) -> Markup:
    label = f"{item.get('slice')} = {item.get('value')}: estimate with its interval; the line is the overall value"
    return bars.interval_bar([("accent", mapping(estimate))], span=span, label=label, reference=reference)


def slice_records(slices: object) -> list[dict[str, Any]]:
    """Return one flat record a slice: what it is, its rows, and each of its metrics."""
    return [
        {
            "slice": f"{item.get('slice')} = {item.get('value')}",
            "rows": item.get("rows"),
            **mapping(item.get("metrics")),
        }
        for item in listed(slices)
    ]


def policy_rows(policy: object) -> list[dict[str, Any]]:
    """Return the new order, the logging policy and the second estimator, on one scale."""
    section = mapping(policy)
    second = mapping(section.get("check"))
    rows: list[tuple[str, str, object, str]] = [("new order", str(section.get("method", "")), policy, "accent")]
    rows += [("as logged", "what the logging policy earned", section.get("logged"), "muted")]
    checked = f"{second.get('method', 'the second estimator')}, positions 1 to {second.get('depth', 'the last')}"
    rows += [("check", checked, section.get("check"), "muted")]
    span = bars.span_of([estimate for _, _, estimate, _ in rows])
    return [
        {
            "name": name,
            "note": note,
            "estimate": estimate,
            "rows": rows_of(estimate, section),
            "bar": _lane(name, estimate, tone, span),
        }
        for name, note, estimate, tone in rows
        if isinstance(estimate, Mapping)
    ]


def _lane(
    name: str, estimate: object, tone: str, span: tuple[float, float], *, reference: float | None = None
) -> Markup:
    return bars.interval_bar(
        [(tone, mapping(estimate))], span=span, label=f"{name} with its interval", reference=reference
    )


def gap_rows(gap: object) -> list[dict[str, Any]]:
    """Return the gap's terms with bars around zero, on one scale."""
    terms = listed(mapping(gap).get("terms"))
    reach = max(abs(edge) for edge in bars.span_of(terms, reference=0.0)) * 1.05
    return [
        {"term": term, "bar": _lane(words.humanise(term.get("name")), term, "accent", (-reach, reach), reference=0.0)}
        for term in terms
    ]


def unsaid(report: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Return every reason why something cannot be said, with the things it holds for, in the report's order.

    A section that the report lacks altogether is among them.
    """
    groups: dict[str, list[str]] = {}
    lacking = [((section,), "not in this report") for section in SECTIONS if section not in report]
    for path, reason in [*_walk(report, ()), *lacking]:
        named = words.humanise(path[0]) + "".join(f" › {words.humanise(part)}" for part in path[1:])
        groups.setdefault(reason, []).append(named)
    return list(groups.items())


def _walk(value: object, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    reason = words.cannot(value)
    if reason is not None:
        yield path or ("the report",), reason
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _walk(inner, (*path, str(key)))
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _walk(inner, path)


def beyond_estimate(value: object) -> dict[str, Any]:
    """Return what an estimate carries besides its three numbers."""
    return {key: inner for key, inner in mapping(value).items() if key not in _ESTIMATE}


def as_records(value: object) -> list[Mapping[str, Any]]:
    """Return a mapping of like sections as records, its keys first; nothing where it is no such mapping.

    >>> as_records({"click": {"rows": 2}, "buy": {"rows": 1}})
    [{'': 'click', 'rows': 2}, {'': 'buy', 'rows': 1}]
    """
    sections = list(mapping(value).items())
    if not all(mapping(inner) and not words.is_estimate(inner) for _, inner in sections):
        return []
    alike = len({frozenset(inner) for _, inner in sections}) == 1
    return [{"": words.humanise(key), **inner} for key, inner in sections] if alike else []


def delay_rows(curves: object) -> list[dict[str, Any]]:
    """Return the delay curves as flat records: one column an age at which the known share is stated."""
    return [
        {key: value for key, value in curve.items() if key != "completeness"} | _known(curve.get("completeness"))
        for curve in listed(curves)
    ]


def _known(completeness: object) -> dict[str, Any]:
    if words.cannot(completeness) is not None:
        return {"known so far": completeness}
    return {
        f"known by {age} day{'' if str(age) == '1' else 's'}": share for age, share in mapping(completeness).items()
    }


def columns(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys of all records, in the order in which they first appear."""
    return list(dict.fromkeys(key for record in records for key in record))


def total(counts: object) -> int:
    """Return the sum of the counts that a mapping holds; what is no number adds nothing.

    >>> total({"orphan": 2, "null_key": 1})
    3
    """
    return sum(int(count) for count in mapping(counts).values() if words.is_number(count))
