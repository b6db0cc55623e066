"""Everything that could have been shown for a request, with the features that a model would have scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import polars as pl

from sameworld.store.feature_rows import FeatureColumns, feature_columns, with_features
from sameworld.store.log import Log
from sameworld.store.views import feature_name, view_columns

IDS = ("request_id", "item_id")


def candidate_rows(
    log: Log,
    requests: pl.DataFrame,
    *,
    features: Sequence[str],
    views: Mapping[str, Sequence[str]],
    cutoff: datetime,
) -> pl.DataFrame:
    """Return request_id, item_id and features of the candidates of these requests.

    requests : request_id, shown_at and, where known, user_id
    features : what the model reads;  views : view -> columns that the spec joins

    First the ``candidates`` table, as scored. A request that it lacks, but whose candidates are listed, has its
    features joined from the views as of its time, if the views have every one of them; else it has no rows here.
    """
    scored = _scored(log, requests, features, views, cutoff)
    rest = requests.join(scored.select("request_id").unique(), on="request_id", how="anti", maintain_order="left")
    listed = _listed(log, rest, features, views, cutoff)
    return pl.concat([scored, *([listed] if listed is not None else [])], how="diagonal_relaxed")


def _scored(
    log: Log, requests: pl.DataFrame, features: Sequence[str], views: Mapping[str, Sequence[str]], cutoff: datetime
) -> pl.DataFrame:
    if not log.has("candidates"):
        return pl.DataFrame(schema=dict.fromkeys(IDS, pl.String))
    table = log.table("candidates")
    served = [name for name in table.collect_schema().names() if name in features]
    columns = feature_columns(log, "candidates", served=served, views=views)
    rows = with_features(table.join(requests.lazy(), on="request_id", how="inner"), log, columns, cutoff=cutoff)
    return rows.select(*IDS, *columns.names).collect(engine="streaming")


def _listed(
    log: Log, requests: pl.DataFrame, features: Sequence[str], views: Mapping[str, Sequence[str]], cutoff: datetime
) -> pl.DataFrame | None:
    sources = _views_of(log, features, views)
    if sources is None or not len(requests) or not log.has("requests"):
        return None
    table = log.table("requests")
    if "candidates" not in table.collect_schema().names():
        return None
    listed = table.select(
        "request_id", "arrival_day", pl.col("candidates").list.eval(pl.element().struct.field("item_id"))
    )
    rows = listed.join(requests.lazy(), on="request_id", how="inner").explode("candidates")
    rows = rows.rename({"candidates": "item_id"}).filter(pl.col("item_id").is_not_null())
    joined = with_features(rows, log, FeatureColumns((), sources, {}), cutoff=cutoff)
    return joined.select(*IDS, *features).collect(engine="streaming")


def _views_of(log: Log, features: Sequence[str], views: Mapping[str, Sequence[str]]) -> dict[str, list[str]] | None:
    """Return view -> columns that together give every feature, the spec's own views first; None if they can't."""
    found: dict[str, list[str]] = {}
    left = set(features)
    for view in [*sorted(views), *(name for name in log.views() if name not in views)]:
        for name, column in view_columns(log, view).items():
            if name in left and feature_name(column) == name:
                found.setdefault(view, []).append(column)
                left.discard(name)
    return None if left else found
