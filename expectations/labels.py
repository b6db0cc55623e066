"""What labels must be: both classes among the closed rows, gains that are numbers; OPEN rows never block."""

from __future__ import annotations

from typing import Any

from expectations.expect import block, warn


def suite(*, min_positives: int) -> list[Any]:
    """Return the expectations on the labels' profile."""
    one_class = "classes: the target {name!r} has no {missing_class} row among the {closed:int} closed"
    few = "classes: {positives:int} closed rows are positive, {low:int} are wanted"
    completeness = "completeness: {bad_completeness:int} rows lie outside [0, 1], or are closed and incomplete"
    return [
        block("one_class", "one_class", one_class, high=0),
        warn("one_class_early", "one_class", f"{one_class}, too few to tell", high=0),
        warn("positives", "few_positives", few, low=min_positives),
        warn("closed", "closed", "closed: none of {rows:int} labels is settled yet", low=1),
        block("bad_completeness", "bad_completeness", completeness, high=0),
        block(
            "bad_closed", "bad_closed", "closed: {bad_closed:int} rows closed before window and lag had passed", high=0
        ),
        block("bad_gains", "bad_gains", "gains: {bad_gains:int} rows have none, or a negative or infinite one", high=0),
    ]
