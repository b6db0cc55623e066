"""What more exploration would buy: the choices of a model's greedy order beside how probable they were when logged."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sameworld.maths.loop import TargetRows
from sameworld.maths.ranking import order_positions
from sameworld.models.bundle import Bundle
from sameworld.models.logging_policy import logged_policy
from sameworld.models.rank import scores
from sameworld.models.scored_rows import user_codes


def target_rows(
    shown: pl.DataFrame, candidates: pl.DataFrame, policies: pl.DataFrame, bundle: Bundle
) -> TargetRows | None:
    """Return the model's choices for logged requests, as many a request as were shown.

    shown : request_id, item_id, position, gain and, where known, user_id
    candidates : request_id, item_id and the bundle's features
    policies : request_id, candidates, tau, epsilon of requests whose law of ordering is known; one that was shuffled
        for certain (epsilon 1, tau null) says nothing of the logging model's own draw and is left out

    A request is left out, too, when its candidates' features are not known or when a shown item is no candidate. None
    where no request is left, or nothing that they showed gained anything.
    A gain's variance is taken as proportional to its expectation, by the factor that the shown items' residuals have.
    """
    drawn_by = policies.filter(pl.col("tau").is_not_null())
    choices = _choices(candidates.join(drawn_by.select("request_id"), on="request_id", how="semi"), bundle)
    rows = shown.join(choices.drop("place"), on=["request_id", "item_id"], how="left", maintain_order="left")
    rows = rows.filter(pl.col("relevance").is_not_null().all().over("request_id"))
    if not len(rows) or not rows["gain"].sum():
        return None
    worth, factor = _gains(rows, bundle)
    target = _as_many_as_shown(choices, rows, drawn_by)
    expected = worth * target["relevance"].to_numpy() * bundle.examination_at(target["place"].to_numpy())
    return TargetRows(
        request=target["request_id"].rle_id().cast(pl.Int64).to_numpy(),
        user=target["user"].to_numpy(),
        expected=expected,
        variance=factor * expected,
        drawn=_drawn(target, drawn_by),
        candidates=target["listed"].to_numpy(),
    )


def _as_many_as_shown(choices: pl.DataFrame, rows: pl.DataFrame, policies: pl.DataFrame) -> pl.DataFrame:
    """Return the first choices of each request of ``rows``, with its user and how many candidates it listed."""
    users = rows.select("request_id", user=pl.Series(user_codes(rows)))
    requests = users.group_by("request_id").agg(pl.col("user").first(), shown=pl.len())
    listed = policies.select("request_id", listed=pl.col("candidates").list.len().cast(pl.Int64))
    target = choices.join(requests, on="request_id").join(listed, on="request_id")
    return target.filter(pl.col("place") <= pl.col("shown")).sort("request_id", "place")


def _choices(candidates: pl.DataFrame, bundle: Bundle) -> pl.DataFrame:
    """Return every candidate's place in the model's order, and its relevance."""
    ordered = candidates.sort("request_id", "item_id")
    request = ordered["request_id"].rle_id().cast(pl.Int64).to_numpy()
    score, relevance = scores(ordered, request, bundle)
    return ordered.select("request_id", "item_id").with_columns(
        place=pl.Series(order_positions(request, score)),
        relevance=pl.Series(relevance),
    )


def _gains(rows: pl.DataFrame, bundle: Bundle) -> tuple[float, float]:
    """Return the gain that one expected target is worth, and the residuals' mean square by expected gain."""
    gain = rows["gain"].to_numpy().astype(np.float64)
    predicted = rows["relevance"].to_numpy() * bundle.examination_at(rows["position"].cast(pl.Int64).to_numpy())
    worth = float(gain.sum()) / max(float(predicted.sum()), 1e-12)
    expected = worth * predicted
    return worth, float(np.sum((gain - expected) ** 2)) / max(float(expected.sum()), 1e-12)


def _drawn(target: pl.DataFrame, policies: pl.DataFrame) -> NDArray[np.float64]:
    """Return the probability that the logging model's draw, unshuffled, shows each choice at its place."""
    rows = target.select("request_id", "item_id", position="place")
    unshuffled = policies.with_columns(epsilon=pl.lit(0.0))
    place = rows["position"].to_numpy()
    marginals = logged_policy(unshuffled, rows, positions=int(place.max())).marginals
    drawn = np.nan_to_num(marginals[np.arange(len(rows)), place - 1])
    return np.asarray(np.clip(drawn, 0.0, 1.0), np.float64)
