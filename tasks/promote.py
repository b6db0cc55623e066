"""Promote a bundle that was decided on: the numbered record is the one truth."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import polars as pl

from sameworld.models.bundle import load_bundle
from sameworld.models.rank import rank
from sameworld.records import Refused
from sameworld.spec import Spec
from sameworld.store.artifacts import Artifact, Store
from sameworld.store.made_by import open_input
from sameworld.store.promotions import Promotion, promote
from sameworld.store.runs import run_name
from sameworld.store.times import parse_time, time_text


def run(*, store: Store, spec: Spec, log: str, decision: str, bundle: str, evaluation: str) -> dict[str, Any]:
    """Write the promotion that the decision asks for, and say what happened.

    The bundle must be the one that was decided on, load, and rank a real request first. A bundle that is older than
    what is in production is not promoted: a backfill never takes production back.
    """
    decided, chosen = open_input(store, "decision", decision), open_input(store, "bundle", bundle)
    if decided.cannot or decided.record["outcome"] != "PROMOTE":
        return {"promoted": False, "reason": "the decision is not to promote"}
    if decided.record["bundle"] != chosen.content_hash:
        raise Refused(
            what="the decision is about another bundle",
            got=chosen.content_hash[:12],
            wanted=decided.record["bundle"][:12],
        )
    _rank_one_request(chosen, open_input(store, "evaluation", evaluation))
    cutoff = load_bundle(chosen).cutoff
    wanted = Promotion(
        number=0,
        at=time_text(datetime.now(tz=UTC)),
        version=chosen.record["version"],
        bundle=chosen.content_hash,
        bundle_fingerprint=chosen.fingerprint,
        cutoff=cutoff,
        previous=None,
        stage=spec.decide.stage,
        reason=decided.record["reasons"][0],
        run=run_name(parse_time(cutoff), spec, open_input(store, "log", log)),
        by="retrain",
    )
    try:
        record = promote(store, wanted)
    except Refused as refusal:
        return {"promoted": False, "reason": str(refusal)}
    return {"promoted": True, "reason": wanted.reason, "number": record.number, "stage": record.stage}


def _rank_one_request(bundle: Artifact, evaluation: Artifact) -> None:
    rows = evaluation.scan("judged")
    first = rows.filter(pl.col("request") == 0).drop("position", "propensity", strict=False).collect()
    ranked = rank(first, load_bundle(bundle))
    if not ranked.select(pl.col("score", "probability").is_finite().all()).row(0) == (True, True):
        raise Refused(what="the bundle does not rank", got="a score that is no number", wanted="finite scores")
