"""What a training set must be: from before the cutoff, a request's rows together, features that say something."""

from __future__ import annotations

from typing import Any

from expectations.expect import block, warn


def suite() -> list[Any]:
    """Return the expectations on the training set's profile."""
    served = "features: {name} is null in every served row, and known in others: the model would never see it served"
    infinite = "infinite: {name} is infinite in {infinite:int} rows; repair it where it is served, or exclude it"
    return [
        block("future_rows", "future", "time: {future_rows:int} rows were shown at the cutoff or after it", high=0),
        block("torn_requests", "torn", "order: {torn_requests:int} requests' rows do not stand together", high=0),
        block("infinite", "infinite", infinite, high=0),
        warn("all_null", "all_null", "features: {name} is null in every row", high=0),
        warn("constant", "constant", "features: {name} has one value in every row that has it", high=0),
        warn("null_when_served", "null_when_served", served, high=0),
    ]
