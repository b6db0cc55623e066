"""How much of an impression's gain can have arrived: the kinds of outcome come at their own pace."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sameworld.maths.delay import DelayCurve
from sameworld.store.artifacts import Artifact, Store
from sameworld.store.parts import completeness, example_parts

Floats = NDArray[np.float64]


def gain_completeness(examples: Artifact, store: Store, *, gains: Mapping[str, float], examination: Floats) -> Floats:
    """Return the share of each training row's expected gain that is known, (rows,): its kinds' completeness averaged.

    gains : what an outcome of each kind is worth
    examination : (rows,), of each row's position

    Kinds weigh by what they bring: gain × outcomes / exposure over all rows. Without any outcome, 1.
    """
    kinds = sorted(gains)
    known, came = _by_kind(examples, store, kinds)
    worth = np.array([gains[kind] * count for kind, count in zip(kinds, came, strict=True)])
    worth = worth / np.maximum(examination @ known, 1e-12)
    return known @ (worth / worth.sum()) if worth.sum() > 0 else np.ones(len(examination))


def _by_kind(examples: Artifact, store: Store, kinds: list[str]) -> tuple[Floats, list[float]]:
    """Return each kind's completeness by row, (rows, kinds), and how many rows had an outcome of it."""
    known, came = [], np.zeros(len(kinds))
    curves = {
        kind: {name: DelayCurve.from_record(record) for name, record in found.items()}
        for kind, found in examples.record["curves_by_kind"].items()
    }
    flags = [f"is_{kind}" for kind in kinds]
    for part in example_parts(examples, store):
        rows = part.select("age_hours", "segment", "closed", *flags).collect(engine="streaming")
        known.append(np.stack([completeness(rows, curves[kind]) for kind in kinds], axis=1))
        came += rows.select(pl.col(flags).sum()).to_numpy()[0]
    return np.concatenate(known), came.tolist()
