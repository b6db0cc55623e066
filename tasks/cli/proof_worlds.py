"""The worlds of the proof: what each failure needs to show itself, and when its arms retrain."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from sameworld.sources.closed_loop import WorldParameters

AUC, NE = "auc", "normalised_entropy"
LOOP, DELAY, NULLS, ALL = NAMES = ("loop", "delay", "nulls", "all")
CALM: dict[str, Any] = {"outage_shared": 0.0, "outage_user": 0.0, "outage_item": 0.0}
CLICKS_ONLY: dict[str, Any] = {"purchase_gain": 0.0, "window_days": 1.0}
# Many candidates, young items that are better than old ones, and a served hint of quality that is weak: an item that is
# never shown is never known, and yesterday's winners stay.
FEEDBACK: dict[str, Any] = {"candidates": 60, "churn": 0.04, "quality_trend": 0.06, "content_proxy": 0.15}
LATE: dict[str, Any] = {
    "window_days": 3.0, "fast_delay_days": 0.5, "slow_delay_days": 2.0, "purchase_lag_hours": 12.0,
    "purchase_intercept": 0.0, "purchase_gain": 2.0,
}  # fmt: skip
SHARED: dict[str, Any] = {"users": 1000, "items": 300, "slots": 10, "propensity_share": 0.0, "candidates_share": 0.0}
DETERMINISTIC: dict[str, Any] = {"tau": 0.001, "epsilon": 0.0}  # what the unaware serve with
EXPLORING: dict[str, Any] = {"tau": 0.2, "epsilon": 0.02}


@dataclass(frozen=True)
class Course:
    """What happens on which day, counted from 0.

    ships : midnights at which both arms put a new model into service; before the first there is none
    days : how many are served in all; judged_days : days whose requests the product's back-test judges
    edge : how many days count as early, and as late
    """

    ships: tuple[int, ...]
    days: int
    judged_days: int
    edge: tuple[int, int] = (5, 8)

    @property
    def early(self) -> range:
        """Return the first days that a model served."""
        return range(self.ships[0], self.ships[0] + self.edge[0])

    @property
    def graded(self) -> tuple[int, ...]:
        """Return the ships whose promises are held against production: all but the first, which knew the launch only.

        >>> Course(ships=(4, 8, 12), days=14, judged_days=2).graded
        (8, 12)
        """
        return self.ships[1:]

    @property
    def late(self) -> range:
        """Return the last days."""
        return range(self.days - self.edge[1], self.days)


@dataclass(frozen=True)
class Proof:
    """One failure's world, and its course."""

    name: str
    world: WorldParameters
    course: Course

    def of_seed(self, seed: int, *, exploring: bool = True, **changes: Any) -> WorldParameters:
        """Return the world of a seed, as it is served with or without exploration."""
        serving = EXPLORING if exploring else DETERMINISTIC
        return replace(self.world, seed=seed, days=self.course.days, **{**serving, **changes})


# A back-test at a midnight judges what an earlier one shipped: by the landing lag, the window and the days that judge.
# The courses put a ship there, so that no bundle is made only to be judged.
_COURSES = {
    LOOP: Course(ships=(8, 12, 16, 20, 24), days=28, judged_days=2),
    DELAY: Course(ships=(7, 14, 21), days=28, judged_days=2),
    NULLS: Course(ships=(4, 8, 12, 16), days=20, judged_days=2),
    ALL: Course(ships=(7, 10, 14, 17, 21, 24), days=28, judged_days=2),
}
_WORLDS: dict[str, dict[str, Any]] = {
    LOOP: {**CALM, **CLICKS_ONLY, **FEEDBACK},
    DELAY: {**CALM, **LATE},
    NULLS: CLICKS_ONLY,
    ALL: {**LATE, **FEEDBACK},
}
_REQUESTS = {LOOP: 250, DELAY: 600, NULLS: 400, ALL: 250}
_QUICK = {
    LOOP: Course(ships=(4,), days=8, judged_days=2, edge=(2, 2)),
    DELAY: Course(ships=(4, 7), days=10, judged_days=1, edge=(2, 2)),
    NULLS: Course(ships=(4, 8), days=12, judged_days=2, edge=(2, 2)),
    ALL: Course(ships=(4, 7), days=10, judged_days=1, edge=(2, 2)),
}
_QUICK_LATE = {"window_days": 1.0, "fast_delay_days": 0.2, "slow_delay_days": 0.6, "purchase_lag_hours": 6.0}


@dataclass(frozen=True)
class Size:
    """How much is simulated: the seeds of the worlds, and how many requests a day as a multiple of the default."""

    name: str
    seeds: tuple[int, ...]
    traffic: float = 1.0

    def of_seeds(self, count: int | None) -> Size:
        """Return this size with so many worlds, the first of their seeds; None: as many as it has.

        >>> DEFAULT.of_seeds(2).seeds
        (201, 202)
        """
        return self if count is None else replace(self, seeds=tuple(range(FIRST_SEED, FIRST_SEED + count)))

    def proof(self, name: str) -> Proof:
        """Return a failure's world and course at this size."""
        requests = round(_REQUESTS[name] * self.traffic)
        if self.name != "quick":
            return Proof(name, WorldParameters(**SHARED, **_WORLDS[name], requests_per_day=requests), _COURSES[name])
        small = {**SHARED, **_WORLDS[name], "users": 200, "items": 100}
        late = _QUICK_LATE if name in (DELAY, ALL) else {}
        return Proof(name, WorldParameters(**{**small, **late}, requests_per_day=requests), _QUICK[name])


FIRST_SEED = 201
QUICK = Size("quick", seeds=(201, 202), traffic=0.5)
DEFAULT = Size("default", seeds=tuple(range(FIRST_SEED, FIRST_SEED + 6)))
FULL = Size("full", seeds=tuple(range(FIRST_SEED, FIRST_SEED + 12)), traffic=2.0)
SIZES = {size.name: size for size in (QUICK, DEFAULT, FULL)}
