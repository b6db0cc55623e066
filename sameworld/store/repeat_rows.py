"""What `find_repeats` wrote beside the labels: weights row by row, and the requests that a rule would leave out."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sameworld.store.artifacts import Artifact, Store
from sameworld.store.parts import parts_of

WEIGHTS, LEFT_OUT = "weights", "left_out"


def repeat_weights(repeats: Artifact, store: Store) -> NDArray[np.float64]:
    """Return what each label row weighs, (rows,), in the order of the labels; a part without weights weighs 1."""
    found = [np.ones(0)]
    for part in parts_of(repeats, store):
        if f"{WEIGHTS}.parquet" in part.artifact.files:
            found.append(part.artifact.scan(WEIGHTS).collect()["repeat_weight"].to_numpy())
        else:
            found.append(np.ones(int(part.artifact.record["rows"])))
    return np.concatenate(found)


def left_out(repeats: Artifact, store: Store) -> pl.DataFrame:
    """Return the request_id of the requests that repeat a later one, or are a bot's."""
    parts = [part.artifact for part in parts_of(repeats, store)]
    files = [part.scan(LEFT_OUT) for part in parts if f"{LEFT_OUT}.parquet" in part.files]
    return pl.concat([pl.LazyFrame(schema={"request_id": pl.String}), *files]).collect()
