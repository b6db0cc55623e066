"""What a closed-loop world is made of: every size, rate and delay, with its unit."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sameworld.records import Refused

SHARES = (
    "slow_share", "churn", "content_proxy", "profile_refresh", "epsilon",
    "candidates_share", "propensity_share", "outage_shared", "outage_user", "outage_item",
)  # fmt: skip
COUNTS = ("days", "requests_per_day", "users", "items", "candidates", "slots")
POSITIVE = ("window_days", "fast_delay_days", "slow_delay_days", "tau", "request_lag_minutes",
            "impression_lag_minutes", "click_lag_hours", "purchase_lag_hours")  # fmt: skip


@dataclass(frozen=True)
class WorldParameters:
    """A world's sizes, rates and delays; two worlds with equal parameters write equal bytes.

    Sizes: ``days`` simulated from ``first_day`` (UTC) on, ``tail_days`` more that carry late arrivals only,
    ``requests_per_day``, ``users``, ``items`` alive at any time, ``candidates`` a request, ``slots`` shown of them.

    Truth: examination of position k is ``k ** -examination_exponent``, or ``examination`` (one value in (0, 1] a
    slot, the first 1.0) where given; ``churn`` is the share of the items replaced a day, ``quality_trend`` how much
    better a day later's newborn items are (the living items' mean level is held), ``quality_step`` the standard
    deviation of a quality's daily step, ``content_proxy`` the correlation of the served content feature with an
    item's quality at birth, ``click_intercept`` and ``purchase_intercept`` log-odds, ``click_gain`` and
    ``purchase_gain`` what an outcome is worth, ``window_days`` how long after an impression a purchase counts.

    Delays: a purchase follows its impression after an exponential time of mean ``fast_delay_days`` or, for the
    ``slow_share`` of users, ``slow_delay_days``. A row lands in the log after a gamma time (shape 4) of the mean
    that its ``*_lag_*`` states. ``batch_delay_hours`` after midnight the day's feature batch can be read;
    ``profile_refresh`` is the share of user profiles estimated anew in each.

    Serving: Plackett-Luce at temperature ``tau``, mixed with a uniform shuffle of probability ``epsilon``;
    ``candidates_share`` of requests log all their candidates' features, ``propensity_share`` their exact marginal
    propensities. A request finds the shared upstream, the user service or the item-statistics service out with
    probability ``outage_shared``, ``outage_user``, ``outage_item``, independently.

    Raises Refused for a value outside its range.

    >>> WorldParameters(slots=3).theta.round(3)
    array([1.   , 0.5  , 0.333])
    """

    seed: int = 7
    first_day: date = date(2026, 3, 1)
    days: int = 28
    tail_days: int = 0
    requests_per_day: int = 1500
    users: int = 2000
    items: int = 300
    candidates: int = 20
    slots: int = 10
    examination_exponent: float = 1.0
    examination: tuple[float, ...] = ()
    churn: float = 0.02
    quality_trend: float = 0.02
    quality_step: float = 0.1
    content_proxy: float = 0.4
    click_intercept: float = -1.6
    purchase_intercept: float = -2.4
    click_gain: float = 1.0
    purchase_gain: float = 5.0
    window_days: float = 7.0
    fast_delay_days: float = 1.0
    slow_delay_days: float = 6.0
    slow_share: float = 0.5
    request_lag_minutes: float = 3.0
    impression_lag_minutes: float = 5.0
    click_lag_hours: float = 1.0
    purchase_lag_hours: float = 12.0
    batch_delay_hours: float = 6.0
    profile_refresh: float = 0.1
    outage_shared: float = 0.15
    outage_user: float = 0.12
    outage_item: float = 0.08
    tau: float = 0.2
    epsilon: float = 0.02
    candidates_share: float = 1.0
    propensity_share: float = 0.2

    def __post_init__(self) -> None:
        for name in SHARES:
            self._want(name, 0.0 <= getattr(self, name) <= 1.0, "a share in [0, 1]")
        for name in COUNTS:
            self._want(name, getattr(self, name) >= 1, "at least 1")
        for name in POSITIVE:
            self._want(name, getattr(self, name) > 0.0, "more than 0")
        self._want("slots", self.slots <= self.candidates, f"at most candidates ({self.candidates})")
        self._want("candidates", self.candidates <= self.items, f"at most items ({self.items})")
        self._want("tail_days", self.tail_days >= 0, "0 or more")
        self._want("batch_delay_hours", 0.0 <= self.batch_delay_hours < 24.0, "hours in [0, 24)")
        self._want("examination", len(self.examination) in (0, self.slots), f"one value a slot ({self.slots})")
        first_is_one = bool(self.theta[0] == 1.0)
        self._want("examination", first_is_one and bool(np.all((self.theta > 0) & (self.theta <= 1))),
                   "values in (0, 1], the first 1.0")  # fmt: skip

    def _want(self, name: str, holds: bool, wanted: str) -> None:
        if not holds:
            got = f"{name} = {getattr(self, name)!r}"
            raise Refused(what="a world's parameter is out of range", got=got, wanted=wanted, remedy=f"change {name}")

    @property
    def theta(self) -> NDArray[np.float64]:
        """Examination by position, shape (slots,): the probability of being looked at, the first 1."""
        if self.examination:
            return np.asarray(self.examination, dtype=np.float64)
        return np.asarray(np.arange(1, self.slots + 1, dtype=np.float64) ** -self.examination_exponent)

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> WorldParameters:
        """Make parameters from a spec's plain values: ``first_day`` may be an ISO string, ``examination`` a list.

        Raises Refused for an unknown name, with the nearest known one, and for a value of the wrong type.

        >>> WorldParameters.parse({"days": 3, "first_day": "2026-01-31"}).first_day
        datetime.date(2026, 1, 31)
        """
        return cls(**{name: _typed(name, value) for name, value in values.items()})


DEFAULTS: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(WorldParameters)}


def _typed(name: str, value: Any) -> Any:
    if name not in DEFAULTS:
        near = difflib.get_close_matches(name, DEFAULTS, n=1)
        remedy = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(DEFAULTS)}"
        raise Refused(what="unknown parameter of a closed-loop world", got=name, wanted="a known one", remedy=remedy)
    kind = type(DEFAULTS[name])
    try:
        return date.fromisoformat(value) if kind is date and isinstance(value, str) else _cast(kind, value)
    except (TypeError, ValueError) as error:
        raise Refused(what=f"{name} of a closed-loop world has the wrong type", got=repr(value),
                      wanted=f"{kind.__name__}, as in {DEFAULTS[name]!r}",
                      remedy=f"change {name}") from error  # fmt: skip


def _cast(kind: type, value: Any) -> Any:
    if kind is tuple:
        return tuple(float(part) for part in value)
    if (
        isinstance(value, bool)
        or (kind is int and value != int(value))
        or (kind is date and not isinstance(value, date))
    ):
        raise TypeError(value)
    return value if kind is date else kind(value)
