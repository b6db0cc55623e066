"""Evaluate the back-test's bundle on later requests whose labels have closed, with intervals by user."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sameworld.maths.calibration import ece_under_perfect_calibration, reliability_bins
from sameworld.maths.ope import SlateLog, iips_dr, lift, logged_value, plain_ips, refusal, sn_rips, weight_state
from sameworld.models.bundle import Bundle, load_bundle
from sameworld.models.judging import Judged, estimate_record, lengths_asked, metric_names, metric_replicates
from sameworld.models.logging_policy import knows_policy
from sameworld.models.replay import Replay, replay
from sameworld.models.scored_rows import judged_rows, popularity, user_codes
from sameworld.records import Cannot, Refused
from sameworld.store.artifacts import Artifact
from sameworld.store.candidates import candidate_rows
from sameworld.store.log import Log
from sameworld.store.parts import examples_of
from sameworld.store.repeat_rows import left_out
from sameworld.store.step import Work, step
from sameworld.store.times import parse_time

MAX_REPLAYED = 50_000  # requests; more only narrow an interval that is narrow already
SLICED = ("ndcg", "normalised_entropy", "calibration_ratio")


@step(reads=("evaluate", "features", "label.segments", "decide.metric", "repeats.rule"))
def run(
    work: Work, *, log: Artifact, examples: Artifact, repeats: Artifact, bundle: Artifact, look_back: Artifact
) -> None:
    """Score the bundle of C₀ on the requests shown since, closed by C, and measure everything with intervals by user.

    Each metric stands beside the same of two baselines: items in the order of their past gain ("popular", as known at
    C₀), and the order in which production showed them ("logged"). Each wish is judged once: requests that repeat a
    later one, and bots', are left out, unless ``repeats.rule`` keeps them.
    """
    model = load_bundle(bundle)
    period = {name: parse_time(look_back.record[name]) for name in ("from", "to")}
    shown = pl.col("shown_at")
    rows = examples_of(examples, work.store, since=period["from"], before=period["to"])
    rows = rows.filter(shown >= period["from"], shown < period["to"], pl.col("closed"))
    every = _whole_requests(rows).collect(engine="streaming")
    kept = ~every["request_id"].is_in(left_out(repeats, work.store)["request_id"].implode())
    table = every if kept.all() or work.spec.repeats.rule == "keep" else every.filter(kept)
    if not len(table):
        work.record = Cannot("no request shown since the back-test's model has a closed label").as_record()
        return
    judged = judged_rows(table, model)
    work.write("judged", table)
    work.rows = len(table)
    work.record = {
        "rows": len(table),
        "requests": int(judged.request[-1]) + 1,
        "positives": int(judged.target.sum()),
        "from": look_back.record["from"],
        "to": look_back.record["to"],
        "bundle": bundle.content_hash,
        "repeats": _repeats(work, judged if table is every else judged_rows(every, model), kept.to_numpy()),
        "metrics": _metrics(work, table, judged, model),
        "slices": _slices(work, table, judged, examples.record["features"]),
        "reliability": _reliability(judged),
        "policy_value": {
            **_policy_value(work, log, table, model),
            "from": look_back.record["from"],
            "to": look_back.record["to"],
            "checks": _checks(work, log, examples),
        },
    }


def _whole_requests(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Keep the order of the training set: a request's rows together, in the order of time."""
    return rows.with_columns(request=pl.col("request_id").rle_id())


def _draw(work: Work) -> dict[str, int]:
    return {"seed": work.spec.evaluate.seed, "replicates": work.spec.evaluate.replicates}


def _lengths(work: Work) -> list[int]:
    return lengths_asked(work.spec.evaluate.at, work.spec.decide.metric)


def _metrics(work: Work, table: pl.DataFrame, judged: Judged, model: Bundle) -> dict[str, Any]:
    models = {
        "": judged,
        "popular": judged.with_scores(popularity(table, model)),
        "logged": judged.with_scores(-table["position"].to_numpy().astype(np.float64)),
    }
    found: dict[str, Any] = {}
    for name in metric_names(_lengths(work)):
        records = {who: estimate_record(metric_replicates(name, one, **_draw(work))) for who, one in models.items()}
        found[name] = {**records.pop(""), **records, "rows": len(table)}
    if "value" in found["ece"] and judged.probability is not None:
        found["ece"]["under_perfect_calibration"] = ece_under_perfect_calibration(
            judged.probability, work.spec.evaluate.seed
        )
    return found


def _repeats(work: Work, judged: Judged, kept: NDArray[np.bool_]) -> dict[str, Any]:
    """Measure with and without the requests that repeat a later one, or are a bot's."""
    if kept.all():
        return Cannot("no judged request repeats another, and none is a bot's").as_record()
    names = dict.fromkeys((work.spec.decide.metric, "normalised_entropy", "calibration_ratio"))
    once = judged.where(kept)
    return {
        "rows": len(kept),
        "left_out_rows": int((~kept).sum()),
        "metrics": {
            name: {
                "with": estimate_record(metric_replicates(name, judged, **_draw(work))),
                "without": estimate_record(metric_replicates(name, once, **_draw(work))),
            }
            for name in names
        },
    }


def _slices(work: Work, table: pl.DataFrame, judged: Judged, kinds: dict[str, str]) -> list[dict[str, Any]]:
    """Measure the segments and the values of small categories, most rows first."""
    columns = [*work.spec.label.segments, *(name for name, kind in sorted(kinds.items()) if kind != "number")]
    found = []
    for column in dict.fromkeys(columns):
        values = table[column].cast(pl.String).fill_null("(null)")
        counts = values.value_counts(sort=True).sort(["count", column], descending=[True, False])
        if not 1 < len(counts) <= work.spec.evaluate.max_slices:
            continue
        for value, rows in counts.iter_rows():
            part = judged.where((values == value).to_numpy())
            found.append({"slice": column, "value": value, "rows": rows, "metrics": _few(work, part)})
    return found


def _few(work: Work, judged: Judged) -> dict[str, Any]:
    names = [name for name in metric_names(_lengths(work)[-1:]) if name.partition("@")[0] in SLICED]
    return {name: estimate_record(metric_replicates(name, judged, **_draw(work))) for name in names}


def _reliability(judged: Judged) -> list[dict[str, Any]]:
    if judged.probability is None or not judged.target.sum():
        return []
    bins = min(20, max(3, int(judged.target.sum() // 5)))
    columns = reliability_bins(judged.probability, judged.target, bins).as_record()
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _policy_value(work: Work, log: Artifact, table: pl.DataFrame, model: Bundle) -> dict[str, Any]:
    """Estimate the gain a request under the model's greedy order, or say why there is no number."""
    view = Log.open(log, work.store)
    requests = table.select("request_id").unique(maintain_order=True)
    requests = requests.gather_every(max(1, -(-len(requests) // MAX_REPLAYED)))
    shown = table.join(requests, on="request_id", how="semi", maintain_order="left")
    candidates = _candidates(work, view, shown, model)
    if not len(candidates):
        reason = "what else could have been shown is not known: no candidates with the features that the model reads"
        return {**Cannot(reason).as_record(), "left_out_share": 1.0}
    found = replay(shown, candidates, _policies(view, requests), model)
    if found.log is None:
        reason = "no request has all it takes: features of every candidate, and the propensity of what was shown"
        return {**Cannot(reason).as_record(), "left_out_share": found.left_out_share}
    return _estimate(work, found, found.log)


def _estimate(work: Work, found: Replay, slates: SlateLog) -> dict[str, Any]:
    period = {"requests": found.requests, "left_out_share": found.left_out_share, "method": "iips_dr"}
    reason = refusal(slates, **_draw(work))
    if reason is not None:
        return {**Cannot(reason).as_record(), **period}
    result = iips_dr(slates, **_draw(work))
    return {
        **result.as_record(),
        **period,
        "logged": logged_value(slates, **_draw(work)).as_record(),
        "lift": lift(slates, **_draw(work)).as_record(),
        "check": _check(work, slates),
        "propensities": _histogram(slates.propensity),
    }


def _check(work: Work, slates: SlateLog) -> dict[str, Any]:
    try:
        return sn_rips(slates, **_draw(work)).as_record()
    except Refused as refused:
        return Cannot(str(refused)).as_record()


def _histogram(propensity: NDArray[np.float64]) -> dict[str, Any]:
    edges = np.logspace(-4, 0, 25)
    counts = np.histogram(np.clip(propensity, edges[0], 1.0), bins=edges)[0]
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def _candidates(work: Work, view: Log, shown: pl.DataFrame, model: Bundle) -> pl.DataFrame:
    """Return the candidates of the requests shown, as scored, else with features as of the request's time."""
    known = ["shown_at", *(name for name in ("user_id",) if name in shown.columns)]
    requests = shown.group_by("request_id", maintain_order=True).agg(pl.col(known).first())
    latest: datetime = requests.select(pl.col("shown_at").max()).item()
    return candidate_rows(
        view,
        requests,
        features=[feature.name for feature in model.features],
        views=work.spec.features.views,
        cutoff=latest + timedelta(microseconds=1),
    )


def _policies(view: Log, requests: pl.DataFrame) -> pl.DataFrame:
    if not view.has("requests"):
        return pl.DataFrame(schema={"request_id": pl.String})
    known = knows_policy(view.table("requests")).join(requests.lazy(), on="request_id", how="semi")
    return known.collect(engine="streaming")


def _checks(work: Work, log: Artifact, examples: Artifact) -> list[dict[str, Any]]:
    """Estimate policies whose value the log also shows directly: each uniform policy, from the other policies' rows.

    Only for logs without lists: there a row's propensity is the whole law, and plain IPS needs no model.
    """
    view = Log.open(log, work.store)
    names = set(view.table("requests").collect_schema().names()) if view.has("requests") else set()
    if int(examples.record["longest_list"]) > 1 or not {"policy_id", "branch"} <= names:
        return []
    policies = view.table("requests").select("request_id", "policy_id", "branch")
    complete = examples_of(examples, work.store).filter(
        pl.col("completeness") == 1.0, pl.col("propensity").is_not_null()
    )
    rows = complete.join(policies, on="request_id").sort("request_id").collect(engine="streaming")
    uniform = rows.group_by("policy_id").agg(only=(pl.col("branch") == "shuffle").all()).filter("only")
    return [
        _check_uniform(work, rows, target, source)
        for target in sorted(uniform["policy_id"].drop_nulls())
        for source in sorted(set(rows["policy_id"].drop_nulls()) - set(uniform["policy_id"]))
    ]


def _check_uniform(work: Work, rows: pl.DataFrame, target: str, source: str) -> dict[str, Any]:
    own, other = rows.filter(pl.col("policy_id") == target), rows.filter(pl.col("policy_id") == source)
    chance = np.full(len(other), float(own["propensity"].median()))  # type: ignore[arg-type]
    slates, observed = _single(other, chance), _single(own, own["propensity"].to_numpy())
    about = {"policy": target, "estimated_from": source, "method": "plain_ips", "rows": len(other)}
    seen = {"observed": logged_value(observed, **_draw(work)).as_record(), "observed_rows": len(own)}
    weights = weight_state(chance / other["propensity"].to_numpy(), slates.user)
    state = {name: vars(weights)[name] for name in ("ess", "largest_weight", "mean_weight", "mean_weight_se")}
    reason = refusal(slates, **_draw(work))
    if reason is not None:
        return {**about, "estimate": Cannot(reason).as_record(), **seen, **state}
    estimate = plain_ips(slates, **_draw(work)).as_record()
    return {**about, "estimate": {name: estimate[name] for name in ("value", "low", "high")}, **seen, **state}


def _single(rows: pl.DataFrame, chance: NDArray[np.float64]) -> SlateLog:
    """Let each row be a request of its own."""
    return SlateLog(
        request=np.arange(len(rows), dtype=np.int64),
        position=np.ones(len(rows), np.int64),
        user=user_codes(rows),
        reward=rows["gain"].to_numpy().astype(np.float64),
        propensity=rows["propensity"].to_numpy(),
        target_match=chance,
    )
