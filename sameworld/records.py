"""What the steps hand to each other and to people: estimates, reasons, and typed errors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


class SameworldError(Exception):
    """An error that a person can act on: what happened, what was got, what was wanted, what to do.

    >>> print(Refused(what="unknown spec key", got="trian", wanted="a known key", remedy="did you mean 'train'?"))
    unknown spec key: got trian; wanted a known key. did you mean 'train'?
    """

    exit_code = 2

    def __init__(self, *, what: str, got: str = "", wanted: str = "", remedy: str = "") -> None:
        self.what, self.got, self.wanted, self.remedy = what, got, wanted, remedy
        parts = [part for part in (f"got {got}" if got else "", f"wanted {wanted}" if wanted else "") if part]
        super().__init__(what + (": " + "; ".join(parts) if parts else "") + (f". {remedy}" if remedy else ""))

    def __reduce__(self) -> tuple[Any, ...]:
        """Come back whole from another process."""
        return _remade, (type(self), self.args, dict(vars(self)))

    def as_record(self) -> dict[str, str]:
        """Return the four parts as a JSON-ready mapping."""
        return {"what": self.what, "got": self.got, "wanted": self.wanted, "remedy": self.remedy}


def _remade(kind: type[SameworldError], args: tuple[Any, ...], parts: dict[str, Any]) -> SameworldError:
    error = kind.__new__(kind, *args)
    vars(error).update(parts)
    return error


class Refused(SameworldError):
    """Bad input or usage; trying again changes nothing."""


class NotYet(SameworldError):
    """Something has not arrived yet; trying again later can help."""

    exit_code = 3


class Blocked(SameworldError):
    """A gate stopped the run. ``uri`` names the artifact that holds every finding."""

    exit_code = 1

    def __init__(self, *, what: str, uri: str = "", findings: tuple[str, ...] = ()) -> None:
        super().__init__(what=what)
        self.uri, self.findings = uri, findings


@dataclass(frozen=True)
class Cannot:
    """Knowledge that is absent, with the reason in words; it stands where the value would."""

    reason: str

    def as_record(self) -> dict[str, str]:
        """Return the JSON form, ``{"cannot": reason}``."""
        return {"cannot": self.reason}


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    def as_record(self) -> dict[str, Any]:
        """Return ``{"value", "low", "high"}``, or the reason why it is no number.

        >>> Estimate(0.5, 0.4, 0.6).as_record()
        {'value': 0.5, 'low': 0.4, 'high': 0.6}
        >>> Estimate(float("nan"), 0, 1).as_record()
        {'cannot': 'the estimate is not a number'}
        """
        if not all(math.isfinite(x) for x in (self.value, self.low, self.high)):
            return Cannot("the estimate is not a number").as_record()
        return {"value": float(self.value), "low": float(self.low), "high": float(self.high)}
