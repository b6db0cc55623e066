"""Decide what becomes of the bundle: promote, hold or reject, with reasons."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl

from sameworld.maths.bootstrap import Replicates
from sameworld.models.bundle import STEP as BUNDLE_STEP
from sameworld.models.bundle import Bundle, load_bundle
from sameworld.models.decision import Drill, Evidence, decide
from sameworld.models.judging import Judged, metric_replicates
from sameworld.models.scored_rows import judged_rows, popularity
from sameworld.records import Cannot, Estimate, Refused
from sameworld.spec import Spec
from sameworld.store.artifacts import Artifact, Store, fingerprint_of
from sameworld.store.promotions import Promotion, in_production, promotions
from sameworld.store.step import Made, Work, resolve_cutoff, step
from sameworld.store.times import parse_time


@dataclass(frozen=True)
class Standing:
    """What was in production as of the run's cutoff.

    ``holder`` is the newest promotion with an older cutoff, ``comparable`` the newest whose model had not seen the
    answers of the back-test's period.
    """

    holder: Promotion | None
    comparable: Promotion | None

    @property
    def fingerprint(self) -> str:
        """The hash of what the decision depends on: the two bundles."""
        found = [one.bundle_fingerprint if one else None for one in (self.holder, self.comparable)]
        return fingerprint_of(found)


def run(
    *, store: Store, spec: Spec, evaluation: str, drill: str, bundle: str, look_back: str, delay: str, cutoff: str
) -> Made:
    """Decide on the bundle by the back-test of its recipe; the registry is read here and nowhere before.

    A bundle is compared only on requests shown after its own cutoff, so the champion to compare with is the newest
    promotion whose cutoff is not later than the back-test's.
    """
    now = resolve_cutoff(store, cutoff)
    earlier = resolve_cutoff(store, look_back)
    events = [one for one in promotions(store) if isinstance(now, datetime) and parse_time(one.cutoff) < now]
    past = [one for one in events if isinstance(earlier, datetime) and parse_time(one.cutoff) <= earlier]
    standing = Standing(in_production(events, stage="champion"), in_production(past, stage="champion"))
    inputs = {"evaluation": evaluation, "drill": drill, "bundle": bundle, "delay": delay}
    return verdict.make(store=store, spec=spec, **inputs, standing=standing)


def _verdict(
    work: Work, *, evaluation: Artifact, drill: Artifact, bundle: Artifact, delay: Artifact, standing: Standing
) -> None:
    """Weigh the evaluation against baselines, guardrails, outages and the champion."""
    about = {"bundle": bundle.content_hash, "version": bundle.record["version"], "metric": work.spec.decide.metric}
    judged, model = _judged(work, evaluation)
    delta = _Deltas(work, judged)
    found, comparison = _against_champion(work, evaluation, standing, delta)
    evidence = Evidence(
        metric=work.spec.decide.metric,
        days=_days(evaluation),
        baselines=_against_baselines(evaluation, delta, model),
        guardrails={name: delta.own(name) for name in work.spec.decide.guardrails},
        champion=found,
        same_recipe=_recipe(work, standing) == bundle.record["recipe"],
        shift=_shift(delay),
        drills=_drills(drill),
    )
    rules = work.spec.decide
    decided = decide(
        evidence, margin=rules.margin, guardrails=rules.guardrails, drill_calibration=rules.drill_calibration
    )
    work.rows = len(judged.request)
    work.record = {
        **about,
        "outcome": decided.outcome.value,
        "reasons": list(decided.reasons),
        "comparison": comparison,
        "deltas": {name: _record(one) for name, one in evidence.baselines.items()},
    }


verdict = step(reads=("decide", "evaluate"))(_verdict)


@dataclass(frozen=True)
class _Deltas:
    """Paired differences of one model's metric to another's on the same rows and the same drawn users."""

    work: Work
    judged: Judged

    def replicates(self, name: str, judged: Judged) -> Replicates | Cannot:
        draw = self.work.spec.evaluate
        return metric_replicates(name, judged, seed=draw.seed, replicates=draw.replicates)

    def own(self, name: str) -> Estimate | Cannot:
        return _estimate(self.replicates(name, self.judged))

    def to(self, other: Judged, name: str | None = None) -> Estimate | Cannot:
        name = name or self.work.spec.decide.metric
        mine, theirs = self.replicates(name, self.judged), self.replicates(name, other)
        if isinstance(mine, Cannot):
            return mine
        return theirs if isinstance(theirs, Cannot) else _estimate(mine.minus(theirs))


def _judged(work: Work, evaluation: Artifact) -> tuple[Judged, Bundle]:
    found = work.store.find(BUNDLE_STEP, _input(evaluation, "bundle"))
    if found is None:
        raise Refused(what="the back-test's bundle is gone", remedy="run the day again")
    model = load_bundle(found)
    return judged_rows(evaluation.scan("judged").collect(), model), model


def _input(artifact: Artifact, name: str) -> str:
    return str(artifact.manifest["inputs"][name])


def _against_baselines(evaluation: Artifact, delta: _Deltas, model: Bundle) -> dict[str, Estimate | Cannot]:
    """Compare with both orders; a metric of probabilities is compared with the base rate instead.

    Where examination can't be told from relevance, the logged order is no baseline: the clicks fell where it put them.
    """
    table = evaluation.scan("judged").select("item_id", "position").collect()
    judged = delta.judged
    if delta.work.spec.decide.metric in ("normalised_entropy", "ece", "calibration_ratio"):
        base = np.full(len(judged.target), judged.target.mean())
        return {"the base rate": delta.to(judged.with_scores(base, base))}
    orders = {"popular": popularity(table, model)}
    if model.about["examination_known"]:
        orders["logged"] = -table["position"].cast(pl.Float64).to_numpy()
    return {name: delta.to(judged.with_scores(order)) for name, order in orders.items()}


def _against_champion(
    work: Work, evaluation: Artifact, standing: Standing, delta: _Deltas
) -> tuple[Estimate | Cannot | None, dict[str, Any]]:
    if standing.holder is None:
        return None, Cannot("nothing was in production before this run's cutoff").as_record()
    if standing.comparable is None:
        reason = (
            f"no promotion is old enough: the champion {standing.holder.version} was trained up to "
            f"{standing.holder.cutoff} and has seen part of the answers"
        )
        return Cannot(reason), Cannot(reason).as_record()
    found = work.store.find(BUNDLE_STEP, standing.comparable.bundle_fingerprint)
    if found is None:
        reason = f"the bundle of {standing.comparable.version} is gone"
        return Cannot(reason), Cannot(reason).as_record()
    rows = evaluation.scan("judged").collect()
    theirs = judged_rows(rows, load_bundle(found))
    names = [name for name, one in evaluation.record["metrics"].items() if "cannot" not in one]
    deltas = {name: _record(delta.to(theirs, name)) for name in names}
    comparison = {
        "version": standing.comparable.version,
        "cutoff": standing.comparable.cutoff,
        "bundle": standing.comparable.bundle,
        "rows": len(rows),
        "metrics": deltas,
    }
    return delta.to(theirs), comparison


def _drills(drill: Artifact) -> list[Drill]:
    """Return the outages that were drilled; none where there was nothing to drill."""
    found = drill.record["drills"]
    return [
        Drill(
            tuple(one["outage"]),
            one["request_share"],
            drilled=_read(one["metrics"]["calibration_ratio"]["with"]),
            hit=_read(one["hit"]["calibration_ratio"]),
        )
        for one in (found if isinstance(found, list) else [])
    ]


def _read(record: dict[str, Any]) -> Estimate | Cannot:
    if "cannot" in record:
        return Cannot(record["cannot"])
    return Estimate(record["value"], record["low"], record["high"])


def _shift(delay: Artifact) -> str:
    """Return why the delays' alarm is raised, nothing where it is not, or cannot be."""
    shift = delay.record["shift"]
    return str(shift["reason"]) if shift.get("alarm") else ""


def _recipe(work: Work, standing: Standing) -> str:
    if standing.holder is None:
        return ""
    found = work.store.find(BUNDLE_STEP, standing.holder.bundle_fingerprint)
    return str(found.record["recipe"]) if found else ""


def _days(evaluation: Artifact) -> float:
    period = parse_time(evaluation.record["to"]) - parse_time(evaluation.record["from"])
    return period.total_seconds() / 86_400


def _estimate(found: Replicates | Cannot) -> Estimate | Cannot:
    if isinstance(found, Cannot):
        return found
    try:
        return found.estimates()[0]
    except Refused as refusal:
        return Cannot(str(refusal))


def _record(found: Estimate | Cannot) -> dict[str, Any]:
    return found.as_record()
