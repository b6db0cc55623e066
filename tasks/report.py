"""Write a run's answer: ``report.json`` and the page that shows the same numbers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sameworld.maths.delay import DelayCurve
from sameworld.page.render import render
from sameworld.records import Cannot, SameworldError
from sameworld.spec import Spec
from sameworld.store.artifacts import Artifact, Store, fingerprint_of
from sameworld.store.code import code_hash
from sameworld.store.runs import run_name, write_page
from sameworld.store.times import time_text

NOT_YET = Cannot("not measured yet").as_record()
COMPLETENESS_DAYS = (1, 3, 7)
FLOW = "tasks.flow"
LABELS = ("rows", "closed", "open", "closed_share", "positives", "late_after_close", "by_kind", "moves")
SKEW = ("feature", "view", "compared", "mismatch_share", "missing_share", "extra_share", "stale_share")
STALENESS = ("view", "joined_share", "q50_hours", "q90_hours", "q99_hours")


@dataclass(frozen=True)
class Written:
    """Where a run's answer lies; ``blocked`` says that a gate stopped the run."""

    run: str
    report: dict[str, Any]
    html: str
    json: str
    blocked: bool


def run(
    *,
    store: Store,
    spec: Spec,
    cutoff: datetime,
    handles: Mapping[str, Mapping[str, Any] | None],
    stopped: SameworldError | None = None,
    seconds: float = 0.0,
    only: str | None = None,
) -> Written:
    """Gather what the steps found; a step that was not reached says so in each section that it would have filled.

    handles : by the flow's step names (``backtest.label`` for those of the back-test), None where not reached
    stopped : the error that stopped the flow, if one did
    only : the one step that was wanted; its answer lies beside the run's whole report, never in its place
    """
    made = _Made(store, handles, stopped)
    name = run_name(cutoff, spec, made.artifact("resolve"))
    report = {
        "run": _about(name, spec, cutoff, made, seconds),
        "log": made.section("resolve", lambda one: one.record["tables"]),
        "delay": made.section("measure_delay", _delay),
        "labels": made.section("label", lambda one: _named(one, *LABELS)),
        "training_set": made.section("assemble", lambda one: _training_set(one, made)),
        "position": made.section("calibrate", lambda one: {"examination": one.record["examination"]}),
        "model": made.section("calibrate", lambda one: _model(one, made)),
        "metrics": made.section("evaluate", lambda one: one.record["metrics"]),
        "evaluated": made.section("evaluate", lambda one: _named(one, "rows", "requests", "positives", "from", "to")),
        "slices": made.section("evaluate", lambda one: one.record["slices"]),
        "policy_value": made.section("evaluate", lambda one: one.record["policy_value"]),
        "skew": made.section("measure_skew", lambda one: _in_order(one.record["skew"], SKEW)),
        "staleness": made.section("measure_skew", lambda one: _in_order(one.record["staleness"], STALENESS)),
        "leak": made.section("measure_leak", lambda one: one.record),
        "loop": _loop(made),
        "early": made.section("read_early", lambda one: one.record),
        "drills": made.section("drill", lambda one: one.record["drills"]),
        **dict.fromkeys(("gap", "ab"), NOT_YET),
        "comparison": made.section("decide", lambda one: one.record["comparison"]),
        "decision": _decision(made),
        "gates": _gates(made),
        "steps": made.steps(),
    }
    text = json.dumps(report, indent=1, allow_nan=False, ensure_ascii=False)
    page = render(report, plots=_plots(made, report))
    stem = f"only-{only}" if only else "report"
    at = write_page(store, name, f"{stem}.json", text.encode())
    return Written(name, report, write_page(store, name, f"{stem}.html", page.encode()), at, stopped is not None)


class _Made:
    """What the steps of this run made, by step."""

    def __init__(
        self, store: Store, handles: Mapping[str, Mapping[str, Any] | None], stopped: SameworldError | None
    ) -> None:
        self.store, self.handles, self.stopped = store, handles, stopped

    def artifact(self, step: str) -> Artifact | None:
        handle = self.handles.get(step)
        return self.store.open(handle["uri"]) if handle and isinstance(handle["uri"], str) else None

    def section(self, step: str, read: Any) -> Any:
        """Return what ``read`` takes from a step's artifact, or why there is nothing."""
        artifact = self.artifact(step)
        if artifact is None:
            return Cannot(f"not reached: {self.stopped}" if self.stopped else "not reached").as_record()
        return artifact.cannot.as_record() if artifact.cannot else read(artifact)

    def steps(self) -> list[dict[str, Any]]:
        found = []
        for name, handle in self.handles.items():
            uris = handle["uri"] if handle else None
            flags = handle["reused"] if handle else False
            several = uris if isinstance(uris, list) else [uris]
            for uri, reused in zip(several, flags if isinstance(flags, list) else [flags], strict=False):
                if isinstance(uri, str):
                    found.append(_step(name, self.store.open(uri), reused=reused))
        return found


def _step(name: str, artifact: Artifact, *, reused: bool) -> dict[str, Any]:
    manifest = artifact.manifest
    return {
        "name": name,
        "uri": artifact.uri,
        "fingerprint": artifact.fingerprint,
        "seconds": manifest["seconds"],
        "reused": reused,
        "rows": manifest["rows"],
        "peak_mb": manifest["peak_mb"],
    }


def _about(name: str, spec: Spec, cutoff: datetime, made: _Made, seconds: float) -> dict[str, Any]:
    # The decision also depends on what was in production, so on the order in which days were run; nothing else does.
    steps = sorted((step["name"], step["fingerprint"]) for step in made.steps() if step["name"] != "decide")
    return {
        "id": name,
        "day": (cutoff - timedelta(days=1)).date().isoformat(),
        "cutoff": time_text(cutoff),
        "spec": spec.tree(),
        "fingerprint": fingerprint_of(steps),
        "seconds": round(seconds, 3),
        "code_version": _code_version(made.handles),
    }


def _code_version(names: Iterable[str]) -> str:
    """Return twelve digits of the code of the flow and of all its steps."""
    modules = {f"tasks.{name.removeprefix('backtest.').partition('.')[0]}" for name in names} | {FLOW}
    return fingerprint_of(sorted(code_hash(module) for module in modules))[:12]


def _delay(delay: Artifact) -> dict[str, Any]:
    record = delay.record
    frozen = {name: record[name] for name in ("lag_hours", "lag_by_segment_hours", "landing_lag_hours")}
    if "cannot" in record["curves"]:
        return {**frozen, "curves": record["curves"], "shift": record["shift"]}
    curves = [
        _curve(kind, segment, curve, record["window_days"])
        for kind, by_segment in sorted(record["curves"].items())
        for segment, curve in sorted(by_segment.items())
    ]
    return {**frozen, "curves": curves, "pooled": record["pooled"], "shift": record["shift"]}


def _curve(kind: str, segment: str, record: dict[str, Any], window_days: float) -> dict[str, Any]:
    about = {"kind": kind, "segment": segment, "window_days": window_days}
    if "cannot" in record:
        return {**about, "rate": record, "completeness": record}
    curve = DelayCurve.from_record(record)
    days = sorted({*(day for day in COMPLETENESS_DAYS if day < window_days), window_days})
    return {
        **about,
        "impressions": curve.impressions,
        "events": curve.events,
        "rate": {"value": curve.rate, "low": curve.rate_low, "high": curve.rate_high},
        "completeness": {f"{day:g}": curve.estimate_at(24.0 * day).as_record() for day in days},
    }


def _named(artifact: Artifact, *names: str) -> dict[str, Any]:
    return {name: artifact.record[name] for name in names}


def _training_set(examples: Artifact, made: _Made) -> dict[str, Any]:
    record = examples.record
    return {
        **_named(examples, "rows", "requests", "from", "to", "served_share"),
        **{name: made.section("train", lambda one, n=name: one.record[n]) for name in ("replayed_share", "replay")},
        "features": [{"name": name, "kind": kind} for name, kind in sorted(record["features"].items())],
        "splits": record["splits"],
        "repeats": _repeats(made),
    }


def _repeats(made: _Made) -> Any:
    """Return what was found of repeats, and how the back-test's metrics are with and without them."""
    found = made.section("find_repeats", lambda one: one.record)
    about = {name: value for name, value in found.items() if name not in ("parts", "cutoff")}
    return {**about, "effect": made.section("evaluate", lambda one: one.record["repeats"])}


def _model(bundle: Artifact, made: _Made) -> dict[str, Any]:
    record = bundle.record
    judged = made.section("backtest.calibrate", lambda one: one.uri)
    about = json.loads(bundle.path("bundle.json").read_bytes())
    orders = "lambdarank" if about["spec"]["train"]["order"] == "lambdarank" else "the expected gain"
    return {
        "version": record["version"],
        "rounds": record["rounds"],
        "features": [feature["name"] for feature in about["features"]],
        "ranker": orders if record["lists"] else "the probability model: the log has no lists",
        "calibrated_on": record["calibrated_on"],
        "bundle": bundle.uri,
        "bundle_hash": bundle.content_hash,
        "backtest_bundle": judged,
    }


def _loop(made: _Made) -> Any:
    """Return what the loop looks like, and what of exploring more; either may be unknown without the other."""
    budget = made.section("watch_loop.budget", lambda one: one.record)
    enough = budget.get("epsilon_enough", budget)
    rest = {name: value for name, value in budget.items() if name != "epsilon_enough"}
    return made.section(
        "watch_loop",
        lambda one: {
            **{name: value for name, value in one.record.items() if name != "parts"},
            "epsilon_enough": enough,
            "budget": rest,
        },
    )


def _in_order(rows: Any, names: Sequence[str]) -> Any:
    """Return the rows with their values in this order, or what stands in their place."""
    return [{name: row[name] for name in names} for row in rows] if isinstance(rows, list) else rows


def _decision(made: _Made) -> dict[str, Any]:
    """Return the decision; what was blocked, or could not be judged, is on hold."""
    bundle = made.section("calibrate", lambda one: one.content_hash)
    if made.stopped is not None:
        reasons = list(getattr(made.stopped, "findings", ())) or [str(made.stopped)]
        return {"outcome": "HOLD", "reasons": reasons, "bundle": bundle}
    decided = made.artifact("decide")
    if decided is None or decided.cannot:
        reason = decided.cannot.reason if decided and decided.cannot else "not reached"
        return {"outcome": "HOLD", "reasons": [reason], "bundle": bundle}
    record = decided.record
    promoted = made.handles.get("promote") or {}
    names = ("outcome", "reasons", "bundle", "metric", "deltas")
    return {**{name: record[name] for name in names}, "promotion": promoted.get("uri")}


def _gates(made: _Made) -> list[dict[str, Any]]:
    names = [name for name in made.handles if name.startswith("validate.")]
    found = []
    for name in names:
        artifact = made.artifact(name)
        if artifact is not None and artifact.cannot is None:
            record = artifact.record
            found.append({"suite": record["suite"], "status": record["status"], "findings": record["findings"]})
    return found


def _plots(made: _Made, report: dict[str, Any]) -> dict[str, Any]:
    value = report["policy_value"]
    return {
        "reliability": made.section("evaluate", lambda one: one.record["reliability"]),
        "delay_curves": made.section("measure_delay", _drawn_curves),
        "examination": made.section("calibrate", lambda one: one.record["examination"]),
        "slices": report["slices"],
        "propensity_histogram": value.get("propensities") or Cannot(value.get("cannot", "none logged")).as_record(),
        "null_rates": made.section("assemble", lambda one: one.record["null_rates"]),
        "labels_by_day": made.section("label", lambda one: one.record["by_day"]),
        "ignored_columns": made.section("resolve", _ignored),
        "findings": [
            {"suite": gate["suite"], "level": finding["level"], "sentence": finding["sentence"]}
            for gate in report["gates"]
            for finding in gate["findings"]
        ],
    }


def _drawn_curves(delay: Artifact) -> Any:
    curves = delay.record["curves"]
    if "cannot" in curves:
        return curves
    return [
        {"kind": kind, "segment": segment, **{name: curve[name] for name in ("ages_hours", "known", "low", "high")}}
        for kind, by_segment in sorted(curves.items())
        for segment, curve in sorted(by_segment.items())
        if "cannot" not in curve
    ]


def _ignored(log: Artifact) -> list[str]:
    return [f"{table}.{column}" for table, columns in sorted(log.record["ignored"].items()) for column in columns]
