"""What `find_repeats` wrote beside the labels: weights row by row, and the requests that a rule would leave out."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sameworld.store.artifacts import Artifact, Store
from sameworld.store.parts import parts_of

WEIGHTS, LEFT_OUT = "weights", "left_out"


def repeat_weights(repeats: Artifact, store: Store) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return what each label row weighs, and whether a rule would judge it, (rows,) each, in the order of the labels.

    A part without weights weighs 1 and is judged.
    """
    weights, judged = [np.ones(0)], [np.ones(0, np.bool_)]
    for part in parts_of(repeats, store):
        rows = int(part.artifact.record["rows"])
        if f"{WEIGHTS}.parquet" in part.artifact.files:
            found = part.artifact.scan(WEIGHTS).collect()
            weights.append(found["repeat_weight"].to_numpy())
            judged.append(found["judged"].to_numpy())
        else:
            weights.append(np.ones(rows))
            judged.append(np.ones(rows, np.bool_))
    return np.concatenate(weights), np.concatenate(judged)


def left_out(repeats: Artifact, store: Store) -> pl.DataFrame:
    """Return the request_id of the requests that repeat a later one, or are a bot's."""
    parts = [part.artifact for part in parts_of(repeats, store)]
    files = [part.scan(LEFT_OUT) for part in parts if f"{LEFT_OUT}.parquet" in part.files]
    return pl.concat([pl.LazyFrame(schema={"request_id": pl.String}), *files]).collect()
