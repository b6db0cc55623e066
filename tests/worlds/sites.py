"""Where faults are planted: one table's clean rows, and a note of every planted row with the verdict it must get."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy as np

Row = dict[str, Any]
KEPT, DUPLICATE, CONFLICT = "kept", "duplicate", "conflict"
MICROSECOND = timedelta(microseconds=1)
KEYS = {
    "requests": ("request_id",),
    "impressions": ("request_id", "item_id"),
    "outcomes": ("request_id", "item_id", "kind", "happened_at"),
}


@dataclass(frozen=True)
class Planting:
    """One row and the verdict it must get; ``added`` is false for a row of the clean drop that a planted one spoils."""

    fault: str
    table: str
    day: int
    key: tuple[Any, ...]
    verdict: str
    row: Row
    added: bool = True
    winner: tuple[str, Any] | None = None


@dataclass
class Site:
    """One table of a drop while faults are planted: ``deck`` are clean rows with their day, each to be used once.

    The deck's rows are independent (no two of one request), old enough for two later days to follow, and arrived at
    least a second before their day's end. Impressions in it have no outcome, outcomes no retraction.
    """

    table: str
    first: datetime
    days: int
    deck: list[tuple[Row, int]]
    rng: np.random.Generator
    top: int = 0  # the largest position in the clean drop
    keys: tuple[str, ...] = ()
    fault: str = ""
    plantings: list[Planting] = field(default_factory=list)
    made: int = 0

    @property
    def event(self) -> str:
        """The column that says when it happened."""
        return "happened_at" if self.table == "outcomes" else "shown_at"

    def start(self, day: int) -> datetime:
        """Return the first instant of a day."""
        return self.first + timedelta(days=day)

    def draw(self, count: int = 0) -> list[tuple[Row, int]]:
        """Take ``count`` unused clean rows (0: two to four), as copies."""
        count = count or int(self.rng.integers(2, 5))
        if count > len(self.deck):
            raise ValueError(f"no clean rows left in {self.table} for {self.fault}: plant in a larger drop")
        return [(dict(row), day) for row, day in (self.deck.pop() for _ in range(count))]

    def fresh(self, row: Row) -> Row:
        """Return the row under a key of its own, that loses nobody anything if it is thrown away."""
        self.made += 1
        new: dict[str, Row] = {
            "requests": {"request_id": f"planted-{self.made}"},
            "impressions": {"item_id": f"planted-{self.made}", "position": 1000 + self.made},
            "outcomes": {"happened_at": row["happened_at"] + self.made * MICROSECOND} if "happened_at" in row else {},
        }
        return row | new[self.table]

    def note(
        self, row: Row, day: int, verdict: str, *, added: bool = True, winner: tuple[str, Any] | None = None
    ) -> None:
        """Plant a row in a day's folder, or (not ``added``) note what becomes of a row that is there."""
        key = tuple(row[name] for name in self.keys)
        self.plantings.append(Planting(self.fault, self.table, day, key, verdict, row, added, winner))

    def nudge(self, row: Row, day: int) -> Row:
        """Return the row as if it had arrived later on the same day."""
        return row | {"arrived_at": row["arrived_at"] + (self.start(day + 1) - row["arrived_at"]) / 2}

    def corrected(self, row: Row) -> tuple[Row, tuple[str, Any]]:
        """Return the row with another value that is no part of its key, and which that is."""
        features = [name for name in row if name.startswith("x_") and type(row[name]) in {int, float}]
        column = {"requests": "policy_id", "outcomes": "value"}.get(self.table) or (features or ["user_id"])[0]
        if column in {"policy_id", "user_id"}:
            return row | {column: "planted"}, (column, "planted")
        old = math.nan if row[column] is None else row[column]
        value = type(old)(1 if old != old else int(old) + 1)  # whole, so that float32 holds it exactly
        return row | {column: value}, (column, value)


def later(row: Row, days: int = 1) -> Row:
    """Return the row as if it had arrived at the same hour some days later."""
    return row | {"arrived_at": row["arrived_at"] + timedelta(days=days)}
