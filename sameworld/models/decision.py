"""The decision, a pure function of intervals and rules: PROMOTE, HOLD or REJECT, each with its reasons in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sameworld.models.judging import LOWER_IS_BETTER
from sameworld.records import Cannot, Estimate


class Outcome(StrEnum):
    """What happens to the bundle."""

    PROMOTE = "PROMOTE"
    HOLD = "HOLD"
    REJECT = "REJECT"


SEEN_SHARE = 0.01  # of the requests: a rarer outage, or one that only could come, is told of and decides nothing
NAMED = 4  # features of an outage that a reason names


@dataclass(frozen=True)
class Drill:
    """An outage: its features, the share of requests that lacked them all, and the calibration ratio under it.

    drilled : of all rows without the features;  hit : of the requests that lacked them, as they were served
    """

    features: tuple[str, ...]
    request_share: float
    drilled: Estimate | Cannot
    hit: Estimate | Cannot


@dataclass(frozen=True)
class Evidence:
    """What is known about a recipe. Deltas are paired, model minus the other, as the metric counts.

    metric : the deciding metric's name;  days : length of the period judged
    baselines : name -> delta or why there is none;  guardrails : metric -> its estimate
    champion : delta to the champion, why there is none, or None where nothing was ever promoted
    same_recipe : whether the champion was made by the same spec
    shift : why outcomes no longer arrive as they did, if the alarm is raised;  drills : the outages drilled
    """

    metric: str
    days: float
    baselines: Mapping[str, Estimate | Cannot]
    guardrails: Mapping[str, Estimate | Cannot]
    champion: Estimate | Cannot | None
    same_recipe: bool
    shift: str = ""
    drills: Sequence[Drill] = ()


@dataclass(frozen=True)
class Verdict:
    """An outcome and its reasons, the weightiest first."""

    outcome: Outcome
    reasons: tuple[str, ...]


def decide(
    evidence: Evidence,
    *,
    margin: float,
    guardrails: Mapping[str, Sequence[float]],
    drill_calibration: Sequence[float] = (0.0, math.inf),
) -> Verdict:
    """Weigh the evidence.

    A model must beat every baseline (the paired delta's whole interval on the better side), keep every guardrail (its
    interval must not lie wholly outside the range, nor be wider than it), and against a champion: a refresh of the same
    recipe must not be worse by more than ``margin``, another recipe must be better. What its interval leaves open
    HOLDs, with about how many more days settle it; what its interval rules out is a REJECT. So is a calibration ratio
    outside ``drill_calibration`` under an outage that was seen: wholly so without its features, and on the requests
    that really lacked them too, as some features are null with good reason and not by chance. Where outcomes no longer
    arrive as they did, labels and completeness are wrong until the curves have caught up: whatever is found, it HOLDs.
    """
    findings = [_baseline(name, delta, evidence) for name, delta in sorted(evidence.baselines.items())]
    findings += [_guardrail(name, evidence.guardrails[name], guardrails[name]) for name in sorted(guardrails)]
    findings += [found for one in evidence.drills if (found := _drill(one, drill_calibration)) is not None]
    findings.append(_champion(evidence, margin))
    if evidence.shift:
        open_questions = tuple(reason for found, reason in findings if found is not Outcome.PROMOTE)
        return Verdict(Outcome.HOLD, (f"delays have changed: {evidence.shift}", *open_questions))
    for outcome in (Outcome.REJECT, Outcome.HOLD):
        reasons = tuple(reason for found, reason in findings if found is outcome)
        if reasons:
            return Verdict(outcome, reasons)
    return Verdict(Outcome.PROMOTE, tuple(reason for _, reason in findings))


def _better(delta: Estimate, metric: str) -> Estimate:
    """Turn a delta so that more is better."""
    if metric.partition("@")[0] in LOWER_IS_BETTER:
        return Estimate(-delta.value, -delta.high, -delta.low)
    return delta


def _known(found: Estimate | Cannot) -> Estimate | Cannot:
    """An interval that is no number settles nothing, and is said to be none."""
    if isinstance(found, Estimate) and not all(math.isfinite(end) for end in (found.value, found.low, found.high)):
        return Cannot("the estimate is not a number")
    return found


def _baseline(name: str, found: Estimate | Cannot, evidence: Evidence) -> tuple[Outcome, str]:
    found = _known(found)
    if isinstance(found, Cannot):
        return Outcome.HOLD, f"{evidence.metric} against {name}: {found.reason}"
    delta = _better(found, evidence.metric)
    words = f"{evidence.metric} against {name}: {_signed(found)}"
    if delta.low > 0:
        return Outcome.PROMOTE, f"{words}, better"
    if delta.high < 0:
        return Outcome.REJECT, f"{words}, worse"
    return Outcome.HOLD, f"{words}, not settled{_more_days(delta, 0.0, evidence.days)}"


def _guardrail(name: str, found: Estimate | Cannot, bounds: Sequence[float]) -> tuple[Outcome, str]:
    low, high = bounds
    found = _known(found)
    if isinstance(found, Cannot):
        return Outcome.HOLD, f"guardrail {name}: {found.reason}"
    words = f"guardrail {name}: {_interval(found)}, allowed {low:g} to {high:g}"
    if found.low > high or found.high < low:
        return Outcome.REJECT, f"{words}: broken"
    if found.high - found.low > high - low:
        return Outcome.HOLD, f"{words}: the interval is wider than the range, so it cannot be told"
    return Outcome.PROMOTE, words


def _drill(drill: Drill, bounds: Sequence[float]) -> tuple[Outcome, str] | None:
    """Return what an outage says; nothing where it is rare, has no numbers, or leaves the model calibrated enough."""
    low, high = bounds
    drilled, hit = _known(drill.drilled), _known(drill.hit)
    side = 0 if isinstance(drilled, Cannot) else _outside(drilled, bounds)
    if drill.request_share < SEEN_SHARE or not side or isinstance(drilled, Cannot):
        return None
    named = f"without {_named(drill.features)}, as {drill.request_share:.1%} of requests were:"
    words = f"{named} calibration_ratio {_interval(drilled)}, allowed {low:g} to {high:g}"
    if isinstance(hit, Cannot):
        return Outcome.PROMOTE, f"{words}; of those requests themselves it cannot be told: {hit.reason}"
    words = f"{words}; of those requests themselves {_interval(hit)}"
    if _outside(hit, bounds) == side:
        return Outcome.REJECT, f"{words}: broken"
    return (Outcome.PROMOTE, f"{words}: too wide to tell") if hit.high - hit.low > high - low else None


def _outside(found: Estimate, bounds: Sequence[float]) -> int:
    """Return on which side of the range the whole interval lies: -1 below, 1 above, 0 where it touches the range."""
    low, high = bounds
    return 1 if found.low > high else -1 if found.high < low else 0


def _named(features: Sequence[str]) -> str:
    shown = ", ".join(features[:NAMED])
    return shown if len(features) <= NAMED else f"{shown} and {len(features) - NAMED} more"


def _interval(found: Estimate) -> str:
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _champion(evidence: Evidence, margin: float) -> tuple[Outcome, str]:
    if evidence.champion is None:
        return Outcome.PROMOTE, "nothing is in production yet"
    found = _known(evidence.champion)
    if isinstance(found, Cannot):
        words = f"against the champion: {found.reason}"
        if evidence.same_recipe:
            return Outcome.PROMOTE, f"{words}; a refresh of the same recipe"
        return Outcome.HOLD, f"{words}; another recipe must show that it is better"
    delta, needed = _better(found, evidence.metric), -margin if evidence.same_recipe else 0.0
    kind = f"a refresh may lose at most {margin:g}" if evidence.same_recipe else "another recipe must win"
    words = f"{evidence.metric} against the champion: {_signed(found)}; {kind}"
    if delta.low > needed:
        return Outcome.PROMOTE, words
    if delta.high < needed:
        return Outcome.REJECT, words
    return Outcome.HOLD, f"{words}; not settled{_more_days(delta, needed, evidence.days)}"


def _signed(delta: Estimate) -> str:
    return f"{delta.value:+.4f} [{delta.low:+.4f}, {delta.high:+.4f}]"


def _more_days(delta: Estimate, needed: float, days: float) -> str:
    """Say about how many more days bring the interval's end past what is needed, if the value stays as it is.

    Intervals narrow with the root of the days. The end that counts is the one that what is needed lies towards.
    """
    distance = delta.value - needed
    reach = delta.value - delta.low if distance > 0 else delta.high - delta.value
    if distance == 0.0:
        return ", not to be settled at this value"
    more = days * ((reach / distance) ** 2 - 1.0)
    if more > 365:
        return ", not within a year at this rate"
    whole = max(1, math.ceil(more))
    return f", about {whole} more day{'s' * (whole > 1)}"
