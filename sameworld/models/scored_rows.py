"""From a frame of examples to arrays that can be judged, under any bundle."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sameworld.models.bundle import Bundle
from sameworld.models.judging import Judged
from sameworld.models.rank import scores


def codes(column: pl.Series) -> NDArray[np.int64]:
    """Number a column's values 0, 1, … in ascending order."""
    return column.rank("dense").cast(pl.Int64).to_numpy() - 1


def user_codes(table: pl.DataFrame) -> NDArray[np.int64]:
    """Number the users; an unknown user counts as its request."""
    request = pl.lit("request ") + pl.col("request_id")
    user = pl.coalesce(pl.lit("user ") + pl.col("user_id"), request) if "user_id" in table.columns else request
    return codes(table.select(user.alias("user")).to_series())


def popularity(rows: pl.DataFrame, bundle: Bundle) -> NDArray[np.float64]:
    """Return a score that orders items by their past gain; equal ones by id, never by where they were shown."""
    ids, item = np.unique(rows["item_id"].to_numpy().astype(np.str_), return_inverse=True)
    place = np.empty(len(ids))
    place[np.lexsort((-np.arange(len(ids)), bundle.items.of(ids.tolist())))] = np.arange(len(ids))
    return np.asarray(place[item], np.float64)


def judged_rows(rows: pl.DataFrame, bundle: Bundle) -> Judged:
    """Score rows with a bundle; the probability is that of observing the target where the item was shown.

    rows : request_id (rows of a request contiguous), item_id, position, gain, target and the features
    """
    request = rows.select(pl.col("request_id").rle_id()).to_series().cast(pl.Int64).to_numpy()
    score, probability = scores(rows, request, bundle)
    seen = bundle.examination_at(rows["position"].cast(pl.Int64).to_numpy())
    return Judged(
        request=request,
        user=user_codes(rows),
        item=codes(rows["item_id"]),
        gain=rows["gain"].to_numpy().astype(np.float64),
        target=rows["target"].to_numpy().astype(np.float64),
        score=score,
        probability=probability * seen,
        unseen=1.0 / seen,
    )
