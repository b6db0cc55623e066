"""Does the shift alarm wake up in time, and only then? Simulated logs, judged every day at midnight.

Worlds as in ``delay_curves``: delays of hours to a week, two humps, and a weekly rhythm. Every log has two segments,
each with 20 000 known outcomes or more in 60 days, judged together as the product does (0.001 a day over both).
Steady logs: on how many days is there a false alarm? Claim: on at most 1 % of them, a binomial band that 1 honest count
in 2000 leaves aside; and the weekly rhythm is no more alarming than the others.
Shifting logs: from a midnight on, one segment's outcomes take twice as long, half as long, land a day later (two days
where they take days anyway), or stop to arrive. The alarm must be raised within two days after the old q99 of the
arrival age has passed since the shift, in every log. Days are counted from the shift.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import binom

from benchmarks._delay_worlds import DAY, WORLDS, Delays, Floats, censored, known_ages, shown_times, true_arrivals
from benchmarks.evidence import Claim, finding
from sameworld.maths.delay_shift import shift_alarm
from tasks.measure_delay import ALPHA

LOG_DAYS, RATE, SHARE = 60, 0.2, 0.01
SEGMENTS, SHIFTING = 2, 0  # the first segment shifts, the other stays as it was
SHIFTS = ("slower", "faster", "later", "stopped")


@dataclass(frozen=True)
class Size:
    """How large: impressions a day and segment, steady logs and days on which each is judged, shifting logs."""

    impressions: int
    steady: int
    days: int
    shifting: int


@dataclass(frozen=True)
class Segment:
    """When impressions were shown, and at which age their outcomes are known, in hours."""

    shown: Floats
    known: Floats


SIZES = {
    "small": Size(impressions=2_200, steady=1, days=14, shifting=1),
    "full": Size(impressions=2_200, steady=20, days=28, shifting=20),
}


def run(small: bool) -> dict[str, Any]:
    """Judge steady logs and shifting ones of each world."""
    size = SIZES["small" if small else "full"]
    figures = {delays.name: one_world(delays, size) for delays in WORLDS}
    claims = [claim for name, found in figures.items() for claim in _claims(name, found, size)]
    return finding(seed=0, claims=[*claims, _all_false_alarms(figures, size)], figures=figures)


def one_world(delays: Delays, size: Size) -> dict[str, Any]:
    """Return the days of false alarms, and of each shifting log the day on which the alarm came, none: the last + 1."""
    q99 = float(np.quantile(true_arrivals(delays, 400_000), 0.99))
    deadline = int(q99 // DAY) + 2
    return {
        "q99_days": q99 / DAY,
        "deadline": deadline,
        "events": _known_in_a_log(delays, size),
        "false_alarms": sum(false_alarms(delays, seed, size) for seed in range(size.steady)),
        **{
            kind: [days_to_alarm(delays, kind, deadline, seed, size) for seed in range(size.shifting)]
            for kind in SHIFTS
        },
    }


def _known_in_a_log(delays: Delays, size: Size) -> int:
    segment = _segment(np.random.default_rng(4), delays, LOG_DAYS, size)
    known = censored(segment.shown, segment.known, LOG_DAYS * DAY)[1]
    return int(np.count_nonzero(known <= delays.horizon_hours))


def _segment(rng: np.random.Generator, delays: Delays, days: int, size: Size) -> Segment:
    shown = shown_times(rng, size.impressions * days, days)
    return Segment(shown, np.where(rng.random(shown.size) < RATE, known_ages(rng, shown, delays), np.nan))


def _alarm(segments: list[Segment], delays: Delays, day: int) -> bool:
    """Judge the segments at a midnight, on the 60 days before it, as the product does."""
    return any(_judged(segment, delays, day * DAY, ALPHA / len(segments)) for segment in segments)


def _judged(segment: Segment, delays: Delays, cutoff: float, alpha: float) -> bool:
    read = segment.shown >= cutoff - LOG_DAYS * DAY
    age, arrival = censored(segment.shown[read], segment.known[read], cutoff)
    return shift_alarm(age, arrival, horizon_hours=delays.horizon_hours, alpha=alpha).alarm


def false_alarms(delays: Delays, seed: int, size: Size) -> int:
    """Return on how many days a steady log raises the alarm."""
    rng = np.random.default_rng([3, seed])
    segments = [_segment(rng, delays, LOG_DAYS + size.days, size) for _ in range(SEGMENTS)]
    return sum(_alarm(segments, delays, day) for day in range(LOG_DAYS + 1, LOG_DAYS + size.days + 1))


def days_to_alarm(delays: Delays, kind: str, deadline: int, seed: int, size: Size) -> int:
    """Return how many days after the shift the alarm is raised; one more than the deadline where it is not by then."""
    rng, since = np.random.default_rng([5, seed]), LOG_DAYS + seed % 7  # each weekday is a shift's first
    segments = [_segment(rng, delays, since + deadline, size) for _ in range(SEGMENTS)]
    segments[SHIFTING] = _shifted(rng, segments[SHIFTING], delays, kind, since * DAY)
    days = (day for day in range(1, deadline + 1) if _alarm(segments, delays, since + day))
    return next(days, deadline + 1)


def _shifted(rng: np.random.Generator, segment: Segment, delays: Delays, kind: str, since: float) -> Segment:
    """Let the delays of what is shown from then on be others, or let nothing arrive any more."""
    shown = segment.shown
    if kind == "stopped":
        return Segment(shown, np.where(shown + segment.known < since, segment.known, np.nan))
    stretch, later = {"slower": (2.0, 0.0), "faster": (0.5, 0.0), "later": (1.0, _later_hours(delays))}[kind]
    known = known_ages(rng, shown, replace(delays, stretch=stretch, later_hours=later))
    known = np.where(rng.random(shown.size) < RATE, known, np.nan)
    return Segment(shown, np.where(shown >= since, known, segment.known))


def _later_hours(delays: Delays) -> float:
    return DAY if delays.window_days < 7 else 2 * DAY


def _claims(world: str, found: dict[str, Any], size: Size) -> list[Claim]:
    days = size.steady * size.days
    words = f"{world} ({found['events']:,} outcomes a segment): days of false alarms, of {days}"
    most = int(binom.ppf(0.9995, days, SHARE))
    steady = Claim(words, str(found["false_alarms"]), f"at most {most}", found["false_alarms"] <= most)
    by = f"by day {found['deadline']} (q99 {found['q99_days']:.1f})"
    return [steady, *(_in_time(f"{world}, {kind}", found[kind], by, found["deadline"]) for kind in SHIFTS)]


def _in_time(what: str, days: list[int], by: str, deadline: int) -> Claim:
    late = sum(day > deadline for day in days)
    words = f"median day {np.median(days):g}, last {max(days)}" if not late else f"{late} of {len(days)} not in time"
    return Claim(f"{what}: day of the alarm, {len(days)} logs", words, by, not late)


def _all_false_alarms(figures: dict[str, Any], size: Size) -> Claim:
    days, alarms = len(figures) * size.steady * size.days, sum(found["false_alarms"] for found in figures.values())
    return Claim(f"all worlds: days of false alarms, of {days}", str(alarms), "at most 1 %", alarms <= SHARE * days)
