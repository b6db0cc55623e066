"""Drill outages: the back-test's model once more on the judged rows, without the features of a service that failed."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sameworld.models.bundle import load_bundle
from sameworld.models.drilling import NEVER_SEEN, Drilled, Outage, null_masks, outages_to_drill, reason_shares
from sameworld.models.item_history import history_features
from sameworld.models.scored_rows import judged_rows
from sameworld.records import Cannot
from sameworld.store.artifacts import Artifact
from sameworld.store.feature_rows import SERVED
from sameworld.store.log import Log
from sameworld.store.step import Work, step
from sameworld.store.times import parse_time
from sameworld.store.views import view_columns

MAX_ROWS = 200_000  # a drill scores all of them; more only narrow intervals that are narrow already
Bools = NDArray[np.bool_]


@step(reads=("decide.metric", "evaluate.seed", "evaluate.replicates"))
def run(work: Work, *, log: Artifact, examples: Artifact, evaluation: Artifact, bundle: Artifact) -> None:
    """Score the judged rows without the features of each outage, beside the same as they were served.

    Outages are the whole-request patterns of nulls that the judged requests show, the groups of features that fail
    together in them, and each view's features. One without nulls was never seen, but can still come. What a bundle
    adds by itself, of users and items, stays. Of very many rows an even share of the requests is taken.
    """
    model, view = load_bundle(bundle), Log.open(log, work.store)
    table = _sampled(evaluation.scan("judged"), int(evaluation.record["rows"]))
    judged = judged_rows(table, model)
    own = history_features(model.history.kinds)
    names = [one.name for one in model.features if one not in own]
    known = np.array([name in examples.record["served_features"] for name in names], np.bool_)
    logged = table.group_by(pl.col("request_id").rle_id().alias("at"), maintain_order=True).agg(pl.col(SERVED).any())
    served = logged[SERVED].to_numpy()
    # Nulls count as an outage only in what was served, of requests that logged it.
    masks = null_masks(table, names, judged.request) & known & served[:, None]
    drilled = Drilled(judged, _metrics(work), seed=work.spec.evaluate.seed, replicates=work.spec.evaluate.replicates)
    views = {one: sorted(set(view_columns(view, one)) & set(names)) for one in view.views()}
    outages = outages_to_drill(masks[served], names, views)
    stated = _stated(view, evaluation, table)
    found = []
    for outage in outages:
        hit = np.asarray(masks[:, [names.index(name) for name in outage.features]].all(axis=1))
        without = judged_rows(_lacking(table, outage), model)
        found.append({
            "outage": list(outage.features),
            "kind": outage.kind,
            "request_share": float(hit.sum() / max(served.sum(), 1)),
            "requests": int(hit.sum()),
            "reasons": _reasons(stated, table, outage, hit[judged.request]),
            "hit": drilled.hit(hit),
            "metrics": drilled.metrics(without),
        })  # fmt: skip
    work.rows = len(table)
    nothing = Cannot("no judged request lacked a feature as a whole, and no view gives one: there is nothing to drill")
    work.record = {"rows": len(table), "requests": len(masks), "drills": found or nothing.as_record()}


def _metrics(work: Work) -> list[str]:
    return list(dict.fromkeys([work.spec.decide.metric, "normalised_entropy", "calibration_ratio"]))


def _sampled(judged: pl.LazyFrame, rows: int) -> pl.DataFrame:
    """Return the judged rows, or those of every n-th request."""
    each = max(1, -(-rows // MAX_ROWS))
    return judged.filter(pl.col("request_id").rle_id() % each == 0).collect()


def _lacking(table: pl.DataFrame, outage: Outage) -> pl.DataFrame:
    return table.with_columns(pl.lit(None).alias(name) for name in outage.features)


def _stated(view: Log, evaluation: Artifact, table: pl.DataFrame) -> pl.DataFrame | Cannot:
    """Return why features were null, as the log states it: request_id, feature, reason and on how many rows."""
    impressions = view.table("impressions")
    if "null_reason" not in impressions.collect_schema().names():
        return Cannot("the log states no null_reason")
    begin, end = (parse_time(str(evaluation.record[name])) for name in ("from", "to"))
    stated = impressions.filter(pl.col("shown_at").is_between(begin, end, closed="left")).select(
        "request_id", "null_reason"
    )
    listed = stated.drop_nulls().join(table.lazy().select("request_id").unique(), on="request_id", how="semi")
    pairs = listed.explode("null_reason").unnest("null_reason").rename({"key": "feature", "value": "reason"})
    counted = pairs.drop_nulls().group_by("request_id", "feature", "reason").agg(rows=pl.len())
    return counted.sort("request_id", "feature", "reason").collect(engine="streaming")


def _reasons(stated: pl.DataFrame | Cannot, table: pl.DataFrame, outage: Outage, hit: Bools) -> dict[str, Any]:
    if isinstance(stated, Cannot):
        return stated.as_record()
    if not hit.any():
        return Cannot(NEVER_SEEN).as_record()
    of_hit = stated.join(table.filter(hit).select("request_id").unique(), on="request_id", how="semi")
    nulls = sum(
        table[name].filter(hit).null_count() if name in table.columns else int(hit.sum()) for name in outage.features
    )
    return dict(reason_shares(of_hit, outage.features, nulls=nulls))
